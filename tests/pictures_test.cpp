/// Pictures: what is dark and light, colours, labels that can be read, and a video that is whole.

#include "io/pictures.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <set>

#include "io/output_folder.h"
#include "support/fabricated.h"

namespace cinelumen {
namespace {

namespace fs = std::filesystem;

TEST(GreyWindows, BackgroundIsLightAndVesselsAreDark) {
  test::FabricatedRun made(128, 4);
  const auto image = made.analysis.maximum_opacification.view();
  const GreyWindow window = choose_window(image, true);
  EXPECT_LT(window.white, 0);
  EXPECT_GT(window.black, 0.2f);
  Image<std::uint8_t> grey(128, 128);
  to_grey(image, window, grey);
  EXPECT_GT(grey(2, 2), 170) << "background";
  const auto& on_vessel = made.analysis.segments[0].centreline.points[30];
  EXPECT_LT(grey(int(on_vessel.y), int(on_vessel.x)), 90) << "vessel";
}

TEST(GreyWindows, EndsNotANumberAndConstantImages) {
  Image<float> image(2, 40);
  for (int x = 0; x < 40; ++x) image(0, x) = -1 + 0.1f * x, image(1, x) = 0;
  image(1, 0) = std::numeric_limits<float>::quiet_NaN();
  image(1, 1) = std::numeric_limits<float>::infinity();
  image(1, 2) = -std::numeric_limits<float>::infinity();
  Image<std::uint8_t> grey(2, 40);
  to_grey(image.view(), {0, 1}, grey);
  for (int x = 0; x < 40; ++x) {
    const double expected = std::clamp(255 * (1 - double(image(0, x))), 0.0, 255.0);
    EXPECT_NEAR(grey(0, x), expected, 0.51);
  }
  EXPECT_EQ(grey(1, 0), 255);
  EXPECT_EQ(grey(1, 1), 0);
  EXPECT_EQ(grey(1, 2), 255);
  Image<float> constant(5, 5);
  set_zero(Stream::cpu(), constant.view());
  for (const bool subtracted : {true, false}) {
    const GreyWindow window = choose_window(constant.view(), subtracted);
    EXPECT_GT(window.black, window.white);
  }
  constant(0, 0) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_GT(choose_window(constant.view().part(0, 0, 1, 1), true).black, 0);
  EXPECT_THROW(to_grey(image.view(), {0, 1}, Image<std::uint8_t>(3, 3)), std::invalid_argument);
}

TEST(Encoding, SizesAreBounded) {
  Image<std::uint8_t> grey(100, 300);
  for (int y = 0; y < 100; ++y)
    for (int x = 0; x < 300; ++x) grey(y, x) = static_cast<std::uint8_t>(x);
  const cv::Mat small = cv::imdecode(encode_jpeg(grey.view(), 150), cv::IMREAD_UNCHANGED);
  EXPECT_EQ(small.size(), cv::Size(150, 50));
  const cv::Mat same = cv::imdecode(encode_png(grey.view(), 1000), cv::IMREAD_UNCHANGED);
  ASSERT_EQ(same.size(), cv::Size(300, 100));
  EXPECT_EQ(same.at<std::uint8_t>(50, 200), 200);
}

TEST(Colours, NeighboursDiffer) {
  std::set<std::string> names;
  for (int id = 1; id <= 12; ++id) names.insert(to_hex(segment_colour(id)));
  EXPECT_EQ(names.size(), 12u);
  EXPECT_EQ(segment_colour(1), segment_colour(13));
  EXPECT_EQ(to_hex({1, 0xab, 255}), "#01abff");
  EXPECT_GT(time_colour(0.1)[2], time_colour(0.1)[0]) << "early is blue";
  EXPECT_GT(time_colour(0.9)[0], time_colour(0.9)[2]) << "late is red";
}

TEST(Labels, StayInsideAndApart) {
  test::FabricatedRun made(256, 2);
  const auto labels = place_labels(made.analysis.segments, 256, 256, 6);
  ASSERT_EQ(labels.size(), made.analysis.segments.size());
  for (std::size_t i = 0; i < labels.size(); ++i) {
    EXPECT_GE(labels[i].y, 6);
    EXPECT_LE(labels[i].y, 250);
    EXPECT_GE(labels[i].x, 6);
    EXPECT_LE(labels[i].x, 250);
    for (std::size_t j = 0; j < i; ++j) EXPECT_GT(std::hypot(labels[i].y - labels[j].y, labels[i].x - labels[j].x), 12);
  }
}

TEST(MaximumOpacification, ShowsSegmentsInTheirColours) {
  test::FabricatedRun made(256, 2);
  const auto bytes = draw_maximum_opacification(made.analysis, {-0.1f, 0.5f});
  const cv::Mat image = cv::imdecode(bytes, cv::IMREAD_COLOR);
  ASSERT_EQ(image.size(), cv::Size(512, 512)) << "small pictures are doubled";
  for (const SegmentResult& segment : made.analysis.segments) {
    const Colour colour = segment_colour(segment.id);
    int near = 0;
    for (const CentrelinePoint& point : segment.centreline.points) {
      const auto& pixel = image.at<cv::Vec3b>(std::min(511, int((point.y + 0.5f) * 2)), std::min(511, int((point.x + 0.5f) * 2)));
      near += std::abs(pixel[0] - colour[2]) + std::abs(pixel[1] - colour[1]) + std::abs(pixel[2] - colour[0]) < 60;
    }
    EXPECT_GT(near, 0.5 * static_cast<double>(segment.centreline.points.size())) << "segment " << segment.id;
  }
  Analysis empty;
  EXPECT_FALSE(draw_maximum_opacification(empty, {}).empty()) << "no picture at all must not be a crash";
}

TEST(TimeToPeak, HueIsTimeAndScaleIsSaid) {
  test::FabricatedRun made(128, 4);
  const auto picture = draw_time_to_peak(made.analysis, {-0.1f, 0.5f}, 1024);
  ASSERT_TRUE(picture);
  const cv::Mat image = cv::imdecode(picture->png, cv::IMREAD_COLOR);
  const auto pixel = [&](std::size_t segment, std::size_t point) {
    const auto& at = made.analysis.segments[segment].centreline.points[point];
    return image.at<cv::Vec3b>(int(at.y + 0.5f), int(at.x + 0.5f));
  };
  EXPECT_GT(pixel(0, 4)[0], pixel(0, 4)[2]) << "the inflow peaks first: blue";
  EXPECT_GT(pixel(3, 30)[2], pixel(3, 30)[0]) << "the arch peaks last: red";
  EXPECT_LT(picture->first_ms, 1800);
  EXPECT_GT(picture->last_ms, 2300);
  made.analysis.time_to_peak_ms = {};
  EXPECT_FALSE(draw_time_to_peak(made.analysis, {-0.1f, 0.5f}, 1024));
}

class Overlay : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/cinelumen_overlay_XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    root = name;
  }
  void TearDown() override { fs::remove_all(root); }
  /// True where an encoder was there and a file was written.
  bool write(int side, int frames, const fs::path& path) {
    test::FabricatedRun made(side, frames);
    OverlayVideo video(root, side, side, 7.5);
    if (!video.available()) return false;
    Image<std::uint8_t> grey(side, side);
    std::vector<int> ids;
    for (const auto& segment : made.analysis.segments) ids.push_back(segment.id);
    for (int i = 0; i < frames; ++i) {
      const Image<float> image = made.frame_image(i);
      const auto lumen = made.lumen(i);
      to_grey(image.view(), {-0.1f, 0.5f}, grey);
      video.add(grey.view(), {i, i * 133.0, image.view(), image.view(), &lumen, nullptr}, ids);
    }
    video.finish(path);
    return true;
  }
  fs::path root;
};

TEST_F(Overlay, IsH264WithItsIndexFirst) {
  const fs::path path = root / "out.mp4.tmp";
  if (!write(97, 12, path)) GTEST_SKIP() << "OpenCV has no H.264 encoder here";
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  const auto ftyp = bytes.find("ftyp"), moov = bytes.find("moov"), mdat = bytes.find("mdat");
  ASSERT_NE(mdat, std::string::npos);
  EXPECT_LT(ftyp, moov);
  EXPECT_LT(moov, mdat) << "a browser would have to load the whole file first";
  EXPECT_NE(bytes.find("avc1"), std::string::npos);
  if (std::system("command -v ffprobe > /dev/null 2>&1") != 0) return;
  const std::string check =
      "[ \"$(ffprobe -v error -count_frames -select_streams v -show_entries stream=codec_name,pix_fmt,nb_read_frames "
      "-of csv=p=0 " +
      path.string() + ")\" = h264,yuv420p,12 ]";
  EXPECT_EQ(std::system(check.c_str()), 0) << check;
}

TEST_F(Overlay, OnePixelIsNotTooSmall) {
  OverlayVideo video(root, 1, 1, 0);
  if (!video.available()) GTEST_SKIP() << "OpenCV has no H.264 encoder here";
  Image<std::uint8_t> grey(1, 1);
  grey(0, 0) = 100;
  video.add(grey.view(), {}, {});
  video.finish(root / "out.mp4");
  EXPECT_GT(fs::file_size(root / "out.mp4"), 500u);
}

TEST_F(Overlay, AnIncompleteFileIsAnError) {
  OverlayVideo video(root, 64, 64, 10);
  if (!video.available()) GTEST_SKIP() << "OpenCV has no H.264 encoder here";
  Image<std::uint8_t> grey(64, 64);
  set_zero(Stream::cpu(), grey.view());
  video.add(grey.view(), {}, {});
  fs::remove(root / "overlay.mp4");
  EXPECT_THROW(video.finish(root / "out.mp4"), OutputError);
  EXPECT_FALSE(fs::exists(root / "out.mp4"));
}

}  // namespace
}  // namespace cinelumen
