/// Phantom runs on disk: what is read back is what was made.

#include "io/phantom_writer.h"

#include <dcmtk/config/osconfig.h>
// DCMTK's configuration comes before its other headers.
#include <dcmtk/dcmdata/dctk.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "io/output_folder.h"
#include "io/run_reader.h"

namespace cinelumen {
namespace {

namespace fs = std::filesystem;

class PhantomWriter : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "cinelumen_phantom_XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }
  static PhantomOptions small(const std::string& scenario) {
    PhantomOptions options;
    options.scenario = scenario;
    options.rows = 96;
    options.columns = 112;
    options.frames = 14;
    return options;
  }
  static std::string bytes(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  fs::path folder_;
};

TEST_F(PhantomWriter, DicomComesBackAsTheRunInMemory) {
  for (const int bits : {8, 12, 16})
    for (const IntensityRelationship encoding : {IntensityRelationship::linear, IntensityRelationship::logarithmic}) {
      PhantomOptions options = small("tubes");
      options.bits_stored = bits;
      options.encoding = encoding;
      const PhantomRun phantom = make_phantom(options);
      write_phantom(phantom, folder_);
      const cinelumen::Run expected = make_run(phantom), read = read_run((folder_ / "run_01.dcm").string());
      ASSERT_EQ(read.frame_count(), 14);
      ASSERT_EQ(read.rows(), 96);
      ASSERT_EQ(read.columns(), 112);
      EXPECT_EQ(read.frame_times_ms, expected.frame_times_ms);
      EXPECT_EQ(read.intensity.relationship, IntensityRelationship::linear) << "LOG is brought to linear by its LUT";
      EXPECT_EQ(read.intensity.sign, 1);
      EXPECT_EQ(read.intensity.bits_stored, bits);
      EXPECT_TRUE(read.mask_instructions.empty());
      ASSERT_EQ(read.intensity.value.size(), expected.intensity.value.size());
      const double scale = encoding == IntensityRelationship::linear ? 1 : 65535 / (std::ldexp(1.0, bits) - 1);
      for (std::size_t v = 0; v < expected.intensity.value.size(); ++v)
        ASSERT_NEAR(read.intensity.value[v], scale * expected.intensity.value[v], encoding == IntensityRelationship::linear ? 0 : 0.51)
            << v;
      ASSERT_TRUE(read.geometry.imager_pixel_spacing_mm && read.geometry.source_to_detector_mm && read.geometry.source_to_patient_mm);
      EXPECT_NEAR((*read.geometry.imager_pixel_spacing_mm)[1] * *read.geometry.source_to_patient_mm / *read.geometry.source_to_detector_mm,
                  phantom.truth.mm_per_px, 1e-6);
      Image<std::uint16_t> a(96, 112), b(96, 112);
      for (const int f : {0, 7, 13}) {
        read.frames->read_frame(f, a.view());
        expected.frames->read_frame(f, b.view());
        for (int y = 0; y < 96; ++y)
          for (int x = 0; x < 112; ++x) ASSERT_EQ(a(y, x), b(y, x)) << bits << " bits, frame " << f;
      }
    }
}

TEST_F(PhantomWriter, TruthComesBack) {
  const PhantomRun phantom = make_phantom(small("foot"));
  write_phantom(phantom, folder_);
  const PhantomTruth& truth = phantom.truth;
  const nlohmann::json json = nlohmann::json::parse(bytes(folder_ / "truth.json"));
  EXPECT_EQ(json.at("schema"), "cinelumen.phantom/1");
  EXPECT_EQ(nlohmann::json::parse(bytes(folder_ / "events.json")), nlohmann::json::array());
  const auto& run = json.at("runs").at(0);
  EXPECT_TRUE(fs::exists(folder_ / run.at("file").get<std::string>()));
  EXPECT_DOUBLE_EQ(run.at("calibration").at("mm_per_px"), truth.mm_per_px);
  EXPECT_EQ(run.at("first_contrast_frame"), truth.first_contrast_frame + 1) << "frames count from one";
  ASSERT_EQ(run.at("motion").size(), 14u);
  for (std::size_t f = 0; f < 14; ++f) {
    EXPECT_EQ(run.at("motion")[f].at("frame"), f + 1);
    EXPECT_NEAR(run.at("motion")[f].at("shift_px")[0].get<double>(), truth.motion[f].dy_px, 1e-6);
    EXPECT_NEAR(run.at("motion")[f].at("rotation_rad").get<double>(), truth.motion[f].rotation_rad, 1e-8);
    EXPECT_DOUBLE_EQ(run.at("contrast_mm3")[f].at("injected"), truth.mass[f].injected);
  }
  ASSERT_EQ(run.at("segments").size(), truth.segments.size());
  std::size_t ends = 0;
  for (std::size_t s = 0; s < truth.segments.size(); ++s) {
    const PhantomSegment& expected = truth.segments[s];
    const auto& segment = run.at("segments")[s];
    EXPECT_EQ(segment.at("id"), expected.id);
    EXPECT_EQ(segment.at("name"), expected.name);
    EXPECT_EQ(segment.at("role"), expected.role);
    ends += !segment.at("start").is_null() + !segment.at("end").is_null();
    const std::size_t n = expected.points.size();
    for (const char* column :
         {"centreline_px", "radius_mm", "radius_px", "diameter_mm", "arrival_ms", "velocity_mm_s", "gap_px", "path_factor"})
      ASSERT_EQ(segment.at(column).size(), n) << column;
    for (std::size_t i = 0; i < n; ++i) {
      EXPECT_NEAR(segment.at("centreline_px")[i][0].get<double>(), expected.points[i].y_px, 1e-4);
      EXPECT_NEAR(segment.at("diameter_mm")[i].get<double>(), expected.points[i].diameter_calibration_mm, 1e-5);
      EXPECT_EQ(segment.at("arrival_ms")[i].is_null(), std::isnan(expected.points[i].arrival_ms));
    }
    ASSERT_EQ(segment.at("filling").size(), 14u);
    ASSERT_EQ(segment.at("filling")[13].size(), n);
    EXPECT_NEAR(segment.at("filling")[13][n / 2].get<double>(), expected.filling[13][n / 2], 1e-4);
  }
  std::size_t listed = 0;
  for (const auto& node : run.at("branch_points")) listed += node.at("segments").size();
  EXPECT_EQ(listed, ends);
}

TEST_F(PhantomWriter, EachScenarioTellsWhatItIsMadeFor) {
  const auto written = [&](const std::string& scenario) {
    PhantomOptions options = small(scenario);
    options.frames = 2;
    write_phantom(make_phantom(options), folder_);
    return nlohmann::json::parse(bytes(folder_ / "truth.json")).at("runs").at(0);
  };
  const auto stenoses = written("stenoses");
  ASSERT_EQ(stenoses.at("lesions").size(), 19u);
  EXPECT_EQ(stenoses.at("lesions")[0].at("kind"), "smooth");
  EXPECT_EQ(stenoses.at("lesions")[0].at("nominal_percent"), 50);
  EXPECT_TRUE(stenoses.at("lesions")[0].at("beyond").is_null());
  EXPECT_EQ(stenoses.at("lesions")[18].at("kind"), "occlusion");
  EXPECT_EQ(written("overlap").at("crossings").size(), 6u);
  const auto partial = written("partial-fill");
  EXPECT_TRUE(partial.at("contrast_mm3")[0].at("injected").is_null());
  for (const auto& segment : partial.at("segments"))
    EXPECT_EQ(segment.contains("filled_share"), segment.at("mechanism") != "full") << segment.at("mechanism");
  const auto warp = written("motion-nonrigid").at("warp");
  ASSERT_EQ(warp.at("frames").size(), 2u);
  EXPECT_EQ(warp.at("frames")[1].at("dy_px").size(), warp.at("nodes")[0].get<std::size_t>() * warp.at("nodes")[1].get<std::size_t>());
  written("spasm");
  const auto spasm = nlohmann::json::parse(bytes(folder_ / "truth.json"));
  ASSERT_GE(spasm.at("events").size(), 2u);
  EXPECT_EQ(spasm.at("events")[0].at("event"), "spasm");
  EXPECT_GT(spasm.at("events")[0].at("onset_ms"), 9000);
  int narrowing = 0;
  for (const auto& segment : spasm.at("runs").at(0).at("segments")) narrowing += segment.contains("calibre");
  EXPECT_GE(narrowing, 3);
  const auto stains = written("injury").at("stains");
  ASSERT_EQ(stains.size(), 2u);
  EXPECT_EQ(stains[0].at("kind"), "extravasation");
  EXPECT_EQ(stains[1].at("kind"), "dissection");
  EXPECT_EQ(stains[1].at("at_px").size(), 2u);
  EXPECT_GT(stains[1].at("range_mm")[1], stains[1].at("range_mm")[0]);
  EXPECT_TRUE(stains[0].at("onset_ms").is_null()) << "contrast comes later than the second frame";
  EXPECT_FALSE(stenoses.contains("stains"));
  EXPECT_GT(written("steal").at("flow_split").at("perforators_before_arch"), 0.6);
  const auto devices = written("devices");
  ASSERT_EQ(devices.at("devices").size(), 6u);
  for (const auto& device : devices.at("devices"))
    if (device.at("kind") == "catheter 5F") {
      EXPECT_EQ(device.at("outer_diameter_mm"), 1.67);
    }
  EXPECT_GT(devices.at("open_field_px")[0], 0);
}

TEST_F(PhantomWriter, SameRunSameBytesAndAnotherSeedAnotherInstance) {
  PhantomOptions options = small("tubes");
  write_phantom(make_phantom(options), folder_ / "a");
  write_phantom(make_phantom(options), folder_ / "b");
  EXPECT_EQ(bytes(folder_ / "a" / "run_01.dcm"), bytes(folder_ / "b" / "run_01.dcm"));
  EXPECT_EQ(bytes(folder_ / "a" / "truth.json"), bytes(folder_ / "b" / "truth.json"));
  options.seed = 2;
  write_phantom(make_phantom(options), folder_ / "b");
  EXPECT_NE(read_run((folder_ / "a" / "run_01.dcm").string()).description.sop_instance_uid,
            read_run((folder_ / "b" / "run_01.dcm").string()).description.sop_instance_uid);
  for (const auto& entry : fs::directory_iterator(folder_ / "b")) EXPECT_NE(entry.path().extension(), ".tmp");
}

TEST_F(PhantomWriter, ConformsToXa) {
  if (std::system("dciodvfy -version >/dev/null 2>&1") == 127 << 8) GTEST_SKIP() << "dciodvfy (dicom3tools) is not installed";
  for (const std::string& scenario : phantom_scenarios())
    for (const IntensityRelationship encoding : {IntensityRelationship::linear, IntensityRelationship::logarithmic}) {
      PhantomOptions options = small(scenario);
      options.frames = 2;
      options.encoding = encoding;
      write_phantom(make_phantom(options), folder_);
      const std::string report = (folder_ / "dciodvfy.txt").string();
      EXPECT_EQ(std::system(("dciodvfy " + (folder_ / "run_01.dcm").string() + " >" + report + " 2>&1").c_str()), 0);
      EXPECT_EQ(bytes(report).find("Error"), std::string::npos) << bytes(report);
    }
}

TEST_F(PhantomWriter, CaseIsSevenRunsOfOnePatient) {
  PhantomCaseOptions options;
  options.base.seed = 2;
  options.base.rows = options.base.columns = 64;
  options.base.frames = 3;
  int runs = 0;
  const PhantomTimeline timeline = write_phantom_case(PhantomCase(options), folder_, [&](int run) { EXPECT_EQ(run, runs++); });
  EXPECT_EQ(runs, 7);
  const auto truth = nlohmann::json::parse(bytes(folder_ / "truth.json"));
  const auto events = nlohmann::json::parse(bytes(folder_ / "events.json"));
  EXPECT_EQ(truth.at("scenario"), "case");
  EXPECT_EQ(truth.at("variant"), "refractory");
  EXPECT_EQ(truth.at("events"), events);
  ASSERT_EQ(truth.at("runs").size(), 7u);
  ASSERT_EQ(events.size(), 7u);
  EXPECT_EQ(events[1].at("event"), "valvulotomy");
  EXPECT_EQ(events[2].at("dose"), "200 ug");
  EXPECT_FALSE(events[1].contains("drug"));
  const auto& segments = truth.at("timeline").at("segments");
  ASSERT_EQ(segments.size(), timeline.segments.size());
  EXPECT_EQ(segments[0].at("label"), timeline.segments[0].label);
  EXPECT_EQ(segments[0].at("runs")[5].at("state"), timeline.segments[0].runs[5].state);
  std::set<std::string> patients, studies, instances, series;
  for (std::size_t k = 0; k < 7; ++k) {
    const std::string name = "run_0" + std::to_string(k + 1) + ".dcm";
    EXPECT_EQ(truth.at("runs")[k].at("file"), name);
    EXPECT_EQ(events[k].at("run"), name);
    EXPECT_EQ(truth.at("runs")[k].at("pose").at("rotation_deg") == 0, k == 0);
    DcmFileFormat file;
    ASSERT_TRUE(file.loadFile((folder_ / name).c_str()).good());
    const auto value = [&](const DcmTagKey& tag) {
      OFString text;
      EXPECT_TRUE(file.getDataset()->findAndGetOFString(tag, text).good());
      return std::string(text.c_str());
    };
    patients.insert(value(DCM_PatientID));
    studies.insert(value(DCM_StudyInstanceUID));
    series.insert(value(DCM_SeriesInstanceUID));
    instances.insert(value(DCM_SOPInstanceUID));
    EXPECT_EQ(value(DCM_BodyPartExamined), "FOOT");
    std::string when = events[k].at("acquired");
    std::erase_if(when, [](char c) { return c == '-' || c == ':'; });
    EXPECT_EQ(value(DCM_AcquisitionDate) + "T" + value(DCM_AcquisitionTime), when);
    EXPECT_EQ(value(DCM_SeriesDescription), "Foot, " + events[k].at("note").get<std::string>());
    EXPECT_LE(value(DCM_SeriesDescription).size(), 64u);
  }
  EXPECT_EQ(patients.size(), 1u);
  EXPECT_EQ(studies.size(), 4u) << "one session, next day, two months later, redo";
  EXPECT_EQ(instances.size(), 7u);
  EXPECT_EQ(series.size(), 7u);
}

TEST_F(PhantomWriter, FolderThatCannotBeMadeIsNamed) {
  std::ofstream(folder_ / "file") << "x";
  PhantomOptions options = small("tubes");
  options.frames = 1;
  EXPECT_THROW(write_phantom(make_phantom(options), folder_ / "file" / "below"), OutputError);
}

}  // namespace
}  // namespace cinelumen
