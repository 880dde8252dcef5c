#include "engine/segment_follower.h"

#include <algorithm>

namespace cinelumen {
namespace {

constexpr float least_found = 0.5f;  // of a centreline's points: a vessel is where most of its ridge is

ArrayView<const int> view_of(const std::vector<int>& values) { return {values.data(), static_cast<int>(values.size())}; }

}  // namespace

SegmentFollower::SegmentFollower(const Stream& stream, const std::vector<Centreline>& centrelines, const RidgeSnapOptions& snap,
                                 const LumenOptions& lumen, bool local_background)
    : snap_(snap),
      local_background_(local_background),
      centrelines_(centrelines),
      first_(first_points_of(centrelines)),
      ridges_(stream, view_of(first_), snap),
      measurement_(stream, centrelines, lumen, ridges_.reach_px()) {
  make_memory(stream);
}

SegmentFollower::SegmentFollower(const Stream& stream, const SegmentFollower& other)
    : snap_(other.snap_),
      local_background_(other.local_background_),
      centrelines_(other.centrelines_),
      first_(other.first_),
      ridges_(stream, view_of(first_), snap_),
      measurement_(other.measurement_.another(stream)) {
  make_memory(stream);
}

SegmentFollower SegmentFollower::another(const Stream& stream) const { return SegmentFollower(stream, *this); }

void SegmentFollower::make_memory(const Stream& stream) {
  const std::vector<CrossSection> sections = sections_of(centrelines_);
  const int points = first_.back();
  Array<CrossSection> lines = Array<CrossSection>::staging(stream, points);
  Array<float> radii = Array<float>::staging(stream, points);
  std::copy(sections.begin(), sections.end(), lines.begin());
  int at = 0;
  for (const Centreline& centreline : centrelines_)
    for (const CentrelinePoint& point : centreline.points) radii[at++] = point.radius_px;
  lines_ = Array<CrossSection>(stream, points);
  placed_ = Array<CrossSection>(stream, points);
  radius_ = Array<float>(stream, points);
  copy<CrossSection>(stream, lines.view(), lines_.view());
  copy<float>(stream, radii.view(), radius_.view());
  contrast_on_host_ = Array<float>::staging(stream, points);
  if (stream.on_cuda()) contrast_ = Array<float>(stream, points);
  found_ = Array<std::int32_t>::staging(stream, static_cast<int>(centrelines_.size()));
  stream.synchronize();
}

void SegmentFollower::enqueue(const Stream& stream, const VesselnessMap& vesselness, ImageView<const float> subtracted,
                              const VarianceSource& variance, ImageView<const std::uint8_t> valid,
                              ArrayView<const FramePlacement> placement) {
  enqueue_place(stream, placement, subtracted.height, subtracted.width);
  enqueue_snap(stream, vesselness);
  enqueue_diameters(stream, subtracted, variance, valid);
  enqueue_contrast(stream, subtracted, valid);
}

void SegmentFollower::enqueue_place(const Stream& stream, ArrayView<const FramePlacement> placement, int height, int width,
                                    ImageView<std::int32_t> wanted, const DisplacementField& to_frame) {
  place_lines(stream, lines_.view(), placement, height, width, placed_.view(), to_frame);
  if (wanted.data) mark_squares(stream, placed_.view(), ridges_.reach_px(), wanted);
}

void SegmentFollower::enqueue_snap(const Stream& stream, const VesselnessMap& vesselness) {
  ridges_.find(stream, ridge_image_of(vesselness), placed_.view());
  ridges_.move(stream, placed_.view(), least_found);
  copy<std::int32_t>(stream, ridges_.found(), found_.view());
}

void SegmentFollower::enqueue_diameters(const Stream& stream, ImageView<const float> subtracted, const VarianceSource& variance,
                                        ImageView<const std::uint8_t> valid) {
  measurement_.enqueue(stream, subtracted, variance, valid, ridges_.moved());
}

void SegmentFollower::enqueue_contrast(const Stream& stream, ImageView<const float> subtracted, ImageView<const std::uint8_t> valid) {
  const ArrayView<float> contrast = stream.on_cuda() ? contrast_.view() : contrast_on_host_.view();
  sample_contrast(stream, subtracted, valid, ridges_.moved(), radius_.view(), local_background_, contrast);
  if (stream.on_cuda()) copy<float>(stream, contrast_.view(), contrast_on_host_.view());
}

std::vector<std::vector<float>> SegmentFollower::contrast() const {
  std::vector<std::vector<float>> result;
  for (std::size_t s = 0; s < centrelines_.size(); ++s)
    result.emplace_back(contrast_on_host_.begin() + first_[s], contrast_on_host_.begin() + first_[s + 1]);
  return result;
}

}  // namespace cinelumen
