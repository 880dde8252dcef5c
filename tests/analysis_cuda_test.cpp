/// The whole chain on a CUDA device against the CPU: the same vessels, the same diameters.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "engine/analysis.h"
#include "engine/batch.h"
#include "engine/live_analysis.h"
#include "kernels/profiler_range.h"
#include "support/tubes.h"

namespace cinelumen {
namespace {

constexpr int height = 80, width = 112;

/// A textured background that shifts by fractions of a pixel, and two vessels that fill in frame `first_filled` (0-based).
class TwoVessels : public FrameSource {
 public:
  TwoVessels(int frames, int first_filled) {
    for (int frame = 0; frame < frames; ++frame) {
      const double dy = 0.4 * std::sin(1.3 * frame), dx = 0.3 * frame - 0.8;
      const auto line = [&](double y, double x) { return test::TubePoint{y + dy, x + dx}; };
      std::vector<test::Tube> tubes;
      if (frame >= first_filled) {
        tubes.push_back(test::make_tube([&](double t) { return line(24 + 8 * std::sin(4 * t), 130 * t - 8); }, 4.5, 0));
        tubes.push_back(test::make_tube([&](double t) { return line(62 - 12 * t, 130 * t - 8); }, 3, 1));
      }
      const Image<float> vessels = test::render_tubes(height, width, tubes, 0.35, 0.7, 0, 1, 0);
      Image<std::uint16_t> stored(height, width);
      std::mt19937 random(static_cast<unsigned>(frame) + 1);
      std::normal_distribution<double> normal;
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) {
          const double v = y - dy, u = x - dx;
          const double background = 0.6 + 0.12 * std::sin(0.31 * u + 0.11 * v) * std::cos(0.27 * v) + 0.08 * std::sin(0.13 * u - 0.41 * v);
          stored(y, x) =
              static_cast<std::uint16_t>(std::lround(3500 * std::exp(-background - vessels(y, x)) * (1 + 0.008 * normal(random))));
        }
      stored_.push_back(std::move(stored));
    }
  }
  int frame_count() const override { return static_cast<int>(stored_.size()); }
  int rows() const override { return height; }
  int columns() const override { return width; }
  void read_frame(int frame, ImageView<std::uint16_t> stored) const override {
    copy<std::uint16_t>(Stream::cpu(), stored_[frame].view(), stored);
  }

 private:
  std::vector<Image<std::uint16_t>> stored_;
};

Run two_vessels(int frames, int first_filled, double frame_ms = 250) {
  Run run;
  run.frames = std::make_shared<TwoVessels>(frames, first_filled);
  run.intensity.relationship = IntensityRelationship::linear;
  run.intensity.bits_stored = 12;
  for (int i = 0; i < 4096; ++i) run.intensity.value.push_back(static_cast<float>(i));
  run.field.mask = Image<std::uint8_t>(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) run.field.mask(y, x) = 1;
  run.field.source = "whole image";
  for (int frame = 0; frame < frames; ++frame) run.frame_times_ms.push_back(frame_ms * frame);
  return run;
}

// Both machines add in another order and one of them contracts to fused multiply-adds, so that the sums differ in their last bits: shifts
// by less than 1e-3 px, and diameters by less than a tenth of their own SD (or 0.02 px where that is larger).
void expect_agreement(const AnalysisOptions& options) {
  const cinelumen::Run run = two_vessels(7, 3);
  const Analysis cpu = analyze(Stream::cpu(), run, options);
  const Analysis cuda = analyze(Stream::cuda(0), run, options);
  ASSERT_TRUE(cpu.subtracted);
  EXPECT_TRUE(cuda.subtracted);
  EXPECT_EQ(cuda.subtraction.mask.frames(), cpu.subtraction.mask.frames());
  ASSERT_EQ(cuda.subtraction.frames.size(), cpu.subtraction.frames.size());
  double moved = 0;
  for (std::size_t i = 0; i < cpu.subtraction.frames.size(); ++i) {
    const FrameSubtraction &a = cuda.subtraction.frames[i], &b = cpu.subtraction.frames[i];
    EXPECT_NEAR(a.shift_y_px, b.shift_y_px, 1e-3) << "frame " << i;
    EXPECT_NEAR(a.shift_x_px, b.shift_x_px, 1e-3) << "frame " << i;
    EXPECT_NEAR(a.rotation_rad, b.rotation_rad, 2e-5) << "frame " << i;
    EXPECT_NEAR(a.displacement_rms_px, b.displacement_rms_px, 0.01) << "frame " << i;
    moved = std::max(moved, std::abs(b.shift_x_px));
  }
  EXPECT_GT(moved, 0.2) << "the frames were registered";
  ASSERT_GE(cpu.segments.size(), 2u) << "both vessels";
  ASSERT_EQ(cuda.segments.size(), cpu.segments.size());
  int compared = 0;
  for (std::size_t i = 0; i < cpu.segments.size(); ++i) {
    const auto &a = cuda.segments[i].profile.points, &b = cpu.segments[i].profile.points;
    ASSERT_EQ(a.size(), b.size()) << "segment " << i;
    for (std::size_t j = 0; j < b.size(); ++j) {
      if (a[j].sd_px <= 0 || b[j].sd_px <= 0 || a[j].frames != b[j].frames) continue;
      EXPECT_NEAR(a[j].diameter_px, b[j].diameter_px, std::max(0.02f, 0.1f * b[j].sd_px)) << "segment " << i << ", point " << j;
      ++compared;
    }
  }
  EXPECT_GT(compared, 100);
}

TEST(AnalysisCuda, AgreesWithTheCpu) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
  expect_agreement({});
}

TEST(AnalysisCuda, AgreesWithTheCpuWhereTheMaskIsBent) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
  AnalysisOptions options;
  options.registration = Registration::nonrigid;
  expect_agreement(options);
}

void expect_same_bits(const Analysis& a, const Analysis& b) {
  ASSERT_EQ(a.segments.size(), b.segments.size());
  ASSERT_EQ(a.subtraction.frames.size(), b.subtraction.frames.size());
  for (std::size_t i = 0; i < b.subtraction.frames.size(); ++i) {
    EXPECT_EQ(a.subtraction.frames[i].shift_y_px, b.subtraction.frames[i].shift_y_px) << "frame " << i;
    EXPECT_EQ(a.subtraction.frames[i].shift_x_px, b.subtraction.frames[i].shift_x_px) << "frame " << i;
    EXPECT_EQ(a.subtraction.frames[i].residual_sd, b.subtraction.frames[i].residual_sd) << "frame " << i;
  }
  for (std::size_t i = 0; i < b.segments.size(); ++i) {
    const auto &p = a.segments[i].profile.points, &q = b.segments[i].profile.points;
    ASSERT_EQ(p.size(), q.size()) << "segment " << i;
    for (std::size_t j = 0; j < q.size(); ++j) {
      EXPECT_EQ(p[j].diameter_px, q[j].diameter_px) << "segment " << i << ", point " << j;
      EXPECT_EQ(p[j].sd_px, q[j].sd_px) << "segment " << i << ", point " << j;
    }
  }
}

// Each run on a device of its own, and fewer frames in flight than there are by themselves.
TEST(AnalysisCuda, SameBitsOnEveryDeviceAndForAnyFramesInFlight) {
  const int devices = cuda_device_count();
  if (devices == 0) GTEST_SKIP() << "no CUDA device";
  const cinelumen::Run run = two_vessels(8, 3, 70);  // every second one makes the picture
  std::vector<Stream> streams;
  for (int device = 0; device < std::min(devices, 2); ++device) streams.push_back(Stream::cuda(device));
  std::vector<Analysis> analyses(2);
  std::vector<int> on(2, -1);
  over_devices(streams, 2, [&](int item, const Stream& stream) {
    AnalysisOptions options;
    options.picture_frames = 1;
    options.frames_in_flight = item == 0 ? 0 : 2;
    analyses[item] = analyze(stream, run, options);
    on[item] = stream.cuda_device();
  });
  EXPECT_EQ(on[0] != on[1], devices > 1) << "every device takes its share";
  ASSERT_GE(analyses[0].segments.size(), 2u);
  expect_same_bits(analyses[1], analyses[0]);
}

/// A profiler looks at each pass from its second frame on, when everything has been made.
class LookAtThePasses : public AnalysisObserver {
 public:
  void progress(const std::string&, int done, int total) override {
    if (done == 1 && total > 1) profile(true);
    if (done == total) profile(false);
  }
  void topology_done(const Analysis&) override {}
  void frame_done(const FrameResult&) override { ++frames; }
  int frames = 0;
};

// What the host does meanwhile is counted by the emulator, and judged by cuda.sh.
TEST(AnalysisCuda, SteadyState) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
  const cinelumen::Run run = two_vessels(8, 3);
  LookAtThePasses look;
  const Analysis analysis = analyze(Stream::cuda(0), run, {}, &look);
  EXPECT_GE(analysis.segments.size(), 2u);
  EXPECT_EQ(look.frames, 8);
}

TEST(AnalysisCuda, AgreesWithTheCpuOnAStream) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
  const cinelumen::Run run = two_vessels(9, 4);
  LiveOptions options;
  options.mask_frames = 4;
  options.renew_frames = 1;
  LiveAnalysis cpu(Stream::cpu(), run, options), cuda(Stream::cuda(0), run, options);
  int compared = 0;
  Image<std::uint16_t> stored(height, width);
  for (int frame = 0; frame < run.frame_count(); ++frame) {
    run.frames->read_frame(frame, stored.view());
    const LiveFrame &a = cuda.push(stored.view(), run.frame_times_ms[frame]), &b = cpu.push(stored.view(), run.frame_times_ms[frame]);
    ASSERT_EQ(a.mask, b.mask) << "frame " << frame;
    EXPECT_NEAR(a.subtraction.shift_x_px, b.subtraction.shift_x_px, 1e-3) << "frame " << frame;
    ASSERT_EQ(a.segments.size(), b.segments.size()) << "frame " << frame;
    for (std::size_t s = 0; s < b.segments.size(); ++s) {
      EXPECT_EQ(a.segments[s].id, b.segments[s].id);
      ASSERT_EQ(a.segments[s].diameter_px.has_value(), b.segments[s].diameter_px.has_value());
      if (!b.segments[s].diameter_px) continue;
      EXPECT_NEAR(*a.segments[s].diameter_px, *b.segments[s].diameter_px, 0.02) << "frame " << frame << ", segment " << s;
      ++compared;
    }
  }
  EXPECT_GT(compared, 2);
  EXPECT_EQ(cuda.finish().segments.size(), cpu.finish().segments.size());
}

}  // namespace
}  // namespace cinelumen
