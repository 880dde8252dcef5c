#pragma once
/// Pictures of tubes with a known middle line: the chord of a cylinder, blurred, with noise.

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "kernels/image.h"

namespace cinelumen::test {

struct TubePoint {
  double y = 0, x = 0;
};

/// A vessel: its middle line, dense (0.2 px), and its radius. `group`: tubes of one group join (the larger chord counts), those of
/// different groups lie one behind the other (chords add up).
struct Tube {
  std::vector<TubePoint> line;
  double radius_px = 2;
  int group = 0;
};

/// A tube along curve(t), t in [0, 1].
inline Tube make_tube(const std::function<TubePoint(double)>& curve, double radius_px, int group = 0) {
  Tube tube{{}, radius_px, group};
  double length = 0;
  for (int i = 1; i <= 1000; ++i) {
    const TubePoint a = curve((i - 1) / 1000.0), b = curve(i / 1000.0);
    length += std::hypot(b.y - a.y, b.x - a.x);
  }
  const int count = static_cast<int>(length / 0.2) + 1;
  for (int i = 0; i <= count; ++i) tube.line.push_back(curve(static_cast<double>(i) / count));
  return tube;
}

/// A straight tube.
inline Tube straight_tube(TubePoint from, TubePoint to, double radius_px, int group = 0) {
  return make_tube([=](double t) { return TubePoint{from.y + t * (to.y - from.y), from.x + t * (to.x - from.x)}; }, radius_px, group);
}

/// Peak attenuation `contrast` in the middle of each tube (before the blur), Gaussian PSF, white noise, on a constant background.
inline Image<float> render_tubes(int height, int width, const std::vector<Tube>& tubes, double contrast, double psf_sigma_px,
                                 double noise_sd, unsigned seed, double background = 0.3) {
  constexpr int fine = 3;  // sub-pixels along each axis
  const int rows = height * fine, columns = width * fine;
  std::vector<double> sum(static_cast<std::size_t>(rows) * columns, 0);
  int groups = 0;
  for (const Tube& tube : tubes) groups = std::max(groups, tube.group + 1);
  for (int group = 0; group < groups; ++group) {
    std::vector<double> chord(sum.size(), 0);
    for (const Tube& tube : tubes) {
      if (tube.group != group) continue;
      for (const TubePoint& point : tube.line) {
        const double cy = (point.y + 0.5) * fine - 0.5, cx = (point.x + 0.5) * fine - 0.5, reach = tube.radius_px * fine;
        for (int y = std::max(0, static_cast<int>(cy - reach)); y <= std::min<double>(rows - 1, cy + reach); ++y)
          for (int x = std::max(0, static_cast<int>(cx - reach)); x <= std::min<double>(columns - 1, cx + reach); ++x) {
            const double d2 = ((y - cy) * (y - cy) + (x - cx) * (x - cx)) / (reach * reach);
            double& here = chord[static_cast<std::size_t>(y) * columns + x];
            if (d2 < 1) here = std::max(here, contrast * std::sqrt(1 - d2));
          }
      }
    }
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += chord[i];
  }
  std::vector<double> plane(static_cast<std::size_t>(height) * width, 0), blurred(plane.size());
  for (int y = 0; y < rows; ++y)
    for (int x = 0; x < columns; ++x)
      plane[static_cast<std::size_t>(y / fine) * width + x / fine] += sum[static_cast<std::size_t>(y) * columns + x] / (fine * fine);
  const int reach = static_cast<int>(std::ceil(4 * psf_sigma_px));
  std::vector<double> kernel;
  double total = 0;
  for (int k = -reach; k <= reach; ++k)
    total += kernel.emplace_back(psf_sigma_px > 0 ? std::exp(-0.5 * k * k / (psf_sigma_px * psf_sigma_px)) : 1);
  const auto blur = [&](const std::vector<double>& from, std::vector<double>& to, bool along_x) {
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        double value = 0;
        for (int k = -reach; k <= reach; ++k) {
          const int sy = std::clamp(along_x ? y : y + k, 0, height - 1), sx = std::clamp(along_x ? x + k : x, 0, width - 1);
          value += kernel[k + reach] / total * from[static_cast<std::size_t>(sy) * width + sx];
        }
        to[static_cast<std::size_t>(y) * width + x] = value;
      }
  };
  blur(plane, blurred, true);
  blur(blurred, plane, false);
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, 1);
  Image<float> image(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      image(y, x) = static_cast<float>(background + plane[static_cast<std::size_t>(y) * width + x] + noise_sd * normal(random));
  return image;
}

/// Distance from a point to the nearest of the tubes' middle lines, and which tube and where on it (0.2 px steps).
struct NearestOnTubes {
  double distance = 1e9;
  int tube = -1, index = -1;
};
inline NearestOnTubes nearest_on_tubes(const std::vector<Tube>& tubes, double y, double x) {
  NearestOnTubes nearest;
  for (int t = 0; t < static_cast<int>(tubes.size()); ++t)
    for (int i = 0; i + 1 < static_cast<int>(tubes[t].line.size()); ++i) {
      // To the chord between two points of the line: 0.2 px steps alone would cost up to 0.1 px.
      const TubePoint &a = tubes[t].line[i], &b = tubes[t].line[i + 1];
      const double uy = b.y - a.y, ux = b.x - a.x;
      const double share = std::clamp(((y - a.y) * uy + (x - a.x) * ux) / (uy * uy + ux * ux), 0.0, 1.0);
      const double d = std::hypot(a.y + share * uy - y, a.x + share * ux - x);
      if (d < nearest.distance) nearest = {d, t, i};
    }
  return nearest;
}

}  // namespace cinelumen::test
