#pragma once
/// Runs of any scene, as the scenarios and the clinical case make them.

#include <functional>

#include "engine/phantom/phantom.h"
#include "engine/phantom/scene.h"

namespace cinelumen::phantom {

/// Lays a scene out under a beam for an image of rows x columns.
using SceneMaker = std::function<Scene(const ConeBeam& beam, int rows, int columns)>;

/// The options with every default of their scenario filled in. Throws std::invalid_argument as make_phantom() does.
PhantomOptions complete(PhantomOptions options);

/// The beam of complete options, with the patient in their pose.
ConeBeam beam_of(const PhantomOptions& options);

/// make_phantom(), phantom_truth() and expected_counts() of another scene than the scenario's own; its motion, and whether a foot is seen,
/// stay the scenario's.
PhantomRun expose(const PhantomOptions& options, const SceneMaker& scene);
PhantomTruth describe(const PhantomOptions& options, const SceneMaker& scene);
Image<float> expect_counts(const PhantomOptions& options, const SceneMaker& scene, int frame);

}  // namespace cinelumen::phantom
