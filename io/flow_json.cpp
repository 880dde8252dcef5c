#include "io/flow_json.h"

namespace cinelumen {

Json flow_json(const FlowSummary& flow) {
  Json regions = Json::array();
  for (const RegionFlow& region : flow.regions)
    regions.push_back({{"name", json_words(region.name)},
                       {"peak", json_number(region.times.peak)},
                       {"auc_relative_to_inlet", json_number(region.auc_relative_to_inlet)},
                       {"arrival_ms", json_number(region.times.arrival_ms)}});
  return {{"arch_filled", flow.arch_filled ? Json(*flow.arch_filled) : Json(nullptr)},
          {"arch_arrival_ms", json_number(flow.arch_arrival_ms)},
          {"steal_fraction", json_number(flow.steal_fraction)},
          {"steal_sd", json_number(flow.steal_sd)},
          {"early_venous_return", flow.early_venous_return},
          {"inlet", json_words(flow.inlet)},
          {"regions", regions}};
}

}  // namespace cinelumen
