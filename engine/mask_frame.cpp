#include "engine/mask_frame.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <stdexcept>

#include "engine/frame_warp.h"
#include "kernels/bspline.h"
#include "kernels/log_attenuation.h"
#include "kernels/log_subtract.h"
#include "kernels/mask_registration.h"
#include "kernels/warp_registration.h"
#include "kernels/warped_subtract.h"

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
  /// The frame that was read last.
  StoredFrame stored() const { return {stored_.view(), table_.view()}; }

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
    Image<float> copied;
    if (stream.on_cuda()) copied = to_host(stream, attenuation.view());
    const ImageView<const float> host = stream.on_cuda() ? copied.view() : attenuation.view();
    for (int y = 0; y < height; ++y) {
      const float* value = host.row(y);
      float* total = sum.row(y);
      for (int x = 0; x < width; ++x) total[x] = (k ? total[x] : 0.0f) + weight * value[x];
    }
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

constexpr double still_px = 0.02;  // a frame that has moved by less at its corners is taken as it is: that is what registration errs by

// Whether an image shows the points of a row where a motion takes them; `all`: every one of them.
class ShownRow {
 public:
  ShownRow(const RigidMotion& motion, int y, int height, int width) : motion_(motion), y_(y), height_(height), width_(width) {
    all = shows(0) && shows(width - 1);
  }
  bool all;
  bool shows(int x) const {
    const PixelPosition there = move(motion_, {static_cast<double>(y_), static_cast<double>(x)}, height_, width_);
    return there.y >= 0 && there.y <= height_ - 1 && there.x >= 0 && there.x <= width_ - 1;
  }

 private:
  const RigidMotion& motion_;
  int y_, height_, width_;
};

double moved_px(const RigidMotion& motion, int height, int width) {
  double most = 0;
  for (const double y : {0.0, height - 1.0})
    for (const double x : {0.0, width - 1.0}) {
      const PixelPosition there = move(motion, {y, x}, height, width);
      most = std::max(most, std::hypot(there.y - y, there.x - x));
    }
  return most;
}

// Lays frames on the reference, one at a time.
class FrameLayer {
 public:
  // `warp`: not null for non-rigid registration.
  FrameLayer(const Stream& stream, const Run& run, const IntensityModel& intensity, const MaskRegistration& registration,
             const WarpRegistration* warp, const Image<float>& reference)
      : stream_(stream),
        reader_(stream, run, intensity),
        registration_(registration.another(stream)),
        reference_(reference),
        attenuation_(stream, run.rows(), run.columns()) {
    if (!warp) return;
    warp_.emplace(warp->another(stream));
    for (Image<float>* field : {&to_mask_, &to_frame_}) *field = make_displacement_field(stream, run.rows(), run.columns());
    warp_estimate_ = Array<WarpEstimate>(stream, 1);
    rigid_ = Array<RigidEstimate>(stream, 1);
    placement_ = Array<FramePlacement>(stream, 1);
  }

  // Attenuation in the reference's coordinates, host memory; what the moved frame does not show, the reference does.
  ImageView<const float> lay(int frame) {
    reader_.read(frame, attenuation_);
    if (warp_) return lay_bent();
    const RigidEstimate estimate = registration_.estimate(stream_, attenuation_);
    const int height = attenuation_.height(), width = attenuation_.width();
    if (!estimate.converged || moved_px(estimate.motion, height, width) < still_px) return on_host(attenuation_);
    make_planes(height, width);
    bspline_coefficients(stream_, attenuation_, coefficients_);
    warp(stream_, coefficients_, inverse(estimate.motion), moved_);
    on_host(moved_);
    Image<float>& host = moved_on_host();
    for (int y = 0; y < height; ++y) {
      const ShownRow shown(estimate.motion, y, height, width);
      float* row = host.row(y);
      if (shown.all)
        for (int x = 0; x < width; ++x) row[x] -= estimate.offset;
      else
        for (int x = 0; x < width; ++x) row[x] = shown.shows(x) ? row[x] - estimate.offset : reference_(y, x);
    }
    return host.view();
  }

 private:
  void make_planes(int height, int width) {
    if (!moved_.empty()) return;
    coefficients_ = Image<float>(stream_, height, width);
    moved_ = Image<float>(stream_, height, width);
  }
  Image<float>& moved_on_host() { return stream_.on_cuda() ? host_ : moved_; }

  // The same with what bends on the way.
  ImageView<const float> lay_bent() {
    const int height = attenuation_.height(), width = attenuation_.width();
    registration_.enqueue(stream_, reader_.stored(), rigid_.view(), placement_.view());
    warp_->enqueue(stream_, reader_.stored(), placement_.view(), to_mask_, to_frame_, warp_estimate_.view());
    make_planes(height, width);
    bspline_coefficients(stream_, attenuation_, coefficients_);
    warp_onto_mask(stream_, coefficients_, placement_.view(), to_frame_.view(), moved_);
    const RigidEstimate rigid = one_of(rigid_);
    const WarpEstimate estimate = one_of(warp_estimate_);
    if (!rigid.converged) return on_host(attenuation_);
    on_host(moved_);
    Image<float>& host = moved_on_host();
    const FrameWarp field{{}, to_host(stream_, to_frame_.view())};
    // Only near the border does the frame not reach.
    const int reach = static_cast<int>(std::ceil(moved_px(rigid.motion, height, width) + 1.5 * estimate.largest_px)) + 4;
    const auto shown = [&](int y, int x) {
      if (y >= reach && x >= reach && y < height - reach && x < width - reach) return true;
      const PixelPosition there = place_in_frame(rigid.motion, field, {static_cast<double>(y), static_cast<double>(x)}, height, width);
      return there.y >= 1 && there.y <= height - 3 && there.x >= 1 && there.x <= width - 3;
    };
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) host(y, x) = shown(y, x) ? host(y, x) - rigid.offset : reference_(y, x);
    return host.view();
  }

  template <class T>
  T one_of(const Array<T>& array) {
    Array<T> host = Array<T>::staging(stream_, 1);
    copy<T>(stream_, array.view(), host.view());
    stream_.synchronize();
    return host[0];
  }

  ImageView<const float> on_host(const Image<float>& image) {
    if (!stream_.on_cuda()) return image.view();
    host_ = to_host(stream_, image.view());
    return host_.view();
  }

  Stream stream_;
  AttenuationReader reader_;
  MaskRegistration registration_;
  const Image<float>& reference_;
  Image<float> attenuation_, coefficients_, moved_, host_;
  std::optional<WarpRegistration> warp_;
  Image<float> to_mask_, to_frame_;
  Array<WarpEstimate> warp_estimate_;
  Array<RigidEstimate> rigid_;
  Array<FramePlacement> placement_;
};

// The average, or the envelope, of frames that are first laid on the reference.
MaskFrame registered_mask_frame(const Stream& stream, const Run& run, const IntensityModel& intensity, const MaskChoice& choice,
                                Registration how) {
  const int height = run.rows(), width = run.columns();
  const bool envelope = choice.source == MaskSource::envelope;
  Image<float> attenuation(stream, height, width);
  AttenuationReader(stream, run, intensity).read(choice.reference_frame, attenuation);
  const Image<float> reference = to_host(stream, attenuation.view());
  const Image<std::uint8_t> valid = to_device(stream, run.field.valid());
  const MaskRegistration registration(stream, attenuation, valid);
  std::optional<WarpRegistration> bending;
  if (how == Registration::nonrigid) bending.emplace(stream, attenuation, valid);
  // Envelope: the two least values so far; average: their sum, in the first.
  Image<float> least(height, width), second(height, width);
  int count = 0;
  const auto take = [&](ImageView<const float> frame) {
    for (int y = 0; y < height; ++y) {
      const float* value = frame.row(y);
      float *first = least.row(y), *next = second.row(y);
      if (count == 0) {
        std::copy_n(value, width, first);
        std::copy_n(value, width, next);
      } else if (!envelope) {
        for (int x = 0; x < width; ++x) first[x] += value[x];
      } else if (count == 1) {
        for (int x = 0; x < width; ++x) {
          const float low = std::min(first[x], value[x]), high = std::max(first[x], value[x]);
          first[x] = low;
          next[x] = high;
        }
      } else {
        for (int x = 0; x < width; ++x) {
          next[x] = std::min(next[x], std::max(first[x], value[x]));
          first[x] = std::min(first[x], value[x]);
        }
      }
    }
    ++count;
  };
  // Several frames are laid on the reference at a time, and taken in their order. A GPU is filled by one.
  const bool one = stream.on_cuda() || !stream.schedule().parallel;
  const std::vector<int>& frames = choice.masks.front().frames;
  std::vector<FrameLayer> layers;
  for (int i = 0; i < (one ? 1 : std::clamp(cpu_threads(), 1, static_cast<int>(frames.size()))); ++i)
    layers.emplace_back(one ? stream : Stream::cpu({.parallel = false}), run, intensity, registration, bending ? &*bending : nullptr,
                        reference);
  const auto at_once = static_cast<int>(layers.size());
  std::vector<ImageView<const float>> laid(layers.size());
  for (int from = 0; from < static_cast<int>(frames.size()); from += at_once) {
    const int some = std::min(at_once, static_cast<int>(frames.size()) - from);
    const auto lay = [&](int i) {
      laid[i] = frames[from + i] == choice.reference_frame ? reference.view() : layers[i].lay(frames[from + i]);
    };
    if (one)
      lay(0);
    else
      parallel_for(some, lay);
    for (int i = 0; i < some; ++i) take(laid[i]);
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
  for (int y = 0; y < height; ++y) {
    const ShownRow shown(estimate.motion, y, height, width);
    for (int x = 0; x < width && !shown.all; ++x)
      if (!shown.shows(x)) host(y, x) = reference(y, x) + estimate.offset;
  }
  mask.attenuation = to_device(stream, host.view());
  mask.reference = first.reference;
  finish(stream, mask);
}

}  // namespace

std::vector<MaskFrame> make_mask_frames(const Stream& stream, const Run& run, const IntensityModel& intensity, const MaskChoice& choice,
                                        Registration registration) {
  if (choice.source == MaskSource::none) throw std::invalid_argument("make_mask_frames: the choice is to have no mask");
  if (choice.masks.empty() || choice.masks.front().frames.empty())
    throw std::invalid_argument("make_mask_frames: the choice names no frames");
  std::vector<MaskFrame> frames;
  if (choice.source == MaskSource::dicom || choice.masks.front().frames.size() == 1) {
    for (const MaskAverage& mask : choice.masks) frames.push_back(average_mask_frames(stream, run, intensity, mask));
    if (registration != Registration::none)
      for (std::size_t i = 1; i < frames.size(); ++i) lay_on(stream, frames.front(), to_device(stream, run.field.valid()), frames[i]);
  } else {
    frames.push_back(registered_mask_frame(stream, run, intensity, choice, registration));
  }
  return frames;
}

}  // namespace cinelumen
