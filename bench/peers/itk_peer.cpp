// SPDX-License-Identifier: Apache-2.0
/// ITK: phase correlation with its half-Hermitian FFTW filters, translation resampling; recursive Gaussian Hessians and
/// HessianToObjectness with float tensors; connected components, binary thinning; Maurer's distance. Threads inside each filter.

#include <itkBinaryThinningImageFilter.h>
#include <itkBinaryThresholdImageFilter.h>
#include <itkConnectedComponentImageFilter.h>
#include <itkFFTWHalfHermitianToRealInverseFFTImageFilter.h>
#include <itkFFTWRealToHalfHermitianForwardFFTImageFilter.h>
#include <itkHessianRecursiveGaussianImageFilter.h>
#include <itkHessianToObjectnessMeasureImageFilter.h>
#include <itkImage.h>
#include <itkImportImageFilter.h>
#include <itkLinearInterpolateImageFunction.h>
#include <itkMaximumImageFilter.h>
#include <itkMultiThreaderBase.h>
#include <itkNearestNeighborExtrapolateImageFunction.h>
#include <itkResampleImageFilter.h>
#include <itkSignedMaurerDistanceMapImageFilter.h>
#include <itkSubtractImageFilter.h>
#include <itkTranslationTransform.h>

#include <cmath>
#include <complex>

#include "peer.h"

namespace {

using namespace peers;

using FloatImage = itk::Image<float, 2>;
using ByteImage = itk::Image<std::uint8_t, 2>;
using LabelImage = itk::Image<int, 2>;
using Spectrum = itk::Image<std::complex<float>, 2>;
using Hessian = itk::Image<itk::SymmetricSecondRankTensor<float, 2>, 2>;

// Runs a filter and takes its output away from it.
template <class Filter>
auto output_of(const Filter& filter) {
  filter->Update();
  using Image = std::remove_pointer_t<decltype(filter->GetOutput())>;
  const typename Image::Pointer image = filter->GetOutput();
  image->DisconnectPipeline();
  return image;
}

class Itk {
 public:
  using Plane = FloatImage::Pointer;
  using Mask = ByteImage::Pointer;

  Itk(const Cine& cine, const Options& options) : cine_(cine), options_(options) {
    itk::MultiThreaderBase::SetGlobalMaximumNumberOfThreads(static_cast<unsigned>(options.threads));
    itk::MultiThreaderBase::SetGlobalDefaultNumberOfThreads(static_cast<unsigned>(options.threads));
    itk::FFTWGlobalConfiguration::SetPlanRigor(FFTW_ESTIMATE);
    const auto hann = [](int i, int size) { return 0.5 - 0.5 * std::cos(2 * M_PI * i / (size - 1)); };
    for (int y = 0; y < cine.height; ++y)
      for (int x = 0; x < cine.width; ++x) window_.push_back(static_cast<float>(hann(y, cine.height) * hann(x, cine.width)));
  }

  Plane plane(const float* pixels) const { return wrap<FloatImage>(pixels); }
  Mask mask(const std::uint8_t* pixels) const { return wrap<ByteImage>(pixels); }
  const float* pixels(const Plane& plane) const { return plane->GetBufferPointer(); }
  const std::uint8_t* pixels(const Mask& mask) const { return mask->GetBufferPointer(); }

  void make_mask() {
    mask_ = logarithm(cine_.mask_frames.front());
    const Spectrum::Pointer first = transform(mask_);
    for (std::size_t i = 1; i < cine_.mask_frames.size(); ++i) {
      const Plane next = logarithm(cine_.mask_frames[i]);
      const Shift by = shift(first, transform(next));
      const Plane laid = moved(next, {-by.x, -by.y});
      for (std::size_t k = 0; k < cine_.pixels(); ++k) mask_->GetBufferPointer()[k] += laid->GetBufferPointer()[k];
    }
    for (std::size_t k = 0; k < cine_.pixels(); ++k) mask_->GetBufferPointer()[k] /= static_cast<float>(cine_.mask_frames.size());
    mask_spectrum_ = transform(mask_);
  }
  Plane subtract(int frame, Shift* found) const {
    const Plane live = logarithm(frame);
    const Shift by = shift(mask_spectrum_, transform(live));
    if (found) *found = by;
    const auto difference = itk::SubtractImageFilter<FloatImage, FloatImage, FloatImage>::New();
    difference->SetInput1(moved(mask_, by));
    difference->SetInput2(live);
    return output_of(difference);
  }
  Plane vesselness(const Plane& image) const {
    Plane best;
    for (const double sigma : cine_.sigmas) {
      const auto hessian = itk::HessianRecursiveGaussianImageFilter<FloatImage, Hessian>::New();
      hessian->SetInput(image);
      hessian->SetSigma(sigma);
      hessian->SetNormalizeAcrossScale(true);
      const auto measure = itk::HessianToObjectnessMeasureImageFilter<Hessian, FloatImage>::New();
      measure->SetInput(hessian->GetOutput());
      measure->SetObjectDimension(1);
      measure->SetBrightObject(true);
      measure->SetBeta(cine_.frangi_beta);
      measure->SetGamma(cine_.frangi_c);
      measure->SetScaleObjectnessMeasure(false);
      const Plane response = output_of(measure);
      if (!best) {
        best = response;
        continue;
      }
      const auto larger = itk::MaximumImageFilter<FloatImage, FloatImage, FloatImage>::New();
      larger->SetInput1(best);
      larger->SetInput2(response);
      best = output_of(larger);
    }
    return best;
  }
  Segmentation<Mask> segment(const Plane& response) const {
    const auto threshold = itk::BinaryThresholdImageFilter<FloatImage, ByteImage>::New();
    threshold->SetInput(response);
    threshold->SetLowerThreshold(static_cast<float>(options_.low));
    threshold->SetInsideValue(1);
    threshold->SetOutsideValue(0);
    const auto components = itk::ConnectedComponentImageFilter<ByteImage, LabelImage>::New();
    components->SetInput(threshold->GetOutput());
    components->FullyConnectedOn();
    const LabelImage::Pointer labelled = output_of(components);
    const int* const labels = labelled->GetBufferPointer();
    const float* const values = response->GetBufferPointer();
    std::vector<int> area(components->GetObjectCount() + 1, 0);
    std::vector<std::uint8_t> keep(area.size(), 0);
    for (std::size_t i = 0; i < cine_.pixels(); ++i) {
      ++area[static_cast<std::size_t>(labels[i])];
      if (static_cast<double>(values[i]) > options_.high) keep[static_cast<std::size_t>(labels[i])] = 1;
    }
    keep[0] = 0;
    for (std::size_t i = 1; i < keep.size(); ++i)
      if (area[i] < options_.least_area) keep[i] = 0;
    const Mask mask = fresh<ByteImage>();
    for (std::size_t i = 0; i < cine_.pixels(); ++i) mask->GetBufferPointer()[i] = keep[static_cast<std::size_t>(labels[i])];
    const auto thinning = itk::BinaryThinningImageFilter<ByteImage, ByteImage>::New();
    thinning->SetInput(mask);
    return {mask, output_of(thinning)};
  }
  std::vector<float> diameters(const Mask& mask, const Mask& skeleton) const {
    const auto maurer = itk::SignedMaurerDistanceMapImageFilter<ByteImage, FloatImage>::New();
    maurer->SetInput(mask);
    maurer->SetInsideIsPositive(true);
    maurer->SetSquaredDistance(false);
    maurer->SetUseImageSpacing(false);
    maurer->SetBackgroundValue(0);
    const Plane distance = output_of(maurer);
    std::vector<float> result;
    for (int y = 0; y < cine_.height; ++y)
      for (int x = 0; x < cine_.width; ++x) {
        const std::size_t i = static_cast<std::size_t>(y) * cine_.width + x;
        // It is 0 on the object's own edge pixels.
        if (skeleton->GetBufferPointer()[i])
          result.insert(result.end(), {static_cast<float>(x), static_cast<float>(y), 2 * distance->GetBufferPointer()[i] + 1});
      }
    return result;
  }
  void each(int count, const std::function<void(int)>& body) const {
    for (int i = 0; i < count; ++i) body(i);
  }

 private:
  template <class Image>
  typename Image::RegionType region() const {
    typename Image::RegionType result;
    result.SetSize(0, static_cast<itk::SizeValueType>(cine_.width));
    result.SetSize(1, static_cast<itk::SizeValueType>(cine_.height));
    return result;
  }
  template <class Image>
  typename Image::Pointer fresh() const {
    const auto image = Image::New();
    image->SetRegions(region<Image>());
    image->Allocate();
    return image;
  }
  template <class Image>
  typename Image::Pointer wrap(const typename Image::PixelType* pixels) const {
    const auto import = itk::ImportImageFilter<typename Image::PixelType, 2>::New();
    import->SetRegion(region<Image>());
    import->SetImportPointer(const_cast<typename Image::PixelType*>(pixels), cine_.pixels(), false);
    return output_of(import);
  }
  Plane logarithm(int frame) const {
    const Plane result = fresh<FloatImage>();
    for (std::size_t i = 0; i < cine_.pixels(); ++i)
      result->GetBufferPointer()[i] = std::log(static_cast<float>(cine_.frame(frame)[i]) + 1);
    return result;
  }
  Spectrum::Pointer transform(const Plane& image) const {
    double sum = 0;
    for (std::size_t i = 0; i < cine_.pixels(); ++i) sum += image->GetBufferPointer()[i];
    const float mean = static_cast<float>(sum / static_cast<double>(cine_.pixels()));
    const Plane windowed = fresh<FloatImage>();
    for (std::size_t i = 0; i < cine_.pixels(); ++i) windowed->GetBufferPointer()[i] = (image->GetBufferPointer()[i] - mean) * window_[i];
    const auto forward = itk::FFTWRealToHalfHermitianForwardFFTImageFilter<FloatImage>::New();
    forward->SetInput(windowed);
    return output_of(forward);
  }
  Shift shift(const Spectrum::Pointer& from, const Spectrum::Pointer& to) const {
    const auto cross = Spectrum::New();
    cross->SetRegions(from->GetLargestPossibleRegion());
    cross->Allocate();
    const std::size_t count = from->GetLargestPossibleRegion().GetNumberOfPixels();
    for (std::size_t i = 0; i < count; ++i) {
      const std::complex<float> a = to->GetBufferPointer()[i], b = from->GetBufferPointer()[i];
      const float re = a.real() * b.real() + a.imag() * b.imag(), im = a.imag() * b.real() - a.real() * b.imag();
      const float over = 1 / (std::sqrt(re * re + im * im) + 1e-20f);
      cross->GetBufferPointer()[i] = {re * over, im * over};
    }
    const auto backward = itk::FFTWHalfHermitianToRealInverseFFTImageFilter<Spectrum>::New();
    backward->SetInput(cross);
    backward->SetActualXDimensionIsOdd(cine_.width % 2 == 1);
    const Plane correlation = output_of(backward);
    const float* const c = correlation->GetBufferPointer();
    const int peak = static_cast<int>(std::max_element(c, c + cine_.pixels()) - c), width = cine_.width, height = cine_.height;
    const int y = peak / width, x = peak % width;
    const auto value = [&](int yy, int xx) { return c[(yy + height) % height * width + (xx + width) % width]; };
    const auto parabola = [](double left, double middle, double right) {
      const double curve = left - 2 * middle + right;
      return curve != 0 ? 0.5 * (left - right) / curve : 0;
    };
    return {(x > width / 2 ? x - width : x) + parabola(value(y, x - 1), value(y, x), value(y, x + 1)),
            (y > height / 2 ? y - height : y) + parabola(value(y - 1, x), value(y, x), value(y + 1, x))};
  }
  Plane moved(const Plane& image, const Shift& by) const {
    const auto translation = itk::TranslationTransform<double, 2>::New();
    itk::TranslationTransform<double, 2>::OutputVectorType offset;
    offset[0] = -by.x;
    offset[1] = -by.y;
    translation->Translate(offset);
    const auto resample = itk::ResampleImageFilter<FloatImage, FloatImage>::New();
    resample->SetInput(image);
    resample->SetTransform(translation);
    resample->SetReferenceImage(image);
    resample->UseReferenceImageOn();
    resample->SetInterpolator(itk::LinearInterpolateImageFunction<FloatImage, double>::New());
    resample->SetExtrapolator(itk::NearestNeighborExtrapolateImageFunction<FloatImage, double>::New());
    return output_of(resample);
  }

  const Cine& cine_;
  const Options& options_;
  std::vector<float> window_;
  Plane mask_;
  Spectrum::Pointer mask_spectrum_;
};

}  // namespace

int main(int argc, char** argv) { return run_peer<Itk>("itk", argc, argv); }
