#pragma once
/// Figures in sentences.

#include <cstdio>
#include <string>

namespace cinelumen {

/// As printf does; longer than 400 characters is cut.
template <class... Values>
std::string text(const char* format, Values... values) {
  char buffer[401];
  std::snprintf(buffer, sizeof buffer, format, values...);
  return buffer;
}

}  // namespace cinelumen
