#include "io/trace_file.h"

#include <nlohmann/json.hpp>
#include <system_error>

#include "io/output_folder.h"

namespace cinelumen {
namespace {

using Json = nlohmann::ordered_json;

double microseconds(Trace::Clock::duration time) { return std::chrono::duration<double, std::micro>(time).count(); }

}  // namespace

std::string trace_json(const Trace::Record& record) {
  Json events = Json::array();
  events.push_back({{"name", "process_name"}, {"ph", "M"}, {"pid", 1}, {"tid", 0}, {"args", {{"name", "cinelumen"}}}});
  for (std::size_t row = 0; row < record.rows.size(); ++row) {
    events.push_back({{"name", "thread_name"}, {"ph", "M"}, {"pid", 1}, {"tid", row + 1}, {"args", {{"name", record.rows[row]}}}});
    events.push_back({{"name", "thread_sort_index"}, {"ph", "M"}, {"pid", 1}, {"tid", row + 1}, {"args", {{"sort_index", row}}}});
  }
  for (const Trace::Span& span : record.spans) {
    Json event = {{"name", span.stage},
                  {"cat", std::string(span.stage).rfind("wait", 0) == 0 ? "wait" : "stage"},
                  {"ph", "X"},
                  {"pid", 1},
                  {"tid", span.row + 1},
                  {"ts", microseconds(span.start - record.start)},
                  {"dur", microseconds(span.end - span.start)}};
    if (span.frame >= 0) event["args"] = {{"frame", span.frame + 1}};
    events.push_back(std::move(event));
  }
  return Json{{"traceEvents", std::move(events)}, {"displayTimeUnit", "ms"}, {"otherData", {{"left_out", record.left_out}}}}.dump();
}

TraceFile::TraceFile(std::filesystem::path path) : path_(std::move(path)), temporary_(path_) {
  temporary_ += ".tmp";
  OutputFile(temporary_).close();
  Trace::name_thread("main");
  Trace::start();
}

TraceFile::~TraceFile() {
  if (!recording_) return;
  (void)Trace::stop();
  std::error_code ignored;
  std::filesystem::remove(temporary_, ignored);
}

void TraceFile::write() {
  const std::string json = trace_json(Trace::stop());
  recording_ = false;
  OutputFile file(temporary_);
  file.write(json);
  file.close();
  std::error_code error;
  std::filesystem::rename(temporary_, path_, error);
  if (error) throw OutputError(path_.string() + ": " + error.message());
}

}  // namespace cinelumen
