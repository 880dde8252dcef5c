#include "io/events_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "engine/run.h"

namespace {

using namespace cinelumen;

class EventsFile : public testing::Test {
 protected:
  std::string write(const std::string& text) {
    path_ = std::filesystem::temp_directory_path() / ("events_" + std::to_string(::getpid()) + ".json");
    std::ofstream(path_) << text;
    return path_.string();
  }
  void TearDown() override { std::filesystem::remove(path_); }
  std::string error_of(const std::string& text) {
    try {
      read_events(write(text), runs);
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  }
  std::filesystem::path path_;
  const std::vector<std::string> runs = {"day1/a.dcm", "day1/b.dcm", "day2/"};
};

TEST_F(EventsFile, FindsRunsByNameAndNumber) {
  const Events events = read_events(write(R"([{"run": "b.dcm", "event": "spasmolytic", "drug": "nitroglycerin", "dose": "200 ug"},
                                              {"run": 1, "event": "reference", "acquired": "2026-01-01T10:00:00"},
                                              {"run": "day2", "event": "next day", "note": "warm foot"}])"),
                                    runs);
  EXPECT_EQ(events.lines[0].event.kind, EventKind::reference);
  EXPECT_EQ(events.lines[0].acquired, "2026-01-01T10:00:00");
  EXPECT_EQ(events.lines[1].event.kind, EventKind::spasmolytic);
  EXPECT_EQ(events.lines[1].event.drug, "nitroglycerin");
  EXPECT_EQ(events.lines[1].event.dose, "200 ug");
  EXPECT_EQ(events.lines[2].event.kind, EventKind::next_day);
  EXPECT_EQ(events.lines[2].event.note, "warm foot");
  EXPECT_TRUE(events.warnings.empty());
}

TEST_F(EventsFile, FindsFinishedAnalysesByTheirRun) {
  const Events events = read_events(write(R"([{"run": "a.dcm", "event": "redo"}])"), {"results/1", "results/2"}, {"x/b.dcm", "x/a.dcm"});
  EXPECT_EQ(events.lines[1].event.kind, EventKind::redo);
}

TEST_F(EventsFile, WarnsOfRunsThatAreNotCompared) {
  const Events events = read_events(write(R"([{"run": "c.dcm", "event": "redo"}])"), runs);
  ASSERT_EQ(events.warnings.size(), 1u);
  EXPECT_NE(events.warnings[0].find("c.dcm"), std::string::npos);
}

TEST_F(EventsFile, SaysWhatIsWrong) {
  EXPECT_NE(error_of("{").find("not JSON"), std::string::npos);
  EXPECT_NE(error_of("{}").find("not a list"), std::string::npos);
  EXPECT_NE(error_of("[3]").find("event 1 names no run"), std::string::npos);
  EXPECT_NE(error_of(R"([{"run": 4, "event": "redo"}])").find("run 4 is not among the 3 runs"), std::string::npos);
  EXPECT_NE(error_of(R"([{"run": 1}, {"run": "a.dcm"}])").find("has an event already"), std::string::npos);
  const std::string unknown = error_of(R"([{"run": 1, "event": "angioplasty"}])");
  EXPECT_NE(unknown.find("\"angioplasty\", expected reference, valvulotomy"), std::string::npos) << unknown;
  EXPECT_NE(error_of(R"([{"run": 1, "acquired": "yesterday"}])").find("\"yesterday\" is no date"), std::string::npos);
  EXPECT_NE(error_of(R"([{"run": 1, "drug": 3}])").find("\"drug\" is no text"), std::string::npos);
  EXPECT_THROW(read_events("/nonexistent/events.json", runs), InputError);
}

TEST_F(EventsFile, TwoRunsOfOneNameNeedANumber) {
  path_ = write(R"([{"run": "a.dcm", "event": "redo"}])");
  EXPECT_THROW(read_events(path_.string(), {"x/a.dcm", "y/a.dcm"}), InputError);
}

}  // namespace
