#pragma once
/// What stands in the beam: vessels as 3-D curves with radii, and the background's attenuation. One scenario, one function.

#include <array>
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "engine/phantom/bolus.h"
#include "engine/phantom/displacement.h"
#include "engine/phantom/filling.h"
#include "engine/phantom/phantom.h"
#include "kernels/image.h"

namespace cinelumen::phantom {

/// mm; x right, y down, z towards the source; the isocentre at 0.
struct Vec3 {
  double x = 0, y = 0, z = 0;
  Vec3 operator+(const Vec3& o) const { return {x + o.x, y + o.y, z + o.z}; }
  Vec3 operator-(const Vec3& o) const { return {x - o.x, y - o.y, z - o.z}; }
  Vec3 operator*(double s) const { return {x * s, y * s, z * s}; }
};
/// Vector algebra.
inline double dot(const Vec3& a, const Vec3& b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
inline Vec3 cross(const Vec3& a, const Vec3& b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }
inline double norm(const Vec3& a) { return std::sqrt(dot(a, a)); }
inline Vec3 unit(const Vec3& a) { return a * (1 / norm(a)); }

/// mm along a curve.
double length(const std::vector<Vec3>& curve);

/// Unit vectors along a curve at one of its points, and square to it and to the beam.
Vec3 axis_at(const std::vector<Vec3>& curve, std::size_t point);
Vec3 across(const Vec3& axis);

/// A rigid motion from the patient's coordinates to the room's.
class Placement3 {
 public:
  /// Rest.
  Placement3() = default;
  explicit Placement3(const PhantomPose& pose);

  /// The patient's point in the room.
  Vec3 to_room(const Vec3& p) const { return Vec3{dot(rows_[0], p), dot(rows_[1], p), dot(rows_[2], p)} + shift_; }
  /// The room's point in the patient.
  Vec3 to_patient(const Vec3& q) const { return turned_back(q - shift_); }
  /// The same for a direction.
  Vec3 turned_back(const Vec3& d) const { return rows_[0] * d.x + rows_[1] * d.y + rows_[2] * d.z; }

 private:
  std::array<Vec3, 3> rows_ = {Vec3{1, 0, 0}, Vec3{0, 1, 0}, Vec3{0, 0, 1}};
  Vec3 shift_;
};

/// A point source opposite a flat detector; the central ray meets the image's centre. All points and directions are the patient's, who may
/// lie otherwise than the scene was laid out.
struct ConeBeam {
  double source_to_detector_mm = 1000, source_to_isocentre_mm = 1000 / 1.2, pitch_mm = 0.154;
  double centre_y_px = 0, centre_x_px = 0;
  Placement3 patient = {};

  /// (y, x) in px.
  std::array<double, 2> project(const Vec3& p) const {
    const Vec3 q = patient.to_room(p);
    const double scale = source_to_detector_mm / (source_to_isocentre_mm - q.z) / pitch_mm;
    return {centre_y_px + scale * q.y, centre_x_px + scale * q.x};
  }
  /// Towards the source, from the isocentre's plane.
  double depth_mm(const Vec3& p) const { return patient.to_room(p).z; }
  /// The source as the patient sees it.
  Vec3 source() const { return patient.to_patient({0, 0, source_to_isocentre_mm}); }
  /// Unit vector from the source to the middle of a pixel.
  Vec3 ray(double y_px, double x_px) const {
    return patient.turned_back(unit({(x_px - centre_x_px) * pitch_mm, (y_px - centre_y_px) * pitch_mm, -source_to_detector_mm}));
  }
  /// Where a pixel's ray meets the plane through the patient's origin that lies in the isocentre's plane at rest: (y, x), mm.
  std::array<double, 2> in_plane(double y_px, double x_px) const {
    const Vec3 from = source(), direction = ray(y_px, x_px);
    const Vec3 at = from + direction * (-from.z / direction.z);
    return {at.y, at.x};
  }
  /// In the isocentre's plane.
  double mm_per_px() const { return pitch_mm * source_to_isocentre_mm / source_to_detector_mm; }
};

/// A point that a vessel passes through; vessels meet where they share a node's name (the first one given fixes its place and radius).
struct ControlPoint {
  Vec3 at;
  double radius_mm = 1;
  std::string node;
};

/// A narrowing. Its wall rises from both ends to full height, a cosine, over `shoulder` of half its length.
struct LesionPlan {
  std::string kind;                                    ///< as in PhantomLesion
  double centre_mm = 0, length_mm = 10, shoulder = 1;  ///< centre: along the whole vessel's plan, across nodes
  double narrowing = 0.5;                              ///< of the diameter; of an eccentric one: of the smaller axis
  double wider_axis = 1;                               ///< narrowing of the larger axis / that of the smaller; 1: round
  bool eccentric = false;                              ///< all of it from one side, so that the lumen's centre moves
  double angle_rad = 0;                                ///< of the smaller axis about the vessel's: 0 across the ray, pi / 2 along it
  bool develops = false;                               ///< it is not there at first, but comes within the run; concentric ones only
  double delay_ms = 0, rise_ms = 0;                    ///< how long after the run's onset it begins, and from then until it is full
};

/// A smooth rise over `rise_ms`: 0 to 1.
double risen(double since_ms, double rise_ms);

/// How much of a lesion has developed `since_onset_ms`: 0 to 1, smoothly; 1 where it does not develop.
double developed(const LesionPlan& lesion, double since_onset_ms);

/// Share of its full height that a narrowing has `arc_mm` along the vessel's plan: 0 to 1.
double height_of(const LesionPlan& lesion, double arc_mm);

/// A vessel from its first control point, a node, to its last, a node too.
struct VesselPlan {
  std::string name, role;
  std::vector<ControlPoint> points;
  std::vector<LesionPlan> lesions = {};
  FillingPlan filling = {};
};

/// Where blood enters or leaves.
struct TerminalPlan {
  std::string node;
  double inflow_share = 0;  ///< of the whole inflow; > 0: inlet
  double conductance = 0;   ///< > 0: outlet; of an inlet: part of the inflow goes elsewhere, the more the less the vessels take
  double contrast = 1;      ///< of an inlet: concentration of what enters, relative to the bolus
  double delay_ms = 0;      ///< of an inlet: the bolus comes later here
};

/// An elliptical section: half axes, and the angle of the first about the vessel's axis (0: across the ray).
struct Section {
  double first_mm = 1, second_mm = 1, angle_rad = 0;
};

/// A piece of vessel between two nodes as a dense curve with unit parameter steps of equal length.
struct Edge {
  std::string name, role;
  int from = 0, to = 0;
  std::vector<Vec3> curve;
  std::vector<double> radius_mm;     ///< of the round lumen of the same area
  std::vector<double> healthy_mm;    ///< the same without narrowing
  std::vector<double> hydraulic_mm;  ///< the radius that the flow sees
  std::vector<Section> sections;     ///< at each point of the curve; empty: round
  std::vector<LesionPlan> lesions;   ///< those that reach into this edge, along it; what develops is not in the radii
  FillingPlan filling;
  double length_mm = 0;
  double start_mm = 0, plan_length_mm = 0;  ///< along the vessel's plan: where the edge begins, and how long it is there
  double drawn_length_mm = 0;               ///< with its wandering, without what lesions do to its axis
  bool closed = false;
};

/// Contrast that has left the stream and stays: what leaks from a vein into the tissue beside it, or what fills the false lumen behind a
/// flap. It has no part in flow.
struct StainPlan {
  std::string kind;               ///< as in PhantomStain
  std::string host;               ///< the edge that it comes from, by name
  double from_mm = 0, to_mm = 0;  ///< along that edge as drawn
  Edge tube;                      ///< all that it fills in the end; where it grows: from the vein's wall outwards
  double radius_mm = 1;           ///< half its width across the host, in the end
  double delay_ms = 0;            ///< from contrast's arrival in the host until it begins
  double rise_ms = 1;             ///< from then until it is as dense as it gets
  double concentration = 1;       ///< then; 1: undiluted
  bool grows = false;             ///< from the tube's start until the run's end, by as much in volume every second
};

/// Concentration of contrast in a stain, `since_ms` after it began.
double concentration(const StainPlan& stain, double since_ms);

/// Radius of a stain's tube relative to the tube's own, at `along` of its length and `elapsed` of the time that it has; both 0 to 1. One
/// that grows is the same ellipsoid as in the end, smaller, and touches the tube's start.
double calibre(const StainPlan& stain, double along, double elapsed);

/// Vessels and background of one scenario; all in the patient's coordinates.
struct Scene {
  std::vector<VesselPlan> vessels;
  std::vector<TerminalPlan> terminals;
  double tortuosity_mm = 0;      ///< SD of each vessel's wandering about its plan
  double calibre_variation = 0;  ///< SD of the radius about its plan, relative
  Image<float> attenuation;      ///< background, (rows + 2 margin) x (columns + 2 margin), pixel (0, 0) of the image at (margin, margin)
  int margin = 32;
  double area_per_share_mm2 = 0;  ///< > 0: a terminal's inflow is its share x this x inlet velocity; 0: shares of that through all inlets
  bool endless_bolus = false;     ///< contrast flows in to the end, whatever PhantomOptions::bolus_duration_ms says
  std::vector<std::array<std::string, 2>> occlusions;  ///< vessels that end at one, and those that begin beyond it
  std::vector<PhantomDevice> devices;                  ///< they are in `attenuation` already
  std::vector<StainPlan> stains;
  double shutter = 0;               ///< width of the shuttered border, of the smaller side; it does not move with the scene
  std::vector<Limb> limbs;          ///< what moves as one in a non-rigid motion
  std::uint64_t wandering = 0;      ///< which way vessels wander and their calibre varies
  std::vector<std::string> closed;  ///< edges by name: nothing flows, and no contrast enters
  std::vector<std::pair<std::string, FillingPlan>> filling;  ///< of edges by name; else that of their vessel
  /// The flow never sees less than this share of the lumen's healthy radius: Poiseuille's law would empty what a severe spasm narrows,
  /// while small veins beside it, which are not drawn, keep blood moving.
  double least_hydraulic_share = 0;
};

/// What a scenario's empty options mean, and how its scene is made.
struct Scenario {
  const char *name, *summary;
  Scene (*make)(const ConeBeam& beam, int rows, int columns, std::uint64_t seed);
  bool foot;   ///< a patient's foot
  bool jolts;  ///< the patient starts at the warmth of the contrast
  int frames;  ///< 0: as many as `lasts_ms` takes
  double motion_px, rotation_deg;
  double warp_px;  ///< at a larger side of 1024 px
  double jitter;   ///< SD of the translation from step to step, of motion_px; rotation: the same of rotation_deg where `jerky`
  bool jerky;
  double lasts_ms = 0;
};

/// All of them, in the order of the documentation.
const std::vector<Scenario>& scenarios();

/// Tubes of constant diameter, 0.6 to 5 mm, in several orientations and depths over a smooth, finely textured background.
Scene make_tubes(const ConeBeam& beam, int rows, int columns, std::uint64_t seed);

/// Straight and bowed tubes of 1 to 4 mm, each with one narrowing of 30, 50 or 70 %: long and smooth, short and concentric, eccentric, a
/// web; and an occlusion with a collateral about it. The seed moves them about.
Scene make_stenoses(const ConeBeam& beam, int rows, int columns, std::uint64_t seed);

/// Vessels that cross or run along each other in projection without meeting, and a bifurcation for contrast.
Scene make_overlap(const ConeBeam& beam, int rows, int columns, std::uint64_t seed);

/// 45 vessels of constant calibre, 0.8 to 4 mm; most are not filled all over. The seed says which and how.
Scene make_partial_fill(const ConeBeam& beam, int rows, int columns, std::uint64_t seed);

/// The foot; deep veins narrow by 40 to 80 % while the run goes on. The seed says which.
Scene make_spasm(const ConeBeam& beam, int rows, int columns, std::uint64_t seed);

/// The foot; contrast leaks from one deep vein, and a flap parts another into a true and a false lumen. The seed says where.
Scene make_injury(const ConeBeam& beam, int rows, int columns, std::uint64_t seed);

/// The foot with wide perforators before the arch, which take most of the flow.
Scene make_steal(const ConeBeam& beam, int rows, int columns, std::uint64_t seed);

/// The foot with a guide wire and a balloon's markers in the arterialised vein, a stent-graft about it, a contrast-empty 5F catheter, an
/// introducer sheath, a ruler, and the shutter's edges.
Scene make_devices(const ConeBeam& beam, int rows, int columns, std::uint64_t seed);

/// The background of make_tubes(): smooth, finely textured.
Image<float> plain_background(const ConeBeam& beam, int rows, int columns, int margin, std::uint64_t seed);

/// A foot, seen from the lateral side and obliquely: bones, soft tissue, air, and its deep and superficial veins.
Scene make_foot(const ConeBeam& beam, int rows, int columns, std::uint64_t seed);

/// Its veins and their terminals alone.
Scene foot_vessels();

/// Opens the perforators before the arch and the vein that they lead to: blood takes the short way home.
void open_perforators(Scene& foot);

/// Its bones, soft tissue and limbs.
void add_foot_background(Scene& scene, const ConeBeam& beam, int rows, int columns, std::uint64_t seed);

/// Band-limited noise in the plane with about equal power per octave from `longest_mm` down to `shortest_mm` (1/f); unit variance, roughly.
double fractal_noise(double y_mm, double x_mm, double longest_mm, double shortest_mm, std::uint64_t seed);

/// Lets blood flow through a vessel that meets no other, `speed` times as fast as the scene's inlet velocity.
void flow_through(Scene& scene, const VesselPlan& vessel, double speed = 1);

/// Edges and nodes of a plan.
struct VesselTree {
  std::vector<Edge> edges;
  std::vector<std::string> node_names;
  std::vector<Vec3> node_positions;
  std::vector<Terminal> terminals;
  int node(const std::string& name) const;  ///< index; -1 where there is none
};

/// Draws smooth curves (centripetal Catmull-Rom) through the control points of a scene, lets them wander where it says so, and cuts them at
/// nodes. Terminals' flows are shares until scaled.
VesselTree grow(const Scene& scene);

}  // namespace cinelumen::phantom
