/// Runs of every kind opened by path: folders, videos, images, and the real files where they are.

#include "io/run_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/videoio.hpp>

#include "io/byte_source.h"
#include "io/run_info.h"
#include "support/dicom_writer.h"

namespace cinelumen {
namespace {

using test::TemporaryFolder;
using test::write_dicom;
using test::WrittenRun;

Image<std::uint16_t> frame_of(const Run& run, int frame) {
  Image<std::uint16_t> image(run.rows(), run.columns());
  run.frames->read_frame(frame, image.view());
  return image;
}

bool warns(const Run& run, const std::string& words) {
  return std::any_of(run.warnings.begin(), run.warnings.end(),
                     [&](const std::string& warning) { return warning.find(words) != std::string::npos; });
}

std::string refusal(const std::string& path) {
  try {
    read_run(path);
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

/// SHA-256 of a frame's pixels, so that files can be compared.
std::string pixel_hash(const Run& run, int frame) {
  const Image<std::uint16_t> image = frame_of(run, frame);
  std::vector<std::uint8_t> bytes;
  for (int y = 0; y < run.rows(); ++y)
    for (int x = 0; x < run.columns(); ++x) {
      bytes.push_back(static_cast<std::uint8_t>(image(y, x)));
      bytes.push_back(static_cast<std::uint8_t>(image(y, x) >> 8));
    }
  return sha256(ByteSource::memory("pixels", bytes));
}

/// One file of a run in single frames; every pixel of frame i is i.
struct SingleFrame {
  int instance = 1;
  std::string series = "1.2.826.0.1.3680043.10.99.7", time;
  int acquisition = 0;
  int value = 0;
};
void write_single(const std::string& path, const SingleFrame& frame) {
  WrittenRun run;
  run.frames = 1;
  run.samples.assign(run.pixel_count(), static_cast<std::uint16_t>(frame.value));
  run.add = [&](DcmDataset& data) {
    data.findAndDeleteElement(DCM_NumberOfFrames);
    data.findAndDeleteElement(DCM_FrameIncrementPointer);
    data.findAndDeleteElement(DCM_FrameTime);
    data.putAndInsertString(DCM_SeriesInstanceUID, frame.series.c_str());
    data.putAndInsertString(DCM_SOPInstanceUID, (frame.series + "." + std::to_string(frame.value + 1)).c_str());
    if (frame.instance > 0) data.putAndInsertString(DCM_InstanceNumber, std::to_string(frame.instance).c_str());
    if (frame.acquisition > 0) data.putAndInsertString(DCM_AcquisitionNumber, std::to_string(frame.acquisition).c_str());
    if (!frame.time.empty()) {
      data.putAndInsertString(DCM_AcquisitionDate, "20260102");
      data.putAndInsertString(DCM_AcquisitionTime, frame.time.c_str());
    }
  };
  write_dicom(path, run);
}

TEST(Folder, SingleFramesAreOrderedByInstanceNumber) {
  TemporaryFolder folder;
  for (int i = 0; i < 5; ++i) {
    SingleFrame frame;
    frame.instance = i + 1;
    frame.value = i;
    frame.time = "10000" + std::to_string(i) + ".500";
    write_single(folder / ("file_" + std::string(1, static_cast<char>('e' - i)) + ".dcm"), frame);
  }
  test::write_bytes(folder / "readme.txt", {'h', 'i'});
  WrittenRun report;
  report.sop_class = UID_BasicTextSRStorage;
  report.modality = "SR";
  write_dicom(folder / "report.dcm", report);
  const cinelumen::Run run = read_run(folder.path());
  ASSERT_EQ(run.frame_count(), 5);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(frame_of(run, i)(7, 9), i);
  EXPECT_EQ(run.frame_times_ms, (std::vector<double>{0, 1000, 2000, 3000, 4000}));
  EXPECT_EQ(run.description.path, folder.path());
  EXPECT_EQ(run.description.sha256.size(), 64u);
  EXPECT_TRUE(warns(run, "2 other file(s)"));
}

TEST(Folder, FramesWithoutNumbersAreOrderedByTime) {
  TemporaryFolder folder;
  for (int i = 0; i < 4; ++i) {
    SingleFrame frame;
    frame.instance = 0;
    frame.value = i;
    frame.time = "10000" + std::to_string(i);
    write_single(folder / ("z" + std::to_string(9 - i)), frame);
  }
  const cinelumen::Run run = read_run(folder.path());
  for (int i = 0; i < 4; ++i) EXPECT_EQ(frame_of(run, i)(0, 0), i);
  EXPECT_TRUE(warns(run, "ordered by time"));
  SingleFrame lost;
  lost.instance = 0;
  lost.value = 9;
  write_single(folder / "z0", lost);
  EXPECT_NE(refusal(folder.path()).find("can't be put in order"), std::string::npos);
}

TEST(Folder, MissingFramesAndTimesAreSaid) {
  TemporaryFolder folder;
  for (const int i : {1, 2, 4}) {
    SingleFrame frame;
    frame.instance = i;
    frame.value = i;
    write_single(folder / std::to_string(i), frame);
  }
  const cinelumen::Run run = read_run(folder.path());
  EXPECT_TRUE(warns(run, "frames are missing"));
  EXPECT_TRUE(run.frame_times_ms.empty());
  EXPECT_TRUE(warns(run, "--frame-time"));
  ReadOptions options;
  options.frame_time_ms = 250;
  const cinelumen::Run timed = read_run(folder.path(), options);
  EXPECT_EQ(timed.frame_times_ms, (std::vector<double>{0, 250, 500}));
  EXPECT_FALSE(warns(timed, "--frame-time"));
}

TEST(Folder, SeveralRunsAreListed) {
  TemporaryFolder folder;
  for (int i = 0; i < 6; ++i) {
    SingleFrame frame;
    frame.instance = i + 1;
    frame.value = i;
    if (i >= 4) frame.series += ".5";
    write_single(folder / ("f" + std::to_string(i)), frame);
  }
  const std::string message = refusal(folder.path());
  EXPECT_NE(message.find("2 runs"), std::string::npos) << message;
  EXPECT_NE(message.find("f0 (4 frames)"), std::string::npos) << message;
  EXPECT_NE(message.find("f4 (2 frames)"), std::string::npos) << message;
}

TEST(Folder, AcquisitionNumbersTellRunsOfASeriesApartButNotFrames) {
  TemporaryFolder counted, apart;
  for (int i = 0; i < 4; ++i) {
    SingleFrame frame;
    frame.instance = i + 1;
    frame.value = i;
    frame.acquisition = i + 1;
    write_single(counted / std::to_string(i), frame);
    frame.acquisition = 1 + i / 2;
    write_single(apart / std::to_string(i), frame);
  }
  EXPECT_EQ(read_run(counted.path()).frame_count(), 4);
  EXPECT_NE(refusal(apart.path()).find("2 runs"), std::string::npos);
}

TEST(Folder, OneMultiFrameFileIsARun) {
  TemporaryFolder folder;
  write_dicom(folder / "run", {});
  EXPECT_EQ(read_run(folder.path()).frame_count(), 3);
  WrittenRun other;
  other.frames = 2;
  write_dicom(folder / "run2", other);
  EXPECT_NE(refusal(folder.path()).find("2 runs"), std::string::npos);
}

TEST(Folder, WithoutARunIsRefused) {
  TemporaryFolder folder;
  EXPECT_NE(refusal(folder.path()).find("no run in this folder"), std::string::npos);
  WrittenRun report;
  report.sop_class = UID_BasicTextSRStorage;
  report.modality = "SR";
  write_dicom(folder / "report.dcm", report);
  EXPECT_NE(refusal(folder.path()).find("not an angiographic run"), std::string::npos);
}

cv::Mat picture(int frame, int depth) {
  cv::Mat image(72, 96, depth);
  for (int y = 0; y < image.rows; ++y)
    for (int x = 0; x < image.cols; ++x) {
      const int value = (frame * 20 + x + y) & 255;
      if (depth == CV_8U)
        image.at<std::uint8_t>(y, x) = static_cast<std::uint8_t>(value);
      else
        image.at<std::uint16_t>(y, x) = static_cast<std::uint16_t>(value * 257);
    }
  return image;
}

TEST(Images, FolderPatternAndDepths) {
  for (const int depth : {CV_8U, CV_16U}) {
    TemporaryFolder folder;
    for (int i = 0; i < 12; ++i) cv::imwrite(folder / ("frame_" + std::to_string(i + 1) + ".png"), picture(i, depth));
    ReadOptions options;
    options.frame_time_ms = 100;
    options.spacing_mm = 0.2;
    for (const std::string& path : {folder.path(), folder / "frame_%d.png"}) {
      const cinelumen::Run run = read_run(path, options);
      ASSERT_EQ(run.frame_count(), 12);
      EXPECT_EQ(run.intensity.bits_stored, depth == CV_8U ? 8 : 16);
      EXPECT_EQ(run.intensity.relationship, IntensityRelationship::display);
      for (int i = 0; i < 12; ++i) {
        const Image<std::uint16_t> frame = frame_of(run, i);
        const cv::Mat expected = picture(i, depth);
        for (int y = 0; y < 72; ++y)
          for (int x = 0; x < 96; ++x)
            ASSERT_EQ(frame(y, x), depth == CV_8U ? expected.at<std::uint8_t>(y, x) : expected.at<std::uint16_t>(y, x))
                << "image " << i + 1;
      }
      EXPECT_EQ(run.frame_times_ms[11], 1100);
      EXPECT_EQ(run.geometry.pixel_spacing_mm, (std::array<double, 2>{0.2, 0.2}));
      EXPECT_EQ(run.geometry.pixel_spacing_calibration, "FIDUCIAL");
    }
    EXPECT_TRUE(warns(read_run(folder.path()), "--frame-time"));
    std::filesystem::remove(folder / "frame_3.png");
    EXPECT_TRUE(warns(read_run(folder / "frame_%d.png"), "gaps"));
    cv::imwrite(folder / "frame_5.png", cv::Mat(10, 10, depth, cv::Scalar(1)));
    const cinelumen::Run mixed = read_run(folder.path());
    EXPECT_THROW(frame_of(mixed, 3), InputError);
    EXPECT_NE(refusal(folder / "none_%d.png").find("no such file"), std::string::npos);
  }
}

TEST(Images, ColourBecomesLuminance) {
  TemporaryFolder folder;
  cv::imwrite(folder / "one.png", cv::Mat(70, 70, CV_8UC3, cv::Scalar(10, 100, 200)));
  const cinelumen::Run run = read_run(folder / "one.png");
  EXPECT_EQ(run.frame_count(), 1);
  EXPECT_NEAR(frame_of(run, 0)(5, 5), 0.114 * 10 + 0.587 * 100 + 0.299 * 200, 1);
  test::write_bytes(folder / "bad.png", {0x89, 'P', 'N', 'G', 1, 2, 3});
  EXPECT_NE(refusal(folder / "bad.png").find("can't be decoded"), std::string::npos);
}

TEST(Video, FramesInAnyOrder) {
  TemporaryFolder folder;
  const std::string path = folder / "run.avi";
  {
    cv::VideoWriter writer(path, cv::VideoWriter::fourcc('M', 'J', 'P', 'G'), 15, {96, 72}, false);
    if (!writer.isOpened()) GTEST_SKIP() << "OpenCV can't write MJPG here";
    for (int i = 0; i < 80; ++i) writer.write(cv::Mat(72, 96, CV_8U, cv::Scalar(i * 3)));
  }
  ReadOptions options;
  options.cache_bytes = 0;
  const cinelumen::Run run = read_run(path, options);
  ASSERT_EQ(run.frame_count(), 80);
  EXPECT_EQ(run.rows(), 72);
  for (const int frame : {0, 1, 2, 79, 5, 60, 59, 0}) EXPECT_NEAR(frame_of(run, frame)(30, 40), frame * 3, 4) << frame;
  EXPECT_TRUE(warns(run, "15.00 frames/s"));
  EXPECT_TRUE(run.frame_times_ms.empty());
  EXPECT_EQ(run.description.sha256.size(), 64u);
  test::write_bytes(folder / "bad.avi", {'R', 'I', 'F', 'F', 0, 0, 0, 0});
  EXPECT_NE(refusal(folder / "bad.avi").find("video"), std::string::npos);
}

TEST(Options, AreChecked) {
  ReadOptions options;
  options.frame_time_ms = -1;
  EXPECT_THROW(read_run("x", options), std::invalid_argument);
  options.frame_time_ms.reset();
  options.spacing_mm = 0;
  EXPECT_THROW(read_run("x", options), std::invalid_argument);
}

TEST(Info, TextAndJsonSayWhatIsThere) {
  TemporaryFolder folder;
  WrittenRun written;
  written.add = [](DcmDataset& data) {
    DcmItem* item = nullptr;
    data.findOrCreateSequenceItem(DCM_MaskSubtractionSequence, item, -2);
    item->putAndInsertString(DCM_MaskOperation, "AVG_SUB");
    item->putAndInsertUint16(DCM_MaskFrameNumbers, 99);
    data.putAndInsertString(DCM_PatientName, "<script>\x1b[2J");
  };
  const cinelumen::Run run = read_run(write_dicom(folder / "run.dcm", written));
  const std::string text = describe_run(run);
  EXPECT_NE(text.find("AVG_SUB of frame 99: not all of these frames exist (1 to 3)"), std::string::npos) << text;
  EXPECT_NE(text.find("every 40 ms (25 frames/s)"), std::string::npos) << text;
  EXPECT_NE(text.find("LIN, read as linear"), std::string::npos) << text;
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  const auto json = nlohmann::json::parse(describe_run_json(run));
  EXPECT_EQ(json["input"]["frames"], 3);
  EXPECT_EQ(json["input"]["bits_stored"], 12);
  EXPECT_EQ(json["input"]["frame_times_ms"], (std::vector<double>{0, 40, 80}));
  EXPECT_EQ(json["mask"]["instructions"][0]["operation"], "AVG_SUB");
  EXPECT_EQ(json["calibration"]["source"], "none");
  EXPECT_TRUE(json["calibration"]["mm_per_px"].is_null());
  EXPECT_TRUE(json["geometry"]["source_to_detector_mm"].is_null());
}

/// The real runs; the folder is named by CINELUMEN_TEST_DATA.
class RealRuns : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* folder = std::getenv("CINELUMEN_TEST_DATA");
    folder_ = std::string(folder ? folder : "") + "/xa/";
    if (!folder || !std::filesystem::exists(folder_)) GTEST_SKIP() << "CINELUMEN_TEST_DATA names no folder with xa/";
  }
  std::string folder_;
};

TEST_F(RealRuns, OneAngiogramInEightTransferSyntaxes) {
  std::map<std::string, std::string> hashes;
  std::map<std::string, Image<std::uint16_t>> frames;
  for (const std::string name : {"unc", "rle", "jpll", "jply", "jlsl", "jlsn", "j2kr", "j2ki"}) {
    const cinelumen::Run run = read_run(folder_ + "nema_xa1_" + name + ".dcm");
    ASSERT_EQ(run.frame_count(), 1);
    ASSERT_EQ(run.rows(), 1024);
    EXPECT_EQ(run.intensity.bits_stored, 10);
    EXPECT_EQ(run.intensity.relationship, IntensityRelationship::display);
    EXPECT_TRUE(warns(run, "secondary capture")) << name;
    EXPECT_EQ(run.field.source, "pixels") << name;
    hashes[name] = pixel_hash(run, 0);
    frames[name] = frame_of(run, 0);
  }
  for (const char* lossless : {"rle", "jpll", "jlsl", "j2kr"}) EXPECT_EQ(hashes[lossless], hashes["unc"]) << lossless;
  for (const char* lossy : {"jply", "jlsn", "j2ki"}) {
    const Image<std::uint16_t>&lossy_frame = frames[lossy], &true_frame = frames["unc"];
    double squares = 0;
    for (int y = 0; y < 1024; ++y)
      for (int x = 0; x < 1024; ++x) {
        const double difference = double(lossy_frame(y, x)) - true_frame(y, x);
        squares += difference * difference;
      }
    const double rms = std::sqrt(squares / (1024 * 1024));
    EXPECT_GT(rms, 0) << lossy;
    EXPECT_LT(rms, 8) << lossy << " of 1023";
  }
}

TEST_F(RealRuns, CoronaryRun) {
  const cinelumen::Run run = read_run(folder_ + "rubo_coronary_96f_jpeg.dcm");
  ASSERT_EQ(run.frame_count(), 96);
  EXPECT_EQ(run.intensity.relationship, IntensityRelationship::linear);
  EXPECT_EQ(run.frame_times_ms[95], 33.0 * 95);
  ASSERT_EQ(run.mask_instructions.size(), 1u);
  EXPECT_EQ(run.mask_instructions[0].operation, MaskInstruction::Operation::none);
  EXPECT_EQ(run.mask_instructions[0].mask_frames, std::vector<int>{0});
  EXPECT_NE(describe_run(run).find("NONE with mask frame 0"), std::string::npos);
  EXPECT_EQ(run.geometry.primary_angle_deg, -32.0);
  // The image intensifier's corners and the blade on the left are outside; the vessel is inside.
  EXPECT_EQ(run.field.source, "pixels");
  EXPECT_EQ(run.field.mask(5, 5), 0);
  EXPECT_EQ(run.field.mask(256, 35), 0);
  EXPECT_EQ(run.field.mask(490, 256), 0);
  EXPECT_EQ(run.field.mask(256, 120), 1);
  EXPECT_EQ(run.field.mask(256, 480), 1) << "the dark spine is part of the scene";
}

TEST_F(RealRuns, GePhantoms) {
  const cinelumen::Run im5 = read_run(folder_ + "ge_phantom_im5.dcm");
  EXPECT_EQ(im5.frame_count(), 16);
  EXPECT_EQ(im5.geometry.source_to_detector_mm, 931.0);
  EXPECT_EQ(im5.geometry.source_to_patient_mm, 720.0);
  EXPECT_EQ(im5.geometry.magnification, 1.29306);
  EXPECT_EQ(im5.geometry.imager_pixel_spacing_mm, (std::array<double, 2>{0.390625, 0.390625}));
  EXPECT_FALSE(im5.geometry.pixel_spacing_mm);
  EXPECT_EQ(im5.intensity.relationship_as_stored, "DRM");
  EXPECT_EQ(im5.intensity.relationship, IntensityRelationship::display);
  EXPECT_TRUE(warns(im5, "DRM"));
  EXPECT_EQ(im5.field.source, "shutter");
  EXPECT_EQ(im5.description.acquired, "2014-10-07T14:59:26");
  const cinelumen::Run im6 = read_run(folder_ + "ge_phantom_im6.dcm");
  EXPECT_EQ(im6.geometry.source_to_detector_mm, 939.0);
  const cinelumen::Run im1 = read_run(folder_ + "ge_phantom_im1.dcm");
  EXPECT_FALSE(im1.geometry.imager_pixel_spacing_mm);
  EXPECT_EQ(im1.field.mask(500, 500), 0) << "the corner cut off by the intensifier";
  EXPECT_EQ(im1.field.mask(250, 250), 1);
}

}  // namespace
}  // namespace cinelumen
