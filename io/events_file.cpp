#include "io/events_file.h"

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/run.h"
#include "io/byte_source.h"

namespace cinelumen {
namespace {

using nlohmann::json;

std::string name_of(const std::string& path) {
  const std::filesystem::path p(path);
  return (p.has_filename() ? p : p.parent_path()).filename().string();
}

/// Index of the run that a line speaks of, -1: none, -2: several.
int find_run(const json& run, const std::vector<std::string>& runs, const std::vector<std::string>& sources) {
  if (run.is_number_integer()) {
    const auto index = run.get<long long>();
    return index >= 1 && index <= static_cast<long long>(runs.size()) ? static_cast<int>(index) - 1 : -1;
  }
  if (!run.is_string()) return -1;
  const auto wanted = run.get<std::string>();
  for (const auto* names : {&runs, &sources}) {
    int found = -1;
    for (std::size_t i = 0; i < names->size(); ++i)
      if ((*names)[i] == wanted || name_of((*names)[i]) == name_of(wanted)) found = found == -1 ? static_cast<int>(i) : -2;
    if (found != -1) return found;
  }
  return -1;
}

}  // namespace

Events read_events(const std::string& path, const std::vector<std::string>& runs, const std::vector<std::string>& sources) {
  constexpr std::uintmax_t largest = 16u << 20;
  const auto wrong = [&](const std::string& what) {
    return InputError(path + ": " + what +
                      R"(; expected [{"run": file name or number, "event": "spasmolytic", "drug", "dose", "acquired", "note"}, ...])");
  };
  const ByteSource file = ByteSource::file(path);
  if (file.size() > largest) throw wrong(std::to_string(file.size()) + " bytes are too many");
  const std::vector<std::uint8_t> bytes = file.read(0, file.size());
  const json list = json::parse(bytes.begin(), bytes.end(), nullptr, false);
  if (list.is_discarded()) throw wrong("not JSON");
  if (!list.is_array()) throw wrong("not a list");
  Events result;
  std::vector<EventLine>& events = result.lines;
  events.resize(runs.size());
  std::vector<bool> named(runs.size(), false);
  std::size_t number = 0;
  for (const json& item : list) {
    const std::string place = "event " + std::to_string(++number);
    if (!item.is_object() || !item.contains("run")) throw wrong(place + " names no run");
    const int run = find_run(item["run"], runs, sources);
    if (run == -2) throw wrong(place + ": several runs are called " + item["run"].dump() + ", a number tells which");
    if (run < 0 && item["run"].is_string()) {
      result.warnings.push_back(path + ": " + place + " is of " + clean_text(item["run"].get<std::string>()) + ", which is not compared");
      continue;
    }
    if (run < 0) throw wrong(place + ": run " + item["run"].dump() + " is not among the " + std::to_string(runs.size()) + " runs");
    const auto at = static_cast<std::size_t>(run);
    if (named[at]) throw wrong(place + ": run " + item["run"].dump() + " has an event already");
    named[at] = true;
    const auto words = [&](const char* key) -> std::string {
      if (!item.contains(key) || item[key].is_null()) return "";
      if (!item[key].is_string()) throw wrong(place + ": \"" + key + "\" is no text");
      return clean_text(item[key].get<std::string>());
    };
    const std::string word = words("event");
    const auto kind = parse_event(word);
    if (!kind && !word.empty()) throw InputError(path + ": " + place + ": event \"" + word + "\", expected " + known_events());
    events[at] = {{kind.value_or(EventKind::none), words("drug"), words("dose"), words("note")}, words("acquired")};
    int year = 0, month = 0, day = 0;
    if (!events[at].acquired.empty() && std::sscanf(events[at].acquired.c_str(), "%4d-%2d-%2d", &year, &month, &day) != 3)
      throw wrong(place + ": acquired \"" + events[at].acquired + "\" is no date as 2026-01-31T12:30:00");
  }
  return result;
}

}  // namespace cinelumen
