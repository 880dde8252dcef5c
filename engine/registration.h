#pragma once
/// The choice of how the background of a frame is laid on the mask.

#include <stdexcept>
#include <string>

namespace cinelumen {

/// How the background is laid on the mask before it is subtracted: as it comes, moved as a whole, or also bent, bone by bone.
enum class Registration { none, rigid, nonrigid };

/// "none", "rigid" or "nonrigid", as written to analysis.json and given on the command line.
constexpr const char* to_string(Registration registration) {
  switch (registration) {
    case Registration::none:
      return "none";
    case Registration::rigid:
      return "rigid";
    case Registration::nonrigid:
      return "nonrigid";
  }
  return "none";
}

/// The choice of that name; std::invalid_argument where there is none.
inline Registration parse_registration(const std::string& name) {
  for (const Registration registration : {Registration::none, Registration::rigid, Registration::nonrigid})
    if (name == to_string(registration)) return registration;
  throw std::invalid_argument("registration " + name + ": expected none, rigid or nonrigid");
}

}  // namespace cinelumen
