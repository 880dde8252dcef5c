/// Pictures of one foot moved against each other, with and without devices, and pictures of different things.

#include "engine/run_registration.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numbers>
#include <random>

#include "engine/phantom/phantom.h"

namespace cinelumen {
namespace {

/// The log attenuation of a scenario's first frame, without noise; 512 x 512.
Image<float> make_picture(const char* scenario, std::uint64_t seed) {
  PhantomOptions options;
  options.scenario = scenario;
  options.rows = options.columns = 512;
  options.seed = seed;
  options.frames = 1;
  Image<float> picture = expected_counts(options, 0);
  for (int y = 0; y < 512; ++y)
    for (int x = 0; x < 512; ++x) picture(y, x) = -std::log(std::max(1.0f, picture(y, x)));
  return picture;
}

/// A foot, made once: that takes longer than what is tested.
const Image<float>& foot_picture() {
  static const Image<float> picture = make_picture("foot", 601);
  return picture;
}

void add_noise(Image<float>& picture, float sd, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> noise(0, sd);
  for (int y = 0; y < picture.height(); ++y)
    for (int x = 0; x < picture.width(); ++x) picture(y, x) += noise(random);
}

Image<float> copy_of(const Image<float>& picture) {
  Image<float> copied(picture.height(), picture.width());
  copy<float>(Stream::cpu(), picture.view(), copied.view());
  return copied;
}

using Placing = std::function<std::array<double, 2>(double, double)>;

/// The picture whose pixel (y, x) shows `from` at where(y, x).
Image<float> resampled(const Image<float>& from, int side, const Placing& where) {
  Image<float> result(side, side);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      const auto p = where(y, x);
      const double v = std::clamp(p[0], 0.0, from.height() - 1.001), u = std::clamp(p[1], 0.0, from.width() - 1.001);
      const int j = static_cast<int>(v), i = static_cast<int>(u);
      const double fy = v - j, fx = u - i;
      result(y, x) = static_cast<float>((1 - fy) * ((1 - fx) * from(j, i) + fx * from(j, i + 1)) +
                                        fy * ((1 - fx) * from(j + 1, i) + fx * from(j + 1, i + 1)));
    }
  return result;
}

/// From a run's pixel to the reference's: turned, scaled and moved about the middle, then bent by `bend` px.
Placing back_from(int side, int run_side, double rotation_deg, double scale, double dy, double dx, double bend) {
  return [=](double y, double x) -> std::array<double, 2> {
    const double angle = rotation_deg * std::numbers::pi / 180, c = std::cos(angle), s = std::sin(angle), middle = (run_side - 1) / 2.0;
    const double v = (y - middle - dy) / scale, u = (x - middle - dx) / scale, centre = (side - 1) / 2.0;
    return {centre + c * v - s * u + bend * std::sin(5 * x / run_side), centre + s * v + c * u + bend * std::cos(5 * y / run_side)};
  };
}

/// rms distance in reference px of where the registration puts the foot (not the air) from where it lies.
double rms_error(const RunRegistration& registration, const Image<float>& reference, const Placing& back, int run_side) {
  constexpr int step = 8;
  float lowest = reference(0, 0);
  for (int y = 0; y < reference.height(); ++y)
    for (int x = 0; x < reference.width(); ++x) lowest = std::min(lowest, reference(y, x));
  double squares = 0;
  int count = 0;
  for (int y = 0; y < run_side; y += step)
    for (int x = 0; x < run_side; x += step) {
      const auto p = back(y, x);
      if (p[0] < 0 || p[1] < 0 || p[0] > reference.height() - 1 || p[1] > reference.width() - 1) continue;
      if (reference(static_cast<int>(p[0]), static_cast<int>(p[1])) < lowest + 0.3f) continue;
      const auto q = registration.forward(p[0], p[1]);
      squares += (q[0] - y) * (q[0] - y) + (q[1] - x) * (q[1] - x);
      ++count;
    }
  return std::sqrt(squares / count) / registration.scale;
}

TEST(RunRegistration, FindsAFootThatWasMovedTurnedAndBent) {
  const Image<float>& foot = foot_picture();
  Image<float> reference = copy_of(foot);
  add_noise(reference, 0.01f, 1);
  struct Case {
    double rotation_deg, scale, dy, dx, bend, largest_error_px;
  };
  for (const Case& c : {Case{0, 1, 0, 0, 0, 0.15}, Case{3, 1, 20, -15, 0, 0.15}, Case{-3, 1.02, -25, 20, 3, 0.5},
                        Case{7, 0.94, 100, 60, 2, 0.3}, Case{-7, 1.06, -110, 90, 2, 0.3}}) {
    const Placing back = back_from(512, 512, c.rotation_deg, c.scale, c.dy, c.dx, c.bend);
    Image<float> run = resampled(foot, 512, back);
    for (int y = 0; y < 512; ++y)
      for (int x = 0; x < 512; ++x) run(y, x) = 0.8f * run(y, x) + 0.3f;  // another voltage, another dose
    add_noise(run, 0.01f, 2);
    const RunRegistration registration = register_runs(reference.view(), {}, run.view(), {}, 1);
    EXPECT_TRUE(registration.reliable) << registration.note;
    EXPECT_LE(rms_error(registration, foot, back, 512), c.largest_error_px) << c.rotation_deg << " degrees, bend " << c.bend;
    EXPECT_GE(registration.correlation, 0.9);
    // Bends turn and stretch a little, too.
    EXPECT_NEAR(registration.rotation_deg, c.rotation_deg, 0.1 + 0.3 * c.bend);
    EXPECT_NEAR(registration.scale, c.scale, 0.002 + 0.005 * c.bend);
  }
}

TEST(RunRegistration, DevicesInOnlyOneOfThePicturesDoNotMoveIt) {
  const Image<float>&foot = foot_picture(), devices = make_picture("devices", 601);
  const Placing back = back_from(512, 512, 3, 1.0, 20, -20, 0), none = back_from(512, 512, 0, 1, 0, 0, 0);
  Image<float> with_devices = resampled(devices, 512, back), without = resampled(foot, 512, none);
  add_noise(with_devices, 0.01f, 3);
  add_noise(without, 0.01f, 4);
  const RunRegistration appeared = register_runs(without.view(), {}, with_devices.view(), {}, 1);
  EXPECT_TRUE(appeared.reliable) << appeared.note;
  EXPECT_LE(rms_error(appeared, foot, back, 512), 0.3);
  Image<float> moved_bare = resampled(foot, 512, back), fixed_devices = resampled(devices, 512, none);
  const RunRegistration went = register_runs(fixed_devices.view(), {}, moved_bare.view(), {}, 1);
  EXPECT_TRUE(went.reliable) << went.note;
  EXPECT_LE(rms_error(went, foot, back, 512), 0.3);
}

TEST(RunRegistration, PicturesOfOtherSizesAndFieldsAreOne) {
  const Image<float>& foot = foot_picture();
  const Placing back = back_from(512, 1024, -3, 2.05, 40, -30, 0), smaller = back_from(512, 256, 2, 0.5, 5, 6, 0);
  const Image<float> large = resampled(foot, 1024, back), small = resampled(foot, 256, smaller);
  const RunRegistration to_large = register_runs(foot.view(), {}, large.view(), {}, 2),
                        to_small = register_runs(foot.view(), {}, small.view(), {}, 0.5);
  EXPECT_TRUE(to_large.reliable) << to_large.note;
  EXPECT_LE(rms_error(to_large, foot, back, 1024), 0.3);
  EXPECT_TRUE(to_small.reliable) << to_small.note;
  EXPECT_LE(rms_error(to_small, foot, smaller, 256), 0.3);
  // A shutter in one of them: what it hides is not looked at.
  Image<float> shuttered = copy_of(large);
  Image<std::uint8_t> valid(1024, 1024);
  for (int y = 0; y < 1024; ++y)
    for (int x = 0; x < 1024; ++x) {
      valid(y, x) = y >= 150 && x >= 100;
      if (!valid(y, x)) shuttered(y, x) = 9;
    }
  const RunRegistration to_shuttered = register_runs(foot.view(), {}, shuttered.view(), valid.view(), 2);
  EXPECT_TRUE(to_shuttered.reliable) << to_shuttered.note;
  EXPECT_LE(rms_error(to_shuttered, foot, back, 1024), 0.4);
}

TEST(RunRegistration, PicturesOfDifferentThingsAreNotRelied) {
  constexpr int side = 512;
  Image<float> foot = copy_of(foot_picture()), tubes = make_picture("tubes", 604), other_tubes = make_picture("tubes", 605);
  add_noise(foot, 0.01f, 5);
  add_noise(tubes, 0.01f, 6);
  add_noise(other_tubes, 0.01f, 7);
  Image<float> mirrored(side, side), upside_down(side, side), noise(side, side), other_noise(side, side), flat(side, side),
      empty(side, side);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      mirrored(y, x) = foot(y, side - 1 - x);
      upside_down(y, x) = foot(side - 1 - y, x);
      noise(y, x) = other_noise(y, x) = flat(y, x) = 0;
      empty(y, x) = std::numeric_limits<float>::quiet_NaN();
    }
  add_noise(noise, 1, 8);
  add_noise(other_noise, 1, 9);
  const auto registered = [](const Image<float>& a, const Image<float>& b) { return register_runs(a.view(), {}, b.view(), {}, 1); };
  for (const auto& [a, b] : {std::pair{&foot, &mirrored},
                             {&foot, &upside_down},
                             {&mirrored, &upside_down},
                             {&foot, &tubes},
                             {&tubes, &foot},
                             {&tubes, &other_tubes},
                             {&noise, &other_noise},
                             {&noise, &foot},
                             {&foot, &flat},
                             {&flat, &flat},
                             {&foot, &empty}}) {
    const RunRegistration registration = registered(*a, *b);
    EXPECT_FALSE(registration.reliable) << registration.correlation;
    EXPECT_FALSE(registration.note.empty());
    EXPECT_TRUE(std::isfinite(registration.forward(100, 100)[0]));
  }
  EXPECT_TRUE(registered(foot, foot).reliable);
}

TEST(RunRegistration, RefusesWhatIsNoPicture) {
  const Image<float> small(20, 40), picture(64, 64);
  const Image<std::uint8_t> valid(63, 64);
  EXPECT_THROW(register_runs(small.view(), {}, picture.view(), {}, 1), std::invalid_argument);
  EXPECT_THROW(register_runs(picture.view(), valid.view(), picture.view(), {}, 1), std::invalid_argument);
  EXPECT_THROW(register_runs(picture.view(), {}, picture.view(), {}, 0), std::invalid_argument);
}

}  // namespace
}  // namespace cinelumen
