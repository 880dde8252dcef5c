/// The mask that is chosen for real runs.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "engine/mask_selection.h"
#include "engine/scenes.h"
#include "io/run_reader.h"

namespace cinelumen {
namespace {

MaskChoice choose(const std::string& file) {
  const cinelumen::Run run = read_run(std::string(std::getenv("CINELUMEN_TEST_DATA")) + "/xa/" + file);
  return select_mask(run, read_frame_planes(run, make_intensity_model(run.intensity), 0, run.frame_count() - 1));
}
bool data_here() {
  const char* folder = std::getenv("CINELUMEN_TEST_DATA");
  return folder && *folder;
}

TEST(MaskOfRealRuns, CoronaryRunTakesFramesBeforeTheInflow) {
  if (!data_here()) GTEST_SKIP() << "CINELUMEN_TEST_DATA is not set";
  const MaskChoice choice = choose("rubo_coronary_96f_jpeg.dcm");
  EXPECT_EQ(choice.source, MaskSource::automatic);
  EXPECT_NEAR(choice.inflow_frame + 1, 18, 2);
  for (const int frame : choice.frames()) EXPECT_LT(frame + 1, 17);
  ASSERT_FALSE(choice.notes.empty());
  EXPECT_NE(choice.notes.front().find("NONE (with mask frame number 0)"), std::string::npos) << choice.notes.front();
}

TEST(MaskOfRealRuns, StaticPhantomsHaveNoContrastFreeFrame) {
  if (!data_here()) GTEST_SKIP() << "CINELUMEN_TEST_DATA is not set";
  for (const char* file : {"ge_phantom_im1.dcm", "ge_phantom_im5.dcm", "ge_phantom_im6.dcm"}) {
    const MaskChoice choice = choose(file);
    EXPECT_EQ(choice.source, MaskSource::none) << file;
    EXPECT_FALSE(choice.notes.empty()) << file;
  }
}

TEST(MaskOfRealRuns, BeatingHeartsAndBreathAreNoChangeOfScene) {
  if (!data_here()) GTEST_SKIP() << "CINELUMEN_TEST_DATA is not set";
  for (const char* file : {"rubo_coronary_96f_jpeg.dcm", "ge_phantom_im5.dcm"}) {
    const cinelumen::Run run = read_run(std::string(std::getenv("CINELUMEN_TEST_DATA")) + "/xa/" + file);
    const std::vector<Scene> scenes = find_scenes(read_frame_planes(run, make_intensity_model(run.intensity), 0, run.frame_count() - 1));
    ASSERT_EQ(scenes.size(), 1u) << file;
    EXPECT_TRUE(scenes[0].odd_frames.empty()) << file;
  }
}

TEST(MaskOfRealRuns, SingleFrame) {
  if (!data_here()) GTEST_SKIP() << "CINELUMEN_TEST_DATA is not set";
  EXPECT_EQ(choose("nema_xa1_unc.dcm").source, MaskSource::none);
}

}  // namespace
}  // namespace cinelumen
