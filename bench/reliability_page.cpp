#include "bench/reliability_page.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "io/output_folder.h"
#include "io/page.h"

namespace cinelumen::bench {
namespace {

std::string diagram(const Reliability& curve) {
  page::Plot plot(420, 420, 0, 1, 0, 1, "probability that was said", "share that came true");
  plot.line({0, 1}, {0, 1}, "#9aa4ad", 1, "stroke-dasharray=\"4 4\"");
  std::vector<double> said, was;
  const int most = *std::max_element(curve.count.begin(), curve.count.end());
  for (std::size_t bin = 0; bin < Reliability::bins; ++bin) {
    const int n = curve.count[bin];
    if (n == 0) continue;
    said.push_back(curve.said[bin] / n);
    was.push_back(curve.came_true[bin] / n);
    const auto [low, high] = share_interval(curve.came_true[bin], n);
    plot.line({said.back(), said.back()}, {low, high}, "#0a6ebd", 1.2);
    // Area goes with how many there are, on a scale on which a hundredth still shows.
    const double radius = 3 + 5 * std::sqrt(static_cast<double>(n) / most);
    plot.raw("<circle cx=" + page::coordinate(plot.x(said.back())) + " cy=" + page::coordinate(plot.y(was.back())) +
             " r=" + page::coordinate(radius) + " fill=\"#0a6ebd\"><title>" + std::to_string(n) +
             " statements: " + page::fixed(said.back(), 2) + " said, " + page::fixed(was.back(), 2) + " true</title></circle>");
  }
  plot.line(said, was, "#0a6ebd", 1.6);
  const std::string border = page::fixed(curve.border_percent, 0);
  return "<figure style=\"flex:1 1 20rem;margin:0\"><figcaption><b>Narrowed by more than " + border + "&nbsp;%</b><br>calibration error " +
         page::fixed(curve.calibration_error(), 4) + ", " + std::to_string(curve.all()) + " statements</figcaption>" +
         plot.svg("Reliability of P(narrowing over " + border + " %)") + "</figure>";
}

}  // namespace

void Reliability::add(double probability, bool is_true) {
  const auto bin = std::min(bins - 1, static_cast<std::size_t>(std::max(0.0, static_cast<double>(bins) * probability)));
  said[bin] += probability;
  came_true[bin] += is_true;
  ++count[bin];
}

int Reliability::all() const {
  int sum = 0;
  for (const int n : count) sum += n;
  return sum;
}

double Reliability::calibration_error() const {
  double error = 0;
  for (std::size_t bin = 0; bin < bins; ++bin) error += std::abs(said[bin] - came_true[bin]);
  return all() > 0 ? error / all() : 0;
}

std::array<double, 2> share_interval(double events, int trials) {
  constexpr double z = 1.96;
  const double n = trials, p = events / n, middle = p + z * z / (2 * n), half = z * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {std::max(0.0, (middle - half) / (1 + z * z / n)), std::min(1.0, (middle + half) / (1 + z * z / n))};
}

void write_reliability_page(const std::vector<Reliability>& curves, const std::string& what, const std::string& file) {
  std::string text =
      page::head("Reliability") + "<main><header><h1>Reliability of probabilities</h1></header><p>" + page::sentence(what) +
      " A point on the dashed line: what is said with that probability comes true as often. Bars: 95&nbsp;% intervals of the "
      "share; the larger a point, the more statements.</p><div style=\"display:flex;flex-wrap:wrap;gap:1.5rem\">";
  for (const Reliability& curve : curves) text += diagram(curve);
  text += "</div></main>" + page::tail();
  OutputFile out(file);
  out.write(text);
  out.close();
}

}  // namespace cinelumen::bench
