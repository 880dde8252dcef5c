#include "engine/phantom/bolus.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <stdexcept>

namespace cinelumen::phantom {
namespace {

double radius_at(const Conduit& conduit, double fraction) {
  const double position = std::clamp(fraction, 0.0, 1.0) * static_cast<double>(conduit.radius_mm.size() - 1);
  const std::size_t i = std::min(static_cast<std::size_t>(position), conduit.radius_mm.size() - 2);
  const double f = position - static_cast<double>(i);
  return (1 - f) * conduit.radius_mm[i] + f * conduit.radius_mm[i + 1];
}

/// A conduit cut into cells, upstream first whatever way it was drawn.
struct Cells {
  int upstream = 0, downstream = 0;
  bool reversed = false;
  double flow = 0, cell_mm = 0;
  std::vector<double> volume, face_area, concentration, flux;
};

}  // namespace

std::vector<double> solve_flow(int nodes, const std::vector<Conduit>& conduits, const std::vector<Terminal>& terminals) {
  const std::size_t n = static_cast<std::size_t>(nodes);
  std::vector<std::vector<double>> a(n, std::vector<double>(n + 1, 0.0));
  std::vector<double> conductance;
  for (const Conduit& conduit : conduits) {
    if (conduit.radius_mm.size() < 2 || !(conduit.length_mm > 0)) throw std::invalid_argument("solve_flow: a conduit without extent");
    double resistance = 0;
    constexpr int steps = 200;
    for (int i = 0; i < steps; ++i) resistance += conduit.length_mm / steps / std::pow(radius_at(conduit, (i + 0.5) / steps), 4);
    const double g = conduit.closed ? 0 : 1 / resistance;
    conductance.push_back(g);
    const auto from = static_cast<std::size_t>(conduit.from), to = static_cast<std::size_t>(conduit.to);
    a[from][from] += g;
    a[to][to] += g;
    a[from][to] -= g;
    a[to][from] -= g;
  }
  for (const Terminal& terminal : terminals) {
    const auto node = static_cast<std::size_t>(terminal.node);
    a[node][node] += terminal.conductance;
    a[node][n] += terminal.inflow_mm3_s;
  }
  for (std::size_t k = 0; k < n; ++k) {
    std::size_t pivot = k;
    for (std::size_t i = k + 1; i < n; ++i)
      if (std::abs(a[i][k]) > std::abs(a[pivot][k])) pivot = i;
    if (std::abs(a[pivot][k]) < 1e-14) throw std::invalid_argument("solve_flow: a node without a way out");
    std::swap(a[k], a[pivot]);
    for (std::size_t i = k + 1; i < n; ++i) {
      const double f = a[i][k] / a[k][k];
      if (f == 0) continue;
      for (std::size_t j = k; j <= n; ++j) a[i][j] -= f * a[k][j];
    }
  }
  std::vector<double> pressure(n);
  for (std::size_t k = n; k-- > 0;) {
    double sum = a[k][n];
    for (std::size_t j = k + 1; j < n; ++j) sum -= a[k][j] * pressure[j];
    pressure[k] = sum / a[k][k];
  }
  std::vector<double> flow;
  for (std::size_t i = 0; i < conduits.size(); ++i)
    flow.push_back(conductance[i] *
                   (pressure[static_cast<std::size_t>(conduits[i].from)] - pressure[static_cast<std::size_t>(conduits[i].to)]));
  return flow;
}

BolusHistory run_bolus(int nodes, const std::vector<Conduit>& conduits, const std::vector<Terminal>& terminals,
                       const std::vector<double>& flow_mm3_s, const std::function<double(double)>& inlet, double duration_ms,
                       double dispersion_mm2_s) {
  BolusHistory history;
  std::vector<Cells> vessels;
  double largest_step_s = 0.01;
  for (std::size_t k = 0; k < conduits.size(); ++k) {
    const Conduit& conduit = conduits[k];
    Cells cells;
    cells.flow = std::abs(flow_mm3_s[k]);
    cells.reversed = flow_mm3_s[k] < 0;
    cells.upstream = cells.reversed ? conduit.to : conduit.from;
    cells.downstream = cells.reversed ? conduit.from : conduit.to;
    const int count = std::max(4, static_cast<int>(std::lround(conduit.length_mm / 0.5)));
    cells.cell_mm = conduit.length_mm / count;
    for (int i = 0; i < count; ++i) {
      double area = 0;  // Simpson, so that the cells' volumes sum to the vessel's
      for (const auto& [at, weight] : {std::pair{0.0, 1.0}, {0.5, 4.0}, {1.0, 1.0}}) {
        const double f = (i + at) / count, r = radius_at(conduit, cells.reversed ? 1 - f : f);
        area += weight / 6 * std::numbers::pi * r * r;
      }
      cells.volume.push_back(area * cells.cell_mm);
      const double f = static_cast<double>(i + 1) / count, r = radius_at(conduit, cells.reversed ? 1 - f : f);
      cells.face_area.push_back(std::numbers::pi * r * r);
    }
    cells.concentration.assign(static_cast<std::size_t>(count), 0.0);
    cells.flux.assign(static_cast<std::size_t>(count) + 1, 0.0);
    for (std::size_t i = 0; i < cells.volume.size(); ++i) {
      const double exchange = cells.flow + 2 * dispersion_mm2_s * cells.face_area[i] / cells.cell_mm;
      if (exchange > 0) largest_step_s = std::min(largest_step_s, 0.7 * cells.volume[i] / exchange);
    }
    history.cell_mm.push_back(cells.cell_mm);
    vessels.push_back(std::move(cells));
  }
  const int samples = std::max(1, static_cast<int>(std::ceil(duration_ms / 20)));
  history.step_ms = duration_ms / samples;
  const int substeps = std::max(1, static_cast<int>(std::ceil(history.step_ms / 1000 / largest_step_s)));
  const double dt = history.step_ms / 1000 / substeps;

  std::vector<double> amount, total, mixed(static_cast<std::size_t>(nodes));
  double injected = 0, drained = 0;
  const auto record = [&] {
    auto& sample = history.samples.emplace_back();
    double content = 0;
    for (const Cells& cells : vessels) {
      std::vector<float> values(cells.concentration.begin(), cells.concentration.end());
      if (cells.reversed) std::reverse(values.begin(), values.end());
      sample.push_back(std::move(values));
      content = std::inner_product(cells.volume.begin(), cells.volume.end(), cells.concentration.begin(), content);
    }
    history.injected.push_back(injected);
    history.in_vessels.push_back(content);
    history.drained.push_back(drained);
  };
  record();
  for (int s = 0; s < samples; ++s) {
    for (int i = 0; i < substeps; ++i) {
      const double now_ms = (s + (i + 0.5) / substeps) * history.step_ms;
      amount.assign(static_cast<std::size_t>(nodes), 0.0);
      total = amount;
      for (const Terminal& terminal : terminals) {
        if (terminal.inflow_mm3_s <= 0) continue;
        const double contrast = terminal.inflow_mm3_s * terminal.contrast * inlet(now_ms - terminal.delay_ms);
        amount[static_cast<std::size_t>(terminal.node)] += contrast;
        total[static_cast<std::size_t>(terminal.node)] += terminal.inflow_mm3_s;
        injected += contrast * dt;
      }
      for (Cells& cells : vessels) {
        const std::size_t n = cells.concentration.size();
        const std::vector<double>& c = cells.concentration;
        for (std::size_t j = 0; j + 1 < n; ++j) {
          const double ahead = c[j + 1] - c[j], behind = j > 0 ? c[j] - c[j - 1] : 0;
          const double slope = ahead * behind > 0 ? 2 * ahead * behind / (ahead + behind) : 0;
          const double courant = cells.flow * dt / cells.volume[j];
          cells.flux[j + 1] =
              cells.flow * (c[j] + 0.5 * (1 - courant) * slope) - dispersion_mm2_s * cells.face_area[j] * ahead / cells.cell_mm;
        }
        cells.flux[n] = cells.flow * c[n - 1];
        amount[static_cast<std::size_t>(cells.downstream)] += cells.flux[n];
        total[static_cast<std::size_t>(cells.downstream)] += cells.flow;
      }
      std::vector<double> leaving = amount;
      for (std::size_t node = 0; node < mixed.size(); ++node) mixed[node] = total[node] > 0 ? amount[node] / total[node] : 0;
      for (Cells& cells : vessels) {
        cells.flux[0] = cells.flow * mixed[static_cast<std::size_t>(cells.upstream)];
        leaving[static_cast<std::size_t>(cells.upstream)] -= cells.flux[0];
        for (std::size_t j = 0; j < cells.concentration.size(); ++j)
          cells.concentration[j] += dt * (cells.flux[j] - cells.flux[j + 1]) / cells.volume[j];
      }
      for (const Terminal& terminal : terminals)
        if (terminal.conductance > 0) drained += dt * leaving[static_cast<std::size_t>(terminal.node)];
    }
    record();
  }
  return history;
}

double BolusHistory::concentration(int conduit, double arc_mm, double time_ms) const {
  const auto k = static_cast<std::size_t>(conduit);
  const double s = std::clamp(time_ms / step_ms, 0.0, static_cast<double>(samples.size() - 1));
  const std::size_t s0 = std::min(static_cast<std::size_t>(s), samples.size() - 1), s1 = std::min(s0 + 1, samples.size() - 1);
  const std::size_t n = samples[0][k].size();
  const double p = std::clamp(arc_mm / cell_mm[k] - 0.5, 0.0, static_cast<double>(n - 1));
  const std::size_t p0 = std::min(static_cast<std::size_t>(p), n - 1), p1 = std::min(p0 + 1, n - 1);
  const double fs = s - static_cast<double>(s0), fp = p - static_cast<double>(p0);
  const auto at = [&](std::size_t i) { return (1 - fp) * samples[i][k][p0] + fp * samples[i][k][p1]; };
  return (1 - fs) * at(s0) + fs * at(s1);
}

double BolusHistory::arrival_ms(int conduit, double arc_mm) const {
  std::vector<double> curve;
  for (std::size_t s = 0; s < samples.size(); ++s) curve.push_back(concentration(conduit, arc_mm, static_cast<double>(s) * step_ms));
  const double half = 0.5 * *std::max_element(curve.begin(), curve.end());
  if (half < 0.025) return std::numeric_limits<double>::quiet_NaN();
  for (std::size_t s = 1; s < curve.size(); ++s)
    if (curve[s] >= half) {
      const double rise = curve[s] - curve[s - 1];
      return step_ms * (static_cast<double>(s) - (rise > 0 ? (curve[s] - half) / rise : 0));
    }
  return 0;
}

}  // namespace cinelumen::phantom
