/// The program from outside: exit codes, one line per error, results where they are said to be.

#include <dcmtk/config/osconfig.h>
// DCMTK's configuration comes before its other headers.
#include <dcmtk/dcmdata/dctk.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <thread>

namespace {

namespace fs = std::filesystem;

struct Outcome {
  int code = -1;
  std::string out, err;
};

class Program : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/cinelumen_cli_XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    root = name;
  }
  void TearDown() override { fs::remove_all(root); }
  static std::string contents(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  Outcome run(const std::string& arguments, const std::string& input = "/dev/null") const {
    const std::string command = "cd " + root.string() + " && '" CINELUMEN_PROGRAM "' " + arguments + " > out.txt 2> err.txt < " + input;
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), contents(root / "out.txt"), contents(root / "err.txt")};
  }
  /// Expects the exit code, nothing on stdout, and one line on stderr that holds `words`.
  void expect_error(int code, const std::string& arguments, const std::string& words) const {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.code, code) << arguments << "\n" << outcome.err;
    EXPECT_EQ(outcome.out, "") << arguments;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << arguments << "\n" << outcome.err;
    EXPECT_NE(outcome.err.find(words), std::string::npos) << arguments << "\n" << outcome.err;
  }
  static constexpr int side = 96;
  /// A vessel that fills from frame 5 on before a still background.
  static std::vector<Uint16> pixels_of(int frames) {
    std::vector<Uint16> pixels;
    std::mt19937 random(3);
    std::normal_distribution<double> noise(0, 8);
    for (int f = 0; f < frames; ++f)
      for (int y = 0; y < side; ++y)
        for (int x = 0; x < side; ++x) {
          const double away = x - 48 - 6 * std::sin(y / 15.0), filled = std::clamp((f - 4) / 3.0, 0.0, 1.0);
          const double chord = std::abs(away) < 5 ? std::sqrt(25 - away * away) / 5 : 0;
          pixels.push_back(static_cast<Uint16>((2000 + 3 * x + 2 * y) * std::exp(-0.5 * filled * chord) + noise(random)));
        }
    return pixels;
  }
  /// The same as a raw stream, `missing` bytes of its end left out.
  void write_raw(const std::string& name, int frames, const std::string& header, std::size_t missing = 0) const {
    const std::vector<Uint16> pixels = pixels_of(frames);
    std::ofstream file(root / name, std::ios::binary);
    file << header << '\n';
    file.write(reinterpret_cast<const char*>(pixels.data()), static_cast<std::streamsize>(pixels.size() * 2 - missing));
  }
  static std::vector<nlohmann::json> lines_of(const std::string& text) {
    std::vector<nlohmann::json> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.push_back(nlohmann::json::parse(line, nullptr, false));
    return lines;
  }
  /// A small run of 12 such frames.
  void write_run(const std::string& name) const {
    constexpr int frames = 12;
    const std::vector<Uint16> pixels = pixels_of(frames);
    DcmFileFormat file;
    DcmDataset& data = *file.getDataset();
    const auto set = [&](const DcmTagKey& tag, const char* value) { ASSERT_TRUE(data.putAndInsertString(tag, value).good()); };
    set(DCM_SOPClassUID, UID_XRayAngiographicImageStorage);
    set(DCM_SOPInstanceUID, "1.2.3.4.5");
    set(DCM_StudyInstanceUID, "1.2.3");
    set(DCM_SeriesInstanceUID, "1.2.3.4");
    set(DCM_Modality, "XA");
    set(DCM_PatientName, "Test^Foot");
    set(DCM_BodyPartExamined, "FOOT");
    set(DCM_ImageType, "ORIGINAL\\PRIMARY\\SINGLE PLANE");
    set(DCM_PhotometricInterpretation, "MONOCHROME2");
    set(DCM_PixelIntensityRelationship, "LIN");
    set(DCM_NumberOfFrames, "12");
    set(DCM_FrameTime, "250");
    data.putAndInsertTagKey(DCM_FrameIncrementPointer, DCM_FrameTime);
    data.putAndInsertSint16(DCM_PixelIntensityRelationshipSign, 1);
    data.putAndInsertUint16(DCM_SamplesPerPixel, 1);
    data.putAndInsertUint16(DCM_Rows, side);
    data.putAndInsertUint16(DCM_Columns, side);
    data.putAndInsertUint16(DCM_BitsAllocated, 16);
    data.putAndInsertUint16(DCM_BitsStored, 12);
    data.putAndInsertUint16(DCM_HighBit, 11);
    data.putAndInsertUint16(DCM_PixelRepresentation, 0);
    data.putAndInsertUint16Array(DCM_PixelData, pixels.data(), static_cast<unsigned long>(pixels.size()));
    ASSERT_TRUE(file.saveFile((root / name).c_str(), EXS_LittleEndianExplicit).good());
  }
  fs::path root;
};

TEST_F(Program, HelpVersionAndCompletion) {
  for (const char* arguments : {"--help", "analyze --help", "info --help"}) {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.code, 0) << arguments;
    EXPECT_NE(outcome.out.find("--help"), std::string::npos) << arguments;
    EXPECT_EQ(outcome.err, "");
  }
  const Outcome version = run("--version");
  EXPECT_EQ(version.code, 0);
  EXPECT_EQ(version.out.rfind("cinelumen 0.", 0), 0u) << version.out;
  const Outcome completion = run("completion bash");
  EXPECT_EQ(completion.code, 0);
  std::ofstream(root / "completion.sh") << completion.out;
  const std::string complete =
      "bash -c 'set -e; . " + (root / "completion.sh").string() +
      "; COMP_WORDS=(cinelumen ana); COMP_CWORD=1; _cinelumen; [ \"${COMPREPLY[*]}\" = analyze ]"
      "; COMP_WORDS=(cinelumen analyze --mm-per-px-); COMP_CWORD=2; _cinelumen; [ \"${COMPREPLY[*]}\" = --mm-per-px-sd ]'";
  EXPECT_EQ(std::system(complete.c_str()), 0) << completion.out;
}

TEST_F(Program, WrongUsageIsTwo) {
  expect_error(2, "", "subcommand");
  expect_error(2, "dissect run.dcm", "dissect");
  expect_error(2, "analyze", "RUN");
  expect_error(2, "analyze run.dcm --sharpen", "--sharpen");
  expect_error(2, "analyze run.dcm --device tpu", "tpu");
  expect_error(2, "analyze run.dcm --device cuda:x", "cuda:x");
  expect_error(2, "analyze run.dcm --mm-per-px 0", "--mm-per-px");
  expect_error(2, "analyze run.dcm --registration elastic", "elastic");
  expect_error(2, "analyze run.dcm --catheter-od-mm 5", "INTRODUCER");
  expect_error(2, "analyze run.dcm --catheter-od-mm 1.67 --calibrate-at 12", "--calibrate-at 12: expected y,x");
  expect_error(2, "analyze run.dcm --calibrate-at 12,13", "--catheter-od-mm");
  expect_error(2, "analyze run.dcm --catheter-od-mm 1.67 --catheter-french 5", "--catheter-french");
  expect_error(2, "analyze run.dcm --marker-length-mm 20 --marker-at 3,4", "--marker-at: 1 given");
  expect_error(2, "stream run.dcm --marker-length-mm 20", "--marker-at");
  expect_error(2, "analyze run.dcm --threads -1", "--threads");
  expect_error(2, "analyze run.dcm --quiet --verbose", "--quiet");
  for (const char* frames : {"x", "0-3", "5-2", "1-2-3", "-4"})
    expect_error(2, std::string("analyze run.dcm --frames=") + frames, "--frames");
  write_run("run.dcm");
  expect_error(2, "analyze run.dcm --frames 10-13", "1-12");
  EXPECT_FALSE(fs::exists(root / "run-cinelumen"));
  // Asked for and not there: no fall back to the file's geometry.
  expect_error(1, "analyze run.dcm --catheter-od-mm 1.67", "--catheter-od-mm 1.67: no tube");
  expect_error(1, "analyze run.dcm --marker-length-mm 20 --marker-at '20,20;70,20'", "--marker-at 20,20");
}

TEST_F(Program, UnusableInputIsOne) {
  expect_error(1, "analyze missing.dcm", "missing.dcm");
  std::ofstream(root / "text.dcm") << "this is not a run";
  expect_error(1, "analyze text.dcm", "text.dcm");
  expect_error(1, "info text.dcm", "text.dcm");
  write_run("run.dcm");
  fs::resize_file(root / "run.dcm", fs::file_size(root / "run.dcm") / 2);
  expect_error(1, "analyze run.dcm", "run.dcm");
  write_run("run.dcm");
  for (const char* text : {"{", "{}", "[{\"polygon_px\": [[1,2],[3,4],[5,6]]}]", "[{\"name\": \"wound\", \"polygon_px\": [[1,2]]}]",
                           "[{\"name\": \"wound\", \"polygon_px\": [[1,2],[3,4],[5,\"x\"]]}]"}) {
    std::ofstream(root / "roi.json") << text;
    expect_error(1, "analyze run.dcm --roi roi.json", "roi.json");
  }
}

TEST_F(Program, MissingDeviceIsThree) {
  write_run("run.dcm");
  expect_error(3, "analyze run.dcm --device cuda:99", "CUDA");
}

TEST_F(Program, UnwritableOutputIsFour) {
  write_run("run.dcm");
  std::ofstream(root / "taken") << "a file";
  expect_error(4, "analyze run.dcm --output taken", "taken");
  expect_error(4, "analyze run.dcm --output /proc/nowhere", "/proc/nowhere");
  EXPECT_EQ(contents(root / "taken"), "a file");
}

TEST_F(Program, AnalysesARun) {
  write_run("run.dcm");
  const Outcome outcome = run("analyze run.dcm --device cpu --threads 1 --mm-per-px 0.2");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("run-cinelumen/report.html"), std::string::npos) << outcome.out;
  EXPECT_EQ(outcome.err.find('\r'), std::string::npos) << "no progress bar without a terminal";
  for (const char* name : {"analysis.json", "lumen.csv", "time_density.csv", "subtracted.dcm", "maximum_opacification.png", "report.html"})
    EXPECT_TRUE(fs::exists(root / "run-cinelumen" / name)) << name;
  for (const auto& entry : fs::directory_iterator(root / "run-cinelumen")) EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
  const auto summary = nlohmann::json::parse(contents(root / "run-cinelumen" / "analysis.json"));
  EXPECT_EQ(summary["calibration"]["source"], "user");
  EXPECT_EQ(summary["software"]["threads"], 1);
  EXPECT_EQ(summary["input"]["sop_instance_uid"], "1.2.3.4.5");
  EXPECT_FALSE(summary["segments"].empty()) << "the one vessel was not found";
}

// Against the truth of the phantom's devices; where they can't be measured to a few percent, a reason and nothing else.
TEST_F(Program, CalibratesOnWhatLiesInThePicture) {
  const auto made = [&](const std::string& size) {
    EXPECT_EQ(run("phantom devices --frames 10 --seed 71 --size " + size + " --output " + size).code, 0);
    return nlohmann::json::parse(contents(root / size / "truth.json"))["runs"][0];
  };
  const auto device = [](const nlohmann::json& truth, const std::string& kind) {
    for (const auto& one : truth["devices"])
      if (one["kind"] == kind) return one;
    return nlohmann::json();
  };
  const auto place = [](const nlohmann::json& at) {
    return std::to_string(std::lround(at[0].get<double>())) + "," + std::to_string(std::lround(at[1].get<double>()));
  };
  const auto analyze = [&](const std::string& size, const std::string& how) {
    return "analyze " + size + "/run_01.dcm --device cpu --no-video --output out-" + size + " " + how;
  };
  const auto expect_scale = [&](const std::string& size, const nlohmann::json& truth, const std::string& how, double within) {
    const Outcome outcome = run(analyze(size, how));
    ASSERT_EQ(outcome.code, 0) << how << "\n" << outcome.err;
    const auto found = nlohmann::json::parse(contents(root / ("out-" + size) / "analysis.json"))["calibration"];
    const double error = found["mm_per_px"].get<double>() / truth["calibration"]["mm_per_px"].get<double>() - 1;
    EXPECT_NEAR(error, 0, within) << how << " " << found;
    EXPECT_LT(std::abs(error), 2 * found["relative_sd"].get<double>()) << how << " " << found;
    EXPECT_LT(found["relative_sd"].get<double>(), 0.06) << how;
  };
  const auto refused = [&](const std::string& size, const std::string& how, const std::string& words) {
    fs::remove_all(root / ("out-" + size));
    expect_error(1, analyze(size, how), words);
    EXPECT_FALSE(fs::exists(root / ("out-" + size))) << "a folder was left behind";
  };
  const nlohmann::json large = made("1024"), small = made("512");
  const auto sheath = device(large, "introducer sheath 5F")["centreline_px"];
  expect_scale("1024", large, "--catheter-od-mm 2.25 --calibrate-at " + place(sheath[sheath.size() / 2]), 0.02);
  // It lies along a bone's edge: measured to its SD only.
  expect_scale("1024", large, "--catheter-french 5 --calibrate-at 71,394", 0.06);
  const auto ticks = device(small, "ruler")["markers_px"];
  expect_scale("512", small, "--marker-length-mm 40 --marker-at '" + place(ticks[0]) + ";" + place(ticks[4]) + "'", 0.02);
  // It follows a vein that turns away from the picture: 40 mm look like 33.
  const auto balloon = device(small, "balloon")["markers_px"];
  refused("512", "--marker-length-mm 40 --marker-at '" + place(balloon[0]) + ";" + place(balloon[1]) + "'", "tilted or bent");
  refused("512", "--catheter-od-mm 1.67", "show it with --calibrate-at");
}

TEST_F(Program, AnalysesSeveralRuns) {
  write_run("first.dcm");
  write_run("second.dcm");
  const std::vector<const char*> files = {"analysis.json", "lumen.csv", "report.html"};
  const Outcome both = run("analyze first.dcm second.dcm --device cpu --no-video --output both");
  ASSERT_EQ(both.code, 0) << both.err;
  for (const char* name : files) {
    EXPECT_TRUE(fs::exists(root / "both" / "first-cinelumen" / name)) << name;
    EXPECT_TRUE(fs::exists(root / "both" / "second-cinelumen" / name)) << name;
  }
  EXPECT_EQ(contents(root / "both" / "first-cinelumen" / "lumen.csv"), contents(root / "both" / "second-cinelumen" / "lumen.csv"));
  // One that cannot be read is told; the others are there.
  const Outcome one = run("analyze first.dcm missing.dcm second.dcm --device cpu --no-video --output rest");
  EXPECT_EQ(one.code, 1);
  EXPECT_NE(one.err.find("missing.dcm"), std::string::npos) << one.err;
  for (const char* name : files) {
    EXPECT_TRUE(fs::exists(root / "rest" / "first-cinelumen" / name)) << name;
    EXPECT_TRUE(fs::exists(root / "rest" / "second-cinelumen" / name)) << name;
  }
}

TEST_F(Program, JsonAndQuiet) {
  write_run("run.dcm");
  const Outcome json = run("--json analyze run.dcm --device cpu --output a/b --no-video --frames 2-11");
  ASSERT_EQ(json.code, 0) << json.err;
  const auto summary = nlohmann::json::parse(json.out);
  EXPECT_EQ(json.out, contents(root / "a" / "b" / "analysis.json"));
  EXPECT_EQ(summary["subtraction"]["frames"][0]["frame"], 2);
  EXPECT_FALSE(fs::exists(root / "a" / "b" / "overlay.mp4"));
  const Outcome quiet = run("analyze run.dcm --device cpu --output a/b --quiet");
  EXPECT_EQ(quiet.code, 0);
  EXPECT_EQ(quiet.out + quiet.err, "");
  const Outcome info = run("info run.dcm --json");
  EXPECT_EQ(info.code, 0) << info.err;
  EXPECT_TRUE(nlohmann::json::accept(info.out)) << info.out;
}

constexpr const char* raw_header =
    R"({"rows": 96, "columns": 96, "bits_stored": 12, "frame_time_ms": 40, "mm_per_px": 0.2, "pixel_intensity_relationship": "LIN"})";

/// Checks the trace: stages of one thread lie apart or one within the other. Returns the names of all.
std::set<std::string> stages_of_trace(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  EXPECT_TRUE(json.is_object());
  std::set<std::string> names;
  std::map<int, std::vector<std::pair<double, double>>> bars;
  for (const auto& event : json["traceEvents"])
    if (event["ph"] == "X") {
      names.insert(event["name"].get<std::string>());
      const double start = event["ts"].get<double>();
      bars[event["tid"].get<int>()].emplace_back(start, start + event["dur"].get<double>());
    }
  for (auto& [thread, spans] : bars) {
    std::sort(spans.begin(), spans.end(),
              [](const auto& a, const auto& b) { return a.first < b.first || (a.first == b.first && a.second > b.second); });
    std::vector<double> ends;
    for (const auto& [start, end] : spans) {
      while (!ends.empty() && ends.back() <= start + 1e-3) ends.pop_back();
      EXPECT_TRUE(ends.empty() || end <= ends.back() + 1e-3) << "thread " << thread << ": two stages at once at " << start << " us";
      ends.push_back(end);
    }
  }
  return names;
}

TEST_F(Program, TracesEveryStage) {
  write_run("run.dcm");
  const Outcome outcome = run("analyze run.dcm --device cpu --threads 2 --no-video --trace trace.json");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const std::set<std::string> names = stages_of_trace(contents(root / "trace.json"));
  const auto summary = nlohmann::json::parse(contents(root / "run-cinelumen" / "analysis.json"));
  for (const auto& [stage, ms] : summary["timing_ms"]["stages"].items()) EXPECT_TRUE(names.count(stage)) << stage;
  for (const char* stage : {"mask", "decode", "registration", "temporal filter", "vesselness", "re-snap", "diameters", "topology", "write"})
    EXPECT_TRUE(names.count(stage)) << stage;
  expect_error(4, "analyze run.dcm --trace nowhere/trace.json", "nowhere");

  write_raw("raw", 40, raw_header);
  const Outcome live = run("stream - --device cpu --mask-frames 4 --renew 2 --output s --trace live.json", "raw");
  ASSERT_EQ(live.code, 0) << live.err;
  const std::set<std::string> seen = stages_of_trace(contents(root / "live.json"));
  for (const char* stage : {"wait for a frame", "wait for the source and read", "wait for the mask", "wait for the vessels", "mask",
                            "topology", "registration", "vesselness", "diameters", "write", "finish the files"})
    EXPECT_TRUE(seen.count(stage)) << stage;
}

TEST_F(Program, StreamsRawFrames) {
  write_raw("raw", 40, raw_header);
  const Outcome outcome = run("stream - --device cpu --mask-frames 4 --renew 2 --output s --keep 16", "raw");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<nlohmann::json> lines = lines_of(outcome.out);
  ASSERT_EQ(lines.size(), 40u);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    ASSERT_TRUE(lines[i].is_object()) << i;
    EXPECT_EQ(lines[i]["frame"], i + 1);
    EXPECT_NEAR(lines[i]["time_ms"].get<double>(), 40.0 * i, 1e-3);
    EXPECT_GE(lines[i]["latency_ms"].get<double>(), 0);
    EXPECT_EQ(lines[i]["mask"], i < 5 ? "waiting" : "ready");
    EXPECT_TRUE(lines[i]["shift_px"].is_array() && lines[i]["events"].is_array() && lines[i]["dropped_for_display"].is_number());
  }
  ASSERT_FALSE(lines.back()["segments"].empty()) << outcome.out;
  const auto& segment = lines.back()["segments"][0];
  EXPECT_NEAR(segment["diameter_mm"].get<double>(), 2.0, 0.1) << "ten pixels of 0.2 mm";
  EXPECT_GT(segment["sd_mm"].get<double>(), 0);
  EXPECT_NE(outcome.err.find("latency ms p50"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("idle timer p99"), std::string::npos) << outcome.err;
  for (const char* name : {"analysis.json", "lumen.csv", "time_density.csv", "subtracted.dcm", "maximum_opacification.png", "report.html",
                           "mask.png", "opacification.png"})
    EXPECT_TRUE(fs::exists(root / "s" / name)) << name;
  for (const auto& entry : fs::directory_iterator(root / "s")) EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
  const auto summary = nlohmann::json::parse(contents(root / "s" / "analysis.json"));
  EXPECT_NEAR(summary["segments"][0]["diameter_mm"]["median"].get<double>(), 2.0, 0.1);
  DcmFileFormat derived;
  ASSERT_TRUE(derived.loadFile((root / "s" / "subtracted.dcm").c_str()).good());
  OFString frames;
  derived.getDataset()->findAndGetOFString(DCM_NumberOfFrames, frames);
  EXPECT_EQ(frames, "16") << "the last ones";
  const Outcome compared = run("compare s s --output compared");
  EXPECT_EQ(compared.code, 0) << compared.err;
}

TEST_F(Program, StreamFaultsAreSaidAndWhatCameIsKept) {
  expect_error(1, "stream -", "header line");
  expect_error(1, "stream missing.dcm", "missing.dcm");
  expect_error(2, "stream", "SOURCE");
  expect_error(2, "stream run.dcm --mask-frames 2", "--mask-frames");
  expect_error(1, "stream unix:socket --idle 0.2", "nobody connected");
  fs::create_directory(root / "empty");
  expect_error(1, "stream empty --idle 0.2", "no file came");
  struct Fault {
    const char *header, *words;
  };
  for (const Fault& fault : {Fault{"frames, please", "header line"}, Fault{R"({"rows": 96})", "columns"},
                             Fault{R"({"rows": 96, "columns": 1e9, "bits_stored": 12})", "columns"},
                             Fault{R"({"rows": 96, "columns": 96, "bits_stored": 17})", "bits_stored"}}) {
    write_raw("raw", 1, fault.header);
    const Outcome outcome = run("stream -", "raw");
    EXPECT_EQ(outcome.code, 1) << fault.header;
    EXPECT_NE(outcome.err.find(fault.words), std::string::npos) << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }
  write_raw("raw", 20, raw_header, 1000);
  const Outcome cut = run("stream - --device cpu --mask-frames 4 --renew 2 --output s", "raw");
  EXPECT_EQ(cut.code, 1);
  EXPECT_NE(cut.err.find("frame 20 is cut short"), std::string::npos) << cut.err;
  EXPECT_EQ(lines_of(cut.out).size(), 19u);
  EXPECT_TRUE(fs::exists(root / "s" / "analysis.json"));
}

TEST_F(Program, StreamsReplaysFoldersAndSockets) {
  write_run("run.dcm");
  const Outcome replay = run("stream run.dcm --device cpu --speed 0 --mask-frames 4 --renew 1");
  ASSERT_EQ(replay.code, 0) << replay.err;
  EXPECT_EQ(lines_of(replay.out).size(), 12u);
  EXPECT_TRUE(fs::exists(root / "run-cinelumen-stream" / "report.html"));
  const Outcome paced = run("stream run.dcm --device cpu --speed 10 --mask-frames 4 --renew 1 --output p");
  ASSERT_EQ(paced.code, 0) << paced.err;
  EXPECT_EQ(lines_of(paced.out).back()["segments"], lines_of(replay.out).back()["segments"]) << "figures do not depend on when frames came";

  fs::create_directory(root / "growing");
  std::thread writer([&] {
    for (int i = 0; i < 3; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(60));
      fs::copy_file(root / "run.dcm", root / "growing" / ("part" + std::to_string(i) + ".dcm.tmp"));
      fs::rename(root / "growing" / ("part" + std::to_string(i) + ".dcm.tmp"), root / "growing" / ("part" + std::to_string(i) + ".dcm"));
    }
  });
  const Outcome folder = run("stream growing --device cpu --idle 1 --mask-frames 4 --renew 2 --output g");
  writer.join();
  ASSERT_EQ(folder.code, 0) << folder.err;
  EXPECT_EQ(lines_of(folder.out).size(), 36u);

  write_raw("raw", 12, raw_header);
  const std::string python = "python3 -c \"import socket,time;s=socket.socket(socket.AF_UNIX)\nfor i in range(100):\n try:\n  s.connect('" +
                             (root / "socket").string() + "');break\n except OSError: time.sleep(.05)\ns.sendall(open('" +
                             (root / "raw").string() + "','rb').read())\" 2>/dev/null";
  if (std::system("python3 -c 'import socket'") != 0) GTEST_SKIP() << "no python3 to speak into the socket";
  std::thread sender([&] { EXPECT_EQ(std::system(python.c_str()), 0); });
  const Outcome socket = run("stream unix:socket --device cpu --mask-frames 4 --renew 1 --output u");
  sender.join();
  ASSERT_EQ(socket.code, 0) << socket.err;
  EXPECT_EQ(lines_of(socket.out).size(), 12u);
}

}  // namespace
