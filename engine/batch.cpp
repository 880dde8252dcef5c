#include "engine/batch.h"

#include <exception>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <thread>

namespace cinelumen {

void over_devices(const std::vector<Stream>& streams, int count, const std::function<void(int item, const Stream& stream)>& body) {
  if (streams.empty()) throw std::invalid_argument("over_devices: there is no stream");
  std::mutex mutex;
  int next = 0;
  std::exception_ptr first;
  const auto take = [&] {
    const std::lock_guard lock(mutex);
    return first || next >= count ? -1 : next++;
  };
  const auto work = [&](const Stream& stream) {
    for (int item = take(); item >= 0; item = take()) {
      try {
        body(item, stream);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
      }
    }
  };
  std::vector<std::jthread> threads;
  for (std::size_t i = 1; i < streams.size(); ++i) threads.emplace_back(work, std::cref(streams[i]));
  work(streams[0]);
  threads.clear();
  if (first) std::rethrow_exception(first);
}

}  // namespace cinelumen
