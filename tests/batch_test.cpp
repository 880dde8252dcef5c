/// Several items at a time, one on each device.

#include "engine/batch.h"

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <stdexcept>

namespace cinelumen {
namespace {

TEST(Batch, EachItemOnceAndOneAtATimeOnEachStream) {
  const std::vector<Stream> streams = {Stream::cpu(), Stream::cpu({.parallel = false})};
  std::mutex mutex;
  std::multiset<int> done;
  std::set<const void*> busy;
  over_devices(streams, 20, [&](int item, const Stream& stream) {
    {
      const std::lock_guard lock(mutex);
      EXPECT_TRUE(busy.insert(&stream).second) << "two items on one stream";
    }
    const std::lock_guard lock(mutex);
    done.insert(item);
    busy.erase(&stream);
  });
  EXPECT_EQ(done.size(), 20u);
  for (int item = 0; item < 20; ++item) EXPECT_EQ(done.count(item), 1u);
}

TEST(Batch, AllStreamsWork) {
  const std::vector<Stream> streams(3, Stream::cpu());
  std::mutex mutex;
  std::condition_variable arrived;
  int inside = 0;
  over_devices(streams, 3, [&](int, const Stream&) {
    std::unique_lock lock(mutex);
    ++inside;
    arrived.notify_all();
    EXPECT_TRUE(arrived.wait_for(lock, std::chrono::seconds(20), [&] { return inside == 3; })) << "they wait for one another";
  });
  EXPECT_EQ(inside, 3);
}

TEST(Batch, TheFirstFailureIsToldAndNothingIsBegunAfterIt) {
  int begun = 0;
  EXPECT_THROW(over_devices({Stream::cpu()}, 10,
                            [&](int item, const Stream&) {
                              ++begun;
                              if (item == 3) throw std::runtime_error("no");
                            }),
               std::runtime_error);
  EXPECT_EQ(begun, 4);
  EXPECT_THROW(over_devices({}, 1, [](int, const Stream&) {}), std::invalid_argument);
}

}  // namespace
}  // namespace cinelumen
