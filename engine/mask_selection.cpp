#include "engine/mask_selection.h"

#include <algorithm>
#include <array>
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

/// The run at the size that it is judged at: per frame the attenuation of the pixels inside the field, freed of what varies slowly, with
/// its motion against one of the first frames undone.
struct Binned {
  int pixel_count = 0;
  std::vector<std::vector<float>> frames;  // by frame, then pixel, in raster order
  std::vector<int> sparse;                 // every second pixel of every second row
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

// Stretches of pixels inside the field.
struct Stretch {
  int y, first, last;
};
std::vector<Stretch> stretches_of(const Image<std::uint8_t>& valid) {
  std::vector<Stretch> stretches;
  for (int y = 0; y < valid.height(); ++y)
    for (int x = 0; x < valid.width(); ++x) {
      if (!valid(y, x)) continue;
      const int first = x;
      while (x + 1 < valid.width() && valid(y, x + 1)) ++x;
      stretches.push_back({y, first, x});
    }
  return stretches;
}

/// Lays every plane on one of the first. Odd frames become copies of the one before: they say nothing. The first is none.
Binned register_planes(FramePlanes planes, const std::vector<int>& odd_frames) {
  Binned result;
  const int height = planes.height, width = planes.width, count = static_cast<int>(planes.planes.size());
  const std::vector<Stretch> stretches = stretches_of(planes.valid);
  for (const Stretch& stretch : stretches) {
    if (stretch.y % 2 == 0)
      for (int x = stretch.first + stretch.first % 2; x <= stretch.last; x += 2)
        result.sparse.push_back(result.pixel_count + x - stretch.first);
    result.pixel_count += stretch.last - stretch.first + 1;
  }
  result.frames.resize(static_cast<std::size_t>(count));
  const Stream serial = Stream::cpu({.parallel = false});
  for (int i = 1; i < count; ++i)
    if (is_odd(odd_frames, planes.first + i)) planes.planes[i] = to_host(serial, planes.planes[i - 1].view());
  const int reference_index = std::min(5, (count - 1) / 4);
  const MaskRegistration reference(serial, planes.planes[reference_index], planes.valid, {.rotation = false, .search_radius_px = 16});
  constexpr int frames_at_once = 4;  // with the same workspace
  parallel_for((count + frames_at_once - 1) / frames_at_once, [&](int part) {
    MaskRegistration registration = reference.another(serial);
    Image<float> coefficients, moved;
    for (int i = part * frames_at_once; i < std::min(count, (part + 1) * frames_at_once); ++i) {
      const Image<float>& plane = planes.planes[i];
      const RigidEstimate estimate = registration.estimate(serial, plane, RigidMotion{});
      const RigidMotion& motion = estimate.motion;
      // Rows and columns that the frame shows where the motion has taken them.
      int top = 0, bottom = height - 1, left = 0, right = width - 1;
      const bool moves = std::hypot(motion.shift_y_px, motion.shift_x_px) > 0.02f;
      if (moves) {
        if (moved.empty()) {
          coefficients = Image<float>(height, width);
          moved = Image<float>(height, width);
        }
        bspline_coefficients(serial, plane, coefficients);
        warp(serial, coefficients, inverse(motion), moved);
        top = std::max(top, static_cast<int>(std::ceil(-motion.shift_y_px)));
        bottom = std::min(bottom, static_cast<int>(std::floor(height - 1 - motion.shift_y_px)));
        left = std::max(left, static_cast<int>(std::ceil(-motion.shift_x_px)));
        right = std::min(right, static_cast<int>(std::floor(width - 1 - motion.shift_x_px)));
      }
      std::vector<float>& values = result.frames[static_cast<std::size_t>(i)];
      values.reserve(static_cast<std::size_t>(result.pixel_count));
      for (const Stretch& stretch : stretches) {
        const bool row_shown = moves && stretch.y >= top && stretch.y <= bottom;
        const float *here = plane.row(stretch.y), *there = moves ? moved.row(stretch.y) : here;
        for (int x = stretch.first; x <= stretch.last; ++x)
          values.push_back((row_shown && x >= left && x <= right ? there : here)[x] - estimate.offset);
      }
      planes.planes[i] = {};
    }
  });
  return result;
}

/// Sides of the difference between a frame and the contrast-free background.
struct Score {
  double above = 0, below = 0;  // means of the highest and lowest `top_fraction`, noise SDs
};

/// What a pixel shows while there is no contrast: the values about the middle of the first frames' sorted ones. The median without one of
/// them is then a matter of which side it is on.
class Background {
 public:
  Background(const Binned& run, int early) : early_(early) {
    const int half = early / 2;
    for (std::vector<float>& rank : middle_) rank.resize(static_cast<std::size_t>(run.pixel_count));
    constexpr int chunk = 512;
    parallel_for((run.pixel_count + chunk - 1) / chunk, [&](int c) {
      const int first = c * chunk, size = std::min(chunk, run.pixel_count - first);
      std::vector<float> sorted(static_cast<std::size_t>(early) * chunk);
      const auto row = [&](int i) { return &sorted[static_cast<std::size_t>(i) * chunk]; };
      for (int i = 0; i < early; ++i) std::copy_n(&run.frames[static_cast<std::size_t>(i)][static_cast<std::size_t>(first)], size, row(i));
      // Neighbours exchanged in turns: pixels side by side are sorted together.
      for (int turn = 0; turn < early; ++turn)
        for (int i = turn % 2; i + 1 < early; i += 2) {
          float *low = row(i), *high = row(i + 1);
          for (int p = 0; p < size; ++p) {
            const float a = low[p], b = high[p];
            low[p] = b < a ? b : a;
            high[p] = b < a ? a : b;
          }
        }
      for (int k = 0; k < 3; ++k)
        std::copy_n(row(std::clamp(half - 1 + k, 0, early - 1)), size, &middle_[k][static_cast<std::size_t>(first)]);
    });
  }
  /// difference = values minus the background; `own`: they are one of the first frames', and not to be part of it.
  void subtract_from(const std::vector<float>& values, bool own, std::vector<float>& difference) const {
    const std::size_t count = values.size();
    const float *before = middle_[0].data(), *at = middle_[1].data(), *after = middle_[2].data();
    difference.resize(count);
    if (!own && early_ % 2) {
      for (std::size_t p = 0; p < count; ++p) difference[p] = values[p] - at[p];
    } else if (!own) {
      for (std::size_t p = 0; p < count; ++p) difference[p] = values[p] - 0.5f * (before[p] + at[p]);
    } else if (early_ % 2) {  // an even number of others
      for (std::size_t p = 0; p < count; ++p)
        difference[p] = values[p] - 0.5f * ((before[p] < values[p] ? before[p] : at[p]) + (at[p] < values[p] ? at[p] : after[p]));
    } else {
      for (std::size_t p = 0; p < count; ++p) difference[p] = values[p] - (before[p] < values[p] ? before[p] : at[p]);
    }
  }

 private:
  int early_;
  std::array<std::vector<float>, 3> middle_;  // ranks early/2 - 1, early/2, early/2 + 1
};

/// Mean of the `count` largest values times `sign`; `guess`: as many as that, or more, are beyond it, or so one thinks.
double mean_of_largest(const std::vector<float>& values, float sign, int count, float guess) {
  std::vector<float> beyond(values.size());
  std::size_t found = 0;
  for (const float value : values) {
    beyond[found] = sign * value;
    found += sign * value >= guess;
  }
  if (found < static_cast<std::size_t>(count)) {
    for (std::size_t p = 0; p < values.size(); ++p) beyond[p] = sign * values[p];
    found = values.size();
  }
  beyond.resize(found);
  std::nth_element(beyond.begin(), beyond.end() - count, beyond.end());
  return std::accumulate(beyond.end() - count, beyond.end(), 0.0) / count;
}

/// Scores every frame against the per-pixel median of frames 0..early-1; one of these against the median of the others, so that none
/// looks quieter for having been part of its own background.
std::vector<Score> score_frames(const Binned& run, int early) {
  const int count = static_cast<int>(run.frames.size());
  std::vector<Score> scores(static_cast<std::size_t>(count));
  if (run.pixel_count == 0 || early < 2) return scores;
  const Background background(run, early);
  std::vector<double> sigma(static_cast<std::size_t>(count));
  parallel_for(count, [&](int t) {
    std::vector<float> difference, sample;
    background.subtract_from(run.frames[static_cast<std::size_t>(t)], t < early, difference);
    // Middle and spread by a sample: a few thousand pixels tell both to a fiftieth of the spread.
    constexpr std::size_t sample_size = 6000;
    const std::size_t step = std::max<std::size_t>(1, difference.size() / sample_size) | 1;
    for (std::size_t p = 0; p < difference.size(); p += step) sample.push_back(difference[p]);
    const float middle = median_of(sample);
    const auto limit = static_cast<std::ptrdiff_t>(2 * top_fraction * static_cast<double>(sample.size()));
    std::nth_element(sample.begin(), sample.begin() + limit, sample.end());
    const float low_guess = sample[static_cast<std::size_t>(limit)];
    std::nth_element(sample.begin(), sample.end() - 1 - limit, sample.end());
    const float high_guess = *(sample.end() - 1 - limit);
    const int top = std::max(1, static_cast<int>(top_fraction * run.pixel_count));
    const double high = mean_of_largest(difference, 1, top, high_guess), low = -mean_of_largest(difference, -1, top, -low_guess);
    scores[t] = {std::max(0.0, high - middle), std::max(0.0, middle - low)};
    for (float& d : sample) d = std::abs(d - middle);
    sigma[t] = 1.4826 * median_of(sample);
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
  const int count = static_cast<int>(run.frames.size());
  int early = std::clamp(count / 8, 3, 8);
  Inflow result;
  std::vector<double> above, below;
  for (int pass = 0; pass < 2; ++pass) {
    const std::vector<Score> scores = score_frames(run, early);
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
  std::vector<std::vector<float>> seen(static_cast<std::size_t>(n));
  parallel_for(n, [&](int i) {
    const std::vector<float>& values = run.frames[static_cast<std::size_t>(candidates[i])];
    for (const int p : run.sparse) seen[static_cast<std::size_t>(i)].push_back(values[static_cast<std::size_t>(p)]);
  });
  parallel_for(n, [&](int i) {
    for (int j = 0; j < i; ++j) {
      const std::vector<float>&a = seen[static_cast<std::size_t>(i)], &b = seen[static_cast<std::size_t>(j)];
      double sum = 0;
      constexpr std::size_t lanes = 8;
      for (std::size_t from = 0; from < a.size(); from += 128 * lanes) {
        std::array<float, lanes> part{};
        const std::size_t to = std::min(a.size(), from + 128 * lanes);
        std::size_t p = from;
        for (; p + lanes <= to; p += lanes)
          for (std::size_t l = 0; l < lanes; ++l) part[l] += (a[p + l] - b[p + l]) * (a[p + l] - b[p + l]);
        for (; p < to; ++p) part[0] += (a[p] - b[p]) * (a[p] - b[p]);
        for (const float lane : part) sum += lane;
      }
      distance[static_cast<std::size_t>(i) * n + j] = distance[static_cast<std::size_t>(j) * n + i] =
          a.empty() ? 0 : sum / static_cast<double>(a.size());
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
