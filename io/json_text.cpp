#include "io/json_text.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "io/byte_source.h"

namespace cinelumen {
namespace {

constexpr std::size_t longest_text = 1 << 16;

void print(const Json& value, std::size_t indent, std::string& out) {
  const auto flat = [](const Json& list) {
    return std::none_of(list.begin(), list.end(), [](const Json& item) {
      return item.is_object() ||
             (item.is_array() && std::any_of(item.begin(), item.end(), [](const Json& i) { return i.is_structured(); }));
    });
  };
  if (value.is_object() && !value.empty()) {
    out += "{";
    bool first = true;
    for (const auto& [key, item] : value.items()) {
      out += first ? "\n" : ",\n";
      out.append(indent + 2, ' ');
      out += Json(key).dump() + ": ";
      print(item, indent + 2, out);
      first = false;
    }
    out += "\n" + std::string(indent, ' ') + "}";
  } else if (value.is_array() && !flat(value)) {
    out += "[";
    for (std::size_t i = 0; i < value.size(); ++i) {
      out += i ? ",\n" : "\n";
      out.append(indent + 2, ' ');
      print(value[i], indent + 2, out);
    }
    out += "\n" + std::string(indent, ' ') + "]";
  } else {
    out += value.dump(-1, ' ', false, Json::error_handler_t::replace);
  }
}

}  // namespace

Json json_number(double value) {
  if (!std::isfinite(value)) return nullptr;
  char text[32];
  std::snprintf(text, sizeof text, "%.7g", value);
  return std::strtod(text, nullptr);
}

Json json_number(const std::optional<double>& value) { return value ? json_number(*value) : Json(nullptr); }

Json json_words(const std::string& text) { return text.empty() ? Json(nullptr) : Json(clean_text(text, longest_text)); }

Json json_texts(const std::vector<std::string>& list) {
  Json result = Json::array();
  for (const std::string& text : list) result.push_back(clean_text(text, longest_text));
  return result;
}

std::string json_text(const Json& root) {
  std::string text;
  print(root, 0, text);
  return text + "\n";
}

}  // namespace cinelumen
