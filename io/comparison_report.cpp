#include "io/comparison_report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <set>

#include "io/comparison_views.h"
#include "io/comparison_words.h"
#include "io/page.h"
#include "io/pictures.h"
#include "io/results.h"

namespace cinelumen {
namespace {

using page::coordinate, page::count, page::fixed, page::Plot;

constexpr char style[] =
#include "io/report_assets/comparison_style.inc"
    ;
constexpr char script[] =
#include "io/report_assets/comparison_script.inc"
    ;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double view_side = 620;         // px of a picture's longer side: twice what a quarter of the page shows
constexpr double largest_zoom = 2.5;      // more would only blur
constexpr std::size_t most_points = 160;  // of a line in a plot

const std::string ink = "#1c2228";

/// Of the runs besides the reference, in every plot; told apart by colour-blind eyes too (after Okabe and Ito, darkened for paper).
constexpr std::array<const char*, 6> run_colours = {"#0072b2", "#c77700", "#00835f", "#a8488a", "#3a94cc", "#c2410c"};
constexpr char injury_colour[] = "#8b1fa9";

/// How a stretch of vessel is drawn: what is graver is also thicker, so that colour alone says nothing.
struct Stroke {
  const char *colour, *dashes;
  double width;
  const char* words;
};
Stroke stroke_of(Narrowness narrowness) {
  switch (narrowness) {
    case Narrowness::none:
      return {"#2f80b5", "", 1.5, "no narrowing"};
    case Narrowness::below:
      return {"#f2b01e", "", 3.5, "narrower by 25–50 %"};
    case Narrowness::mild:
      return {"#e8650a", "", 4.5, "by 50–90 %"};
    case Narrowness::severe:
      return {"#b80d1d", "", 5.5, "by 90 % and more"};
    case Narrowness::shut:
      return {"#c2189e", "7 4", 4.5, "no contrast where some is due"};
    case Narrowness::unfilled:
      return {"#6b7680", "1.5 4", 2.5, "not filled"};
    case Narrowness::unjudged:
      return {"#9aa4ad", "", 1.2, "not measured or not to be judged"};
  }
  return {"#9aa4ad", "", 1, ""};
}

std::string upper(std::string text) {
  if (!text.empty() && text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 'a' + 'A');
  return text;
}

/// "2, 5–7" of numbers in rising order.
std::string number_list(const std::vector<int>& numbers) {
  std::string text;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    std::size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    text += (text.empty() ? "" : ", ") + std::to_string(numbers[i]);
    if (last > i) text += (last > i + 1 ? "–" : ", ") + std::to_string(numbers[last]);
    i = last;
  }
  return text;
}

/// A relative address of `folder`'s report; empty where the folder is not below this page's.
std::string report_address(const std::string& folder) {
  const std::filesystem::path path(folder);
  if (folder.empty() || path.is_absolute()) return "";
  std::string address = "./";
  for (const char c : (path / "report.html").generic_string()) {
    static constexpr char digits[] = "0123456789ABCDEF";
    const auto byte = static_cast<unsigned char>(c);
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || std::string("-_./~").find(c) != std::string::npos)
      address += c;
    else
      address += std::string("%") + digits[byte >> 4] + digits[byte & 15];
  }
  return address;
}

/// The page, part by part. Lengths are mm where calibrated, else px of the reference.
class TimelinePage {
 public:
  TimelinePage(const Comparison& comparison, const std::vector<ComparedRun>& runs, const std::vector<std::string>& folders)
      : comparison_(comparison),
        given_(runs),
        folders_(folders),
        thresholds_(comparison.thresholds),
        unit_(comparison.calibrated ? "mm" : "px"),
        reference_(run(static_cast<std::size_t>(comparison.reference)).analysis) {
    for (std::size_t s = 0; s < comparison.segments.size(); ++s) (is_shown(s) ? shown_ : others_).push_back(s);
    const auto& segments = comparison.segments;
    std::stable_sort(shown_.begin(), shown_.end(), [&](std::size_t a, std::size_t b) {
      const int here = label_gravity(segments[a].label), there = label_gravity(segments[b].label);
      return here != there ? here > there : segments[a].narrowing_percent.value_or(0) > segments[b].narrowing_percent.value_or(0);
    });
  }

  std::string html() {
    page_ = page::head("Comparison of " + count(comparison_.runs.size(), "run", "runs"), style);
    header();
    page_ += "<main>\n";
    said();
    strip();
    views();
    findings();
    calibres();
    flow();
    limits();
    made();
    page_ += "</main>\n";
    footer();
    page_ += page::tail(script);
    return std::move(page_);
  }

 private:
  const ComparedRun& run(std::size_t r) const { return given_[static_cast<std::size_t>(comparison_.runs[r].given)]; }
  std::size_t run_count() const { return comparison_.runs.size(); }
  /// A finding, or a narrowing that stands out although nobody can say what it is.
  bool is_shown(std::size_t s) const {
    const SegmentTimeline& segment = comparison_.segments[s];
    if (is_finding(segment.label)) return true;
    return std::any_of(segment.entries.begin(), segment.entries.end(),
                       [&](const TimelineEntry& entry) { return is_finding(entry.label_now) || stands_out(entry, thresholds_); });
  }

  std::string badge(std::size_t r) const {
    return "<span class=badge style=\"background:" + run_colour(r) + "\">" + std::to_string(r + 1) + "</span>";
  }
  /// The reference's is ink.
  std::string run_colour(std::size_t r) const {
    return comparison_.runs[r].is_reference ? ink : run_colours[place(r) % run_colours.size()];
  }
  /// When colours come again they come dashed.
  std::string dashes(std::size_t r) const { return place(r) >= run_colours.size() ? "stroke-dasharray=\"6 3\"" : ""; }
  /// Among the runs besides the reference.
  std::size_t place(std::size_t r) const { return r - (r > static_cast<std::size_t>(comparison_.reference)); }
  static std::string chip(int id) { return "<span class=chip>" + std::to_string(id) + "</span>"; }
  /// The segment's name, escaped; empty where it is nothing but its number.
  static std::string name(const SegmentTimeline& segment) {
    return segment.name == "segment " + std::to_string(segment.id) ? "" : escape_html(segment.name);
  }
  /// "10 min later"; empty where times are not known.
  std::string gap(std::size_t r) const {
    const std::string time = r > 0 ? time_between(run(r - 1).acquired, run(r).acquired) : "";
    return time.empty() ? "" : time + " later";
  }
  /// What stands above a run: its event, else "reference", else nothing.
  std::string title_of(std::size_t r) const {
    const std::string event = to_string(run(r).event.kind);
    return upper(!event.empty() ? event : comparison_.runs[r].is_reference ? "reference" : "");
  }

  void header() {
    RunDescription who;
    bool differ = false;
    for (const ComparedRun& one : given_) {
      if (who.patient_name.empty() && who.patient_id.empty()) who = one.description;
      differ = differ || one.description.patient_id != given_.front().description.patient_id;
    }
    page_ += "<header class=page><div><p class=eyebrow>CineLumen – comparison of runs</p><h1>The same vessels in " +
             count(run_count(), "run", "runs") + "</h1>";
    std::string where;
    const auto add = [&](const std::string& text) {
      if (!text.empty()) where += (where.empty() ? "" : " · ") + text;
    };
    const std::string first = page::date(run(0).acquired.substr(0, 10)), last = page::date(run(run_count() - 1).acquired.substr(0, 10));
    add(first == last ? first : first + (first.empty() || last.empty() ? "" : " to ") + last);
    add(escape_html(who.study_description));
    add(escape_html(who.body_part + (who.body_part.empty() || who.laterality.empty() ? "" : " ") + who.laterality));
    page_ += "<p class=where>" + where + "</p></div>";
    const std::string patient = differ ? "<b>Patient IDs differ between runs</b>" : page::patient(who);
    if (!patient.empty()) page_ += "<div class=patient>" + patient + "</div>";
    page_ += "</header>\n" + page::notice();
  }

  void said() {
    const Conclusion words = conclude(comparison_, given_);
    page_ += "<p class=said>" + escape_html(words.main) + "</p>\n";
    if (!words.rest.empty()) page_ += "<p class=also>" + escape_html(words.rest) + "</p>\n";
    page_ +=
        "<p class=caution><b>An extrapolation.</b> Spasm grades (mild " + fixed(thresholds_.mild_percent, 0) + "–" +
        fixed(thresholds_.severe_percent, 0) + " %, severe from " + fixed(thresholds_.severe_percent, 0) +
        " % of the calibre lost) are those of the axillary vein (Europace 2012, n = 74; reused 2023, n = 137). Nobody has published any "
        "for "
        "arterialised veins of the foot. The rules of recovery, shape and extent are our own proposal and not clinically validated.</p>\n";
    page_ += page::warnings_box(comparison_.warnings);
  }

  // ---- what happened when ----

  void strip() {
    page_ += "<h2>What happened, and which runs can be compared</h2><div class=strip>";
    for (std::size_t r = 0; r < run_count(); ++r) strip_column(r);
    page_ +=
        "</div><p class=small>bones: share of the field whose bones agree after registration, and the correlation; pose: turned and "
        "scaled against the reference; vessels: share of the reference’s segments found again; calibres: the factor that all "
        "calibres of the run share, ± SD, taken out before segments are compared.</p>\n";
  }

  void strip_column(std::size_t r) {
    const ComparedRunSummary& summary = comparison_.runs[r];
    const ComparedRun& one = run(r);
    page_ += "<div class=run style=\"border-top-color:" + run_colour(r) + "\"><div>" + badge(r) + " <span class=gap>" +
             (r == 0           ? "the first"
              : gap(r).empty() ? "time not known"
                               : gap(r)) +
             "</span></div><div class=event>" + (title_of(r).empty() ? "No event given" : title_of(r)) + "</div>";
    if (!one.event.drug.empty() || !one.event.dose.empty())
      page_ += "<div class=drug>" + escape_html(one.event.drug + (one.event.dose.empty() ? "" : " " + one.event.dose)) + "</div>";
    page_ += "<div>" + (one.acquired.empty() ? std::string("no acquisition time") : page::date(one.acquired)) + "</div>";
    if (!one.event.note.empty()) page_ += "<div class=note>" + escape_html(one.event.note) + "</div>";
    if (summary.is_reference) {
      page_ += "<div class=note><b>The reference</b>: " + escape_html(comparison_.reference_note) +
               ". Calibres of all other runs are given in parts of this one’s.</div>";
    } else if (!summary.comparable) {
      page_ += "<div class=no>Not comparable</div><div class=note>" + escape_html(why_not(summary)) + "</div>";
    } else {
      const RunRegistration& way = summary.registration;
      const double factor = std::exp(summary.scale_offset);
      page_ += "<div class=yes>Comparable</div><dl><dt>bones<dd>" + fixed(100 * way.agreement, 0) + " %, r " + fixed(way.correlation, 2) +
               "<dt>pose<dd>" + fixed(way.rotation_deg, 1) + "°, × " + fixed(way.scale, 3) + "<dt>vessels<dd>" +
               fixed(100 * summary.matched_share, 0) + " % found<dt>calibres<dd>× " + fixed(factor, 3) + " ± " +
               fixed(factor * summary.scale_offset_sd, 3) + "</dl>";
      if (!summary.note.empty()) page_ += "<div class=note>" + escape_html(summary.note) + "</div>";
    }
    const std::size_t given = static_cast<std::size_t>(summary.given);
    const std::string address = given < folders_.size() ? report_address(folders_[given]) : "";
    if (!address.empty()) page_ += "<div class=note><a href=\"" + address + "\">this run’s own report</a></div>";
    page_ += "</div>";
  }

  /// Its note without the words that stand before it here anyway.
  static std::string why_not(const ComparedRunSummary& summary) {
    const std::string words = "not comparable: ";
    return summary.note.rfind(words, 0) == 0 ? summary.note.substr(words.size()) : summary.note;
  }

  // ---- the same field of view ----

  void views() {
    const ViewBox box = vessels_box(reference_);
    page_ +=
        "<h2>The same vessels in every run</h2><p class=lead>Maximum opacification, laid on the reference’s bones and vessels: a place "
        "of the foot is at the same place of every picture, in the same greys. Drawn in: the reference’s segments, coloured by how much "
        "narrower than there they are. Numbers: segments of the table below.</p>" +
        key(injury_key()) + "<div class=views style=\"margin-top:12px\">";
    const double scale = std::min(largest_zoom, view_side / std::max(box.height, box.width));
    const bool subtracted = reference_.subtracted;
    const Image<float> reference_view =
        registered_view(run(static_cast<std::size_t>(comparison_.reference)), RunRegistration{}, box, scale);
    const GreyWindow window = choose_window(reference_view.view(), subtracted);
    const double radius = std::max(box.height, box.width) / 26.0;
    const std::vector<SegmentLabel> numbers = place_numbers(comparison_, reference_, shown_, box, radius);
    for (std::size_t r = 0; r < run_count(); ++r) {
      if (comparison_.runs[r].comparable)
        view(r, box, scale, window, numbers, radius);
      else
        view_apart(r, box);
      page_ += "<figcaption>" + badge(r) + " <b>" + (title_of(r).empty() ? "Run " + std::to_string(r + 1) : title_of(r)) + "</b>" +
               (run(r).event.drug.empty() ? "" : " " + escape_html(run(r).event.drug)) + (gap(r).empty() ? "" : ", " + gap(r)) + "<br>" +
               found_in(r) + "</figcaption></figure>";
    }
    page_ += "</div>\n";
  }

  static std::string key(const std::string& more = "") {
    std::string text = "<div class=\"legend key\">";
    for (const Narrowness narrowness : {Narrowness::none, Narrowness::below, Narrowness::mild, Narrowness::severe, Narrowness::shut,
                                        Narrowness::unfilled, Narrowness::unjudged}) {
      const Stroke stroke = stroke_of(narrowness);
      text += "<span><svg viewBox=\"0 0 34 10\" aria-hidden=true><path d=\"M0 5h34\" " + attributes(stroke) + "/></svg>" +
              std::string(stroke.words) + "</span>";
    }
    return text + more + "</div>";
  }
  std::string injury_key() const {
    bool marked = false;
    for (std::size_t r = 0; r < comparison_.runs.size(); ++r) marked = marked || !injury_marks(r, 1).empty();
    if (!marked) return "";
    return "<span><svg viewBox=\"0 0 34 10\" aria-hidden=true><circle cx=17 cy=5 r=5 fill=none stroke=\"" + std::string(injury_colour) +
           "\" stroke-width=1.6 /></svg>extravasation or dissection, suspected</span>";
  }
  static std::string attributes(const Stroke& stroke) {
    return "stroke=\"" + std::string(stroke.colour) + "\" stroke-width=\"" + coordinate(stroke.width) + "\"" +
           (*stroke.dashes ? " stroke-dasharray=\"" + std::string(stroke.dashes) + "\"" : "");
  }

  /// "4 segments narrower, 1 without contrast"
  std::string found_in(std::size_t r) const {
    if (!comparison_.runs[r].comparable) return "";
    std::size_t narrower = 0, shut = 0, empty = 0;
    for (const SegmentTimeline& segment : comparison_.segments) {
      const TimelineEntry& entry = segment.entries[r];
      shut += entry.state == SegmentState::occluded;
      empty += entry.state == SegmentState::not_filled;
      narrower += entry.state == SegmentState::measured && stands_out(entry, thresholds_) && entry.doubt.empty();
    }
    std::string text;
    const auto add = [&](std::size_t n, const char* words) {
      if (n > 0) text += (text.empty() ? "" : ", ") + count(n, "segment ", "segments ") + words;
    };
    add(narrower, "narrower");
    add(shut, "without contrast");
    add(empty, "not filled");
    if (text.empty()) text = comparison_.runs[r].is_reference ? "what the others are compared with" : "nothing narrower";
    return text;
  }

  void view(std::size_t r, const ViewBox& box, double scale, const GreyWindow& window, const std::vector<SegmentLabel>& numbers,
            double radius) {
    const Image<float> registered = registered_view(run(r), comparison_.runs[r].registration, box, scale);
    Image<std::uint8_t> grey(registered.height(), registered.width());
    to_grey(registered.view(), window, grey);
    page_ += "<figure><div class=picture><img alt=\"Run " + std::to_string(r + 1) + ", maximum opacification\" src=\"" +
             page::data_uri("image/jpeg", encode_jpeg(grey.view(), static_cast<int>(view_side), 84)) + "\"><svg viewBox=\"" +
             std::to_string(box.x) + " " + std::to_string(box.y) + " " + std::to_string(box.width) + " " + std::to_string(box.height) +
             "\">" + vessel_lines(r) + injury_marks(r, radius) + number_marks(r, numbers, radius) + scale_bar(box) + "</svg></div>";
  }

  /// Cannot be laid on the reference: as it is, and nothing drawn in.
  void view_apart(std::size_t r, const ViewBox& box) {
    const Analysis& analysis = run(r).analysis;
    page_ +=
        "<figure><div class=\"picture apart\" style=\"aspect-ratio:" + std::to_string(box.width) + "/" + std::to_string(box.height) + "\">";
    if (!analysis.maximum_opacification.empty()) {
      const auto fullest = analysis.maximum_opacification.view();
      Image<std::uint8_t> grey(fullest.height, fullest.width);
      to_grey(fullest, choose_window(fullest, analysis.subtracted), grey);
      page_ += "<img alt=\"Run " + std::to_string(r + 1) + ", not registered\" src=\"" +
               page::data_uri("image/jpeg", encode_jpeg(grey.view(), static_cast<int>(view_side), 84)) + "\">";
    }
    page_ += "<p>Not comparable: its own picture, not laid on the reference</p></div>";
  }

  std::string vessel_lines(std::size_t r) const {
    std::string halos, lines;
    for (std::size_t s = 0; s < comparison_.segments.size(); ++s) {
      const auto& points = reference_.segments[s].centreline.points;
      for (const NarrowStretch& stretch : narrow_stretches(comparison_.segments[s], r, true, thresholds_)) {
        std::string d;
        for (std::size_t i = stretch.first; i <= stretch.last; ++i)
          if ((i - stretch.first) % 2 == 0 || i == stretch.last)
            d += (d.empty() ? "M" : "L") + coordinate(points[i].x + 0.5) + " " + coordinate(points[i].y + 0.5);
        const Stroke stroke = stroke_of(stretch.narrowness);
        if (stretch.narrowness != Narrowness::none && stretch.narrowness != Narrowness::unjudged)
          halos += "<path class=ves-halo stroke-width=" + coordinate(stroke.width + 2.5) + " d=\"" + d + "\"/>";
        lines += "<path class=ves " + attributes(stroke) + " d=\"" + d + "\"/>";
      }
    }
    return halos + lines;
  }

  std::string injury_marks(std::size_t r, double radius) const {
    std::string marks;
    for (const SegmentTimeline& segment : comparison_.segments) {
      const TimelineEntry& entry = segment.entries[r];
      if (entry.injury.empty()) continue;
      const std::string ring = "<circle cx=" + coordinate(entry.injury_at_px[1] + 0.5) + " cy=" + coordinate(entry.injury_at_px[0] + 0.5) +
                               " r=" + coordinate(1.5 * radius);
      marks += "<g class=injury><title>" + entry.injury + ", suspected</title>" + ring +
               " stroke=\"#fff\" stroke-width=" + coordinate(radius / 2.5) + " />" + ring + " stroke=\"" + injury_colour +
               "\" stroke-width=" + coordinate(radius / 5) + " /></g>";
    }
    return marks;
  }

  /// The graver the segment is in this run, the stronger its number's colour.
  std::string number_marks(std::size_t r, const std::vector<SegmentLabel>& numbers, double radius) const {
    std::string marks;
    for (std::size_t k = 0; k < numbers.size(); ++k) {
      Narrowness gravest = Narrowness::none;
      for (const NarrowStretch& stretch : narrow_stretches(comparison_.segments[shown_[k]], r, true, thresholds_))
        if (stretch.narrowness != Narrowness::unjudged) gravest = std::max(gravest, stretch.narrowness);
      const bool quiet = gravest == Narrowness::none;
      const SegmentLabel& label = numbers[k];
      const std::string colour = quiet ? "#3c4650" : stroke_of(gravest).colour, x = coordinate(label.x + 0.5),
                        y = coordinate(label.y + 0.5);
      marks += "<g class=\"num" + std::string(quiet ? " quiet" : "") + "\"><line x1=" + coordinate(label.anchor_x + 0.5) +
               " y1=" + coordinate(label.anchor_y + 0.5) + " x2=" + x + " y2=" + y + " stroke=\"" + colour +
               "\" stroke-width=" + coordinate(radius / 9) + " /><circle cx=" + x + " cy=" + y + " r=" + coordinate(radius) + " fill=\"" +
               (quiet                          ? "#ffffffd8"
                : gravest == Narrowness::below ? "#8a5a00"
                                               : colour) +
               "\" stroke=\"" + (quiet ? colour : "#fff") + "\" stroke-width=" + coordinate(radius / 10) + " /><text x=" + x + " y=" + y +
               " font-size=" + coordinate(radius * (label.id > 99 ? 0.9 : 1.2)) + ">" + std::to_string(label.id) + "</text></g>";
    }
    return marks;
  }

  std::string scale_bar(const ViewBox& box) const {
    if (!comparison_.calibrated || reference_.calibration.mm_per_px <= 0) return "";
    double mm = 50;
    for (const double shorter : {20.0, 10.0, 5.0, 2.0})
      if (mm / reference_.calibration.mm_per_px > 0.3 * box.width) mm = shorter;
    const double length = mm / reference_.calibration.mm_per_px, size = std::max(box.height, box.width) / 28.0;
    const double x = box.x + 0.04 * box.width, y = box.y + box.height - 0.035 * box.height;
    return "<path stroke=#fff stroke-width=" + coordinate(size / 3) + " d=\"M" + coordinate(x) + " " + coordinate(y) + "h" +
           coordinate(length) + "\"/><path stroke=" + ink + " stroke-width=" + coordinate(size / 6) + " d=\"M" + coordinate(x) + " " +
           coordinate(y) + "h" + coordinate(length) + "\"/><text x=" + coordinate(x) + " y=" + coordinate(y - 0.5 * size) +
           " font-size=" + coordinate(size) + " font-weight=600 fill=" + ink + " stroke=#fff stroke-width=" + coordinate(size / 5) +
           " paint-order=stroke>" + fixed(mm, 0) + " mm</text>";
  }

  // ---- findings ----

  void findings() {
    page_ += "<h2>Findings</h2>";
    if (shown_.empty()) {
      page_ += "<p class=lead>None: in no segment does a narrowing stand out.</p>";
    } else {
      page_ +=
          "<p class=lead>Gravest first. Narrowing is the calibre lost against the same segment of the reference, at the narrowest place "
          "of the gravest run, with its 95 % interval. Under each run: what all runs together say of it, and, where that has changed, "
          "what it and the runs before it allowed to say.</p><div class=scroll><table><thead><tr><th class=l>Segment<th "
          "class=l>Label<th>Narrowing<small>95 % interval</small><th>Extent<small>" +
          unit_ + "</small><th>Recovery";
      for (std::size_t r = 0; r < run_count(); ++r) page_ += "<th class=runs>" + badge(r) + "<small>" + short_event(r) + "</small>";
      page_ += "</thead><tbody>";
      for (const std::size_t s : shown_) finding(comparison_.segments[s]);
      page_ += "</tbody></table></div>";
    }
    for (const char* label : {"no change", "indeterminate", "not filled"}) folded(label);
    page_ += "\n";
  }

  /// The segments with this label that the table does not have, in one line.
  void folded(const std::string& label) {
    std::vector<int> ids;
    for (const std::size_t s : others_)
      if (comparison_.segments[s].label == label) ids.push_back(comparison_.segments[s].id);
    if (ids.empty()) return;
    std::sort(ids.begin(), ids.end());
    const bool more = std::any_of(shown_.begin(), shown_.end(), [&](std::size_t s) { return comparison_.segments[s].label == label; });
    page_ += "<p class=folded><b>" + std::to_string(ids.size()) + (more ? " more" : "") + (ids.size() == 1 ? " segment: " : " segments: ") +
             label + "</b> (" + number_list(ids) + ")" + (label == "no change" ? "" : "; why stands under “What cannot be said”") + "</p>";
  }

  std::string short_event(std::size_t r) const {
    const std::string event = to_string(run(r).event.kind);
    return event.empty() ? "&nbsp;" : event;
  }

  void finding(const SegmentTimeline& segment) {
    page_ += "<tr class=first><td class=\"l name\">" + chip(segment.id) + " " + name(segment) + "<td class=l><b>" +
             escape_html(segment.label) + "</b>" + (segment.grade == "none" ? "" : ", " + escape_html(segment.grade));
    const std::optional<double>& percent = segment.narrowing_percent;
    const bool bounded = percent && *percent >= thresholds_.narrowing_percent && *percent < 100 &&
                         std::any_of(segment.entries.begin(), segment.entries.end(), [](const TimelineEntry& e) { return e.bounded; });
    page_ += percent ? "<td>" + std::string(bounded ? "≥ " : "") + fixed(percent, 0) + " %" +
                           (segment.ci95 ? "<br><small>" + fixed((*segment.ci95)[0], 0) + " to " + fixed((*segment.ci95)[1], 0) + "</small>"
                                         : "")
                     : "<td class=none>–";
    page_ += segment.extent_mm && *segment.extent_mm > 0 ? "<td>" + fixed(segment.extent_mm, 0) : "<td class=none>–";
    page_ += segment.recovery ? "<td>" + fixed(segment.recovery, 2) : "<td class=none>–";
    for (std::size_t r = 0; r < run_count(); ++r) page_ += "<td class=runs>" + verdict(segment.entries[r], r);
    page_ += "<tr class=why><td class=l colspan=" + std::to_string(5 + run_count()) +
             "><details class=why><summary>Reasons and figures</summary>" + list(segment.reasons);
    for (std::size_t r = 0; r < run_count(); ++r)
      if (!segment.entries[r].reasons.empty())
        page_ += "<h4>" + badge(r) + " with the runs up to then: " + escape_html(segment.entries[r].label_then) + "</h4>" +
                 list(segment.entries[r].reasons);
    if (!segment.probabilities.empty()) {
      page_ += "<h4>Probabilities</h4><ul><li>";
      for (std::size_t i = 0; i < segment.probabilities.size(); ++i)
        page_ += (i ? ", " : "") + escape_html(segment.probabilities[i].first) + " " + fixed(segment.probabilities[i].second, 2);
      page_ += "</ul>";
    }
    page_ += "</details>";
  }
  static std::string list(const std::vector<std::string>& lines) {
    if (lines.empty()) return "";
    std::string text = "<ul>";
    for (const std::string& line : lines) text += "<li>" + escape_html(line);
    return text + "</ul>";
  }

  /// A run's cell: the label of now, its second half and the figure small, and the label of then where it was another.
  std::string verdict(const TimelineEntry& entry, std::size_t r) const {
    const ComparedRunSummary& summary = comparison_.runs[r];
    if (!summary.comparable) return "<span class=\"is is-open\">not comparable</span>";
    if (entry.state == SegmentState::out_of_view) return "<span class=\"is is-open\">out of view</span>";
    const std::string& label = entry.label_now;
    const char* kind = label.rfind("spasm", 0) == 0                                                ? "spasm"
                       : label == "occlusion" || label == "dissection" || label == "extravasation" ? "lost"
                       : is_finding(label)                                                         ? "fixed"
                       : label == "no change"                                                      ? "none"
                                                                                                   : "open";
    if (summary.is_reference && label == "no change") return "<span class=\"is is-none\">reference</span>";
    std::size_t head = label.find(", ");
    std::string small = head == std::string::npos ? "" : label.substr(head + 2);
    if (const std::size_t below = label.find(" below "); below != std::string::npos) head = below, small = label.substr(below + 1);
    std::string figure;
    if (entry.state == SegmentState::occluded)
      figure = "no contrast";
    else if (stands_out(entry, thresholds_) && entry.doubt.empty())
      figure = std::string(entry.bounded ? "≥ " : "") + fixed(entry.change.largest.percent, 0) + " %";
    std::string text = "<span class=\"is is-" + std::string(kind) + "\">" + escape_html(label.substr(0, head));
    if (!small.empty()) text += "<small>" + escape_html(small) + "</small>";
    if (!figure.empty()) text += "<small>" + figure + "</small>";
    text += "</span>";
    if (entry.label_then != entry.label_now) text += "<span class=was>" + escape_html(entry.label_then) + "</span>";
    return text;
  }

  // ---- calibre ----

  void calibres() {
    if (comparison_.segments.empty()) return;
    page_ +=
        "<h2>Calibre along the vessel, and over time</h2><p class=lead>Left, all runs on one axis: thick, the reference with its 95 % "
        "band; thin, the others, as the model sees them; dashed on the axis, no contrast. The bars below are the vessels of the pictures "
        "above, stretched out. Right, one column per run at even spacing: filled, the narrowest place with its 95 % interval; open, the "
        "mean over what was measured; an arrow, at most so much; pale, in doubt.</p><div class=legend>";
    for (std::size_t r = 0; r < run_count(); ++r)
      page_ += "<span>" + badge(r) + " " + (title_of(r).empty() ? "run " + std::to_string(r + 1) : title_of(r)) + "</span>";
    page_ += "</div>" + key() + hatching() + "<div style=\"margin-top:12px\">";
    for (const std::size_t s : shown_) calibre(s);
    page_ += "</div>";
    if (!others_.empty()) {
      page_ += "<details class=others" + std::string(shown_.empty() ? " open" : "") + "><summary>" +
               (shown_.empty() ? "All segments" : "The other " + count(others_.size(), "segment", "segments")) + "</summary>";
      for (const std::size_t s : others_) calibre(s);
      page_ += "</details>";
    }
    page_ += "\n";
  }
  static std::string hatching() {
    return "<svg width=0 height=0 style=\"position:absolute\" aria-hidden=true><defs><pattern id=shut width=6 height=6 "
           "patternUnits=userSpaceOnUse patternTransform=\"rotate(45)\"><path d=\"M0 0v6\" stroke=#c2189e stroke-width=2.4 "
           "/></pattern></defs></svg>";
  }

  void calibre(std::size_t s) {
    const SegmentTimeline& segment = comparison_.segments[s];
    const bool measured = std::any_of(segment.reference_mm.begin(), segment.reference_mm.end(), [](float d) { return d > 0; });
    page_ += "<div class=pair><h3>" + chip(segment.id) + " " + name(segment) + " <small>" + fixed(segment.length_mm, 0) + " " + unit_ +
             ", " + escape_html(segment.label) + (segment.grade == "none" ? "" : ", " + escape_html(segment.grade)) + "</small></h3>";
    if (measured)
      page_ += "<figure>" + along(segment) + lanes(segment) + "</figure><figure>" + over_time(segment) + "</figure>";
    else
      page_ += "<p class=small>Not measured in the reference, so nothing to compare with.</p>";
    page_ += "</div>";
  }

  static constexpr double along_width = 760, lane_height = 14;
  static constexpr page::PlotMargins along_margins = {40, 30, 20, 34};

  std::string along(const SegmentTimeline& segment) const {
    std::vector<double> arc, middle, low, high;
    const std::size_t stride = std::max<std::size_t>(1, segment.arc_mm.size() / most_points);
    double highest = 0;
    for (std::size_t i = 0; i < segment.arc_mm.size(); i += stride) {
      const double d = segment.reference_mm[i], sd = segment.reference_sd_mm[i];
      arc.push_back(segment.arc_mm[i]);
      middle.push_back(d > 0 ? d : nan);
      low.push_back(d > 0 ? std::max(0.0, d - 1.96 * sd) : nan);
      high.push_back(d > 0 ? d + 1.96 * sd : nan);
      if (d > 0) highest = std::max(highest, d);
    }
    struct Line {
      std::size_t run;
      std::vector<double> arc, calibre;
    };
    std::vector<Line> lines;
    for (std::size_t r = 0; r < run_count(); ++r)
      if (!comparison_.runs[r].is_reference && segment.entries[r].change.known) {
        lines.push_back({r, {}, {}});
        calibre_of(segment, segment.entries[r], lines.back().arc, lines.back().calibre);
        for (const double d : lines.back().calibre)
          if (d > highest) highest = d;
      }
    Plot plot(along_width, 250, 0, std::max(segment.length_mm, 1e-3), 0, highest > 0 ? 1.12 * highest : 1, "along the segment, " + unit_,
              "calibre, " + unit_, along_margins);
    shade_narrow(segment, plot);
    plot.band(arc, low, high, ink);
    plot.line(arc, middle, ink, 2.8);
    for (const Line& line : lines) plot.line(line.arc, line.calibre, run_colour(line.run), 1.7, dashes(line.run));
    for (std::size_t r = 0; r < run_count(); ++r)
      if (const TimelineEntry& entry = segment.entries[r]; entry.state == SegmentState::occluded)
        plot.line({entry.lost_mm[0], entry.lost_mm[1]}, {0, 0}, run_colour(r), 3.4, "stroke-dasharray=\"7 5\"");
    return plot.svg("Calibre along segment " + std::to_string(segment.id));
  }
  /// Tinted once, however many runs are narrow there.
  void shade_narrow(const SegmentTimeline& segment, Plot& plot) const {
    std::vector<std::array<double, 2>> narrow;
    for (const TimelineEntry& entry : segment.entries)
      if (entry.state == SegmentState::occluded)
        narrow.push_back(entry.lost_mm);
      else if (stands_out(entry, thresholds_))
        for (const Narrowing& narrowing : entry.change.narrowings)
          if (narrowing.percent >= thresholds_.narrowing_percent) narrow.push_back({narrowing.from_mm, narrowing.to_mm});
    std::sort(narrow.begin(), narrow.end());
    for (std::size_t i = 0; i < narrow.size();) {
      auto [from, to] = narrow[i];
      for (++i; i < narrow.size() && narrow[i][0] <= to; ++i) to = std::max(to, narrow[i][1]);
      plot.shade(std::max(from, 0.0), std::min(to, segment.length_mm), "#fdf0e4");
    }
  }
  /// Reference times ratio, bin by bin; a gap where bins are not neighbours.
  void calibre_of(const SegmentTimeline& segment, const TimelineEntry& entry, std::vector<double>& arc,
                  std::vector<double>& calibre) const {
    const CalibreChange& change = entry.change;
    std::size_t at = 0;
    for (std::size_t b = 0; b < change.arc_mm.size(); ++b) {
      while (at + 1 < segment.arc_mm.size() && segment.arc_mm[at + 1] <= change.arc_mm[b]) ++at;
      const double reference = segment.reference_mm[at];
      if (b > 0 && change.arc_mm[b] - change.arc_mm[b - 1] > 2.5 * change.bin_mm) {
        arc.push_back(change.arc_mm[b]);
        calibre.push_back(nan);
      }
      arc.push_back(change.arc_mm[b]);
      const bool lost = entry.state == SegmentState::occluded && change.arc_mm[b] > entry.lost_mm[0] && change.arc_mm[b] < entry.lost_mm[1];
      calibre.push_back(reference > 0 && !lost ? reference * std::exp(change.ratio_log[b]) : nan);
    }
  }

  /// One bar per run, in the colours of the pictures.
  std::string lanes(const SegmentTimeline& segment) const {
    const double height = lane_height * static_cast<double>(run_count()) + 4;
    const double left = along_margins.left, right = along_width - along_margins.right;
    const auto x = [&](double mm) { return left + mm / std::max(segment.length_mm, 1e-3) * (right - left); };
    std::string svg = "<svg class=plot role=img aria-label=\"Where each run is narrower\" viewBox=\"0 0 " + coordinate(along_width) + " " +
                      coordinate(height) + "\">";
    for (std::size_t r = 0; r < run_count(); ++r) {
      const double y = lane_height * (static_cast<double>(r) + 0.5);
      svg += "<text class=lane x=" + coordinate(left - 6) + " y=" + coordinate(y + 4) + " text-anchor=end style=\"fill:" + run_colour(r) +
             ";font-weight:700\">" + std::to_string(r + 1) + "</text>";
      const auto stretches = narrow_stretches(segment, r, comparison_.runs[r].comparable, thresholds_);
      if (stretches.empty())
        svg += "<text class=lane x=" + coordinate(left + 4) + " y=" + coordinate(y + 4) + ">" +
               (comparison_.runs[r].comparable ? "out of view" : "not comparable") + "</text>";
      for (const NarrowStretch& stretch : stretches) {
        const double from = x(segment.arc_mm[stretch.first]), to = x(segment.arc_mm[stretch.last]);
        const Stroke stroke = stroke_of(stretch.narrowness);
        if (stretch.narrowness == Narrowness::shut)
          svg += "<rect x=" + coordinate(from) + " y=" + coordinate(y - 4.5) + " width=" + coordinate(std::max(1.0, to - from)) +
                 " height=9 fill=\"url(#shut)\" stroke=#c2189e stroke-width=.8 />";
        else
          svg += "<path d=\"M" + coordinate(from) + " " + coordinate(y) + "H" + coordinate(std::max(to, from + 1)) + "\" " +
                 attributes({stroke.colour, stroke.dashes, 1.4 * stroke.width, ""}) + "/>";
      }
    }
    return svg + "</svg>";
  }

  std::string over_time(const SegmentTimeline& segment) const {
    const auto runs = static_cast<double>(run_count());
    double highest = 115;
    for (const TimelineEntry& entry : segment.entries)
      if (entry.change.known && entry.ci95) highest = std::max(highest, std::min(180.0, (*entry.ci95)[1] + 5));
    // As high as the left figure, which is 1.75 times as wide.
    const double height = (254 + lane_height * runs) * 1.01;
    Plot plot(440, height, 0.4, runs + 0.6, 0, highest, "", "calibre, % of the reference’s", {40, 58, 20, 60}, false);
    const std::string right = coordinate(plot.right() + 4);
    const auto grade = [&](double percent, const std::string& words) {
      plot.level(100 - percent, "stroke=#a35200 stroke-width=1 stroke-dasharray=\"4 3\" stroke-opacity=.7");
      plot.raw("<text x=" + right + " y=" + coordinate(plot.y(100 - percent) + 4) + ">" + words + "</text>");
    };
    plot.level(100, "stroke=#1c2228 stroke-width=1.4");
    grade(thresholds_.narrowing_percent, "− " + fixed(thresholds_.narrowing_percent, 0) + " %");
    grade(thresholds_.mild_percent, "mild");
    grade(thresholds_.severe_percent, "severe");
    std::vector<double> at, narrowest;
    for (std::size_t r = 0; r < run_count(); ++r) {
      at.push_back(static_cast<double>(r + 1) - beside);
      const TimelineEntry& entry = segment.entries[r];
      narrowest.push_back(entry.state == SegmentState::occluded ? 0 : entry.change.known ? 100 - entry.change.largest.percent : nan);
    }
    plot.line(at, narrowest, "#b4bcc4", 1.2);
    for (std::size_t r = 0; r < run_count(); ++r) {
      time_tick(plot, r, static_cast<double>(r + 1));
      column_of(plot, segment.entries[r], r, static_cast<double>(r + 1));
    }
    return plot.svg("Calibre of segment " + std::to_string(segment.id) + " over the runs");
  }

  void time_tick(Plot& plot, std::size_t r, double column) const {
    const std::string x = coordinate(plot.x(column));
    const double y = plot.bottom();
    // Words of neighbours would meet: every second one stands lower.
    const double drop = run_count() > 4 && r % 2 == 1 ? 11 : 0;
    plot.raw("<line class=axis x1=" + x + " x2=" + x + " y1=" + coordinate(y) + " y2=" + coordinate(y + 4) +
             " /><text text-anchor=middle x=" + x + " y=" + coordinate(y + 16) + " style=\"font-weight:700;fill:" + run_colour(r) + "\">" +
             std::to_string(r + 1) + "</text><text text-anchor=middle x=" + x + " y=" + coordinate(y + 28 + drop) +
             " style=\"font-size:10px\">" + short_event(r) + "</text>");
    const std::string gap = r > 0 ? time_between(run(r - 1).acquired, run(r).acquired) : "";
    if (!gap.empty())
      plot.raw("<text text-anchor=middle x=" + coordinate(plot.x(column - 0.5)) + " y=" + coordinate(y + 56) +
               " style=\"font-size:10px\">" + gap + "</text>");
  }

  void column_of(Plot& plot, const TimelineEntry& entry, std::size_t r, double column) const {
    const ComparedRunSummary& summary = comparison_.runs[r];
    const std::string colour = run_colour(r);
    const auto words = [&](const std::string& text, double above) {
      const std::string x = coordinate(plot.x(column) + 4), y = coordinate(plot.bottom() - above);
      plot.raw("<text x=" + x + " y=" + y + " transform=\"rotate(-90 " + x + " " + y + ")\" class=over>" + text + "</text>");
    };
    if (!summary.comparable) return words("not comparable", 8);
    if (entry.state == SegmentState::out_of_view) return words("out of view", 8);
    if (entry.state == SegmentState::not_filled) return words("not filled", 8);
    if (entry.state == SegmentState::occluded) {
      plot.raw("<path stroke=#c2189e stroke-width=2.6 d=\"M" + coordinate(plot.x(column - beside) - 5) + " " + coordinate(plot.y(0) - 5) +
               "l10 10m0 -10l-10 10\"/>");
      return words("no contrast", 12);
    }
    if (!entry.change.known) return words("not measured", 8);
    const Narrowing& n = entry.change.largest;
    plot.raw(stands_out(entry, thresholds_) && !entry.doubt.empty() ? "<g opacity=.4>" : "<g>");
    if (entry.percent_of_reference && entry.ci95)
      bar(plot, column + beside, *entry.percent_of_reference, (*entry.ci95)[0], (*entry.ci95)[1], colour, true);
    bar(plot, column - beside, 100 - n.percent, 100 - n.ci95[1], 100 - n.ci95[0], colour, false);
    if (entry.bounded)
      plot.raw("<path fill=none stroke=\"" + colour + "\" stroke-width=1.5 d=\"M" + coordinate(plot.x(column - beside)) + " " +
               coordinate(plot.y(100 - n.percent)) + "v15m-4 -5l4 5l4 -5\"/>");
    plot.raw("</g>");
  }
  static constexpr double beside = 0.14;  ///< of a column: the narrowest stands left of the mean
  static void bar(Plot& plot, double column, double value, double low, double high, const std::string& colour, bool open) {
    const std::string x = coordinate(plot.x(column));
    plot.raw("<line stroke=\"" + colour + "\" stroke-width=1.5 x1=" + x + " x2=" + x + " y1=" + coordinate(plot.y(low)) +
             " y2=" + coordinate(plot.y(high)) + " /><circle cx=" + x + " cy=" + coordinate(plot.y(value)) +
             " r=" + (open ? "3.2" : "4.2") + " stroke=\"" + colour + "\" stroke-width=1.5 fill=\"" + (open ? "#fff" : colour) + "\"/>");
  }

  // ---- flow ----

  void flow() {
    std::vector<std::size_t> findings, rest;
    for (const std::size_t s : shown_)
      if (has_flow(s)) findings.push_back(s);
    for (const std::size_t s : others_)
      if (has_flow(s)) rest.push_back(s);
    const std::string foot = foot_rows();
    if (findings.empty() && rest.empty() && foot.empty()) return;
    page_ +=
        "<h2>Flow beside calibre</h2><p class=lead>Arrival of contrast after the run’s first arrival anywhere; transit velocity; area "
        "under the time-density curve over the inlet’s. " +
        std::string(foot.empty() ? "" : "First, the foot as a whole. ") +
        "Injections differ from run to run: figures tell most within one run.</p>";
    if (!findings.empty() || !foot.empty()) flow_table(foot, findings);
    if (!rest.empty()) {
      page_ += "<details class=others" + std::string(findings.empty() ? " open" : "") + "><summary>" +
               (findings.empty() ? "All segments" : "The other " + count(rest.size(), "segment", "segments")) + "</summary>";
      flow_table("", rest);
      page_ += "</details>";
    }
    page_ += "\n";
  }
  bool has_flow(std::size_t s) const {
    const auto& entries = comparison_.segments[s].entries;
    return std::any_of(entries.begin(), entries.end(),
                       [](const TimelineEntry& entry) { return entry.arrival_ms || entry.velocity_mm_s || entry.auc_relative_to_inlet; });
  }
  void flow_table(const std::string& first_rows, const std::vector<std::size_t>& segments) {
    page_ += "<div class=scroll><table class=flow><thead><tr><th class=l>" + std::string(first_rows.empty() ? "Segment" : "");
    for (std::size_t r = 0; r < run_count(); ++r) page_ += "<th>" + badge(r) + "<small>" + short_event(r) + "</small>";
    page_ += "</thead><tbody>" + first_rows;
    for (const std::size_t s : segments) {
      const SegmentTimeline& segment = comparison_.segments[s];
      page_ += "<tr><td class=\"l name\">" + chip(segment.id) + " " + name(segment);
      for (std::size_t r = 0; r < run_count(); ++r) flow_cell(segment.entries[r], r);
    }
    page_ += "</tbody></table></div>";
  }
  /// What is known of the foot as a whole and of the user's regions: rows of the table, without those of which no run knows anything.
  std::string foot_rows() const {
    std::string rows = foot_row("Pedal arch filled", [&](std::size_t r) { return arch(run(r).analysis); }) +
                       foot_row("Share stolen before the arch", [&](std::size_t r) { return steal(run(r).analysis.flow); }) +
                       foot_row("Early venous return", [&](std::size_t r) {
                         const std::size_t n = run(r).analysis.flow.early_venous_return.size();
                         return n > 0 ? count(n, "segment", "segments") : std::string();
                       });
    std::set<std::string> names;
    for (const ComparedRun& one : given_)
      for (const RegionFlow& region : one.analysis.flow.regions) names.insert(region.name);
    for (const std::string& region : names)
      rows += foot_row("Region “" + escape_html(region) + "”", [&](std::size_t r) { return blush(run(r).analysis, region); });
    return rows;
  }
  template <class Cell>
  std::string foot_row(const std::string& title, Cell cell) const {
    std::string row = "<tr><td class=\"l name\"><b>" + title + "</b>";
    bool known = false;
    for (std::size_t r = 0; r < run_count(); ++r) {
      const std::string text = cell(r);
      known = known || !text.empty();
      row += text.empty() ? "<td class=none>–" : "<td>" + text;
    }
    return known ? row : "";
  }
  static std::string arch(const Analysis& analysis) {
    if (!analysis.flow.arch_filled) return "";
    if (!*analysis.flow.arch_filled) return "no";
    const std::optional<double> first = first_arrival(analysis);
    return "yes" + (analysis.flow.arch_arrival_ms && first
                        ? "<small>+ " + fixed((*analysis.flow.arch_arrival_ms - *first) / 1000, 2) + " s</small>"
                        : std::string());
  }
  static std::string steal(const FlowSummary& flow) {
    if (!flow.steal_fraction) return "";
    return fixed(100 * *flow.steal_fraction, 0) + (flow.steal_sd ? " ± " + fixed(100 * *flow.steal_sd, 0) : std::string()) + " %";
  }
  static std::string blush(const Analysis& analysis, const std::string& name) {
    const std::optional<double> first = first_arrival(analysis);
    for (const RegionFlow& region : analysis.flow.regions) {
      if (region.name != name) continue;
      std::string text;
      if (region.times.arrival_ms && first) text = "+ " + fixed((*region.times.arrival_ms - *first) / 1000, 2) + " s";
      if (region.times.peak) text += "<small>peak " + fixed(region.times.peak, 3) + "</small>";
      if (region.auc_relative_to_inlet) text += "<small>area " + fixed(region.auc_relative_to_inlet, 2) + "</small>";
      return text;
    }
    return "";
  }
  void flow_cell(const TimelineEntry& entry, std::size_t r) {
    const std::optional<double> first = first_arrival(run(r).analysis);
    std::string small;
    if (entry.velocity_mm_s)
      small +=
          std::string(velocity_is_bound(entry, r) ? "≥ " : "") + fixed(entry.velocity_mm_s, 0) + (comparison_.calibrated ? " mm/s" : "");
    if (entry.auc_relative_to_inlet) small += (small.empty() ? "" : " · ") + std::string("area ") + fixed(entry.auc_relative_to_inlet, 2);
    if (!entry.arrival_ms && small.empty()) {
      page_ += "<td class=none>–";
      return;
    }
    page_ += "<td>" + (entry.arrival_ms && first ? "+ " + fixed((*entry.arrival_ms - *first) / 1000, 2) + " s" : std::string("–")) +
             "<small>" + small + "</small>";
  }
  static std::optional<double> first_arrival(const Analysis& analysis) {
    std::optional<double> first;
    for (const SegmentResult& segment : analysis.segments)
      if (const auto& at = segment.flow.times.arrival_ms) first = std::min(first.value_or(*at), *at);
    return first;
  }
  /// A velocity without an SD is what the flow exceeds.
  bool velocity_is_bound(const TimelineEntry& entry, std::size_t r) const {
    for (const SegmentResult& segment : run(r).analysis.segments)
      if (segment.id == entry.segment) return segment.flow.velocity_is_lower_bound || !segment.flow.velocity_sd_mm_s;
    return false;
  }

  // ---- what cannot be said ----

  void limits() {
    page_ += "<h2>What cannot be said, and why</h2><ul class=limits>";
    for (std::size_t r = 0; r < run_count(); ++r)
      if (!comparison_.runs[r].comparable)
        page_ += "<li>" + badge(r) + " says nothing of the calibres: " + escape_html(why_not(comparison_.runs[r])) + ".";
    unjudged();
    unmatched();
    common_factor();
    if (std::any_of(comparison_.segments.begin(), comparison_.segments.end(),
                    [](const SegmentTimeline& segment) { return segment.label == "spasm, not yet settled"; }))
      page_ += "<li><b>Not yet settled</b> means just that: spasm and an occlusion that is coming look alike until a later run.";
    page_ +=
        "<li>Contrast that another way has stolen, or that has not come yet, looks like a narrow vessel. Segments that fail the gates of "
        "filling are called not filled and are not graded.";
    page_ += "<li>Among the segments that are called narrowed, up to " + fixed(100 * thresholds_.false_discovery_rate, 0) +
             " % are expected to be called so by chance.";
    page_ += "<li>Below " + fixed(thresholds_.measurable_mm, 1) +
             " mm a lumen is not measured but bounded (≥): how much is left cannot be said, nor told from nothing by its calibre alone.";
    page_ +=
        "<li>Grades of spasm have been validated in no vein of the foot. What a drug, a balloon or time did is seen here only as what "
        "came after it.</ul>\n";
  }

  void unjudged() {
    std::string rows;
    std::size_t segments = 0;
    for (const SegmentTimeline& segment : comparison_.segments) {
      std::map<std::string, std::vector<int>> runs_of;  // by label and reason
      for (std::size_t r = 0; r < run_count(); ++r) {
        const TimelineEntry& entry = segment.entries[r];
        if (!comparison_.runs[r].comparable || is_finding(entry.label_now) || entry.label_now == "no change") continue;
        std::string why = entry.doubt.empty() ? entry.note : entry.doubt;
        if (why.empty() && !entry.reasons.empty()) why = entry.reasons.back();
        const std::string what = entry.state == SegmentState::measured ? entry.label_now : to_string(entry.state);
        runs_of[what + (why.empty() ? "" : ": " + why)].push_back(static_cast<int>(r) + 1);
      }
      segments += !runs_of.empty();
      bool first = true;
      for (const auto& [why, runs] : runs_of) {
        rows +=
            "<tr><td>" + (first ? chip(segment.id) + " " + name(segment) : "") + "<td>run " + number_list(runs) + "<td>" + escape_html(why);
        first = false;
      }
    }
    if (segments > 0)
      page_ += "<li>" + count(segments, "segment", "segments") +
               " could not be judged in one run or more: not filled, out of view, not measured, or in between."
               "<details class=why><summary>Which, where and why</summary><div class=scroll><table>" +
               rows + "</table></div></details>";
  }

  void unmatched() {
    std::string text;
    for (const ComparedRunSummary& summary : comparison_.runs)
      if (!summary.unmatched.empty())
        text += (text.empty() ? "" : ", ") + badge(static_cast<std::size_t>(summary.index)) + " " +
                count(summary.unmatched.size(), "segment", "segments");
    if (!text.empty())
      page_ += "<li>Vessels that the reference does not show are compared with nothing: " + text + ". They stand in each run’s own report.";
  }

  void common_factor() {
    double largest = 0;
    std::size_t at = 0;
    for (std::size_t r = 0; r < run_count(); ++r)
      if (std::abs(comparison_.runs[r].scale_offset) > std::abs(largest)) largest = comparison_.runs[r].scale_offset, at = r;
    page_ +=
        "<li>What all segments of a run share is taken for magnification, dose or the model’s part, not for a change of the vessels: a "
        "narrowing that spares no segment would be hidden to that extent.";
    if (largest != 0) page_ += " The largest such factor is × " + fixed(std::exp(largest), 3) + ", in run " + std::to_string(at + 1) + ".";
  }

  // ---- how it was made ----

  void made() {
    page_ += "<h2>How each figure was made</h2><dl class=made>";
    const auto entry = [&](const char* term, const std::string& text) { page_ += "<dt>" + std::string(term) + "<dd>" + text; };
    const ComparisonThresholds& t = thresholds_;
    const auto number = [](double value, int decimals = 0) { return fixed(value, decimals); };
    entry("Order, reference", "Runs stand in the order of their acquisition times. The reference is run " +
                                  std::to_string(comparison_.reference + 1) + ": " + escape_html(comparison_.reference_note) +
                                  ". Another angulation by more than " + number(t.angulation_deg) +
                                  "° is another projection and is not compared.");
    entry("Registration",
          "Each run’s contrast-free picture is laid on the reference’s: similarity, then affine, then a smooth displacement, on bone; "
          "devices "
          "that one picture shows count little. Correlation is of the two pictures after that, agreement the share of the field that "
          "correlates by itself. Vessels then refine it.");
    entry("Matching",
          "Segments are matched by place, direction and neighbours, with none as an answer too; arc length is aligned along each.");
    entry("Calibre",
          "Each run’s own profile, pooled over its opacified frames, over the reference’s at the same place of the vessel, focal "
          "narrowings of the reference bridged. A factor that all segments of a run share is taken out.");
    entry("Narrowing", "Posterior median of the calibre lost at the narrowest place, over " + number(CalibreChangeOptions{}.window_mm, 1) +
                           " " + unit_ +
                           ": a Gaussian process with a long and a short length scale, mixed with “no change”. Extent: where more "
                           "than 25 % is lost. Lines along the vessel are its mean.");
    entry("Significant", "The largest set of segments in a run whose expected share of false ones is at most " +
                             number(100 * t.false_discovery_rate) + " %. “No change” is said where P(narrowing &gt; " +
                             number(t.narrowing_percent) + " %) is below " + number(t.no_change_probability, 2) + ".");
    entry("Spasm", "At least " + number(t.mild_percent) + " % over more than " + number(t.spasm_extent_mm) + " mm. Mild to " +
                       number(t.severe_percent) + " %, severe from there (axillary vein, Europace 2012: an extrapolation). " +
                       number(t.narrowing_percent) + "–" + number(t.mild_percent) + " %: narrowing below spasm grade.");
    entry("Recovery, response",
          "(calibre after − calibre in spasm) / (reference − calibre in spasm). Relieved: at least " + number(t.recovery, 1) +
              ", more than the least significant change, and less than " + number(t.mild_percent) +
              " % left. Response over all segments: refractory where every recovery is below " + number(t.refractory_recovery, 1) +
              ". Runs within " + number(t.procedure_hours) + " h are one procedure. Our own proposal, not clinically validated.");
    entry("Fixed, valve", "Not longer than " + number(t.spasm_extent_mm) + " mm, at the same site (" + number(t.same_site_mm) +
                              " mm) and of the same size (" + number(t.same_size_percent) +
                              " %) across runs: fixed stenosis. Shorter than " + number(t.notch_extent_mm) +
                              " mm at half its depth, and gone after a balloon: valve remnant.");
    entry("Occlusion", "No contrast over " + number(t.occluded_mm) + " mm or more, " + number(t.arrival_sds) +
                           " SDs after it should have come. A vessel that opens again without a balloon was shut by spasm.");
    entry("Extent of spasm", "Focal: one segment under " + number(t.focal_mm) + " mm. Diffuse: " + std::to_string(t.diffuse_segments) +
                                 " segments or more, or two of " + number(t.diffuse_mm) + " mm in all. Segmental: between.");
    entry("Then and now", "Then: what this run and those before it allow to say. Now: what all runs say of it.");
    entry("Flow",
          "Arrival: gamma-variate fit of the time-density curve, else half of its rise. Velocity: transit along the segment; ≥ is a "
          "lower bound. Area: over the inlet’s.");
    page_ += "</dl>\n";
  }

  void footer() {
    page_ += "<footer><p class=warn>Research software, not a medical device.</p><p>CineLumen " + escape_html(software_version()) + " (" +
             escape_html(software_commit()) + ").</p>";
    for (std::size_t r = 0; r < run_count(); ++r) {
      const RunDescription& d = run(r).description;
      page_ += "<p>Run " + std::to_string(r + 1) + ": " + escape_html(std::filesystem::path(d.path).filename().string());
      if (!d.series_description.empty()) page_ += ", “" + escape_html(d.series_description) + "”";
      if (!d.sha256.empty()) page_ += ", SHA-256 " + escape_html(d.sha256);
      page_ += "</p>";
    }
    page_ += "<p>Beside this page: comparison.json (everything above), comparison.csv (one row per segment and run).</p></footer>\n";
  }

  const Comparison& comparison_;
  const std::vector<ComparedRun>& given_;
  const std::vector<std::string>& folders_;
  const ComparisonThresholds& thresholds_;
  std::string unit_;
  const Analysis& reference_;
  std::vector<std::size_t> shown_, others_;  ///< indices of segments: with a finding, gravest first; and without
  std::string page_;
};

}  // namespace

std::string comparison_report(const Comparison& comparison, const std::vector<ComparedRun>& runs, const std::vector<std::string>& folders) {
  return TimelinePage(comparison, runs, folders).html();
}

}  // namespace cinelumen
