#include "engine/trace.h"

#include <algorithm>
#include <mutex>
#include <utility>

namespace cinelumen {
namespace {

std::mutex mutex;
Trace::Record record;
int recordings = 0, workers = 0;

// A thread's row in the recording under way.
struct ThreadRow {
  std::string name;
  int recording = 0, row = 0;
};
thread_local ThreadRow thread_row;

// Needs the mutex.
int row_of_this_thread() {
  ThreadRow& own = thread_row;
  if (own.recording == recordings) return own.row;
  const std::string name = own.name.empty() ? "worker " + std::to_string(++workers) : own.name;
  const auto found = own.name.empty() ? record.rows.end() : std::find(record.rows.begin(), record.rows.end(), name);
  own.recording = recordings;
  own.row = static_cast<int>(found - record.rows.begin());
  if (found == record.rows.end()) record.rows.push_back(name);
  return own.row;
}

}  // namespace

std::atomic<bool> Trace::on_{false};

void Trace::start() {
  const std::lock_guard lock(mutex);
  record = {};
  record.start = Clock::now();
  ++recordings;
  workers = 0;
  on_ = true;
}

Trace::Record Trace::stop() {
  const std::lock_guard lock(mutex);
  on_ = false;
  return std::exchange(record, {});
}

void Trace::name_thread(const char* name) {
  thread_row.name = name;
  thread_row.recording = 0;
}

void Trace::add(const char* stage, int frame, Clock::time_point start, Clock::time_point end) {
  const std::lock_guard lock(mutex);
  if (!on() || start < record.start) return;
  if (record.spans.size() >= most_spans)
    ++record.left_out;
  else
    record.spans.push_back({stage, frame, row_of_this_thread(), start, end});
}

}  // namespace cinelumen
