// SPDX-License-Identifier: Apache-2.0
/// OpenCV: phaseCorrelate, warpAffine; derivatives of Gaussians with sepFilter2D (`--variant blur`: one GaussianBlur a scale and 3 x 3
/// differences); connected components and ximgproc's thinning; distance transform. OpenCV has no eigenvalues of planes: that loop is ours
/// and vectorises. It has no threads inside most of these, so several frames are worked on at once.

#include <cmath>
#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>
#include <opencv2/ximgproc.hpp>

#include "peer.h"

namespace {

using namespace peers;

constexpr double truncate_sigmas = 4;

cv::Mat moved(const cv::Mat& image, const cv::Point2d& by) {
  const cv::Mat motion = (cv::Mat_<double>(2, 3) << 1, 0, by.x, 0, 1, by.y);
  cv::Mat result;
  cv::warpAffine(image, result, motion, image.size(), cv::INTER_LINEAR, cv::BORDER_REPLICATE);
  return result;
}

struct Derivatives {
  cv::Mat xx, xy, yy;
};

Derivatives by_separable_filters(const cv::Mat& image, double sigma) {
  const int radius = static_cast<int>(truncate_sigmas * sigma + 0.5);
  cv::Mat g(2 * radius + 1, 1, CV_32F), g1 = g.clone(), g2 = g.clone();
  double sum = 0;
  for (int i = -radius; i <= radius; ++i) sum += std::exp(-0.5 * i * i / (sigma * sigma));
  for (int i = -radius; i <= radius; ++i) {
    const double weight = std::exp(-0.5 * i * i / (sigma * sigma)) / sum, u = i / sigma;
    g.at<float>(i + radius) = static_cast<float>(weight);
    g1.at<float>(i + radius) = static_cast<float>(u / sigma * weight);
    g2.at<float>(i + radius) = static_cast<float>((u * u - 1) / (sigma * sigma) * weight);
  }
  Derivatives d;
  cv::sepFilter2D(image, d.xx, CV_32F, g2, g, {-1, -1}, 0, cv::BORDER_REFLECT);
  cv::sepFilter2D(image, d.yy, CV_32F, g, g2, {-1, -1}, 0, cv::BORDER_REFLECT);
  cv::sepFilter2D(image, d.xy, CV_32F, g1, g1, {-1, -1}, 0, cv::BORDER_REFLECT);
  return d;
}

Derivatives by_blur_and_differences(const cv::Mat& image, double sigma) {
  static const cv::Mat second = (cv::Mat_<float>(1, 3) << 1, -2, 1), first = (cv::Mat_<float>(1, 3) << -0.5f, 0, 0.5f),
                       none = (cv::Mat_<float>(1, 1) << 1);
  const int size = 2 * static_cast<int>(truncate_sigmas * sigma + 0.5) + 1;
  cv::Mat blurred;
  cv::GaussianBlur(image, blurred, {size, size}, sigma, sigma, cv::BORDER_REFLECT);
  Derivatives d;
  cv::sepFilter2D(blurred, d.xx, CV_32F, second, none, {-1, -1}, 0, cv::BORDER_REFLECT);
  cv::sepFilter2D(blurred, d.yy, CV_32F, none, second, {-1, -1}, 0, cv::BORDER_REFLECT);
  cv::sepFilter2D(blurred, d.xy, CV_32F, first, first, {-1, -1}, 0, cv::BORDER_REFLECT);
  return d;
}

// Arguments of exp are clamped: libmvec's drops to a slow path where one lane underflows.
void frangi_row(int width, const float* __restrict xx, const float* __restrict xy, const float* __restrict yy, float* __restrict best,
                float square, float over_beta, float over_c) {
#pragma GCC ivdep
  for (int x = 0; x < width; ++x) {
    const float mean = 0.5f * square * (xx[x] + yy[x]), half = 0.5f * square * (xx[x] - yy[x]), mixed = square * xy[x];
    const float radius = std::sqrt(half * half + mixed * mixed), low = mean - radius, high = mean + radius;
    float blob = high * high / (low * low + 1e-20f), norm = (high * high + low * low) * over_c;
    blob = blob < 1 ? blob : 1;
    norm = norm < 30 ? norm : 30;
    float value = std::exp(-blob * over_beta) * (1 - std::exp(-norm));
    value = mean < 0 ? value : 0;
    best[x] = best[x] > value ? best[x] : value;
  }
}

class OpenCv {
 public:
  using Plane = cv::Mat;
  using Mask = cv::Mat;

  OpenCv(const Cine& cine, const Options& options) : cine_(cine), options_(options) { cv::setNumThreads(options.threads); }

  cv::Mat plane(const float* pixels) const { return {cine_.height, cine_.width, CV_32F, const_cast<float*>(pixels)}; }
  cv::Mat mask(const std::uint8_t* pixels) const { return {cine_.height, cine_.width, CV_8U, const_cast<std::uint8_t*>(pixels)}; }
  template <class Image>
  auto pixels(const Image& image) const {
    return Pixels{image};
  }

  void make_mask() {
    cv::createHanningWindow(window_, {cine_.width, cine_.height}, CV_32F);
    const cv::Mat first = logarithm(cine_.mask_frames.front());
    mask_ = first.clone();
    for (std::size_t i = 1; i < cine_.mask_frames.size(); ++i) {
      const cv::Mat next = logarithm(cine_.mask_frames[i]);
      mask_ += moved(next, -shift(first, next));
    }
    mask_ /= static_cast<double>(cine_.mask_frames.size());
  }
  cv::Mat subtract(int frame, Shift* found) const {
    const cv::Mat live = logarithm(frame);
    const cv::Point2d by = shift(mask_, live);
    if (found) *found = {by.x, by.y};
    return moved(mask_, by) - live;
  }
  cv::Mat vesselness(const cv::Mat& image) const {
    const auto over = [](double value) { return static_cast<float>(0.5 / (value * value)); };
    cv::Mat best = cv::Mat::zeros(image.size(), CV_32F);
    for (const double sigma : cine_.sigmas) {
      const Derivatives d = options_.variant == "blur" ? by_blur_and_differences(image, sigma) : by_separable_filters(image, sigma);
      for (int y = 0; y < image.rows; ++y)
        frangi_row(image.cols, d.xx.ptr<float>(y), d.xy.ptr<float>(y), d.yy.ptr<float>(y), best.ptr<float>(y),
                   static_cast<float>(sigma * sigma), over(cine_.frangi_beta), over(cine_.frangi_c));
    }
    return best;
  }
  Segmentation<cv::Mat> segment(const cv::Mat& response) const {
    cv::Mat labels, statistics, centroids;
    const int count = cv::connectedComponentsWithStats(response > options_.low, labels, statistics, centroids, 8, CV_32S);
    std::vector<std::uint8_t> keep(static_cast<std::size_t>(count), 0);
    for (int y = 0; y < response.rows; ++y)
      for (int x = 0; x < response.cols; ++x)
        if (response.ptr<float>(y)[x] > options_.high) keep[static_cast<std::size_t>(labels.ptr<int>(y)[x])] = 1;
    keep[0] = 0;
    for (int i = 1; i < count; ++i)
      if (statistics.at<int>(i, cv::CC_STAT_AREA) < options_.least_area) keep[static_cast<std::size_t>(i)] = 0;
    Segmentation<cv::Mat> result{cv::Mat(response.size(), CV_8U), {}};
    for (int y = 0; y < response.rows; ++y)
      for (int x = 0; x < response.cols; ++x) result.mask.ptr(y)[x] = keep[static_cast<std::size_t>(labels.ptr<int>(y)[x])] ? 255 : 0;
    cv::ximgproc::thinning(result.mask, result.skeleton, cv::ximgproc::THINNING_ZHANGSUEN);
    return result;
  }
  std::vector<float> diameters(const cv::Mat& mask, const cv::Mat& skeleton) const {
    cv::Mat distance;
    cv::distanceTransform(mask, distance, cv::DIST_L2, cv::DIST_MASK_PRECISE);
    std::vector<float> result;
    for (int y = 0; y < mask.rows; ++y)
      for (int x = 0; x < mask.cols; ++x)
        if (skeleton.ptr(y)[x])
          result.insert(result.end(), {static_cast<float>(x), static_cast<float>(y), 2 * distance.ptr<float>(y)[x] - 1});
    return result;
  }
  void each(int count, const std::function<void(int)>& body) const {
    cv::parallel_for_(
        {0, count},
        [&](const cv::Range& range) {
          for (int i = range.start; i < range.end; ++i) body(i);
        },
        count);
  }

 private:
  // A plane or a mask, as whichever type it is.
  struct Pixels {
    const cv::Mat& image;
    operator const float*() const { return image.ptr<float>(); }
    operator const std::uint8_t*() const { return image.ptr(); }
  };
  cv::Mat logarithm(int frame) const {
    const cv::Mat stored(cine_.height, cine_.width, CV_16U, const_cast<std::uint16_t*>(cine_.frame(frame)));
    cv::Mat result;
    stored.convertTo(result, CV_32F, 1, 1);
    cv::log(result, result);
    return result;
  }
  cv::Point2d shift(const cv::Mat& from, const cv::Mat& to) const {
    return cv::phaseCorrelate(from - cv::mean(from)[0], to - cv::mean(to)[0], window_);
  }

  const Cine& cine_;
  const Options& options_;
  cv::Mat window_, mask_;
};

}  // namespace

int main(int argc, char** argv) { return run_peer<OpenCv>("opencv", argc, argv); }
