/// Which frames make the mask, and the mask made of them.

#include "engine/mask_selection.h"

#include <cmath>
#include <random>

#include "engine/mask_frame.h"
#include "support/images.h"

namespace cinelumen {
namespace {

/// Frames by a function of (frame, y, x): attenuation in [0, 3), stored on 12 bits.
class MadeFrames : public FrameSource {
 public:
  MadeFrames(int count, int side, double noise, std::function<double(int, int, int)> attenuation)
      : count_(count), side_(side), noise_(noise), attenuation_(std::move(attenuation)) {}
  int frame_count() const override { return count_; }
  int rows() const override { return side_; }
  int columns() const override { return side_; }
  void read_frame(int frame, ImageView<std::uint16_t> stored) const override {
    std::mt19937 random(static_cast<unsigned>(frame) + 1);
    std::normal_distribution<double> normal(0, noise_);
    for (int y = 0; y < side_; ++y)
      for (int x = 0; x < side_; ++x)
        stored(y, x) = static_cast<std::uint16_t>(std::clamp((attenuation_(frame, y, x) + normal(random)) * 1000 + 200, 0.0, 4095.0));
  }

 private:
  int count_, side_;
  double noise_;
  std::function<double(int, int, int)> attenuation_;
};

IntensityModel straight_model() {
  IntensityModel model;
  for (int i = 0; i < 4096; ++i) model.attenuation.push_back(static_cast<float>((i - 200) / 1000.0));
  return model;
}

Run make_run(int count, int side, double noise, std::function<double(int, int, int)> attenuation) {
  Run run;
  run.frames = std::make_shared<MadeFrames>(count, side, noise, std::move(attenuation));
  run.field.mask = Image<std::uint8_t>(side, side);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) run.field.mask(y, x) = 1;
  return run;
}

double bone(double y, double x) { return 0.8 + 0.3 * std::sin(x / 9) * std::cos(y / 13) + 0.3 / (1 + std::exp(x - 70)); }
double vessel(double y, double x, int side) { return std::abs(x - side * 0.55 - 12 * std::sin(y / 20)) < 3 ? 0.35 : 0.0; }
/// Contrast that runs down the vessel from `arrival` on, and is washed out from `leaves` on.
std::function<double(int, int, int)> inflow_run(int side, int arrival, int leaves = 1 << 20, double motion = 0) {
  return [=](int frame, int y, int x) {
    const double filled = frame < arrival ? 0 : (frame - arrival + 1) * side / 6.0;
    const double shift = motion * std::sin(frame * 0.7);
    return bone(y - shift, x + 0.5 * shift) + (frame < leaves && y < filled ? vessel(y, x, side) : 0.0);
  };
}

MaskChoice choose(const cinelumen::Run& run, const IntensityModel& intensity, int first, int last) {
  return select_mask(run, read_frame_planes(run, intensity, first, last));
}

TEST(MaskSelection, FramesBeforeTheInflow) {
  for (const double motion : {0.0, 1.5}) {
    const MaskChoice choice = choose(make_run(40, 128, 0.01, inflow_run(128, 12, 1 << 20, motion)), straight_model(), 0, 39);
    EXPECT_EQ(choice.source, MaskSource::automatic);
    EXPECT_NEAR(choice.inflow_frame, 12, 1) << "motion " << motion;
    ASSERT_FALSE(choice.frames().empty());
    EXPECT_LE(choice.frames().size(), 8u);
    if (motion == 0) {
      EXPECT_EQ(choice.frames().size(), 8u);
    }
    for (const int frame : choice.frames()) EXPECT_LT(frame, choice.inflow_frame - 1);
    EXPECT_EQ(choice.reference_frame, choice.frames().front());
    EXPECT_EQ(choice.contrast_score.size(), 40u);
    EXPECT_GT(choice.contrast_score[20], 3 * choice.contrast_score[5]);
  }
}

TEST(MaskSelection, PartOfARun) {
  const MaskChoice choice = choose(make_run(40, 128, 0.01, inflow_run(128, 20)), straight_model(), 8, 39);
  EXPECT_EQ(choice.source, MaskSource::automatic);
  EXPECT_NEAR(choice.inflow_frame, 20, 1);
  for (const int frame : choice.frames()) {
    EXPECT_GE(frame, 8);
    EXPECT_LT(frame, 19);
  }
  EXPECT_EQ(choice.contrast_score.size(), 32u);
}

TEST(MaskSelection, BeatingBackgroundIsNotAnInflow) {
  const auto beating = [](int frame, int y, int x) {
    const double beat = 3 * std::sin(frame * 0.6);
    const double heart = 0.4 / (1 + std::exp((std::hypot(y - 64.0, x - 50.0) - 25 - beat) / 1.5));
    const double filled = frame < 30 ? 0 : (frame - 29) * 20.0;
    return bone(y, x) + heart + (y < filled ? 2 * vessel(y, x, 128) : 0.0);
  };
  const MaskChoice choice = choose(make_run(60, 128, 0.01, beating), straight_model(), 0, 59);
  EXPECT_EQ(choice.source, MaskSource::automatic);
  EXPECT_NEAR(choice.inflow_frame, 30, 3);
}

TEST(MaskSelection, NoContrastComesOrGoes) {
  for (const double motion : {0.0, 1.0}) {
    const MaskChoice choice = choose(make_run(20, 128, 0.01, inflow_run(128, 1 << 20, 1 << 20, motion)), straight_model(), 0, 19);
    EXPECT_EQ(choice.source, MaskSource::none);
    EXPECT_EQ(choice.inflow_frame, -1);
    ASSERT_FALSE(choice.notes.empty());
    EXPECT_NE(choice.notes.back().find("No contrast comes or goes"), std::string::npos);
  }
}

TEST(MaskSelection, FilledFromTheStartGivesTheEnvelope) {
  const cinelumen::Run run = make_run(30, 128, 0.01, inflow_run(128, -10, 15));
  const MaskChoice choice = choose(run, straight_model(), 0, 29);
  ASSERT_EQ(choice.source, MaskSource::envelope);
  const MaskFrame mask = std::move(make_mask_frames(Stream::cpu(), run, straight_model(), choice).front());
  double bias = 0;
  int count = 0;
  for (int y = 10; y < 118; ++y)
    for (int x = 10; x < 118; ++x) {
      bias += mask.attenuation(y, x) - bone(y, x);
      ++count;
      ASSERT_NEAR(mask.attenuation(y, x), bone(y, x), 0.08) << y << ", " << x << ": the vessel must be gone";
    }
  EXPECT_LT(bias / count, 0) << "a least value lies below the mean";
}

TEST(MaskSelection, SingleFrameHasNoMask) {
  const MaskChoice choice = choose(make_run(1, 64, 0.01, inflow_run(64, 0)), straight_model(), 0, 0);
  EXPECT_EQ(choice.source, MaskSource::none);
  ASSERT_FALSE(choice.notes.empty());
  EXPECT_THROW(make_mask_frames(Stream::cpu(), make_run(1, 64, 0.01, inflow_run(64, 0)), straight_model(), choice), std::invalid_argument);
}

TEST(MaskSelection, PartOutsideTheRunIsRefused) {
  EXPECT_THROW(choose(make_run(5, 64, 0.01, inflow_run(64, 3)), straight_model(), 0, 5), std::invalid_argument);
}

using Operation = MaskInstruction::Operation;

TEST(DicomMask, AverageSubtractionIsFollowed) {
  cinelumen::Run run = make_run(20, 128, 0.01, inflow_run(128, 8));
  MaskInstruction item;
  item.operation = Operation::average_subtraction;
  item.mask_frames = {2, 4};
  item.sub_pixel_shift = {0.5, -1.25};
  run.mask_instructions = {item};
  const MaskChoice choice = choose(run, straight_model(), 0, 19);
  EXPECT_EQ(choice.source, MaskSource::dicom);
  EXPECT_EQ(choice.frames(), (std::vector<int>{1, 3}));
  EXPECT_EQ(choice.mask_of_frame, std::vector<int>(20, 0));
  const MaskFrame mask = std::move(make_mask_frames(Stream::cpu(), run, straight_model(), choice).front());
  EXPECT_FLOAT_EQ(mask.noise_factor, 1.5f);
  double squares = 0;
  for (int y = 20; y < 100; ++y)
    for (int x = 20; x < 100; ++x) squares += std::pow(mask.attenuation(y, x) - bone(y - 0.5, x + 1.25), 2);
  EXPECT_LT(std::sqrt(squares / 6400), 0.01) << "the shift moves the mask down and to the right";
}

TEST(DicomMask, BadFrameNumbersAndNoneGoAutomatic) {
  for (const Operation operation : {Operation::none, Operation::average_subtraction, Operation::time_interval_difference}) {
    cinelumen::Run run = make_run(30, 128, 0.01, inflow_run(128, 12));
    MaskInstruction item;
    item.operation = operation;
    item.mask_frames = {operation == Operation::none ? 0 : 31};
    run.mask_instructions = {item};
    const MaskChoice choice = choose(run, straight_model(), 0, 29);
    EXPECT_EQ(choice.source, MaskSource::automatic);
    ASSERT_GE(choice.notes.size(), 2u);
    EXPECT_NE(choice.notes.front().find("chosen automatically"), std::string::npos) << choice.notes.front();
  }
}

TEST(DicomMask, LiterallyPerFrame) {
  MaskInstruction tid;
  tid.operation = Operation::time_interval_difference;
  tid.tid_offset = 2;
  tid.applicable_frames = {{1, 5}};
  tid.contrast_frame_averaging = 3;
  MaskInstruction reverse;
  reverse.operation = Operation::reverse_time_interval_difference;
  reverse.applicable_frames = {{6, 8}};
  MaskInstruction average;
  average.operation = Operation::average_subtraction;
  average.mask_frames = {1, 40};
  const std::vector<MaskInstruction> items = {tid, reverse, average};
  EXPECT_EQ(dicom_mask_for(items, 3, 20).frames, std::vector<int>{1});
  EXPECT_EQ(dicom_mask_for(items, 3, 20).contrast_frame_averaging, 3);
  EXPECT_TRUE(dicom_mask_for(items, 1, 20).frames.empty()) << "frame 0 (1-based) does not exist";
  // Frames 6, 7, 8 (1-based) with offset 1: masks 5, 4, 3.
  EXPECT_EQ(dicom_mask_for(items, 5, 20).frames, std::vector<int>{4});
  EXPECT_EQ(dicom_mask_for(items, 6, 20).frames, std::vector<int>{3});
  EXPECT_EQ(dicom_mask_for(items, 7, 20).frames, std::vector<int>{2});
  EXPECT_EQ(dicom_mask_for(items, 15, 20).frames, std::vector<int>{0}) << "what does not exist is left out";
}

TEST(MaskFrames, RegisteredAverageIsSharpAndLessNoisy) {
  const cinelumen::Run run = make_run(12, 160, 0.02, inflow_run(160, 1 << 20, 1 << 20, 2.0));
  MaskChoice choice;
  choice.source = MaskSource::automatic;
  choice.masks = {{{0, 1, 2, 3, 4, 5, 6, 7}, {}}};
  choice.reference_frame = 0;
  const MaskFrame mask = std::move(make_mask_frames(Stream::cpu(), run, straight_model(), choice).front());
  EXPECT_FLOAT_EQ(mask.noise_factor, 1.125f);
  double squares = 0;
  for (int y = 20; y < 140; ++y)
    for (int x = 20; x < 140; ++x) squares += std::pow(mask.attenuation(y, x) - bone(y, x), 2);
  // 0.02 / sqrt(8) = 0.0071, and what registration leaves.
  EXPECT_LT(std::sqrt(squares / 14400), 0.0095);
}

}  // namespace
}  // namespace cinelumen
