#include "bench/reliability_page.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace cinelumen::bench {
namespace {

TEST(Reliability, SaidAgainstTrue) {
  Reliability curve;
  for (int i = 0; i < 10; ++i) curve.add(0.25, i < 5);
  for (int i = 0; i < 30; ++i) curve.add(1.0, i < 27);
  EXPECT_EQ(curve.count[2], 10);
  EXPECT_EQ(curve.count[9], 30) << "a certainty is in the last bin";
  EXPECT_EQ(curve.all(), 40);
  EXPECT_NEAR(curve.calibration_error(), (2.5 + 3) / 40, 1e-12);
}

TEST(Reliability, IntervalsOfShares) {
  // Wilson 1927; the figures as published for 81 of 263 and 0 of 20.
  const auto some = share_interval(81, 263);
  EXPECT_NEAR(some[0], 0.2553, 5e-4);
  EXPECT_NEAR(some[1], 0.3662, 5e-4);
  const auto none = share_interval(0, 20);
  EXPECT_NEAR(none[0], 0, 1e-12);
  EXPECT_NEAR(none[1], 0.1611, 5e-4);
}

TEST(Reliability, ThePageHasADiagramForEach) {
  std::vector<Reliability> curves(2);
  curves[0].border_percent = 25;
  curves[0].add(0.9, true);
  curves[1].border_percent = 50;
  const auto file = std::filesystem::temp_directory_path() / "cinelumen_reliability.html";
  write_reliability_page(curves, "a phantom", file.string());
  std::stringstream text;
  text << std::ifstream(file).rdbuf();
  for (const char* part : {"more than 25", "more than 50", "<svg", "A phantom."})
    EXPECT_NE(text.str().find(part), std::string::npos) << part;
  std::filesystem::remove(file);
  EXPECT_THROW(write_reliability_page(curves, "a phantom", "/nowhere/at/all.html"), std::runtime_error);
}

}  // namespace
}  // namespace cinelumen::bench
