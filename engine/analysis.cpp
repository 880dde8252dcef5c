#include "engine/analysis.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>

#include "engine/findings.h"
#include "engine/foot_flow.h"
#include "engine/frame_chain.h"
#include "engine/mask_frame.h"
#include "engine/scenes.h"
#include "engine/segment_measurement.h"
#include "engine/segment_names.h"
#include "engine/topology.h"
#include "engine/vessel_injury.h"

namespace cinelumen {

namespace {

constexpr int key_frame_count = 6;  // enough for a median of how they agree, and for one of them to be sharp

// Frames whose temporal differences show the noise: free of contrast, or of a scene in which nothing changes.
std::vector<int> noise_frames(const MaskChoice& mask, const Scene& scene) {
  constexpr int enough = 8;
  const int first = scene.first, last = scene.last;
  const auto usable = [&](std::vector<int> frames) {
    std::erase_if(frames, [&](int frame) { return scene.is_odd(frame); });
    return frames;
  };
  if (mask.source == MaskSource::automatic && mask.frames().size() >= 2) return mask.frames();
  if (mask.inflow_frame > first + 2) {
    std::vector<int> frames(std::min(enough, mask.inflow_frame - 2 - first));
    std::iota(frames.begin(), frames.end(), first);
    frames = usable(std::move(frames));
    if (frames.size() >= 2) return frames;
  }
  if (mask.source == MaskSource::none) {
    const int middle = (first + last) / 2, count = std::min(enough, last - first + 1);
    std::vector<int> frames(count);
    std::iota(frames.begin(), frames.end(), std::clamp(middle - count / 2, first, last - count + 1));
    return usable(std::move(frames));
  }
  return {mask.reference_frame};
}

// Whether the picture is gathered from a frame.
bool makes_picture(const Scene& scene, const std::vector<bool>& of_picture, int frame) {
  return !scene.is_odd(frame) && of_picture[static_cast<std::size_t>(frame - scene.first)];
}

// Up to `count` well-filled frames among those `of_picture`, spread over the run: where the vessels may be traced, and compared to see
// whether they move.
std::vector<int> well_filled_frames(const MaskChoice& mask, const Scene& scene, const std::vector<bool>& of_picture, int count) {
  const int first = scene.first, last = scene.last;
  std::vector<int> candidates;
  if (mask.contrast_score.empty() || mask.source == MaskSource::none) {
    for (int frame = first; frame <= last; ++frame) candidates.push_back(frame);
  } else {
    const double best = *std::max_element(mask.contrast_score.begin(), mask.contrast_score.end());
    for (int frame = first; frame <= last; ++frame)
      if (mask.contrast_score[frame - first] >= 0.75 * best) candidates.push_back(frame);
  }
  std::erase_if(candidates, [&](int frame) { return !makes_picture(scene, of_picture, frame); });
  if (static_cast<int>(candidates.size()) <= count) return candidates;
  std::vector<int> chosen;
  for (int i = 0; i < count; ++i) chosen.push_back(candidates[(2 * i + 1) * candidates.size() / (2 * count)]);
  return chosen;
}

// Some of the frames `of_picture`, evenly spaced, the last one among them: what they show tells what comes late and what stays. None where
// nothing could be told from them.
std::vector<int> frames_of_course(const Run& run, const Analysis& analysis, const MaskChoice& mask, const Scene& scene,
                                  const std::vector<bool>& of_picture) {
  constexpr std::size_t count = 12;
  if (mask.source == MaskSource::none || run.frame_times_ms.empty() || !analysis.calibration.known()) return {};
  std::vector<int> candidates;
  for (int frame = scene.first; frame <= scene.last; ++frame)
    if (makes_picture(scene, of_picture, frame)) candidates.push_back(frame);
  if (candidates.size() <= count) return candidates;
  std::vector<int> chosen;
  for (std::size_t i = 0; i < count; ++i) chosen.push_back(candidates[i * (candidates.size() - 1) / (count - 1)]);
  return chosen;
}

// Takes the pictures along.
std::vector<CourseSample> to_host(const Stream& stream, const Run& run, std::vector<KeyFrame> frames) {
  std::vector<CourseSample> course;
  for (KeyFrame& frame : frames)
    course.push_back({run.frame_times_ms[static_cast<std::size_t>(frame.frame)],
                      stream.on_cuda() ? to_host<const float>(stream, frame.image.view()) : std::move(frame.image)});
  return course;
}

// What shows in the run's course, as findings.
std::vector<Finding> injury_findings(const std::vector<CourseSample>& course, double noise_sd, const Analysis& analysis) {
  std::vector<Finding> findings;
  const VesselInjuries injuries = find_injuries(course, analysis, noise_sd);
  for (const Extravasation& injury : injuries.extravasations) findings.push_back(finding_of(injury));
  for (const Dissection& injury : injuries.dissections) findings.push_back(finding_of(injury));
  return findings;
}

std::string frames_in_words(int first, int last) {
  return first == last ? "frame " + std::to_string(first + 1) : "frames " + std::to_string(first + 1) + " to " + std::to_string(last + 1);
}

// The scene to measure; says what is left out.
Scene choose_scene(const FramePlanes& planes, std::vector<std::string>& warnings) {
  const std::vector<Scene> scenes = find_scenes(planes);
  const Scene& scene = longest(scenes);
  if (scenes.size() > 1) {
    std::string starts;
    constexpr std::size_t most_named = 8;
    for (std::size_t i = 1; i < std::min(scenes.size(), most_named + 1); ++i)
      starts += (i > 1 ? ", " : "") + std::to_string(scenes[i].first + 1);
    if (scenes.size() > most_named + 1) starts += ", ...";
    warnings.push_back("The picture becomes another at frame " + starts +
                       " (table, zoom or shutter): nothing is measured across that. Measured: " + frames_in_words(scene.first, scene.last) +
                       ", the longest part; --frames chooses another.");
  }
  if (!scene.odd_frames.empty()) {
    std::string numbers;
    for (const int frame : scene.odd_frames) numbers += (numbers.empty() ? "" : ", ") + std::to_string(frame + 1);
    warnings.push_back("Frame " + numbers +
                       ": shows something else than the frames around (blank, flashed or half transmitted); not measured.");
  }
  return scene;
}

// What shows the bones, and objects of known size: the mask, or the reference frame where there is none.
Image<float> contrast_free_picture(const Stream& stream, const Run& run, const IntensityModel& intensity, const MaskChoice& choice,
                                   const std::vector<MaskFrame>& masks) {
  if (!masks.empty()) return to_host<const float>(stream, masks.front().attenuation.view());
  return to_host<const float>(stream, average_mask_frames(stream, run, intensity, {{choice.reference_frame}, {0, 0}}).attenuation.view());
}

void check(const Run& run, const AnalysisOptions& options, int last) {
  check(options.object);
  if (options.first_frame < 0 || options.first_frame > last || last >= run.frame_count())
    throw std::invalid_argument("frames " + std::to_string(options.first_frame + 1) + "-" + std::to_string(last + 1) +
                                " are not all in the run: it has 1-" + std::to_string(run.frame_count()));
  if (run.rows() < 16 || run.columns() < 16)
    throw InputError(run.description.path + ": " + std::to_string(run.rows()) + " x " + std::to_string(run.columns()) +
                     " pixels are too few to find vessels in, expected 16 x 16 at least");
}

}  // namespace

Analysis analyze(const Stream& stream, const Run& run, const AnalysisOptions& options, AnalysisObserver* observer) {
  const auto start = std::chrono::steady_clock::now();
  check(run, options, options.last_frame < 0 ? run.frame_count() - 1 : options.last_frame);

  Analysis analysis;
  StageClock clock;
  analysis.warnings = run.warnings;
  analysis.calibration = calibrate(run.geometry, options.mm_per_px, options.mm_per_px_relative_sd);

  if (options.diameter != DiameterRule::fit) analysis.warnings.push_back(caution(options.diameter));

  // Intensity; which frames show one scene; which of them make the mask; noise.
  const IntensityModel intensity = make_intensity_model(run.intensity);
  analysis.intensity_note = intensity.note;
  analysis.densitometric = intensity.densitometric;
  Scene scene;
  MaskChoice mask;
  {
    const auto timed = clock.measure("mask");
    FramePlanes planes =
        read_frame_planes(run, intensity, options.first_frame, options.last_frame < 0 ? run.frame_count() - 1 : options.last_frame);
    scene = choose_scene(planes, analysis.warnings);
    mask = select_mask(run, part_of(std::move(planes), scene.first, scene.last), scene.odd_frames);
  }
  const int first = scene.first, last = scene.last;
  {
    const auto timed = clock.measure("noise");
    analysis.noise = estimate_noise(run, intensity, noise_frames(mask, scene));
  }
  analysis.device = device_name(stream);
  analysis.threads = cpu_threads();
  analysis.rows = run.rows();
  analysis.columns = run.columns();
  analysis.frames = last - first + 1;
  analysis.first_frame = first;
  if (!run.frame_times_ms.empty())
    analysis.frame_times_ms.assign(run.frame_times_ms.begin() + first, run.frame_times_ms.begin() + last + 1);

  std::vector<MaskFrame> mask_frames;
  if (mask.source != MaskSource::none) {
    const auto timed = clock.measure("mask");
    mask_frames = make_mask_frames(stream, run, intensity, mask, options.registration);
  }
  analysis.mask_picture = contrast_free_picture(stream, run, intensity, mask, mask_frames);
  if (options.object.given())
    analysis.calibration =
        calibrate_by(options.object, analysis.mask_picture.view(), run.field.valid(), analysis.calibration, run.description.path);
  if (!analysis.calibration.warning.empty()) analysis.warnings.push_back(analysis.calibration.warning);
  FrameChain chain(stream, run, intensity, analysis.noise, mask, std::move(mask_frames), scene, options);

  // Every frame once: register; of those that make the picture, subtract, filter, gather what they show.
  const std::vector<bool> of_picture = frames_of_picture(run.frame_times_ms, first, last, options.picture_frames);
  Opacification opacification = chain.opacify(of_picture, well_filled_frames(mask, scene, of_picture, key_frame_count),
                                              frames_of_course(run, analysis, mask, scene, of_picture), observer);

  // The vessels: once per run.
  Topology topology;
  {
    const auto timed = clock.measure("topology");
    TopologyOptions topology_options;
    topology_options.vesselness = chain.setup().vesselness_options(options.response, opacification.noise_sd);
    topology = find_topology(stream, opacification.picture, opacification.key_frames, chain.setup().valid(), topology_options);
  }
  const std::vector<CourseSample> course = to_host(stream, run, std::move(opacification.course));
  opacification.key_frames.clear();  // nobody needs them any more
  analysis.subtracted = mask.source != MaskSource::none;
  analysis.subtraction.mask = mask;
  analysis.subtraction.registration = analysis.subtracted ? options.registration : Registration::none;
  analysis.subtraction.reference_frame = mask.reference_frame;
  analysis.subtraction.topology_frame = topology.frame;
  analysis.subtraction.moving_vessels = topology.moving_vessels;
  analysis.subtraction.topology_note = topology.note;
  analysis.subtraction.frames = opacification.frames;
  analysis.maximum_opacification = to_host<const float>(stream, topology.picture.view());
  if (!analysis.frame_times_ms.empty() && analysis.frames > 1 && !topology.moving_vessels)
    analysis.time_to_peak_ms = std::move(opacification.time_to_peak_ms);
  analysis.branch_points = topology.graph.branch_points;
  for (std::size_t i = 0; i < topology.graph.segments.size(); ++i) {
    SegmentResult segment;
    segment.id = static_cast<int>(i) + 1;
    segment.name = "segment " + std::to_string(segment.id);
    segment.centreline = topology.graph.segments[i].centreline;
    segment.length = segment.centreline.length_px() * analysis.calibration.mm_per_px;
    analysis.segments.push_back(std::move(segment));
  }
  if (observer) observer->topology_done(analysis);

  // Every frame again, now that the vessels are known: find them, measure the lumen, read the contrast.
  SegmentMeasurements measurements = chain.measure(topology, opacification, analysis.calibration, observer);
  {
    const auto timed = clock.measure("statistics");
    watch_calibre(measurements, analysis);
    summarize_segments(measurements, analysis);
    summarize_flow(measurements, options.regions, analysis);
    const auto transits = measure_transits(measurements, analysis);
    summarize_foot_flow(name_segments(analysis, run.description.body_part, transits), transits, analysis);
    analysis.findings = find_single_run_findings(analysis);
  }
  {
    const auto timed = clock.measure("injuries");
    for (Finding& injury : injury_findings(course, opacification.noise_sd, analysis)) analysis.findings.push_back(std::move(injury));
  }

  clock.merge(chain.clock());
  const std::vector<double>& frame_ms = chain.frame_ms();
  if (!frame_ms.empty()) {
    std::vector<double> sorted = frame_ms;
    std::sort(sorted.begin(), sorted.end());
    analysis.timing.per_frame_p50 = sorted[sorted.size() / 2];
    analysis.timing.per_frame_p99 = sorted[(sorted.size() - 1) * 99 / 100];
  }
  analysis.timing.stages = clock.stages();
  analysis.timing.total = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return analysis;
}

}  // namespace cinelumen
