/// Runs whose picture becomes another: table, zoom, shutter, blank frames; and what is none of it.

#include "engine/scenes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "engine/phantom/phantom.h"

namespace cinelumen {
namespace {

const PhantomRun& foot() {
  static const PhantomRun run = [] {
    PhantomOptions options;
    options.scenario = "foot";
    options.rows = options.columns = 256;
    options.seed = 41;
    options.frames = 40;
    return make_phantom(options);
  }();
  return run;
}

/// The first frames of a foot's run, to be tampered with.
struct Tampered {
  PhantomRun phantom;
  explicit Tampered(int frames = 24) {
    phantom.truth = foot().truth;
    for (int i = 0; i < frames; ++i) phantom.frames.push_back(to_host(Stream::cpu(), foot().frames[i].view()));
  }
  /// Frame's pixel (y, x) becomes what `from` says of the untouched frame.
  void change(int frame, const std::function<double(const Image<std::uint16_t>&, int, int)>& from) {
    Image<std::uint16_t> changed(256, 256);
    for (int y = 0; y < 256; ++y)
      for (int x = 0; x < 256; ++x) changed(y, x) = static_cast<std::uint16_t>(std::clamp(from(phantom.frames[frame], y, x), 0.0, 4095.0));
    phantom.frames[frame] = std::move(changed);
  }
  std::vector<Scene> scenes() const {
    const cinelumen::Run run = make_run(phantom);
    return find_scenes(read_frame_planes(run, make_intensity_model(run.intensity), 0, run.frame_count() - 1));
  }
};

TEST(Scenes, ContrastNoiseAndTwitchesAreOneScene) {
  const std::vector<Scene> scenes = Tampered(40).scenes();
  ASSERT_EQ(scenes.size(), 1u);
  EXPECT_EQ(scenes[0].first, 0);
  EXPECT_EQ(scenes[0].last, 39);
  EXPECT_TRUE(scenes[0].odd_frames.empty());
}

TEST(Scenes, MovesWithinReachAreOneSceneTheTableIsNot) {
  for (const int shift : {12, 90}) {
    Tampered run;
    for (int frame = 9; frame < 24; ++frame)
      run.change(frame, [&](const Image<std::uint16_t>& image, int y, int x) { return image(y, (x + shift) % 256); });
    const std::vector<Scene> scenes = run.scenes();
    ASSERT_EQ(scenes.size(), shift == 12 ? 1u : 2u) << shift;
    if (shift != 90) continue;
    EXPECT_EQ(scenes[0].last, 8);
    EXPECT_EQ(scenes[1].first, 9);
    EXPECT_EQ(&longest(scenes), &scenes[1]);
  }
}

TEST(Scenes, ZoomAndShutterStartAnother) {
  Tampered zoomed;
  for (int frame = 15; frame < 24; ++frame)
    zoomed.change(frame, [](const Image<std::uint16_t>& image, int y, int x) { return image(64 + y / 2, 64 + x / 2); });
  std::vector<Scene> scenes = zoomed.scenes();
  ASSERT_EQ(scenes.size(), 2u);
  EXPECT_EQ(scenes[1].first, 15);
  Tampered shuttered;
  for (int frame = 18; frame < 24; ++frame)
    shuttered.change(frame, [](const Image<std::uint16_t>& image, int y, int x) { return x < 40 ? image(y, x) / 100.0 : image(y, x); });
  scenes = shuttered.scenes();
  ASSERT_EQ(scenes.size(), 2u);
  EXPECT_EQ(scenes[1].first, 18);
}

TEST(Scenes, BlankFramesAreOddAndAnotherExposureIsNothing) {
  Tampered run;
  run.change(5, [](const Image<std::uint16_t>&, int, int) { return 0; });
  run.change(14, [](const Image<std::uint16_t>&, int, int) { return 4095; });
  run.change(15, [](const Image<std::uint16_t>& image, int y, int x) { return y < 128 ? image(y, x) : 1; });
  for (int frame = 18; frame < 24; ++frame)
    run.change(frame, [](const Image<std::uint16_t>& image, int y, int x) { return 0.7 * image(y, x); });
  const std::vector<Scene> scenes = run.scenes();
  ASSERT_EQ(scenes.size(), 1u);
  EXPECT_EQ(scenes[0].odd_frames, (std::vector<int>{5, 14, 15}));
}

TEST(Scenes, ContrastInAnEmptyPictureIsOneScene) {
  // Wide vessels all over a plain background: of the slowly varying planes more than half changes.
  for (const char* scenario : {"tubes", "stenoses", "partial-fill"}) {
    PhantomOptions options;
    options.scenario = scenario;
    options.rows = options.columns = 256;
    options.seed = 48;
    const PhantomRun phantom = make_phantom(options);
    const cinelumen::Run run = make_run(phantom);
    EXPECT_EQ(find_scenes(read_frame_planes(run, make_intensity_model(run.intensity), 0, run.frame_count() - 1)).size(), 1u) << scenario;
  }
}

// Contrast changes most of a plain picture where many vessels fill, each as strongly as it can.
TEST(Scenes, ManyVesselsThatFillAreOneScene) {
  for (const char* scenario : {"stenoses", "partial-fill"})
    for (const int seed : {11, 21}) {
      PhantomOptions options;
      options.scenario = scenario;
      options.rows = options.columns = 256;
      options.frames = 20;
      options.seed = seed;
      const PhantomRun phantom = make_phantom(options);
      const cinelumen::Run run = make_run(phantom);
      const std::vector<Scene> scenes = find_scenes(read_frame_planes(run, make_intensity_model(run.intensity), 0, run.frame_count() - 1));
      ASSERT_EQ(scenes.size(), 1u) << scenario << " " << seed;
      EXPECT_TRUE(scenes[0].odd_frames.empty());
      // The table moves while they are filled: another picture all the same, although vessels darken both.
      Tampered moved(0);
      moved.phantom.truth = phantom.truth;
      for (const Image<std::uint16_t>& frame : phantom.frames) moved.phantom.frames.push_back(to_host(Stream::cpu(), frame.view()));
      for (int frame = 16; frame < 20; ++frame)
        moved.change(frame, [](const Image<std::uint16_t>& image, int y, int x) { return image((y + 128) % 256, (x + 128) % 256); });
      EXPECT_EQ(moved.scenes().size(), 2u) << scenario << " " << seed;
    }
}

TEST(Scenes, SmallAndConstantRunsHaveOne) {
  for (const int side : {1, 3, 40}) {
    PhantomOptions options;
    options.scenario = "tubes";
    options.rows = options.columns = 64;
    options.frames = 3;
    options.seed = 2;
    PhantomRun phantom = make_phantom(options);
    phantom.truth.options.rows = phantom.truth.options.columns = side;
    for (Image<std::uint16_t>& frame : phantom.frames) {
      frame = Image<std::uint16_t>(side, side);
      for (int y = 0; y < side; ++y)
        for (int x = 0; x < side; ++x) frame(y, x) = 700;
    }
    const cinelumen::Run run = make_run(phantom);
    const std::vector<Scene> scenes = find_scenes(read_frame_planes(run, make_intensity_model(run.intensity), 0, run.frame_count() - 1));
    ASSERT_EQ(scenes.size(), 1u) << side;
    EXPECT_EQ(scenes[0].last, 2);
  }
}

}  // namespace
}  // namespace cinelumen
