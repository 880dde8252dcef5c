#include "engine/trace.h"

#include <gtest/gtest.h>

#include <thread>

#include "engine/stage_clock.h"

namespace cinelumen {
namespace {

TEST(Trace, RecordsNothingWhileItIsOff) {
  ASSERT_FALSE(Trace::on());
  StageClock clock;
  { const auto timed = clock.measure("registration"); }
  { const TraceSpan span("read"); }
  EXPECT_EQ(clock.stages().count("registration"), 1u) << "times are added up all the same";
  Trace::start();
  EXPECT_TRUE(Trace::on());
  EXPECT_TRUE(Trace::stop().spans.empty());
  EXPECT_FALSE(Trace::on());
}

TEST(Trace, KeepsStageFrameAndThread) {
  Trace::name_thread("first");
  Trace::start();
  StageClock clock;
  clock.set_frame(4);
  { const auto timed = clock.measure("vesselness"); }
  const auto work = [](const char* name) {
    return [name] {
      if (name) Trace::name_thread(name);
      const TraceSpan span("wait for a frame", 7);
    };
  };
  std::thread(work(nullptr)).join();
  std::thread(work("helper")).join();
  std::thread(work("helper")).join();
  const Trace::Record record = Trace::stop();
  EXPECT_EQ(record.rows, (std::vector<std::string>{"first", "worker 1", "helper"})) << "threads of one name share a row";
  ASSERT_EQ(record.spans.size(), 4u);
  EXPECT_STREQ(record.spans[0].stage, "vesselness");
  EXPECT_EQ(record.spans[0].frame, 4);
  EXPECT_EQ(record.spans[0].row, 0);
  EXPECT_EQ(record.spans[1].row, 1);
  EXPECT_EQ(record.spans[1].frame, 7);
  EXPECT_EQ(record.spans[2].row, 2);
  EXPECT_EQ(record.spans[3].row, 2);
  EXPECT_EQ(record.left_out, 0u);
  for (const Trace::Span& span : record.spans) {
    EXPECT_LE(record.start, span.start);
    EXPECT_LE(span.start, span.end);
  }
}

TEST(Trace, ASecondRecordingStartsEmptyAndLosesWhatWasUnderWay) {
  Trace::start();
  {
    const TraceSpan across("mask");
    (void)Trace::stop();
    Trace::start();
  }
  { const TraceSpan span("noise"); }
  const Trace::Record record = Trace::stop();
  ASSERT_EQ(record.spans.size(), 1u);
  EXPECT_STREQ(record.spans[0].stage, "noise");
  EXPECT_EQ(record.rows.size(), 1u);
}

}  // namespace
}  // namespace cinelumen
