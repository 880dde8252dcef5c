#include "engine/ridge_snap.h"

#include <algorithm>
#include <cmath>

#include "engine/lumen_measurement.h"
#include "kernels/error.h"

namespace cinelumen {
namespace {

template <class T>
Array<T> staged(const Stream& stream, const std::vector<T>& values) {
  Array<T> result = Array<T>::staging(stream, static_cast<int>(values.size()));
  std::copy(values.begin(), values.end(), result.begin());
  return result;
}

template <class T>
Array<T> upload(const Stream& stream, const std::vector<T>& values) {
  const Array<T> host = staged(stream, values);
  Array<T> result(stream, host.size());
  copy<T>(stream, host.view(), result.view());
  stream.synchronize();
  return result;
}

std::vector<std::vector<SnappedPoint>> snap(const Stream& stream, const RidgeImage& image, const std::vector<Centreline>& centrelines,
                                            const RidgeSnapOptions& options) {
  const Array<int> first = staged(stream, first_points_of(centrelines));
  RidgeFollower follower(stream, first.view(), options);
  const Array<CrossSection> lines = upload(stream, sections_of(centrelines));
  follower.find(stream, image, lines.view());
  Array<CrossPeak> peaks = Array<CrossPeak>::staging(stream, lines.size());
  copy<CrossPeak>(stream, follower.peaks(), peaks.view());
  stream.synchronize();
  std::vector<std::vector<SnappedPoint>> result(centrelines.size());
  int at = 0;
  for (std::size_t s = 0; s < centrelines.size(); ++s) {
    result[s].resize(centrelines[s].points.size());
    for (SnappedPoint& point : result[s]) {
      const CrossPeak& peak = peaks[at++];
      if (peak.found) point = {peak.offset_px, peak.value, true};
    }
  }
  return result;
}

}  // namespace

RidgeFollower::RidgeFollower(const Stream& stream, ArrayView<const int> first, const RidgeSnapOptions& options)
    : options_(options), first_(stream, first.size), scratch_(stream, first) {
  require(options.search_px > 0, "RidgeFollower: search_px must be positive");
  require(first.size > 0, "RidgeFollower: first needs the end, too");
  Array<int> host = Array<int>::staging(stream, first.size);
  std::copy(first.begin(), first.end(), host.begin());
  copy<int>(stream, host.view(), first_.view());
  const int points = first[first.size - 1];
  list_ = Array<int>(stream, points);
  rank_ = Array<int>(stream, points);
  peaks_ = Array<CrossPeak>(stream, points);
  offsets_ = Array<float>(stream, points);
  moved_ = Array<CrossSection>(stream, points);
  found_ = Array<std::int32_t>(stream, first.size - 1);
  stream.synchronize();
}

void RidgeFollower::find(const Stream& stream, const RidgeImage& image, ArrayView<const CrossSection> lines) {
  const RidgePathOptions options{options_.search_px, options_.minimum_z, options_.stiffness};
  find_ridge_paths(stream, image, first_.view(), lines, options, scratch_, peaks_.view());
  reject_lone_peaks(stream, first_.view(), peaks_.view(), list_.view());
}

void RidgeFollower::move(const Stream& stream, ArrayView<const CrossSection> lines, float least_share) {
  move_to_peaks(stream, first_.view(), lines, peaks_.view(), least_share, list_.view(), rank_.view(), offsets_.view(), moved_.view(),
                found_.view());
}

// Beyond the search a maximum may lie one sample, the climb to it, and a part of a step.
float RidgeFollower::reach_px() const { return options_.search_px + 5; }

RidgeImage ridge_image_of(const VesselnessMap& map) {
  if (map.ridge.empty()) return {map.z, map.scale_px, false, 1};
  return {map.ridge, map.scale_px, true, static_cast<float>(map.pixel_px)};
}

std::vector<std::vector<SnappedPoint>> snap_to_ridge(const Stream& stream, ImageView<const float> z,
                                                     const std::vector<Centreline>& centrelines, const RidgeSnapOptions& options) {
  return snap(stream, {.values = z}, centrelines, options);
}

std::vector<std::vector<SnappedPoint>> snap_to_ridge(const Stream& stream, const VesselnessMap& vesselness,
                                                     const std::vector<Centreline>& centrelines, const RidgeSnapOptions& options) {
  return snap(stream, ridge_image_of(vesselness), centrelines, options);
}

std::vector<SnappedPoint> snap_to_ridge(const Stream& stream, ImageView<const float> z, const Centreline& centreline, float search_px) {
  RidgeSnapOptions options;
  options.search_px = search_px;
  return std::move(snap_to_ridge(stream, z, std::vector<Centreline>{centreline}, options)[0]);
}

Centreline moved_to_ridge(const Centreline& centreline, const std::vector<SnappedPoint>& snapped) {
  require(centreline.points.size() == snapped.size(), "moved_to_ridge: one snapped point per centreline point is needed");
  const Stream stream = Stream::cpu({.parallel = false});
  const Array<int> first = staged(stream, first_points_of({centreline}));
  const Array<CrossSection> lines = staged(stream, sections_of({centreline}));
  RidgeFollower follower(stream, first.view(), {});
  for (int i = 0; i < lines.size(); ++i) follower.peaks()[i] = {snapped[i].offset_px, snapped[i].z, snapped[i].accepted ? 1 : 0};
  follower.move(stream, lines.view(), 0);
  Centreline result = centreline;
  for (int i = 0; i < lines.size(); ++i) {
    const CrossSection& moved = follower.moved()[i];
    CentrelinePoint& to = result.points[i];
    to.y = moved.y;
    to.x = moved.x;
    to.tangent_y = -moved.normal_x;
    to.tangent_x = moved.normal_y;
    to.z = snapped[i].accepted ? snapped[i].z : 0;
  }
  return result;
}

}  // namespace cinelumen
