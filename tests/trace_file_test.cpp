#include "io/trace_file.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "io/output_folder.h"

namespace cinelumen {
namespace {

namespace fs = std::filesystem;

TEST(TraceFile, IsJsonThatViewersRead) {
  Trace::Record record;
  record.start = Trace::Clock::now();
  record.rows = {"main", "worker 1"};
  const auto at = [&](int us) { return record.start + std::chrono::microseconds(us); };
  record.spans = {{"vesselness", 2, 0, at(10), at(30)}, {"wait for a frame", -1, 1, at(5), at(12)}};
  const auto json = nlohmann::json::parse(trace_json(record));
  std::vector<nlohmann::json> bars, names;
  for (const auto& event : json["traceEvents"]) {
    if (event["ph"] == "X") bars.push_back(event);
    if (event["name"] == "thread_name") names.push_back(event);
  }
  ASSERT_EQ(bars.size(), 2u);
  EXPECT_EQ(bars[0]["name"], "vesselness");
  EXPECT_EQ(bars[0]["cat"], "stage");
  EXPECT_EQ(bars[0]["args"]["frame"], 3) << "frames count from 1, as in DICOM";
  EXPECT_NEAR(bars[0]["ts"].get<double>(), 10, 1e-6);
  EXPECT_NEAR(bars[0]["dur"].get<double>(), 20, 1e-6);
  EXPECT_EQ(bars[1]["cat"], "wait");
  EXPECT_FALSE(bars[1].contains("args"));
  ASSERT_EQ(names.size(), 2u);
  EXPECT_EQ(names[1]["args"]["name"], "worker 1");
  EXPECT_EQ(names[1]["tid"], bars[1]["tid"]);
}

TEST(TraceFile, HasItsNameOnlyWhenItIsWhole) {
  char name[] = "/tmp/cinelumen_trace_XXXXXX";
  ASSERT_NE(::mkdtemp(name), nullptr);
  const fs::path folder = name;
  { const TraceFile abandoned(folder / "a.json"); }
  EXPECT_TRUE(fs::is_empty(folder));
  EXPECT_FALSE(Trace::on());
  TraceFile file(folder / "b.json");
  { const TraceSpan span("mask"); }
  EXPECT_FALSE(fs::exists(folder / "b.json"));
  file.write();
  std::ifstream written(folder / "b.json");
  EXPECT_EQ(nlohmann::json::parse(written)["otherData"]["left_out"], 0);
  EXPECT_FALSE(fs::exists(folder / "b.json.tmp"));
  EXPECT_THROW(TraceFile(folder / "nowhere" / "c.json"), OutputError);
  EXPECT_FALSE(Trace::on());
  fs::remove_all(folder);
}

}  // namespace
}  // namespace cinelumen
