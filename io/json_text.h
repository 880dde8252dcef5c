#pragma once
/// Numbers and words as JSON, the same in every file that is written.

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace cinelumen {

using Json = nlohmann::ordered_json;

/// Rounded to seven significant digits: more would be noise of the arithmetic. Null where it is not a finite number.
Json json_number(double value);
/// Null where there is none.
Json json_number(const std::optional<double>& value);
/// Cleaned, valid UTF-8; null where empty.
Json json_words(const std::string& text);
/// An array of cleaned texts.
Json json_texts(const std::vector<std::string>& list);
/// An array of numbers, rounded as above.
template <class Values>
Json json_numbers(const Values& list) {
  Json result = Json::array();
  for (const auto& value : list) result.push_back(json_number(static_cast<double>(value)));
  return result;
}

/// [a, b], rounded as above.
template <class Pair>
Json json_pair(const Pair& values) {
  return Json::array({json_number(values[0]), json_number(values[1])});
}

/// Objects over several lines, lists of numbers on one: short enough to read, small enough for centrelines. Ends with a line end.
std::string json_text(const Json& root);

}  // namespace cinelumen
