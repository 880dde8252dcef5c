#pragma once
/// What all pages for people share: their look, the words for numbers and dates, and plots.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/run.h"

namespace cinelumen {

/// Text for HTML: escaped, valid UTF-8, no control characters.
std::string escape_html(const std::string& text);

namespace page {

/// From the first byte to the opened body: nothing is loaded, styles are inside. `title`: escaped. `more_style`: CSS after the common one.
std::string head(const std::string& title, const std::string& more_style = "");
/// The end: the common script, `more_script`, and what closes the page.
std::string tail(const std::string& more_script = "");
/// A DICOM person name (PS3.5, 6.2.1) as people write it: "Doe^John^^Dr" is "Doe, Dr John". Not escaped.
std::string person_name(const std::string& value);
/// Who it is, as lines for the header's right; empty where nothing is known.
std::string patient(const RunDescription& description);
/// The line below the header that says what this is not.
std::string notice();
/// A box with `warnings`; empty where there are none.
std::string warnings_box(const std::vector<std::string>& warnings);

/// A number with `decimals` and a real minus sign; a dash where it is not known.
std::string fixed(double value, int decimals);
std::string fixed(const std::optional<double>& value, int decimals);
/// For SVG coordinates and attributes.
std::string coordinate(double value);
/// "1 frame", "3 frames"
std::string count(std::size_t n, const char* one, const char* many);
/// Bytes as an address that needs no file. `type`: "image/jpeg".
std::string data_uri(const char* type, const std::vector<std::uint8_t>& bytes);
/// "2026-03-14T10:41:07" as "14 March 2026, 10:41"; escaped and else as it is where it looks otherwise.
std::string date(const std::string& iso);
/// Escaped, beginning with a capital and ending with a full stop.
std::string sentence(std::string text);

/// Round tick positions from `low` to `high`, about `wanted` of them.
std::vector<double> ticks(double low, double high, int wanted);
/// Decimals that tell such positions apart.
int decimals_for(const std::vector<double>& positions);

/// Room for the labels around a plot, in its own units.
struct PlotMargins {
  double left = 40, right = 12, top = 20, bottom = 34;
};

/// Axes and what stands between them, as one SVG.
class Plot {
 public:
  /// `width` x `height` units; values beyond [y_low, y_high] stand at the edge. Without `x_ticks` the caller writes those.
  Plot(double width, double height, double x_low, double x_high, double y_low, double y_high, const std::string& x_label,
       const std::string& y_label, const PlotMargins& margins = {}, bool x_ticks = true);
  double x(double value) const;  ///< units from the left
  double y(double value) const;  ///< units from the top
  /// A line through the finite points; gaps stay gaps. `more`: further attributes.
  void line(const std::vector<double>& xs, const std::vector<double>& ys, const std::string& colour, double thickness,
            const std::string& more = "");
  /// The area between two lines, one piece per unbroken stretch.
  void band(const std::vector<double>& xs, const std::vector<double>& low, const std::vector<double>& high, const std::string& colour);
  /// A horizontal line over the whole width.
  void level(double value, const std::string& more);
  /// A shaded stretch of x.
  void shade(double from, double to, const std::string& colour);
  /// SVG in the plot's units, over what is there.
  void raw(const std::string& svg) { body_ += svg; }
  double left() const { return margins_.left; }
  double right() const { return width_ - margins_.right; }
  double top() const { return margins_.top; }
  double bottom() const { return height_ - margins_.bottom; }
  std::string svg(const std::string& title) const;

 private:
  static void text(double x, double y, const std::string& words, const std::string& more, std::string& to);
  double width_, height_, x_low_, x_high_, y_low_, y_high_;
  PlotMargins margins_;
  std::string grid_, body_, axis_;
};

}  // namespace page
}  // namespace cinelumen
