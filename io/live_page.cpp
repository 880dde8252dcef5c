#include "io/live_page.h"

#include <httplib.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <thread>

#include "io/byte_source.h"
#include "io/pictures.h"

namespace cinelumen {
namespace {

constexpr const char* page = R"html(<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>CineLumen live</title>
<style>
body { margin: 0; background: #14181c; color: #dde3e8; font: 15px/1.4 system-ui, sans-serif; }
main { display: grid; grid-template-columns: minmax(320px, 3fr) minmax(320px, 2fr); gap: 16px; padding: 16px; }
img { width: 100%; background: #000; border-radius: 4px; }
h1 { font-size: 17px; margin: 0 0 8px; } #state { color: #9fb0bf; min-height: 1.4em; }
canvas { width: 100%; height: 320px; background: #1c2227; border-radius: 4px; }
table { border-collapse: collapse; width: 100%; margin-top: 12px; font-variant-numeric: tabular-nums; }
td, th { text-align: right; padding: 2px 8px; border-bottom: 1px solid #2b333a; } th { color: #9fb0bf; font-weight: 500; }
#events { color: #e8c06a; white-space: pre-line; } footer { padding: 0 16px 16px; color: #78868f; }
</style></head><body>
<main><section><h1>CineLumen live</h1><img id="picture" alt="subtracted frame with the measured lumen"><div id="state"></div></section>
<section><h1>Lumen diameter over time</h1><canvas id="trace" width="900" height="480"></canvas><table id="segments"></table><div id="events"></div></section></main>
<footer>Research software, not a medical device.</footer>
<script>
const colours = ['#56b4e9','#e69f00','#009e73','#cc79a7','#f0e442','#d55e00','#8c9eff','#b0bec5'];
const trace = new Map(); let last = -1, events = [];
const colour = id => colours[(id - 1) % colours.length];
function draw() {
  const c = document.getElementById('trace'), g = c.getContext('2d'), w = c.width, h = c.height;
  g.clearRect(0, 0, w, h); g.font = '18px system-ui';
  let t1 = 0, top = 0; for (const p of trace.values()) for (const [t, d] of p) { t1 = Math.max(t1, t); top = Math.max(top, d); }
  const t0 = t1 - 30000, y = d => h - 24 - (h - 44) * d / (top * 1.1 || 1);
  g.fillStyle = '#78868f'; g.fillText('0', 4, h - 8); g.fillText(top.toFixed(1) + ' ' + window.unit, 4, y(top) - 4); g.fillText('last 30 s', w - 90, h - 4);
  for (const [id, p] of trace) { g.strokeStyle = colour(id); g.lineWidth = 2; g.beginPath(); let pen = false;
    for (const [t, d] of p) { if (t < t0) continue; const x = 40 + (w - 44) * (t - t0) / 30000; pen ? g.lineTo(x, y(d)) : g.moveTo(x, y(d)); pen = true; } g.stroke(); }
}
function change(e) {
  const wide = e.narrowing_percent < 0;
  return 'segment ' + e.segment + ': calibre ' + Math.abs(e.narrowing_percent).toFixed(0) + ' % ' + (wide ? 'wider' : 'narrower') + ' than before, since ' +
    (e.onset_ms / 1000).toFixed(1) + ' s' + (e.extent_mm === null ? '' : ', over ' + e.extent_mm.toFixed(0) + ' mm');
}
async function step() {
  try {
    const answer = await (await fetch('/state?after=' + last)).json(); window.unit = answer.unit;
    for (const f of answer.frames) {
      last = f.frame;
      for (const e of f.events) events.unshift('frame ' + f.frame + ': ' + (typeof e === 'string' ? e : change(e)));
      if (f.mask === 'again') trace.clear();
      for (const s of f.segments) { const d = answer.unit === 'mm' ? s.diameter_mm : s.diameter_px; if (d === null) continue;
        if (!trace.has(s.id)) trace.set(s.id, []); const p = trace.get(s.id); p.push([f.time_ms, d]); if (p.length > 2000) p.shift(); }
    }
    const f = answer.frames.at(-1);
    if (f) {
      document.getElementById('picture').src = '/picture.jpg?' + f.frame;
      document.getElementById('state').textContent = 'frame ' + f.frame + ', mask ' + f.mask + ', latency ' + f.latency_ms.toFixed(1) + ' ms';
      document.getElementById('segments').innerHTML = '<tr><th>segment</th><th>diameter ' + answer.unit + '</th><th>SD</th><th>contrast</th></tr>' +
        f.segments.slice(0, 16).map(s => { const mm = answer.unit === 'mm', d = mm ? s.diameter_mm : s.diameter_px, sd = mm ? s.sd_mm : s.sd_px;
          return '<tr><td style="color:' + colour(s.id) + '">' + s.id + '</td><td>' + (d === null ? '-' : d.toFixed(2)) + '</td><td>' + (sd === null ? '-' : sd.toFixed(3)) +
            '</td><td>' + (s.contrast === null ? '-' : s.contrast.toFixed(3)) + '</td></tr>'; }).join('');
      document.getElementById('events').textContent = events.slice(0, 6).join('\n'); draw();
    }
  } catch (error) { document.getElementById('state').textContent = 'the stream has ended'; }
  setTimeout(step, 100);
}
step();
</script></body></html>
)html";

constexpr std::size_t most_lines = 256;  // a page that looks in less often misses frames of the trace

}  // namespace

struct LivePage::State {
  httplib::Server server;
  std::thread thread;
  std::string address, unit;
  std::mutex mutex;
  std::deque<std::pair<int, std::string>> lines;  // by frame, 1-based
  Image<float> display;
  std::vector<LumenPoint> lumen;
  std::vector<int> ids;

  std::string picture() {
    cv::Mat coloured;
    {
      const std::lock_guard lock(mutex);
      if (display.empty()) return {};
      Image<std::uint8_t> grey(display.height(), display.width());
      to_grey(display.view(), choose_window(display.view(), true), grey.view());
      const cv::Mat view(grey.height(), grey.width(), CV_8U, grey.view().data,
                         static_cast<std::size_t>(grey.view().row(1) - grey.view().row(0)));
      cv::cvtColor(view, coloured, cv::COLOR_GRAY2BGR);
      for (const LumenPoint& point : lumen) {
        if (!point.used) continue;
        static const cv::Scalar colours[] = {{233, 180, 86}, {0, 159, 230}, {115, 158, 0},   {167, 121, 204},
                                             {66, 228, 240}, {0, 94, 213},  {255, 158, 140}, {197, 190, 176}};
        const int id = ids[static_cast<std::size_t>(point.segment)];
        for (const float side : {-0.5f, 0.5f})
          cv::circle(
              coloured,
              cv::Point2f(point.x_px + side * point.diameter_px * point.normal_x, point.y_px + side * point.diameter_px * point.normal_y),
              1, colours[(id - 1) % 8], cv::FILLED, cv::LINE_AA);
      }
    }
    constexpr int side = 900;
    const double shrink = static_cast<double>(side) / std::max(coloured.rows, coloured.cols);
    if (shrink < 1) cv::resize(coloured, coloured, {}, shrink, shrink, cv::INTER_AREA);
    std::vector<std::uint8_t> jpeg;
    cv::imencode(".jpg", coloured, jpeg, {cv::IMWRITE_JPEG_QUALITY, 80});
    return {jpeg.begin(), jpeg.end()};
  }

  std::string answer(int after) {
    const std::lock_guard lock(mutex);
    std::string text = "{\"unit\":\"" + unit + "\",\"frames\":[";
    bool any = false;
    for (const auto& [frame, line] : lines) {
      if (frame <= after) continue;
      text += (any ? "," : "") + line;
      any = true;
    }
    return text + "]}";
  }
};

LivePage::LivePage(const std::string& address, int port, bool calibrated) : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.unit = calibrated ? "mm" : "px";
  state.server.new_task_queue = [] { return new httplib::ThreadPool(2); };
  state.server.Get("/",
                   [](const httplib::Request&, httplib::Response& response) { response.set_content(page, "text/html; charset=utf-8"); });
  state.server.Get("/state", [&state](const httplib::Request& request, httplib::Response& response) {
    const std::string after = request.get_param_value("after");
    response.set_content(state.answer(std::atoi(after.c_str())), "application/json");
  });
  state.server.Get("/picture.jpg",
                   [&state](const httplib::Request&, httplib::Response& response) { response.set_content(state.picture(), "image/jpeg"); });
  const int bound =
      port > 0 ? (state.server.bind_to_port(address.c_str(), port) ? port : -1) : state.server.bind_to_any_port(address.c_str());
  if (bound <= 0) throw InputError("--page " + address + ":" + std::to_string(port) + ": can't listen there; is it taken?");
  state.address = "http://" + address + ":" + std::to_string(bound) + "/";
  state.thread = std::thread([&state] { state.server.listen_after_bind(); });
}

LivePage::~LivePage() {
  state_->server.stop();
  if (state_->thread.joinable()) state_->thread.join();
}

const std::string& LivePage::url() const { return state_->address; }

void LivePage::show(const LiveFrame& frame, const std::string& line) {
  State& state = *state_;
  const std::lock_guard lock(state.mutex);
  state.lines.emplace_back(frame.frame + 1, line);
  if (state.lines.size() > most_lines) state.lines.pop_front();
  if (!frame.display.data) return;
  if (state.display.empty()) state.display = Image<float>(frame.display.height, frame.display.width);
  copy<float>(Stream::cpu({.parallel = false}), frame.display, state.display.view());
  if (frame.lumen) state.lumen = *frame.lumen;
  state.ids.clear();
  for (const LiveSegment& segment : frame.segments) state.ids.push_back(segment.id);
}

}  // namespace cinelumen
