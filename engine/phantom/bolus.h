#pragma once
/// Contrast carried through a tree of vessels: 1-D advection and dispersion with mass conserved.

#include <functional>
#include <vector>

namespace cinelumen::phantom {

/// A vessel as the flow sees it: lumen radius (mm) at equal steps along it, first and last at its nodes.
struct Conduit {
  int from = 0, to = 0;  ///< nodes
  double length_mm = 0;
  std::vector<double> radius_mm;  ///< two at least
  bool closed = false;            ///< nothing flows
};

/// Where blood enters with a given flow, or leaves against a resistance.
struct Terminal {
  int node = 0;
  double inflow_mm3_s = 0;  ///< > 0: an inlet
  double conductance = 0;   ///< > 0: an outlet; in units of the conduits' 1 / integral of ds / R^4 (mm^3)
  double contrast = 1;      ///< of an inlet: concentration, relative to the bolus
  double delay_ms = 0;      ///< of an inlet: after the bolus
};

/// Flow in each conduit (positive: from -> to), mm^3/s: resistances in proportion to the integral of ds / R^4 (Poiseuille). Every node must
/// be connected to an outlet; throws std::invalid_argument otherwise.
std::vector<double> solve_flow(int nodes, const std::vector<Conduit>& conduits, const std::vector<Terminal>& terminals);

/// Concentrations over time.
struct BolusHistory {
  double step_ms = 0;                                    ///< between samples
  std::vector<std::vector<std::vector<float>>> samples;  ///< [sample][conduit][cell]
  std::vector<double> cell_mm;                           ///< cell length, per conduit
  std::vector<double> injected, in_vessels, drained;     ///< per sample, mm^3 of undiluted contrast

  /// Concentration at `time_ms` and `arc_mm` from the conduit's start; linear between cells and samples.
  double concentration(int conduit, double arc_mm, double time_ms) const;
  /// Time at which the concentration first reaches half its maximum; NaN where that maximum is below 0.05.
  double arrival_ms(int conduit, double arc_mm) const;
};

/// Advances the concentration over `duration_ms` from empty vessels. `inlet`: concentration of the bolus, at a time in ms.
/// Blood is mixed wherever conduits meet. Finite volumes, van Leer's limiter (second order), dispersion D (mm^2/s) within conduits.
BolusHistory run_bolus(int nodes, const std::vector<Conduit>& conduits, const std::vector<Terminal>& terminals,
                       const std::vector<double>& flow_mm3_s, const std::function<double(double)>& inlet, double duration_ms,
                       double dispersion_mm2_s);

}  // namespace cinelumen::phantom
