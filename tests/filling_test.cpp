/// Sections that contrast fills in part, and sections that are no circles: what is drawn of them is their area.

#include "engine/phantom/filling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "engine/phantom/projection.h"

namespace cinelumen {
namespace {

using namespace phantom;
using std::numbers::pi;

TEST(PhantomFilling, CoreFrontGrowsAsPoiseuilleSays) {
  const FillingPlan plan{Mechanism::core_front};
  const double t0 = 1000 * 12 / (2 * 8.0);  // the middle flows twice as fast as the mean
  EXPECT_EQ(filled_share(section_fill(plan, 12, t0 - 1, 8)), 0);
  for (const double t : {1.2 * t0, 2 * t0, 5 * t0}) EXPECT_NEAR(filled_share(section_fill(plan, 12, t, 8)), 1 - t0 / t, 1e-6);
}

TEST(PhantomFilling, StreamsKeepTheirContrastWhileTheyMix) {
  const FillingPlan plan{Mechanism::streaming, 0.6, 3, 10, 0.4};
  EXPECT_EQ(filled_share(section_fill(plan, 2, 500, 50)), 1);
  double last = 1.1;
  for (const double arc : {6.0, 9.0, 20.0, 60.0}) {
    const SectionFill fill = section_fill(plan, arc, 500, 50);
    const double share = filled_share(fill), filled = static_cast<double>(fill.filled), rest = static_cast<double>(fill.rest);
    EXPECT_NEAR(share, 0.6, 1e-5);
    EXPECT_NEAR(share * filled + (1 - share) * rest, 0.6, 1e-5);
    EXPECT_LT(filled, last);
    last = filled;
  }
  EXPECT_NEAR(last, 0.6, 0.01) << "mixed at last";
}

TEST(PhantomFilling, LayersSinkToTheirShareAndDeepenWithTime) {
  const FillingPlan plan{Mechanism::layering, 0.5, 2, 6, 0};
  EXPECT_EQ(filled_share(section_fill(plan, 1, 3000, 50)), 1);
  EXPECT_NEAR(filled_share(section_fill(plan, 30, 60000, 50)), 0.5, 1e-4);
  EXPECT_LT(filled_share(section_fill(plan, 30, 100, 50)), filled_share(section_fill(plan, 30, 3000, 50)));
  EXPECT_NEAR(static_cast<double>(section_fill({Mechanism::dilution, 0.4, 5, 1, 0}, 60, 100, 50).filled), 0.4, 1e-4);
}

/// Integral of attenuation across a straight vessel, mm^2 at the isocentre, where it crosses the middle column.
double area_drawn(const Edge& edge, const SectionFill& fill, double* middle_px) {
  ConeBeam beam;
  beam.centre_y_px = beam.centre_x_px = 47.5;
  Image<float> none(128, 128);
  for (int y = 0; y < 128; ++y) std::fill(none.row(y), none.row(y) + 128, 0.0f);
  const auto points = project(edge, beam, 1);
  const Projector projector(none.view(), 16, 96, 96, {0.4, {0.5, 1.2}, {0.75, 0.25}}, {points}, {});
  const float kappa = 1e-4f;
  const Image<float> image =
      projector.transmission({}, {std::vector<float>(points.size(), kappa)}, {std::vector<SectionFill>(points.size(), fill)});
  double sum = 0, first = 0;
  for (int y = 0; y < 96; ++y) {
    const double added = 1 - static_cast<double>(image(y, 48));
    sum += added;
    first += added * y;
  }
  *middle_px = first / sum - 47.5;
  return sum / static_cast<double>(kappa) * beam.mm_per_px();
}

Edge horizontal(double first_mm, double second_mm, double angle) {
  Edge edge;
  for (int i = 0; i <= 400; ++i) {
    edge.curve.push_back({-10 + 0.05 * i, 0, 0});
    edge.radius_mm.push_back(std::sqrt(first_mm * second_mm));
    edge.sections.push_back({first_mm, second_mm, angle});
  }
  edge.length_mm = 20;
  return edge;
}

TEST(PhantomFilling, EllipseIsDrawnWithItsArea) {
  for (const double angle : {0.0, 0.6, pi / 2, 2.5}) {
    double middle = 0;
    const double area = area_drawn(horizontal(0.8, 2.1, angle), {}, &middle);
    EXPECT_NEAR(area / (pi * 0.8 * 2.1), 1, 1e-3) << angle;
    EXPECT_NEAR(middle, 0, 0.01);
    const ProjectedPoint p = project(horizontal(0.8, 2.1, angle), ConeBeam{}, 1)[20];
    EXPECT_NEAR(p.radius_mm, std::hypot(0.8 * std::cos(angle), 2.1 * std::sin(angle)), 1e-6);
    EXPECT_NEAR(p.area_mm2, pi * 0.8 * 2.1, 1e-9);
  }
}

TEST(PhantomFilling, PartOfASectionIsDrawnWithItsArea) {
  const Edge edge = horizontal(1.6, 1.6, 0);
  const double whole = pi * 1.6 * 1.6;
  double middle = 0;
  SectionFill core;
  core.core = 0.55f;
  EXPECT_NEAR(area_drawn(edge, core, &middle) / whole, 0.55 * 0.55, 1e-3);
  EXPECT_NEAR(middle, 0, 0.01);
  for (const double angle : {0.0, 0.7, -0.7, pi / 2, -pi / 2})
    for (const float level : {-0.4f, 0.3f}) {
      SectionFill layer;
      layer.level = level;
      layer.angle_rad = static_cast<float>(angle);
      EXPECT_NEAR(area_drawn(edge, layer, &middle) / whole, filled_share(layer), 3e-3) << angle << " " << level;
      if (angle == 0) {
        EXPECT_LT(middle, -1) << "to one side";
      } else if (std::abs(angle) > 1.5) {
        EXPECT_NEAR(middle, 0, 0.02) << "a layer seen from above is symmetric";
      }
      layer.rest = 0.25f;
      EXPECT_NEAR(area_drawn(edge, layer, &middle) / whole, filled_share(layer) + 0.25 * (1 - filled_share(layer)), 3e-3) << angle;
    }
}

}  // namespace
}  // namespace cinelumen
