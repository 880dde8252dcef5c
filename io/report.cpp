#include "io/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <limits>
#include <numeric>

#include "io/page.h"

namespace cinelumen {
namespace {

using page::coordinate, page::count, page::data_uri, page::date, page::decimals_for, page::fixed, page::Plot, page::sentence, page::ticks;

constexpr std::size_t most_profiles = 24;  // small multiples beyond these would not be read
constexpr std::size_t most_curves = 10;
constexpr int picture_side = 1024;
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// How the frames were laid on the mask, in words.
std::string registration_words(const SubtractionSummary& subtraction) {
  std::string moved =
      "The mask was moved onto each frame by a robust sub-pixel fit that takes added attenuation for contrast, not for error, so that "
      "vessels filling do not pull it.";
  if (subtraction.registration == Registration::none) return "None: the mask was subtracted where it lay.";
  if (subtraction.registration == Registration::rigid) return moved;
  std::vector<double> residual;
  double largest = 0;
  int refused = 0;
  for (const FrameSubtraction& frame : subtraction.frames) {
    residual.push_back(frame.residual_motion_px);
    largest = std::max(largest, frame.displacement_largest_px);
    refused += frame.field_refused;
  }
  std::sort(residual.begin(), residual.end());
  std::string text = moved + " Then it was bent by a smooth displacement, fitted in the same way, of up to " + fixed(largest, 2) + " px";
  const double left = residual.empty() ? 0 : residual[residual.size() / 2];
  if (left > 0)
    text += "; what is left moves by " + fixed(left, 3) + " px (median over frames, rms)";
  else if (!residual.empty())
    text += "; motion that is left can't be told from noise";
  text += ".";
  if (refused > 0)
    text += " In " + std::to_string(refused) + (refused == 1 ? " frame" : " frames") +
            " the displacement would have folded the picture: there it was refused, and the mask only moved.";
  return text;
}

/// "1-8, 12" of 0-based frames.
std::string frame_list(std::vector<int> frames) {
  std::sort(frames.begin(), frames.end());
  std::string text;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    std::size_t last = i;
    while (last + 1 < frames.size() && frames[last + 1] == frames[last] + 1) ++last;
    text += (text.empty() ? "" : ", ") + std::to_string(frames[i] + 1);
    if (last > i) text += (last > i + 1 ? "–" : ", ") + std::to_string(frames[last] + 1);
    i = last;
  }
  return text;
}

/// The page, part by part. Lengths are mm where calibrated, else px.
class Page {
 public:
  Page(const Run& run, const Analysis& analysis, const ReportInput& input)
      : run_(run),
        analysis_(analysis),
        input_(input),
        calibrated_(analysis.calibration.known()),
        scale_(calibrated_ ? analysis.calibration.mm_per_px : 1),
        unit_(calibrated_ ? "mm" : "px"),
        timed_(!analysis.frame_times_ms.empty()) {
    longest_.resize(analysis.segments.size());
    std::iota(longest_.begin(), longest_.end(), std::size_t{0});
    std::stable_sort(longest_.begin(), longest_.end(),
                     [&](std::size_t a, std::size_t b) { return analysis.segments[a].length > analysis.segments[b].length; });
  }

  std::string html() {
    page_ = page::head(escape_html(file_name()));
    header();
    page_ += "<main>\n";
    facts();
    page_ += page::warnings_box(analysis_.warnings);
    pictures();
    findings();
    table();
    profiles();
    filling();
    motion();
    steps();
    made();
    page_ += "</main>\n";
    footer();
    page_ += page::tail();
    return std::move(page_);
  }

 private:
  std::string file_name() const { return std::filesystem::path(run_.description.path).filename().string(); }
  std::string chip(int id) const {
    return "<span class=chip style=\"background:" + to_hex(segment_colour(id)) + "\">" + std::to_string(id) + "</span>";
  }
  /// The segment's name, escaped; empty where it is nothing but its number.
  static std::string name(const SegmentResult& segment) {
    return segment.name == "segment " + std::to_string(segment.id) ? "" : escape_html(segment.name);
  }
  /// x positions of the analysed frames: seconds where times are known, else frame numbers.
  std::vector<double> frame_axis() const {
    std::vector<double> axis;
    for (int i = 0; i < analysis_.frames; ++i) {
      const bool known = i < static_cast<int>(analysis_.frame_times_ms.size());
      axis.push_back(timed_ ? (known ? analysis_.frame_times_ms[i] / 1000 : nan) : analysis_.first_frame + i + 1);
    }
    return axis;
  }
  std::string axis_label() const { return timed_ ? "time, s" : "frame"; }

  void header() {
    const RunDescription& d = run_.description;
    const std::string title = d.series_description.empty() ? file_name() : d.series_description;
    page_ += "<header class=page><div><p class=eyebrow>CineLumen – analysis of one angiographic run</p><h1>" + escape_html(title) + "</h1>";
    std::string where = escape_html(file_name());
    const auto add = [&](const std::string& text) {
      if (!text.empty()) where += " · " + text;
    };
    if (!d.acquired.empty()) add("acquired " + date(d.acquired));
    add(escape_html(d.study_description));
    std::string part = d.body_part;
    if (!d.laterality.empty()) part += (part.empty() ? "" : " ") + d.laterality;
    add(escape_html(part));
    add(escape_html(d.manufacturer + (d.manufacturer.empty() || d.model.empty() ? "" : " ") + d.model));
    page_ += "<p class=where>" + where + "</p></div>";
    if (const std::string patient = page::patient(d); !patient.empty()) page_ += "<div class=patient>" + patient + "</div>";
    page_ += "</header>\n" + page::notice();
  }

  void fact(const std::string& label, const std::string& value, const std::string& more) {
    page_ +=
        "<div class=fact><div class=label>" + label + "</div><div class=value>" + value + "</div><div class=more>" + more + "</div></div>";
  }

  void facts() {
    page_ += "<div class=facts>";
    std::string span;
    if (analysis_.frame_times_ms.size() > 1) {
      const double seconds = (analysis_.frame_times_ms.back() - analysis_.frame_times_ms.front()) / 1000;
      span = fixed(seconds, seconds < 10 ? 1 : 0) + " s";
      if (seconds > 0) span += ", " + fixed(double(analysis_.frame_times_ms.size() - 1) / seconds, 1) + " frames/s";
    } else if (analysis_.frames > 1) {
      span = "frame times unknown";
    } else {
      span = "a single picture";
    }
    fact("Frames", std::to_string(analysis_.frames) + " <small>of " + std::to_string(run_.frame_count()) + "</small>",
         std::to_string(run_.columns()) + " × " + std::to_string(run_.rows()) + " px, " + span);

    std::size_t measured = 0;
    double length = 0;
    for (const SegmentResult& segment : analysis_.segments) {
      measured += segment.diameter.median.has_value();
      length += segment.length;
    }
    fact("Vessel segments", std::to_string(analysis_.segments.size()),
         std::to_string(measured) + " with diameters, " + fixed(length, 0) + " " + unit_ + " in all");

    const Calibration& c = analysis_.calibration;
    if (calibrated_)
      fact("Calibration", fixed(c.mm_per_px, 4) + " <small>mm/px</small>",
           "± " + fixed(100 * c.relative_sd, 1) + " %, source: " + escape_html(to_string(c.source)));
    else
      fact("Calibration", "none", "every length below is in pixels");

    const MaskChoice& mask = analysis_.subtraction.mask;
    if (!analysis_.subtracted)
      fact("Mask", "none", "nothing was subtracted");
    else if (mask.frames().empty())
      fact("Mask", escape_html(to_string(mask.source)), mask.source == MaskSource::envelope ? "least attenuation over time" : "");
    else
      fact("Mask", (mask.frames().size() > 1 ? "frames " : "frame ") + frame_list(mask.frames()), escape_html(to_string(mask.source)));

    std::vector<double> residual;
    double farthest = 0;
    for (const FrameSubtraction& frame : analysis_.subtraction.frames) {
      if (std::isfinite(frame.residual_sd)) residual.push_back(frame.residual_sd);
      farthest = std::max(farthest, std::hypot(frame.shift_y_px, frame.shift_x_px));
    }
    if (!residual.empty() && analysis_.subtracted) {
      std::nth_element(residual.begin(), residual.begin() + static_cast<std::ptrdiff_t>(residual.size() / 2), residual.end());
      fact("Background left", fixed(residual[residual.size() / 2], 4) + " <small>log units</small>",
           analysis_.subtraction.registration != Registration::none
               ? "median SD, mask moved by up to " + fixed(farthest, 1) + " px" +
                     (analysis_.subtraction.registration == Registration::nonrigid ? std::string(", before it was bent") : std::string())
               : "median SD, mask not moved");
    }
    fact("Noise", analysis_.noise.log_sd_at_median > 0 ? fixed(analysis_.noise.log_sd_at_median, 4) + " <small>log units</small>" : "–",
         std::string("SD of one frame, ") + (analysis_.noise.temporal ? "from frame differences" : "from one frame's flat parts"));
    page_ += "</div>\n";
  }

  /// The segments as lines with numbers, in pixels of the mask.
  std::string segment_lines(bool numbers) const {
    const int rows = run_.rows(), columns = run_.columns();
    std::string svg, halos;
    for (const SegmentResult& segment : analysis_.segments) {
      std::string points;
      const auto& line = segment.centreline.points;
      const std::size_t stride = line.size() > 400 ? 3 : 2;
      for (std::size_t i = 0; i < line.size(); ++i)
        if (i % stride == 0 || i + 1 == line.size()) points += coordinate(line[i].x + 0.5) + "," + coordinate(line[i].y + 0.5) + " ";
      halos += "<polyline class=halo points=\"" + points + "\"/>";
      svg += "<polyline class=seg data-seg=" + std::to_string(segment.id) + " stroke=\"" + to_hex(segment_colour(segment.id)) +
             "\" points=\"" + points + "\"><title>" + std::to_string(segment.id) + (name(segment).empty() ? "" : " " + name(segment)) +
             "</title></polyline>";
      std::string inferred;
      for (std::size_t i = 0; i <= line.size(); ++i) {
        if (i < line.size() && line[i].inferred) {
          inferred += coordinate(line[i].x + 0.5) + "," + coordinate(line[i].y + 0.5) + " ";
        } else if (!inferred.empty()) {
          svg += "<polyline class=inferred points=\"" + inferred + "\"><title>inferred, not measured</title></polyline>";
          inferred.clear();
        }
      }
    }
    if (!numbers) return svg;
    const double radius = std::max(rows, columns) / 52.0;
    for (const SegmentLabel& label : place_labels(analysis_.segments, rows, columns, radius)) {
      const std::string colour = to_hex(segment_colour(label.id)), x = coordinate(label.x + 0.5), y = coordinate(label.y + 0.5);
      svg += "<g class=tag data-seg=" + std::to_string(label.id) + "><line x1=" + coordinate(label.anchor_x + 0.5) +
             " y1=" + coordinate(label.anchor_y + 0.5) + " x2=" + x + " y2=" + y + " stroke=\"" + colour +
             "\" stroke-width=" + coordinate(radius / 8) + " /><circle cx=" + x + " cy=" + y + " r=" + coordinate(radius) + " fill=\"" +
             colour + "\" stroke=#fff stroke-width=" + coordinate(radius / 7) + " /><text x=" + x + " y=" + y +
             " font-size=" + coordinate(radius * (label.id > 99 ? 0.9 : 1.15)) + ">" + std::to_string(label.id) + "</text></g>";
    }
    for (const Finding& finding : analysis_.findings)
      for (int line = 0; line < 2 && finding.narrowing_percent; ++line)
        svg += "<circle class=spot cx=" + coordinate(finding.at_px[1] + 0.5) + " cy=" + coordinate(finding.at_px[0] + 0.5) +
               " r=" + coordinate(radius * 1.2) + " />";
    return halos + svg;
  }
  /// True where vessels move, so that one frame stands for the run.
  bool one_frame() const { return analysis_.subtraction.topology_frame >= 0; }
  std::string view_box() const { return "0 0 " + std::to_string(run_.columns()) + " " + std::to_string(run_.rows()); }

  void pictures() {
    page_ +=
        "<h2>" + std::string(analysis_.subtracted ? "The vessels" : "The picture") + "</h2><p class=lead>" +
        (analysis_.subtracted
             ? (std::string(one_frame() ? "Left, the frame in which the vessels were traced"
                                        : "Left, the fullest each pixel became over the run") +
                ", with the segments that were found. Right, the run itself "
                "after subtraction. Point at a segment to see it everywhere on this page.")
             : std::string("Nothing was subtracted: the log image stands as it is, with the segments that were found. Point at a segment "
                           "to see it everywhere on this page.")) +
        "</p><div class=two>";
    const ImageView<const float> fullest = analysis_.maximum_opacification.view();
    if (!analysis_.maximum_opacification.empty()) {
      Image<std::uint8_t> grey(fullest.height, fullest.width);
      to_grey(fullest, input_.window, grey);
      page_ +=
          "<figure><div class=\"picture linked dims\"><img alt=\"Maximum opacification\" src=\"" +
          data_uri("image/jpeg", encode_jpeg(grey.view(), picture_side, 88)) + "\"><svg id=segments viewBox=\"" + view_box() + "\">" +
          segment_lines(true) +
          "</svg></div><div class=controls><label><input type=checkbox checked data-shows=segments> segments</label></div>"
          "<figcaption>" +
          (analysis_.subtracted ? (one_frame() ? "Frame " + std::to_string(analysis_.subtraction.topology_frame + 1) + " after subtraction"
                                               : std::string("Maximum opacification over ") +
                                                     count(static_cast<std::size_t>(analysis_.frames), "frame", "frames")) +
                                      ", in the coordinates of frame " + std::to_string(analysis_.subtraction.reference_frame + 1)
                                : "Log attenuation of frame " + std::to_string(analysis_.subtraction.reference_frame + 1)) +
          ". Vessels dark.</figcaption></figure>";
    }
    if (!input_.frames.empty()) loop();
    page_ += "</div>\n";
  }

  void loop() {
    std::size_t start = 0;
    double fullest = -std::numeric_limits<double>::infinity();
    std::string data = "<script>window.cinelumenLoop=[";
    for (std::size_t i = 0; i < input_.frames.size(); ++i) {
      const ReportFrame& frame = input_.frames[i];
      for (const FrameSubtraction& s : analysis_.subtraction.frames)
        if (s.frame == frame.frame && s.contrast_score > fullest) fullest = s.contrast_score, start = i;
      const bool next_known = i + 1 < input_.frames.size() && std::isfinite(input_.frames[i + 1].time_ms - frame.time_ms);
      std::string text = "frame " + std::to_string(frame.frame + 1);
      if (std::isfinite(frame.time_ms)) text += " · " + fixed(frame.time_ms / 1000, 2) + " s";
      if (analysis_.subtraction.registration != Registration::none && analysis_.subtracted)
        text += " · background " + fixed(frame.shift_y_px, 2) + " px down, " + fixed(frame.shift_x_px, 2) + " px right of the mask's";
      data += std::string(i ? "," : "") + "\n{src:\"" + data_uri("image/jpeg", frame.jpeg) + "\",text:\"" + text +
              "\",wait:" + coordinate(next_known ? input_.frames[i + 1].time_ms - frame.time_ms : 100) +
              ",dx:" + coordinate(std::isfinite(frame.shift_x_px) ? frame.shift_x_px : 0) +
              ",dy:" + coordinate(std::isfinite(frame.shift_y_px) ? frame.shift_y_px : 0) + "}";
    }
    data += "];</script>";
    page_ += "<figure><div class=\"picture linked dims\"><img id=frame alt=\"Frame of the run\" src=\"" +
             data_uri("image/jpeg", input_.frames[start].jpeg) + "\">";
    // Where the vessels move on their own, the mask's coordinates say nothing about this frame.
    const bool lines = !analysis_.subtraction.moving_vessels;
    if (lines)
      page_ += "<svg viewBox=\"" + view_box() + "\"><g id=loop-lines><g id=loop-segments>" + segment_lines(false) + "</g></g></svg>";
    page_ += "</div>";
    if (input_.frames.size() > 1)
      page_ +=
          "<div class=controls><button class=play id=play type=button>Play</button><input type=range id=slider aria-label=Frame min=0 "
          "max=" +
          std::to_string(input_.frames.size() - 1) + " value=" + std::to_string(start) + ">" +
          (lines ? "<label><input type=checkbox data-shows=loop-lines> segments</label>" : "") + "</div>";
    page_ += "<figcaption><span id=frame-caption></span>";
    if (static_cast<int>(input_.frames.size()) < analysis_.frames)
      page_ += "<br>" + std::to_string(input_.frames.size()) + " of " + std::to_string(analysis_.frames) +
               " frames, evenly spaced; all of them are in subtracted.dcm" + (input_.has_video ? " and overlay.mp4" : "") + ".";
    else if (input_.has_video)
      page_ += "<br>overlay.mp4 beside this page shows the measured lumen in each frame.";
    page_ += "</figcaption>" + data + "</figure>";
  }

  void findings() {
    page_ += "<h2>Findings</h2>";
    if (analysis_.findings.empty()) {
      page_ +=
          "<p class=lead>None is named. One run can't tell spasm from a fixed narrowing: that needs the same segments in a reference "
          "run. What was measured stands below.</p>\n";
      return;
    }
    page_ += "<ul class=\"findings linked\">";
    for (const Finding& finding : analysis_.findings) {
      page_ += "<li data-seg=" + std::to_string(finding.segment) + "><div>" + (finding.segment > 0 ? chip(finding.segment) : "") +
               "</div><div><b>" + escape_html(finding.label) + "</b>" + (finding.grade.empty() ? "" : ", " + escape_html(finding.grade));
      const bool wider = finding.narrowing_percent && *finding.narrowing_percent < 0;
      if (finding.narrowing_percent) page_ += ": " + fixed(std::abs(*finding.narrowing_percent), 0) + (wider ? " % wider" : " %");
      if (finding.onset_ms) page_ += ", from " + fixed(*finding.onset_ms / 1000, 2) + " s on";
      if (finding.ci95 && wider)
        page_ += " (95 % interval " + fixed(-(*finding.ci95)[1], 0) + " to " + fixed(-(*finding.ci95)[0], 0) + " %)";
      else if (finding.ci95)
        page_ += " (95 % interval " + fixed((*finding.ci95)[0], 0) + " to " + fixed((*finding.ci95)[1], 0) + " %)";
      if (finding.extent_mm) page_ += ", over " + fixed(finding.extent_mm, 1) + " mm";
      if (finding.probability) page_ += ", probability " + fixed(finding.probability, 2);
      page_ += ", at y " + fixed(finding.at_px[0], 0) + ", x " + fixed(finding.at_px[1], 0) + " px<ul>";
      for (const std::string& reason : finding.reasons) page_ += "<li>" + escape_html(reason) + "</li>";
      page_ += "</ul></div></li>";
    }
    page_ += "</ul>\n";
  }

  void table() {
    if (analysis_.segments.empty()) {
      page_ += "<h2>Segments</h2><p class=lead>No vessel was found that stands out of the noise.</p>\n";
      return;
    }
    const std::string unit = "<small>" + unit_ + "</small>";
    const auto any = [&](auto has) { return std::any_of(analysis_.segments.begin(), analysis_.segments.end(), has); };
    const bool named = any([](const SegmentResult& segment) { return !name(segment).empty(); });
    const bool timed = calibrated_ && any([](const SegmentResult& segment) { return segment.flow.velocity_mm_s.has_value(); });
    page_ += std::string("<h2>Segments</h2><div class=scroll><table class=linked><thead><tr><th class=l>No.") +
             (named ? "<th class=l>Name" : "") + "<th>Length" + unit + "<th>Median<br>diameter" + unit + "<th>Minimum" + unit +
             "<th>Reference" + unit +
             "<th>Stenosis<small>%</small><th class=l>Filling<th>Arrival<small>s</small><th>Time to "
             "peak<small>s</small><th>Transit<small>s</small>";
    if (timed) page_ += "<th>Velocity<small>mm/s</small>";
    page_ += "<th>Area under<br>curve<small>of the inlet's</small></thead><tbody>";
    const auto cell = [&](const std::string& text) { page_ += text == "–" ? "<td class=none>–" : "<td>" + text; };
    const auto scaled = [&](const std::optional<double>& value, int decimals = 2) {
      return fixed(value ? *value * scale_ : nan, decimals);
    };
    const auto seconds = [&](const std::optional<double>& ms) { return fixed(ms ? *ms / 1000 : nan, 2); };
    for (const SegmentResult& segment : analysis_.segments) {
      page_ += "<tr data-seg=" + std::to_string(segment.id) + "><td class=l>" + chip(segment.id) +
               (named ? "<td class=\"l name\">" + name(segment) : "");
      cell(fixed(segment.length, 1));
      const SegmentDiameter& d = segment.diameter;
      cell(d.median && d.sd ? scaled(d.median) + " ± " + scaled(d.sd, 3) : scaled(d.median));
      cell(scaled(d.minimum));
      cell(scaled(d.reference));
      cell(fixed(d.percent_stenosis, 0));
      page_ += "<td class=l>" + escape_html(segment.filling);
      cell(seconds(segment.flow.times.arrival_ms));
      cell(seconds(segment.flow.times.time_to_peak_ms));
      cell(seconds(segment.flow.times.mean_transit_ms));
      if (timed) {
        const auto& v = segment.flow.velocity_mm_s;
        std::string text = fixed(v, 0);
        if (v && segment.flow.velocity_sd_mm_s) text += " ± " + fixed(segment.flow.velocity_sd_mm_s, 1);
        cell(v && segment.flow.velocity_is_lower_bound ? "≥ " + text : text);
      }
      cell(fixed(segment.flow.auc_relative_to_inlet, 2));
    }
    page_ += "</tbody></table></div><p class=small>± is one standard deviation" +
             std::string(calibrated_ ? ", without that of the calibration (" + fixed(100 * analysis_.calibration.relative_sd, 1) +
                                           " % of every length, common to all)"
                                     : "") +
             ". A dash: not known, for a reason given under the profiles.</p>\n";
  }

  void profiles() {
    if (analysis_.segments.empty()) return;
    page_ +=
        "<h2>Lumen diameter along each segment</h2><p class=lead>Pooled over every opacified frame; the band is ± 1.96 standard "
        "deviations, without the calibration's. A gap was not measured, and why stands below it. Each scale begins at zero. "
        "Dashed: median; ring: minimum.</p><div class=\"multiples linked\">";
    std::vector<std::size_t> shown(longest_.begin(),
                                   longest_.begin() + static_cast<std::ptrdiff_t>(std::min(most_profiles, longest_.size())));
    std::sort(shown.begin(), shown.end());
    for (const std::size_t index : shown) profile(index);
    page_ += "</div>";
    if (longest_.size() > most_profiles)
      page_ += "<p class=small>The " + std::to_string(most_profiles) + " longest of " + std::to_string(longest_.size()) +
               " segments; lumen.csv has all.</p>";
    page_ += "\n";
  }

  void profile(std::size_t index) {
    const SegmentResult& segment = analysis_.segments[index];
    const auto& points = segment.profile.points;
    std::vector<double> along, diameter, low, high;
    const std::size_t stride = std::max<std::size_t>(1, points.size() / 250);
    for (std::size_t i = 0; i < points.size(); i += stride) {
      const bool known = points[i].sd_px > 0 && std::isfinite(points[i].diameter_px);
      along.push_back(points[i].arc_length_px * scale_);
      diameter.push_back(known ? points[i].diameter_px * scale_ : nan);
      low.push_back(known ? std::max(0.0, (points[i].diameter_px - 1.96 * points[i].sd_px) * scale_) : nan);
      high.push_back(known ? (points[i].diameter_px + 1.96 * points[i].sd_px) * scale_ : nan);
    }
    double highest = 0;
    for (const double value : high)
      if (value > highest) highest = value;
    const double length = std::max(segment.centreline.length_px() * scale_, 1e-3);
    Plot plot(360, 190, 0, length, 0, highest > 0 ? highest * 1.05 : 1, "along the segment, " + unit_, "diameter, " + unit_);
    const std::string colour = to_hex(segment_colour(segment.id));
    plot.band(along, low, high, colour);
    if (segment.diameter.median)
      plot.level(*segment.diameter.median * scale_, "stroke=\"" + colour + "\" stroke-dasharray=\"5 4\" stroke-opacity=.7");
    plot.line(along, diameter, colour, 1.8);
    if (segment.diameter.minimum) {
      double best = std::numeric_limits<double>::infinity(), at = nan;
      for (const DiameterProfile::Point& point : points) {
        const double distance = std::hypot(point.y_px - segment.diameter.minimum_at_px[0], point.x_px - segment.diameter.minimum_at_px[1]);
        if (distance < best) best = distance, at = point.arc_length_px * scale_;
      }
      if (std::isfinite(at)) {
        const double value = *segment.diameter.minimum * scale_, x = plot.x(at);
        plot.raw("<circle r=4 fill=#fff stroke-width=1.6 stroke=\"" + colour + "\" cx=" + coordinate(x) +
                 " cy=" + coordinate(plot.y(value)) + " />");
        const bool below = plot.y(value) + 18 < plot.bottom();
        plot.raw("<text class=strong text-anchor=\"" +
                 std::string(x < 80    ? "start"
                             : x > 310 ? "end"
                                       : "middle") +
                 "\" x=" + coordinate(x) + " y=" + coordinate(plot.y(value) + (below ? 17 : -9)) + ">" + fixed(value, calibrated_ ? 2 : 1) +
                 "</text>");
      }
    }
    page_ += "<figure data-seg=" + std::to_string(segment.id) + "><h3>" + chip(segment.id) + " " + name(segment) + " <small>" +
             fixed(segment.length, 0) + " " + unit_ + "</small>" + "</h3>" +
             plot.svg("Diameter along segment " + std::to_string(segment.id)) + "<p class=small>" + measured_share(index) + "</p></figure>";
  }

  std::string measured_share(std::size_t index) const {
    if (index >= input_.counts.size() || input_.counts[index].points == 0) return "";
    const MeasurementCount& c = input_.counts[index];
    const auto percent = [&](std::int64_t n) {
      const double share = 100.0 * double(n) / double(c.points);
      return n > 0 && share < 0.5 ? std::string("&lt; 1 %") : fixed(share, 0) + " %";
    };
    std::string text = percent(c.used) + " of points × frames measured";
    std::vector<std::pair<std::int64_t, std::string>> reasons;
    for (std::size_t i = 1; i < c.excluded.size(); ++i)
      if (c.excluded[i] > 0) {
        std::string reason = to_string(static_cast<Exclusion>(i));
        std::replace(reason.begin(), reason.end(), '_', ' ');
        reasons.emplace_back(c.excluded[i], escape_html(reason));
      }
    std::stable_sort(reasons.begin(), reasons.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    for (std::size_t i = 0; i < reasons.size(); ++i) text += (i ? ", " : "; not: ") + reasons[i].second + " " + percent(reasons[i].first);
    return text;
  }

  void filling() {
    if (analysis_.frames < 2 || analysis_.segments.empty()) return;
    page_ += "<h2>Filling over time</h2><p class=lead>When contrast reaches each place, and how much of it." +
             std::string(timed_ ? "" : " The file gives no usable frame times, so nothing here is in seconds.") + "</p><div class=two>";
    if (const auto picture = draw_time_to_peak(analysis_, input_.window, picture_side)) {
      page_ += "<figure><div class=picture><img alt=\"Time to peak\" src=\"" + data_uri("image/png", picture->png) + "\"></div>";
      std::string scale =
          "<svg class=plot role=img aria-label=\"Colours of the time to peak\" viewBox=\"0 0 520 40\"><defs><linearGradient id=times>";
      for (int i = 0; i <= 12; ++i)
        scale += "<stop offset=\"" + coordinate(i / 12.0) + "\" stop-color=\"" + to_hex(time_colour(i / 12.0)) + "\"/>";
      scale += "</linearGradient></defs><rect x=10 y=6 width=500 height=10 fill=\"url(#times)\"/>";
      const auto positions = ticks(picture->first_ms / 1000, picture->last_ms / 1000, 6);
      for (const double at : positions) {
        const double x = 10 + 500 * (at * 1000 - picture->first_ms) / (picture->last_ms - picture->first_ms);
        scale += "<line class=axis x1=" + coordinate(x) + " x2=" + coordinate(x) +
                 " y1=16 y2=20 /><text text-anchor=middle x=" + coordinate(x) + " y=32>" + fixed(at, decimals_for(positions)) +
                 (at == positions.back() ? " s" : "") + "</text>";
      }
      page_ += scale +
               "</svg><figcaption>Time from the run's first frame to each pixel's highest opacification; strength of colour: how "
               "full it became. The scale spans the middle 96 % of pixels.</figcaption></figure>";
    }
    curves();
    page_ += "</div>\n";
  }

  // What the run says of the arch, of steal and of early venous return; nothing of what could not be told.
  std::string flow_in_words() const {
    const FlowSummary& flow = analysis_.flow;
    std::string words;
    if (flow.arch_filled && flow.arch_arrival_ms)
      words += std::string("The pedal arch ") + (*flow.arch_filled ? "fills" : "fills in part") + ", from " +
               fixed(*flow.arch_arrival_ms / 1000, 2) + " s on. ";
    if (flow.steal_fraction && flow.steal_sd)
      words += "Of what enters the image " + fixed(100 * *flow.steal_fraction, 0) + " ± " + fixed(100 * *flow.steal_sd, 0) +
               " % does not go on to the arch. ";
    if (flow.early_venous_return.empty()) return words;
    words += "Early venous return, out of the image before the arch fills: segment";
    for (const int id : flow.early_venous_return) words += (id == flow.early_venous_return.front() ? " " : ", ") + std::to_string(id);
    return words + ". ";
  }

  void curves() {
    const std::vector<double> axis = frame_axis();
    double low = 0, high = 0;
    bool any = false;
    const auto widen = [&](const TimeDensityCurve& curve) {
      for (const double value : curve.contrast)
        if (std::isfinite(value)) low = std::min(low, value), high = std::max(high, value), any = true;
    };
    for (const SegmentResult& segment : analysis_.segments) widen(segment.flow.curve);
    for (const RegionFlow& region : analysis_.flow.regions) widen(region.curve);
    if (!any || axis.size() < 2) return;
    double first = std::numeric_limits<double>::infinity(), last = -first;
    for (const double at : axis)
      if (std::isfinite(at)) first = std::min(first, at), last = std::max(last, at);
    Plot plot(560, 400, first, last, low * 1.05, high * 1.08, axis_label(), "contrast, log units");
    std::string legend, marks;
    std::vector<std::size_t> shown;
    for (const std::size_t index : longest_)
      if (!analysis_.segments[index].flow.curve.contrast.empty() && shown.size() < most_curves) shown.push_back(index);
    for (const std::size_t index : longest_)
      if (std::find(shown.begin(), shown.end(), index) == shown.end())
        plot.line(axis, analysis_.segments[index].flow.curve.contrast, "#c9d0d6", 1);
    for (const RegionFlow& region : analysis_.flow.regions) {
      plot.line(axis, region.curve.contrast, "#1c2228", 1.6, "stroke-dasharray=\"2 4\"");
      legend += "<span><i class=swatch style=\"border-top-style:dotted;border-color:#1c2228\"></i>" + escape_html(region.name) + "</span>";
    }
    std::sort(shown.begin(), shown.end());
    for (const std::size_t index : shown) {
      const SegmentResult& segment = analysis_.segments[index];
      const std::string colour = to_hex(segment_colour(segment.id)), id = std::to_string(segment.id);
      plot.raw("<g data-seg=" + id + ">");
      plot.line(axis, segment.flow.curve.contrast, colour, 2);
      if (segment.flow.times.arrival_ms && timed_) {
        const double x = plot.x(*segment.flow.times.arrival_ms / 1000), y = plot.bottom();
        plot.raw("<path fill=\"" + colour + "\" d=\"M" + coordinate(x) + " " + coordinate(y) + "l-4.5 -9h9z\"/>");
      }
      plot.raw("</g>");
      legend += "<span data-seg=" + id + "><i class=swatch style=\"border-color:" + colour + "\"></i>" + id +
                (name(segment).empty() ? "" : " " + name(segment)) + "</span>";
    }
    page_ += "<figure class=\"linked dims\">" + plot.svg("Time-density curves") + "<div class=legend>" + legend +
             "</div><figcaption>Mean contrast of each segment" + std::string(analysis_.flow.regions.empty() ? "" : " and region") +
             ", corrected for the background's motion. Triangles: arrival. " +
             (analysis_.flow.inlet.empty() ? "" : "Areas under the curves are relative to " + escape_html(analysis_.flow.inlet) + ". ") +
             flow_in_words() +
             (analysis_.segments.size() > shown.size() ? "In colour: the " + std::to_string(shown.size()) + " longest of " +
                                                             std::to_string(analysis_.segments.size()) + " segments. "
                                                       : "") +
             "time_density.csv has the figures.</figcaption></figure>";
  }

  void motion() {
    const auto& frames = analysis_.subtraction.frames;
    if (frames.size() < 2 || !analysis_.subtracted) return;
    std::vector<double> number, down, right, residual, score;
    double reach = 0.1, most = 0, full = 0;
    for (const FrameSubtraction& frame : frames) {
      number.push_back(frame.frame + 1);
      down.push_back(frame.shift_y_px), right.push_back(frame.shift_x_px);
      residual.push_back(frame.residual_sd), score.push_back(frame.contrast_score);
      for (const double shift : {frame.shift_y_px, frame.shift_x_px})
        if (std::isfinite(shift)) reach = std::max(reach, std::abs(shift));
      if (std::isfinite(frame.residual_sd)) most = std::max(most, frame.residual_sd);
      if (std::isfinite(frame.contrast_score)) full = std::max(full, frame.contrast_score);
    }
    const double first = number.front(), last = number.back(), noise = analysis_.noise.log_sd_at_median;
    page_ +=
        "<h2>Motion and what subtraction left</h2><p class=lead>Shaded: the mask's frames. A frame whose residual stands out was "
        "subtracted badly; diameters measured in it carry that in their standard deviation.</p><div class=three>";
    const auto shade = [&](Plot& plot) {
      const auto& mask = analysis_.subtraction.mask;
      if (mask.frames().size() < 60)
        for (const int frame : mask.frames())
          if (frame + 1 >= first && frame + 1 <= last) plot.shade(std::max(first, frame + 0.5), std::min(last, frame + 1.5), "#eef1f4");
    };
    if (analysis_.subtraction.registration != Registration::none) {
      Plot plot(380, 210, first, last, -reach * 1.1, reach * 1.1, "frame", "shift, px");
      shade(plot);
      plot.level(0, "stroke=#9aa4ad");
      plot.line(number, down, "#0063aa", 1.8);
      plot.line(number, right, "#cc4c02", 1.8);
      page_ += "<figure>" + plot.svg("Shift per frame") +
               "<div class=legend><span><i class=swatch style=\"border-color:#0063aa\"></i>down</span><span><i class=swatch "
               "style=\"border-color:#cc4c02\"></i>right</span></div><figcaption>Where each frame's background lies relative to the "
               "mask.</figcaption></figure>";
    }
    Plot left(380, 210, first, last, 0, std::max(most, noise) * 1.15, "frame", "residual SD, log units");
    shade(left);
    if (noise > 0) left.level(noise, "stroke=#5a6570 stroke-dasharray=\"5 4\"");
    left.line(number, residual, "#008560", 1.8);
    page_ += "<figure>" + left.svg("Residual per frame") + "<figcaption>Standard deviation of the subtracted background" +
             (noise > 0 ? "; dashed: noise of one frame." : ".") + "</figcaption></figure>";
    Plot filled(380, 210, first, last, 0, std::max(1.0, full * 1.1), "frame", "contrast score, noise SD");
    shade(filled);
    filled.line(number, score, "#9e3a8a", 1.8);
    const int inflow = analysis_.subtraction.mask.inflow_frame;
    if (inflow + 1 >= first && inflow + 1 <= last) {
      filled.raw("<line stroke=#1c2228 stroke-dasharray=\"3 3\" x1=" + coordinate(filled.x(inflow + 1)) + " x2=" +
                 coordinate(filled.x(inflow + 1)) + " y1=" + coordinate(filled.top()) + " y2=" + coordinate(filled.bottom()) + " />");
      filled.raw("<text x=" + coordinate(filled.x(inflow + 1) + 4) + " y=" + coordinate(filled.top() + 10) + ">inflow, frame " +
                 std::to_string(inflow + 1) + "</text>");
    }
    page_ += "<figure>" + filled.svg("Contrast per frame") +
             "<figcaption>How much contrast stands out in the fullest 0.5 % of pixels.</figcaption></figure></div>\n";
  }

  void step(const char* title, const std::string& text) { page_ += "<li><b>" + std::string(title) + ".</b> " + text + "</li>"; }

  void steps() {
    const SubtractionSummary& s = analysis_.subtraction;
    page_ += "<h2>What was done to this run, and why</h2><ol class=steps>";
    std::string text;
    if (analysis_.frames < run_.frame_count())
      step("Frames", "Frames " + std::to_string(analysis_.first_frame + 1) + " to " +
                         std::to_string(analysis_.first_frame + analysis_.frames) + " of " + std::to_string(run_.frame_count()) +
                         ", as asked for.");
    const std::string as_stored = run_.intensity.relationship_as_stored;
    text = "Pixel Intensity Relationship is " + (as_stored.empty() ? std::string("absent") : "“" + escape_html(as_stored) + "”") + ", " +
           std::to_string(run_.intensity.bits_stored) + " bits stored. " + sentence(analysis_.intensity_note);
    if (!analysis_.densitometric)
      text +=
          " The grey values were made for looking at: diameters come from geometry alone, with wider error bars, and contrast is not an "
          "amount of contrast medium.";
    step("Pixel values", text);
    text = analysis_.noise.gain > 0 ? "Variance = " + fixed(analysis_.noise.gain, 3) + " per stored count + (" +
                                          fixed(analysis_.noise.electronic_sd, 2) + " counts)². "
                                    : "";
    step("Noise", text + sentence(analysis_.noise.note));
    if (!run_.field.source.empty()) step("Field", "What lies outside the " + escape_html(run_.field.source) + " is not read.");
    switch (s.mask.source) {
      case MaskSource::dicom:
        text = "The file's own instruction was followed";
        break;
      case MaskSource::automatic:
        text = "Chosen by the program: contrast-free frames before the inflow";
        break;
      case MaskSource::envelope:
        text =
            "No frame is free of contrast, so each pixel's least attenuation over time stands in for a mask; what is opacified throughout "
            "is lost";
        break;
      case MaskSource::none:
        text = "None: nothing was subtracted";
        break;
    }
    if (!s.mask.frames().empty() && analysis_.subtracted)
      text += " (" + std::string(s.mask.frames().size() > 1 ? "frames " : "frame ") + frame_list(s.mask.frames()) + ")";
    text += ".";
    for (const std::string& note : s.mask.notes) text += " " + sentence(note);
    step("Mask", text);
    if (analysis_.subtracted) step("Registration", registration_words(s));
    text = escape_html(s.topology_note);
    if (text.empty())
      text = s.topology_frame >= 0 ? "Vessels were traced in frame " + std::to_string(s.topology_frame + 1) + "."
                                   : "Vessels were traced once, in the maximum opacification over the run.";
    step("Vessels", text + " Found: " + count(analysis_.segments.size(), "segment", "segments") + " and " +
                        count(analysis_.branch_points.size(), "branch point", "branch points") + ".");
    step("Diameters",
         "A projected, blurred cylinder was fitted by maximum likelihood to the raw pixels across every centreline point of every "
         "opacified frame, then pooled over frames.");
    step("Calibration",
         calibrated_
             ? fixed(analysis_.calibration.mm_per_px, 4) + " mm/px ± " + fixed(100 * analysis_.calibration.relative_sd, 1) +
                   " %, from: " + escape_html(to_string(analysis_.calibration.source)) + ". " + sentence(analysis_.calibration.note)
             : "None. " + sentence(analysis_.calibration.note) + " Lengths are in pixels; a spacing can be given with --mm-per-px.");
    page_ += "</ol>\n";
  }

  void made() {
    page_ += "<h2>How each figure was made</h2><dl class=made>";
    const auto entry = [&](const char* term, const char* text) { page_ += "<dt>" + std::string(term) + "<dd>" + text; };
    entry("Contrast",
          "Log attenuation added since the mask: ln of intensity in the mask over intensity in the frame, without dimension. 0.1 is about "
          "a tenth of the X-rays gone.");
    entry("Maximum opacification",
          "The largest contrast of each pixel over the analysed frames after registration, or the one sharp frame named above where "
          "vessels move.");
    entry("Segments",
          "Ridges of a multi-scale second-derivative response that is gated by the measured noise, thinned, placed to a fraction of a "
          "pixel, and cut at branch points. Numbers go from the longest down.");
    entry("Diameter and its SD",
          "Maximum-likelihood fit of a projected cylinder blurred by the system's point spread, with a sloping background; the standard "
          "deviation follows from the noise and the parameters left free. In the plane of the calibration: a vessel 15 mm nearer or "
          "farther is about 2 % larger or smaller.");
    entry("Median, minimum", "Over the pooled profile. The minimum is of a robust mean over frames, not the smallest single fit.");
    entry("Reference, stenosis",
          "Reference: healthy calibre interpolated from both sides of the minimum. Stenosis: 100 × (1 − minimum / reference). A taper or a "
          "spastic neighbour moves the reference; only another run of the same segment can settle that.");
    entry("Arrival, time to peak",
          "Arrival: gamma-variate fit of the time-density curve, else half of its rise. Time to peak: its maximum. Transit: the curve's "
          "mean time. From the run's first frame.");
    entry("Velocity",
          "Transit along the segment by shifted least squares of curves at increasing distance; given with at least three frames of "
          "transit, otherwise a lower bound (≥).");
    entry("Residual SD", "Robust standard deviation of the subtracted background outside vessels.");
    entry("Not measured",
          "unfilled: too little contrast in that frame; overlap: another vessel or branch point within the profile; edge: at the field's "
          "edge; low contrast: below the noise gate; motion: the frame shows something else than its neighbours; no fit: the fit did not "
          "settle; inferred: "
          "a bridged gap; display grey: grey scale unfit; key frame only: vessels move, and the point was not found again in that frame.");
    page_ += "</dl>\n";
  }

  void footer() {
    page_ += "<footer><p class=warn>Research software, not a medical device.</p><p>CineLumen " + escape_html(input_.version) + " (" +
             escape_html(input_.commit) + "), on " + escape_html(analysis_.device) + ".";
    const RunDescription& d = run_.description;
    page_ += " Input: " + escape_html(file_name());
    if (!d.sha256.empty()) page_ += ", SHA-256 " + escape_html(d.sha256);
    if (!d.sop_instance_uid.empty()) page_ += ", SOP Instance UID " + escape_html(d.sop_instance_uid);
    page_ +=
        ".</p><p>Beside this page: analysis.json (the summary), lumen.csv (every point in every frame), time_density.csv, subtracted.dcm, "
        "maximum_opacification.png" +
        std::string(input_.has_video ? ", overlay.mp4" : "") + ".</p></footer>\n";
  }

  const Run& run_;
  const Analysis& analysis_;
  const ReportInput& input_;
  bool calibrated_;
  double scale_;
  std::string unit_;
  bool timed_;
  std::vector<std::size_t> longest_;
  std::string page_;
};

}  // namespace

std::string report_html(const Run& run, const Analysis& analysis, const ReportInput& input) { return Page(run, analysis, input).html(); }

}  // namespace cinelumen
