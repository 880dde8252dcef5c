/// Registration and matching of real runs, where CINELUMEN_TEST_DATA has them.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "engine/comparison.h"
#include "io/comparison_words.h"
#include "io/run_reader.h"

namespace cinelumen {
namespace {

std::filesystem::path data(const char* name) {
  const char* folder = std::getenv("CINELUMEN_TEST_DATA");
  return folder ? std::filesystem::path(folder) / "xa" / name : std::filesystem::path();
}

Analysis analyze_frames(const cinelumen::Run& run, int first, int last) {
  AnalysisOptions options;
  options.first_frame = first;
  options.last_frame = last;
  return analyze(Stream::cpu(), run, options);
}

TEST(RealMatching, ACoronaryRunIsItselfAgain) {
  const auto path = data("rubo_coronary_96f_jpeg.dcm");
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "CINELUMEN_TEST_DATA has no xa/rubo_coronary_96f_jpeg.dcm";
  const cinelumen::Run run = read_run(path.string());
  Analysis part = analyze_frames(run, 0, 59), whole = analyze_frames(run, 0, 95);
  const RunRegistration registration =
      register_runs(part.mask_picture.view(), run.field.valid(), whole.mask_picture.view(), run.field.valid(), 1);
  ASSERT_TRUE(registration.reliable) << registration.note;
  for (const double at : {100.0, 250.0, 400.0}) {
    const auto to = registration.forward(at, at);
    EXPECT_LE(std::hypot(to[0] - at, to[1] - at), 0.5);
  }
  const VesselMatching same = match_vessels(part.segments, part.segments, registration);
  for (std::size_t s = 0; s < part.segments.size(); ++s) {
    EXPECT_EQ(same.segment[s], static_cast<int>(s));
    EXPECT_GE(same.matched_share[s], 0.95);
  }
  // The heart beats: the vessels of the whole were traced in another frame than those of the part.
  const VesselMatching matching = match_vessels(part.segments, whole.segments, registration);
  double matched = 0, points = 0;
  for (std::size_t s = 0; s < part.segments.size(); ++s) {
    matched += matching.matched_share[s] * static_cast<double>(matching.points[s].size());
    points += static_cast<double>(matching.points[s].size());
  }
  EXPECT_GE(matched / points, 0.7);

  // Compared with itself no change of it is named, and most vessels are said not to have changed.
  std::vector<ComparedRun> both;
  for (Analysis* analysis : {&part, &whole}) {
    ComparedRun compared;
    compared.description = run.description;
    compared.geometry = run.geometry;
    compared.analysis = std::move(*analysis);
    const ImageView<const std::uint8_t> valid = run.field.valid();
    compared.valid = Image<std::uint8_t>(valid.height, valid.width);
    for (int y = 0; y < valid.height; ++y) std::copy_n(valid.row(y), valid.width, compared.valid.row(y));
    compared.acquired = "2001-01-01T10:00:00";
    both.push_back(std::move(compared));
  }
  const Comparison comparison = compare_runs(both);
  EXPECT_EQ(comparison.reference, 1) << "more of it was measured";
  std::size_t unchanged = 0;
  for (const SegmentTimeline& segment : comparison.segments) {
    unchanged += segment.label == "no change";
    EXPECT_LE(label_gravity(segment.label), label_gravity("indeterminate")) << segment.id << ": " << segment.label;
  }
  EXPECT_GE(2 * unchanged, comparison.segments.size());
  EXPECT_EQ(comparison.summary.spastic_segments, 0);
  EXPECT_EQ(conclude(comparison, both).main.rfind("No finding", 0), 0U) << conclude(comparison, both).main;
}

TEST(RealMatching, OtherProjectionsAreNotRegistered) {
  for (const char* name : {"ge_phantom_im1.dcm", "ge_phantom_im5.dcm", "ge_phantom_im6.dcm"})
    if (!std::filesystem::exists(data(name))) GTEST_SKIP() << "CINELUMEN_TEST_DATA has no xa/" << name;
  std::vector<Analysis> analyses;
  std::vector<cinelumen::Run> runs;
  for (const char* name : {"ge_phantom_im1.dcm", "ge_phantom_im5.dcm", "ge_phantom_im6.dcm"}) {
    runs.push_back(read_run(data(name).string()));
    analyses.push_back(analyze(Stream::cpu(), runs.back(), {}));
  }
  for (std::size_t a = 0; a < 3; ++a)
    for (std::size_t b = 0; b < 3; ++b) {
      const RunRegistration registration =
          register_runs(analyses[a].mask_picture.view(), runs[a].field.valid(), analyses[b].mask_picture.view(), runs[b].field.valid(), 1);
      EXPECT_EQ(registration.reliable, a == b) << a << " " << b << ": " << registration.correlation;
    }
}

}  // namespace
}  // namespace cinelumen
