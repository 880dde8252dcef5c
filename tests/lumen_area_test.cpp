/// Densitometric area beside the round lumen's.

#include "engine/lumen_area.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace cinelumen {
namespace {

std::vector<LumenPoint> line(int count, float diameter_px, float kappa, bool own) {
  std::vector<LumenPoint> points(static_cast<std::size_t>(count));
  for (LumenPoint& point : points) {
    point.used = true;
    point.reason = Exclusion::none;
    point.diameter_px = diameter_px;
    point.sd_px = 0.1f;
    point.kappa = kappa;
    point.kappa_sd = 0.02f * kappa;
    point.own_kappa = own;
  }
  return points;
}

TEST(LumenArea, AnEllipseShowsAndARoundLumenDoesNot) {
  std::vector<std::vector<LumenPoint>> segments = {line(40, 14, 0.02f, true)};
  for (std::size_t i = 18; i < 22; ++i) segments[0][i].kappa = 0.012f;  // half axes as 1 to 0.6: the chord is as much shorter
  add_areas(segments);
  EXPECT_NEAR(segments[0][3].area_px2, std::numbers::pi / 4 * 14 * 14, 1e-2);
  EXPECT_FALSE(segments[0][3].area_disagrees);
  EXPECT_NEAR(segments[0][20].area_px2, 0.6 * std::numbers::pi / 4 * 14 * 14, 1e-2);
  EXPECT_TRUE(segments[0][20].area_disagrees);
}

TEST(LumenArea, NarrowVesselsTakeTheFramesKappaAndItsUncertainty) {
  std::vector<std::vector<LumenPoint>> segments = {line(40, 14, 0.02f, true), line(30, 5, 0.017f, false)};
  add_areas(segments);
  EXPECT_NEAR(segments[1][0].area_px2, 0.85 * std::numbers::pi / 4 * 25, 1e-2);
  EXPECT_FALSE(segments[1][0].area_disagrees) << "another vessel may be filled less";
}

TEST(LumenArea, NothingWithoutAWideVessel) {
  std::vector<std::vector<LumenPoint>> segments = {line(40, 5, 0.02f, false)};
  add_areas(segments);
  EXPECT_EQ(segments[0][0].area_px2, 0);
  EXPECT_FALSE(segments[0][0].area_disagrees);
}

}  // namespace
}  // namespace cinelumen
