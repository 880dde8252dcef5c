#include "engine/noise_model.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <tuple>

#include "kernels/stream.h"

namespace cinelumen {
namespace {

constexpr int block_side = 16, block_pixels = block_side * block_side;
constexpr int spatial_spacing = 3;
constexpr int most_pairs = 8;
constexpr int most_bins = 64;
constexpr int longest_shift = 3, margin = longest_shift + 1;  // whole pixels between frames; and one more for the gradient
constexpr int region_side = 128;
constexpr std::size_t most_blocks = 8192;  // over all pairs, each of them other ones
constexpr std::size_t most_shift_blocks = 256;
constexpr int looked_at_rows = 16;  // every so many show where values pile up, and whether frames are copies

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// --- intensity ---

struct Range {
  double low, high;
};

Range range_of(const std::vector<float>& values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return {*low, *high};
}

// Pixel values of one stored step where the table is straight, else 1.
double value_per_count(const std::vector<float>& value) {
  if (value.size() < 2) return 1;
  const double step = (static_cast<double>(value.back()) - value.front()) / static_cast<double>(value.size() - 1);
  if (step == 0) return 1;
  for (std::size_t i = 1; i < value.size(); ++i)
    if (std::abs(value[i] - value[i - 1] - step) > 0.02 * std::abs(step) + 1e-6 * std::abs(value[i])) return 1;
  return std::abs(step);
}

std::vector<float> finite_values(const IntensityEncoding& encoding, int bits) {
  std::vector<float> value = encoding.value;
  if (value.empty()) {
    value.resize(std::size_t{1} << bits);
    std::iota(value.begin(), value.end(), 0.0f);
  }
  float last = 0;
  for (float& v : value) v = last = std::isfinite(v) ? v : last;
  return value;
}

std::string stored_name(const IntensityEncoding& encoding) {
  return encoding.relationship_as_stored.empty() ? "absent" : "\"" + encoding.relationship_as_stored + "\"";
}

}  // namespace

IntensityModel make_intensity_model(const IntensityEncoding& encoding) {
  const int bits = std::clamp(encoding.bits_stored, 1, 16);
  const std::vector<float> value = finite_values(encoding, bits);
  const Range range = range_of(value);
  const double full_log = bits * std::log(2.0);
  // Larger where more X-rays arrive, from 0 for none.
  const auto toward_light = [&](float v) { return encoding.sign < 0 ? range.high - v : static_cast<double>(v); };

  IntensityModel model;
  model.attenuation.resize(value.size());
  const bool usable = range.high > range.low;
  if (encoding.relationship == IntensityRelationship::linear && usable && (encoding.sign < 0 || range.high > 0)) {
    const double count = value_per_count(value);
    const double most = std::max(0.5, (encoding.sign < 0 ? range.high - range.low : range.high) / count);
    model.linear.resize(value.size());
    for (std::size_t i = 0; i < value.size(); ++i) {
      const double intensity = std::max(0.5, toward_light(value[i]) / count);
      model.linear[i] = static_cast<float>(intensity);
      model.attenuation[i] = static_cast<float>(-std::log(intensity / most));
    }
    model.densitometric = true;
    model.note = "Pixel values are linear in X-ray intensity: L = -ln(I / I0), the detector's offset taken as 0.";
  } else if (encoding.relationship == IntensityRelationship::logarithmic && usable) {
    const double scale = full_log / (range.high - range.low), most = std::exp2(bits);
    model.linear.resize(value.size());
    for (std::size_t i = 0; i < value.size(); ++i) {
      const double attenuation = scale * (encoding.sign < 0 ? value[i] - range.low : range.high - value[i]);
      model.attenuation[i] = static_cast<float>(attenuation);
      model.linear[i] = static_cast<float>(most * std::exp(-attenuation));
    }
    model.densitometric = true;
    model.relative = true;
    model.note = "Pixel values are logarithmic, their scale is not in the file: the full range is taken as ln 2^" + std::to_string(bits) +
                 "; ratios of contrast hold, its absolute size does not.";
  } else {
    // Grey in units of an 8-bit display, so that the offset that tames the logarithm of black is the same for all.
    const double to_grey = usable ? 255 / (range.high - range.low) : 1;
    constexpr double offset = 8;
    for (std::size_t i = 0; i < value.size(); ++i) {
      const double grey = to_grey * (encoding.sign < 0 ? range.high - value[i] : value[i] - range.low);
      model.attenuation[i] = static_cast<float>(-std::log((grey + offset) / (255 + offset)));
    }
    model.sd_inflation = display_sd_inflation;
    model.note = "Pixel Intensity Relationship is " + stored_name(encoding) +
                 ": display grey, no densitometry; -ln(grey + 8 of 256) stands in for attenuation, SDs are doubled.";
  }
  return model;
}

namespace {

// --- noise ---

struct Block {
  int frame_pair, y, x;
  double intensity;                              // mean over the block and both frames
  double structure;                              // variance of the pair's mean: noise plus what the scene shows
  double difference;                             // mean of the difference
  double gradient_y, gradient_x;                 // means of the pair's mean's gradient
  double yy, yx, xx, y_diff, x_diff, diff_diff;  // sums of products of gradient and difference, about their means
  bool saturated;
};

// Where the scene of the second frame of a pair lies relative to the first: whole pixels for all, the rest by region.
struct PairMotion {
  int shift_y = 0, shift_x = 0;
  std::vector<std::array<double, 2>> rest;  // difference per gradient (y, x)
};

// Stored values at which the detector or the export clips: the ends of the table, or a pile-up at the end of what is seen.
struct Clipping {
  int low, high;  // stored <= low or >= high is clipped
};

Clipping find_clipping(const std::vector<Image<std::uint16_t>>& frames, ImageView<const std::uint8_t> valid, std::size_t values) {
  std::vector<std::int64_t> count(values, 0);
  for (const auto& frame : frames)
    for (int y = 0; y < frame.height(); y += looked_at_rows)
      for (int x = 0; x < frame.width(); ++x)
        if (valid(y, x)) ++count[std::min<std::size_t>(frame(y, x), values - 1)];
  int first = 0, last = static_cast<int>(values) - 1;
  while (first < last && count[static_cast<std::size_t>(first)] == 0) ++first;
  while (last > first && count[static_cast<std::size_t>(last)] == 0) --last;
  const auto piled_up = [&](int end, int inward) {
    std::int64_t beside = 0;
    for (int i = 1; i <= 4; ++i) {
      const int at = end + i * inward;
      if (at >= first && at <= last) beside += count[static_cast<std::size_t>(at)];
    }
    return count[static_cast<std::size_t>(end)] > 4 && count[static_cast<std::size_t>(end)] > 4 * beside;
  };
  Clipping clipping{0, static_cast<int>(values) - 1};
  if (last - first > 8) {
    if (piled_up(first, 1)) clipping.low = first;
    if (piled_up(last, -1)) clipping.high = last;
  } else {
    clipping = {-1, static_cast<int>(values)};  // a nearly constant picture is not clipped at both its ends
  }
  return clipping;
}

// Variance of samples with mean 0, Gaussian but for outliers. `step` is the smallest difference two samples can have.
double robust_variance(const std::vector<float>& samples, double step) {
  // The median absolute deviation only starts the search: a few thousand samples are enough for it.
  std::vector<float> size;
  const std::size_t stride = std::max<std::size_t>(1, samples.size() / 4096);
  for (std::size_t i = 0; i < samples.size(); i += stride) size.push_back(std::abs(samples[i]));
  const auto middle = size.begin() + static_cast<std::ptrdiff_t>(size.size() / 2);
  std::nth_element(size.begin(), middle, size.end());
  double sd = 1.4826 * *middle;
  constexpr double truncated_variance = 0.973337;  // of a Gaussian cut at 3 SD
  for (int i = 0; i < 4; ++i) {
    // Never narrower than a step and a half: of coarse samples most are 0, and the rest are no outliers.
    const double limit = std::max(3 * sd, 1.5 * step);
    // Sums of short stretches in single precision, which the compiler vectorises over eight lanes.
    const float most = static_cast<float>(limit);
    double sum = 0, count = 0;
    for (std::size_t from = 0; from < samples.size(); from += 1024) {
      const std::size_t to = std::min(from + 1024, samples.size());
      std::array<float, 8> lane_sum{}, lane_count{};
      std::size_t at = from;
      for (; at + 8 <= to; at += 8)
        for (std::size_t l = 0; l < 8; ++l) {
          const float sample = samples[at + l];
          const float inside = std::abs(sample) <= most ? 1.0f : 0.0f;
          lane_sum[l] += inside * sample * sample;
          lane_count[l] += inside;
        }
      for (; at < to; ++at)
        if (std::abs(samples[at]) <= most) {
          lane_sum[0] += samples[at] * samples[at];
          lane_count[0] += 1;
        }
      for (std::size_t l = 0; l < 8; ++l) {
        sum += lane_sum[l];
        count += lane_count[l];
      }
    }
    sd = count > 0 ? std::sqrt(sum / count / (3 * sd >= 1.5 * step ? truncated_variance : 1)) : 0;
  }
  return sd * sd;
}

struct Bin {
  double intensity, variance, count;
};

struct Line {
  double slope, offset;
};

// variance = slope x intensity + offset, both >= 0: Theil-Sen, then reweighted least squares with Tukey's weights.
Line fit_line(const std::vector<Bin>& bins) {
  std::vector<double> slopes, offsets;
  for (std::size_t i = 0; i < bins.size(); ++i)
    for (std::size_t j = i + 1; j < bins.size(); ++j)
      if (bins[j].intensity != bins[i].intensity)
        slopes.push_back((bins[j].variance - bins[i].variance) / (bins[j].intensity - bins[i].intensity));
  Line line{slopes.empty() ? 0 : median(slopes), 0};
  for (const Bin& bin : bins) offsets.push_back(bin.variance - line.slope * bin.intensity);
  line.offset = median(offsets);

  for (int iteration = 0; iteration < 20; ++iteration) {
    std::vector<double> residuals;
    const auto predicted = [&](const Bin& bin) { return std::max(line.slope * bin.intensity + line.offset, 0.05 * bin.variance + 1e-12); };
    const auto residual = [&](const Bin& bin) {
      return (bin.variance - line.slope * bin.intensity - line.offset) / (predicted(bin) * std::sqrt(2 / bin.count));
    };
    for (const Bin& bin : bins) residuals.push_back(std::abs(residual(bin)));
    const double scale = std::max(1.0, 1.4826 * median(residuals));
    double w = 0, wx = 0, wy = 0, wxx = 0, wxy = 0;
    for (const Bin& bin : bins) {
      const double u = residual(bin) / (4.685 * scale);
      if (std::abs(u) >= 1) continue;
      const double weight = (1 - u * u) * (1 - u * u) * bin.count / (predicted(bin) * predicted(bin));
      w += weight;
      wx += weight * bin.intensity;
      wy += weight * bin.variance;
      wxx += weight * bin.intensity * bin.intensity;
      wxy += weight * bin.intensity * bin.variance;
    }
    if (w <= 0) break;
    const double determinant = w * wxx - wx * wx;
    Line next = line;
    if (determinant > 1e-12 * w * wxx) next = {(w * wxy - wx * wy) / determinant, (wxx * wy - wx * wxy) / determinant};
    if (next.offset < 0) next = {wxx > 0 ? wxy / wxx : 0, 0};
    if (next.slope < 0) next = {0, wy / w};
    const bool settled = std::abs(next.slope - line.slope) <= 1e-9 * std::abs(line.slope) && std::abs(next.offset - line.offset) <= 1e-9;
    line = next;
    if (settled) break;
  }
  return {std::max(0.0, line.slope), std::max(0.0, line.offset)};
}

class NoiseEstimator {
 public:
  NoiseEstimator(const Run& run, const IntensityModel& intensity, const std::vector<int>& frames)
      : run_(run), intensity_(intensity), height_(run.rows()), width_(run.columns()) {
    if (frames.empty()) throw std::invalid_argument("estimate_noise: no frame was given");
    for (const int frame : frames)
      if (frame < 0 || frame >= run.frame_count())
        throw std::invalid_argument("estimate_noise: frame " + std::to_string(frame) + " is not in the run of " +
                                    std::to_string(run.frame_count()));
    choose_frames(frames);
    make_scale();
  }

  NoiseModel estimate() {
    const Clipping clipping = find_clipping(stored_, run_.field.valid(), scale_.size());
    clipped_.assign(65536, 1);
    for (std::size_t i = 0; i < scale_.size(); ++i)  // also what the intensity model clamped at half a count
      clipped_[i] =
          static_cast<int>(i) <= clipping.low || static_cast<int>(i) >= clipping.high || (!intensity_.linear.empty() && scale_[i] <= 0.5f);
    find_blocks();
    std::vector<Bin> bins;
    if (!pairs_.empty()) {
      model_.temporal = true;
      collect();
      bins = measure_bins(difference_step_);
      if (bins.empty()) {
        model_.temporal = false;
        why_spatial_ = "the contrast-free frames are copies of one another or have no flat part";
      }
    } else {
      why_spatial_ = "there is one contrast-free frame only";
    }
    if (!model_.temporal) {
      collect_spatial();
      bins = measure_bins(spatial_step_);
    }
    finish(bins);
    return std::move(model_);
  }

 private:
  struct Pair {
    std::size_t first, second;  // indices into stored_
  };

  void choose_frames(const std::vector<int>& frames) {
    std::vector<int> wanted;
    std::vector<std::array<int, 2>> chosen;
    const int possible = static_cast<int>(frames.size()) - 1, count = std::min(possible, most_pairs);
    for (int i = 0; i < count; ++i) {
      const auto at = static_cast<std::size_t>(i * possible / count);
      chosen.push_back({frames[at], frames[at + 1]});
      wanted.insert(wanted.end(), {frames[at], frames[at + 1]});
    }
    if (count <= 0) wanted.push_back(frames.front());
    std::sort(wanted.begin(), wanted.end());
    wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
    const auto index = [&](int frame) {
      return static_cast<std::size_t>(std::lower_bound(wanted.begin(), wanted.end(), frame) - wanted.begin());
    };
    for (const auto& pair : chosen)
      if (pair[0] != pair[1]) pairs_.push_back({index(pair[0]), index(pair[1])});
    for (std::size_t i = 0; i < wanted.size(); ++i) stored_.emplace_back(height_, width_);
    parallel_for(static_cast<int>(wanted.size()),
                 [&](int i) { run_.frames->read_frame(wanted[static_cast<std::size_t>(i)], stored_[static_cast<std::size_t>(i)].view()); });
  }

  // The scale on which the noise is measured: linear counts, or grey as stored.
  void make_scale() {
    scale_ = intensity_.linear;
    if (scale_.empty()) {
      scale_.resize(intensity_.attenuation.size());
      std::iota(scale_.begin(), scale_.end(), 0.0f);
    }
    const std::size_t n = scale_.size();
    quantisation_.resize(n, 1.0 / 12);
    for (std::size_t i = 0; i < n && n > 1; ++i) {
      const std::size_t below = i > 0 ? i - 1 : 0, above = std::min(i + 1, n - 1);
      const double step = (static_cast<double>(scale_[above]) - scale_[below]) / static_cast<double>(above - below);
      quantisation_[i] = step * step / 12;
    }
    uniform_ = true;  // apart from the ends and what is clamped
    for (std::size_t i = 1; i + 1 < n; ++i)
      if (scale_[i - 1] > 0.5f && scale_[i + 1] > 0.5f && std::abs(quantisation_[i] - 1.0 / 12) > 0.05 / 12) uniform_ = false;
  }

  float on_scale(std::uint16_t stored) const { return scale_[std::min<std::size_t>(stored, scale_.size() - 1)]; }

  // Corners of all blocks that lie inside the field with their margin.
  void find_blocks() {
    const ImageView<const std::uint8_t> valid = run_.field.valid();
    for (int y0 = margin; y0 + block_side + margin <= height_; y0 += block_side)
      for (int x0 = margin; x0 + block_side + margin <= width_; x0 += block_side) {
        bool inside = true;
        for (int y = y0 - margin; y < y0 + block_side + margin && inside; ++y)
          for (int x = x0 - margin; x < x0 + block_side + margin; ++x) inside &= valid(y, x) != 0;
        if (inside) corners_.push_back({y0, x0});
      }
    apart_ = static_cast<int>((corners_.size() * std::max<std::size_t>(1, pairs_.size()) + most_blocks - 1) / most_blocks);
  }
  // Blocks stand on diagonals, each pair's beside the last one's.
  bool is_looked_at(const std::array<int, 2>& corner, int pair) const {
    return (corner[0] / block_side + corner[1] / block_side + pair) % std::max(1, apart_) == 0;
  }

  // A block with a border of a pixel, on the scale, less `base`.
  struct Patch {
    float value[block_side + 2][block_side + 2];
  };
  Patch patch_of(const Image<std::uint16_t>& frame, int y0, int x0, float base) const {
    Patch patch;
    for (int y = 0; y < block_side + 2; ++y) {
      const std::uint16_t* row = frame.row(y0 - 1 + y) + x0 - 1;
      for (int x = 0; x < block_side + 2; ++x) patch.value[y][x] = on_scale(row[x]) - base;
    }
    return patch;
  }

  // Means and variances of all blocks inside the field, then the flattest half of each class of intensity, its samples by bin.
  void collect() {
    std::vector<std::vector<Block>> found(pairs_.size());
    motion_.assign(pairs_.size(), {});
    parallel_for(static_cast<int>(pairs_.size()), [&](int i) {
      const auto p = static_cast<std::size_t>(i);
      if (is_copy(pairs_[p])) return;  // a repeated frame differs nowhere: it says nothing of the noise
      find_whole_shift(pairs_[p], motion_[p]);
      for (const auto& corner : corners_)
        if (is_looked_at(corner, i)) found[p].push_back(measure_block(pairs_[p], i, corner[0], corner[1], motion_[p]));
      find_rest(found[p], motion_[p]);
    });
    std::vector<Block> blocks;
    for (const auto& part : found) blocks.insert(blocks.end(), part.begin(), part.end());
    choose_blocks(blocks);
    parallel_for(static_cast<int>(chosen_.size()), [&](int i) {
      const auto b = static_cast<std::size_t>(i);
      samples_[b].resize(chosen_[b].size() * block_pixels);
      for (std::size_t k = 0; k < chosen_[b].size(); ++k) read_differences(chosen_[b][k], samples_[b].data() + k * block_pixels);
    });
  }

  // Sum of squared differences over every fourth pixel of every fourth row; moved only where that is clearly less.
  void find_whole_shift(const Pair& pair, PairMotion& motion) const {
    const Image<std::uint16_t>&one = stored_[pair.first], &two = stored_[pair.second];
    double still = 0, least = 0;
    const std::size_t stride = std::max<std::size_t>(1, corners_.size() / most_shift_blocks);
    for (int pass = 0; pass < 2; ++pass)
      for (int dy = -longest_shift; dy <= longest_shift; ++dy)
        for (int dx = -longest_shift; dx <= longest_shift; ++dx) {
          if ((pass == 0) != (dy == 0 && dx == 0)) continue;
          double sum = 0, square_sum = 0, count = 0;
          for (std::size_t c = 0; c < corners_.size(); c += stride) {
            const auto& corner = corners_[c];
            for (int y = corner[0]; y < corner[0] + block_side; y += 4)
              for (int x = corner[1]; x < corner[1] + block_side; x += 4) {
                const double d = static_cast<double>(on_scale(two(y + dy, x + dx))) - on_scale(one(y, x));
                sum += d;
                square_sum += d * d;
                ++count;
              }
          }
          const double left = count > 0 ? square_sum - sum * sum / count : 0;
          if (pass == 0) {
            still = least = left;
          } else if (left < least && left < 0.9 * still) {
            least = left;
            motion.shift_y = dy;
            motion.shift_x = dx;
          }
        }
  }

  std::size_t region_of(const Block& block) const {
    const auto columns = static_cast<std::size_t>((width_ + region_side - 1) / region_side);
    return static_cast<std::size_t>(block.y / region_side) * columns + static_cast<std::size_t>(block.x / region_side);
  }

  // What is left of the motion, by region: least squares of the difference on the gradient over all its blocks, the gradient's own noise
  // taken out of its sums. Where there is little but noise the answer is small, and there it does not matter.
  void find_rest(const std::vector<Block>& blocks, PairMotion& motion) const {
    const auto regions = static_cast<std::size_t>((width_ + region_side - 1) / region_side) *
                         static_cast<std::size_t>((height_ + region_side - 1) / region_side);
    std::vector<std::array<double, 6>> sums(regions);
    std::vector<std::vector<double>> structures(regions);
    for (const Block& block : blocks)
      if (!block.saturated) structures[region_of(block)].push_back(block.structure);
    std::vector<double> usual(regions, 1);
    for (std::size_t r = 0; r < regions; ++r)
      if (!structures[r].empty()) usual[r] = median(structures[r]) + 1e-9;
    for (const Block& block : blocks) {
      if (block.saturated) continue;
      const std::size_t r = region_of(block);
      // One sharp edge, which no gradient describes, must not speak for all.
      const double weight = 1 / (usual[r] + block.structure);
      const std::array<double, 6> own = {block.yy, block.yx, block.xx, block.y_diff, block.x_diff, block.diff_diff};
      for (std::size_t k = 0; k < 6; ++k) sums[r][k] += weight * own[k];
    }
    motion.rest.assign(regions, {0, 0});
    for (std::size_t r = 0; r < regions; ++r) {
      const auto& [yy, yx, xx, y_diff, x_diff, diff_diff] = sums[r];
      double noise = 0;  // in yy and in xx
      for (int pass = 0; pass < 3; ++pass) {
        const double a = yy - noise, c = xx - noise, determinant = a * c - yx * yx;
        if (!(determinant > 1e-3 * yy * xx)) break;
        const double along_y = (c * y_diff - yx * x_diff) / determinant, along_x = (a * x_diff - yx * y_diff) / determinant;
        if (!(std::abs(along_y) < 1.5 && std::abs(along_x) < 1.5)) break;
        motion.rest[r] = {along_y, along_x};
        // What the motion leaves of the difference is twice the noise's variance; a central difference of the pair's mean has a quarter.
        const double left = diff_diff - 2 * (along_y * y_diff + along_x * x_diff) + along_y * along_y * a + 2 * along_y * along_x * yx +
                            along_x * along_x * c;
        noise = std::clamp(left / 8, 0.0, 0.6 * std::min(yy, xx));
      }
    }
  }

  // Difference of a block's pixels without its mean and without what the scene's motion explains.
  void read_differences(const Block& block, float* out) const {
    const auto p = static_cast<std::size_t>(block.frame_pair);
    const PairMotion& motion = motion_[p];
    const float base = on_scale(stored_[pairs_[p].first](block.y, block.x));
    const Patch one = patch_of(stored_[pairs_[p].first], block.y, block.x, base);
    const Patch two = patch_of(stored_[pairs_[p].second], block.y + motion.shift_y, block.x + motion.shift_x, base);
    const auto [rest_y, rest_x] = motion.rest[region_of(block)];
    const auto along_y = static_cast<float>(0.25 * rest_y), along_x = static_cast<float>(0.25 * rest_x);
    const auto mean = static_cast<float>(block.difference - rest_y * block.gradient_y - rest_x * block.gradient_x);
    for (int y = 1; y <= block_side; ++y)
      for (int x = 1; x <= block_side; ++x) {
        const float gradient_y = (one.value[y + 1][x] - one.value[y - 1][x]) + (two.value[y + 1][x] - two.value[y - 1][x]);
        const float gradient_x = (one.value[y][x + 1] - one.value[y][x - 1]) + (two.value[y][x + 1] - two.value[y][x - 1]);
        *out++ = (two.value[y][x] - one.value[y][x]) - along_y * gradient_y - along_x * gradient_x - mean;
      }
  }

  bool is_copy(const Pair& pair) const {
    const ImageView<const std::uint8_t> valid = run_.field.valid();
    std::int64_t different = 0, seen = 0;
    for (int y = 0; y < height_; y += looked_at_rows)
      for (int x = 0; x < width_; ++x) {
        seen += valid(y, x) != 0;
        different += valid(y, x) && stored_[pair.first](y, x) != stored_[pair.second](y, x);
      }
    return different * 1000 < seen;
  }

  Block measure_block(const Pair& pair, int p, int y0, int x0, const PairMotion& motion) const {
    const float base = on_scale(stored_[pair.first](y0, x0));
    const Patch one = patch_of(stored_[pair.first], y0, x0, base);
    const Patch two = patch_of(stored_[pair.second], y0 + motion.shift_y, x0 + motion.shift_x, base);
    // Sums by column, which the compiler makes vectors of.
    using Lanes = std::array<float, block_side>;
    Lanes sum{}, square{}, difference{}, gy_sum{}, gx_sum{}, yy{}, yx{}, xx{}, y_diff{}, x_diff{}, diff_diff{};
    for (int y = 1; y <= block_side; ++y)
      for (int l = 0; l < block_side; ++l) {
        const int x = l + 1;
        const float a = one.value[y][x], b = two.value[y][x], mean = 0.5f * (a + b), d = b - a;
        const float gy = 0.25f * ((one.value[y + 1][x] - one.value[y - 1][x]) + (two.value[y + 1][x] - two.value[y - 1][x]));
        const float gx = 0.25f * ((one.value[y][x + 1] - one.value[y][x - 1]) + (two.value[y][x + 1] - two.value[y][x - 1]));
        sum[l] += mean;
        square[l] += mean * mean;
        difference[l] += d;
        gy_sum[l] += gy;
        gx_sum[l] += gx;
        yy[l] += gy * gy;
        yx[l] += gy * gx;
        xx[l] += gx * gx;
        y_diff[l] += gy * d;
        x_diff[l] += gx * d;
        diff_diff[l] += d * d;
      }
    bool saturated = false;
    for (int y = 0; y < block_side; ++y) {
      const std::uint16_t* one_stored = stored_[pair.first].row(y0 + y) + x0;
      const std::uint16_t* two_stored = stored_[pair.second].row(y0 + y + motion.shift_y) + x0 + motion.shift_x;
      for (int x = 0; x < block_side; ++x) saturated |= clipped_[one_stored[x]] || clipped_[two_stored[x]];
    }
    const auto total = [](const Lanes& lanes) { return std::accumulate(lanes.begin(), lanes.end(), 0.0); };
    const double n = block_pixels, mean = total(sum) / n, mean_difference = total(difference) / n, mean_gy = total(gy_sum) / n,
                 mean_gx = total(gx_sum) / n;
    Block block;
    block.frame_pair = p;
    block.y = y0;
    block.x = x0;
    block.intensity = base + mean;
    block.structure = total(square) / n - mean * mean;
    block.difference = mean_difference;
    block.gradient_y = mean_gy;
    block.gradient_x = mean_gx;
    block.yy = total(yy) - mean_gy * mean_gy * n;
    block.yx = total(yx) - mean_gy * mean_gx * n;
    block.xx = total(xx) - mean_gx * mean_gx * n;
    block.y_diff = total(y_diff) - mean_gy * mean_difference * n;
    block.x_diff = total(x_diff) - mean_gx * mean_difference * n;
    block.diff_diff = total(diff_diff) - mean_difference * mean_difference * n;
    block.saturated = saturated;
    return block;
  }

  // Sorts blocks into bins of intensity and keeps the flattest half of each. Choosing by the pair's mean does not bias what its
  // difference says: the two are uncorrelated. Bins with many saturated blocks are left out, they are cut off on one side.
  void choose_blocks(const std::vector<Block>& blocks) {
    chosen_.clear();
    samples_.clear();
    if (blocks.empty()) return;
    double low = blocks[0].intensity, high = low;
    for (const Block& block : blocks) {
      low = std::min(low, block.intensity);
      high = std::max(high, block.intensity);
    }
    const int count = std::clamp(static_cast<int>(blocks.size() / 8), 1, most_bins);
    std::vector<std::vector<Block>> bins(static_cast<std::size_t>(count));
    for (const Block& block : blocks)
      bins[static_cast<std::size_t>(std::clamp(static_cast<int>((block.intensity - low) / (high - low + 1e-9) * count), 0, count - 1))]
          .push_back(block);
    for (std::vector<Block>& bin : bins) {
      const std::size_t all = bin.size();
      std::erase_if(bin, [](const Block& block) { return block.saturated; });
      if (bin.empty() || (all - bin.size()) * 5 > all) continue;
      const std::size_t keep = (bin.size() + 1) / 2;
      // Ties by place: the choice must not depend on the sort.
      std::sort(bin.begin(), bin.end(), [](const Block& a, const Block& b) {
        return std::tie(a.structure, a.frame_pair, a.y, a.x) < std::tie(b.structure, b.frame_pair, b.y, b.x);
      });
      bin.resize(std::min(keep, std::size_t{256}));  // 65 thousand samples: a variance to half a percent
      chosen_.push_back(std::move(bin));
    }
    samples_.resize(chosen_.size());
  }

  // Immerkaer's difference of Laplacians (Comput Vis Image Underst 1996), SD 1 for white noise of SD 1; its pixels stand apart, so that
  // noise which neighbours share (scintillator, compression, interpolation) counts in full.
  void collect_spatial() {
    std::vector<Block> blocks;
    for (const auto& corner : corners_)
      if (is_looked_at(corner, 0)) blocks.push_back(measure_block({0, 0}, 0, corner[0], corner[1], {}));
    choose_blocks(blocks);
    const Image<std::uint16_t>& frame = stored_[0];
    for (std::size_t b = 0; b < chosen_.size(); ++b)
      for (const Block& block : chosen_[b])
        for (int y = block.y + spatial_spacing; y < block.y + block_side - spatial_spacing; ++y)
          for (int x = block.x + spatial_spacing; x < block.x + block_side - spatial_spacing; ++x) {
            const auto at = [&](int dy, int dx) { return on_scale(frame(y + spatial_spacing * dy, x + spatial_spacing * dx)); };
            samples_[b].push_back(
                ((at(-1, -1) + at(-1, 1) + at(1, -1) + at(1, 1)) - 2 * (at(-1, 0) + at(1, 0) + at(0, -1) + at(0, 1)) + 4 * at(0, 0)) / 6);
          }
  }

  // Variance per bin, of one frame, without the quantisation where that varies along the scale.
  std::vector<Bin> measure_bins(double step) {
    std::vector<Bin> bins(samples_.size());
    bin_sd_.assign(samples_.size(), 0);
    parallel_for(static_cast<int>(samples_.size()), [&](int i) {
      const auto b = static_cast<std::size_t>(i);
      double intensity = 0;
      for (const Block& block : chosen_[b]) intensity += block.intensity;
      intensity /= static_cast<double>(chosen_[b].size());
      const double local_step = std::sqrt(12 * quantisation_at(intensity));
      const double variance = robust_variance(samples_[b], step * local_step);
      bin_sd_[b] = std::sqrt(variance);
      bins[b] = {intensity, model_.temporal ? 0.5 * variance : variance, static_cast<double>(samples_[b].size())};
    });
    if (model_.temporal && !bins.empty()) {
      measure_autocorrelation();
      // The block's mean took its share of the noise along, the larger the more neighbours go together.
      double sum = 0;
      for (const auto& row : model_.autocorrelation)
        for (const float r : row) sum += r;
      const double kept = 1 - std::clamp(sum, 0.2, 25.0) / block_pixels;
      for (std::size_t b = 0; b < bins.size(); ++b) {
        // The gradient that explains the motion is noisy too, and its noise came in with it.
        double added = 0;
        for (const Block& block : chosen_[b]) {
          const auto& [along_y, along_x] = motion_[static_cast<std::size_t>(block.frame_pair)].rest[region_of(block)];
          added += (along_y * along_y * (1 - model_.autocorrelation[4][2]) + along_x * along_x * (1 - model_.autocorrelation[2][4])) / 8;
        }
        bins[b].variance /= kept * (1 + added / static_cast<double>(chosen_[b].size()));
      }
    }
    return bins;
  }

  // Quantisation variance where the scale has this value.
  double quantisation_at(double intensity) const {
    if (uniform_) return 1.0 / 12;
    const bool rising = scale_.back() >= scale_.front();
    const auto at = rising ? std::lower_bound(scale_.begin(), scale_.end(), static_cast<float>(intensity))
                           : std::lower_bound(scale_.begin(), scale_.end(), static_cast<float>(intensity), std::greater<>());
    return quantisation_[static_cast<std::size_t>(
        std::clamp<std::ptrdiff_t>(at - scale_.begin(), 0, static_cast<std::ptrdiff_t>(scale_.size()) - 1))];
  }

  // Over whole blocks, outliers cut at 4 SD; symmetric, so half the lags are measured.
  void measure_autocorrelation() {
    constexpr int reach = 2;
    std::array<std::array<double, 5>, 3> sum{}, count{};
    double square_sum = 0, square_count = 0;
    std::size_t used = 0;
    // Zero about the block: what a lag takes from there adds nothing.
    std::array<std::array<float, block_side + 2 * reach>, block_side + reach> tile{};
    std::array<float, block_pixels> differences{};
    for (std::size_t b = 0; b < chosen_.size(); ++b) {
      if (bin_sd_[b] <= 0) continue;
      const std::size_t share = std::max<std::size_t>(1, 2048 / chosen_.size());
      for (std::size_t k = 0; k < std::min(share, chosen_[b].size()); ++k, ++used) {
        read_differences(chosen_[b][k], differences.data());
        const auto inverse = static_cast<float>(1 / bin_sd_[b]);
        for (int y = 0; y < block_side; ++y)
          for (int x = 0; x < block_side; ++x) {
            const float difference = std::clamp(differences[static_cast<std::size_t>(y * block_side + x)] * inverse, -4.0f, 4.0f);
            tile[y][x + reach] = difference;
            square_sum += static_cast<double>(difference) * difference;
          }
        square_count += block_pixels;
        for (int dy = 0; dy <= reach; ++dy)
          for (int dx = -reach; dx <= reach; ++dx) {
            std::array<float, block_side> lag{};  // by column, which the compiler makes vectors of
            for (int y = 0; y + dy < block_side; ++y)
              for (int x = 0; x < block_side; ++x) lag[x] += tile[y][x + reach] * tile[y + dy][x + reach + dx];
            sum[dy][dx + reach] += std::accumulate(lag.begin(), lag.end(), 0.0);
            count[dy][dx + reach] += (block_side - dy) * (block_side - std::abs(dx));
          }
      }
    }
    auto& result = model_.autocorrelation;
    result = {};
    result[reach][reach] = 1;
    if (used == 0 || square_sum <= 0) return;
    const double variance = square_sum / square_count;
    double total = 1;
    for (int pass = 0; pass < 4; ++pass) {
      // Taking the block's mean away lowers every lag by about total / pixels of the block.
      const double lost = std::clamp(total, 0.0, 25.0) / block_pixels;
      total = 0;
      for (int dy = 0; dy <= reach; ++dy)
        for (int dx = -reach; dx <= reach; ++dx) {
          const double r = (sum[dy][dx + reach] / count[dy][dx + reach] / variance) * (1 - lost) + lost;
          const float clipped = dy == 0 && dx == 0 ? 1.0f : static_cast<float>(std::clamp(r, -1.0, 1.0));
          result[reach + dy][reach + dx] = clipped;
          result[reach - dy][reach - dx] = clipped;
        }
      for (const auto& row : result)
        for (const float r : row) total += r;
    }
  }

  void finish(std::vector<Bin> bins) {
    if (!model_.temporal) {
      model_.autocorrelation = {};
      model_.autocorrelation[2][2] = 1;
    }
    std::erase_if(bins, [](const Bin& bin) { return bin.count < 128 || !std::isfinite(bin.variance); });
    double measured = 0, known = 0;  // at the middle bin: total, and what quantisation alone would give
    Line line{0, 0};
    std::string how;
    if (bins.empty()) {
      how = "No flat part of the field could be read: quantisation is the only noise that is known.";
    } else {
      const Bin& middle = bins[bins.size() / 2];
      measured = middle.variance;
      known = quantisation_at(middle.intensity);
      for (Bin& bin : bins) bin.variance = std::max(0.0, bin.variance - quantisation_at(bin.intensity));
      const double low = bins.front().intensity, high = bins.back().intensity;
      if (bins.size() >= 3 && high > 1.3 * std::max(low, 1e-9)) {
        line = fit_line(bins);
        how = "Robust line through the variances of " + std::to_string(bins.size()) + " bins of intensity.";
      } else {
        std::vector<double> ratios;
        for (const Bin& bin : bins) ratios.push_back(bin.intensity > 0 ? bin.variance / bin.intensity : 0);
        line = {median(ratios), 0};
        how = "The field has one intensity only: all noise but the quantisation is taken as quantum noise.";
      }
    }
    model_.gain = line.slope;
    model_.electronic_sd = std::sqrt(line.offset + (uniform_ ? 1.0 / 12 : 0));
    fill_table(line, bins);

    model_.note = model_.temporal ? "Noise from differences of " + std::to_string(pairs_.size() + 1) + " contrast-free frames. "
                                  : "Noise from the fine structure of one frame (" + why_spatial_ +
                                        "); fine structure of the scene may count as noise, and the noise's correlation is not known. ";
    model_.note += how;
    if (!bins.empty() && measured < 2 * known)
      model_.note +=
          " The variance hardly exceeds the quantisation's: compression or smoothing has taken noise away, and SDs are lower bounds.";
  }

  void fill_table(const Line& line, const std::vector<Bin>& bins) {
    const std::size_t n = scale_.size();
    const std::vector<float>& attenuation = intensity_.attenuation;
    model_.variance.resize(n);
    for (std::size_t i = 0; i < n; ++i) {
      double variance = 0, slope = 0;
      if (intensity_.densitometric) {
        variance = line.slope * scale_[i] + line.offset;
        slope = 1 / static_cast<double>(scale_[i]);
      } else {
        // A display curve bends the line: what was measured counts, between and beyond the bins their neighbours.
        variance = interpolate(bins, scale_[i]);
        const std::size_t below = i > 0 ? i - 1 : 0, above = std::min(i + 1, n - 1);
        slope = above > below ? (static_cast<double>(attenuation[above]) - attenuation[below]) / static_cast<double>(above - below) : 0;
      }
      model_.variance[i] = static_cast<float>(std::max(1e-12, (variance + quantisation_[i]) * slope * slope));
    }
    // The stored value in the middle of the field.
    std::vector<int> count(n, 0);
    int seen = 0;
    const ImageView<const std::uint8_t> valid = run_.field.valid();
    for (int y = 0; y < height_; y += 2)
      for (int x = 0; x < width_; ++x)
        if (valid(y, x)) {
          ++count[std::min<std::size_t>(stored_[0](y, x), n - 1)];
          ++seen;
        }
    std::size_t at = n / 2;
    if (seen > 0) {
      int below = 0;
      for (at = 0; (below += count[at]) <= seen / 2;) ++at;
    }
    model_.log_sd_at_median = std::sqrt(static_cast<double>(model_.variance[at]));
  }

  // Piecewise linear through the bins, each the median of itself and its neighbours.
  static double interpolate(const std::vector<Bin>& bins, double intensity) {
    if (bins.empty()) return 0;
    const auto smooth = [&](std::size_t i) {
      const std::size_t last = bins.size() - 1;
      return median({bins[i > 0 ? i - 1 : 0].variance, bins[i].variance, bins[std::min(i + 1, last)].variance});
    };
    if (intensity <= bins.front().intensity) return smooth(0);
    if (intensity >= bins.back().intensity) return smooth(bins.size() - 1);
    std::size_t i = 0;
    while (bins[i + 1].intensity < intensity) ++i;
    const double f = (intensity - bins[i].intensity) / (bins[i + 1].intensity - bins[i].intensity);
    return (1 - f) * smooth(i) + f * smooth(i + 1);
  }

  const Run& run_;
  const IntensityModel& intensity_;
  int height_, width_;
  std::vector<Image<std::uint16_t>> stored_;
  std::vector<Pair> pairs_;
  std::vector<float> scale_;                 // per stored value
  std::vector<double> quantisation_;         // variance on that scale, per stored value
  bool uniform_ = true;                      // quantisation_ is 1/12 everywhere
  std::vector<char> clipped_;                // per stored value
  std::vector<std::array<int, 2>> corners_;  // of the blocks
  int apart_ = 1;                            // every so many is looked at
  std::vector<PairMotion> motion_;           // of pairs_
  std::vector<std::vector<Block>> chosen_;   // by bin, and their samples
  std::vector<std::vector<float>> samples_;
  std::vector<double> bin_sd_;
  std::string why_spatial_;
  NoiseModel model_;
  static constexpr double difference_step_ = 1, spatial_step_ = 1.0 / 6;  // of samples, in steps of the scale
};

}  // namespace

NoiseModel estimate_noise(const Run& run, const IntensityModel& intensity, const std::vector<int>& frames) {
  return NoiseEstimator(run, intensity, frames).estimate();
}

double fine_noise_sd(const Image<float>& image, const Image<std::uint8_t>& valid) {
  std::vector<float> differences;
  const int step = std::max(1, image.height() / 256);
  for (int y = 0; y < image.height(); y += step)
    for (int x = 1; x + 1 < image.width(); ++x)
      if (valid(y, x - 1) && valid(y, x) && valid(y, x + 1))
        differences.push_back(std::abs(image(y, x - 1) - 2 * image(y, x) + image(y, x + 1)));
  if (differences.empty()) return 0;
  const auto middle = differences.begin() + static_cast<std::ptrdiff_t>(differences.size() / 2);
  std::nth_element(differences.begin(), middle, differences.end());
  return *middle / 0.6745 / std::sqrt(6.0);
}

}  // namespace cinelumen
