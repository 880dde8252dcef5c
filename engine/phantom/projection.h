#pragma once
/// The beam's way through vessels and background to the detector's plane, without noise.

#include <memory>
#include <vector>

#include "engine/phantom/displacement.h"
#include "engine/phantom/filling.h"
#include "engine/phantom/phantom.h"
#include "engine/phantom/scene.h"

namespace cinelumen::phantom {

/// Blur between the object and the stored pixel: square focal spot, two-Gaussian scintillator, pixel aperture; all in px.
struct PointSpread {
  double focal_px = 0;
  std::array<double, 2> sigma_px{}, weight{};

  /// One-dimensional profile of part `gaussian` at distance u_px, with focal spot and pixel aperture; integral 1.
  double profile(int gaussian, double u_px) const;
  /// Response to an edge at 0, without the pixel's aperture; rises from 0 to 1.
  double edge(double u_px) const;
  /// SD of the Gaussian with the same 25 to 75 % rise.
  double edge_sigma_px() const;
};

/// One point of a projected vessel, frame 0.
struct ProjectedPoint {
  double y = 0, x = 0, tangent_y = 0, tangent_x = 1;
  double radius_px = 0, radius_mm = 0;  ///< half width across the ray
  double depth_mm = 0;
  double path_factor = 1;  ///< chord of the ray through the axis / width
  double arc_mm = 0;
  double shear = 0;  ///< of an ellipse that lies aslant: mm of depth that the chord's middle moves per mm across the ray
  double area_mm2 = 0;
  double healthy_radius_mm = 0;  ///< `radius_mm` without narrowing
  double hydraulic_mm2 = 0;      ///< the section that the flow sees
  double place_mm = 0;           ///< along the edge as drawn, without what lesions do to its axis
};

/// Points about `step_px` apart along the projection of an edge, first and last at its nodes.
std::vector<ProjectedPoint> project(const Edge& edge, const ConeBeam& beam, double step_px);

/// A ball at a node: it closes the wedge between tubes that meet there.
struct Joint {
  ProjectedPoint at;
  int edge = 0, point = 0;  ///< whose concentration fills it
};

/// Renders expected detector signals of a moved, partly filled scene. Const calls may run at the same time.
class Projector {
 public:
  /// `attenuation`: see Scene. `vessels`: their points.
  Projector(ImageView<const float> attenuation, int margin, int rows, int columns, PointSpread spread,
            std::vector<std::vector<ProjectedPoint>> vessels, std::vector<Joint> joints);

  /// Transmitted fraction of the primary beam in each pixel (rows x columns). `attenuation_per_mm`: at each point of each vessel, zero
  /// where there is no contrast. `fills`: how it fills the sections, for each vessel either nothing (all over) or one for each point;
  /// shorter than the list of vessels: nothing for the rest. `calibre`: the lumen's width relative to the points', in the same way.
  Image<float> transmission(const Displacement& motion, const std::vector<std::vector<float>>& attenuation_per_mm,
                            const std::vector<std::vector<SectionFill>>& fills = {},
                            const std::vector<std::vector<float>>& calibre = {}) const;

 private:
  struct Scratch;
  /// What of the scene lies at each pixel of a frame.
  class SceneMap;
  double background(ImageView<const float> coefficients, double y, double x) const;
  void subtract_vessels(const Displacement& motion, const std::vector<std::vector<float>>& attenuation_per_mm,
                        const std::vector<std::vector<SectionFill>>& fills, const std::vector<std::vector<float>>& calibre,
                        const SceneMap& scene, Image<float>& image) const;

  Image<float> sharp_, blurred_;
  int margin_, rows_, columns_;
  PointSpread spread_;
  std::vector<std::vector<ProjectedPoint>> vessels_;
  std::vector<Joint> joints_;
  int reach_px_ = 0;
  std::array<std::vector<float>, 2> fine_taps_;
};

}  // namespace cinelumen::phantom
