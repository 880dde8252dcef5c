#pragma once
/// The classic rules for a lumen's edge in a profile, to compare the fit with (methods.md 5): none of them knows the point spread.

#include <optional>
#include <string>
#include <vector>

#include "kernels/image.h"

namespace cinelumen {

struct LumenPoint;

/// How a diameter is read from a profile.
enum class DiameterRule {
  fit,               ///< maximum-likelihood fit of the blurred cylinder
  fwhm,              ///< between the half maxima above the straight line through the profile's outer eighths
  first_derivative,  ///< between the steepest rise and the steepest fall
  mean_derivatives   ///< each edge half way from the steepest place to the sharpest bend outside it (second derivative)
};

/// "fit", "fwhm", "first-derivative", "mean-derivatives".
const char* to_string(DiameterRule rule);
/// The rule of that name. Throws std::invalid_argument.
DiameterRule parse_diameter_rule(const std::string& name);

/// What a report must say of diameters read by it; empty for the fit.
std::string caution(DiameterRule rule);

/// Diameter, in px, of the vessel in the middle of `profile`: attenuation at -half ... half px across it, step_px apart. Derivatives are
/// central differences over a pixel. Empty where an edge lies at the profile's end, and for DiameterRule::fit.
std::optional<double> read_diameter(DiameterRule rule, const std::vector<double>& profile, double step_px);

/// Replaces the diameters of used points by the rule's, read in `image` (host; the points' coordinates) across the fit's window: cubic
/// interpolation, mean over as many lines 1 px apart as the fit takes rows. Gates and SDs stay the fit's: the rules have none of their own.
/// A profile without two edges is not used (Exclusion::no_fit). psf_px: without the pixel.
void apply_rule(DiameterRule rule, ImageView<const float> image, double psf_px, int rows, std::vector<LumenPoint>& points);

}  // namespace cinelumen
