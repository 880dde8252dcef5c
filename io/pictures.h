#pragma once
/// Pictures of a run and of what was found in it: grey frames, numbered vessels, time-to-peak colours, and the overlay video.

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/analysis.h"

namespace cinelumen {

/// Which attenuations are drawn white and black. Vessels are dark, as users expect them.
struct GreyWindow {
  float white = -0.1f, black = 0.5f;
};

/// Picks the window from one image: zero a light grey and the fullest vessels almost black where it was subtracted, else the 1st to
/// 99.5th percentile. NaN pixels are left out.
GreyWindow choose_window(ImageView<const float> image, bool subtracted);

/// The image through the window, 8 bits; NaN is white. grey: host, same size.
void to_grey(ImageView<const float> image, const GreyWindow& window, ImageView<std::uint8_t> grey);

/// JPEG and PNG of a grey image, shrunk (never enlarged) so that no side exceeds `longest_side` > 0.
std::vector<std::uint8_t> encode_jpeg(ImageView<const std::uint8_t> grey, int longest_side, int quality = 82);
std::vector<std::uint8_t> encode_png(ImageView<const std::uint8_t> grey, int longest_side);

/// Red, green, blue.
using Colour = std::array<std::uint8_t, 3>;
/// The colour of segment `id` (1-based) in every picture and plot; it repeats after twelve.
Colour segment_colour(int id);
/// "#rrggbb"
std::string to_hex(const Colour& colour);
/// The time-to-peak colours at `position` in [0, 1], early to late.
Colour time_colour(double position);

/// Where a segment's number is drawn, pixels of the image.
struct SegmentLabel {
  int id = 0;
  double y = 0, x = 0;                ///< centre of the number
  double anchor_y = 0, anchor_x = 0;  ///< the point of the centreline that it belongs to
};
/// Beside the middle of each segment, kept apart from other numbers (`radius_px` each) and inside the image.
std::vector<SegmentLabel> place_labels(const std::vector<SegmentResult>& segments, int rows, int columns, double radius_px);

/// maximum_opacification.png: the fullest picture with the numbered vessels and, where calibrated, a scale bar. Small images are doubled.
std::vector<std::uint8_t> draw_maximum_opacification(const Analysis& analysis, const GreyWindow& window);

/// The time-to-peak map: hue is the time, strength the opacification.
struct TimeToPeakPicture {
  std::vector<std::uint8_t> png;
  double first_ms = 0, last_ms = 0;  ///< what the ends of the colour scale stand for
};
/// Empty where frame times are unknown or nothing was opacified.
std::optional<TimeToPeakPicture> draw_time_to_peak(const Analysis& analysis, const GreyWindow& window, int longest_side);

/// overlay.mp4: frames with the measured lumen drawn in; H.264, yuv420p, index first, so that a browser plays it while it loads.
class OverlayVideo {
 public:
  /// Encodes into `scratch` (an existing folder) at `frames_per_second`.
  OverlayVideo(const std::filesystem::path& scratch, int rows, int columns, double frames_per_second);
  ~OverlayVideo();
  /// False where this machine has no H.264 encoder: add() and finish() then do nothing.
  bool available() const;
  /// Draws and encodes one frame: `grey` is the picture, its lumen edges in their segments' colours, points that were not measured faint.
  /// segment_ids[i] is the id of LumenPoint::segment i.
  void add(ImageView<const std::uint8_t> grey, const FrameResult& frame, const std::vector<int>& segment_ids);
  /// Completes the file and writes it to `path`. Throws OutputError where the encoder's file is not whole.
  void finish(const std::filesystem::path& path);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cinelumen
