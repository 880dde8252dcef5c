#pragma once
/// Which image of a run the vessel graph is traced in, and which of the traced segments are vessels (methods.md 4).

#include <string>
#include <vector>

#include "engine/centreline.h"
#include "kernels/image.h"
#include "kernels/vesselness.h"

namespace cinelumen {

/// A well-filled frame in the mask's coordinates that may serve as the picture of the vessels.
struct KeyFrame {
  int frame = 0;       ///< 0-based
  Image<float> image;  ///< added attenuation, memory of the stream's device
};

/// The vessel graph of a run and where it came from.
struct Topology {
  VesselGraph graph;
  int frame = -1;                                             ///< 0-based key frame; -1: the whole run's image
  bool moving_vessels = false;                                ///< vessels move against the background
  double agreement = 1;                                       ///< median share of one key frame's centrelines that another's confirm
  std::string note;                                           ///< in words
  int removed_displaced_points = 0, removed_edge_points = 0;  ///< points dropped: moved background, the field's edge
  Image<float> picture;                                       ///< device: the image it was traced in
};

/// How vessels are told from the background.
struct TopologyOptions {
  VesselnessOptions vesselness;  ///< z is then calibrated on each image's own clutter
  CentrelineOptions centreline;
  float still_tolerance_px = 2.0f;    ///< centrelines of two frames this close are the same vessel standing still
  float still_minimum_z = 8;          ///< only vessels this clear are compared
  double still_agreement = 0.6;       ///< below it the vessels are said to move
  float displaced_reach_px = 25;      ///< a ridge with one of lost attenuation running beside it this near is something that moved ...
  float displaced_depth = 0.7f;       ///< ... if as much, times this (close by half of it), was lost there as was added here
  float moving_minimum_z = 6;         ///< where vessels move: z below which a point is taken for residue
  float moving_minimum_tree_px = 80;  ///< where vessels move: connected segments shorter than this in all are dropped
  float edge_margin_px = 8;           ///< centrelines this close to the field's edge are the edge, not a vessel
  float minimum_part_px = 12;         ///< what is left of a segment that was cut must be this long
};

/// Share of a's centreline points with z >= minimum_z that lie within `tolerance_px` of a centreline point of b. 1 where a has none.
double confirmed_share(const VesselGraph& a, const VesselGraph& b, float tolerance_px, float minimum_z = 0);

/// Drops segments with a free end that are shorter than `minimum_px`, and makes one of two segments that only they parted. Segments are
/// longest first again.
void prune_spurs(VesselGraph& graph, float minimum_px);

/// Traces `whole_run` (maximum opacification, or mean) if the key frames agree on where the vessels lie; else the key frame with the
/// longest, clearest centrelines. Then cuts off what runs along the field's edge and, where vessels move, what has a ridge of
/// lost attenuation running beside it: a catheter, a wire or a rib that was elsewhere in the mask leaves both. What is left is refitted
/// (fit_centrelines). Images: device, rows x columns.
Topology find_topology(const Stream& stream, ImageView<const float> whole_run, const std::vector<KeyFrame>& key_frames,
                       ImageView<const std::uint8_t> valid, const TopologyOptions& options);

}  // namespace cinelumen
