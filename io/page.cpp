#include "io/page.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <sstream>

#include "io/byte_source.h"

namespace cinelumen {
namespace {

constexpr char style[] =
#include "io/report_assets/style.inc"
    ;
constexpr char script[] =
#include "io/report_assets/script.inc"
    ;

std::string base64(const std::vector<std::uint8_t>& bytes) {
  static constexpr char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t left = bytes.size() - i;
    const unsigned group = unsigned(bytes[i]) << 16 | (left > 1 ? unsigned(bytes[i + 1]) << 8 : 0) | (left > 2 ? bytes[i + 2] : 0);
    text += letters[group >> 18 & 63];
    text += letters[group >> 12 & 63];
    text += left > 1 ? letters[group >> 6 & 63] : '=';
    text += left > 2 ? letters[group & 63] : '=';
  }
  return text;
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string escaped;
  for (const char c : clean_text(text, 1 << 16)) switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  return escaped;
}

namespace page {

std::string head(const std::string& title, const std::string& more_style) {
  return "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8><title>" + title +
         " – CineLumen</title>\n<meta name=viewport content=\"width=device-width, initial-scale=1\">\n"
         "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src "
         "'unsafe-inline'\">\n<style>" +
         style + more_style + "</style></head>\n<body>\n";
}

std::string tail(const std::string& more_script) { return "<script>" + std::string(script) + more_script + "</script>\n</body></html>\n"; }

namespace {
std::string birth_date(const std::string& dicom) {
  if (dicom.size() != 8 || dicom.find_first_not_of("0123456789") != std::string::npos) return escape_html(dicom);
  return date(dicom.substr(0, 4) + "-" + dicom.substr(4, 2) + "-" + dicom.substr(6));
}
}  // namespace

std::string person_name(const std::string& value) {
  // Up to three ways of writing it, parted by '='; of each the family name, given names, middle names, prefix and suffix, parted by '^'.
  std::string written;
  for (std::stringstream groups(value); written.empty() && std::getline(groups, written, '=');) continue;
  std::vector<std::string> parts;
  std::stringstream components(written);
  for (std::string part; std::getline(components, part, '^');) {
    const auto first = part.find_first_not_of(' '), last = part.find_last_not_of(' ');
    parts.push_back(first == std::string::npos ? "" : part.substr(first, last - first + 1));
  }
  parts.resize(std::max<std::size_t>(parts.size(), 5));
  std::string others;
  for (const std::size_t i : {3, 1, 2})
    if (!parts[i].empty()) others += (others.empty() ? "" : " ") + parts[i];
  std::string name;
  for (const std::string& part : {parts[0], others, parts[4]})
    if (!part.empty()) name += (name.empty() ? "" : ", ") + part;
  return name;
}

std::string patient(const RunDescription& d) {
  std::string lines;
  if (!d.patient_name.empty()) lines += "<b>" + escape_html(person_name(d.patient_name)) + "</b><br>";
  if (!d.patient_id.empty()) lines += "ID " + escape_html(d.patient_id) + "<br>";
  if (!d.patient_birth_date.empty()) lines += "born " + birth_date(d.patient_birth_date);
  if (!d.patient_sex.empty()) lines += (d.patient_birth_date.empty() ? "" : ", ") + escape_html(d.patient_sex);
  return lines;
}

std::string notice() {
  return "<div class=notice>Research software, not a medical device: for research and engineering, not for diagnosis or "
         "treatment.</div>\n";
}

std::string warnings_box(const std::vector<std::string>& warnings) {
  if (warnings.empty()) return "";
  std::string box = "<section class=warnings><h2>" + count(warnings.size(), "warning", "warnings") + "</h2><ul>";
  for (const std::string& warning : warnings) box += "<li>" + escape_html(warning) + "</li>";
  return box + "</ul></section>\n";
}

std::string fixed(double value, int decimals) {
  if (!std::isfinite(value)) return "–";
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  if (std::strtod(text, nullptr) == 0 && text[0] == '-') return text + 1;  // no "-0.0"
  return text[0] == '-' ? "−" + std::string(text + 1) : text;
}

std::string fixed(const std::optional<double>& value, int decimals) {
  return fixed(value.value_or(std::numeric_limits<double>::quiet_NaN()), decimals);
}

std::string coordinate(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", value);
  return text;
}

std::string count(std::size_t n, const char* one, const char* many) { return std::to_string(n) + " " + (n == 1 ? one : many); }

std::string data_uri(const char* type, const std::vector<std::uint8_t>& bytes) {
  return "data:" + std::string(type) + ";base64," + base64(bytes);
}

std::string date(const std::string& iso) {
  static constexpr const char* months[] = {"January", "February", "March",     "April",   "May",      "June",
                                           "July",    "August",   "September", "October", "November", "December"};
  int year = 0, month = 0, day = 0, hour = 0, minute = 0;
  const int fields = std::sscanf(iso.c_str(), "%4d-%2d-%2dT%2d:%2d", &year, &month, &day, &hour, &minute);
  if (fields < 3 || month < 1 || month > 12) return escape_html(iso);
  char text[64];
  if (fields == 5)
    std::snprintf(text, sizeof text, "%d %s %d, %02d:%02d", day, months[month - 1], year, hour, minute);
  else
    std::snprintf(text, sizeof text, "%d %s %d", day, months[month - 1], year);
  return text;
}

std::string sentence(std::string text) {
  if (text.empty()) return "";
  if (text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 'a' + 'A');
  if (std::string(".!?").find(text.back()) == std::string::npos) text += ".";
  return escape_html(text);
}

std::vector<double> ticks(double low, double high, int wanted) {
  if (!(high > low)) return {low};
  const double raw = (high - low) / wanted, decade = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * decade;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * decade >= raw * 0.999) step = factor * decade;
  std::vector<double> positions;
  for (double at = std::ceil(low / step - 1e-9) * step; at <= high + 1e-9 * step; at += step) positions.push_back(at);
  return positions;
}
int decimals_for(const std::vector<double>& positions) {
  if (positions.size() < 2) return 0;
  return std::clamp(static_cast<int>(-std::floor(std::log10(positions[1] - positions[0]) + 1e-9)), 0, 5);
}

Plot::Plot(double width, double height, double x_low, double x_high, double y_low, double y_high, const std::string& x_label,
           const std::string& y_label, const PlotMargins& margins, bool x_ticks)
    : width_(width), height_(height), x_low_(x_low), y_low_(y_low), margins_(margins) {
  x_high_ = x_high > x_low ? x_high : x_low + 1;
  y_high_ = y_high > y_low ? y_high : y_low + 1;
  const auto y_positions = ticks(y_low_, y_high_, height > 220 ? 5 : 4);
  for (const double at : y_positions) {
    grid_ += "<line class=grid x1=" + coordinate(left()) + " x2=" + coordinate(right()) + " y1=" + coordinate(y(at)) +
             " y2=" + coordinate(y(at)) + " />";
    text(left() - 6, y(at) + 4, fixed(at, decimals_for(y_positions)), "text-anchor=end", grid_);
  }
  if (x_ticks) {
    const auto x_positions = ticks(x_low_, x_high_, width > 500 ? 8 : 5);
    for (const double at : x_positions) {
      grid_ += "<line class=axis x1=" + coordinate(x(at)) + " x2=" + coordinate(x(at)) + " y1=" + coordinate(bottom()) +
               " y2=" + coordinate(bottom() + 4) + " />";
      text(x(at), bottom() + 16, fixed(at, decimals_for(x_positions)), "text-anchor=middle", grid_);
    }
  }
  text(right(), height_ - 3, x_label, "text-anchor=end", grid_);
  text(2, 11, y_label, "", grid_);
  axis_ = "<line class=axis x1=" + coordinate(left()) + " x2=" + coordinate(right()) + " y1=" + coordinate(bottom()) +
          " y2=" + coordinate(bottom()) + " />";
}

double Plot::x(double value) const { return left() + (value - x_low_) / (x_high_ - x_low_) * (right() - left()); }

double Plot::y(double value) const {
  const double inside = std::clamp(value, y_low_, y_high_);
  return top() + (y_high_ - inside) / (y_high_ - y_low_) * (bottom() - top());
}

void Plot::line(const std::vector<double>& xs, const std::vector<double>& ys, const std::string& colour, double thickness,
                const std::string& more) {
  std::string path;
  bool down = false;
  for (std::size_t i = 0; i < xs.size() && i < ys.size(); ++i) {
    const bool here = std::isfinite(xs[i]) && std::isfinite(ys[i]);
    if (here) path += (down ? "L" : "M") + coordinate(x(xs[i])) + " " + coordinate(y(ys[i]));
    if (here && !down && (i + 1 == xs.size() || !std::isfinite(ys[i + 1]))) path += "h.01";  // a lone point is a dot
    down = here;
  }
  body_ += "<path fill=none stroke-linejoin=round stroke-linecap=round stroke=\"" + colour + "\" stroke-width=" + coordinate(thickness) +
           " d=\"" + path + "\" " + more + " />";
}

void Plot::band(const std::vector<double>& xs, const std::vector<double>& low, const std::vector<double>& high, const std::string& colour) {
  for (std::size_t first = 0; first < xs.size();) {
    std::size_t end = first;
    while (end < xs.size() && std::isfinite(low[end]) && std::isfinite(high[end])) ++end;
    if (end > first) {
      std::string path;
      for (std::size_t i = first; i < end; ++i) path += (i > first ? "L" : "M") + coordinate(x(xs[i])) + " " + coordinate(y(high[i]));
      for (std::size_t i = end; i-- > first;) path += "L" + coordinate(x(xs[i])) + " " + coordinate(y(low[i]));
      body_ += "<path stroke=none fill-opacity=.2 fill=\"" + colour + "\" d=\"" + path + "Z\"/>";
    }
    first = end + 1;
  }
}

void Plot::level(double value, const std::string& more) {
  body_ += "<line x1=" + coordinate(left()) + " x2=" + coordinate(right()) + " y1=" + coordinate(y(value)) + " y2=" + coordinate(y(value)) +
           " " + more + " />";
}

void Plot::shade(double from, double to, const std::string& colour) {
  body_ += "<rect x=" + coordinate(x(from)) + " width=" + coordinate(std::max(1.0, x(to) - x(from))) + " y=" + coordinate(top()) +
           " height=" + coordinate(bottom() - top()) + " fill=\"" + colour + "\"/>";
}

std::string Plot::svg(const std::string& title) const {
  return "<svg class=plot role=img aria-label=\"" + escape_html(title) + "\" viewBox=\"0 0 " + coordinate(width_) + " " +
         coordinate(height_) + "\">" + grid_ + body_ + axis_ + "</svg>";
}

void Plot::text(double x, double y, const std::string& words, const std::string& more, std::string& to) {
  to += "<text x=" + coordinate(x) + " y=" + coordinate(y) + " " + more + ">" + words + "</text>";
}

}  // namespace page
}  // namespace cinelumen
