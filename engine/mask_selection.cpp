#include "engine/mask_selection.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "kernels/bspline.h"
#include "kernels/log_subtract.h"
#include "kernels/mask_registration.h"

namespace cinelumen {
namespace {

constexpr int most_mask_frames = 8;
constexpr int frames_before_inflow = 2;  // the first drops do not show yet
constexpr double top_fraction = 0.005;
constexpr double cusum_slack = 0.5, cusum_limit = 5;

/// A frame's attenuation, binned, freed of what varies slowly, with its motion against one of the first frames undone.
struct Plane {
  Image<float> attenuation;
};

/// The run at the size that it is judged at.
struct Binned {
  int height = 0, width = 0;
  Image<std::uint8_t> valid;
  std::vector<Plane> planes;
};

double median_of(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}
float median_of(std::vector<float>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

bool is_odd(const std::vector<int>& odd_frames, int frame) { return std::binary_search(odd_frames.begin(), odd_frames.end(), frame); }

/// Lays every plane on one of the first. Odd frames become copies of the one before: they say nothing. The first is none.
Binned register_planes(FramePlanes planes, const std::vector<int>& odd_frames) {
  Binned result;
  const int height = result.height = planes.height, width = result.width = planes.width, count = static_cast<int>(planes.planes.size());
  result.valid = std::move(planes.valid);
  result.planes.resize(static_cast<std::size_t>(count));
  const Stream serial = Stream::cpu({.parallel = false});
  for (int i = 1; i < count; ++i)
    if (is_odd(odd_frames, planes.first + i)) planes.planes[i] = to_host(serial, planes.planes[i - 1].view());
  const int reference_index = std::min(5, (count - 1) / 4);
  const MaskRegistration reference(serial, planes.planes[reference_index], result.valid, {.rotation = false, .search_radius_px = 16});
  parallel_for(count, [&](int i) {
    Plane& plane = result.planes[static_cast<std::size_t>(i)];
    plane.attenuation = std::move(planes.planes[i]);
    MaskRegistration registration = reference.another(serial);
    const RigidEstimate estimate = registration.estimate(serial, plane.attenuation, RigidMotion{});

    if (std::hypot(estimate.motion.shift_y_px, estimate.motion.shift_x_px) > 0.02f) {
      Image<float> coefficients(height, width), moved(height, width);
      bspline_coefficients(serial, plane.attenuation, coefficients);
      warp(serial, coefficients, inverse(estimate.motion), moved);
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) {
          const PixelPosition there = move(estimate.motion, {static_cast<double>(y), static_cast<double>(x)}, height, width);
          const bool shown = there.y >= 0 && there.y <= height - 1 && there.x >= 0 && there.x <= width - 1;
          plane.attenuation(y, x) = (shown ? moved(y, x) : plane.attenuation(y, x)) - estimate.offset;
        }
    } else {
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) plane.attenuation(y, x) -= estimate.offset;
    }
  });
  return result;
}

/// Sides of the difference between a frame and the contrast-free background.
struct Score {
  double above = 0, below = 0;  // means of the highest and lowest `top_fraction`, noise SDs
};

/// Scores every plane against the per-pixel median of planes 0..early-1; one of these against the median of the others, so that none
/// looks quieter for having been part of its own background.
std::vector<Score> score_planes(const Binned& run, int early) {
  const int count = static_cast<int>(run.planes.size());
  std::vector<std::pair<int, int>> pixels;
  for (int y = 0; y < run.height; ++y)
    for (int x = 0; x < run.width; ++x)
      if (run.valid(y, x)) pixels.push_back({y, x});
  std::vector<Score> scores(static_cast<std::size_t>(count));
  if (pixels.empty() || early < 2) return scores;
  const int pixel_count = static_cast<int>(pixels.size());
  // Sorted early values per pixel: the median without one of them is then a matter of its rank.
  std::vector<float> sorted(static_cast<std::size_t>(pixel_count) * early);
  constexpr int chunk = 4096;
  parallel_for((pixel_count + chunk - 1) / chunk, [&](int c) {
    for (int p = c * chunk; p < std::min(pixel_count, (c + 1) * chunk); ++p) {
      float* values = &sorted[static_cast<std::size_t>(p) * early];
      for (int i = 0; i < early; ++i) values[i] = run.planes[static_cast<std::size_t>(i)].attenuation(pixels[p].first, pixels[p].second);
      std::sort(values, values + early);
    }
  });
  std::vector<double> sigma(static_cast<std::size_t>(count));
  parallel_for(count, [&](int t) {
    std::vector<float> difference(static_cast<std::size_t>(pixel_count));
    for (int p = 0; p < pixel_count; ++p) {
      const float* values = &sorted[static_cast<std::size_t>(p) * early];
      const float value = run.planes[static_cast<std::size_t>(t)].attenuation(pixels[p].first, pixels[p].second);
      const int others = t < early ? early - 1 : early;
      const int rank = t < early ? static_cast<int>(std::lower_bound(values, values + early, value) - values) : early;
      const auto other = [&](int i) { return values[i < rank ? i : (t < early ? i + 1 : i)]; };
      difference[p] = value - (others % 2 ? other(others / 2) : 0.5f * (other(others / 2 - 1) + other(others / 2)));
    }
    const float middle = median_of(difference);
    const int top = std::max(1, static_cast<int>(top_fraction * pixel_count));
    std::nth_element(difference.begin(), difference.end() - top, difference.end());
    const double high = std::accumulate(difference.end() - top, difference.end(), 0.0) / top;
    std::nth_element(difference.begin(), difference.begin() + top, difference.end());
    const double low = std::accumulate(difference.begin(), difference.begin() + top, 0.0) / top;
    scores[t] = {std::max(0.0, high - middle), std::max(0.0, middle - low)};
    for (float& d : difference) d = std::abs(d - middle);
    sigma[t] = 1.4826 * median_of(difference);
  });
  const double noise = std::max(1e-6, median_of(std::vector<double>(sigma.begin(), sigma.begin() + early)));
  for (Score& score : scores) score = {score.above / noise, score.below / noise};
  return scores;
}

/// Where a score starts to rise, by a cumulative sum with the mean and SD of values 0..early-1; -1: nowhere.
int find_rise(const std::vector<double>& score, int early) {
  const std::vector<double> start(score.begin(), score.begin() + early);
  const double mean = median_of(start);
  std::vector<double> deviation;
  for (const double s : start) deviation.push_back(std::abs(s - mean));
  double sd = std::max({1.4826 * median_of(deviation), 0.06 * mean, 0.15});
  const auto run_sum = [&](int count, int& onset) {
    double sum = 0, most = 0;
    onset = -1;
    for (int t = 0; t < count; ++t) {
      // One frame alone, however odd, is not an inflow.
      sum = std::max(0.0, sum + std::min((score[t] - mean) / sd, 4.0) - cusum_slack);
      if (sum == 0) onset = -1;
      if (sum > 0 && onset < 0) onset = t;
      most = std::max(most, sum);
      if (sum > cusum_limit) break;
    }
    return most;
  };
  int onset = -1;
  // A heart's beat goes up and down for several frames together: the start of the run, which holds no contrast, says by how much.
  while (run_sum(early, onset) > 0.5 * cusum_limit) sd *= 1.1;
  return run_sum(static_cast<int>(score.size()), onset) > cusum_limit ? onset : -1;
}

/// The level a score keeps for at least a tenth of the run.
double plateau(std::vector<double> score) {
  const auto at = score.begin() + static_cast<std::ptrdiff_t>(score.size() * 9 / 10);
  std::nth_element(score.begin(), at, score.end());
  return *at;
}

struct Inflow {
  int frame = -1;        // index into the planes, -1: none
  bool washout = false;  // contrast from the first frame on, that leaves later
  std::vector<double> score;
};

/// First looks at the run against its first frames, then again against all that come before the visible rise: a heart's whole beat then
/// counts as background.
Inflow find_inflow(const Binned& run) {
  const int count = static_cast<int>(run.planes.size());
  int early = std::clamp(count / 8, 3, 8);
  Inflow result;
  std::vector<double> above, below;
  for (int pass = 0; pass < 2; ++pass) {
    const std::vector<Score> scores = score_planes(run, early);
    above.clear();
    below.clear();
    for (const Score& s : scores) {
      above.push_back(s.above);
      below.push_back(s.below);
    }
    result.score = above;
    if (pass == 1) break;
    const double low = median_of(std::vector<double>(above.begin(), above.begin() + early)), high = plateau(above);
    int rise = 0;
    while (rise + 1 < count && !(above[rise] > low + 0.4 * (high - low) && above[rise + 1] > low + 0.4 * (high - low) && rise >= early))
      ++rise;
    early = rise + 1 < count && high > 1.3 * low ? std::clamp(rise, early, 32) : early;
  }
  const auto mean_of_early = [&](const std::vector<double>& score) {
    return median_of(std::vector<double>(score.begin(), score.begin() + early));
  };
  // Less than that is what noise, motion and exposure do by themselves. Contrast that leaves also brightens what is next to it, a
  // little, since what varies slowly has been taken out: the larger rise counts.
  constexpr double least_rise = 1.3;
  const double above_start = mean_of_early(above), above_rise = plateau(above) - above_start;
  const double below_start = mean_of_early(below), below_rise = plateau(below) - below_start;
  if (above_rise >= below_rise && above_rise > (least_rise - 1) * above_start) result.frame = find_rise(above, early);
  if (above_rise < below_rise && below_rise > (least_rise - 1) * below_start) result.washout = find_rise(below, early) >= 0;
  return result;
}

/// The reference and those like it among planes 0..count-1 that are not `left_out`, most alike first: at most `most_mask_frames`.
std::vector<int> most_alike(const Binned& run, int count, const std::vector<int>& left_out) {
  constexpr int candidates_limit = 32;
  std::vector<int> candidates;
  for (int i = count; i-- > 0 && static_cast<int>(candidates.size()) < candidates_limit;)
    if (!is_odd(left_out, i)) candidates.insert(candidates.begin(), i);
  const int n = static_cast<int>(candidates.size());
  std::vector<double> distance(static_cast<std::size_t>(n) * n, 0);
  parallel_for(n, [&](int i) {
    for (int j = 0; j < i; ++j) {
      const Image<float>&a = run.planes[static_cast<std::size_t>(candidates[i])].attenuation,
            &b = run.planes[static_cast<std::size_t>(candidates[j])].attenuation;
      double sum = 0;
      int used = 0;
      for (int y = 0; y < run.height; y += 2)
        for (int x = 0; x < run.width; x += 2)
          if (run.valid(y, x)) {
            const double d = a(y, x) - b(y, x);
            sum += d * d;
            ++used;
          }
      distance[static_cast<std::size_t>(i) * n + j] = distance[static_cast<std::size_t>(j) * n + i] = used ? sum / used : 0;
    }
  });
  std::vector<int> best;
  double best_sum = 0;
  for (int i = 0; i < n; ++i) {
    std::vector<int> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      const double da = a == i ? -1 : distance[static_cast<std::size_t>(i) * n + a],
                   db = b == i ? -1 : distance[static_cast<std::size_t>(i) * n + b];
      return da < db;
    });
    order.resize(std::min<std::size_t>(order.size(), most_mask_frames));
    double sum = 0;
    for (const int j : order) sum += distance[static_cast<std::size_t>(i) * n + j];
    if (best.empty() || sum < best_sum) {
      best_sum = sum;
      best = order;
    }
  }
  // Twice the smallest difference (noise, mostly): more than that has moved, and would blur the mask.
  std::vector<int> result;
  const double limit = best.size() > 1 ? 2 * distance[static_cast<std::size_t>(best[0]) * n + best[1]] : 0;
  for (std::size_t k = 0; k < best.size(); ++k)
    if (k == 0 || distance[static_cast<std::size_t>(best[0]) * n + best[k]] <= limit) result.push_back(candidates[best[k]]);
  return result;
}

bool applies(const MaskInstruction& instruction, int frame) {
  if (instruction.applicable_frames.empty()) return true;
  for (const auto& range : instruction.applicable_frames)
    if (frame + 1 >= range[0] && frame + 1 <= range[1]) return true;
  return false;
}

const char* name_of(MaskInstruction::Operation operation) {
  switch (operation) {
    case MaskInstruction::Operation::average_subtraction:
      return "AVG_SUB";
    case MaskInstruction::Operation::time_interval_difference:
      return "TID";
    case MaskInstruction::Operation::reverse_time_interval_difference:
      return "REV_TID";
    case MaskInstruction::Operation::none:
      break;
  }
  return "NONE";
}

std::string list_of(std::vector<int> numbers, int add) {
  std::sort(numbers.begin(), numbers.end());
  std::string text;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    std::size_t j = i;
    while (j + 1 < numbers.size() && numbers[j + 1] == numbers[j] + 1) ++j;
    text += (text.empty() ? "" : ", ") + std::to_string(numbers[i] + add);
    if (j > i) text += (j > i + 1 ? " to " : ", ") + std::to_string(numbers[j] + add);
    i = j;
  }
  return text;
}

/// Takes the masks that the file's AVG_SUB items ask for. False: there are none that can be followed; the notes say why.
bool follow_dicom(const Run& run, int first, int last, MaskChoice& choice) {
  choice.mask_of_frame.assign(static_cast<std::size_t>(last - first + 1), -1);
  std::vector<bool> spoken_for(choice.mask_of_frame.size(), false);  // the first item that applies to a frame is the frame's
  std::vector<std::size_t> not_followed;                             // notes
  for (const MaskInstruction& item : run.mask_instructions) {
    std::vector<int> wanted;
    for (int frame = first; frame <= last; ++frame)
      if (applies(item, frame) && !spoken_for[frame - first]) wanted.push_back(frame);
    if (wanted.empty()) continue;
    for (const int frame : wanted) spoken_for[frame - first] = true;
    const std::string name = name_of(item.operation);
    if (item.operation == MaskInstruction::Operation::none) {
      std::string numbers;
      if (!item.mask_frames.empty()) numbers = " (with mask frame number " + list_of(item.mask_frames, 0) + ")";
      not_followed.push_back(choice.notes.size());
      choice.notes.push_back("The file's Mask Operation is NONE" + numbers);
      continue;
    }
    if (item.operation != MaskInstruction::Operation::average_subtraction) {
      not_followed.push_back(choice.notes.size());
      choice.notes.push_back("The file's Mask Operation is " + name + " for frame" + (wanted.size() > 1 ? "s " : " ") + list_of(wanted, 1) +
                             ", which subtracts frames with contrast from one another: no lumen can be measured in that");
      continue;
    }
    std::vector<int> frames, bad;
    for (const int number : item.mask_frames)
      if (number >= 1 && number <= run.frame_count())
        frames.push_back(number - 1);
      else
        bad.push_back(number);
    if (!bad.empty() || frames.empty()) {
      not_followed.push_back(choice.notes.size());
      choice.notes.push_back("The file's Mask Operation is AVG_SUB " +
                             (bad.empty() ? std::string("without mask frame numbers")
                                          : "with mask frame number " + list_of(bad, 0) + ", and the run has frames 1 to " +
                                                std::to_string(run.frame_count())));
      continue;
    }
    const bool all = wanted.size() == choice.mask_of_frame.size();
    choice.notes.push_back("Mask as the file asks (AVG_SUB)" + (all ? std::string() : " for frames " + list_of(wanted, 1)) +
                           ": the average of frame" + (frames.size() > 1 ? "s " : " ") + list_of(frames, 1) +
                           (item.sub_pixel_shift[0] != 0 || item.sub_pixel_shift[1] != 0 ? ", moved by its sub-pixel shift." : "."));
    for (const int frame : wanted) choice.mask_of_frame[frame - first] = static_cast<int>(choice.masks.size());
    choice.masks.push_back({frames, item.sub_pixel_shift});
  }
  const bool followed = !choice.masks.empty();
  for (const std::size_t note : not_followed) choice.notes[note] += followed ? "." : ": mask chosen automatically.";
  if (!followed) {
    choice.mask_of_frame.clear();
    return false;
  }
  choice.source = MaskSource::dicom;
  choice.reference_frame = choice.masks.front().frames.front();
  std::vector<int> left;
  for (int frame = first; frame <= last; ++frame)
    if (choice.mask_of_frame[frame - first] < 0) {
      choice.mask_of_frame[frame - first] = 0;
      left.push_back(frame);
    }
  if (!left.empty())
    choice.notes.push_back("No AVG_SUB item that can be followed applies to frames " + list_of(left, 1) +
                           ": they take the first one's mask, so that the whole run can be measured.");
  return true;
}

}  // namespace

const char* to_string(MaskSource source) {
  switch (source) {
    case MaskSource::dicom:
      return "dicom";
    case MaskSource::automatic:
      return "automatic";
    case MaskSource::envelope:
      return "envelope";
    case MaskSource::none:
      break;
  }
  return "none";
}

FrameMask dicom_mask_for(const std::vector<MaskInstruction>& instructions, int frame, int frame_count) {
  FrameMask mask;
  for (const MaskInstruction& item : instructions) {
    if (!applies(item, frame)) continue;
    mask.operation = item.operation;
    mask.sub_pixel_shift = item.sub_pixel_shift;
    mask.contrast_frame_averaging = std::max(1, item.contrast_frame_averaging);
    const auto take = [&](int number) {
      if (number >= 0 && number < frame_count) mask.frames.push_back(number);
    };
    switch (item.operation) {
      case MaskInstruction::Operation::average_subtraction:
        for (const int number : item.mask_frames) take(number - 1);
        break;
      case MaskInstruction::Operation::time_interval_difference:
        take(frame - item.tid_offset);
        break;
      case MaskInstruction::Operation::reverse_time_interval_difference:
        for (const auto& range : item.applicable_frames)
          if (frame + 1 >= range[0] && frame + 1 <= range[1]) {
            take(range[0] - 1 - item.tid_offset - (frame + 1 - range[0]));
            break;
          }
        break;
      case MaskInstruction::Operation::none:
        break;
    }
    return mask;
  }
  return mask;
}

std::vector<int> MaskChoice::frames() const {
  std::vector<int> all;
  for (const MaskAverage& mask : masks)
    for (const int frame : mask.frames)
      if (std::find(all.begin(), all.end(), frame) == all.end()) all.push_back(frame);
  return all;
}

std::optional<FrameMask> shown_mask_for(const MaskChoice& choice, int frame, int frame_count) {
  using Operation = MaskInstruction::Operation;
  if (choice.source == MaskSource::none) return {};
  FrameMask mask = dicom_mask_for(choice.dicom, frame, frame_count);
  if (mask.frames.empty()) return {};
  const bool difference =
      mask.operation == Operation::time_interval_difference || mask.operation == Operation::reverse_time_interval_difference;
  const bool averaged =
      mask.operation == Operation::average_subtraction && choice.source == MaskSource::dicom && mask.contrast_frame_averaging > 1;
  if (!difference && !averaged) return {};
  return mask;
}

namespace {

MaskChoice choose_mask(const Run& run, FramePlanes planes, const std::vector<int>& odd_frames) {
  const int first = planes.first, last = first + static_cast<int>(planes.planes.size()) - 1;
  MaskChoice choice;
  choice.dicom = run.mask_instructions;
  choice.reference_frame = first;
  const int count = last - first + 1;
  const bool followed = follow_dicom(run, first, last, choice);
  if (count < 4) {
    choice.contrast_score.assign(static_cast<std::size_t>(count), 0);
    if (!followed)
      choice.notes.push_back(count == 1
                                 ? "A single frame: nothing to subtract; vessels are looked for on the log image."
                                 : "Fewer than four frames: no contrast-free frame could be told from the others; nothing is subtracted.");
    return choice;
  }
  const Binned binned = register_planes(std::move(planes), odd_frames);
  const Inflow inflow = find_inflow(binned);
  choice.contrast_score = inflow.score;
  if (inflow.frame >= 0) choice.inflow_frame = first + inflow.frame;
  if (followed) return choice;

  const auto take = [&](MaskAverage mask) {
    choice.masks = {std::move(mask)};
    choice.mask_of_frame.assign(static_cast<std::size_t>(count), 0);
  };
  const auto use_envelope = [&](const std::string& why) {
    choice.source = MaskSource::envelope;
    constexpr int most_frames = 24;
    const int used = std::min(count, most_frames);
    MaskAverage all;
    for (int k = 0; k < used; ++k)
      all.frames.push_back(first + static_cast<int>(static_cast<long>(k) * (count - 1) / std::max(1, used - 1)));
    choice.reference_frame = all.frames[all.frames.size() / 2];
    take(std::move(all));
    choice.notes.push_back(
        why +
        ": the mask is the least attenuation that each pixel shows over the run. What never empties is missing from the subtraction.");
  };
  if (inflow.frame < 0 && !inflow.washout) {
    choice.notes.push_back(
        "No contrast comes or goes: no frame free of contrast could be told from the others; nothing is subtracted and vessels are looked "
        "for on the log image.");
    return choice;
  }
  if (inflow.frame < 0) {
    use_envelope("Contrast is there from the first frame on and leaves later");
    return choice;
  }
  int free_frames = inflow.frame - frames_before_inflow;
  if (free_frames < 1 && inflow.frame >= 1) free_frames = 1;
  if (free_frames < 1) {
    choice.inflow_frame = first;
    use_envelope("Contrast arrives with the first frame");
    return choice;
  }
  choice.source = MaskSource::automatic;
  MaskAverage mask;
  std::vector<int> left_out;
  for (const int frame : odd_frames) left_out.push_back(frame - first);
  for (const int i : most_alike(binned, free_frames, left_out)) mask.frames.push_back(first + i);
  choice.reference_frame = mask.frames.front();
  choice.notes.push_back("Contrast arrives at frame " + std::to_string(choice.inflow_frame + 1) + "; the mask is the average of frame" +
                         (mask.frames.size() > 1 ? "s " : " ") + list_of(mask.frames, 1) + ", which are most alike of those before it.");
  take(std::move(mask));
  return choice;
}

}  // namespace

MaskChoice select_mask(const Run& run, FramePlanes planes, const std::vector<int>& odd_frames) {
  const int first = planes.first, last = first + static_cast<int>(planes.planes.size()) - 1;
  MaskChoice choice = choose_mask(run, std::move(planes), odd_frames);
  std::vector<int> otherwise;
  for (int frame = first; frame <= last; ++frame)
    if (shown_mask_for(choice, frame, run.frame_count())) otherwise.push_back(frame);
  if (!otherwise.empty())
    choice.notes.push_back("subtracted.dcm shows frame" + std::string(otherwise.size() > 1 ? "s " : " ") + list_of(otherwise, 1) +
                           " as the file asks (time interval differences, averaged frames); measured is the difference to the mask.");
  return choice;
}

}  // namespace cinelumen
