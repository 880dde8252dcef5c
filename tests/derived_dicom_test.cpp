/// subtracted.dcm read back with DCMTK: the values, and what a viewer must not do a second time.

#include "io/derived_dicom.h"

#include <dcmtk/config/osconfig.h>
// DCMTK's configuration comes before its other headers.
#include <dcmtk/dcmdata/dctk.h>
#include <dcmtk/dcmjpeg/djdecode.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

#include "io/output_folder.h"
#include "support/fabricated.h"

namespace cinelumen {
namespace {

namespace fs = std::filesystem;

class DerivedDicom : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/cinelumen_derived_XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    root = name;
    DJDecoderRegistration::registerCodecs();
  }
  void TearDown() override { fs::remove_all(root); }

  /// A source as a console writes it, with what must not be taken over.
  fs::path write_source(cinelumen::Run& run) {
    DcmFileFormat file;
    DcmDataset& data = *file.getDataset();
    const auto set = [&](const DcmTagKey& tag, const char* value) { ASSERT_TRUE(data.putAndInsertString(tag, value).good()) << tag; };
    set(DCM_SOPClassUID, UID_XRayAngiographicImageStorage);
    set(DCM_SOPInstanceUID, run.description.sop_instance_uid.c_str());
    set(DCM_StudyInstanceUID, "1.2.3");
    set(DCM_SeriesInstanceUID, "1.2.3.4");
    set(DCM_SeriesNumber, "7");
    set(DCM_Modality, "XA");
    set(DCM_ImageType, "ORIGINAL\\PRIMARY\\SINGLE PLANE");
    set(DCM_PatientName, "Test^Foot");
    set(DCM_PatientID, "P1");
    set(DCM_BodyPartExamined, "FOOT");
    set(DCM_RadiationSetting, "GR");
    set(DCM_DistanceSourceToDetector, "1100");
    set(DCM_ImagerPixelSpacing, "0.308\\0.308");
    set(DCM_RecommendedViewingMode, "SUB");
    set(DcmTagKey(0x0029, 0x0010), "VENDOR PRIVATE");
    DcmItem* mask = nullptr;
    data.findOrCreateSequenceItem(DCM_MaskSubtractionSequence, mask, -2);
    mask->putAndInsertString(DCM_MaskOperation, "AVG_SUB");
    data.putAndInsertUint16(DCM_Rows, 1);
    data.putAndInsertUint16(DCM_Columns, 1);
    data.putAndInsertUint16(DCM_BitsAllocated, 8);
    const Uint8 pixels[2] = {1, 2};
    data.putAndInsertUint8Array(DCM_PixelData, pixels, 2);
    const fs::path path = root / "source.dcm";
    EXPECT_TRUE(file.saveFile(path.c_str(), EXS_LittleEndianExplicit).good());
    run.description.path = path;
    return path;
  }
  Derivation derivation(int frames) const {
    Derivation result;
    result.frames = frames;
    result.description = "log subtraction, mask frames 1-3, rigid";
    result.version = "0.1.0";
    result.window = {-0.1f, 0.5f};
    return result;
  }
  static std::string text(DcmItem& item, const DcmTagKey& tag) {
    OFString value;
    item.findAndGetOFStringArray(tag, value);
    return value.c_str();
  }
  fs::path root;
};

TEST_F(DerivedDicom, ReadsBackWithItsValues) {
  test::FabricatedRun made(48, 3);
  write_source(made.run);
  const fs::path path = root / "subtracted.dcm";
  DerivedDicomWriter writer(made.run, path, derivation(3));
  std::vector<Image<float>> frames;
  for (int i = 0; i < 3; ++i) {
    frames.push_back(made.frame_image(i + 5));
    frames[i](0, 0) = 20, frames[i](0, 1) = -20, frames[i](0, 2) = std::numeric_limits<float>::quiet_NaN();
    writer.add(frames[i].view());
  }
  writer.finish();

  DcmFileFormat file;
  ASSERT_TRUE(file.loadFile(path.c_str()).good());
  DcmDataset& data = *file.getDataset();
  EXPECT_EQ(data.getOriginalXfer(), EXS_JPEGProcess14SV1);
  ASSERT_TRUE(data.chooseRepresentation(EXS_LittleEndianExplicit, nullptr).good());
  const Uint16* values = nullptr;
  unsigned long count = 0;
  ASSERT_TRUE(data.findAndGetUint16Array(DCM_PixelData, values, &count).good());
  ASSERT_EQ(count, 3u * 48 * 48);
  for (int f = 0; f < 3; ++f)
    for (int y = 0; y < 48; ++y)
      for (int x = 0; x < 48; ++x) {
        const double added = frames[f](y, x);
        const double expected = std::isnan(added) ? 32768 : std::clamp(32768 - 4096 * added, 0.0, 65535.0);
        ASSERT_NEAR(values[(f * 48 + y) * 48 + x], expected, 0.51) << f << " " << y << " " << x;
      }
  EXPECT_EQ(text(data, DCM_NumberOfFrames), "3");
  EXPECT_EQ(text(data, DCM_SOPClassUID), UID_XRayAngiographicImageStorage);
  EXPECT_EQ(text(data, DCM_RecommendedViewingMode), "NAT");
  DcmSequenceOfItems* masks = nullptr;
  ASSERT_TRUE(data.findAndGetSequence(DCM_MaskSubtractionSequence, masks).good()) << "dciodvfy asks for it beside NAT";
  ASSERT_EQ(masks->card(), 1u);
  EXPECT_EQ(text(*masks->getItem(0), DCM_MaskOperation), "NONE") << "a viewer would subtract twice";
  EXPECT_FALSE(data.tagExists(DcmTagKey(0x0029, 0x0010)));
  EXPECT_EQ(text(data, DCM_PixelIntensityRelationship), "LOG");
  Sint16 sign = 0;
  EXPECT_TRUE(data.findAndGetSint16(DCM_PixelIntensityRelationshipSign, sign).good());
  EXPECT_EQ(sign, 1);
  EXPECT_EQ(text(data, DCM_WindowCenter), "31949");  // 32768 - 4096 x 0.2
  EXPECT_EQ(text(data, DCM_WindowWidth), "2458");    // 4096 x 0.6
  EXPECT_EQ(text(data, DCM_PatientName), "Test^Foot");
  EXPECT_EQ(text(data, DCM_StudyInstanceUID), "1.2.3");
  EXPECT_EQ(text(data, DCM_FrameTime), "266.667");
  EXPECT_EQ(text(data, DCM_DistanceSourceToDetector), "1100");
  EXPECT_EQ(text(data, DCM_ImageType), "DERIVED\\PRIMARY\\SINGLE PLANE");
  DcmItem* source = nullptr;
  ASSERT_TRUE(data.findAndGetSequenceItem(DCM_SourceImageSequence, source).good());
  EXPECT_EQ(text(*source, DCM_ReferencedSOPInstanceUID), "1.2.3.4.5");
  EXPECT_NE(text(data, DCM_SOPInstanceUID), "1.2.3.4.5");
  EXPECT_NE(text(data, DCM_SeriesInstanceUID), "1.2.3.4");
}

TEST_F(DerivedDicom, UnevenTimesAndPartsOfARun) {
  test::FabricatedRun made(16, 4, 2);
  made.run.frame_times_ms = {0, 10, 20, 40, 80, 160};
  made.run.description.sop_instance_uid.clear();  // a video: no header to take over
  const fs::path path = root / "subtracted.dcm";
  Derivation part = derivation(4);
  part.first_frame = 2;
  DerivedDicomWriter writer(made.run, path, part);
  for (int i = 0; i < 4; ++i) writer.add(made.frame_image(i).view());
  EXPECT_THROW(writer.add(made.frame_image(0).view()), std::logic_error);
  writer.finish();
  DcmFileFormat file;
  ASSERT_TRUE(file.loadFile(path.c_str()).good());
  EXPECT_EQ(text(*file.getDataset(), DCM_FrameTimeVector), "0\\20\\40\\80");
  EXPECT_FALSE(file.getDataset()->tagExists(DCM_FrameTime));
  EXPECT_NE(text(*file.getDataset(), DCM_StudyInstanceUID), "");
}

TEST_F(DerivedDicom, TooFewFramesIsAnError) {
  test::FabricatedRun made(16, 2);
  made.run.description.sop_instance_uid.clear();
  DerivedDicomWriter writer(made.run, root / "subtracted.dcm", derivation(2));
  writer.add(made.frame_image(0).view());
  EXPECT_THROW(writer.finish(), std::logic_error);
}

TEST_F(DerivedDicom, UidsFollowFromSourceParametersAndVersion) {
  const Derivation one = derivation(3);
  const std::string uid = derived_uid("1.2.3.4.5", one, "instance");
  EXPECT_EQ(uid, derived_uid("1.2.3.4.5", one, "instance"));
  EXPECT_EQ(uid.substr(0, 5), "2.25.");
  EXPECT_LE(uid.size(), 64u);
  EXPECT_EQ(uid.find_first_not_of("0123456789", 5), std::string::npos);
  EXPECT_NE(uid[5], '0');
  EXPECT_NE(uid, derived_uid("1.2.3.4.6", one, "instance"));
  EXPECT_NE(uid, derived_uid("1.2.3.4.5", one, "series"));
  Derivation other = one;
  other.version = "0.2.0";
  EXPECT_NE(uid, derived_uid("1.2.3.4.5", other, "instance"));
  other = one;
  other.description += ", other";
  EXPECT_NE(uid, derived_uid("1.2.3.4.5", other, "instance"));
}

TEST_F(DerivedDicom, PassesDciodvfy) {
  if (std::system("command -v dciodvfy > /dev/null") != 0) GTEST_SKIP() << "dciodvfy (dicom3tools) is not installed";
  for (const int frames : {1, 3})
    for (const bool dicom_source : {true, false}) {
      test::FabricatedRun made(32, frames);
      dicom_source ? (void)write_source(made.run) : made.run.description.sop_instance_uid.clear();
      if (!dicom_source) made.run.frame_times_ms.clear();
      const fs::path path = root / "subtracted.dcm", log = root / "log.txt";
      DerivedDicomWriter writer(made.run, path, derivation(frames));
      for (int i = 0; i < frames; ++i) writer.add(made.frame_image(i).view());
      writer.finish();
      const int status = std::system(("dciodvfy " + path.string() + " > " + log.string() + " 2>&1; ! grep ^Error " + log.string()).c_str());
      EXPECT_EQ(status, 0) << frames << " frames, " << (dicom_source ? "DICOM" : "other") << " source: see the lines above";
    }
}

}  // namespace
}  // namespace cinelumen
