#pragma once
/// Blood and contrast in the vessels of a scene.

#include <functional>
#include <vector>

#include "engine/phantom/bolus.h"
#include "engine/phantom/phantom.h"
#include "engine/phantom/scene.h"

namespace cinelumen::phantom {

/// ms in which the concentration at the inlet rises.
constexpr double inlet_rise_ms = 500;

/// Flow and concentration in each edge of a tree.
struct Perfusion {
  std::vector<Terminal> terminals;      ///< the tree's, with flows in mm^3/s
  std::vector<double> flow_mm3_s;       ///< in the edges, positive along their curves
  BolusHistory bolus;                   ///< conduits are the edges
  std::function<double(double)> inlet;  ///< concentration of the bolus at a time, ms
};

/// Inflow by the options' velocity at the inlets, and what becomes of the bolus until the last frame. Options must be complete.
Perfusion perfuse(const VesselTree& tree, const Scene& scene, const PhantomOptions& options);

/// Part of an inlet's inflow that enters the vessels where the rest goes elsewhere (TerminalPlan::conductance).
double accepted_share(const VesselTree& tree, int inlet_node);

}  // namespace cinelumen::phantom
