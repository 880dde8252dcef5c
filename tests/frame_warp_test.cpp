/// Non-rigid registration on the phantom's foot, whose bones move each on their own, against the displacement that is known.

#include "engine/frame_warp.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "engine/phantom/phantom.h"
#include "kernels/mask_registration.h"
#include "kernels/warp_registration.h"

namespace cinelumen {
namespace {

constexpr int side = 512;

PhantomOptions foot(std::uint64_t seed) {
  PhantomOptions options;
  options.scenario = "motion-nonrigid";
  options.rows = options.columns = side;
  options.frames = 20;
  options.contrast_free_frames = 4;
  options.seed = seed;
  return options;
}

/// Pixels at edges of bones: steep, and not the skin's, which has air beside it.
struct Edges {
  std::vector<std::pair<int, int>> at;  // (y, x)
  explicit Edges(const Image<float>& attenuation) {
    float air = attenuation(0, 0);
    for (int y = 0; y < side; ++y) air = std::min(air, *std::min_element(attenuation.row(y), attenuation.row(y) + side));
    const auto is_skin = [&](int y, int x) {
      for (int j = -12; j <= 12; j += 4)
        for (int i = -12; i <= 12; i += 4)
          if (attenuation(std::clamp(y + j, 0, side - 1), std::clamp(x + i, 0, side - 1)) < air + 0.25f) return true;
      return false;
    };
    for (int y = 12; y < side - 12; y += 2)
      for (int x = 12; x < side - 12; x += 2) {
        const float gy = attenuation(y + 2, x) - attenuation(y - 2, x), gx = attenuation(y, x + 2) - attenuation(y, x - 2);
        if (std::hypot(gy, gx) > 0.12f && !is_skin(y, x)) at.emplace_back(y, x);
      }
  }
};

Image<float> attenuation_of(const Image<float>& counts) {
  Image<float> result(side, side);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) result(y, x) = -std::log(counts(y, x) / 4096);
  return result;
}

/// The same noise for every image of one seed, whatever it shows: quantum noise of 0.01 at the median.
Image<float> with_noise(const Image<float>& attenuation, double share, unsigned seed) {
  Image<float> result(side, side);
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, 0.01 * share);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) result(y, x) = attenuation(y, x) + static_cast<float>(normal(random));
  return result;
}

/// Lays frames on one mask.
class Layer {
 public:
  explicit Layer(const Image<float>& mask)
      : valid_(side, side), table_(65536), registration_(stream_, mask, all()), warp_(stream_, mask, all()) {
    for (int i = 0; i < table_.size(); ++i) table_[i] = 1e-4f * static_cast<float>(i) - 1;
    for (Image<float>* field : {&to_mask_, &warp.to_frame}) *field = make_displacement_field(stream_, side, side);
  }
  void lay(const Image<float>& frame) {
    Image<std::uint16_t> stored(side, side);
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x)
        stored(y, x) = static_cast<std::uint16_t>(std::clamp(std::lround((frame(y, x) + 1) * 1e4f), 0L, 65535L));
    Array<RigidEstimate> rigid(1);
    Array<FramePlacement> placement(1);
    Array<WarpEstimate> bent(1);
    registration_.enqueue(stream_, {stored.view(), table_.view()}, rigid, placement);
    warp_.enqueue(stream_, {stored.view(), table_.view()}, placement, to_mask_, warp.to_frame, bent);
    motion = placement[0].motion;
    estimate = bent[0];
  }
  PixelPosition place(int y, int x) const {
    return place_in_frame(motion, warp, {static_cast<double>(y), static_cast<double>(x)}, side, side);
  }

  FrameWarp warp;
  RigidMotion motion;
  WarpEstimate estimate;

 private:
  ImageView<const std::uint8_t> all() {
    for (int y = 0; y < side; ++y) std::fill_n(valid_.row(y), side, std::uint8_t{1});
    return valid_.view();
  }
  Stream stream_ = Stream::cpu();
  Image<std::uint8_t> valid_;
  Array<float> table_;
  MaskRegistration registration_;
  WarpRegistration warp_;
  Image<float> to_mask_;
};

TEST(FrameWarp, FollowsEachBone) {
  for (const std::uint64_t seed : {701u}) {
    const PhantomOptions options = foot(seed);
    const PhantomRun run = make_phantom(options);
    const std::vector<float> counts = linear_counts(run.truth);
    const Image<float> still = attenuation_of(expected_counts(options, 0));
    const Edges edges(still);
    ASSERT_GT(edges.at.size(), 500u);
    Layer layer(with_noise(still, 1 / std::sqrt(8.0), 1));
    double sum = 0, of_rigid = 0, count = 0;
    for (const int frame : {9, 14, 19}) {
      Image<float> exposed(side, side);
      for (int y = 0; y < side; ++y)
        for (int x = 0; x < side; ++x) exposed(y, x) = std::max(counts[run.frames[frame](y, x)], 1.0f);
      layer.lay(attenuation_of(exposed));
      EXPECT_EQ(layer.estimate.folded, 0);
      for (const auto& [y, x] : edges.at) {
        const auto d = run.truth.displacement(frame, y, x);
        const PixelPosition q = layer.place(y, x), r = move(layer.motion, {static_cast<double>(y), static_cast<double>(x)}, side, side);
        sum += std::pow(q.y - y - d[0], 2) + std::pow(q.x - x - d[1], 2);
        of_rigid += std::pow(r.y - y - d[0], 2) + std::pow(r.x - x - d[1], 2);
        ++count;
      }
    }
    std::printf("seed %d: endpoint error %.3f px rms at bone edges, rigid %.3f\n", static_cast<int>(seed), std::sqrt(sum / count),
                std::sqrt(of_rigid / count));
    EXPECT_LT(std::sqrt(sum / count), 0.07) << "seed " << seed;
    EXPECT_LT(std::sqrt(sum / count), 0.6 * std::sqrt(of_rigid / count)) << "seed " << seed;
  }
}

TEST(FrameWarp, ContrastMovesBonesByLittle) {
  const PhantomOptions with = foot(702);
  PhantomOptions without = with;
  without.attenuation_per_mm = 1e-7;
  const Image<float> still = attenuation_of(expected_counts(without, 0));
  const Edges edges(still);
  const int frame = 19;
  Layer a(with_noise(still, 1 / std::sqrt(8.0), 1)), b(with_noise(still, 1 / std::sqrt(8.0), 1));
  const Image<float> plain = attenuation_of(expected_counts(without, frame)), filled = attenuation_of(expected_counts(with, frame));
  a.lay(with_noise(plain, 1, 2));
  b.lay(with_noise(filled, 1, 2));
  double sum = 0, count = 0;
  for (const auto& [y, x] : edges.at) {
    const PixelPosition p = a.place(y, x), q = b.place(y, x);
    sum += std::pow(p.y - q.y, 2) + std::pow(p.x - q.x, 2);
    ++count;
  }
  std::printf("contrast moves bone edges by %.4f px rms\n", std::sqrt(sum / count));
  EXPECT_LT(std::sqrt(sum / count), 0.03);
}

}  // namespace
}  // namespace cinelumen
