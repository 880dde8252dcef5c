/// The page of `compare`: whole, self-contained, nothing left out, and no word that the data do not say.

#include "io/comparison_report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "io/comparison_views.h"
#include "io/comparison_words.h"
#include "support/fabricated_case.h"

namespace cinelumen {
namespace {

int occurrences(const std::string& text, const std::string& word) {
  int n = 0;
  for (auto at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++n;
  return n;
}

/// Walks the tags of a page; the first thing that is wrong, else empty.
class TagWalk {
 public:
  explicit TagWalk(const std::string& page) : page_(page) {}

  std::string complaint() {
    while ((at_ = page_.find('<', at_)) != std::string::npos) {
      if (page_.compare(at_, 2, "<!") == 0) {
        at_ = page_.find('>', at_);
        continue;
      }
      const std::string wrong = tag();
      if (!wrong.empty()) return wrong;
    }
    return open_.empty() ? "" : "left open: " + open_.back();
  }

 private:
  std::string tag() {
    const std::size_t start = at_++;
    const bool closing = page_[at_] == '/';
    at_ += closing;
    std::string name;
    while (at_ < page_.size() && std::isalnum(static_cast<unsigned char>(page_[at_])) != 0) name += page_[at_++];
    if (name.empty()) return "no tag: " + page_.substr(start, 40);
    bool empty = false;
    std::set<std::string> attributes;
    while (at_ < page_.size() && page_[at_] != '>') {
      if (page_[at_] == ' ') {
        ++at_;
      } else if (page_[at_] == '/') {
        empty = true;
        ++at_;
      } else {
        const std::size_t from = at_;
        while (page_[at_] != '=' && page_[at_] != ' ' && page_[at_] != '>') ++at_;
        if (!attributes.insert(page_.substr(from, at_ - from)).second) return "attribute twice: " + page_.substr(start, 200);
        if (page_[at_] != '=') continue;
        const bool quoted = page_[++at_] == '"';
        at_ = quoted ? page_.find('"', at_ + 1) + 1 : page_.find_first_of(" >", at_);
        if (!quoted && page_[at_ - 1] == '/') return "a value that ends in /: " + page_.substr(start, 200);
      }
    }
    ++at_;
    if (closing) return close(name);
    static const std::set<std::string> without_content = {"meta", "img", "br", "input"};
    if (!empty && without_content.count(name) == 0) open_.push_back(name);
    if (name == "script" || name == "style") at_ = page_.find("</" + name, at_);
    return "";
  }
  std::string close(const std::string& name) {
    static const std::set<std::string> may_stay_open = {"li", "td", "th", "tr", "dt", "dd", "thead", "tbody", "p"};
    while (!open_.empty() && open_.back() != name && may_stay_open.count(open_.back()) != 0) open_.pop_back();
    if (open_.empty() || open_.back() != name) return "</" + name + "> closes " + (open_.empty() ? "nothing" : open_.back());
    open_.pop_back();
    return "";
  }
  const std::string& page_;
  std::size_t at_ = 0;
  std::vector<std::string> open_;
};

const test::FabricatedCase& the_case() {
  static const test::FabricatedCase made;
  return made;
}
const std::string& the_page() {
  static const std::string page = comparison_report(the_case().comparison, the_case().runs, the_case().folders);
  return page;
}

TEST(ComparisonReport, IsWholeAndSelfContained) {
  const std::string& page = the_page();
  EXPECT_EQ(TagWalk(page).complaint(), "");
  for (const char* outside : {"http://", "https://", "src=\"//", "url(http", "<link", "@import"})
    EXPECT_EQ(page.find(outside), std::string::npos) << "the page refers to " << outside;
  EXPECT_EQ(occurrences(page, " src=\""), occurrences(page, " src=\"data:image/jpeg;base64,"));
  EXPECT_EQ(page.find("NaN"), std::string::npos);
  EXPECT_EQ(page.find(">nan"), std::string::npos);
  EXPECT_EQ(page.find("=nan"), std::string::npos);
  EXPECT_NE(page.find("not a medical device"), std::string::npos);
  EXPECT_LT(page.size(), std::size_t{3} << 20);
}

TEST(ComparisonReport, SaysTheSameTwice) {
  EXPECT_EQ(comparison_report(the_case().comparison, the_case().runs, the_case().folders), the_page());
}

TEST(ComparisonReport, NamesFromFilesAreText) {
  const std::string& page = the_page();
  for (const char* tag : {"<script>alert", "<img src=x", "<b>glycerin", "<here>", "<x>"})
    EXPECT_EQ(page.find(tag), std::string::npos) << tag;
  EXPECT_NE(page.find("&lt;script&gt;alert(1)&lt;/script&gt;"), std::string::npos) << "the patient";
  EXPECT_NE(page.find("&lt;img src=x onerror=alert(2)&gt;"), std::string::npos) << "a note";
  EXPECT_NE(page.find("&lt;script&gt;alert(4)&lt;/script&gt;"), std::string::npos) << "a warning";
  EXPECT_NE(page.find("plantar &lt;script&gt;alert(5)&lt;/script&gt;"), std::string::npos) << "a segment";
}

TEST(ComparisonReport, LinksToTheRunsOwnReports) {
  const std::string& page = the_page();
  EXPECT_NE(page.find("href=\"./run_01/report.html\""), std::string::npos);
  EXPECT_NE(page.find("href=\"./run%2002%20%3Cx%3E/report.html\""), std::string::npos);
  EXPECT_NE(page.find("href=\"./javascript%3Aalert%283%29/report.html\""), std::string::npos) << "a folder, not a script";
  EXPECT_NE(page.find("href=\"./../finished/run_07/report.html\""), std::string::npos);
  EXPECT_EQ(page.find("elsewhere"), std::string::npos) << "an absolute folder is nobody else's business";
  EXPECT_EQ(occurrences(page, "href="), 5);
}

TEST(ComparisonReport, ShowsEveryRunAndEveryFinding) {
  const std::string& page = the_page();
  EXPECT_EQ(occurrences(page, "<img alt=\"Run "), 7);
  EXPECT_EQ(occurrences(page, "<div class=run "), 7);
  for (const char* words : {"25 min later", "10 min later", "23 h later", "2 months later", "60 min later", "12 January 2026, 10:12",
                            "13 March 2026, 10:57", "papaverine 30 mg", "Valvulotomy", "Next day", "Follow-up", "Redo"})
    EXPECT_NE(page.find(words), std::string::npos) << words;
  int findings = 0;
  for (const SegmentTimeline& segment : the_case().comparison.segments) {
    const std::string row = "<tr class=first><td class=\"l name\"><span class=chip>" + std::to_string(segment.id) + "</span>";
    const auto at = page.find(row);
    EXPECT_EQ(at != std::string::npos, is_finding(segment.label)) << segment.id << " " << segment.label;
    if (at == std::string::npos) continue;
    ++findings;
    EXPECT_NE(page.substr(at, 600).find("<b>" + segment.label + "</b>"), std::string::npos);
    for (const std::string& reason : segment.reasons) EXPECT_NE(page.find(reason.substr(0, 20)), std::string::npos) << reason;
  }
  EXPECT_EQ(findings, 5);
  EXPECT_NE(page.find("<b>4 segments: no change</b> (5–8)"), std::string::npos) << "those without a finding, in one line";
  EXPECT_LT(page.find("<b>occlusion</b>"), page.find("<b>spasm, refractory</b>")) << "gravest first";
  EXPECT_LT(page.find("<b>spasm, refractory</b>"), page.find("<b>narrowing below spasm grade</b>"));
  EXPECT_NE(page.find("<span class=was>spasm, not yet settled</span>"), std::string::npos) << "what was said then";
  EXPECT_NE(page.find("contrast never came &lt;here&gt;"), std::string::npos) << "why it was not judged";
  EXPECT_NE(page.find("out of view"), std::string::npos);
}

TEST(ComparisonReport, InjuriesAreMarkedWhereTheyAre) {
  EXPECT_EQ(the_page().find("<g class=injury>"), std::string::npos);
  EXPECT_EQ(the_page().find("extravasation or dissection"), std::string::npos) << "no key to what is not there";
  test::FabricatedCase injured;
  injured.comparison.segments[2].label = "extravasation";
  TimelineEntry& entry = injured.comparison.segments[2].entries[3];
  entry.injury = "extravasation";
  entry.injury_at_px = {70, 81};
  const std::string page = comparison_report(injured.comparison, injured.runs, injured.folders);
  EXPECT_EQ(TagWalk(page).complaint(), "");
  EXPECT_EQ(occurrences(page, "<g class=injury><title>extravasation, suspected</title>"), 1) << "in that run's picture alone";
  EXPECT_EQ(occurrences(page, "extravasation or dissection, suspected"), 1);
  EXPECT_NE(conclude(injured.comparison, injured.runs).main.find("suspected extravasation in "), std::string::npos);
  const auto mark = page.find("<g class=injury>");
  EXPECT_NE(page.substr(mark, 160).find("cx=81.50 cy=70.50"), std::string::npos);
  EXPECT_LT(page.find("alt=\"Run 4,"), mark);
  EXPECT_GT(page.find("alt=\"Run 5,"), mark);
}

TEST(ComparisonReport, FlowOfTheFootAsAWhole) {
  const std::string& page = the_page();
  EXPECT_NE(page.find("<b>Pedal arch filled</b><td>yes<small>+ 0.80 s</small><td>no<td>yes"), std::string::npos);
  EXPECT_NE(page.find("<b>Share stolen before the arch</b><td class=none>–<td class=none>–<td>42 ± 6 %<td class=none>–"),
            std::string::npos);
  EXPECT_EQ(page.find("Early venous return"), std::string::npos) << "no run knows anything of it";
  EXPECT_NE(page.find("Region “=wound, &quot;heel&quot;”"), std::string::npos);
}

TEST(ComparisonReport, RunsThatCannotBeComparedSaySo) {
  const test::FabricatedCase made(2);
  const std::string page = comparison_report(made.comparison, made.runs, made.folders);
  EXPECT_EQ(TagWalk(page).complaint(), "");
  EXPECT_EQ(occurrences(page, "<img alt=\"Run "), 7) << "its picture is shown";
  EXPECT_EQ(occurrences(page, "Not comparable: its own picture"), 1) << "but not as if it were registered";
  EXPECT_GE(occurrences(page, "another projection, &lt;i&gt;18&lt;/i&gt; degrees apart"), 2) << "in the strip and among the limits";
  EXPECT_NE(page.find("1 run can&#39;t be compared"), std::string::npos);
}

TEST(ComparisonReport, WithoutACalibrationLengthsArePixels) {
  test::FabricatedCase made;
  made.comparison.calibrated = false;
  for (ComparedRun& run : made.runs) run.analysis.calibration = {};
  const std::string page = comparison_report(made.comparison, made.runs, made.folders);
  EXPECT_NE(page.find("along the segment, px"), std::string::npos);
  EXPECT_EQ(page.find("along the segment, mm"), std::string::npos);
  EXPECT_EQ(page.find(" mm</text>"), std::string::npos) << "no scale bar";
}

TEST(ComparisonReport, NothingMeasuredIsStillAPage) {
  test::FabricatedCase made;
  made.comparison.segments.clear();
  for (ComparedRun& run : made.runs) run.analysis.segments.clear(), run.analysis.maximum_opacification = {};
  const std::string page = comparison_report(made.comparison, made.runs, {});
  EXPECT_EQ(TagWalk(page).complaint(), "");
  EXPECT_NE(page.find("Nothing can be said of a change."), std::string::npos);
}

TEST(Conclusion, SaysWhatHappenedAndNoMore) {
  const Conclusion words = conclude(the_case().comparison, the_case().runs);
  const std::string mm = std::to_string(std::lround(the_case().comparison.summary.spastic_mm));
  EXPECT_EQ(words.main,
            "Diffuse spasm in 3 segments (" + mm +
                " mm), first seen in run 2, after valvulotomy, not relieved by two spasmolytics, gone in run 5 (next day, 23 h "
                "after run 4); occlusion of posterior tibial vein (segment 1) in run 6 (follow-up, 2 months after run 5), open in "
                "run 7 (redo, 60 min after run 6).");
  EXPECT_EQ(words.rest, "Narrowing below spasm grade in segment 9; 4 segments unchanged.");
}

TEST(Conclusion, WithoutAFindingSaysSo) {
  Comparison comparison;
  comparison.runs.resize(2);
  comparison.runs[0].comparable = comparison.runs[1].comparable = true;
  comparison.runs[1].given = 1;
  comparison.segments.resize(3);
  for (SegmentTimeline& segment : comparison.segments) segment.entries.resize(2);
  const std::vector<ComparedRun>& runs = the_case().runs;
  EXPECT_EQ(conclude(comparison, runs).main, "Nothing can be said of a change; 3 segments can't be judged.");
  comparison.segments[0].label = comparison.segments[2].label = "no change";
  EXPECT_EQ(conclude(comparison, runs).main, "No finding; 2 segments unchanged; 1 segment can't be judged.");
  EXPECT_EQ(conclude(comparison, runs).rest, "");
}

TEST(Conclusion, TimesBetween) {
  const auto after = [](const char* to) { return time_between("2026-01-12T10:00:00", to); };
  EXPECT_EQ(after("2026-01-12T10:00:40"), "40 s");
  EXPECT_EQ(after("2026-01-12T10:10:00"), "10 min");
  EXPECT_EQ(after("2026-01-12T14:10:00"), "4 h");
  EXPECT_EQ(after("2026-01-15T09:00:00"), "3 days");
  EXPECT_EQ(after("2026-02-02"), "3 weeks");
  EXPECT_EQ(after("2026-03-13T10:00:00"), "2 months");
  EXPECT_EQ(after("2029-01-12T10:00:00"), "3 years");
  EXPECT_EQ(after("2026-01-12T09:59:00"), "") << "not later";
  EXPECT_EQ(after("soon"), "");
}

TEST(ComparisonViews, LayARunOnTheReference) {
  ComparedRun run;
  run.analysis.maximum_opacification = Image<float>(60, 80);
  run.valid = Image<std::uint8_t>(60, 80);
  // A ramp: where a pixel came from can be read from its value.
  for (int y = 0; y < 60; ++y)
    for (int x = 0; x < 80; ++x) run.analysis.maximum_opacification(y, x) = static_cast<float>(100 * y + x), run.valid(y, x) = x < 70;
  RunRegistration way;
  way.affine = {{{0.998, -0.03}, {0.03, 0.998}}};
  way.shift = {2.5, -1.25};
  const ViewBox box{10, 20, 30, 40};
  for (const double scale : {1.0, 2.0}) {
    const Image<float> view = registered_view(run, way, box, scale);
    ASSERT_EQ(view.height(), static_cast<int>(30 * scale));
    ASSERT_EQ(view.width(), static_cast<int>(40 * scale));
    for (const int i : {0, 11, 29})
      for (const int j : {0, 17, 39}) {
        const auto [y, x] = way.forward(10 + (i + 0.5) / scale - 0.5, 20 + (j + 0.5) / scale - 0.5);
        EXPECT_NEAR(view(i, j), 100 * y + x, 0.02) << i << " " << j;
      }
  }
  way.shift = {0, 40};
  const Image<float> outside = registered_view(run, way, box, 1);
  EXPECT_TRUE(std::isnan(outside(15, 39))) << "beyond the picture";
  EXPECT_TRUE(std::isnan(outside(15, 15))) << "beyond the field";
  EXPECT_TRUE(std::isfinite(outside(15, 0)));
}

TEST(ComparisonViews, BoxHoldsTheVessels) {
  const Analysis& reference = the_case().runs[0].analysis;
  const ViewBox box = vessels_box(reference);
  for (const SegmentResult& segment : reference.segments)
    for (const CentrelinePoint& point : segment.centreline.points) {
      EXPECT_TRUE(point.y >= box.y && point.y <= box.y + box.height);
      EXPECT_TRUE(point.x >= box.x && point.x <= box.x + box.width);
    }
  EXPECT_LE(box.y + box.height, test::FabricatedCase::side);
  EXPECT_LE(box.x + box.width, test::FabricatedCase::side);
  const std::vector<SegmentLabel> numbers = place_numbers(the_case().comparison, reference, {0, 1, 2, 3, 8}, box, 6);
  ASSERT_EQ(numbers.size(), 5U);
  for (const SegmentLabel& number : numbers) {
    EXPECT_TRUE(number.y > box.y + 6 && number.y < box.y + box.height - 6);
    EXPECT_TRUE(number.x > box.x + 6 && number.x < box.x + box.width - 6);
    for (const SegmentLabel& other : numbers)
      EXPECT_TRUE(other.id == number.id || std::hypot(number.y - other.y, number.x - other.x) > 12) << "numbers over each other";
  }
}

TEST(ComparisonViews, StretchesAreWhatWasMeasured) {
  const Comparison& comparison = the_case().comparison;
  const auto gravest = [&](std::size_t segment, std::size_t run) {
    Narrowness worst = Narrowness::none;
    for (const NarrowStretch& stretch : narrow_stretches(comparison.segments[segment], run, true))
      worst = std::max(worst, stretch.narrowness);
    return worst;
  };
  EXPECT_EQ(gravest(1, 0), Narrowness::none) << "the reference";
  EXPECT_EQ(gravest(1, 1), Narrowness::mild) << "72 %";
  EXPECT_EQ(gravest(8, 2), Narrowness::below) << "38 %";
  EXPECT_EQ(gravest(1, 4), Narrowness::none) << "the next day";
  EXPECT_EQ(gravest(4, 2), Narrowness::unfilled);
  EXPECT_TRUE(narrow_stretches(comparison.segments[5], 4, true).empty()) << "out of view";
  EXPECT_TRUE(narrow_stretches(comparison.segments[1], 1, false).empty()) << "not comparable";
  const SegmentTimeline& shut = comparison.segments[0];
  const auto stretches = narrow_stretches(shut, 5, true);
  const auto lost =
      std::find_if(stretches.begin(), stretches.end(), [](const NarrowStretch& s) { return s.narrowness == Narrowness::shut; });
  ASSERT_NE(lost, stretches.end());
  EXPECT_NEAR(shut.arc_mm[lost->first], 0.3 * shut.length_mm, 1);
  EXPECT_NEAR(shut.arc_mm[lost->last], 0.8 * shut.length_mm, 1);
  EXPECT_EQ(stretches.front().first, 0U);
  EXPECT_EQ(stretches.back().last + 1, shut.arc_mm.size());
  for (std::size_t i = 1; i < stretches.size(); ++i) EXPECT_EQ(stretches[i].first, stretches[i - 1].last) << "no gap";
}

TEST(ComparisonViews, ALongVesselIsDrawnWithoutGaps) {
  SegmentTimeline segment;
  std::vector<LogRatio> ratios;
  for (double arc = 0; arc < 200; arc += 0.26) {
    segment.arc_mm.push_back(static_cast<float>(arc));
    ratios.push_back({arc, 0, 0.03});
  }
  TimelineEntry entry;
  entry.state = SegmentState::measured;
  entry.change = estimate_change(ratios, 0.01);
  ASSERT_GT(entry.change.bin_mm, CalibreChangeOptions{}.bin_mm) << "figures are pooled over longer stretches there";
  segment.entries = {entry};
  const auto stretches = narrow_stretches(segment, 0, true);
  ASSERT_EQ(stretches.size(), 1U);
  EXPECT_EQ(stretches[0].narrowness, Narrowness::none);
}

}  // namespace
}  // namespace cinelumen
