/// What `analyze` writes: names, nulls, rows, and a page that nothing in a header can break.

#include "io/results.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "io/output_folder.h"
#include "io/page.h"
#include "io/report.h"
#include "support/fabricated.h"

namespace cinelumen {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

class Results : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/cinelumen_results_XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    folder = name;
  }
  void TearDown() override { fs::remove_all(folder); }
  static std::string contents(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static std::vector<std::string> lines(const std::string& text) {
    std::vector<std::string> result;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) result.push_back(line);
    return result;
  }
  static std::vector<std::string> cells(const std::string& line) {
    std::vector<std::string> result(1);
    for (const char c : line) c == ',' ? (void)result.emplace_back() : (void)(result.back() += c);
    return result;
  }
  static std::set<std::string> keys(const json& object) {
    std::set<std::string> names;
    for (const auto& [key, value] : object.items()) names.insert(key);
    return names;
  }
  static void expect_keys(const json& object, const std::set<std::string>& expected, const char* where) {
    const auto names = keys(object);
    for (const std::string& name : expected) EXPECT_TRUE(names.count(name)) << where << " has no " << name;
  }
  std::set<std::string> listing() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename());
    return names;
  }
  void write(test::FabricatedRun& made, bool video = false) {
    made.run.description.sop_instance_uid.clear();  // there is no file to take a header from
    ResultOptions options;
    options.folder = folder;
    options.video = video;
    const AnalysisOptions analysis_options;
    ResultWriter writer(made.run, analysis_options, options);
    made.play(writer);
    writer.finish(made.analysis);
  }
  fs::path folder;
};

TEST_F(Results, SummaryHasEveryNameOfTheSchema) {
  test::FabricatedRun made(96, 10, 2);
  const json root = json::parse(analysis_json(made.run, made.analysis));
  EXPECT_EQ(root["schema"], "cinelumen.analysis/1");
  expect_keys(
      root, {"schema", "software", "input", "calibration", "noise", "subtraction", "segments", "flow", "findings", "timing_ms", "warnings"},
      "the root");
  expect_keys(root["software"], {"name", "version", "commit", "device", "threads"}, "software");
  expect_keys(root["input"],
              {"path", "sha256", "sop_instance_uid", "rows", "columns", "frames", "bits_stored", "transfer_syntax",
               "pixel_intensity_relationship", "frame_times_ms"},
              "input");
  expect_keys(root["calibration"], {"source", "mm_per_px", "relative_sd", "note"}, "calibration");
  expect_keys(root["noise"], {"gain", "electronic_sd", "log_sd_at_median"}, "noise");
  expect_keys(root["subtraction"], {"reference_frame", "topology_frame", "mask_source", "mask_frames", "registration", "frames"},
              "subtraction");
  expect_keys(root["subtraction"]["frames"][0], {"frame", "shift_px", "residual_sd", "contrast_score"}, "a frame");
  expect_keys(root["segments"][0],
              {"id", "name", "length_mm", "centreline_px", "filling", "arrival_ms", "time_to_peak_ms", "mean_transit_ms", "velocity_mm_s",
               "velocity_sd_mm_s", "auc_relative_to_inlet", "role", "diameter_mm"},
              "a segment");
  expect_keys(root["segments"][0]["diameter_mm"], {"median", "sd", "minimum", "minimum_at_px", "reference", "percent_stenosis"},
              "a diameter");
  expect_keys(root["flow"], {"arch_filled", "arch_arrival_ms", "steal_fraction", "steal_sd", "early_venous_return", "regions"}, "flow");
  expect_keys(root["flow"]["regions"][0], {"name", "peak", "auc_relative_to_inlet", "arrival_ms"}, "a region");
  expect_keys(root["findings"][0],
              {"segment", "label", "grade", "narrowing_percent", "ci95", "extent_mm", "at_px", "onset_ms", "probability", "reasons"},
              "a finding");
  expect_keys(root["timing_ms"], {"total", "per_frame_p50", "per_frame_p99", "stages"}, "timing_ms");

  // Frame numbers are 1-based in the file; the part begins at its third frame.
  EXPECT_EQ(root["subtraction"]["mask_frames"], json({3, 4, 5}));
  EXPECT_EQ(root["subtraction"]["reference_frame"], 3);
  EXPECT_TRUE(root["subtraction"]["topology_frame"].is_null());
  EXPECT_EQ(root["subtraction"]["frames"][0]["frame"], 3);
  EXPECT_EQ(root["input"]["frames"], 12);
  // mm = px x calibration.
  const auto& first = made.analysis.segments[0];
  EXPECT_NEAR(root["segments"][0]["diameter_mm"]["median"].get<double>(), *first.diameter.median * 0.252, 1e-6);
  EXPECT_NEAR(root["segments"][0]["length_mm"].get<double>(), first.length, 1e-3);
  EXPECT_EQ(root["segments"][0]["centreline_px"].size(), first.centreline.points.size());
  EXPECT_TRUE(root["segments"][0]["centreline_inferred"].empty());
  auto& points = made.analysis.segments[1].centreline.points;
  for (const std::size_t i : {std::size_t{0}, std::size_t{1}, std::size_t{5}, points.size() - 1}) points[i].inferred = true;
  const auto last = points.size() - 1;
  EXPECT_EQ(json::parse(analysis_json(made.run, made.analysis))["segments"][1]["centreline_inferred"],
            json({{0, 1}, {5, 5}, {last, last}}));
  EXPECT_NEAR(root["segments"][0]["centreline_px"][3][0].get<double>(), first.centreline.points[3].y, 0.006);
  EXPECT_TRUE(root["segments"].back()["diameter_mm"]["minimum_at_px"].is_null());
  EXPECT_EQ(root["calibration"]["source"], "geometry");
  EXPECT_EQ(ordered_json::parse(analysis_json(made.run, made.analysis)).begin().key(), "schema");
}

TEST_F(Results, WhatIsUnknownIsNullAndNothingIsNaN) {
  test::FabricatedRun made(64, 4);
  made.analysis.calibration = {};
  made.analysis.frame_times_ms.clear();
  made.run.frame_times_ms.clear();
  made.run.description = {};
  made.analysis.noise = {};
  made.analysis.subtraction.frames[1].residual_sd = std::numeric_limits<double>::quiet_NaN();
  made.analysis.subtraction.frames[2].contrast_score = std::numeric_limits<double>::infinity();
  made.analysis.segments[0].diameter.median = std::numeric_limits<double>::quiet_NaN();
  made.analysis.segments[1].name = "\xff\xfe\x1b[31m <b>";
  made.analysis.warnings = {"bad \xc3\x28 bytes"};
  const std::string text = analysis_json(made.run, made.analysis);
  const json root = json::parse(text);  // throws on NaN, Infinity and bad UTF-8
  EXPECT_EQ(text.find("nan"), std::string::npos);
  EXPECT_EQ(text.find("inf,"), std::string::npos);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(root["calibration"]["source"], "none");
  for (const auto& value :
       {root["calibration"]["mm_per_px"], root["calibration"]["relative_sd"], root["input"]["sop_instance_uid"],
        root["input"]["frame_times_ms"], root["noise"]["gain"], root["segments"][0]["length_mm"],
        root["segments"][0]["diameter_mm"]["median"], root["segments"][0]["diameter_mm"]["minimum"],
        root["segments"][0]["diameter_px"]["median"], root["segments"][0]["velocity_mm_s"], root["subtraction"]["frames"][1]["residual_sd"],
        root["subtraction"]["frames"][2]["contrast_score"], root["flow"]["arch_filled"], root["segments"][0]["role"]})
    EXPECT_TRUE(value.is_null()) << value;
  EXPECT_TRUE(root["segments"][0]["diameter_px"]["minimum"].is_number());
  EXPECT_TRUE(root["segments"][0]["diameter_mm"]["percent_stenosis"].is_number());
}

TEST_F(Results, WritesEveryFileAndNothingElse) {
  test::FabricatedRun made(96, 10, 2);
  write(made, true);
  std::set<std::string> expected = {"analysis.json",     "lumen.csv",  "time_density.csv", "subtracted.dcm", "maximum_opacification.png",
                                    "opacification.png", "report.html"};
  const bool has_video = fs::exists(folder / "overlay.mp4");
  if (has_video) expected.insert("overlay.mp4");
  EXPECT_EQ(listing(), expected);
  const json summary = json::parse(contents(folder / "analysis.json"));
  EXPECT_GT(summary["timing_ms"]["stages"]["write"].get<double>(), 0);
  EXPECT_EQ(summary["warnings"].dump().find("overlay.mp4") == std::string::npos, has_video) << "a missing file must be said";
}

TEST_F(Results, LumenRows) {
  test::FabricatedRun made(96, 10, 2);
  write(made);
  const auto rows = lines(contents(folder / "lumen.csv"));
  EXPECT_EQ(
      rows[0],
      "frame,time_ms,segment,point,arc_length_mm,y_px,x_px,diameter_mm,diameter_sd_mm,diameter_px,contrast,used,reason,area_mm2,note");
  std::size_t points = 0;
  for (const auto& segment : made.analysis.segments) points += segment.centreline.points.size();
  ASSERT_EQ(rows.size(), 1 + 10 * points);
  int used = 0, unfilled = 0;
  for (int frame = 0; frame < 10; ++frame) {
    const auto lumen = made.lumen(frame);
    for (std::size_t i = 0; i < lumen.size(); i += 17) {
      const auto row = cells(rows[1 + frame * points + i]);
      ASSERT_EQ(row.size(), 15u);
      EXPECT_EQ(row[0], std::to_string(frame + 3));
      EXPECT_NEAR(std::stod(row[1]), made.analysis.frame_times_ms[frame], 1e-3);
      EXPECT_EQ(row[2], std::to_string(lumen[i].segment + 1));
      EXPECT_EQ(row[3], std::to_string(lumen[i].point));
      EXPECT_NEAR(std::stod(row[4]), lumen[i].arc_length_px * 0.252, 1e-3);
      EXPECT_NEAR(std::stod(row[5]), lumen[i].y_px, 0.006);
      EXPECT_EQ(row[11], lumen[i].used ? "1" : "0");
      if (lumen[i].used) {
        EXPECT_NEAR(std::stod(row[7]), lumen[i].diameter_px * 0.252, 1e-4);
        EXPECT_NEAR(std::stod(row[8]), lumen[i].sd_px * 0.252, 1e-4);
        EXPECT_EQ(row[12], "");
        ++used;
      } else {
        EXPECT_EQ(row[7] + row[8] + row[9], "");
        EXPECT_NE(row[12], "");
        unfilled += row[12] == "unfilled";
      }
    }
  }
  EXPECT_GT(used, 0);
  EXPECT_GT(unfilled, 0);
}

TEST_F(Results, NoMillimetresWithoutACalibration) {
  test::FabricatedRun made(64, 8);
  made.analysis.calibration = {};
  made.analysis.frame_times_ms.clear();
  made.run.frame_times_ms.clear();
  write(made);
  int measured = 0;
  const auto rows = lines(contents(folder / "lumen.csv"));
  for (std::size_t i = 1; i < rows.size(); ++i) {
    const auto row = cells(rows[i]);
    ASSERT_EQ(row[1] + row[4] + row[7] + row[8], "") << rows[i];
    measured += !row[9].empty();
  }
  EXPECT_GT(measured, 0);
  const std::string page = contents(folder / "report.html");
  EXPECT_NE(page.find("every length below is in pixels"), std::string::npos);
}

TEST_F(Results, TimeDensityRowsAndHostileNames) {
  test::FabricatedRun made(64, 6);
  const auto rows = lines(time_density_csv(made.analysis));
  EXPECT_EQ(rows[0], "frame,time_ms,segment,contrast");
  ASSERT_EQ(rows.size(), 1 + 6 * (made.analysis.segments.size() + 1));
  EXPECT_EQ(rows[1].substr(0, 10), "1,0.000,1,");
  EXPECT_EQ(rows.back(), "6,1333.335,\"'=wound, \"\"heel\"\"\",") << "not known: an empty cell";
  EXPECT_EQ(csv_cell("plain"), "plain");
  EXPECT_EQ(csv_cell("@SUM(A1)"), "'@SUM(A1)");
  EXPECT_EQ(csv_cell("a\"b"), "\"a\"\"b\"");
}

TEST_F(Results, PageIsSelfContainedAndEscaped) {
  test::FabricatedRun made(64, 6);
  made.analysis.warnings.push_back("</script><img src=x onerror=alert(1)>");
  made.analysis.segments[0].name = "<b>vein</b>";
  write(made);
  const std::string page = contents(folder / "report.html");
  EXPECT_EQ(page.find("<script>alert"), std::string::npos);
  EXPECT_NE(page.find("&lt;script&gt;alert(1)&lt;/script&gt;"), std::string::npos);
  EXPECT_EQ(page.find("<img src=x"), std::string::npos);
  EXPECT_EQ(page.find("<b>vein"), std::string::npos);
  for (const char* outside : {"http://", "https://", "src=\"//", "url(http"})
    EXPECT_EQ(page.find(outside), std::string::npos) << "the page refers to " << outside;
  EXPECT_EQ(page.find("NaN"), std::string::npos);
  EXPECT_EQ(page.find(">nan"), std::string::npos);
  EXPECT_NE(page.find("not a medical device"), std::string::npos);
  // Scripts begin and end as often.
  const auto occurrences = [&](const std::string& word) {
    int n = 0;
    for (auto at = page.find(word); at != std::string::npos; at = page.find(word, at + 1)) ++n;
    return n;
  };
  EXPECT_EQ(occurrences("<script>"), occurrences("</script>"));
  EXPECT_EQ(occurrences("<svg"), occurrences("</svg>"));
  EXPECT_EQ(occurrences("<figure"), occurrences("</figure>"));
  EXPECT_EQ(escape_html("a<b>&\"'"), "a&lt;b&gt;&amp;&quot;&#39;");
  EXPECT_EQ(escape_html("\x1b[31m").find('\x1b'), std::string::npos);
}

TEST_F(Results, PageForOnePictureWithoutVessels) {
  test::FabricatedRun made(64, 1);
  made.analysis.subtracted = false;
  made.analysis.subtraction.mask = {};
  made.analysis.segments.clear();
  made.analysis.branch_points.clear();
  made.analysis.findings.clear();
  made.analysis.flow = {};
  made.analysis.time_to_peak_ms = {};
  made.analysis.frame_times_ms.clear();
  made.run.frame_times_ms.clear();
  ResultOptions options;
  options.folder = folder;
  options.video = false;
  made.run.description.sop_instance_uid.clear();
  const AnalysisOptions analysis_options;
  ResultWriter writer(made.run, analysis_options, options);
  writer.topology_done(made.analysis);
  const Image<float> image(64, 64);
  set_zero(Stream::cpu(), ImageView<float>{const_cast<float*>(image.view().data), 64, 64, image.view().pitch});
  const std::vector<LumenPoint> nothing;
  writer.frame_done({0, std::numeric_limits<double>::quiet_NaN(), image.view(), image.view(), &nothing, nullptr});
  writer.finish(made.analysis);
  const std::string page = contents(folder / "report.html");
  EXPECT_NE(page.find("nothing was subtracted"), std::string::npos);
  EXPECT_NE(page.find("No vessel was found"), std::string::npos);
}

TEST_F(Results, LongRunsKeepAFewPicturesOnly) {
  test::FabricatedRun made(32, 300);
  write(made);
  const std::string page = contents(folder / "report.html");
  int pictures = 0;
  for (auto at = page.find("{src:"); at != std::string::npos; at = page.find("{src:", at + 1)) ++pictures;
  EXPECT_GE(pictures, 100);
  EXPECT_LE(pictures, 121);
  EXPECT_NE(page.find("of 300 frames, evenly spaced"), std::string::npos);
}

TEST_F(Results, AnAnalysisThatFailsLeavesNothing) {
  test::FabricatedRun made(32, 4);
  made.run.description.sop_instance_uid.clear();
  {
    ResultOptions options;
    options.folder = folder;
    const AnalysisOptions analysis_options;
    ResultWriter writer(made.run, analysis_options, options);
    writer.topology_done(made.analysis);
    const Image<float> image = made.frame_image(0);
    const auto lumen = made.lumen(0);
    writer.frame_done({0, 0.0, image.view(), image.view(), &lumen, nullptr});
    for (const std::string& name : listing()) EXPECT_EQ(fs::path(name).extension(), ".tmp");
    EXPECT_THROW(writer.finish(made.analysis), std::logic_error) << "three frames are missing";
  }
  EXPECT_TRUE(listing().empty());
}

TEST_F(Results, SameInputSameBytes) {
  std::map<std::string, std::string> first;
  for (int i = 0; i < 2; ++i) {
    test::FabricatedRun made(64, 5);
    write(made);
    for (const char* name : {"lumen.csv", "time_density.csv", "subtracted.dcm", "maximum_opacification.png", "report.html"}) {
      const std::string bytes = contents(folder / name);
      EXPECT_TRUE(first.emplace(name, bytes).first->second == bytes) << name << " differs from the first time";
    }
  }
}

}  // namespace
}  // namespace cinelumen
