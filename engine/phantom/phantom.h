#pragma once
/// Synthetic runs whose truth is known (methods.md 9). Shares no code with what it tests: its own integrator, point spread and noise.
///
/// A run is made in this order. Vessels are tubes around 3-D curves, projected by a cone beam: the chord through a tube in closed form,
/// averaged over cells of 1/4 pixel; where tubes meet, the attenuation of their union. The background is a smooth function of continuous
/// position (a cubic B-spline in transmission), so that motion moves the scene and never resamples pixels. Both pass focal spot,
/// scintillator (a sum of two Gaussians) and pixel aperture in intensity, not in attenuation. Quanta are Poisson; the scintillator spreads
/// their deviation over neighbouring pixels, which correlates the noise. Scattered quanta are quanta like others: they are counted with
/// them, spread over the field. Then glare, lag, electronic noise, and quantisation, LIN or LOG. A warp moves vessels and background after
/// blur.

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "engine/run.h"
#include "kernels/image.h"

namespace cinelumen {

/// How the patient lies under the beam, against the scenario's own position: a rigid motion in space about the isocentre. The tilts come
/// first (about the image's vertical axis, then its horizontal one), then the turn in the plane, then the shift.
struct PhantomPose {
  double rotation_deg = 0;                                ///< about the beam's axis; positive takes +x to +y
  double tilt_y_deg = 0, tilt_x_deg = 0;                  ///< out of the plane; about the horizontal axis: along y, and about the vertical
  double shift_y_mm = 0, shift_x_mm = 0, towards_mm = 0;  ///< in the plane, and towards the source
};

/// What to make. Empty optionals take the scenario's default.
struct PhantomOptions {
  std::string scenario = "foot";            ///< one of phantom_scenarios()
  int rows = 1024, columns = 1024;          ///< 64 to 4096
  std::optional<int> frames;                ///< 1 to 10000; 24, scenarios of the foot 48, spasm 18.5 s of them, injury 15 s
  double frame_time_ms = 250;               ///< > 0
  int contrast_free_frames = 8;             ///< frames before the bolus enters; >= 0
  std::uint64_t seed = 1;                   ///< noise, motion and texture; the vessels are the same for every seed
  std::optional<double> detector_pitch_mm;  ///< default 0.154 at 1024 and the same field of view at other sizes
  double source_to_detector_mm = 1000, magnification = 1.2;
  IntensityRelationship encoding = IntensityRelationship::linear;  ///< linear or logarithmic
  int bits_stored = 12;                                            ///< 8 to 16
  std::optional<double> noise_log_sd;  ///< SD of log intensity at the object's median; 0.01, or 0.03 for frame times below 100 ms; 0: none
  double electronic_sd = 1;            ///< of 4096 counts, scaled with bits_stored; none where noise_log_sd is 0
  std::optional<double> motion_px;     ///< amplitude of the translation; tubes 2, foot 1.5, motion-rigid 4, without a patient 1
  std::optional<double> warp_px;       ///< largest non-rigid displacement; motion-nonrigid 3.5 x larger side / 1024, else 0
  std::optional<double> rotation_deg;  ///< amplitude of the rotation about the image centre; foot 0.02, motion-rigid 0.25, else 0
  double attenuation_per_mm = 0.15;    ///< kappa: of undiluted contrast medium in blood, above blood
  double focal_spot_mm = 0.6;          ///< side of the square focal spot
  double scatter_fraction = 0;         ///< scattered over primary intensity, blurred over the field, noise-free; 0 to 2
  double glare_fraction = 0;           ///< part of the light that a veil of about a tenth of the field takes up; 0 to 0.5
  double lag_fraction = 0;             ///< part of a frame's signal that is the frame before's, with its lag; 0 to 0.9
  double bolus_duration_ms = 6000;     ///< foot only: length of the plateau at the inlet
  double inlet_velocity_mm_s = 90;     ///< mean velocity where contrast enters
  std::optional<double> onset_ms;      ///< spasm: when veins begin to narrow; 5 to 6 s (the seed says) and 12 frames after the bolus
  std::optional<std::uint64_t> anatomy_seed;  ///< of the background's texture, and of layouts that are drawn; default: `seed`
  PhantomPose pose;                           ///< angles up to 45 degrees, shifts up to 100 mm
};

/// One point of a true centreline. Positions are those of frame 0.
struct PhantomPoint {
  double y_px = 0, x_px = 0;
  double arc_length_mm = 0;            ///< along the 3-D curve
  double depth_mm = 0;                 ///< towards the source, 0 in the plane of calibration
  double radius_mm = 0;                ///< of the lumen, in space; of an ellipse: half its width across the ray
  double area_mm2 = 0;                 ///< of the lumen's section
  double radius_px = 0;                ///< half the width of the projected lumen, perpendicular to the projected centreline
  double diameter_calibration_mm = 0;  ///< 2 radius_px x mm_per_px: the lumen in the plane of calibration
  double path_factor = 1;              ///< chord of the ray through the axis / lumen width; round: 1 / sin(angle between ray and axis)
  double velocity_mm_s = 0;            ///< mean over the cross-section, along the stored direction of the segment (the way it fills)
  double arrival_ms = std::numeric_limits<double>::quiet_NaN();  ///< concentration first reaches half its maximum; NaN: never opacified
  double gap_px =
      std::numeric_limits<double>::infinity();  ///< to the nearest edge of another vessel; negative: overlap; infinite beyond 50
  double place_mm = 0;           ///< along the vessel as it was drawn: the same place whatever is seen of it and whichever way it fills
  double healthy_radius_mm = 0;  ///< `radius_mm` without any narrowing
};

/// A vessel between two branch points or ends; the part of it inside the image at frame 0.
struct PhantomSegment {
  int id = 0;                ///< 1-based
  std::string name;          ///< "lateral plantar vein 2"
  std::string role;          ///< as in analysis.json: inflow, main, plantar, arch, perforator, collateral ...; "tube"
  int start = -1, end = -1;  ///< index into PhantomTruth::nodes; -1 where cut off by the image's edge
  double flow_mm3_s = 0;
  std::vector<PhantomPoint> points;         ///< about 1 px apart, in the direction of flow
  std::vector<std::vector<float>> filling;  ///< [frame][point]: concentration of contrast, 1 = undiluted, where the section is filled
  std::string mechanism = "full";           ///< how contrast fills it: full, core front, layering, dilution, streaming, incomplete arrival
  std::vector<std::vector<float>> filled_share;  ///< [frame][point]: part of the section's area that `filling` is of; empty: all of it
  std::vector<std::vector<float>> rest;          ///< [frame][point]: concentration in the rest of the section; empty: none
  std::vector<std::vector<float>> calibre;       ///< [frame][point]: diameter relative to the points'; empty: it does not change
};

/// A narrowing of known size.
struct PhantomLesion {
  std::string kind;                          ///< "smooth", "concentric", "eccentric", "web", "dissection" (its true lumen) or "occlusion"
  int segment = 0;                           ///< id; of an occlusion: of the stump before it, or of the segment that is closed all along
  int beyond = 0;                            ///< id of the segment beyond a stump's occlusion; else 0
  double from_mm = 0, to_mm = 0, at_mm = 0;  ///< along the segment; `at`: the least projected diameter. Occlusion: the segment's end
  double reference_diameter_mm = 0, minimal_diameter_mm = 0;  ///< projected, in the plane of calibration
  double diameter_percent = 0;                                ///< reduction of the projected diameter at `at`
  double nominal_percent = 0;                                 ///< reduction of the smaller axis: what a view along the larger one shows
  double area_percent = 0;                                    ///< reduction of the section's area at its least
};

/// A narrowing that comes within the run.
struct PhantomOnset {
  double onset_ms = 0, complete_ms = 0;  ///< it begins, and has its full height
  std::vector<int> segments;             ///< ids
  double narrowing_percent = 0;          ///< of the diameter, in the end
  double extent_mm = 0;                  ///< where that exceeds 25 %, across branch points
};

/// Contrast that has left the stream and stays while the veins wash out. It counts for no segment and no mass.
struct PhantomStain {
  std::string kind;               ///< "extravasation", beside the vein, or "dissection": the false lumen within its outline
  int segment = 0;                ///< id of the vein that it comes from
  double from_mm = 0, to_mm = 0;  ///< along the segment, in the end
  double y_px = 0, x_px = 0;      ///< of its middle in the end, frame 0
  double onset_ms = 0;            ///< it begins; NaN: contrast never arrives in the vein
  double radius_mm = 0;           ///< half its width across the vein, in the end; in space
  double concentration = 0;       ///< in the end, 1 = undiluted
};

/// Centrelines that cross in projection, at frame 0, without being connected.
struct PhantomCrossing {
  std::array<int, 2> segments{};             ///< ids
  double y_px = 0, x_px = 0, angle_deg = 0;  ///< 0 to 90
  double depth_mm = 0;                       ///< between their axes
};

/// A device in the background, at frame 0; it moves with the scene.
struct PhantomDevice {
  std::string kind;  ///< "guide wire", "balloon", "stent-graft", "catheter 5F", "introducer sheath 5F", "ruler"
  double outer_diameter_mm = 0, inner_diameter_mm = 0;
  double length_mm = 0;                              ///< as its maker states it; 0: none
  double marker_distance_mm = 0;                     ///< between neighbouring markers, along the device; 0: none
  double depth_mm = 0;                               ///< of its middle
  std::vector<std::array<double, 2>> centreline_px;  ///< (y, x), also outside the image
  std::vector<std::array<double, 2>> markers_px;     ///< (y, x) of their middles
};

/// How the inflow divides in the foot, parts of one.
struct PhantomFlowSplit {
  double arch = 0;         ///< enters the deep plantar arch
  double perforators = 0;  ///< leaves through perforators before it
};

/// Where vessels meet or end.
struct PhantomNode {
  double y_px = 0, x_px = 0;
  std::string name;
  std::vector<int> segments;  ///< indices of the segments that meet here
};

/// How frame 0's scene is moved: position p goes to centre + rotation (p - centre) + (dy, dx). Positive rotation takes +x to +y.
struct PhantomMotion {
  double dy_px = 0, dx_px = 0, rotation_rad = 0;
};

/// How frame 0's scene is bent before it is moved as a whole: a twice differentiable displacement, a cubic B-spline on a grid.
struct PhantomWarp {
  double spacing_px = 0;                    ///< from node to node
  double origin_y_px = 0, origin_x_px = 0;  ///< of node (0, 0); the grid reaches beyond the image by a tenth of its larger side
  int rows = 0, columns = 0;                ///< nodes
  std::vector<std::vector<std::array<float, 2>>> nodes;  ///< [frame][row x columns + column]: coefficients (dy, dx), px; empty: none

  /// (dy, dx) at (y, x) of frame 0; constant beyond the grid.
  std::array<double, 2> at(int frame, double y_px, double x_px) const;
};

/// Where the injected contrast is at one frame, mm^3 of undiluted medium.
struct PhantomMass {
  double injected = 0, in_vessels = 0, drained = 0;
};

/// Everything there is to know about a synthetic run.
struct PhantomTruth {
  PhantomOptions options;  ///< with all defaults filled in
  std::string body_part;   ///< "FOOT" or "PHANTOM"
  std::vector<PhantomSegment> segments;
  std::vector<PhantomNode> nodes;
  std::vector<PhantomLesion> lesions;
  std::vector<PhantomCrossing> crossings;
  std::vector<PhantomStain> stains;
  std::vector<PhantomOnset> onsets;            ///< in the order of their onset; flow and arrival are those before
  std::optional<PhantomFlowSplit> flow_split;  ///< of a foot
  std::vector<PhantomDevice> devices;
  std::array<double, 4> open_field_px{};  ///< y0, x0, y1, x1: the shutter's edges, or the image's outermost pixel centres
  std::vector<double> frame_times_ms;
  std::vector<PhantomMotion> motion;  ///< per frame
  PhantomWarp warp;                   ///< per frame, before `motion`
  std::vector<PhantomMass> mass;      ///< per frame, whole vessel tree, also outside the image; NaN where vessels fill partly or narrow
  int first_contrast_frame = 0;       ///< 0-based: the first frame in which any vessel holds contrast in view; frame count: none
  double mm_per_px = 0;               ///< in the plane of calibration, through the isocentre
  double attenuation_per_mm = 0;      ///< kappa of undiluted contrast
  double psf_sigma_px = 0;            ///< of the Gaussian with the same 25 to 75 % rise of an edge; without the pixel's aperture
  double psf_rms_px = 0;              ///< second moment, without the pixel's aperture
  std::array<double, 2> scintillator_sigma_px{}, scintillator_weight{};
  double focal_blur_px = 0;  ///< side of the focal spot's image, px
  double air_count = 0;      ///< linear counts without any object
  double median_count = 0;   ///< linear counts at the median of the background where it transmits less than 0.74
  double noise_gain = 0;     ///< variance per linear count, after the scintillator, without quantisation
  double electronic_sd = 0;  ///< linear counts
  std::array<std::array<double, 5>, 5> noise_autocorrelation{};  ///< of quantum noise; [dy + 2][dx + 2]
  double log_offset = 0, log_slope = 0;                          ///< LOG: stored = offset + slope ln(linear count), clipped; 0 for LIN

  /// (dy, dx), px: the scene's point (y, x) of frame 0 lies at (y + dy, x + dx) in `frame` (0-based, in range): warp, then motion.
  std::array<double, 2> displacement(int frame, double y_px, double x_px) const;
};

/// A finished run.
struct PhantomRun {
  std::vector<Image<std::uint16_t>> frames;
  PhantomTruth truth;
};

/// Names that make_phantom() knows.
const std::vector<std::string>& phantom_scenarios();

/// One line about a scenario; empty for a name that is not known.
std::string phantom_summary(const std::string& scenario);

/// Makes a run. The same options give the same bytes on any number of threads. Throws std::invalid_argument "phantom: <option> ..., value,
/// expected".
PhantomRun make_phantom(const PhantomOptions& options);

/// The truth alone, without exposing a frame. Throws as make_phantom() does.
PhantomTruth phantom_truth(const PhantomOptions& options);

/// The expected linear counts of one frame: all of the chain but quanta, electronic noise and quantisation.
Image<float> expected_counts(const PhantomOptions& options, int frame);

/// The linear count that belongs to each stored value: the inverse of the encoding, 2^bits_stored values.
std::vector<float> linear_counts(const PhantomTruth& truth);

/// The run as io/ would read it from the phantom's DICOM file: linear or logarithmic encoding (LOG brought to linear by its LUT),
/// whole-image field, geometry, frame times, no mask instruction. Copies the frames.
Run make_run(const PhantomRun& phantom);

}  // namespace cinelumen
