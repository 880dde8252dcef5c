#pragma once
/// Middle lines where the ridge is not the middle: near branchings and crossings, beside another vessel, at the image's border.

#include <cstdint>

#include "engine/centreline.h"
#include "kernels/image.h"

namespace cinelumen {

/// What the refit takes for granted.
struct CentrelineFitOptions {
  float noise_sd = 0.01f;    ///< of one pixel of the image, > 0
  float psf_px = 0.7f;       ///< Gaussian SD of the point spread without the pixel
  int passes = 4;            ///< profile fits and curve, in turn
  float spline_knot_px = 5;  ///< knots of the smoothing spline
};

/// Refits a graph to its image (added attenuation, vessels bright, memory of the stream's device). Segments that continue one another
/// through a branch point are one vessel; where more than three meet, vessels that cross are told from those that branch by how they
/// continue. Across each vessel a blurred cylinder is fitted to the pixels, with radius and attenuation known from along the vessel: pixels
/// within a branch's lumen are left out, a crossing vessel's attenuation is subtracted. Where that fits nowhere, a lumen much narrower than
/// the vessel is, of the same attenuation and seen to end on both sides, is fitted by itself: a notch is no gap. A branch is carried on
/// from where its own lumen was last seen towards the middle line it joins, as the vessels of this image bend, and ends where its place is
/// expected to be known worse than 0.75 px: the branch point stays on the other's middle line. Points that no pixel speaks for are marked
/// `inferred`; `sd_px` is what a random course with this image's bends leaves open (0 where a vessel could not be fitted). What lies wholly
/// between two others and shows nowhere is left out. `z` is read anew. z, valid: of the image's size, valid 1 where the image may be read,
/// or without data. Synchronises the stream.
VesselGraph fit_centrelines(const Stream& stream, ImageView<const float> image, ImageView<const float> z,
                            ImageView<const std::uint8_t> valid, const VesselGraph& graph, const CentrelineFitOptions& options);

}  // namespace cinelumen
