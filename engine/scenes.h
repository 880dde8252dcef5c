#pragma once
/// Parts of a run that show one scene: the table, the zoom and the shutters stay as they are.

#include <algorithm>
#include <vector>

#include "engine/frame_planes.h"

namespace cinelumen {

/// Consecutive frames that can be compared with one another. Frame numbers are 0-based in the file, inclusive.
struct Scene {
  int first = 0, last = 0;
  std::vector<int>
      odd_frames;  ///< in order: frames in between, never the first, that show something else: blank, flashed, half transmitted

  bool is_odd(int frame) const { return std::binary_search(odd_frames.begin(), odd_frames.end(), frame); }
};

/// Splits a run where the picture becomes another: more than half of it changes by as much as two unrelated pictures differ, whole-pixel
/// shifts of up to 1/8 of the side undone (table, zoom); or part of it turns much darker or brighter (a shutter, another exposure of a
/// part). Up to two frames that differ between frames that agree are odd frames of the scene. Contrast is no change of scene: it
/// only adds to what the picture shows, in however many vessels, and its blocks darken less than a shutter's. Never empty.
std::vector<Scene> find_scenes(const FramePlanes& planes);

/// The scene to measure: the one with the most frames, the first of equals.
const Scene& longest(const std::vector<Scene>& scenes);

}  // namespace cinelumen
