// SPDX-License-Identifier: Apache-2.0
/// Stage A as one writes it by hand around FFTW: a table of logarithms, real transforms, the mask's spectrum kept, phase correlation with a
/// parabola through the peak, bilinear shift. One thread. The other stages are none of FFTW's business.

#include <fftw3.h>

#include <cmath>
#include <complex>

#include "peer.h"

namespace {

using namespace peers;

using Spectrum = std::vector<std::complex<float>>;

class Fftw {
 public:
  using Plane = std::vector<float>;
  using Mask = std::vector<std::uint8_t>;

  Fftw(const Cine& cine, const Options& options) : cine_(cine), width_(cine.width), height_(cine.height) {
    if (options.stage != "A") throw std::runtime_error("stage A only");
    logarithms_.resize(1 << 16);
    for (std::size_t i = 0; i < logarithms_.size(); ++i) logarithms_[i] = std::log(static_cast<float>(i) + 1);
    window_.resize(cine.pixels());
    const auto hann = [](int i, int size) { return 0.5 - 0.5 * std::cos(2 * M_PI * i / (size - 1)); };
    for (int y = 0; y < height_; ++y)
      for (int x = 0; x < width_; ++x) window_[at(y, x)] = static_cast<float>(hann(y, height_) * hann(x, width_));
    plane_.resize(cine.pixels());
    spectrum_.resize(static_cast<std::size_t>(width_ / 2 + 1) * height_);
    auto* const complex = reinterpret_cast<fftwf_complex*>(spectrum_.data());
    forward_ = fftwf_plan_dft_r2c_2d(height_, width_, plane_.data(), complex, FFTW_MEASURE);
    backward_ = fftwf_plan_dft_c2r_2d(height_, width_, complex, plane_.data(), FFTW_MEASURE);
  }
  Fftw(const Fftw&) = delete;
  ~Fftw() {
    fftwf_destroy_plan(forward_);
    fftwf_destroy_plan(backward_);
  }

  Plane plane(const float* pixels) const { return {pixels, pixels + cine_.pixels()}; }
  Mask mask(const std::uint8_t* pixels) const { return {pixels, pixels + cine_.pixels()}; }
  const float* pixels(const Plane& plane) const { return plane.data(); }
  const std::uint8_t* pixels(const Mask& mask) const { return mask.data(); }

  void make_mask() {
    mask_ = logarithm(cine_.mask_frames.front());
    transform(mask_);
    const Spectrum first = spectrum_;
    for (std::size_t i = 1; i < cine_.mask_frames.size(); ++i) {
      const Plane next = logarithm(cine_.mask_frames[i]);
      transform(next);
      const Shift by = shift_from(first);
      const Plane laid = moved(next, {-by.x, -by.y});
      for (std::size_t k = 0; k < mask_.size(); ++k) mask_[k] += laid[k];
    }
    for (float& value : mask_) value /= static_cast<float>(cine_.mask_frames.size());
    transform(mask_);
    mask_spectrum_ = spectrum_;
  }
  Plane subtract(int frame, Shift* found) const {
    const Plane live = logarithm(frame);
    transform(live);
    const Shift by = shift_from(mask_spectrum_);
    if (found) *found = by;
    Plane result = moved(mask_, by);
    for (std::size_t k = 0; k < result.size(); ++k) result[k] -= live[k];
    return result;
  }
  Plane vesselness(const Plane&) const { return {}; }
  Segmentation<Mask> segment(const Plane&) const { return {}; }
  std::vector<float> diameters(const Mask&, const Mask&) const { return {}; }
  void each(int count, const std::function<void(int)>& body) const {
    for (int i = 0; i < count; ++i) body(i);
  }

 private:
  std::size_t at(int y, int x) const { return static_cast<std::size_t>(y) * width_ + x; }
  Plane logarithm(int frame) const {
    Plane result(cine_.pixels());
    const std::uint16_t* const stored = cine_.frame(frame);
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = logarithms_[stored[i]];
    return result;
  }
  void transform(const Plane& image) const {
    double sum = 0;
    for (const float value : image) sum += value;
    const float mean = static_cast<float>(sum / static_cast<double>(image.size()));
    for (std::size_t i = 0; i < image.size(); ++i) plane_[i] = (image[i] - mean) * window_[i];
    fftwf_execute(forward_);
  }
  // Where the image whose transform was just taken lies against the one with the other spectrum.
  Shift shift_from(const Spectrum& other) const {
    for (std::size_t i = 0; i < spectrum_.size(); ++i) {
      const std::complex<float> a = spectrum_[i], b = other[i];
      const float re = a.real() * b.real() + a.imag() * b.imag(), im = a.imag() * b.real() - a.real() * b.imag();
      const float over = 1 / std::sqrt(re * re + im * im + 1e-20f);
      spectrum_[i] = {re * over, im * over};
    }
    fftwf_execute(backward_);
    const std::size_t peak = static_cast<std::size_t>(std::max_element(plane_.begin(), plane_.end()) - plane_.begin());
    const int y = static_cast<int>(peak) / width_, x = static_cast<int>(peak) % width_;
    const auto value = [&](int yy, int xx) { return plane_[at((yy + height_) % height_, (xx + width_) % width_)]; };
    const auto parabola = [](double left, double middle, double right) {
      const double curve = left - 2 * middle + right;
      return curve != 0 ? 0.5 * (left - right) / curve : 0;
    };
    return {(x > width_ / 2 ? x - width_ : x) + parabola(value(y, x - 1), value(y, x), value(y, x + 1)),
            (y > height_ / 2 ? y - height_ : y) + parabola(value(y - 1, x), value(y, x), value(y + 1, x))};
  }
  // Bilinear, the border repeated.
  Plane moved(const Plane& image, const Shift& by) const {
    const int whole_y = static_cast<int>(std::floor(-by.y)), whole_x = static_cast<int>(std::floor(-by.x));
    const float fy = static_cast<float>(-by.y - whole_y), fx = static_cast<float>(-by.x - whole_x);
    const float w00 = (1 - fy) * (1 - fx), w01 = (1 - fy) * fx, w10 = fy * (1 - fx), w11 = fy * fx;
    const int first = std::clamp(-whole_x, 0, width_), last = std::clamp(width_ - 1 - whole_x, first, width_);
    Plane result(image.size());
    for (int y = 0; y < height_; ++y) {
      const float* const upper = &image[at(std::clamp(y + whole_y, 0, height_ - 1), 0)];
      const float* const lower = &image[at(std::clamp(y + whole_y + 1, 0, height_ - 1), 0)];
      float* const row = &result[at(y, 0)];
      for (int x = first; x < last; ++x)
        row[x] = w00 * upper[x + whole_x] + w01 * upper[x + whole_x + 1] + w10 * lower[x + whole_x] + w11 * lower[x + whole_x + 1];
      const auto at_border = [&](int x) {
        const int a = std::clamp(x + whole_x, 0, width_ - 1), b = std::clamp(x + whole_x + 1, 0, width_ - 1);
        row[x] = w00 * upper[a] + w01 * upper[b] + w10 * lower[a] + w11 * lower[b];
      };
      for (int x = 0; x < first; ++x) at_border(x);
      for (int x = last; x < width_; ++x) at_border(x);
    }
    return result;
  }

  const Cine& cine_;
  int width_, height_;
  std::vector<float> logarithms_, window_;
  mutable std::vector<float> plane_;
  mutable Spectrum spectrum_;
  Spectrum mask_spectrum_;
  Plane mask_;
  fftwf_plan forward_ = nullptr, backward_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) { return run_peer<Fftw>("fftw", argc, argv); }
