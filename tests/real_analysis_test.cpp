/// The whole chain on real runs, where CINELUMEN_TEST_DATA has them.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "engine/analysis.h"
#include "io/run_reader.h"

namespace cinelumen {
namespace {

class RealAnalysis : public ::testing::Test {
 protected:
  Analysis analyze_file(const char* name) {
    run_ = read_run((std::filesystem::path(std::getenv("CINELUMEN_TEST_DATA")) / "xa" / name).string());
    return analyze(Stream::cpu(), run_, {});
  }
  static bool absent(const char* name) {
    const char* folder = std::getenv("CINELUMEN_TEST_DATA");
    return !folder || !std::filesystem::exists(std::filesystem::path(folder) / "xa" / name);
  }
  cinelumen::Run run_;
};

#define CINELUMEN_SKIP_WITHOUT(name) \
  if (absent(name)) GTEST_SKIP() << "CINELUMEN_TEST_DATA has no xa/" << name

TEST_F(RealAnalysis, CoronaryRun) {
  CINELUMEN_SKIP_WITHOUT("rubo_coronary_96f_jpeg.dcm");
  const Analysis analysis = analyze_file("rubo_coronary_96f_jpeg.dcm");
  EXPECT_EQ(analysis.subtraction.mask.source, MaskSource::automatic);
  for (int frame : analysis.subtraction.mask.frames()) EXPECT_LT(frame, 17) << "contrast comes near frame 18";
  bool said = false;
  for (const std::string& note : analysis.subtraction.mask.notes) said = said || note.find("NONE") != std::string::npos;
  EXPECT_TRUE(said) << "the file's Mask Operation NONE is not mentioned";
  EXPECT_TRUE(analysis.subtraction.moving_vessels) << "the heart beats: " << analysis.subtraction.topology_note;
  EXPECT_GE(analysis.subtraction.topology_frame, 20);
  int measured = 0;
  bool main_vessel = false;
  for (const SegmentResult& segment : analysis.segments) {
    if (!segment.diameter.median) continue;
    ++measured;
    EXPECT_GT(*segment.diameter.median, 1.5) << "segment " << segment.id;
    EXPECT_LT(*segment.diameter.median, 30) << "segment " << segment.id;
    main_vessel = main_vessel || (*segment.diameter.median > 9 && *segment.diameter.median < 17);
    for (const CentrelinePoint& point : segment.centreline.points)
      EXPECT_TRUE(run_.field.mask(static_cast<int>(point.y + 0.5f), static_cast<int>(point.x + 0.5f))) << "outside the field";
  }
  EXPECT_GE(measured, 8);
  EXPECT_TRUE(main_vessel);
}

TEST_F(RealAnalysis, StaticPhantomWithGeometry) {
  CINELUMEN_SKIP_WITHOUT("ge_phantom_im5.dcm");
  const Analysis analysis = analyze_file("ge_phantom_im5.dcm");
  EXPECT_EQ(analysis.calibration.source, CalibrationSource::geometry);
  EXPECT_NEAR(analysis.calibration.mm_per_px, 0.390625 * 720 / 931, 1e-4);
  EXPECT_FALSE(analysis.subtracted);
  EXPECT_FALSE(analysis.densitometric);
  EXPECT_GE(analysis.segments.size(), 5u);
}

TEST_F(RealAnalysis, StaticPhantomWithoutSpacing) {
  CINELUMEN_SKIP_WITHOUT("ge_phantom_im1.dcm");
  const Analysis analysis = analyze_file("ge_phantom_im1.dcm");
  EXPECT_EQ(analysis.calibration.source, CalibrationSource::none);
  EXPECT_GE(analysis.segments.size(), 5u);
  // The vessels are filled throughout and stand still: a segment's diameter is the same in every frame.
  int long_ones = 0;
  for (const SegmentResult& segment : analysis.segments)
    if (segment.centreline.length_px() > 100) {
      ++long_ones;
      ASSERT_TRUE(segment.diameter.sd) << "segment " << segment.id;
      EXPECT_LT(*segment.diameter.sd, 0.3) << "segment " << segment.id;
    }
  EXPECT_GE(long_ones, 3);
}

TEST_F(RealAnalysis, SingleCerebralFrame) {
  CINELUMEN_SKIP_WITHOUT("nema_xa1_unc.dcm");
  const Analysis analysis = analyze_file("nema_xa1_unc.dcm");
  EXPECT_FALSE(analysis.subtracted);
  EXPECT_GE(analysis.segments.size(), 10u);
  EXPECT_TRUE(analysis.findings.empty()) << "one picture without a mask allows no finding of narrowing";
}

}  // namespace
}  // namespace cinelumen
