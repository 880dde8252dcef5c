#include "io/field_of_view.h"

#include <algorithm>
#include <cmath>
#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>
#include <optional>

namespace cinelumen {
namespace {

constexpr double least_share = 0.01;

Image<std::uint8_t> to_image(const cv::Mat& inside) {
  Image<std::uint8_t> mask(inside.rows, inside.cols);
  for (int y = 0; y < inside.rows; ++y)
    for (int x = 0; x < inside.cols; ++x) mask(y, x) = inside.at<std::uint8_t>(y, x) != 0;
  return mask;
}

FieldOfView whole_image(int rows, int columns) { return {to_image(cv::Mat(rows, columns, CV_8U, cv::Scalar(1))), "whole image"}; }

/// Clips what a header says to something that integer drawing can't overflow on.
int near_image(double value) { return static_cast<int>(std::lround(std::clamp(value, -30000.0, 100000.0))); }

cv::Mat inside_opening(int rows, int columns, const Opening& opening) {
  cv::Mat inside(rows, columns, CV_8U, cv::Scalar(1));
  for (const Opening::Rectangle& edges : opening.rectangles) {
    cv::Mat shape = cv::Mat::zeros(rows, columns, CV_8U);
    const int left = std::max(near_image(edges.left) - 1, 0), right = std::min(near_image(edges.right), columns);
    const int top = std::max(near_image(edges.upper) - 1, 0), bottom = std::min(near_image(edges.lower), rows);
    if (left < right && top < bottom) shape(cv::Range(top, bottom), cv::Range(left, right)) = 1;
    inside &= shape;
  }
  for (const Opening::Circle& circle : opening.circles)
    for (int y = 0; y < rows; ++y)
      for (int x = 0; x < columns; ++x)
        if (std::hypot(y + 1 - circle.row, x + 1 - circle.column) > circle.radius_px) inside.at<std::uint8_t>(y, x) = 0;
  for (const auto& polygon : opening.polygons) {
    cv::Mat shape = cv::Mat::zeros(rows, columns, CV_8U);
    std::vector<cv::Point> points;
    for (const auto& [row, column] : polygon) points.emplace_back(near_image(column) - 1, near_image(row) - 1);
    cv::fillPoly(shape, std::vector<std::vector<cv::Point>>{points}, cv::Scalar(1));
    inside &= shape;
  }
  return inside;
}

double share(const cv::Mat& inside) { return static_cast<double>(cv::countNonZero(inside)) / static_cast<double>(inside.total()); }

float quantile(std::vector<float> values, double q) {
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

std::vector<float> samples(const cv::Mat& image, int step) {
  std::vector<float> values;
  for (int y = 0; y < image.rows; y += step)
    for (int x = 0; x < image.cols; x += step) values.push_back(image.at<float>(y, x));
  return values;
}

/// Mean over up to eight frames spread over the run; empty where none can be read.
cv::Mat mean_frame(const FrameSource& frames) {
  const int count = std::min(frames.frame_count(), 8);
  Image<std::uint16_t> stored(frames.rows(), frames.columns());
  cv::Mat sum = cv::Mat::zeros(frames.rows(), frames.columns(), CV_32F);
  int read = 0;
  for (int i = 0; i < count; ++i) {
    const int frame = count == 1 ? 0 : static_cast<int>(static_cast<std::int64_t>(i) * (frames.frame_count() - 1) / (count - 1));
    try {
      frames.read_frame(frame, stored.view());
    } catch (const InputError&) {
      continue;  // whoever needs that frame will be told
    }
    for (int y = 0; y < sum.rows; ++y)
      for (int x = 0; x < sum.cols; ++x) sum.at<float>(y, x) += stored(y, x);
    ++read;
  }
  if (read == 0) return {};
  return sum / read;
}

/// What remains without the pixels near `level` that hang together with the image's border; empty where that isn't convincing.
cv::Mat without_surround(const cv::Mat& mean, float level, float tolerance) {
  cv::Mat near = cv::abs(mean - level) <= tolerance;
  cv::morphologyEx(near, near, cv::MORPH_CLOSE, cv::Mat::ones(3, 3, CV_8U));
  cv::Mat labels;
  const int count = cv::connectedComponents(near, labels, 4);
  std::vector<bool> at_border(static_cast<std::size_t>(count), false);
  const auto note = [&](int y, int x) { at_border[static_cast<std::size_t>(labels.at<int>(y, x))] = true; };
  for (int x = 0; x < mean.cols; ++x) note(0, x), note(mean.rows - 1, x);
  for (int y = 0; y < mean.rows; ++y) note(y, 0), note(y, mean.cols - 1);
  at_border[0] = false;
  cv::Mat inside(mean.size(), CV_8U);
  for (int y = 0; y < mean.rows; ++y)
    for (int x = 0; x < mean.cols; ++x) inside.at<std::uint8_t>(y, x) = !at_border[static_cast<std::size_t>(labels.at<int>(y, x))];
  if (share(inside) > 0.996 || share(inside) < 0.1) return {};

  // Only what reaches the border counts as outside in the following steps, so that an opening at the very border stays.
  const int margin = 8;
  cv::Mat padded;
  cv::copyMakeBorder(inside, padded, margin, margin, margin, margin, cv::BORDER_REPLICATE);
  cv::morphologyEx(padded, padded, cv::MORPH_OPEN, cv::getStructuringElement(cv::MORPH_ELLIPSE, {9, 9}));
  inside = padded(cv::Rect(margin, margin, mean.cols, mean.rows)).clone();
  cv::Mat parts, figures, centres;
  const int parts_count = cv::connectedComponentsWithStats(inside, parts, figures, centres, 4);
  int largest = 0;
  for (int i = 1; i < parts_count; ++i)
    if (largest == 0 || figures.at<int>(i, cv::CC_STAT_AREA) > figures.at<int>(largest, cv::CC_STAT_AREA)) largest = i;
  if (largest == 0) return {};
  inside = (parts == largest) / 255;

  // A collimator's opening is convex; a dark lung or a leg's edge isn't.
  std::vector<std::vector<cv::Point>> contours;
  cv::findContours(inside.clone(), contours, cv::RETR_EXTERNAL, cv::CHAIN_APPROX_NONE);
  if (contours.empty()) return {};
  const auto& outline =
      *std::max_element(contours.begin(), contours.end(), [](const auto& a, const auto& b) { return a.size() < b.size(); });
  std::vector<cv::Point> hull;
  cv::convexHull(outline, hull);
  const double hull_area = cv::contourArea(hull);
  if (hull_area <= 0 || cv::contourArea(outline) / hull_area < 0.93) return {};

  // And it ends in a step, not in a slope.
  cv::Mat distance;
  cv::Mat framed;
  cv::copyMakeBorder(inside, framed, 1, 1, 1, 1, cv::BORDER_REPLICATE);
  cv::distanceTransform(framed, distance, cv::DIST_L2, 3);
  distance = distance(cv::Rect(1, 1, mean.cols, mean.rows));
  int band = 0, bright = 0;
  for (int y = 0; y < mean.rows; ++y)
    for (int x = 0; x < mean.cols; ++x) {
      const float d = distance.at<float>(y, x);
      if (d < 5 || d > 7) continue;
      ++band;
      bright += std::abs(mean.at<float>(y, x) - level) > 1.5f * tolerance;
    }
  if (band == 0 || bright < 0.7 * band) return {};
  cv::Mat shrunk;
  cv::copyMakeBorder(inside, padded, margin, margin, margin, margin, cv::BORDER_REPLICATE);
  cv::erode(padded, shrunk, cv::getStructuringElement(cv::MORPH_ELLIPSE, {5, 5}));
  return shrunk(cv::Rect(margin, margin, mean.cols, mean.rows)).clone();
}

/// Cuts a straight collimator blade off the field's left side: a column where nearly all rows step up together from a dark strip.
/// Returns whether there was one.
bool cut_left_blade(const cv::Mat& mean, cv::Mat& inside, float offset) {
  constexpr int reach = 3;
  const cv::Rect box = cv::boundingRect(inside);
  const int last = box.x + box.width / 4;
  int edge = -1;
  for (int x = box.x + reach; x <= last && x + reach < mean.cols; ++x) {
    int rows = 0, steps = 0;
    for (int y = box.y; y < box.y + box.height; ++y) {
      if (!inside.at<std::uint8_t>(y, x - reach) || !inside.at<std::uint8_t>(y, x + reach)) continue;
      const float outer = mean.at<float>(y, x - reach) + offset, inner = mean.at<float>(y, x + reach) + offset;
      ++rows;
      steps += inner > 1.35f * outer;
    }
    if (rows >= 0.4 * box.height && steps >= 0.85 * rows) edge = x;
  }
  if (edge < 0) return false;
  const int end = std::min(edge + reach, inside.cols);
  inside(cv::Range::all(), cv::Range(0, end)) = 0;
  return true;
}

bool cut_blades(const cv::Mat& mean, cv::Mat& inside, float offset) {
  bool found = false;
  // The four sides in turn, each brought to the left.
  for (int side = 0; side < 4; ++side) {
    cv::Mat turned_mean, turned_inside;
    if (side % 2 == 0) {
      turned_mean = mean.clone();
      turned_inside = inside.clone();
    } else {
      cv::transpose(mean, turned_mean);
      cv::transpose(inside, turned_inside);
    }
    if (side >= 2) {
      cv::flip(turned_mean, turned_mean, 1);
      cv::flip(turned_inside, turned_inside, 1);
    }
    if (!cut_left_blade(turned_mean, turned_inside, offset)) continue;
    if (share(turned_inside) < 0.1) continue;
    found = true;
    if (side >= 2) cv::flip(turned_inside, turned_inside, 1);
    if (side % 2 == 0)
      inside = turned_inside;
    else
      cv::transpose(turned_inside, inside);
  }
  return found;
}

}  // namespace

FieldOfView field_from_header(int rows, int columns, const Opening& shutter, const Opening& collimator,
                              std::vector<std::string>& warnings) {
  cv::Mat inside(rows, columns, CV_8U, cv::Scalar(1));
  std::string source = "whole image";
  for (const auto& [opening, name] : {std::pair(&shutter, "shutter"), std::pair(&collimator, "collimator")}) {
    if (opening->empty()) continue;
    const cv::Mat both = inside & inside_opening(rows, columns, *opening);
    if (share(both) < least_share) {
      warnings.push_back(std::string("The ") + name + " in the header leaves less than 1 % of the image; it was ignored.");
      continue;
    }
    // An opening as large as the image says nothing about what lies in it.
    if (source == "whole image" && share(both) < share(inside)) source = name;
    inside = both;
  }
  return {to_image(inside), source};
}

FieldOfView find_field(const FrameSource& frames) {
  const int rows = frames.rows(), columns = frames.columns();
  if (rows < 64 || columns < 64) return whole_image(rows, columns);
  cv::Mat mean = mean_frame(frames);
  if (mean.empty()) return whole_image(rows, columns);
  cv::blur(mean, mean, {3, 3});
  const int step = std::max(1, std::min(rows, columns) / 256);
  const std::vector<float> all = samples(mean, step);
  const float dark = quantile(all, 0.005), range = quantile(all, 0.99) - dark;
  if (range <= 4) return whole_image(rows, columns);

  std::vector<float> border;
  for (int x = 0; x < columns; ++x) border.insert(border.end(), {mean.at<float>(1, x), mean.at<float>(rows - 2, x)});
  for (int y = 0; y < rows; ++y) border.insert(border.end(), {mean.at<float>(y, 1), mean.at<float>(y, columns - 2)});
  cv::Mat inside(rows, columns, CV_8U, cv::Scalar(1));
  // A surround is dark, or of one value on much of the border; noise asks for more tolerance, dark anatomy for less. Once it is found,
  // more tolerance may only take small corners off it.
  std::optional<float> level_found;
  for (const float tolerance : {0.04f * range, 0.08f * range, 0.16f * range})
    for (const float level : {quantile(border, 0.1), quantile(border, 0.5), quantile(border, 0.9)}) {
      if (level_found && *level_found != level) continue;
      const float width = std::max(1.5f, tolerance);
      const auto close =
          std::count_if(border.begin(), border.end(), [&](float value) { return std::abs(value - level) <= 0.01f * range + 0.5f; });
      if (level > dark + 2 * width && static_cast<double>(close) < 0.5 * static_cast<double>(border.size())) continue;
      const cv::Mat candidate = without_surround(mean, level, width);
      if (candidate.empty() || (level_found && share(candidate) < share(inside) - 0.02)) continue;
      inside = candidate;
      level_found = level;
    }
  bool found = level_found.has_value();
  found = cut_blades(mean, inside, 0.02f * range - std::min(dark, 0.f)) || found;
  if (!found || share(inside) < 0.1) return whole_image(rows, columns);
  return {to_image(inside), "pixels"};
}

FieldOfView intersection(FieldOfView first, const FieldOfView& second) {
  const int rows = first.mask.height(), columns = first.mask.width();
  Image<std::uint8_t> both(rows, columns);
  std::int64_t count = 0;
  for (int y = 0; y < rows; ++y)
    for (int x = 0; x < columns; ++x) {
      both(y, x) = first.mask(y, x) && second.mask(y, x);
      count += both(y, x);
    }
  if (static_cast<double>(count) < least_share * rows * columns) return first;
  first.mask = std::move(both);
  if (first.source == "whole image") first.source = second.source;
  return first;
}

double field_share(const FieldOfView& field) {
  std::int64_t count = 0;
  for (int y = 0; y < field.mask.height(); ++y)
    for (int x = 0; x < field.mask.width(); ++x) count += field.mask(y, x) != 0;
  return static_cast<double>(count) / std::max(1.0, static_cast<double>(field.mask.height()) * field.mask.width());
}

}  // namespace cinelumen
