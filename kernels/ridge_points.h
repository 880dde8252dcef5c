#pragma once
/// Single points on ridges: collecting them from a skeleton, moving them onto the ridge, reading images across them (methods.md 4 and 6).

#include <cstdint>
#include <vector>

#include "image.h"
#include "stream.h"

namespace cinelumen {

/// A set pixel of a skeleton with what the vesselness says there.
struct SkeletonPixel {
  int y = 0, x = 0;
  float z = 0, angle = 0, scale_px = 0;
};

/// The nonzero pixels of `skeleton` in raster order with z, angle and scale_px at each; all images of one size, in the stream's memory.
/// The result is complete on return. Throws std::invalid_argument where the sizes differ.
std::vector<SkeletonPixel> collect_skeleton(const Stream& stream, ImageView<const std::uint8_t> skeleton, ImageView<const float> z,
                                            ImageView<const float> angle, ImageView<const float> scale_px);

/// A point to be moved along its normal onto the ridge, and what came of it.
struct RidgePoint {
  float y = 0, x = 0;                ///< in: where to start; out: where it ended
  float normal_y = 0, normal_x = 1;  ///< unit vector across the vessel
  float sigma_px = 1;                ///< scale of the Gaussian derivatives across the vessel, limited to 0.5 to 8
  float along_sigma_px = 1;          ///< and along it, the same limits: larger is less noisy, but pulls bends inwards
  float moved_px = 0;                ///< out: sum of the steps, signed along the normal
  float last_step_px = 0;            ///< out: the last step before it was limited; infinite where there is no bright ridge
};

/// Moves each point of `points` (the stream's memory) by up to `steps` Newton steps t = -(n.grad L) / (n'Hn) along its normal, each limited
/// to max_step_px, L being `image` smoothed by a Gaussian of these scales about the current sub-pixel position. Borders are mirrored.
/// Steger, "An unbiased detector of curvilinear structures", IEEE PAMI 20 (1998), with the normal given.
/// Throws std::invalid_argument unless steps >= 1, max_step_px > 0 and the image is not empty.
void refine_ridge_points(const Stream& stream, ImageView<const float> image, ArrayView<RidgePoint> points, int steps, float max_step_px);

/// Where to read an image across a line: centre and unit normal.
struct CrossSection {
  float y = 0, x = 0;
  float normal_y = 0, normal_x = 1;
};

/// samples(i, k) = image at sections[i] + (k - (samples.width - 1) / 2) step_px along its normal, by Catmull-Rom interpolation; NaN
/// where that is outside the image (beyond the centres of its border pixels). samples is sections.size rows; all in the stream's memory.
/// Throws std::invalid_argument where the sizes differ or step_px <= 0.
void sample_across(const Stream& stream, ImageView<const float> image, ArrayView<const CrossSection> sections, float step_px,
                   ImageView<float> samples);

/// A section in px as one of an image of `scale` pixels per px.
CINELUMEN_HOST_DEVICE inline CrossSection scaled(const CrossSection& section, float scale) {
  return {section.y * scale, section.x * scale, section.normal_y, section.normal_x};
}

/// What brings image / divisor back to the image's units: the divisor at the section, 0.5 at least. One factor for all of a section, so
/// that its maximum stays where it is.
CINELUMEN_HOST_DEVICE inline float usual_divisor(ImageView<const float> divisor, const CrossSection& section) {
  const float y = section.y > 0 ? section.y + 0.5f : 0.0f, x = section.x > 0 ? section.x + 0.5f : 0.0f;
  const int row = y < static_cast<float>(divisor.height) ? static_cast<int>(y) : divisor.height - 1;
  const int column = x < static_cast<float>(divisor.width) ? static_cast<int>(x) : divisor.width - 1;
  const float at = divisor.row(row)[column];
  return at > 0.5f ? at : 0.5f;
}

/// A maximum across a line.
struct CrossPeak {
  float offset_px = 0;     ///< in: where to look, not finite: nowhere; out: where it is, along the normal
  float value = 0;         ///< out: of the image there, or of image / divisor times usual_divisor()
  std::int32_t found = 0;  ///< out: 1 where it is a maximum above the least value, with both neighbours inside the image
};

/// Which peaks to look at, and how.
struct LocateOptions {
  float least_value = -3e38f;    ///< a peak is above that
  bool divided = false;          ///< the image has been divided by the divisor already
  float pixel_px = 1;            ///< size of a pixel of the image in the sections' px, > 0
  ArrayView<const int> which{};  ///< numbers of the sections to look at, without data: all
};

/// From each peak's offset up to the nearest maximum of samples step_px apart, four steps at most, then the vertex of the parabola
/// through it and its neighbours. Samples are of image / divisor (same size, positive, or without data), divided before the Catmull-Rom
/// interpolation. peaks: one per section; all in the stream's memory. Throws as sample_across, and where pixel_px <= 0.
void locate_peaks_across(const Stream& stream, ImageView<const float> image, ImageView<const float> divisor,
                         ArrayView<const CrossSection> sections, float step_px, ArrayView<CrossPeak> peaks,
                         const LocateOptions& options = {});

}  // namespace cinelumen
