/// Recordings and events: what is queued once runs at every launch, in its order.

#include "kernels/stream.h"

#include <stdexcept>

#include "kernels/log_attenuation.h"
#include "support/devices.h"

namespace cinelumen {
namespace {

constexpr int height = 5, width = 7;

class Recorded : public test::DeviceTest {};

/// A frame on its way in and out again, through pinned memory: out = table[in].
struct Path {
  explicit Path(const Stream& stream)
      : in(Image<std::uint16_t>::staging(stream, height, width)),
        out(Image<float>::staging(stream, height, width)),
        stored(stream, height, width),
        attenuation(stream, height, width),
        table(stream, 100) {
    Array<float> host(100);
    for (int i = 0; i < 100; ++i) host[i] = 0.5f * static_cast<float>(i);
    copy<float>(stream, host, table);
    stream.synchronize();
  }
  void queue(const Stream& stream) {
    copy<std::uint16_t>(stream, in, stored);
    log_attenuation(stream, stored, table, attenuation);
    copy<float>(stream, attenuation, out);
  }
  void fill(std::uint16_t value) {
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) in(y, x) = value;
  }

  Image<std::uint16_t> in;
  Image<float> out;
  Image<std::uint16_t> stored;
  Image<float> attenuation;
  Array<float> table;
};

TEST_P(Recorded, TakesWhatStandsInMemoryAtEachLaunch) {
  const Stream stream = this->stream();
  Path path(stream);
  path.fill(1);
  path.out(2, 3) = -1;
  const Recording recording(stream, [&] { path.queue(stream); });
  ASSERT_TRUE(recording);
  stream.synchronize();
  EXPECT_EQ(path.out(2, 3), -1) << "recorded, not run";
  Event done(stream);
  done.wait();  // nothing was recorded: nothing to wait for
  for (const std::uint16_t value : {7, 9, 40}) {
    path.fill(value);
    recording.launch(stream);
    done.record(stream);
    done.wait();
    EXPECT_EQ(path.out(0, 0), 0.5f * static_cast<float>(value));
    EXPECT_EQ(path.out(height - 1, width - 1), 0.5f * static_cast<float>(value));
  }
}

TEST_P(Recorded, BranchesThatJoinAreOneLaunch) {
  const Stream stream = this->stream(), beside = stream.another();
  Path path(stream), other(stream);
  Event forked(stream), joined(stream);
  const Recording recording(stream, [&] {
    forked.record(stream);
    forked.hold(beside);
    other.queue(beside);
    path.queue(stream);
    joined.record(beside);
    joined.hold(stream);
  });
  path.fill(3);
  other.fill(4);
  recording.launch(stream);
  stream.synchronize();
  EXPECT_EQ(path.out(1, 1), 1.5f);
  EXPECT_EQ(other.out(1, 1), 2.0f);
}

TEST_P(Recorded, AStreamWaitsForAnother) {
  const Stream stream = this->stream(), copies = stream.another();
  Path path(stream);
  Event arrived(stream);
  for (const std::uint16_t value : {5, 6}) {
    path.fill(value);
    copy<std::uint16_t>(copies, path.in, path.stored);
    arrived.record(copies);
    arrived.hold(stream);
    log_attenuation(stream, path.stored, path.table, path.attenuation);
    copy<float>(stream, path.attenuation, path.out);
    stream.synchronize();
    EXPECT_EQ(path.out(4, 6), 0.5f * static_cast<float>(value));
  }
}

TEST_P(Recorded, WorkThatThrowsLeavesTheStreamUsable) {
  const Stream stream = this->stream();
  Path path(stream);
  const auto record_and_launch = [&] {
    const Recording recording(stream, [&] {
      path.queue(stream);
      throw std::invalid_argument("in the middle");
    });
    recording.launch(stream);
  };
  EXPECT_THROW(record_and_launch(), std::invalid_argument);
  path.fill(8);
  path.queue(stream);
  stream.synchronize();
  EXPECT_EQ(path.out(0, 0), 4.0f);
  EXPECT_FALSE(Recording());
}

CINELUMEN_ON_ALL_DEVICES(Recorded);

}  // namespace
}  // namespace cinelumen
