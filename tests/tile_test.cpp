/// The tile machinery itself: every pixel once, on every device; sums; errors.

#include "kernels/tile.h"

#include "support/devices.h"
#include "support/images.h"

namespace cinelumen {
namespace {

class Images : public test::DeviceTest {};

TEST_P(Images, RoundTripAndZero) {
  const Stream stream = this->stream();
  for (const auto& [height, width] : test::awkward_sizes()) {
    const Image<float> host = test::random_image(height, width);
    auto device = test::sub_view<float>(stream, height, width);
    copy<float>(stream, host.view(), device.view);
    test::expect_near(to_host(stream, device.view).view(), host.view(), 0);
    set_zero(stream, device.view);
    const Image<float> zero = to_host(stream, device.view);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) ASSERT_EQ(zero(y, x), 0);
    const Image<float> whole = to_host(stream, device.whole.view());
    EXPECT_EQ(whole(0, 0), 7) << "set_zero must not touch what lies outside the view";
    EXPECT_EQ(whole(height + 4, width + 8), 7);
  }
}

TEST_P(Images, EmptyIsAllowed) {
  const Stream stream = this->stream();
  Image<float> empty(stream, 0, 5);
  EXPECT_TRUE(empty.empty());
  set_zero(stream, empty.view());
  EXPECT_THROW(Image<float>(stream, -1, 5), std::invalid_argument);
}

CINELUMEN_ON_ALL_DEVICES(Images);

TEST(Streams, MissingDeviceIsNamed) {
  try {
    Stream::cuda(99);
    FAIL() << "device 99 was accepted";
  } catch (const DeviceError& error) {
    EXPECT_NE(std::string(error.what()).find("CUDA"), std::string::npos) << error.what();
  }
}

TEST(ParallelFor, RunsEachOnceAndPassesExceptionsOn) {
  std::vector<int> count(1000, 0);
  parallel_for(1000, [&](int i) { ++count[i]; });
  EXPECT_EQ(count, std::vector<int>(1000, 1));
  EXPECT_THROW(parallel_for(10,
                            [](int i) {
                              if (i == 7) throw std::runtime_error("seven");
                            }),
               std::runtime_error);
}

TEST(Pipeline, OrderedStagesSeeItemsInOrderAndPlacesAreTheItemsOwn) {
  for (const int in_flight : {1, 2, 3, 7}) {
    constexpr int items = 200;
    std::vector<std::atomic<int>> holder(in_flight);  // item + 1 that a place belongs to, 0: free
    for (auto& h : holder) h = 0;
    std::vector<int> ordered, finished, square(items, -1);
    std::atomic<int> together = 0, most = 0, clashes = 0;
    pipeline(items, in_flight,
             {{false,
               [&](int item, int place) {
                 int expected = 0;
                 clashes += !holder[place].compare_exchange_strong(expected, item + 1);
                 const int now = ++together;
                 for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
                 }
                 std::this_thread::sleep_for(std::chrono::microseconds((item * 7919) % 50));
               }},
              {true, [&](int item, int) { ordered.push_back(item); }},
              {false,
               [&](int item, int) {
                 // Work that is parallel inside must not let another item's ordered stage in.
                 std::atomic<int> sum = 0;
                 parallel_for(item % 8, [&](int) { sum += item; });
                 square[item] = item * item + 0 * sum;
               }},
              {true, [&](int item, int place) {
                 finished.push_back(item);
                 clashes += holder[place] != item + 1;
                 --together;
                 holder[place] = 0;
               }}});
    std::vector<int> expected(items);
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(ordered, expected) << in_flight;
    EXPECT_EQ(finished, expected) << in_flight;
    EXPECT_EQ(clashes, 0) << in_flight;
    EXPECT_LE(most, in_flight);
    EXPECT_EQ(square[items - 1], (items - 1) * (items - 1));
  }
}

TEST(Pipeline, PassesExceptionsOnAndRefusesNoPlace) {
  for (const int in_flight : {1, 3})
    EXPECT_THROW(pipeline(20, in_flight,
                          {{true,
                            [](int item, int) {
                              if (item == 7) throw std::runtime_error("seven");
                            }}}),
                 std::runtime_error);
  EXPECT_THROW(pipeline(1, 0, {}), std::invalid_argument);
  pipeline(0, 2, {{true, [](int, int) { FAIL() << "nothing to do"; }}});
}

}  // namespace
}  // namespace cinelumen
