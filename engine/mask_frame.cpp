#include "engine/mask_frame.h"

#include <algorithm>
#include <stdexcept>

#include "kernels/bspline.h"
#include "kernels/log_attenuation.h"
#include "kernels/log_subtract.h"
#include "kernels/mask_registration.h"

namespace cinelumen {
namespace {

/// Reads frames one after the other into attenuation on the stream's device.
class AttenuationReader {
 public:
  AttenuationReader(const Stream& stream, const Run& run, const IntensityModel& intensity)
      : stream_(stream),
        run_(run),
        staging_(Image<std::uint16_t>::staging(stream, run.rows(), run.columns())),
        stored_(stream, run.rows(), run.columns()),
        table_(stream, static_cast<int>(intensity.attenuation.size())) {
    Array<float> host(table_.size());
    std::copy(intensity.attenuation.begin(), intensity.attenuation.end(), host.begin());
    copy<float>(stream, host, table_);
    stream.synchronize();
  }
  void read(int frame, ImageView<float> attenuation) {
    run_.frames->read_frame(frame, staging_.view());
    copy<std::uint16_t>(stream_, staging_.view(), stored_.view());
    log_attenuation(stream_, stored_, table_, attenuation);
    stream_.synchronize();
  }

 private:
  Stream stream_;
  const Run& run_;
  Image<std::uint16_t> staging_, stored_;
  Array<float> table_;
};

void finish(const Stream& stream, MaskFrame& mask) {
  mask.coefficients = Image<float>(stream, mask.attenuation.height(), mask.attenuation.width());
  bspline_coefficients(stream, mask.attenuation, mask.coefficients);
  stream.synchronize();
}

}  // namespace

MaskFrame average_mask_frames(const Stream& stream, const Run& run, const IntensityModel& intensity, const MaskAverage& average) {
  const std::vector<int>& frames = average.frames;
  if (frames.empty()) throw std::invalid_argument("average_mask_frames: no frames");
  const int height = run.rows(), width = run.columns();
  AttenuationReader reader(stream, run, intensity);
  Image<float> attenuation(stream, height, width), sum(height, width);
  const float weight = 1.0f / static_cast<float>(frames.size());
  for (std::size_t k = 0; k < frames.size(); ++k) {
    reader.read(frames[k], attenuation);
    const Image<float> host = to_host(stream, attenuation.view());
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) sum(y, x) = (k ? sum(y, x) : 0.0f) + weight * host(y, x);
  }
  MaskFrame mask;
  mask.attenuation = to_device(stream, sum.view());
  mask.noise_factor = 1 + weight;
  mask.reference = frames.front();
  finish(stream, mask);
  const RigidMotion shift{static_cast<float>(average.sub_pixel_shift[0]), static_cast<float>(average.sub_pixel_shift[1]), 0};
  if (shift.shift_y_px != 0 || shift.shift_x_px != 0) {
    warp(stream, mask.coefficients, shift, attenuation);
    std::swap(mask.attenuation, attenuation);
    finish(stream, mask);
  }
  return mask;
}

namespace {

// The average, or the envelope, of frames that are first laid on the reference.
MaskFrame registered_mask_frame(const Stream& stream, const Run& run, const IntensityModel& intensity, const MaskChoice& choice) {
  const int height = run.rows(), width = run.columns();
  const bool envelope = choice.source == MaskSource::envelope;
  AttenuationReader reader(stream, run, intensity);
  Image<float> attenuation(stream, height, width), coefficients(stream, height, width), moved(stream, height, width);
  const Image<std::uint8_t> valid = to_device(stream, run.field.valid());
  reader.read(choice.reference_frame, attenuation);
  const Image<float> reference = to_host(stream, attenuation.view());
  MaskRegistration registration(stream, attenuation, valid);
  // Envelope: the two least values so far; average: their sum, in the first.
  Image<float> least(height, width), second(height, width);
  int count = 0;
  for (const int frame : choice.masks.front().frames) {
    reader.read(frame, attenuation);
    Image<float> host;
    if (frame != choice.reference_frame) {
      const RigidEstimate estimate = registration.estimate(stream, attenuation);
      const RigidMotion motion = estimate.converged ? estimate.motion : RigidMotion{};
      if (motion.shift_y_px != 0 || motion.shift_x_px != 0 || motion.rotation_rad != 0) {
        bspline_coefficients(stream, attenuation, coefficients);
        warp(stream, coefficients, inverse(motion), moved);
        host = to_host(stream, moved.view());
        // What the moved frame does not show, the reference does.
        for (int y = 0; y < height; ++y)
          for (int x = 0; x < width; ++x) {
            const PixelPosition there = move(motion, {static_cast<double>(y), static_cast<double>(x)}, height, width);
            const bool shown = there.y >= 0 && there.y <= height - 1 && there.x >= 0 && there.x <= width - 1;
            host(y, x) = shown ? host(y, x) - estimate.offset : reference(y, x);
          }
      } else {
        host = to_host(stream, attenuation.view());
      }
    } else {
      host = to_host(stream, attenuation.view());
    }
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        const float value = host(y, x);
        if (!envelope) {
          least(y, x) = (count ? least(y, x) : 0.0f) + value;
        } else if (count == 0) {
          least(y, x) = second(y, x) = value;
        } else {
          const bool first = value < least(y, x);
          second(y, x) = first ? least(y, x) : (count == 1 ? value : std::min(second(y, x), value));
          least(y, x) = first ? value : least(y, x);
        }
      }
    ++count;
  }
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) least(y, x) = envelope ? 0.5f * (least(y, x) + second(y, x)) : least(y, x) / static_cast<float>(count);
  MaskFrame mask;
  mask.attenuation = to_device(stream, least.view());
  stream.synchronize();
  mask.noise_factor = envelope ? 1.5f : 1 + 1 / static_cast<float>(count);
  mask.reference = choice.reference_frame;
  finish(stream, mask);
  return mask;
}

// Moves a mask into the coordinates of the first; what it does not show there, the first does.
void lay_on(const Stream& stream, const MaskFrame& first, const Image<std::uint8_t>& valid, MaskFrame& mask) {
  const int height = first.attenuation.height(), width = first.attenuation.width();
  const RigidEstimate estimate = MaskRegistration(stream, first.attenuation, valid).estimate(stream, mask.attenuation);
  if (!estimate.converged) return;
  Image<float> moved(stream, height, width);
  warp(stream, mask.coefficients, inverse(estimate.motion), moved);
  Image<float> host = to_host(stream, moved.view());
  const Image<float> reference = to_host(stream, first.attenuation.view());
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const PixelPosition there = move(estimate.motion, {static_cast<double>(y), static_cast<double>(x)}, height, width);
      const bool shown = there.y >= 0 && there.y <= height - 1 && there.x >= 0 && there.x <= width - 1;
      if (!shown) host(y, x) = reference(y, x) + estimate.offset;
    }
  mask.attenuation = to_device(stream, host.view());
  mask.reference = first.reference;
  finish(stream, mask);
}

}  // namespace

std::vector<MaskFrame> make_mask_frames(const Stream& stream, const Run& run, const IntensityModel& intensity, const MaskChoice& choice,
                                        bool registered) {
  if (choice.source == MaskSource::none) throw std::invalid_argument("make_mask_frames: the choice is to have no mask");
  if (choice.masks.empty() || choice.masks.front().frames.empty())
    throw std::invalid_argument("make_mask_frames: the choice names no frames");
  std::vector<MaskFrame> frames;
  if (choice.source == MaskSource::dicom || choice.masks.front().frames.size() == 1) {
    for (const MaskAverage& mask : choice.masks) frames.push_back(average_mask_frames(stream, run, intensity, mask));
    if (registered)
      for (std::size_t i = 1; i < frames.size(); ++i) lay_on(stream, frames.front(), to_device(stream, run.field.valid()), frames[i]);
  } else {
    frames.push_back(registered_mask_frame(stream, run, intensity, choice));
  }
  return frames;
}

}  // namespace cinelumen
