/// cinelumen_roc DIR [--odd|--even|--all] [--response noise|frangi|sato|jerman] [--min-scale PX] [--max-scale PX]
///
/// Vesselness against hand-drawn masks: DIR holds N.png (grey, vessels dark) and N_gt.png (vessels white). Prints the ROC area pooled over
/// all pixels of all images, the mean over images, the best Dice at one pooled threshold, and the time per image on one core.

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <numeric>
#include <opencv2/imgcodecs.hpp>
#include <string>
#include <vector>

#include "kernels/vesselness.h"

namespace {

using namespace cinelumen;

constexpr float grey_offset = 8;    // keeps the logarithm sane in the dark
constexpr int field_margin_px = 3;  // the field's edge is blurred

struct Sample {
  float value;
  bool vessel;
};

struct Score {
  double roc_area = 0, best_dice = 0;
  float threshold = 0;
};

/// Sorts the samples. Ties count half.
Score score(std::vector<Sample>& samples) {
  std::sort(samples.begin(), samples.end(), [](const Sample& a, const Sample& b) { return a.value > b.value; });
  double vessels = 0;
  for (const Sample& sample : samples) vessels += sample.vessel;
  const double others = static_cast<double>(samples.size()) - vessels;
  Score result;
  double hits = 0, false_alarms = 0, area = 0;
  for (std::size_t i = 0; i < samples.size();) {
    const double hits_before = hits, false_before = false_alarms;
    const float value = samples[i].value;
    for (; i < samples.size() && samples[i].value == value; ++i) (samples[i].vessel ? hits : false_alarms) += 1;
    area += (false_alarms - false_before) * 0.5 * (hits + hits_before);
    const double dice = 2 * hits / (hits + false_alarms + vessels);
    if (dice > result.best_dice) result.best_dice = dice, result.threshold = value;
  }
  result.roc_area = vessels > 0 && others > 0 ? area / (vessels * others) : 0;
  return result;
}

/// 1 inside the field of view: all but dark regions that touch the border, grown by a margin.
Image<std::uint8_t> find_field(const cv::Mat& grey) {
  const int height = grey.rows, width = grey.cols;
  std::vector<std::uint8_t> sorted;
  for (int y = 0; y < height; ++y) sorted.insert(sorted.end(), grey.ptr(y), grey.ptr(y) + width);
  std::nth_element(sorted.begin(), sorted.begin() + sorted.size() / 2, sorted.end());
  const double limit = std::max(25.0, 0.35 * sorted[sorted.size() / 2]);
  std::vector<std::uint8_t> dark(sorted.size());
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      int sum = 0, count = 0;
      for (int j = std::max(y - 1, 0); j <= std::min(y + 1, height - 1); ++j)
        for (int i = std::max(x - 1, 0); i <= std::min(x + 1, width - 1); ++i) sum += grey.at<std::uint8_t>(j, i), ++count;
      dark[y * width + x] = sum < limit * count;
    }
  Image<std::uint8_t> field(height, width);
  for (int y = 0; y < height; ++y) std::fill_n(field.row(y), width, std::uint8_t{1});
  std::vector<std::uint8_t> seen(dark.size());
  for (int start = 0; start < height * width; ++start) {
    const int y0 = start / width, x0 = start % width;
    if ((y0 > 0 && y0 < height - 1 && x0 > 0 && x0 < width - 1) || !dark[start] || seen[start]) continue;
    std::vector<int> region = {start};
    seen[start] = 1;
    for (std::size_t i = 0; i < region.size(); ++i) {
      const int y = region[i] / width, x = region[i] % width;
      for (const auto& [dy, dx] : {std::pair{-1, 0}, {1, 0}, {0, -1}, {0, 1}}) {
        const int j = y + dy, k = x + dx, next = j * width + k;
        if (j < 0 || j >= height || k < 0 || k >= width || !dark[next] || seen[next]) continue;
        seen[next] = 1;
        region.push_back(next);
      }
    }
    if (region.size() <= 60) continue;  // a vessel that runs out of the picture
    for (const int pixel : region)
      for (int j = std::max(pixel / width - field_margin_px, 0); j <= std::min(pixel / width + field_margin_px, height - 1); ++j)
        for (int i = std::max(pixel % width - field_margin_px, 0); i <= std::min(pixel % width + field_margin_px, width - 1); ++i)
          field(j, i) = 0;
  }
  return field;
}

/// White-noise SD of one image: median absolute answer of the mask (1 -2 1; -2 4 -2; 1 -2 1), which lines and planes do not pass
/// (Immerkaer).
float estimate_noise_sd(const Image<float>& image, const Image<std::uint8_t>& field) {
  std::vector<float> answers;
  for (int y = 1; y + 1 < image.height(); ++y)
    for (int x = 1; x + 1 < image.width(); ++x) {
      if (!field(y, x)) continue;
      const auto row = [&](int j) { return image(j, x - 1) - 2 * image(j, x) + image(j, x + 1); };
      answers.push_back(std::abs(row(y - 1) - 2 * row(y) + row(y + 1)));
    }
  if (answers.empty()) return 0.01f;
  std::nth_element(answers.begin(), answers.begin() + answers.size() / 2, answers.end());
  return std::max(answers[answers.size() / 2] / 0.6745f / 6, 1e-4f);
}

int usage(const std::string& what) {
  std::fprintf(stderr,
               "cinelumen_roc: %s\nusage: cinelumen_roc DIR [--odd|--even|--all] [--response noise|frangi|sato|jerman] [--min-scale PX] "
               "[--max-scale PX]\nDIR holds N.png (grey, vessels dark) and N_gt.png (vessels white).\n",
               what.c_str());
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  std::string folder, which = "--all", response = "noise";
  VesselnessOptions options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--odd" || argument == "--even" || argument == "--all") {
      which = argument;
    } else if (argument == "--response" || argument == "--min-scale" || argument == "--max-scale") {
      if (++i == argc) return usage(argument + " needs a value");
      const std::string value = argv[i];
      if (argument == "--response") {
        response = value;
      } else {
        float& scale = argument == "--min-scale" ? options.min_scale_px : options.max_scale_px;
        if (std::from_chars(value.data(), value.data() + value.size(), scale).ec != std::errc())
          return usage(argument + " " + value + ": expected a number of pixels");
      }
    } else if (argument.rfind("--", 0) == 0 || !folder.empty()) {
      return usage("what is " + argument + "?");
    } else {
      folder = argument;
    }
  }
  if (folder.empty()) return usage("no folder given");
  if (response == "frangi")
    options.response = VesselnessResponse::frangi;
  else if (response == "sato")
    options.response = VesselnessResponse::sato;
  else if (response == "jerman")
    options.response = VesselnessResponse::jerman;
  else if (response != "noise")
    return usage("--response " + response + ": expected noise, frangi, sato or jerman");
  if (!std::filesystem::is_directory(folder)) return usage(folder + " is not a folder");

  std::vector<int> numbers;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    int number = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error != std::errc() || std::string(end, name.data() + name.size()) != "_gt.png") continue;
    if (which == "--all" || (number % 2 != 0) == (which == "--odd")) numbers.push_back(number);
  }
  std::sort(numbers.begin(), numbers.end());

  try {
    const Stream stream = Stream::cpu({.parallel = false});
    std::vector<Sample> pooled;
    double sum_of_areas = 0, seconds = 0;
    std::size_t images = 0;
    for (const int number : numbers) {
      const std::string stem = (std::filesystem::path(folder) / std::to_string(number)).string();
      const cv::Mat grey = cv::imread(stem + ".png", cv::IMREAD_GRAYSCALE), truth = cv::imread(stem + "_gt.png", cv::IMREAD_GRAYSCALE);
      if (grey.empty() || truth.empty() || grey.size() != truth.size()) {
        std::fprintf(stderr, "cinelumen_roc: %s.png: not readable, or not of its mask's size; left out\n", stem.c_str());
        continue;
      }
      const Image<std::uint8_t> field = find_field(grey);
      Image<float> attenuation(grey.rows, grey.cols);
      for (int y = 0; y < grey.rows; ++y)
        for (int x = 0; x < grey.cols; ++x) attenuation(y, x) = -std::log(grey.at<std::uint8_t>(y, x) + grey_offset);
      options.noise_sd = estimate_noise_sd(attenuation, field);
      Vesselness vesselness(stream, field);
      VesselnessMap map = make_vesselness_map(stream, grey.rows, grey.cols);
      vesselness.compute(stream, attenuation, options, map);  // allocates; the next one is timed
      const auto start = std::chrono::steady_clock::now();
      vesselness.compute(stream, attenuation, options, map);
      seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      std::vector<Sample> samples;
      for (int y = 0; y < grey.rows; ++y)
        for (int x = 0; x < grey.cols; ++x) samples.push_back({map.response(y, x), truth.at<std::uint8_t>(y, x) > 127});
      pooled.insert(pooled.end(), samples.begin(), samples.end());
      const Score own = score(samples);
      std::printf("%4d  ROC area %.4f  best Dice %.4f at %.3f  noise SD %.4f\n", number, own.roc_area, own.best_dice, own.threshold,
                  options.noise_sd);
      sum_of_areas += own.roc_area;
      ++images;
    }
    if (images == 0) return usage(folder + ": no N.png with N_gt.png of the kind asked for");
    const Score all = score(pooled);
    std::printf("%zu images, response %s, scales %.1f to %.1f px\n", images, response.c_str(), options.min_scale_px, options.max_scale_px);
    std::printf("ROC area pooled over all pixels %.4f\nROC area, mean over images      %.4f\n", all.roc_area, sum_of_areas / images);
    std::printf("best Dice at one threshold      %.4f (response %.4g)\n", all.best_dice, all.threshold);
    std::printf("time per image, one core        %.2f ms\n", 1e3 * seconds / images);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cinelumen_roc: %s\n", error.what());
    return 1;
  }
  return 0;
}
