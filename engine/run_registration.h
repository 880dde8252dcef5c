#pragma once
/// Where one run's picture lies in another's: registration on what both show without contrast, which is bone (methods.md 6).

#include <array>
#include <cstdint>
#include <string>

#include "engine/smooth_displacement.h"
#include "kernels/image.h"

namespace cinelumen {

/// Where the reference run's mask coordinates lie in another run's: p goes to affine (p + displacement(p)) + shift.
struct RunRegistration {
  std::array<std::array<double, 2>, 2> affine = {{{1, 0}, {0, 1}}};  ///< of (y, x): reference px -> run px
  std::array<double, 2> shift = {0, 0};                              ///< (y, x), run px
  SmoothDisplacement displacement;  ///< what parallax leaves, reference px, over the reference's picture; may be empty
  double rotation_deg = 0;          ///< of the affine part, positive from +x to +y
  double scale = 1;                 ///< run px per reference px: square root of the affine part's determinant
  double correlation =
      0;  ///< of the two pictures, each normalised by its neighbourhood: the middle one of the common field's structured parts; -1 to 1
  double agreement = 0;     ///< share of those parts that correlate by themselves; 0 to 1
  double common_share = 0;  ///< of the reference's field that lies in the other's
  bool reliable = false;    ///< false: do not use it
  std::string note;         ///< in words why it is not reliable; else empty

  /// (y, x) in the run's mask, px, of a place of the reference's mask; also beyond the field.
  std::array<double, 2> forward(double y, double x) const {
    const std::array<double, 2> d = displacement.at(y, x);
    const double v = y + d[0], u = x + d[1];
    return {affine[0][0] * v + affine[0][1] * u + shift[0], affine[1][0] * v + affine[1][1] * u + shift[1]};
  }
};

/// How far pictures may lie apart, and what must agree.
struct RunRegistrationOptions {
  double largest_shift = 0.25;  ///< of the longer side: of the picture's middle
  double largest_rotation_deg = 8;
  double largest_scale_change = 0.08;  ///< either way from the expected scale
  double lattice_share = 1.0 / 8;      ///< spacing of the residual displacement's nodes, of the longer side; 0: affine only
  double bend_share = 0.002;       ///< SD of a bend of that displacement from node to node, of the longer side: parallax of a 3 degree tilt
  double least_correlation = 0.5;  ///< below: not reliable
  double least_agreement = 0.55;   ///< below: not reliable
  double least_common_share = 0.4;  ///< below: not reliable
};

/// Registers two contrast-free pictures (log attenuation, host memory, each run's own pixels; the sizes may differ) on what both show.
/// valid: of its picture's size, nonzero where it may be read, or without data: everywhere. pixel_ratio: run px per reference px to be
/// expected of the same thing, from both calibrations and magnifications; 1 where nothing is known; > 0.
/// An exhaustive search over shift, rotation and scale on a picture of about 32 px, then robust Gauss-Newton over a pyramid: similarity,
/// affine, and a smooth displacement. Pictures are normalised by mean and standard deviation of their neighbourhood, so that dose, tube
/// voltage and scatter do not count; residuals are bounded both ways, so that a device that only one picture shows tells little.
/// Deterministic; one thread. Never throws on account of what the pictures show: `reliable` and `note` tell. Throws std::invalid_argument
/// where a picture is smaller than 32 px, sizes of picture and valid differ, or pixel_ratio is not positive.
RunRegistration register_runs(ImageView<const float> reference_mask, ImageView<const std::uint8_t> reference_valid,
                              ImageView<const float> run_mask, ImageView<const std::uint8_t> run_valid, double pixel_ratio,
                              const RunRegistrationOptions& options = {});

}  // namespace cinelumen
