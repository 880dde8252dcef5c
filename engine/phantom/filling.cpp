#include "engine/phantom/filling.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace cinelumen::phantom {
namespace {

/// Area of the unit disc below `level`, of pi.
double share_below(double level) {
  const double h = std::clamp(level, -1.0, 1.0);
  return 1 - (std::acos(h) - h * std::sqrt(1 - h * h)) / std::numbers::pi;
}

double level_of(double share) {
  double low = -1, high = 1;
  for (int i = 0; i < 40; ++i) {
    const double middle = 0.5 * (low + high);
    (share_below(middle) < share ? low : high) = middle;
  }
  return low;
}

}  // namespace

const char* name_of(Mechanism mechanism) {
  switch (mechanism) {
    case Mechanism::full:
      return "full";
    case Mechanism::core_front:
      return "core front";
    case Mechanism::layering:
      return "layering";
    case Mechanism::dilution:
      return "dilution";
    case Mechanism::streaming:
      return "streaming";
    case Mechanism::incomplete_arrival:
      return "incomplete arrival";
  }
  return "";
}

SectionFill section_fill(const FillingPlan& plan, double arc_mm, double since_ms, double velocity_mm_s) {
  SectionFill fill;
  fill.angle_rad = static_cast<float>(plan.angle_rad);
  const double beyond = arc_mm - plan.start_mm;
  switch (plan.mechanism) {
    case Mechanism::full:
    case Mechanism::incomplete_arrival:
      break;
    case Mechanism::core_front: {
      const double front_ms = 1000 * arc_mm / (2 * velocity_mm_s);
      fill.core = static_cast<float>(since_ms > front_ms ? std::sqrt(1 - front_ms / since_ms) : 0);
      break;
    }
    case Mechanism::layering: {
      const double f = std::clamp(beyond / plan.length_mm, 0.0, 1.0), sunk = f * f * (3 - 2 * f);
      // The layer deepens while contrast goes on arriving.
      const double late = 1 - std::exp(-std::max(0.0, since_ms) / 2000);
      if (sunk > 0) fill.level = static_cast<float>(level_of(1 - sunk * (1 - plan.share * (0.6 + 0.4 * late))));
      break;
    }
    case Mechanism::dilution: {
      const double mixed = beyond <= 0 ? 0 : 1 - std::exp(-beyond / plan.length_mm);
      fill.filled = static_cast<float>(1 - mixed * (1 - plan.share));
      break;
    }
    case Mechanism::streaming: {
      if (beyond <= 0) break;
      // The other stream comes in over the width of a small vein's mouth.
      constexpr double mouth_mm = 2;
      const double f = std::min(1.0, beyond / mouth_mm), share = 1 - (1 - plan.share) * f * f * (3 - 2 * f);
      const double apart = std::exp(-beyond / plan.length_mm);
      fill.level = static_cast<float>(level_of(share));
      fill.filled = static_cast<float>(share + (1 - share) * apart);
      fill.rest = static_cast<float>(share * (1 - apart));
      break;
    }
  }
  return fill;
}

double filled_share(const SectionFill& fill) {
  const auto core = static_cast<double>(fill.core);
  return core < 1 ? core * core : share_below(static_cast<double>(fill.level));
}

}  // namespace cinelumen::phantom
