#pragma once
/// One run, from frames to measured vessels: the result types and the function that reads as the method does.

#include <array>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/calibration.h"
#include "engine/calibration_object.h"
#include "engine/centreline.h"
#include "engine/change_point.h"
#include "engine/diameter_profile.h"
#include "engine/filling_gates.h"
#include "engine/flow.h"
#include "engine/mask_selection.h"
#include "engine/noise_model.h"
#include "engine/registration.h"
#include "engine/run.h"
#include "kernels/vesselness.h"

namespace cinelumen {

/// What the caller may choose. Defaults are what `cinelumen analyze` does.
struct AnalysisOptions {
  int first_frame = 0, last_frame = -1;                    ///< 0-based inclusive part of the run; -1: the last
  std::optional<double> mm_per_px, mm_per_px_relative_sd;  ///< the user's calibration; SD defaults to 0.02
  CalibrationObject object;                                ///< of known size in the picture; goes before the file's geometry
  Registration registration = Registration::rigid;
  VesselnessResponse response = VesselnessResponse::noise_calibrated;
  DiameterRule diameter = DiameterRule::fit;  ///< others: for comparison
  std::vector<NamedRegion> regions;           ///< polygons in mask pixels
  bool topology_every_frame = false;          ///< benchmarks: also components, thinning and graph in every frame
  int picture_frames = 60;   ///< at least these, of a long run, make the picture that vessels are looked for in; see frames_of_picture
  int frames_in_flight = 0;  ///< at most; 0: as many as keep the device busy. Changes no result
};

/// How the background of one frame lies relative to the mask.
struct FrameSubtraction {
  int frame = 0;  ///< 0-based
  double shift_y_px = 0, shift_x_px = 0, rotation_rad = 0;
  double residual_sd = 0;  ///< of the background after the rigid motion, log units
  /// Non-rigid registration only. Displacement beyond the rigid motion at the nodes of its field: rms and largest; rms motion that is left,
  /// 0 where it is not above the noise;
  /// true where the field folded and was refused: the frame is then subtracted rigidly.
  double displacement_rms_px = 0, displacement_largest_px = 0, residual_motion_px = 0;
  bool field_refused = false;
  double contrast_score = 0;  ///< noise SDs
};

/// What was subtracted from what, and where the vessels were traced.
struct SubtractionSummary {
  MaskChoice mask;
  Registration registration = Registration::none;
  int reference_frame = 0;      ///< 0-based: the frame whose coordinates the mask's are
  int topology_frame = -1;      ///< 0-based; -1: maximum opacification over the run
  bool moving_vessels = false;  ///< vessels move against the background: topology from one frame, others re-found or key_frame_only
  std::string topology_note;    ///< in words: where the topology comes from and why
  std::vector<FrameSubtraction> frames;
};

/// A segment of the vessel graph with all that was measured along it.
struct SegmentResult {
  int id = 0;  ///< 1-based, as drawn
  std::string name;
  std::string role;       ///< "main", "plantar", "arch", "collateral" (name_segments); empty: the picture does not tell
  Centreline centreline;  ///< mask coordinates
  double length = 0;      ///< mm, or px where uncalibrated
  std::string filling = "not filled";
  SegmentDiameter diameter;  ///< pooled over frames in which the lumen was filled
  /// The same over all opacified frames, where some were taken out because the lumen was partly filled: for what would have been said.
  std::optional<SegmentDiameter> ungated;
  std::vector<FillingGate> gates;        ///< per centreline point; empty: no frames
  DiameterProfile profile;               ///< pooled over frames, per centreline point
  std::vector<ChangeWithinRun> changes;  ///< of its calibre while the run went on, in order
  SegmentFlow flow;
};

/// A verdict with its evidence.
struct Finding {
  int segment = 0;  ///< id, 0 for the whole run
  std::string label, grade;
  std::optional<double> narrowing_percent, extent_mm, probability;
  std::optional<std::array<double, 2>> ci95;
  std::optional<double> onset_ms;  ///< of a change within the run, on the run's clock
  std::array<double, 2> at_px = {0, 0};
  std::vector<std::string> reasons;
};

/// Where the time went, ms.
struct Timing {
  double total = 0, per_frame_p50 = 0, per_frame_p99 = 0;
  std::map<std::string, double> stages;  ///< over the whole run, summed over threads, by stage; "decode" and "write" apart
};

/// Everything `analyze` knows at the end. Host data only.
struct Analysis {
  std::string device;
  int threads = 1;
  int rows = 0, columns = 0, frames = 0;
  int first_frame = 0;                 ///< 0-based number in the file of the first analysed frame
  std::vector<double> frame_times_ms;  ///< of the analysed frames; empty where unknown
  Calibration calibration;
  std::string intensity_note;  ///< IntensityModel::note: what the pixel values are taken for, and why
  bool densitometric = true;   ///< IntensityModel::densitometric
  NoiseModel noise;
  SubtractionSummary subtraction;
  std::vector<SegmentResult> segments;
  std::vector<PartlyFilled> partly_filled;  ///< what was measured and not used for it, by segment
  std::vector<BranchPoint> branch_points;
  FlowSummary flow;
  std::vector<Finding> findings;
  std::vector<std::string> warnings;
  Timing timing;
  Image<float> mask_picture;           ///< mask coordinates, log attenuation without contrast: bones and devices (no mask: reference frame)
  Image<float> maximum_opacification;  ///< mask coordinates, added log attenuation (or the log image where nothing was subtracted)
  Image<float> time_to_peak_ms;        ///< mask coordinates, NaN where not opacified; empty where frame times are unknown
  bool subtracted = false;             ///< false: single frame, or no mask could be made
};

struct FrameWarp;

/// One frame's results, handed to the observer in frame order while the run is analysed.
struct FrameResult {
  int frame = 0;  ///< 0-based in the file
  double time_ms = std::numeric_limits<double>::quiet_NaN();
  ImageView<const float> subtracted;               ///< host, the frame's own coordinates, added log attenuation
  ImageView<const float> display;                  ///< host, the same after the temporal filter
  const std::vector<LumenPoint>* lumen = nullptr;  ///< one per centreline point, the frame's coordinates
  const FrameSubtraction* subtraction = nullptr;
  const FrameWarp* warp = nullptr;  ///< how the mask was bent onto the frame, of engine/frame_warp.h; null or empty: it was not
  std::shared_ptr<const void> prepared = nullptr;  ///< what AnalysisObserver::prepare returned for this frame
};

/// Receives progress and frames. All calls but prepare come from one thread at a time; frame_done in frame order.
class AnalysisObserver {
 public:
  virtual ~AnalysisObserver() = default;
  /// `done` of `total` steps of a stage are finished.
  virtual void progress(const std::string& stage, int done, int total) = 0;
  /// Called after the topology is known: `so_far` has segments and centrelines, no diameters yet.
  virtual void topology_done(const Analysis& so_far) = 0;
  /// The part of the work on a frame that needs no other frame: called for several frames at once, before frame_done for the same frame.
  virtual std::shared_ptr<const void> prepare(const FrameResult&) { return nullptr; }
  virtual void frame_done(const FrameResult& frame) = 0;
};

/// Analyses one run on the stream's device.
/// Throws InputError (a frame can't be read), DeviceError, std::invalid_argument (an option out of range).
Analysis analyze(const Stream& stream, const Run& run, const AnalysisOptions& options, AnalysisObserver* observer = nullptr);

}  // namespace cinelumen
