#pragma once
/// A run analysed while it is being made: frame in, figures out, in memory that does not grow.

#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/frame_slot.h"
#include "engine/scenes.h"
#include "kernels/flow_statistics.h"

namespace cinelumen {

/// What the caller may choose.
struct LiveOptions {
  std::optional<double> mm_per_px, mm_per_px_relative_sd;  ///< the user's calibration; SD defaults to 0.02
  CalibrationObject object;                                ///< of known size in the first mask; goes before the source's geometry
  Registration registration = Registration::rigid;
  VesselnessResponse response = VesselnessResponse::noise_calibrated;
  DiameterRule diameter = DiameterRule::fit;  ///< others: for comparison
  int mask_frames = 8;                        ///< first frames that the mask is chosen from, 4 to 64
  int renew_frames = 0;   ///< the vessels are looked for again this often, up to eight times less often while none are new; they count as
                          ///< many frames later; 0: as many as half a second takes, 2 to 15
  int kept_frames = 900;  ///< of the contrast curves, >= 16
};

/// Where the mask stands.
enum class MaskState { waiting, ready, again };
const char* to_string(MaskState state);

/// A run with other frames under a copy of `header`: without its frame times, mask instructions and warnings.
Run with_frames(const Run& header, std::shared_ptr<const FrameSource> frames);

/// What one frame says of one segment.
struct LiveSegment {
  int id = 0;                                ///< 1-based, kept while the vessel is found again
  std::optional<double> diameter_px, sd_px;  ///< median along the segment and its SD; empty where nothing was measured
  double contrast = 0;                       ///< mean log attenuation above the local background; NaN where not read
};

/// What became of one frame. Views and pointers hold until the next push().
struct LiveFrame {
  int frame = 0;  ///< 0-based, as pushed
  double time_ms = 0;
  MaskState mask = MaskState::waiting;
  FrameSubtraction subtraction;
  std::vector<LiveSegment> segments;
  std::vector<std::string> events;                 ///< "mask ready", "table motion", ...: in words
  std::vector<Finding> changes;                    ///< of a segment's calibre, told for the first time; at_px in the mask's coordinates
  ImageView<const float> subtracted, display;      ///< host, the frame's own coordinates; without data while there is no mask
  const std::vector<LumenPoint>* lumen = nullptr;  ///< LumenPoint::segment is an index into `segments`; null while there is no mask
};

/// Takes frames one by one. Mask, vessels and figures are causal: they rest on frames that have come, so a run pushed through here may
/// differ from the same run under analyze(). The same frames give the same results whatever the time between them and the number of
/// threads: what is worked out in the background counts from a fixed frame on, and push() waits for it there.
class LiveAnalysis {
 public:
  /// `header`: everything about the run but its frames, which are pushed; it must outlive this. Throws std::invalid_argument for options
  /// out of range.
  LiveAnalysis(const Stream& stream, const Run& header, const LiveOptions& options);
  ~LiveAnalysis();

  /// The next frame: host, rows x columns of the header, values as FrameSource::read_frame gives them; time_ms later than the last one's.
  /// Throws std::invalid_argument for a wrong size or time, DeviceError, InputError where LiveOptions::object can't be measured.
  const LiveFrame& push(ImageView<const std::uint16_t> stored, double time_ms);

  /// What all frames since the last mask say: vessels, pooled figures, curves of the last `kept_frames` frames. Waits for what is under
  /// way.
  Analysis finish();

  int frame_count() const { return frames_; }
  /// Of the header, and from the first mask on of LiveOptions::object where that is given.
  const Calibration& calibration() const { return calibration_; }

 private:
  struct Prepared;
  struct Traced;
  struct Segment;
  void gather(ImageView<const std::uint16_t> stored);
  void start_over(const std::string& why);
  void adopt_mask();
  std::vector<std::vector<PointBefore>> adopt_vessels();
  void renew_vessels();
  void trace_if_due();
  void watch_calibre();
  void retire(int segment, const std::vector<std::vector<PointBefore>>& now);
  void carry_watches(const std::vector<VesselGraph::Segment>& now, const std::vector<std::vector<PointBefore>>& before,
                     std::vector<Segment>& segments);
  bool scene_changed(ImageView<const std::uint16_t> stored);
  void measure();

  Stream stream_;
  const Run& header_;
  LiveOptions options_;
  IntensityModel intensity_;
  Calibration calibration_;
  bool object_measured_ = false;
  int frames_ = 0;
  double last_time_ms_ = 0;
  LiveFrame result_;
  std::vector<LumenPoint> flat_;
  std::vector<std::string> warnings_;

  // Waiting for a mask.
  std::vector<Image<std::uint16_t>> gathered_;
  std::vector<double> gathered_ms_;
  int gathered_from_ = 0;
  std::future<std::unique_ptr<Prepared>> preparing_;
  int mask_due_ = -1;

  // With a mask.
  std::unique_ptr<Prepared> prepared_;
  std::unique_ptr<FrameSlot> slot_;
  std::optional<TemporalFilter> filter_, resting_filter_;
  std::optional<FlowStatistics> statistics_;
  int filter_place_ = 0, resting_filter_place_ = 0;
  double last_resting_ms_ = 0;
  double usual_residual_ = 0;  // SD of the subtracted background, log units
  int since_mask_ = 0, changed_in_a_row_ = 0, next_trace_ = 0, renew_frames_ = 0, renew_gap_ = 0;
  std::deque<KeyFrame> key_frames_;
  std::future<std::unique_ptr<Traced>> tracing_;
  int vessels_due_ = -1;
  std::unique_ptr<Traced> traced_;
  std::vector<Segment> segments_;
  int next_id_ = 1;
  std::vector<Finding> past_;  // changes of vessels that are not followed any more
  std::deque<double> times_ms_;
  std::deque<FrameSubtraction> subtractions_;
};

}  // namespace cinelumen
