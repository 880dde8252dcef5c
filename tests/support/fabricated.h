#pragma once
/// A made-up run and analysis: a small vein tree that fills, leaves a narrowing, and has every kind of gap. For what is written about runs,
/// not for how they are measured.

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/analysis.h"

namespace cinelumen::test {

/// Frames that nobody reads.
class NoFrames : public FrameSource {
 public:
  NoFrames(int frames, int rows, int columns) : frames_(frames), rows_(rows), columns_(columns) {}
  int frame_count() const override { return frames_; }
  int rows() const override { return rows_; }
  int columns() const override { return columns_; }
  void read_frame(int, ImageView<std::uint16_t>) const override { throw InputError("fabricated run: has no frames"); }

 private:
  int frames_, rows_, columns_;
};

/// A run of `frames` square frames of `side` pixels, with an analysis and the frames that would have been observed.
class FabricatedRun {
 public:
  explicit FabricatedRun(int side = 128, int frames = 12, int first_frame = 0) : side_(side), frames_(frames) {
    run.frames = std::make_shared<NoFrames>(first_frame + frames, side, side);
    run.description.path = "/data/control run <3>.dcm";
    run.description.sha256 = std::string(64, 'a');
    run.description.sop_class_uid = "1.2.840.10008.5.1.4.1.1.12.1";
    run.description.sop_instance_uid = "1.2.3.4.5";
    run.description.transfer_syntax = "1.2.840.10008.1.2.4.50";
    run.description.modality = "XA";
    run.description.patient_name = "<script>alert(1)</script>^Test";
    run.description.patient_id = "P-17 & \"quoted\"";
    run.description.patient_birth_date = "19580412";
    run.description.patient_sex = "F";
    run.description.body_part = "FOOT";
    run.description.laterality = "L";
    run.description.study_description = "Deep venous arterialisation";
    run.description.series_description = "Control, after valvulotomy";
    run.description.manufacturer = "Example";
    run.description.model = "C-arm 1";
    run.description.acquired = "2026-03-14T10:41:07";
    run.intensity.relationship = IntensityRelationship::linear;
    run.intensity.relationship_as_stored = "LIN";
    run.intensity.bits_stored = 12;
    run.geometry.source_to_detector_mm = 1100;
    run.geometry.source_to_patient_mm = 900;
    run.geometry.imager_pixel_spacing_mm = {{0.308, 0.308}};
    run.geometry.primary_angle_deg = 12;
    run.geometry.secondary_angle_deg = -3;
    for (int i = 0; i < first_frame + frames; ++i) run.frame_times_ms.push_back(i * 266.667);

    analysis.device = "CPU (8 threads)";
    analysis.threads = 8;
    analysis.rows = analysis.columns = side;
    analysis.frames = frames;
    analysis.first_frame = first_frame;
    analysis.frame_times_ms.assign(run.frame_times_ms.begin() + first_frame, run.frame_times_ms.end());
    analysis.calibration = {CalibrationSource::geometry, 0.252, 0.03,
                            "Imager Pixel Spacing 0.308 mm x SOD 900 / SID 1100; out of plane 2 % per 15 mm"};
    analysis.noise.gain = 0.42;
    analysis.noise.electronic_sd = 1.7;
    analysis.noise.log_sd_at_median = 0.012;
    analysis.noise.temporal = true;
    analysis.noise.note = "from differences of frames 1-4";
    analysis.subtracted = true;
    SubtractionSummary& subtraction = analysis.subtraction;
    subtraction.mask.source = MaskSource::automatic;
    subtraction.mask.masks = {{{first_frame, first_frame + 1, first_frame + 2}, {}}};
    subtraction.mask.mask_of_frame.assign(frames, 0);
    subtraction.mask.inflow_frame = first_frame + 4;
    subtraction.mask.notes = {"Mask Operation (0028,6101) is NONE with Mask Frame Numbers 0: not followed",
                              "contrast arrives at frame 5; frames 1-3 are averaged"};
    subtraction.registration = Registration::rigid;
    subtraction.reference_frame = first_frame;
    subtraction.topology_frame = -1;
    subtraction.topology_note =
        "The limb lies still (0.4 px at most), so the vessels are traced in the maximum opacification over all frames.";
    for (int i = 0; i < frames; ++i)
      subtraction.frames.push_back({first_frame + i, 0.3 * std::sin(i * 0.5), 0.012 * i, 0, 0.012 + 0.001 * (i % 3), 40 * bolus(i, 4)});
    analysis.warnings = {"The frame times are those of Frame Time (0018,1063): gaps within the run would not show"};
    make_tree();
    make_images();
    analysis.timing.total = 812.5;
    analysis.timing.per_frame_p50 = 31.2;
    analysis.timing.per_frame_p99 = 44.9;
    analysis.timing.stages = {{"decode", 90}, {"registration", 120}, {"vesselness", 300}};
  }

  /// Tells an observer what analyze() would.
  void play(AnalysisObserver& observer) {
    observer.progress("subtract", 0, frames_);
    observer.topology_done(analysis);
    for (int i = 0; i < frames_; ++i) {
      const Image<float> image = frame_image(i);
      const std::vector<LumenPoint> points = lumen(i);
      FrameResult result;
      result.frame = analysis.first_frame + i;
      if (!analysis.frame_times_ms.empty()) result.time_ms = analysis.frame_times_ms[i];
      result.subtracted = image.view();
      result.display = image.view();
      result.lumen = &points;
      result.subtraction = &analysis.subtraction.frames[i];
      observer.frame_done(result);
      observer.progress("measure", i + 1, frames_);
    }
  }

  /// Added attenuation of frame i (0-based in the analysed part).
  Image<float> frame_image(int i) const {
    Image<float> image(side_, side_);
    std::mt19937 random(i + 1);
    std::normal_distribution<float> noise(0, 0.012f);
    for (int y = 0; y < side_; ++y)
      for (int x = 0; x < side_; ++x) image(y, x) = noise(random);
    for (std::size_t s = 0; s < chords_.size(); ++s) {
      const float level = 0.5f * static_cast<float>(bolus(i, 3 + arrivals_[s]));
      for (int y = 0; y < side_; ++y)
        for (int x = 0; x < side_; ++x) image(y, x) += level * chords_[s](y, x);
    }
    return image;
  }

  std::vector<LumenPoint> lumen(int i) const {
    std::vector<LumenPoint> points;
    for (std::size_t s = 0; s < analysis.segments.size(); ++s) {
      const SegmentResult& segment = analysis.segments[s];
      const double level = bolus(i, 3 + arrivals_[s]);
      for (std::size_t p = 0; p < segment.centreline.points.size(); ++p) {
        const CentrelinePoint& at = segment.centreline.points[p];
        LumenPoint point;
        point.segment = static_cast<int>(s);
        point.point = static_cast<int>(p);
        point.arc_length_px = at.arc_length_px;
        point.y_px = at.y + 0.3f, point.x_px = at.x;
        point.normal_y = at.tangent_x, point.normal_x = -at.tangent_y;
        point.contrast = static_cast<float>(0.5 * level);
        point.reason = level < 0.3 ? Exclusion::unfilled : segment.profile.points[p].sd_px == 0 ? Exclusion::overlap : Exclusion::none;
        point.used = point.reason == Exclusion::none;
        if (point.used) point.diameter_px = segment.profile.points[p].diameter_px, point.sd_px = 0.3f;
        points.push_back(point);
      }
    }
    return points;
  }

  /// Filling of a place that the bolus reaches at frame `arrival`, 0 to 1.
  static double bolus(double frame, double arrival) {
    const double t = (frame - arrival) / 3;
    return t <= 0 ? 0 : std::pow(t, 1.5) * std::exp(1.5 * (1 - t));
  }

  Run run;
  Analysis analysis;

 private:
  void make_tree() {
    struct Branch {
      const char* name;
      std::vector<std::array<double, 2>> through;  // (y, x) of a 1 x 1 square
      double radius, arrival;                      // px at side 512, frames
    };
    const std::vector<Branch> branches = {
        {"posterior tibial vein", {{.02, .40}, {.12, .43}, {.25, .40}, {.36, .45}, {.46, .47}}, 9.5, 0},
        {"medial plantar vein", {{.46, .47}, {.55, .42}, {.66, .38}, {.78, .36}, {.86, .40}}, 6.5, 1.2},
        {"lateral plantar vein", {{.46, .47}, {.54, .55}, {.63, .63}, {.74, .66}, {.84, .62}}, 6, 1.4},
        {"pedal arch", {{.86, .40}, {.90, .46}, {.91, .53}, {.89, .59}, {.84, .62}}, 5, 2.4},
        {"", {{.25, .40}, {.30, .31}, {.38, .25}, {.47, .22}}, 3.2, .8},
        {"", {{.63, .63}, {.60, .72}, {.61, .80}, {.66, .87}}, 2.8, 2},
        {"", {{.66, .38}, {.70, .29}, {.76, .22}}, 2.4, 2.1},
        {"", {{.90, .46}, {.95, .44}, {.985, .45}}, 2, 3.2},
        {"", {{.36, .45}, {.33, .56}, {.24, .62}, {.14, .63}}, 2.6, 1},
    };
    const double scale = side_ / 512.0;
    for (const Branch& branch : branches) {
      SegmentResult segment;
      segment.id = static_cast<int>(analysis.segments.size()) + 1;
      segment.name = branch.name;
      segment.filling = "filled";
      double length = 0;
      const auto& k = branch.through;
      for (std::size_t j = 0; j + 1 < k.size(); ++j) {
        const auto &p0 = k[j ? j - 1 : 0], &p1 = k[j], &p2 = k[j + 1], &p3 = k[j + 2 < k.size() ? j + 2 : j + 1];
        const int steps = std::max(2, static_cast<int>(side_ * std::hypot(p2[0] - p1[0], p2[1] - p1[1])));
        for (int i = j ? 1 : 0; i <= steps; ++i) {
          const double t = double(i) / steps;
          CentrelinePoint point;
          for (const int c : {0, 1}) {
            const double value = 0.5 * (2 * p1[c] + (p2[c] - p0[c]) * t + (2 * p0[c] - 5 * p1[c] + 4 * p2[c] - p3[c]) * t * t +
                                        (3 * p1[c] - p0[c] - 3 * p2[c] + p3[c]) * t * t * t);
            (c ? point.x : point.y) = static_cast<float>(value * side_);
          }
          if (!segment.centreline.points.empty()) {
            const CentrelinePoint& last = segment.centreline.points.back();
            const double step = std::hypot(point.y - last.y, point.x - last.x);
            length += step;
            point.tangent_y = static_cast<float>((point.y - last.y) / step),
            point.tangent_x = static_cast<float>((point.x - last.x) / step);
          }
          point.arc_length_px = static_cast<float>(length);
          point.radius_px = static_cast<float>(branch.radius * scale);
          point.z = 12;
          segment.centreline.points.push_back(point);
        }
      }
      segment.length = length * analysis.calibration.mm_per_px;
      std::mt19937 random(segment.id);
      std::normal_distribution<double> normal;
      double wander = 0, minimum = std::numeric_limits<double>::infinity();
      for (std::size_t p = 0; p < segment.centreline.points.size(); ++p) {
        const CentrelinePoint& at = segment.centreline.points[p];
        const double share = at.arc_length_px / length;
        wander = 0.93 * wander + 0.012 * normal(random);
        double diameter = 2 * at.radius_px * (1 - 0.12 * share) * (1 + wander);
        if (segment.id == 2) diameter *= 1 - 0.55 * std::exp(-std::pow((share - 0.55) / 0.12, 2));
        DiameterProfile::Point point{at.arc_length_px, at.y, at.x, float(diameter), float(0.12 + 0.35 / (1 + at.radius_px)), 9};
        const bool gap = (segment.id == 3 && share > 0.3 && share < 0.42) || share < 0.03 || share > 0.97;
        if (gap)
          point.diameter_px = 0, point.sd_px = 0, point.frames = 0;
        else if (diameter < minimum)
          minimum = diameter, segment.diameter.minimum_at_px = {at.y, at.x};
        segment.profile.points.push_back(point);
      }
      segment.diameter.median = 2 * branch.radius * scale * 0.94;
      segment.diameter.sd = 0.2;
      segment.diameter.minimum = minimum;
      segment.diameter.reference = 2 * branch.radius * scale * 0.95;
      segment.diameter.percent_stenosis = 100 * (1 - minimum / *segment.diameter.reference);
      segment.flow.curve.time_ms = analysis.frame_times_ms;
      for (int i = 0; i < frames_; ++i) segment.flow.curve.contrast.push_back(0.5 * bolus(i, 3 + branch.arrival));
      segment.flow.times.arrival_ms = 266.667 * (3 + branch.arrival);
      segment.flow.times.time_to_peak_ms = 266.667 * 3;
      segment.flow.times.mean_transit_ms = 1900;
      segment.flow.times.peak = 0.5;
      if (segment.id < 4) segment.flow.velocity_mm_s = 140 - 20 * segment.id, segment.flow.velocity_sd_mm_s = 12;
      segment.flow.auc_relative_to_inlet = 1.0 - 0.05 * segment.id;
      arrivals_.push_back(branch.arrival);
      analysis.segments.push_back(std::move(segment));
    }
    analysis.segments.back().filling = "partly filled";
    analysis.segments.back().diameter = {};
    analysis.segments.back().flow.times = {};
    analysis.segments.back().flow.auc_relative_to_inlet = {};
    analysis.branch_points = {{.46 * side_, .47 * side_, {0, 1, 2}, false}};
    RegionFlow wound;
    wound.name = "=wound, \"heel\"";
    wound.curve = analysis.segments[1].flow.curve;
    wound.curve.contrast.back() = std::numeric_limits<double>::quiet_NaN();
    wound.times.peak = 0.08;
    analysis.flow.regions.push_back(wound);
    analysis.flow.inlet = "segment 1";
    Finding finding;
    finding.segment = 2;
    finding.label = "narrowing";
    finding.narrowing_percent = 54;
    finding.ci95 = {{47, 61}};
    finding.extent_mm = 13.5;
    finding.at_px = analysis.segments[1].diameter.minimum_at_px;
    finding.reasons = {"smooth over 13.5 mm, normal calibre on both sides", "filled: contrast 0.97 of its plateau at the minimum"};
    analysis.findings.push_back(finding);
  }

  void make_images() {
    analysis.maximum_opacification = Image<float>(side_, side_);
    analysis.time_to_peak_ms = Image<float>(side_, side_);
    std::mt19937 random(99);
    std::normal_distribution<float> noise(0, 0.008f);
    for (int y = 0; y < side_; ++y)
      for (int x = 0; x < side_; ++x) {
        analysis.maximum_opacification(y, x) = 0.02f + noise(random);
        analysis.time_to_peak_ms(y, x) = std::numeric_limits<float>::quiet_NaN();
      }
    for (std::size_t s = 0; s < analysis.segments.size(); ++s) {
      Image<float> chord(side_, side_);
      for (int y = 0; y < side_; ++y)
        for (int x = 0; x < side_; ++x) chord(y, x) = 0;
      const SegmentResult& segment = analysis.segments[s];
      for (std::size_t p = 0; p < segment.centreline.points.size(); ++p) {
        const CentrelinePoint& at = segment.centreline.points[p];
        float radius = segment.profile.points[p].diameter_px / 2;
        if (radius == 0) radius = at.radius_px;
        const int reach = static_cast<int>(radius + 2);
        for (int y = std::max(0, int(at.y) - reach); y <= std::min(side_ - 1, int(at.y) + reach); ++y)
          for (int x = std::max(0, int(at.x) - reach); x <= std::min(side_ - 1, int(at.x) + reach); ++x) {
            const float d2 = (y - at.y) * (y - at.y) + (x - at.x) * (x - at.x), r2 = radius * radius;
            const float value = d2 < r2 ? std::sqrt(r2 - d2) * 2 / (19.0f * side_ / 512) : 0;
            if (value > chord(y, x)) {
              chord(y, x) = value;
              analysis.time_to_peak_ms(y, x) =
                  static_cast<float>(266.667 * (6 + arrivals_[s] + double(p) / double(segment.centreline.points.size())));
            }
          }
      }
      for (int y = 0; y < side_; ++y)
        for (int x = 0; x < side_; ++x)
          analysis.maximum_opacification(y, x) = std::max(analysis.maximum_opacification(y, x), 0.5f * chord(y, x));
      chords_.push_back(std::move(chord));
    }
  }

  int side_, frames_;
  std::vector<double> arrivals_;
  std::vector<Image<float>> chords_;
};

}  // namespace cinelumen::test
