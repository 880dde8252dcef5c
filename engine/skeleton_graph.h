#pragma once
/// Skeleton pixels to a graph: chains of pixels between branch points, without spurs, with crossings told from bifurcations.

#include <vector>

#include "kernels/ridge_points.h"

namespace cinelumen {

/// What is pruned and what is joined.
struct SkeletonGraphOptions {
  double minimum_length_px = 10;      ///< chains with a free end need this length beyond the parent's lumen ...
  double minimum_length_radii = 1.5;  ///< ... and this many local radii, unless ...
  double keep_z = 8;                  ///< ... their mean z outside the parent's lumen exceeds this
  double minimum_peak_z = 5;          ///< a chain with a free end needs one pixel of this z outside the parent's lumen, and
  double minimum_significance = 8;    ///< mean z times the root of its length in independent samples (4 scales each) above this
  double bridge_z = 4;                ///< chains between branch points need this mean z, and the significance, outside the lumens there
  double end_share = 0.5;             ///< free ends are cut back to where the response reaches this share of the usual one nearby
  double crossing_angle_rad = 0.349;  ///< opposite arms of a crossing are in line within this (20 degrees)
};

/// The graph. Indices into pixels, nodes and edges.
struct SkeletonGraph {
  struct Node {
    double y = 0, x = 0;
    double radius_px = 0;       ///< of the widest vessel that meets here
    std::vector<int> pixels;    ///< its cluster; the first is the nearest to (y, x)
    std::vector<int> edges;     ///< those that end here, a loop twice
    int through[2] = {-1, -1};  ///< for the caller's use: the two edges that continue one another
  };
  struct Edge {
    std::vector<int> pixels;   ///< from the start to the end, without the nodes' own
    std::vector<char> hidden;  ///< per pixel: inside a crossing, where the skeleton says nothing of this vessel's position
    int start = -1, end = -1;  ///< nodes, -1: a free end
    double length_px = 0;      ///< with the way to the nodes
  };
  struct Crossing {
    double y = 0, x = 0;
    int edges[2] = {-1, -1};  ///< the two vessels that pass
  };
  std::vector<Node> nodes;
  std::vector<Edge> edges;
  std::vector<Crossing> crossings;
};

/// Rough lumen radius from the scale that answers most: sigma = 0.84 R for an unblurred cylinder's chord, less what a PSF of 0.6 px adds.
float radius_from_scale(float scale_px);

/// `pixels` in raster order (collect_skeleton). Deterministic.
SkeletonGraph build_skeleton_graph(const std::vector<SkeletonPixel>& pixels, const SkeletonGraphOptions& options = {});

}  // namespace cinelumen
