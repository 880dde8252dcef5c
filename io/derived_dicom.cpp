#include "io/derived_dicom.h"

#include <dcmtk/config/osconfig.h>
// DCMTK's configuration comes before its other headers.
#include <dcmtk/dcmdata/dcostrmb.h>
#include <dcmtk/dcmdata/dcpxitem.h>
#include <dcmtk/dcmdata/dctk.h>
#include <dcmtk/dcmjpeg/djencode.h>
#include <dcmtk/dcmjpeg/djrplol.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <vector>

#include "io/byte_source.h"
#include "io/dicom_layout.h"
#include "io/output_folder.h"
#include "kernels/error.h"

namespace cinelumen {
namespace {

void check(const OFCondition& condition, const char* what) {
  if (condition.bad()) throw OutputError(std::string("subtracted.dcm: ") + what + ": " + condition.text());
}

void register_encoders() {
  static std::once_flag once;
  std::call_once(once, [] {
    OFLog::configure(OFLogger::OFF_LOG_LEVEL);  // what matters comes back as an error with its place
    DJEncoderRegistration::registerCodecs();
  });
}

/// The header of the DICOM file that the run came from; null where it came from something else.
std::unique_ptr<DcmFileFormat> source_header(const RunDescription& description) {
  namespace fs = std::filesystem;
  if (description.sop_instance_uid.empty()) return nullptr;
  const auto load = [&](const fs::path& path) -> std::unique_ptr<DcmFileFormat> {
    read_dicom_layout(ByteSource::file(path.string()));  // bounds nesting and lengths before DCMTK recurses over them
    auto file = std::make_unique<DcmFileFormat>();
    if (file->loadFileUntilTag(path.c_str(), EXS_Unknown, EGL_noChange, DCM_MaxReadLength, ERM_autoDetect, DCM_PixelData).bad()) return {};
    OFString uid;
    file->getDataset()->findAndGetOFString(DCM_SOPInstanceUID, uid);
    return description.sop_instance_uid == uid.c_str() ? std::move(file) : nullptr;
  };
  if (!fs::is_directory(description.path)) return load(description.path);
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(description.path))
    if (entry.is_regular_file()) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  for (const fs::path& path : paths) try {
      if (looks_like_dicom(ByteSource::file(path.string())))
        if (auto file = load(path)) return file;
    } catch (const InputError&) {  // not one of the run's files
    }
  return nullptr;
}

/// What the derived image takes over from its source. Everything else of the source (private elements, overlays, curves, icons, masks,
/// display tables) speaks of other pixels.
const DcmTagKey taken_over[] = {
    // Patient and study
    DCM_SpecificCharacterSet, DCM_TimezoneOffsetFromUTC, DCM_PatientName, DCM_PatientID, DCM_IssuerOfPatientID, DCM_PatientBirthDate,
    DCM_PatientSex, DCM_PatientAge, DCM_PatientSize, DCM_PatientWeight, DCM_PatientIdentityRemoved, DCM_DeidentificationMethod,
    DCM_DeidentificationMethodCodeSequence, DCM_LongitudinalTemporalInformationModified, DCM_StudyInstanceUID, DCM_StudyDate, DCM_StudyTime,
    DCM_ReferringPhysicianName, DCM_StudyID, DCM_AccessionNumber, DCM_StudyDescription,
    // Series and equipment
    DCM_BodyPartExamined, DCM_Laterality, DCM_ProtocolName, DCM_PerformingPhysicianName, DCM_OperatorsName, DCM_Manufacturer,
    DCM_InstitutionName, DCM_StationName, DCM_ManufacturerModelName, DCM_DeviceSerialNumber, DCM_SoftwareVersions,
    // Image and contrast
    DCM_InstanceNumber, DCM_PatientOrientation, DCM_AcquisitionDate, DCM_AcquisitionTime, DCM_AcquisitionDateTime, DCM_AcquisitionNumber,
    DCM_ContentDate, DCM_ContentTime, DCM_BurnedInAnnotation, DCM_LossyImageCompression, DCM_LossyImageCompressionRatio,
    DCM_LossyImageCompressionMethod, DCM_ContrastBolusAgent, DCM_ContrastBolusRoute, DCM_ContrastBolusVolume, DCM_ContrastBolusStartTime,
    DCM_ContrastBolusStopTime, DCM_ContrastBolusTotalDose, DCM_ContrastFlowRate, DCM_ContrastFlowDuration, DCM_ContrastBolusIngredient,
    DCM_ContrastBolusIngredientConcentration,
    // X-ray acquisition
    DCM_KVP, DCM_RadiationSetting, DCM_RadiationMode, DCM_XRayTubeCurrent, DCM_ExposureTime, DCM_Exposure, DCM_AveragePulseWidth,
    DCM_TypeOfFilters, DCM_IntensifierSize, DCM_FieldOfViewShape, DCM_FieldOfViewDimensions, DCM_ImagerPixelSpacing, DCM_FocalSpots,
    DCM_ImageAndFluoroscopyAreaDoseProduct, DCM_Grid,
    // Geometry
    DCM_DistanceSourceToDetector, DCM_DistanceSourceToPatient, DCM_EstimatedRadiographicMagnificationFactor, DCM_PositionerMotion,
    DCM_PositionerPrimaryAngle, DCM_PositionerSecondaryAngle, DCM_DetectorPrimaryAngle, DCM_DetectorSecondaryAngle, DCM_PixelSpacing,
    DCM_PixelSpacingCalibrationType, DCM_PixelSpacingCalibrationDescription, DCM_PixelAspectRatio,
    // Shutter and collimator
    DCM_ShutterShape, DCM_ShutterLeftVerticalEdge, DCM_ShutterRightVerticalEdge, DCM_ShutterUpperHorizontalEdge,
    DCM_ShutterLowerHorizontalEdge, DCM_CenterOfCircularShutter, DCM_RadiusOfCircularShutter, DCM_VerticesOfThePolygonalShutter,
    DCM_CollimatorShape, DCM_CollimatorLeftVerticalEdge, DCM_CollimatorRightVerticalEdge, DCM_CollimatorUpperHorizontalEdge,
    DCM_CollimatorLowerHorizontalEdge, DCM_CenterOfCircularCollimator, DCM_RadiusOfCircularCollimator,
    DCM_VerticesOfThePolygonalCollimator};

/// Type 2: must be there, may be empty.
const DcmTagKey may_be_empty[] = {DCM_PatientName,
                                  DCM_PatientID,
                                  DCM_PatientBirthDate,
                                  DCM_PatientSex,
                                  DCM_StudyDate,
                                  DCM_StudyTime,
                                  DCM_StudyID,
                                  DCM_AccessionNumber,
                                  DCM_ReferringPhysicianName,
                                  DCM_Manufacturer,
                                  DCM_PatientOrientation,
                                  DCM_ContrastBolusAgent,
                                  DCM_KVP,
                                  DCM_XRayTubeCurrent,
                                  DCM_ExposureTime,
                                  DCM_Exposure,
                                  DCM_PositionerPrimaryAngle,
                                  DCM_PositionerSecondaryAngle};

std::string decimal_string(double value) {
  char text[32];
  for (int digits = 10; digits > 3; --digits) {
    std::snprintf(text, sizeof text, "%.*g", digits, value);
    if (std::strlen(text) <= 16) break;
  }
  return text;
}

void set(DcmItem& item, const DcmTagKey& tag, const std::string& value) {
  check(item.putAndInsertString(tag, value.c_str()), DcmTag(tag).getTagName());
}

void set_if_absent(DcmItem& item, const DcmTagKey& tag, const std::string& value) {
  if (!item.tagExistsWithValue(tag)) set(item, tag, value);
}

void set_code(DcmItem& item, const DcmTagKey& sequence, const char* value, const char* meaning) {
  DcmItem* code = nullptr;
  check(item.findOrCreateSequenceItem(sequence, code, -2), "code sequence");
  set(*code, DCM_CodeValue, value);
  set(*code, DCM_CodingSchemeDesignator, "DCM");
  set(*code, DCM_CodeMeaning, meaning);
}

/// Printable ASCII, at most `limit` characters: no character set and no control character can go wrong.
std::string ascii(std::string text, std::size_t limit) {
  for (char& c : text)
    if (c < 0x20 || c > 0x7e || c == '\\') c = '?';
  return text.substr(0, limit);
}

std::string identity(const RunDescription& description) {
  if (!description.sop_instance_uid.empty()) return description.sop_instance_uid;
  return description.sha256.empty() ? description.path : description.sha256;
}

void set_frame_times(DcmItem& dataset, const Run& run, const Derivation& derivation) {
  if (derivation.frames < 2) return;
  const auto& times = run.frame_times_ms;
  const int first = derivation.first_frame, last = first + derivation.frames - 1;
  const bool known = last < static_cast<int>(times.size());
  const double step = known ? (times[last] - times[first]) / (derivation.frames - 1) : 0;
  bool even = known;
  std::string increments = "0";
  for (int frame = first + 1; frame <= last; ++frame) {
    const double increment = known ? times[frame] - times[frame - 1] : 0;
    even = even && std::abs(increment - step) < 1e-3;
    increments += "\\" + decimal_string(std::round(increment * 1e6) / 1e6);
  }
  const DcmTagKey pointer = even ? DCM_FrameTime : DCM_FrameTimeVector;
  if (even)
    set(dataset, DCM_FrameTime, decimal_string(std::round(step * 1e6) / 1e6));
  else
    set(dataset, DCM_FrameTimeVector, increments);
  const Uint16 tag[2] = {pointer.getGroup(), pointer.getElement()};
  check(dataset.putAndInsertTagKey(DCM_FrameIncrementPointer, DcmTagKey(tag[0], tag[1])), "Frame Increment Pointer");
}

void set_geometry(DcmItem& dataset, const AcquisitionGeometry& geometry) {
  const auto number = [&](const DcmTagKey& tag, const std::optional<double>& value) {
    if (value) set_if_absent(dataset, tag, decimal_string(*value));
  };
  number(DCM_DistanceSourceToDetector, geometry.source_to_detector_mm);
  number(DCM_DistanceSourceToPatient, geometry.source_to_patient_mm);
  number(DCM_EstimatedRadiographicMagnificationFactor, geometry.magnification);
  number(DCM_PositionerPrimaryAngle, geometry.primary_angle_deg);
  number(DCM_PositionerSecondaryAngle, geometry.secondary_angle_deg);
  if (geometry.imager_pixel_spacing_mm)
    set_if_absent(dataset, DCM_ImagerPixelSpacing,
                  decimal_string((*geometry.imager_pixel_spacing_mm)[0]) + "\\" + decimal_string((*geometry.imager_pixel_spacing_mm)[1]));
}

void append_little_endian(std::string& bytes, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
}

std::string item_header(std::uint32_t length) {
  std::string bytes("\xfe\xff\x00\xe0", 4);
  append_little_endian(bytes, length);
  return bytes;
}

}  // namespace

std::string derived_uid(const std::string& source_uid, const Derivation& derivation, const std::string& purpose) {
  const std::string text = source_uid + "\n" + derivation.version + "\n" + derivation.description + "\n" +
                           std::to_string(derivation.first_frame) + "+" + std::to_string(derivation.frames) + "\n" + purpose;
  const std::string digest = sha256(ByteSource::memory("derivation", {text.begin(), text.end()}));
  std::string digits = digest.substr(0, 32);
  digits[12] = '8';  // a UUID of version 8, variant 1 (RFC 9562): what the root 2.25 asks for
  digits[16] = "89ab"[std::stoi(digits.substr(16, 1), nullptr, 16) % 4];
  std::string decimal;
  while (!digits.empty()) {  // long division by ten of the hexadecimal number
    int remainder = 0;
    std::string quotient;
    for (const char digit : digits) {
      const int value = remainder * 16 + (digit <= '9' ? digit - '0' : digit - 'a' + 10);
      if (!quotient.empty() || value / 10) quotient.push_back("0123456789abcdef"[value / 10]);
      remainder = value % 10;
    }
    decimal.insert(decimal.begin(), static_cast<char>('0' + remainder));
    digits = quotient;
  }
  return "2.25." + decimal;
}

struct DerivedDicomWriter::State {
  State(const std::filesystem::path& path, const Derivation& what) : file(path), derivation(what) {}
  OutputFile file;
  Derivation derivation;
  int rows = 0, columns = 0, added = 0;
  std::size_t table_at = 0, fragments_at = 0;
  std::string offsets;  ///< the basic offset table; empty where 32 bits might not do
  bool with_table = false;
};

DerivedDicomWriter::DerivedDicomWriter(const Run& run, const std::filesystem::path& path, const Derivation& derivation) {
  require(derivation.frames > 0 && derivation.first_frame >= 0, "DerivedDicomWriter: frames must be at least 1");
  register_encoders();
  const RunDescription& description = run.description;
  const std::unique_ptr<DcmFileFormat> source = source_header(description);
  DcmFileFormat derived;
  DcmDataset& dataset = *derived.getDataset();
  if (source)
    for (const DcmTagKey& tag : taken_over) {
      DcmElement* element = nullptr;
      if (source->getDataset()->findAndGetElement(tag, element, OFFalse, OFTrue).good() && dataset.insert(element, OFTrue).bad())
        delete element;
    }
  for (const DcmTagKey& tag : may_be_empty)
    if (!dataset.tagExists(tag)) check(dataset.insertEmptyElement(tag), DcmTag(tag).getTagName());

  const std::string source_uid = identity(description);
  set(dataset, DCM_SOPClassUID, UID_XRayAngiographicImageStorage);
  set(dataset, DCM_SOPInstanceUID, derived_uid(source_uid, derivation, "instance"));
  set_if_absent(dataset, DCM_StudyInstanceUID, derived_uid(source_uid, {}, "study"));
  set(dataset, DCM_SeriesInstanceUID, derived_uid(source_uid, derivation, "series"));
  set(dataset, DCM_Modality, "XA");
  Sint32 series = 0;
  if (source) source->getDataset()->findAndGetSint32(DCM_SeriesNumber, series);
  set(dataset, DCM_SeriesNumber, std::to_string(series > 0 && series < 100000 ? series + 900000 : 900000));
  set(dataset, DCM_SeriesDescription, derivation.subtracted ? "CineLumen subtracted" : "CineLumen log attenuation");
  set_if_absent(dataset, DCM_InstanceNumber, "1");
  if (!dataset.tagExists(DCM_Laterality)) check(dataset.insertEmptyElement(DCM_Laterality), "Laterality");

  std::string plane = "SINGLE PLANE";
  if (source) {
    OFString third;
    if (source->getDataset()->findAndGetOFString(DCM_ImageType, third, 2).good() && (third == "BIPLANE A" || third == "BIPLANE B"))
      plane = third.c_str();
    DcmElement* biplane = nullptr;
    if (plane != "SINGLE PLANE" && source->getDataset()->findAndGetElement(DCM_ReferencedImageSequence, biplane, OFFalse, OFTrue).good() &&
        dataset.insert(biplane).bad())
      delete biplane;
    if (!dataset.tagExistsWithValue(DCM_ReferencedImageSequence)) plane = "SINGLE PLANE";
  }
  set(dataset, DCM_ImageType, "DERIVED\\PRIMARY\\" + plane);
  set(dataset, DCM_DerivationDescription,
      ascii("CineLumen " + derivation.version + ": " + derivation.description + "; value = 32768 - 4096 x added log attenuation", 1024));
  if (derivation.subtracted) set_code(dataset, DCM_DerivationCodeSequence, "113062", "Pixel by pixel subtraction");
  if (!description.sop_instance_uid.empty() && !description.sop_class_uid.empty()) {
    DcmItem* reference = nullptr;
    check(dataset.findOrCreateSequenceItem(DCM_SourceImageSequence, reference, -2), "Source Image Sequence");
    set(*reference, DCM_ReferencedSOPClassUID, description.sop_class_uid);
    set(*reference, DCM_ReferencedSOPInstanceUID, description.sop_instance_uid);
    set_code(*reference, DCM_PurposeOfReferenceCodeSequence, "121322", "Source image for image processing operation");
  }
  DcmItem* equipment = nullptr;
  check(dataset.findOrCreateSequenceItem(DCM_ContributingEquipmentSequence, equipment, -2), "Contributing Equipment Sequence");
  set_code(*equipment, DCM_PurposeOfReferenceCodeSequence, "109103", "Modifying Equipment");
  set(*equipment, DCM_Manufacturer, "CineLumen");
  set(*equipment, DCM_ManufacturerModelName, "CineLumen");
  set(*equipment, DCM_SoftwareVersions, ascii(derivation.version, 64));
  set(*equipment, DCM_ContributionDescription, ascii(derivation.description, 1024));

  set_frame_times(dataset, run, derivation);
  set_geometry(dataset, run.geometry);
  set_if_absent(dataset, DCM_RadiationSetting, "GR");
  if (derivation.frames > 1) set_if_absent(dataset, DCM_PositionerMotion, "STATIC");
  if (derivation.frames > 1) {
    set(dataset, DCM_NumberOfFrames, std::to_string(derivation.frames));
    // Nothing is left to subtract. The viewing mode is an attribute of the Mask Module, whose sequence then has to be there.
    set(dataset, DCM_RecommendedViewingMode, "NAT");
    DcmItem* mask = nullptr;
    check(dataset.findOrCreateSequenceItem(DCM_MaskSubtractionSequence, mask, -2), "Mask Subtraction Sequence");
    set(*mask, DCM_MaskOperation, "NONE");
  }

  const auto put = [&](const DcmTagKey& tag, Uint16 value) { check(dataset.putAndInsertUint16(tag, value), DcmTag(tag).getTagName()); };
  put(DCM_SamplesPerPixel, 1);
  set(dataset, DCM_PhotometricInterpretation, "MONOCHROME2");
  put(DCM_Rows, static_cast<Uint16>(run.rows()));
  put(DCM_Columns, static_cast<Uint16>(run.columns()));
  put(DCM_BitsAllocated, 16);
  put(DCM_BitsStored, 16);
  put(DCM_HighBit, 15);
  put(DCM_PixelRepresentation, 0);
  set(dataset, DCM_PixelIntensityRelationship, "LOG");
  check(dataset.putAndInsertSint16(DCM_PixelIntensityRelationshipSign, 1), "Pixel Intensity Relationship Sign");
  set(dataset, DCM_RescaleIntercept, "0");  // asked for with LOG; the identity, so that windows speak of stored values
  set(dataset, DCM_RescaleSlope, "1");
  set(dataset, DCM_RescaleType, "US");
  const double low = 32768 - 4096.0 * derivation.window.black, high = 32768 - 4096.0 * derivation.window.white;
  set(dataset, DCM_WindowCenter, decimal_string(std::round((low + high) / 2)));
  set(dataset, DCM_WindowWidth, decimal_string(std::max(2.0, std::round(high - low))));

  constexpr E_TransferSyntax syntax = EXS_JPEGProcess14SV1;
  check(derived.validateMetaInfo(syntax, EWM_createNewMeta), "meta information");
  std::vector<Uint8> buffer(derived.calcElementLength(syntax, EET_ExplicitLength) + (1u << 16));
  DcmOutputBufferStream stream(buffer.data(), static_cast<offile_off_t>(buffer.size()));
  derived.transferInit();
  check(derived.write(stream, syntax, EET_ExplicitLength, nullptr), "header");
  derived.transferEnd();
  void* bytes = nullptr;
  offile_off_t length = 0;
  stream.flushBuffer(bytes, length);

  state_ = std::make_unique<State>(path, derivation);
  State& state = *state_;
  state.rows = run.rows(), state.columns = run.columns();
  state.file.write({static_cast<const char*>(bytes), static_cast<std::size_t>(length)});
  std::string head("\xe0\x7f\x10\x00OB\x00\x00", 8);
  append_little_endian(head, 0xffffffffu);
  state.file.write(head);
  // Room for the offset table, filled in at the end; without one where offsets may leave 32 bits.
  state.with_table = 2.5 * state.rows * double(state.columns) * derivation.frames < 4e9;
  const auto table_size = static_cast<std::uint32_t>(state.with_table ? 4 * derivation.frames : 0);
  state.file.write(item_header(table_size));
  state.table_at = state.file.size();
  state.file.write(std::string(table_size, '\0'));
  state.fragments_at = state.file.size();
}

DerivedDicomWriter::~DerivedDicomWriter() = default;

std::string DerivedDicomWriter::encode(ImageView<const float> added_attenuation) const {
  const State& state = *state_;
  require(added_attenuation.height == state.rows && added_attenuation.width == state.columns,
          "DerivedDicomWriter: the frame's size differs from the run's");
  std::vector<Uint16> values(std::size_t(state.rows) * state.columns);
  for (int y = 0; y < state.rows; ++y) {
    const float* from = added_attenuation.row(y);
    Uint16* to = values.data() + std::size_t(y) * state.columns;
#pragma GCC ivdep
    for (int x = 0; x < state.columns; ++x) {
      float value = 32768.5f - 4096 * from[x];
      value = value == value ? value : 32768.5f;
      value = value < 65535 ? value : 65535.0f;
      to[x] = static_cast<Uint16>(static_cast<int>(value > 0 ? value : 0.0f));
    }
  }

  DcmDataset picture;
  const auto put = [&](const DcmTagKey& tag, Uint16 value) { check(picture.putAndInsertUint16(tag, value), "frame"); };
  set(picture, DCM_PhotometricInterpretation, "MONOCHROME2");
  put(DCM_SamplesPerPixel, 1);
  put(DCM_Rows, static_cast<Uint16>(state.rows));
  put(DCM_Columns, static_cast<Uint16>(state.columns));
  put(DCM_BitsAllocated, 16);
  put(DCM_BitsStored, 16);
  put(DCM_HighBit, 15);
  put(DCM_PixelRepresentation, 0);
  check(picture.putAndInsertUint16Array(DCM_PixelData, values.data(), static_cast<unsigned long>(values.size())), "frame");
  const DJ_RPLossless parameters(1, 0);
  check(picture.chooseRepresentation(EXS_JPEGProcess14SV1, &parameters), "JPEG Lossless encoder");
  DcmElement* element = nullptr;
  check(picture.findAndGetElement(DCM_PixelData, element), "JPEG Lossless encoder");
  DcmPixelSequence* sequence = nullptr;
  E_TransferSyntax encoded = EXS_Unknown;
  const DcmRepresentationParameter* unused = nullptr;
  auto* pixels = OFstatic_cast(DcmPixelData*, element);
  pixels->getCurrentRepresentationKey(encoded, unused);
  check(pixels->getEncapsulatedRepresentation(encoded, unused, sequence), "JPEG Lossless encoder");
  DcmPixelItem* fragment = nullptr;
  check(sequence->getItem(fragment, 1), "JPEG Lossless encoder");
  Uint8* bytes = nullptr;
  check(fragment->getUint8Array(bytes), "JPEG Lossless encoder");
  return {reinterpret_cast<const char*>(bytes), fragment->getLength()};
}

void DerivedDicomWriter::append(const std::string& encoded) {
  State& state = *state_;
  if (state.added == state.derivation.frames) throw std::logic_error("DerivedDicomWriter: more frames than announced");
  const auto length = static_cast<std::uint32_t>(encoded.size());
  if (state.with_table) append_little_endian(state.offsets, static_cast<std::uint32_t>(state.file.size() - state.fragments_at));
  state.file.write(item_header(length + length % 2));
  state.file.write(encoded);
  if (length % 2) state.file.write(std::string_view("\0", 1));
  ++state.added;
}

void DerivedDicomWriter::finish() {
  State& state = *state_;
  if (state.added != state.derivation.frames) throw std::logic_error("DerivedDicomWriter: fewer frames than announced");
  state.file.write(std::string_view("\xfe\xff\xdd\xe0\x00\x00\x00\x00", 8));
  if (state.with_table) state.file.write_at(state.table_at, state.offsets);
  state.file.close();
}

}  // namespace cinelumen
