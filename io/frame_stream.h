#pragma once
/// Frames as they arrive, wherever from.

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "engine/run.h"

namespace cinelumen {

/// What the user says about a stream that it may not say itself.
struct StreamOptions {
  std::optional<double> frame_time_ms;  ///< time from frame to frame, > 0; overrides the source's
  std::optional<double> spacing_mm;     ///< mm per px at the vessels, > 0; overrides the source's
  double speed = 1;                     ///< of a replay: 2 is twice as fast, 0 as fast as frames are taken
  double idle_s = 10;                   ///< a folder or socket to which nothing has come for so long has ended, > 0
  std::function<bool()> stopped;        ///< asked a few times a second while waiting; true ends the stream; may be empty
};

/// When a frame was made and when it came.
struct Arrival {
  double time_ms = 0;                             ///< on the run's clock
  std::chrono::steady_clock::time_point arrived;  ///< complete at this moment; of a replay: due at this moment
};

/// The number and size of frames that can't be read: not yet, or not again.
class SizeOnly : public FrameSource {
 public:
  /// frames may be 0; rows x columns each.
  SizeOnly(int frames, int rows, int columns) : frames_(frames), rows_(rows), columns_(columns) {}
  int frame_count() const override { return frames_; }
  int rows() const override { return rows_; }
  int columns() const override { return columns_; }
  void read_frame(int, ImageView<std::uint16_t>) const override { throw InputError("a stream's frames can't be read again"); }

 private:
  int frames_, rows_, columns_;
};

/// A source of frames. One thread reads it.
class FrameStream {
 public:
  virtual ~FrameStream() = default;
  /// All that is known before the frames; its own `frames` has a size but no frames.
  const Run& header() const { return header_; }
  /// Waits for the next frame and writes it to `stored` (host, rows x columns; values as FrameSource::read_frame gives them). Empty at the
  /// stream's end. Throws InputError where what comes can't be used, among others a frame cut short.
  virtual std::optional<Arrival> next(ImageView<std::uint16_t> stored) = 0;

 protected:
  Run header_;
};

/// Opens
///   -               raw frames on standard input,
///   unix:PATH       the same from the first that connects to a local socket made at PATH,
///   a folder        into which files are being written, one frame or run each (DICOM or images), in natural order of their names; names
///   that
///                   begin with a dot or end in .tmp or .part are not looked at, and a file is read when it has stopped growing,
///   rtsp://, http://, https:// addresses, /dev/video*  through OpenCV,
///   anything else   a run that read_run opens, replayed at its own frame times.
///
/// Raw frames: one line of JSON, then each frame as rows x columns little-endian 16-bit unsigned numbers, row by row, nothing between.
/// {"rows", "columns", "bits_stored": 1-16, "frame_time_ms": 0 or absent: when they come, "mm_per_px": absent: none,
///  "pixel_intensity_relationship": "LIN", "LOG" or "DISP"; absent: DISP}.
///
/// Blocks until the first frame has come where the field of view must be found in it. Throws InputError, std::invalid_argument for options.
std::unique_ptr<FrameStream> open_stream(const std::string& source, const StreamOptions& options);

}  // namespace cinelumen
