/// The order of calibration sources, their figures, and what is refused.

#include "engine/calibration.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace cinelumen {
namespace {

bool says(const Calibration& calibration, const char* words) { return calibration.note.find(words) != std::string::npos; }

AcquisitionGeometry everything() {
  AcquisitionGeometry geometry;
  geometry.source_to_detector_mm = 1200;
  geometry.source_to_patient_mm = 800;
  geometry.magnification = 1.25;
  geometry.imager_pixel_spacing_mm = {0.3, 0.3};
  geometry.object_pixel_spacing_mm = {0.19, 0.19};
  geometry.pixel_spacing_mm = {0.17, 0.17};
  geometry.pixel_spacing_calibration = "FIDUCIAL";
  return geometry;
}

TEST(Calibration, TakesTheFirstSourceInOrder) {
  AcquisitionGeometry geometry = everything();
  Calibration calibration = calibrate(geometry, 0.15);
  EXPECT_EQ(calibration.source, CalibrationSource::user);
  EXPECT_DOUBLE_EQ(calibration.mm_per_px, 0.15);
  EXPECT_DOUBLE_EQ(calibration.relative_sd, 0.02);
  EXPECT_DOUBLE_EQ(calibrate(geometry, 0.15, 0.005).relative_sd, 0.005);

  calibration = calibrate(geometry);
  EXPECT_EQ(calibration.source, CalibrationSource::ruler);
  EXPECT_DOUBLE_EQ(calibration.mm_per_px, 0.17);
  EXPECT_DOUBLE_EQ(calibration.relative_sd, 0.02);

  geometry.pixel_spacing_calibration = "GEOMETRY";
  calibration = calibrate(geometry);
  EXPECT_EQ(calibration.source, CalibrationSource::geometry);
  EXPECT_DOUBLE_EQ(calibration.mm_per_px, 0.19) << "Object Pixel Spacing stands before the distances";
  EXPECT_DOUBLE_EQ(calibration.relative_sd, 0.03);

  geometry.object_pixel_spacing_mm.reset();
  EXPECT_DOUBLE_EQ(calibrate(geometry).mm_per_px, 0.3 * 800 / 1200) << "the distances stand before the estimated magnification";
  geometry.source_to_patient_mm.reset();
  EXPECT_DOUBLE_EQ(calibrate(geometry).mm_per_px, 0.3 / 1.25);
  geometry.imager_pixel_spacing_mm.reset();
  EXPECT_DOUBLE_EQ(calibrate(geometry).mm_per_px, 0.17);
  EXPECT_EQ(calibrate(geometry).source, CalibrationSource::geometry);

  geometry.pixel_spacing_calibration.clear();
  calibration = calibrate(geometry);
  EXPECT_EQ(calibration.source, CalibrationSource::none) << "Pixel Spacing without a calibration type counts as nothing";
  EXPECT_DOUBLE_EQ(calibration.mm_per_px, 1);
  EXPECT_FALSE(calibration.known());
  EXPECT_TRUE(says(calibration, "no Calibration Type")) << calibration.note;
}

TEST(Calibration, GeometryOfARealHeader) {
  AcquisitionGeometry geometry;
  geometry.imager_pixel_spacing_mm = {0.390625, 0.390625};
  geometry.source_to_patient_mm = 720;
  geometry.source_to_detector_mm = 931;
  const Calibration calibration = calibrate(geometry);
  EXPECT_EQ(calibration.source, CalibrationSource::geometry);
  EXPECT_NEAR(calibration.mm_per_px, 0.390625 * 720 / 931, 1e-12);
  EXPECT_TRUE(says(calibration, "isocentre")) << calibration.note;
}

TEST(Calibration, DetectorSpacingAloneIsNone) {
  AcquisitionGeometry geometry;
  geometry.imager_pixel_spacing_mm = {0.2, 0.2};
  const Calibration calibration = calibrate(geometry);
  EXPECT_EQ(calibration.source, CalibrationSource::none);
  EXPECT_TRUE(says(calibration, "at the detector")) << calibration.note;
  EXPECT_EQ(calibrate({}).source, CalibrationSource::none);
  EXPECT_TRUE(says(calibrate({}), "px"));
}

TEST(Calibration, ImpossibleFiguresAreNamedAndPassedOver) {
  for (const double bad : {0.0, -0.2, 1e308, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    AcquisitionGeometry geometry = everything();
    geometry.pixel_spacing_mm = {bad, 0.17};
    const Calibration calibration = calibrate(geometry);
    EXPECT_EQ(calibration.source, CalibrationSource::geometry) << bad;
    EXPECT_TRUE(says(calibration, "Pixel Spacing")) << calibration.note;
    EXPECT_TRUE(says(calibration, "ignored")) << calibration.note;
    geometry.object_pixel_spacing_mm = {0.19, bad};
    geometry.imager_pixel_spacing_mm = {bad, bad};
    EXPECT_EQ(calibrate(geometry).source, CalibrationSource::none);
  }
  AcquisitionGeometry geometry;
  geometry.imager_pixel_spacing_mm = {0.3, 0.3};
  geometry.source_to_detector_mm = 700;
  geometry.source_to_patient_mm = 900;
  EXPECT_EQ(calibrate(geometry).source, CalibrationSource::none);
  EXPECT_TRUE(says(calibrate(geometry), "exceeds")) << calibrate(geometry).note;
  geometry.magnification = 0.5;
  EXPECT_EQ(calibrate(geometry).source, CalibrationSource::none);
  geometry.magnification = 1.5;
  EXPECT_DOUBLE_EQ(calibrate(geometry).mm_per_px, 0.2);
}

TEST(Calibration, UnequalRowsAndColumnsAreSaidAndWidenTheSd) {
  AcquisitionGeometry geometry;
  geometry.pixel_spacing_mm = {0.20, 0.22};
  geometry.pixel_spacing_calibration = "FIDUCIAL";
  const Calibration calibration = calibrate(geometry);
  EXPECT_NEAR(calibration.mm_per_px, std::sqrt(0.2 * 0.22), 1e-12);
  EXPECT_GT(calibration.relative_sd, 0.04);
  EXPECT_TRUE(says(calibration, "geometric mean")) << calibration.note;
  geometry.pixel_spacing_mm = {0.2, 0.2005};
  EXPECT_DOUBLE_EQ(calibrate(geometry).relative_sd, 0.02) << "within 1 %: rounding, not anisotropy";
}

TEST(Calibration, RefusesWhatAUserCannotMean) {
  EXPECT_THROW(calibrate({}, 0.0), std::invalid_argument);
  EXPECT_THROW(calibrate({}, -1.0), std::invalid_argument);
  EXPECT_THROW(calibrate({}, std::numeric_limits<double>::infinity()), std::invalid_argument);
  EXPECT_THROW(calibrate({}, 0.2, 1.0), std::invalid_argument);
  EXPECT_THROW(calibrate({}, 0.2, -0.1), std::invalid_argument);
}

TEST(Calibration, NamesOfSources) {
  EXPECT_STREQ(to_string(CalibrationSource::ruler), "ruler");
  EXPECT_STREQ(to_string(CalibrationSource::catheter), "catheter");
  EXPECT_STREQ(to_string(CalibrationSource::geometry), "geometry");
  EXPECT_STREQ(to_string(CalibrationSource::none), "none");
}

}  // namespace
}  // namespace cinelumen
