#include "engine/findings.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace cinelumen {
namespace {

std::string text(const char* format, double value) {
  char buffer[160];
  std::snprintf(buffer, sizeof buffer, format, value);
  return buffer;
}

// SD of the pooled diameter where the minimum lies.
double sd_at_minimum(const SegmentResult& segment) {
  double sd = 0, smallest = std::numeric_limits<double>::infinity();
  for (const DiameterProfile::Point& point : segment.profile.points)
    if (point.sd_px > 0 && point.diameter_px < smallest) {
      smallest = point.diameter_px;
      sd = point.sd_px;
    }
  return sd;
}

// Millimetres over which the lumen is closer to the minimum than to the reference.
double extent_px(const SegmentResult& segment) {
  const double half = (*segment.diameter.minimum + *segment.diameter.reference) / 2;
  double extent = 0;
  for (std::size_t i = 0; i + 1 < segment.profile.points.size(); ++i)
    if (segment.profile.points[i].sd_px > 0 && segment.profile.points[i].diameter_px < half)
      extent += segment.profile.points[i + 1].arc_length_px - segment.profile.points[i].arc_length_px;
  return extent;
}

}  // namespace

std::vector<Finding> find_single_run_findings(const Analysis& analysis, const FindingThresholds& thresholds) {
  std::vector<Finding> findings;
  for (const SegmentResult& segment : analysis.segments) {
    const SegmentDiameter& diameter = segment.diameter;
    if (segment.filling == "not filled" && analysis.subtracted) {
      Finding finding;
      finding.segment = segment.id;
      finding.label = "not filled";
      if (!segment.centreline.points.empty()) {
        const CentrelinePoint& middle = segment.centreline.points[segment.centreline.points.size() / 2];
        finding.at_px = {middle.y, middle.x};
      }
      finding.reasons = {"fewer than a fifth of its points reached five noise SDs of contrast in any frame"};
      findings.push_back(finding);
      continue;
    }
    // Where nothing was subtracted, bone and overlap narrow and widen a profile as a lesion does.
    if (!analysis.subtracted && analysis.frames < 3) continue;
    if (!diameter.percent_stenosis || !diameter.reference || !diameter.minimum || *diameter.reference <= 0) continue;
    const double sd_percent = 100 * sd_at_minimum(segment) / *diameter.reference;
    const double low = *diameter.percent_stenosis - 1.96 * sd_percent, high = *diameter.percent_stenosis + 1.96 * sd_percent;
    if (*diameter.percent_stenosis < thresholds.narrowing_percent || low < thresholds.narrowing_percent_lower ||
        segment.centreline.length_px() < thresholds.minimum_segment_diameters * *diameter.reference)
      continue;
    Finding finding;
    finding.segment = segment.id;
    finding.label = "narrowing";
    finding.narrowing_percent = *diameter.percent_stenosis;
    finding.ci95 = {{std::max(0.0, low), std::min(100.0, high)}};
    finding.at_px = diameter.minimum_at_px;
    if (analysis.calibration.known()) finding.extent_mm = extent_px(segment) * analysis.calibration.mm_per_px;
    finding.reasons = {text("smallest diameter %.2f px", *diameter.minimum), text("against %.2f px either side of it", *diameter.reference),
                       "one run alone can't tell spasm from stenosis: compare it with a reference run of the same segment"};
    if (segment.filling != "filled") finding.reasons.push_back("the segment was not filled throughout: a partly filled lumen looks narrow");
    findings.push_back(finding);
  }
  return findings;
}

}  // namespace cinelumen
