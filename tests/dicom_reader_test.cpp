/// DICOM runs written here and read back: codecs, headers, and what must be refused.

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <cmath>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <random>
#include <thread>

#include "io/dicom_layout.h"
#include "io/run_reader.h"
#include "support/dicom_writer.h"

namespace cinelumen {
namespace {

using test::add_table;
using test::tag;
using test::TemporaryFolder;
using test::write_dicom;
using test::WrittenRun;

Image<std::uint16_t> frame_of(const cinelumen::Run& run, int frame) {
  Image<std::uint16_t> image(run.rows(), run.columns());
  run.frames->read_frame(frame, image.view());
  return image;
}

/// What the engine should see for a stored sample.
std::uint16_t expected(const WrittenRun& run, std::uint16_t sample) {
  const int high = run.high_bit < 0 ? run.bits_stored - 1 : run.high_bit;
  const unsigned mask = (1u << run.bits_stored) - 1;
  const unsigned stored = (sample >> (high + 1 - run.bits_stored)) & mask;
  return static_cast<std::uint16_t>(run.is_signed ? stored ^ (1u << (run.bits_stored - 1)) : stored);
}

void expect_pixels(const cinelumen::Run& read, const WrittenRun& written) {
  ASSERT_EQ(read.frame_count(), written.frames);
  ASSERT_EQ(read.rows(), written.rows);
  ASSERT_EQ(read.columns(), written.columns);
  // Backwards: frames are found without those before them.
  for (int frame = written.frames - 1; frame >= 0; --frame) {
    const Image<std::uint16_t> image = frame_of(read, frame);
    for (int y = 0; y < written.rows; ++y)
      for (int x = 0; x < written.columns; ++x) {
        const std::size_t i = static_cast<std::size_t>(frame) * written.pixel_count() + static_cast<std::size_t>(y * written.columns + x);
        ASSERT_EQ(image(y, x), expected(written, written.samples[i])) << "frame " << frame << " at (" << y << ", " << x << ")";
      }
  }
}

/// Fails unless reading (header or any frame) is an InputError of one line that holds every one of `words`.
void expect_refused(const std::string& path, std::initializer_list<const char*> words) {
  try {
    const cinelumen::Run run = read_run(path);
    for (int frame = 0; frame < run.frame_count(); ++frame) frame_of(run, frame);
    FAIL() << path << " was accepted";
  } catch (const InputError& error) {
    const std::string what = error.what();
    EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    EXPECT_EQ(what.rfind(path, 0), 0u) << "the message doesn't begin with the file: " << what;
    for (const char* word : words) EXPECT_NE(what.find(word), std::string::npos) << "\"" << word << "\" is missing in: " << what;
  }
}

bool warns(const cinelumen::Run& run, const std::string& words) {
  return std::any_of(run.warnings.begin(), run.warnings.end(),
                     [&](const std::string& warning) { return warning.find(words) != std::string::npos; });
}

class DicomReader : public ::testing::Test {
 protected:
  cinelumen::Run read(WrittenRun run) { return read_run(write_dicom(folder_ / "run.dcm", std::move(run))); }
  /// A small run whose data set `change` has altered.
  cinelumen::Run read_with(const std::function<void(DcmDataset&)>& change) {
    WrittenRun run;
    run.add = change;
    return read(run);
  }
  void refuse_with(const std::function<void(DcmDataset&)>& change, std::initializer_list<const char*> words) {
    WrittenRun run;
    run.add = change;
    expect_refused(write_dicom(folder_ / "bad.dcm", run), words);
  }
  TemporaryFolder folder_;
};

struct Depth {
  const char* name;
  int allocated, stored;
  bool is_signed;
};
struct CodecCase {
  const char* name;
  const char* uid;
};
class Codecs : public ::testing::TestWithParam<std::tuple<CodecCase, Depth>> {};

TEST_P(Codecs, RoundTripIsExact) {
  const auto& [codec, depth] = GetParam();
  if (std::string(codec.name) == "jpeg_ls" && std::string(depth.name) == "signed12")
    GTEST_SKIP() << "DCMTK's JPEG-LS encoder can't write it";
  TemporaryFolder folder;
  WrittenRun run;
  run.transfer_syntax = codec.uid;
  run.bits_allocated = depth.allocated;
  run.bits_stored = depth.stored;
  run.is_signed = depth.is_signed;
  run.fill();
  const cinelumen::Run read = read_run(write_dicom(folder / "run.dcm", run));
  expect_pixels(read, run);
  EXPECT_EQ(read.description.transfer_syntax, codec.uid);
  EXPECT_EQ(read.intensity.bits_stored, depth.stored);
  ASSERT_EQ(read.intensity.value.size(), std::size_t(1) << depth.stored);
  EXPECT_EQ(read.intensity.value[0], depth.is_signed ? -static_cast<float>(1 << (depth.stored - 1)) : 0.f);
  EXPECT_EQ(read.intensity.value[5] - read.intensity.value[4], 1.f);
}

INSTANTIATE_TEST_SUITE_P(
    , Codecs,
    ::testing::Combine(::testing::Values(CodecCase{"implicit", UID_LittleEndianImplicitTransferSyntax},
                                         CodecCase{"explicit", UID_LittleEndianExplicitTransferSyntax},
                                         CodecCase{"big_endian", UID_BigEndianExplicitTransferSyntax},
                                         CodecCase{"deflated", UID_DeflatedExplicitVRLittleEndianTransferSyntax},
                                         CodecCase{"rle", UID_RLELosslessTransferSyntax},
                                         CodecCase{"jpeg_lossless", UID_JPEGProcess14TransferSyntax},
                                         CodecCase{"jpeg_lossless_sv1", UID_JPEGProcess14SV1TransferSyntax},
                                         CodecCase{"jpeg_ls", UID_JPEGLSLosslessTransferSyntax},
                                         CodecCase{"jpeg_2000", UID_JPEG2000LosslessOnlyTransferSyntax}),
                       ::testing::Values(Depth{"8", 8, 8, false}, Depth{"12", 16, 12, false}, Depth{"16", 16, 16, false},
                                         Depth{"signed16", 16, 16, true}, Depth{"signed12", 16, 12, true})),
    [](const auto& param) { return std::string(std::get<0>(param.param).name) + "_" + std::get<1>(param.param).name; });

TEST_F(DicomReader, MasksGarbageAboveBitsStoredAndHonoursHighBit) {
  for (const char* syntax : {UID_LittleEndianExplicitTransferSyntax, UID_BigEndianExplicitTransferSyntax, UID_RLELosslessTransferSyntax})
    for (const int high_bit : {11, 15}) {
      WrittenRun run;
      run.transfer_syntax = syntax;
      run.high_bit = high_bit;
      run.bits_stored = 12;
      std::mt19937 random(3);
      run.samples.resize(run.pixel_count() * 3);
      for (auto& sample : run.samples) sample = static_cast<std::uint16_t>(random());
      expect_pixels(read(run), run);
    }
}

TEST_F(DicomReader, BaselineJpegMatchesAnotherDecoder) {
  WrittenRun run;
  run.transfer_syntax = UID_JPEGProcess1TransferSyntax;
  run.bits_allocated = run.bits_stored = 8;
  run.rows = 64;
  run.columns = 80;
  cv::Mat picture(run.rows, run.columns, CV_8U);
  for (int y = 0; y < run.rows; ++y)
    for (int x = 0; x < run.columns; ++x) picture.at<std::uint8_t>(y, x) = static_cast<std::uint8_t>(40 + x + y + (x / 9 % 2) * 60);
  std::vector<std::uint8_t> stream;
  cv::imencode(".jpg", picture, stream, {cv::IMWRITE_JPEG_QUALITY, 95});
  run.codestreams.assign(3, {stream});
  const cinelumen::Run result = read(run);
  const cv::Mat decoded = cv::imdecode(stream, cv::IMREAD_GRAYSCALE);
  const Image<std::uint16_t> image = frame_of(result, 2);
  for (int y = 0; y < run.rows; ++y)
    for (int x = 0; x < run.columns; ++x) ASSERT_NEAR(image(y, x), decoded.at<std::uint8_t>(y, x), 1) << y << ", " << x;
}

TEST_F(DicomReader, FragmentsFindTheirFrames) {
  WrittenRun run;
  run.transfer_syntax = UID_JPEG2000LosslessOnlyTransferSyntax;
  run.fill();
  for (int frame = 0; frame < 3; ++frame) {
    const auto whole = test::encode_jpeg2000(run.samples.data() + static_cast<std::size_t>(frame) * run.pixel_count(), 33, 47, 12, false);
    // Frame 1 in one piece, frame 2 in two, frame 3 in three; fragments are of even length.
    std::vector<std::vector<std::uint8_t>> pieces;
    const std::size_t step = (whole.size() / static_cast<std::size_t>(frame + 1) + 2) & ~std::size_t(1);
    for (std::size_t at = 0; at < whole.size(); at += step)
      pieces.emplace_back(whole.begin() + static_cast<std::ptrdiff_t>(at),
                          whole.begin() + static_cast<std::ptrdiff_t>(std::min(at + step, whole.size())));
    run.codestreams.push_back(pieces);
  }
  expect_pixels(read(run), run);
  run.offset_table = false;
  expect_pixels(read(run), run);
  WrittenRun fewer = run;
  fewer.frames = 2;
  const cinelumen::Run two = read(fewer);
  EXPECT_TRUE(warns(two, "the header's number")) << "the file holds three frames";
  EXPECT_EQ(two.frame_count(), 2);
  WrittenRun more = run;
  more.frames = 5;
  more.samples.resize(more.pixel_count() * 5);
  expect_refused(write_dicom(folder_ / "more.dcm", more), {"Number of Frames", "5", "fragments"});

  run.offset_table = true;
  const std::string path = write_dicom(folder_ / "table.dcm", run);
  auto bytes = test::file_bytes(path);
  const auto layout = read_dicom_layout(ByteSource::file(path));
  bytes[layout.offset_table.offset + 4] ^= 0x10;
  test::write_bytes(path, bytes);
  const cinelumen::Run repaired = read_run(path);
  EXPECT_TRUE(warns(repaired, "offset table"));
  expect_pixels(repaired, run);
}

TEST_F(DicomReader, CodestreamsOfAnotherSizeOrDepthAreRefused) {
  WrittenRun run;
  run.transfer_syntax = UID_JPEG2000LosslessOnlyTransferSyntax;
  run.fill();
  run.codestreams.assign(3, {test::encode_jpeg2000(run.samples.data(), 32, 47, 12, false)});
  expect_refused(write_dicom(folder_ / "size.dcm", run), {"frame 1", "47 x 32", "47 x 33"});
  run.codestreams.assign(3, {test::encode_jpeg2000(run.samples.data(), 33, 47, 10, false)});
  expect_refused(write_dicom(folder_ / "depth.dcm", run), {"10 bits", "12 bits"});
  run.codestreams.assign(3, {test::encode_jpeg2000(run.samples.data(), 33, 47, 12, true)});
  expect_refused(write_dicom(folder_ / "sign.dcm", run), {"12 bits signed", "12 bits unsigned"});
  for (const char* syntax : {UID_JPEGProcess14SV1TransferSyntax, UID_JPEGLSLosslessTransferSyntax, UID_RLELosslessTransferSyntax}) {
    WrittenRun other;
    other.transfer_syntax = syntax;
    other.add = [](DcmDataset& data) { data.putAndInsertUint16(DCM_Columns, 48); };
    expect_refused(write_dicom(folder_ / "columns.dcm", other), {"frame 1"});
    other.add = [](DcmDataset& data) {
      data.putAndInsertUint16(DCM_Columns, 8000);
      data.putAndInsertUint16(DCM_Rows, 8000);
    };
    expect_refused(write_dicom(folder_ / "huge.dcm", other), {"frame 1"});
  }
}

TEST_F(DicomReader, SignAndMonochrome1) {
  EXPECT_EQ(read_with({}).intensity.sign, 1);
  WrittenRun inverse;
  inverse.photometric = "MONOCHROME1";
  inverse.fill();
  const cinelumen::Run run = read(inverse);
  EXPECT_EQ(run.intensity.sign, -1);
  expect_pixels(run, inverse);  // as stored: the sign tells, the pixels stay
  inverse.add = [](DcmDataset& data) { data.putAndInsertSint16(DCM_PixelIntensityRelationshipSign, 1); };
  EXPECT_EQ(read(inverse).intensity.sign, 1) << "the file's own sign counts";
  EXPECT_EQ(read_with([](DcmDataset& data) { data.putAndInsertSint16(DCM_PixelIntensityRelationshipSign, -1); }).intensity.sign, -1);
  const cinelumen::Run falling = read_with([](DcmDataset& data) {
    data.putAndInsertString(DCM_RescaleSlope, "-2");
    data.putAndInsertString(DCM_RescaleIntercept, "10000");
  });
  EXPECT_EQ(falling.intensity.sign, -1);
  EXPECT_EQ(falling.intensity.value[100], 9800.f);
}

TEST_F(DicomReader, IntensityRelationships) {
  const auto with = [&](const char* relationship) {
    return read_with([=](DcmDataset& data) { data.putAndInsertString(DCM_PixelIntensityRelationship, relationship); });
  };
  EXPECT_EQ(with("LIN").intensity.relationship, IntensityRelationship::linear);
  EXPECT_EQ(with("LOG").intensity.relationship, IntensityRelationship::logarithmic);
  EXPECT_EQ(with("DISP").intensity.relationship, IntensityRelationship::display);
  EXPECT_FALSE(warns(with("DISP"), "vendor"));
  const cinelumen::Run vendor = with("SQRT");
  EXPECT_EQ(vendor.intensity.relationship, IntensityRelationship::display);
  EXPECT_EQ(vendor.intensity.relationship_as_stored, "SQRT");
  EXPECT_TRUE(warns(vendor, "SQRT"));
  const cinelumen::Run absent = read_with([](DcmDataset& data) { data.findAndDeleteElement(DCM_PixelIntensityRelationship); });
  EXPECT_EQ(absent.intensity.relationship, IntensityRelationship::display);
  EXPECT_TRUE(warns(absent, "(0028,1040) is absent"));
}

TEST_F(DicomReader, LookUpTables) {
  std::vector<Uint16> exponential(4096), straight(4096), logarithm(4096);
  for (int i = 0; i < 4096; ++i) {
    exponential[static_cast<std::size_t>(i)] = static_cast<Uint16>(std::lround(60000 * std::exp((i - 4095) / 1000.0)));
    straight[static_cast<std::size_t>(i)] = static_cast<Uint16>(2 * i + 7);
    logarithm[static_cast<std::size_t>(i)] = static_cast<Uint16>(std::lround(7000 * std::log(i + 1.0)));
  }
  const auto with = [&](const char* relationship, const std::function<void(DcmDataset&)>& more) {
    return read_with([=](DcmDataset& data) {
             data.putAndInsertString(DCM_PixelIntensityRelationship, relationship);
             more(data);
           })
        .intensity;
  };
  const IntensityEncoding modality = with("LOG", [&](DcmDataset& data) { add_table(data, DCM_ModalityLUTSequence, 0, exponential); });
  EXPECT_EQ(modality.relationship, IntensityRelationship::linear);
  EXPECT_EQ(modality.value[4095], 60000.f);
  EXPECT_EQ(modality.value[1000], static_cast<float>(exponential[1000]));
  const IntensityEncoding affine = with("LOG", [&](DcmDataset& data) { add_table(data, DCM_ModalityLUTSequence, 0, straight); });
  EXPECT_EQ(affine.relationship, IntensityRelationship::logarithmic);
  EXPECT_EQ(affine.value[10], 27.f);
  const auto function = [](DcmItem* item, const char* name) { item->putAndInsertString(DCM_LUTFunction, name); };
  const IntensityEncoding to_linear = with("DRM", [&](DcmDataset& data) {
    function(add_table(data, DCM_PixelIntensityRelationshipLUTSequence, 0, logarithm), "TO_LOG");
    function(add_table(data, DCM_PixelIntensityRelationshipLUTSequence, 0, exponential), "TO_LINEAR");
  });
  EXPECT_EQ(to_linear.relationship, IntensityRelationship::linear) << "TO_LINEAR goes before TO_LOG";
  EXPECT_EQ(to_linear.value[4095], 60000.f);
  EXPECT_EQ(to_linear.relationship_as_stored, "DRM");
  const IntensityEncoding to_log =
      with("DISP", [&](DcmDataset& data) { function(add_table(data, DCM_PixelIntensityRelationshipLUTSequence, 0, logarithm), "TO_LOG"); });
  EXPECT_EQ(to_log.relationship, IntensityRelationship::logarithmic);
  EXPECT_EQ(to_log.value[500], static_cast<float>(logarithm[500]));
  // A short table that begins at 100: its ends are repeated.
  const IntensityEncoding part = with("LIN", [&](DcmDataset& data) { add_table(data, DCM_ModalityLUTSequence, 100, {5, 6, 9}); });
  EXPECT_EQ(part.value[0], 5.f);
  EXPECT_EQ(part.value[101], 6.f);
  EXPECT_EQ(part.value[4095], 9.f);
  const cinelumen::Run broken = read_with([](DcmDataset& data) {
    DcmItem* item = add_table(data, DCM_ModalityLUTSequence, 0, {1, 2, 3});
    const Uint16 descriptor[3] = {4096, 0, 16};
    item->putAndInsertUint16Array(DCM_LUTDescriptor, descriptor, 3);
  });
  EXPECT_TRUE(warns(broken, "Modality LUT"));
  EXPECT_EQ(broken.intensity.value[77], 77.f);
}

TEST_F(DicomReader, MaskModuleIsReadLiterally) {
  const cinelumen::Run run = read_with([](DcmDataset& data) {
    const auto add = [&](const char* operation) {
      DcmItem* item = nullptr;
      data.findOrCreateSequenceItem(DCM_MaskSubtractionSequence, item, -2);
      item->putAndInsertString(DCM_MaskOperation, operation);
      return item;
    };
    DcmItem* average = add("AVG_SUB");
    const Uint16 ranges[4] = {3, 9, 12, 20}, masks[2] = {1, 2};
    average->putAndInsertUint16Array(DCM_ApplicableFrameRange, ranges, 4);
    average->putAndInsertUint16Array(DCM_MaskFrameNumbers, masks, 2);
    average->putAndInsertUint16(DCM_ContrastFrameAveraging, 4);
    const Float32 shift[2] = {1.25f, -0.5f};
    average->putAndInsertFloat32Array(DCM_MaskSubPixelShift, shift, 2);
    DcmItem* interval = add("TID");
    interval->putAndInsertSint16(DCM_TIDOffset, -2);
    add("REV_TID");
    add("NONE")->putAndInsertUint16(DCM_MaskFrameNumbers, 0);
    add("MAGIC");
  });
  using Operation = MaskInstruction::Operation;
  ASSERT_EQ(run.mask_instructions.size(), 5u);
  const MaskInstruction& average = run.mask_instructions[0];
  EXPECT_EQ(average.operation, Operation::average_subtraction);
  EXPECT_EQ(average.applicable_frames, (std::vector<std::array<int, 2>>{{3, 9}, {12, 20}}));
  EXPECT_EQ(average.mask_frames, (std::vector<int>{1, 2}));
  EXPECT_EQ(average.contrast_frame_averaging, 4);
  EXPECT_EQ(average.sub_pixel_shift, (std::array<double, 2>{1.25, -0.5}));
  EXPECT_EQ(average.tid_offset, 1);
  EXPECT_EQ(run.mask_instructions[1].operation, Operation::time_interval_difference);
  EXPECT_EQ(run.mask_instructions[1].tid_offset, -2);
  EXPECT_TRUE(run.mask_instructions[1].applicable_frames.empty());
  EXPECT_EQ(run.mask_instructions[2].operation, Operation::reverse_time_interval_difference);
  EXPECT_EQ(run.mask_instructions[3].operation, Operation::none);
  EXPECT_EQ(run.mask_instructions[3].mask_frames, std::vector<int>{0});
  EXPECT_EQ(run.mask_instructions[4].operation, Operation::none);
  EXPECT_TRUE(warns(run, "MAGIC"));
}

TEST_F(DicomReader, FrameTimes) {
  using Times = std::vector<double>;
  EXPECT_EQ(read_with({}).frame_times_ms, (Times{0, 40, 80}));
  EXPECT_EQ(read_with([](DcmDataset& data) {
              data.putAndInsertString(DCM_FrameTimeVector, "0\\20\\50.5");
              data.putAndInsertTagKey(DCM_FrameIncrementPointer, DCM_FrameTimeVector);
            }).frame_times_ms,
            (Times{0, 20, 70.5}));
  for (const char* bad : {"0", "-33", "inf", "nan", "1e308", "33,3", ""}) {
    const cinelumen::Run run = read_with([&](DcmDataset& data) { data.putAndInsertString(DCM_FrameTime, bad); });
    EXPECT_TRUE(run.frame_times_ms.empty()) << bad;
    EXPECT_TRUE(warns(run, "Frame Time (0018,1063)")) << bad;
  }
  for (const char* bad : {"0\\20", "0\\20\\-1", "0\\20\\20\\20", "0\\0\\0"}) {
    const cinelumen::Run run = read_with([&](DcmDataset& data) {
      data.putAndInsertString(DCM_FrameTimeVector, bad);
      data.putAndInsertTagKey(DCM_FrameIncrementPointer, DCM_FrameTimeVector);
    });
    EXPECT_TRUE(run.frame_times_ms.empty()) << bad;
    EXPECT_TRUE(warns(run, "Frame Time Vector")) << bad;
  }
  const auto no_pointer = [](DcmDataset& data) { data.findAndDeleteElement(DCM_FrameIncrementPointer); };
  EXPECT_TRUE(read_with(no_pointer).frame_times_ms.empty());
  EXPECT_TRUE(warns(read_with(no_pointer), "Frame Increment Pointer (0028,0009) is absent"));
  const cinelumen::Run by_rate = read_with([&](DcmDataset& data) {
    no_pointer(data);
    data.putAndInsertString(DCM_CineRate, "10");
  });
  EXPECT_EQ(by_rate.frame_times_ms, (Times{0, 100, 200}));
  EXPECT_TRUE(warns(by_rate, "Cine Rate"));
  const cinelumen::Run displayed = read_with([&](DcmDataset& data) {
    no_pointer(data);
    data.putAndInsertString(DCM_RecommendedDisplayFrameRate, "10");
  });
  EXPECT_TRUE(displayed.frame_times_ms.empty()) << "a rate for display is not the rate of acquisition";
  WrittenRun run;
  run.add = no_pointer;
  ReadOptions options;
  options.frame_time_ms = 125;
  EXPECT_EQ(read_run(write_dicom(folder_ / "run.dcm", run), options).frame_times_ms, (Times{0, 125, 250}));
}

TEST_F(DicomReader, Geometry) {
  const cinelumen::Run run = read_with([](DcmDataset& data) {
    data.putAndInsertString(DCM_DistanceSourceToDetector, "1000");
    data.putAndInsertString(DCM_DistanceSourceToPatient, "750");
    data.putAndInsertString(DCM_EstimatedRadiographicMagnificationFactor, "1.3333");
    data.putAndInsertString(DCM_ImagerPixelSpacing, "0.2\\0.3");
    data.putAndInsertString(DCM_PixelSpacing, "0.15\\0.16");
    data.putAndInsertString(DCM_PixelSpacingCalibrationType, "FIDUCIAL");
    data.putAndInsertString(DCM_PositionerPrimaryAngle, "-31.5");
    data.putAndInsertString(DCM_PositionerSecondaryAngle, "12");
    data.putAndInsertString(DCM_WindowCenter, "2000\\100");
    data.putAndInsertString(DCM_WindowWidth, "3000\\50");
    data.putAndInsertString(DCM_AcquisitionDate, "20260102");
    data.putAndInsertString(DCM_AcquisitionTime, "030405.250");
    data.putAndInsertString(DCM_PatientName, "Lumen^Vena");
    data.putAndInsertString(DCM_BodyPartExamined, "FOOT");
    data.putAndInsertString(DCM_Laterality, "L");
  });
  const AcquisitionGeometry& geometry = run.geometry;
  EXPECT_EQ(geometry.source_to_detector_mm, 1000.0);
  EXPECT_EQ(geometry.source_to_patient_mm, 750.0);
  EXPECT_EQ(geometry.magnification, 1.3333);
  EXPECT_EQ(geometry.imager_pixel_spacing_mm, (std::array<double, 2>{0.2, 0.3}));
  EXPECT_EQ(geometry.pixel_spacing_mm, (std::array<double, 2>{0.15, 0.16}));
  EXPECT_EQ(geometry.pixel_spacing_calibration, "FIDUCIAL");
  EXPECT_FALSE(geometry.object_pixel_spacing_mm);
  EXPECT_EQ(geometry.primary_angle_deg, -31.5);
  EXPECT_EQ(geometry.secondary_angle_deg, 12.0);
  EXPECT_EQ(run.window, (std::array<double, 2>{2000, 3000}));
  EXPECT_EQ(run.description.acquired, "2026-01-02T03:04:05.250");
  EXPECT_EQ(run.description.patient_name, "Lumen^Vena");
  EXPECT_EQ(run.description.body_part, "FOOT");
  EXPECT_EQ(run.description.laterality, "L");
  EXPECT_EQ(run.description.sha256.size(), 64u);
  for (const char* bad : {"nan\\0.2", "0\\0", "-0.2\\-0.2", "1e308\\1e308", "0,2\\0,2", "0.2", "0.2\\0.2\\0.2"}) {
    const cinelumen::Run odd = read_with([&](DcmDataset& data) { data.putAndInsertString(DCM_PixelSpacing, bad); });
    EXPECT_FALSE(odd.geometry.pixel_spacing_mm) << bad;
    EXPECT_TRUE(warns(odd, "Pixel Spacing (0028,0030)")) << bad;
  }
}

TEST_F(DicomReader, Openings) {
  const auto inside = [](const cinelumen::Run& run) {
    int count = 0;
    for (int y = 0; y < run.rows(); ++y)
      for (int x = 0; x < run.columns(); ++x) count += run.field.mask(y, x);
    return count;
  };
  const cinelumen::Run none = read_with({});
  EXPECT_EQ(none.field.source, "whole image");
  EXPECT_EQ(inside(none), 33 * 47);
  const cinelumen::Run rectangle = read_with([](DcmDataset& data) {
    data.putAndInsertString(DCM_ShutterShape, "RECTANGULAR");
    data.putAndInsertString(DCM_ShutterLeftVerticalEdge, "3");
    data.putAndInsertString(DCM_ShutterRightVerticalEdge, "40");
    data.putAndInsertString(DCM_ShutterUpperHorizontalEdge, "2");
    data.putAndInsertString(DCM_ShutterLowerHorizontalEdge, "31");
  });
  EXPECT_EQ(rectangle.field.source, "shutter");
  EXPECT_EQ(inside(rectangle), 38 * 30);
  EXPECT_EQ(rectangle.field.mask(1, 2), 1) << "row 2, column 3 counted from 1";
  EXPECT_EQ(rectangle.field.mask(0, 2), 0);
  EXPECT_EQ(rectangle.field.mask(1, 1), 0);
  EXPECT_EQ(rectangle.field.mask(30, 39), 1);
  EXPECT_EQ(rectangle.field.mask(31, 39), 0);
  const cinelumen::Run circle = read_with([](DcmDataset& data) {
    data.putAndInsertString(DCM_ShutterShape, "CIRCULAR");
    data.putAndInsertString(DCM_CenterOfCircularShutter, "17\\24");
    data.putAndInsertString(DCM_RadiusOfCircularShutter, "10");
  });
  EXPECT_EQ(circle.field.mask(16, 23), 1);
  EXPECT_EQ(circle.field.mask(16, 33), 1);
  EXPECT_EQ(circle.field.mask(16, 34), 0);
  EXPECT_EQ(circle.field.mask(6, 23), 1);
  EXPECT_EQ(circle.field.mask(5, 23), 0);
  EXPECT_NEAR(inside(circle), 317, 3);
  const cinelumen::Run polygon = read_with([](DcmDataset& data) {
    data.putAndInsertString(tag(0x0018, 0x1700), "POLYGONAL");
    data.putAndInsertString(tag(0x0018, 0x1720), "5\\5\\5\\45\\30\\45");
  });
  EXPECT_EQ(polygon.field.source, "collimator");
  EXPECT_EQ(polygon.field.mask(6, 40), 1);
  EXPECT_EQ(polygon.field.mask(28, 6), 0);
  const cinelumen::Run nonsense = read_with([](DcmDataset& data) {
    data.putAndInsertString(DCM_ShutterShape, "RECTANGULAR");
    data.putAndInsertString(DCM_ShutterLeftVerticalEdge, "40");
    data.putAndInsertString(DCM_ShutterRightVerticalEdge, "3");
    data.putAndInsertString(DCM_ShutterUpperHorizontalEdge, "2");
    data.putAndInsertString(DCM_ShutterLowerHorizontalEdge, "31");
  });
  EXPECT_EQ(inside(nonsense), 33 * 47);
  EXPECT_TRUE(warns(nonsense, "shutter"));
}

TEST_F(DicomReader, OpeningIsFoundInThePixels) {
  // An octagon on a dark ground with a blade on its left; the scene has dark anatomy on one side.
  WrittenRun run;
  run.rows = run.columns = 256;
  run.frames = 4;
  std::mt19937 random(5);
  std::normal_distribution<double> noise(0, 12);
  run.samples.resize(run.pixel_count() * 4);
  const auto shade = [](int y, int x) {
    const bool octagon = y >= 10 && y < 240 && x >= 12 && x < 246 && x + y > 70 && x + y < 440 && x - y < 190 && y - x < 180;
    if (!octagon) return 20.0;
    if (x < 30) return 200.0;
    return 1500.0 + 3 * y - (x > 150 ? 900 : 0);
  };
  for (std::size_t i = 0; i < run.samples.size(); ++i) {
    const int y = static_cast<int>(i % run.pixel_count()) / 256, x = static_cast<int>(i % 256);
    run.samples[i] = static_cast<std::uint16_t>(std::clamp(shade(y, x) + noise(random), 0.0, 4095.0));
  }
  const cinelumen::Run read_back = read(run);
  EXPECT_EQ(read_back.field.source, "pixels");
  int kept = 0, lost = 0, let_in = 0;
  for (int y = 0; y < 256; ++y)
    for (int x = 0; x < 256; ++x) {
      const bool in = read_back.field.mask(y, x) != 0, scene = shade(y, x) > 250;
      kept += in && scene;
      lost += !in && scene;
      let_in += in && !scene;
    }
  EXPECT_EQ(let_in, 0);
  EXPECT_LT(lost, 0.06 * kept) << "only a rim may be lost";

  // Without a surround, dark anatomy at the border is no collimator.
  for (std::size_t i = 0; i < run.samples.size(); ++i) {
    const int y = static_cast<int>(i % run.pixel_count()) / 256, x = static_cast<int>(i % 256);
    const double bump = 1500 * std::exp(-((x - 250.0) * (x - 250.0) + (y - 128.0) * (y - 128.0)) / 8000);
    run.samples[i] = static_cast<std::uint16_t>(std::clamp(2000 - bump + noise(random), 0.0, 4095.0));
  }
  EXPECT_EQ(read(run).field.source, "whole image");
  run.samples.assign(run.samples.size(), 77);
  EXPECT_EQ(read(run).field.source, "whole image");
}

TEST_F(DicomReader, EnhancedFunctionalGroups) {
  WrittenRun written;
  written.sop_class = UID_EnhancedXAImageStorage;
  written.fill();
  written.add = [](DcmDataset& data) {
    data.findAndDeleteElement(DCM_PixelIntensityRelationship);
    data.findAndDeleteElement(DCM_FrameTime);
    data.findAndDeleteElement(DCM_FrameIncrementPointer);
    DcmItem* shared = nullptr;
    data.findOrCreateSequenceItem(DCM_SharedFunctionalGroupsSequence, shared, 0);
    const auto group = [](DcmItem* holder, const DcmTagKey& macro) {
      DcmItem* item = nullptr;
      holder->findOrCreateSequenceItem(macro, item, 0);
      return item;
    };
    DcmItem* properties = group(shared, DCM_FramePixelDataPropertiesSequence);
    properties->putAndInsertString(DCM_PixelIntensityRelationship, "LOG");
    properties->putAndInsertSint16(DCM_PixelIntensityRelationshipSign, -1);
    properties->putAndInsertString(DCM_ImagerPixelSpacing, "0.154\\0.154");
    DcmItem* geometry = group(shared, DCM_XRayGeometrySequence);
    geometry->putAndInsertFloat32(DCM_DistanceSourceToIsocenter, 785);
    geometry->putAndInsertString(DCM_DistanceSourceToDetector, "1195");
    DcmItem* calibration = group(shared, DCM_ProjectionPixelCalibrationSequence);
    const Float32 spacing[2] = {0.125f, 0.25f};
    calibration->putAndInsertFloat32Array(DCM_ObjectPixelSpacingInCenterOfBeam, spacing, 2);
    DcmItem* shutter = group(shared, DCM_FrameDisplayShutterSequence);
    shutter->putAndInsertString(DCM_ShutterShape, "CIRCULAR");
    shutter->putAndInsertString(DCM_CenterOfCircularShutter, "17\\24");
    shutter->putAndInsertString(DCM_RadiusOfCircularShutter, "12");
    DcmItem* table = add_table(*shared, DCM_PixelIntensityRelationshipLUTSequence, 0, std::vector<Uint16>(4096, 1));
    std::vector<Uint16> entries(4096);
    for (int i = 0; i < 4096; ++i) entries[static_cast<std::size_t>(i)] = static_cast<Uint16>(60000 * std::exp(-i / 1000.0));
    table->putAndInsertUint16Array(DCM_LUTData, entries.data(), 4096);
    table->putAndInsertString(DCM_LUTFunction, "TO_LINEAR");
    DcmItem* mask = nullptr;
    data.findOrCreateSequenceItem(DCM_MaskSubtractionSequence, mask, 0);
    mask->putAndInsertString(DCM_MaskOperation, "AVG_SUB");
    mask->putAndInsertUint16(DCM_SubtractionItemID, 7);
    mask->putAndInsertUint16(DCM_MaskFrameNumbers, 1);
    DcmItem* shift = group(shared, DCM_FramePixelShiftSequence);
    shift->putAndInsertUint16(DCM_SubtractionItemID, 7);
    const Float32 shifts[2] = {0.5f, -2.f};
    shift->putAndInsertFloat32Array(DCM_MaskSubPixelShift, shifts, 2);
    const char* times[3] = {"20260102030405.000000", "20260102030405.125000", "20260102030405.500000+0100"};
    for (int frame = 0; frame < 3; ++frame) {
      DcmItem* item = nullptr;
      data.findOrCreateSequenceItem(DCM_PerFrameFunctionalGroupsSequence, item, -2);
      group(item, DCM_FrameContentSequence)->putAndInsertString(DCM_FrameReferenceDateTime, times[frame]);
      DcmItem* position = group(item, DCM_PositionerPositionSequence);
      position->putAndInsertFloat64(DCM_PositionerPrimaryAngle, 20);
      position->putAndInsertFloat64(DCM_PositionerSecondaryAngle, frame == 2 ? 6 : 5);
    }
  };
  const cinelumen::Run run = read(written);
  expect_pixels(run, written);
  EXPECT_TRUE(run.description.enhanced);
  EXPECT_EQ(run.intensity.relationship_as_stored, "LOG");
  EXPECT_EQ(run.intensity.relationship, IntensityRelationship::linear);
  EXPECT_EQ(run.intensity.sign, 1) << "larger stored is less intensity, and the table falls";
  EXPECT_EQ(run.intensity.value[0], 60000.f);
  EXPECT_EQ(run.geometry.source_to_detector_mm, 1195.0);
  EXPECT_EQ(run.geometry.source_to_patient_mm, 785.0);
  EXPECT_EQ(run.geometry.imager_pixel_spacing_mm, (std::array<double, 2>{0.154, 0.154}));
  EXPECT_EQ(run.geometry.object_pixel_spacing_mm, (std::array<double, 2>{0.125, 0.25}));
  EXPECT_EQ(run.geometry.primary_angle_deg, 20.0);
  EXPECT_EQ(run.geometry.secondary_angle_deg, 5.0);
  EXPECT_TRUE(warns(run, "Positioner Secondary Angle"));
  EXPECT_FALSE(warns(run, "Positioner Primary Angle"));
  EXPECT_EQ(run.field.source, "shutter");
  EXPECT_EQ(run.field.mask(16, 23), 1);
  EXPECT_EQ(run.field.mask(0, 0), 0);
  ASSERT_EQ(run.mask_instructions.size(), 1u);
  EXPECT_EQ(run.mask_instructions[0].sub_pixel_shift, (std::array<double, 2>{0.5, -2}));
  ASSERT_EQ(run.frame_times_ms.size(), 3u);
  EXPECT_NEAR(run.frame_times_ms[1], 125, 1e-3);
  EXPECT_NEAR(run.frame_times_ms[2], 500, 1e-3);
}

TEST_F(DicomReader, HeadersThatAreRefused) {
  const auto number = [](const DcmTagKey& where, int value) {
    return [=](DcmDataset& data) { data.putAndInsertUint16(where, static_cast<Uint16>(value)); };
  };
  const auto text = [](const DcmTagKey& where, const char* value) {
    return [=](DcmDataset& data) { data.putAndInsertString(where, value); };
  };
  for (const char* frames : {"0", "-1", "3x", "1.5"})
    refuse_with(text(DCM_NumberOfFrames, frames), {"Number of Frames (0028,0008)", frames});
  for (const char* frames : {"30000", "2147483647"}) refuse_with(text(DCM_NumberOfFrames, frames), {"Pixel Data (7fe0,0010)", frames});
  refuse_with(number(DCM_Rows, 0), {"Rows (0028,0010)", "is 0"});
  refuse_with(number(DCM_Columns, 0), {"Columns (0028,0011)", "is 0"});
  refuse_with(number(DCM_Columns, 48), {"48 x 33"});
  refuse_with(number(DCM_Columns, 46), {"46 x 33"});
  refuse_with(
      [](DcmDataset& data) {
        data.putAndInsertUint16(DCM_Rows, 65535);
        data.putAndInsertUint16(DCM_Columns, 65535);
        data.putAndInsertString(DCM_NumberOfFrames, "65535");
      },
      {"65535 x 65535"});
  refuse_with([](DcmDataset& data) { data.insert(new DcmUnsignedLong(DcmTag(DCM_Rows, EVR_UL)), OFTrue); }, {"Rows (0028,0010)", "UL"});
  refuse_with([](DcmDataset& data) { data.findAndDeleteElement(DCM_Rows); }, {"Rows (0028,0010)", "absent"});
  for (const int bits : {0, 20, 7}) refuse_with(number(DCM_BitsStored, bits), {"Bits Stored (0028,0101)", "8 to 16"});
  for (const int bits : {12, 32, 1}) refuse_with(number(DCM_BitsAllocated, bits), {"Bits Allocated (0028,0100)", "8 or 16"});
  for (const int bit : {10, 16}) refuse_with(number(DCM_HighBit, bit), {"High Bit (0028,0102)", "11 to 15"});
  refuse_with(number(DCM_PixelRepresentation, 2), {"Pixel Representation (0028,0103)"});
  refuse_with(number(DCM_SamplesPerPixel, 3), {"Samples per Pixel (0028,0002)", "3"});
  for (const char* colours : {"RGB", "PALETTE COLOR"})
    refuse_with(text(DCM_PhotometricInterpretation, colours), {"Photometric Interpretation", colours});
  refuse_with([](DcmDataset& data) { data.findAndDeleteElement(DCM_PixelData); }, {"no pixels"});
  refuse_with(
      [](DcmDataset& data) {
        delete data.remove(DCM_PixelData);
        DcmItem* icon = nullptr;
        data.findOrCreateSequenceItem(DCM_IconImageSequence, icon, 0);
        const std::vector<Uint16> pixels(64, 1);
        icon->putAndInsertUint16Array(DCM_PixelData, pixels.data(), 64);
      },
      {"no pixels"});
  WrittenRun tomography;
  tomography.sop_class = UID_CTImageStorage;
  tomography.modality = "CT";
  expect_refused(write_dicom(folder_ / "ct.dcm", tomography), {"not an angiographic run", "CT"});
  tomography.sop_class = UID_SecondaryCaptureImageStorage;
  expect_refused(write_dicom(folder_ / "sc.dcm", tomography), {"not an angiographic run"});
  tomography.modality = "RF";
  EXPECT_TRUE(warns(read(tomography), "secondary capture"));
}

TEST_F(DicomReader, FilesThatAreRefused) {
  const auto refuse = [&](const std::vector<std::uint8_t>& bytes, std::initializer_list<const char*> words) {
    test::write_bytes(folder_ / "file.dcm", bytes);
    expect_refused(folder_ / "file.dcm", words);
  };
  refuse({}, {"not a DICOM file"});
  refuse(std::vector<std::uint8_t>(5000, 0), {"not a DICOM file"});
  refuse({'h', 'e', 'l', 'l', 'o', ' ', 'w', 'o', 'r', 'l', 'd', '\n'}, {"not a DICOM file"});
  expect_refused(folder_ / "absent.dcm", {"no such file"});

  WrittenRun run;
  const std::vector<std::uint8_t> good = test::file_bytes(write_dicom(folder_ / "good.dcm", run));
  const DicomLayout layout = read_dicom_layout(ByteSource::file(folder_ / "good.dcm"));
  refuse({good.begin(), good.begin() + 132}, {"truncated"});
  refuse({good.begin(), good.begin() + 400}, {"truncated"});
  refuse({good.begin(), good.end() - 1}, {"truncated", "7fe0,0010"});
  refuse({good.begin(), good.end() - 1000}, {"truncated", "7fe0,0010"});
  std::vector<std::uint8_t> changed = good;
  for (int i = 0; i < 4; ++i) changed[layout.pixels.offset - 4 + static_cast<std::size_t>(i)] = i == 0 ? 0xFE : 0xFF;
  refuse(changed, {"truncated", "4294967294"});
  changed = good;
  changed.resize(layout.pixels.offset);
  for (int i = 0; i < 4; ++i) changed[layout.pixels.offset - 4 + static_cast<std::size_t>(i)] = 0;
  refuse(changed, {"no pixels"});

  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::vector<std::uint8_t> bytes = good;
    const auto at = std::search(bytes.begin(), bytes.end(), from.begin(), from.end());
    EXPECT_NE(at, bytes.end());
    std::copy(to.begin(), to.end(), at);
    return bytes;
  };
  const std::string syntax("1.2.840.10008.1.2.1\0", 20);
  refuse(replaced(syntax, "1.2.840.10008.1.2.9"), {"transfer syntax", "1.2.840.10008.1.2.9"});
  refuse(replaced(syntax, std::string("1.2.840.10008.1.2.5", 19)), {"transfer syntax", "not encapsulated"});
  refuse(replaced(syntax, "1.2.840.10008.1.2.2"), {});
  refuse(replaced(syntax, std::string("1.2.840.10008.1.2\0\0", 19)), {});

  // Trailing bytes and a missing preamble are survived, and said.
  changed = good;
  changed.insert(changed.end(), 777, 0x41);
  test::write_bytes(folder_ / "file.dcm", changed);
  EXPECT_TRUE(warns(read_run(folder_ / "file.dcm"), "not DICOM"));
  run.fill();
  test::write_bytes(folder_ / "file.dcm", {good.begin() + 132, good.end()});
  const cinelumen::Run bare = read_run(folder_ / "file.dcm");
  EXPECT_TRUE(warns(bare, "preamble"));
  expect_pixels(bare, run);
  test::write_bytes(folder_ / "file.dcm", {good.begin() + static_cast<std::ptrdiff_t>(layout.dataset_offset), good.end()});
  expect_pixels(read_run(folder_ / "file.dcm"), run);
  WrittenRun longer = run;
  longer.add = [](DcmDataset& data) { data.putAndInsertString(DCM_NumberOfFrames, "2"); };
  const cinelumen::Run shorter = read(longer);
  EXPECT_EQ(shorter.frame_count(), 2);
  EXPECT_TRUE(warns(shorter, "header's number of frames"));
}

TEST_F(DicomReader, PipesAndLoopsAreRefusedWithoutBlocking) {
  const std::string pipe = folder_ / "pipe.dcm";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  expect_refused(pipe, {"not a regular file"});
  std::filesystem::create_symlink(folder_ / "loop.dcm", folder_ / "loop.dcm");
  expect_refused(folder_ / "loop.dcm", {"can't be opened"});
  expect_refused("/dev/zero", {"not a regular file"});
}

TEST_F(DicomReader, DeepNestingIsRefusedBeforeAnyParser) {
  for (const bool defined : {false, true}) {
    const std::string path = write_dicom(folder_ / "nested.dcm", {});
    const std::vector<std::uint8_t> good = test::file_bytes(path);
    const DicomLayout layout = read_dicom_layout(ByteSource::file(path));
    constexpr int depth = 20000;
    std::vector<std::uint8_t> nest;
    for (int i = 0; i < depth; ++i) {
      const std::uint32_t left = static_cast<std::uint32_t>((depth - i) * 20 - 12);
      const auto put = [&](std::uint32_t value) {
        for (int k = 0; k < 4; ++k) nest.push_back(static_cast<std::uint8_t>(value >> (8 * k)));
      };
      const std::uint8_t sequence[] = {0x40, 0x00, 0x75, 0x02, 'S', 'Q', 0, 0};
      nest.insert(nest.end(), std::begin(sequence), std::end(sequence));
      put(defined ? left : 0xFFFFFFFFu);
      put(0xE000FFFEu);
      put(defined ? left - 8 : 0xFFFFFFFFu);
    }
    if (!defined)
      for (int i = 0; i < depth; ++i) {
        const std::uint8_t ends[] = {0xFE, 0xFF, 0x0D, 0xE0, 0, 0, 0, 0, 0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0};
        nest.insert(nest.end(), std::begin(ends), std::end(ends));
      }
    std::vector<std::uint8_t> bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(layout.pixel_data_offset));
    bytes.insert(bytes.end(), nest.begin(), nest.end());
    bytes.insert(bytes.end(), good.begin() + static_cast<std::ptrdiff_t>(layout.pixel_data_offset), good.end());
    test::write_bytes(path, bytes);
    expect_refused(path, {"nested more than 64 deep"});
  }
}

TEST_F(DicomReader, DeepNestingInPrivateElementsOfImplicitFilesIsRefused) {
  WrittenRun run;
  run.transfer_syntax = UID_LittleEndianImplicitTransferSyntax;
  const std::string path = write_dicom(folder_ / "nested.dcm", run);
  const std::vector<std::uint8_t> good = test::file_bytes(path);
  const DicomLayout layout = read_dicom_layout(ByteSource::file(path));
  const auto with = [&](const std::vector<std::uint8_t>& value) {
    std::vector<std::uint8_t> bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(layout.pixel_data_offset));
    bytes.insert(bytes.end(), {0x29, 0x00, 0x20, 0x10});
    for (int k = 0; k < 4; ++k) bytes.push_back(static_cast<std::uint8_t>(value.size() >> (8 * k)));
    bytes.insert(bytes.end(), value.begin(), value.end());
    bytes.insert(bytes.end(), good.begin() + static_cast<std::ptrdiff_t>(layout.pixel_data_offset), good.end());
    test::write_bytes(path, bytes);
  };
  std::vector<std::uint8_t> nest;
  constexpr int depth = 20000;
  for (int i = 0; i < depth; ++i) {
    const auto put = [&](std::uint32_t number) {
      for (int k = 0; k < 4; ++k) nest.push_back(static_cast<std::uint8_t>(number >> (8 * k)));
    };
    const std::uint32_t left = static_cast<std::uint32_t>((depth - 1 - i) * 16);
    put(0xE000FFFEu);
    put(left);
    if (i + 1 == depth) break;
    nest.insert(nest.end(), {0x29, 0x00, 0x20, 0x10});
    put(left - 8);
  }
  with(nest);
  expect_refused(path, {"nested more than 64 deep"});
  // A private element that only begins like a sequence is none of our business.
  with({0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0x00, 0x00, 'a', 'b'});
  run.fill();
  expect_pixels(read_run(path), run);
}

TEST_F(DicomReader, DeflateBombIsCapped) {
  WrittenRun run;
  run.transfer_syntax = UID_DeflatedExplicitVRLittleEndianTransferSyntax;
  run.rows = run.columns = 2048;
  run.frames = 12;
  run.samples.assign(run.pixel_count() * 12, 0);
  expect_refused(write_dicom(folder_ / "bomb.dcm", run), {"deflated", "grows beyond"});
}

TEST_F(DicomReader, CutAndDamagedFilesNeverCrash) {
  std::mt19937 random(11);
  for (const char* syntax :
       {UID_LittleEndianExplicitTransferSyntax, UID_LittleEndianImplicitTransferSyntax, UID_DeflatedExplicitVRLittleEndianTransferSyntax,
        UID_RLELosslessTransferSyntax, UID_JPEGProcess14SV1TransferSyntax, UID_JPEGLSLosslessTransferSyntax,
        UID_JPEG2000LosslessOnlyTransferSyntax}) {
    WrittenRun run;
    run.transfer_syntax = syntax;
    run.rows = 16;
    run.columns = 24;
    run.add = [](DcmDataset& data) { add_table(data, DCM_ModalityLUTSequence, 0, std::vector<Uint16>(64, 3)); };
    const std::string path = write_dicom(folder_ / "run.dcm", run);
    const std::vector<std::uint8_t> good = test::file_bytes(path);
    const auto survive = [&](const std::vector<std::uint8_t>& bytes) {
      test::write_bytes(path, bytes);
      try {
        const cinelumen::Run read_back = read_run(path);
        for (int frame = 0; frame < std::min(read_back.frame_count(), 4); ++frame) frame_of(read_back, frame);
        return true;
      } catch (const InputError& error) {
        EXPECT_EQ(std::string(error.what()).rfind(path, 0), 0u) << error.what();
        return false;
      }
    };
    ASSERT_TRUE(survive(good)) << syntax;
    int accepted = 0;
    for (std::size_t length = 0; length < good.size(); length += 1 + good.size() / 150)
      accepted += survive({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length)});
    EXPECT_EQ(accepted, 0) << syntax << ": a cut file was accepted";
    for (int i = 0; i < 150; ++i) {
      std::vector<std::uint8_t> damaged = good;
      for (int k = 0; k < 1 + i % 4; ++k) damaged[132 + random() % (damaged.size() - 132)] = static_cast<std::uint8_t>(random());
      survive(damaged);
    }
  }
}

TEST_F(DicomReader, ThreadsReadTogetherAndTheCacheStaysSmall) {
  for (const char* syntax : {UID_LittleEndianExplicitTransferSyntax, UID_RLELosslessTransferSyntax, UID_JPEGProcess14SV1TransferSyntax,
                             UID_JPEGLSLosslessTransferSyntax, UID_JPEG2000LosslessOnlyTransferSyntax}) {
    WrittenRun written;
    written.transfer_syntax = syntax;
    written.frames = 24;
    written.fill();
    const std::string path = write_dicom(folder_ / "run.dcm", written);
    ReadOptions options;
    options.cache_bytes = 5 * 2 * written.pixel_count();
    const cinelumen::Run run = read_run(path, options);
    std::vector<std::thread> threads;
    std::atomic<int> wrong = 0;
    for (int t = 0; t < 6; ++t)
      threads.emplace_back([&, t] {
        for (int i = 0; i < 48; ++i) {
          const int frame = (i * 7 + t * 5) % 24;
          const Image<std::uint16_t> image = frame_of(run, frame);
          for (int y = 0; y < 33; ++y)
            for (int x = 0; x < 47; ++x)
              wrong += image(y, x) !=
                       written.samples[static_cast<std::size_t>(frame) * written.pixel_count() + static_cast<std::size_t>(y * 47 + x)];
        }
      });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0) << syntax;
  }
}

TEST_F(DicomReader, AChangedFileIsNoticed) {
  WrittenRun written;
  const std::string path = write_dicom(folder_ / "run.dcm", written);
  ReadOptions options;
  options.cache_bytes = 0;
  const cinelumen::Run run = read_run(path, options);
  frame_of(run, 1);
  auto bytes = test::file_bytes(path);
  bytes.push_back(0);
  test::write_bytes(path, bytes);
  EXPECT_THROW(frame_of(run, 1), InputError);
}

TEST_F(DicomReader, TextIsMadeSafe) {
  EXPECT_EQ(clean_text("a\x1b[31mb\nc"), "a [31mb c");
  EXPECT_EQ(clean_text("\xc3\xa9\xff\xe2\x82"), "\xc3\xa9???");
  EXPECT_EQ(clean_text("\xc2\x9b"), " ");
  EXPECT_EQ(clean_text("abcdef", 3), "abc");
  const cinelumen::Run run = read_with([](DcmDataset& data) {
    data.putAndInsertString(DCM_SpecificCharacterSet, "ISO_IR 100");
    data.putAndInsertString(DCM_PatientName, "J\xe4ger^\x1b[2J<script>");
  });
  EXPECT_EQ(run.description.patient_name.rfind("J\xc3\xa4ger^", 0), 0u) << run.description.patient_name;
  EXPECT_EQ(run.description.patient_name.find('\x1b'), std::string::npos);
}

TEST(Sha256, KnownAnswers) {
  EXPECT_EQ(sha256(ByteSource::memory("", {'a', 'b', 'c'})), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256(ByteSource::memory("", {})), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

}  // namespace
}  // namespace cinelumen
