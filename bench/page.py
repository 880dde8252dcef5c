"""page.py RESULTS.json PAGE.html PAGE.md: what tools/bench.sh measured as one page to post: charts and tables, and the same tables as Markdown."""
import json
import sys
from html import escape

import charts
from charts import number

# Title, our row, the row beside it (what it is).
kernels = [
    ("Log attenuation", "log_attenuation", "log_attenuation/opencv_log"),
    ("B-spline coefficients", "bspline_coefficients", None),
    ("Registration, start given", "mask_registration/from_start", "mask_registration/opencv_phase_correlate"),
    ("Registration, search", "mask_registration/search", "mask_registration/opencv_phase_correlate"),
    ("Subtraction, small rotation", "log_subtract/small_rotation/stored", "log_subtract/opencv_warp_affine_and_subtract"),
    ("Subtraction onto the mask", "log_subtract/small_rotation/stored_onto_mask", "log_subtract/opencv_warp_affine_and_subtract"),
    ("Temporal filter, moved", "temporal_filter/moved", "temporal_filter/opencv_running_average"),
    ("Filter with flow statistics", "temporal_filter/still_with_statistics", "flow_statistics/opencv_maximum"),
    ("Vesselness, Frangi", "vesselness/frangi", "vesselness/opencv_frangi"),
    ("Vesselness, default", "vesselness/default", None),
    ("Vesselness, z alone", "vesselness/z_alone", None),
    ("Hysteresis, components", "hysteresis", "hysteresis/opencv_components"),
    ("Thinning", "thinning", "thinning/opencv_guo_hall"),
    ("Re-snap of a frame", "re_snap_of_a_frame", None),
    ("Diameters of a filled frame", "diameters_of_a_frame/filled", "diameters_of_a_frame/opencv_half_maximum"),
]
per_run = [("Centrelines traced, once a run", "trace_centrelines"), ("Centrelines refitted, once a run", "fit_centrelines")]
chains = [("analyze, 32 frames", "chain/throughput"), ("analyze, 60 frames", "chain/throughput_60_frames"),
          ("analyze, 300 frames (sustained)", "chain/throughput_300_frames"),
          ("with components, thinning, graph in every frame", "chain/throughput_with_topology_in_every_frame"),
          ("one frame in flight (latency mode)", "chain/latency")]

style = """
:root{--ink:#1b2430;--soft:#5d6b7c;--line:#dfe5ec;--paper:#fff;--back:#f4f6f9;--accent:#1f6fb5}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 "Inter","Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1040px;margin:0 auto;padding:28px 20px 60px}header{background:linear-gradient(120deg,#12263d,#1f4f7d);color:#fff;padding:34px 0}
header>div{max-width:1040px;margin:0 auto;padding:0 20px}h1{margin:0 0 4px;font-size:30px;letter-spacing:-.02em}header p{margin:2px 0;color:#c9d9ea}
section{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:20px 24px;margin:18px 0}h2{margin:0 0 6px;font-size:19px}
section>p{margin:4px 0 12px;color:var(--soft);max-width:82ch}.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px;margin:18px 0}
.tile{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:14px 16px}.tile b{display:block;font-size:27px;letter-spacing:-.02em;color:var(--accent)}
.tile span{display:block;color:var(--soft);font-size:13px;line-height:1.35}table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th{font-weight:600;color:var(--soft);text-align:right;border-bottom:2px solid var(--line);padding:5px 8px;vertical-align:bottom}td{text-align:right;border-bottom:1px solid #edf0f4;padding:4px 8px}
th:first-child,td:first-child{text-align:left}.wide{overflow-x:auto}details{margin-top:12px}summary{cursor:pointer;color:var(--accent);font-size:14px}
svg{width:100%;height:auto;display:block;margin:6px 0;font-family:inherit}svg text{fill:#36424f;font-size:12px}svg .small{font-size:11.5px;fill:#5d6b7c}svg .tick{font-size:11px;fill:#8592a0}
svg .value{font-size:11px;fill:#36424f}svg .inside{font-size:11px;fill:#fff}svg .label{font-size:12.5px}svg .grid{stroke:#e8ecf1}svg .mark{stroke:#cf5b5f;stroke-dasharray:4 3}
svg .ideal{fill:none;stroke:#aab4bf;stroke-dasharray:5 4}.words td{text-align:left}.words th{text-align:left}.missing{border-color:#e0b4a8;background:#fdf6f4}code{background:#eef2f6;border-radius:4px;padding:1px 5px;font-size:13px}
@media print{body{background:#fff}section{break-inside:avoid}}
"""


class Section:
    """A heading, words, charts, and a table that the Markdown has, too."""

    def __init__(self, title, words=""):
        self.title, self.words, self.charts, self.head, self.rows, self.folded = title, words, [], [], [], False

    def table(self, head, rows, folded=False):
        self.head, self.rows, self.folded = head, [[str(cell) for cell in row] for row in rows], folded
        return self

    def html(self):
        parts = [f"<section><h2>{escape(self.title)}</h2>"]
        if self.words:
            parts.append(f"<p>{escape(self.words)}</p>")
        parts += self.charts
        if self.rows:
            cells = lambda tag, row: "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"
            words = ' class="words"' if len(self.head) == 2 else ""
            table = f'<div class="wide"><table{words}>{cells("th", self.head)}{"".join(cells("td", row) for row in self.rows)}</table></div>'
            parts.append(f"<details><summary>figures</summary>{table}</details>" if self.folded else table)
        return "".join(parts) + "</section>"

    def markdown(self):
        parts = [f"## {self.title}"] + ([self.words] if self.words else [])
        if self.rows:
            line = lambda row: "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
            parts.append("\n".join([line(self.head), "|" + "---|" * len(self.head), *map(line, self.rows)]))
        return "\n\n".join(parts)


class Results:
    def __init__(self, results):
        self.all = results
        self.rows = [row for row in results.get("benchmark", []) if "error" not in row]
        self.sizes = sorted({row["size"] for row in self.rows if row["work"].startswith(("vesselness/", "chain/"))})
        self.side = 1024 if 1024 in self.sizes else (self.sizes or [0])[-1]
        cpu = {row["device"] for row in self.rows if row["device"].startswith("cpu_")}
        self.threads = sorted(int(name.split("_")[1]) for name in cpu) or [1]
        self.gpus = sorted({row["device"] for row in self.rows if row["device"].startswith("cuda")})

    def devices(self):
        """(device, what the page calls it), those worth a bar."""
        names = [(self.cpu(1), "ours, 1 thread")]
        if self.threads[-1] > 1:
            names.append((self.cpu(self.threads[-1]), f"ours, {self.threads[-1]} threads"))
        return names + [(gpu, f"GPU {gpu[4:]}") for gpu in self.gpus]

    @staticmethod
    def cpu(threads):
        return f"cpu_{threads}_thread" + ("s" if threads > 1 else "")

    def row(self, work, device, size):
        return next((row for row in self.rows if (row["work"], row["device"], row["size"]) == (work, device, size)), None)

    def ms(self, work, device, size, by="wall_ms"):
        found = self.row(work, device, size)
        return found[by] if found else None

    def counter(self, work, device, size, name):
        found = self.row(work, device, size)
        return found["counters"].get(name) if found else None


def headline(r):
    tiles, most = [], r.cpu(r.threads[-1])
    for device, where in [(most, f"{r.threads[-1]} CPU threads")] + [(gpu, gpu.upper()) for gpu in r.gpus]:
        fps = next((f for work in ("chain/throughput_300_frames", "chain/throughput_60_frames", "chain/throughput") if (f := r.counter(work, device, r.side, "frames/s"))), None)
        if fps:
            tiles.append((f"{number(fps)} frames/s", f"raw frames to diameters, {r.side} x {r.side}, {where}"))
    ours, opencv = r.ms("vesselness/frangi", r.cpu(1), r.side, "cpu_ms"), r.ms("vesselness/opencv_frangi", "baseline", r.side, "cpu_ms")
    if ours:
        tiles.append((f"{number(ours)} ms", f"Frangi, five scales, {r.side} x {r.side}, one thread" + (f"; {number(opencv / ours)} times as fast as OpenCV's filters" if opencv else "")))
    stream = r.all.get("stream")
    if stream:
        tiles.append((f"{number(stream['second_half']['p99'])} ms", "p99 latency of a live stream at 30 frames/s, vessels known"))
    one, all_threads = (r.counter("chain/throughput_60_frames", d, r.side, "frames/s") or r.counter("chain/throughput", d, r.side, "frames/s") for d in (r.cpu(1), most))
    if one and all_threads and r.threads[-1] > 1:
        tiles.append((f"{number(all_threads / one)} x", f"throughput of {r.threads[-1]} threads over 1"))
    return tiles


def machine_section(r):
    m, s = r.all["machine"], r.all["software"]
    rows = [("Processor", m["cpu"]), ("Cores", m["cores"]), ("Memory", f"{m['memory_gib']} GiB")]
    rows += [(f"GPU {i}", gpu) for i, gpu in enumerate(m["gpus"])] or [("GPU", "none")]
    rows += [("System", f"{m['system']}, kernel {m['kernel']}"), ("CineLumen", f"{s['version']}, commit {s['commit']}"), ("Compiler", f"{s['compiler']}, {s['build']}")]
    rows += [(name, version) for name, version in r.all.get("peers", {}).get("versions", {}).items()]
    rows += [("Mode", s["mode"]), ("Load before it began", number(m["load_at_start"]))]
    return Section("Machine and versions").table(["what", "which"], rows)


def limits_section(r):
    section = Section("What the machine can do", "Measured in the same run: bytes read and written per second of a copy far larger than the caches, and single-precision multiply-adds in registers.")
    rows = []
    for device in [r.cpu(t) for t in r.threads] + r.gpus:
        copy, small = (r.counter("copy_plane", device, size, "GB/s") for size in (4096, 1024))
        fma = r.counter("multiply_add_chains", device, 1024, "GFLOP/s")
        if copy or fma:
            rows.append((device.replace("_", " "), number(copy), number(small), number(fma)))
    return section.table(["device", "copy, 4096 x 4096: GB/s", "copy, 1024 x 1024: GB/s", "multiply-adds: GFLOP/s"], rows)


def chain_section(r):
    section = Section("The whole chain", "Stored frames in memory to lumen diameters: ingest, registration, subtraction, temporal filter, vesselness, re-snap, diameters and flow in every frame; "
                      "mask choice, noise and topology of the run are in the time, decoding and writing are not. On a GPU each frame's way there and its figures' way back are in the time.")
    names = [(r.cpu(t), "ours, 1 thread" if t == 1 else f"ours, {t} threads") for t in r.threads] + [(gpu, f"GPU {gpu[4:]}") for gpu in r.gpus]
    sizes = sorted({row["size"] for row in r.rows if row["work"].startswith("chain/")})
    for size in sizes:
        groups = [(title.replace("with components, thinning, graph in every frame", "topology in every frame"), [(name, r.counter(work, device, size, "frames/s")) for device, name in names]) for title, work in chains]
        section.charts.append(f"<h3>{size} x {size}</h3>" + charts.bars(f"Frames per second at {size} x {size}", groups, "frames/s"))
    rows = []
    for title, work in chains:
        for size in sizes:
            for device, name in names:
                row = r.row(work, device, size)
                if row:
                    c = row["counters"]
                    tail = (f"{number(c.get('p50 ms'))} / {number(c.get('p99 ms'))}") if "p50 ms" in c else "-"
                    rows.append((title, size, name, number(c["frames/s"]), number(1e3 / c["frames/s"]), number(row["cpu_ms"] / c["frames"]), number(c.get("segments")), tail))
    return section.table(["run", "side", "device", "frames/s", "ms a frame", "CPU ms a frame, all threads", "segments", "latency p50 / p99 ms"], rows, folded=True)


def stage_section(r):
    section = Section("Where a frame's time goes", f"One thread's milliseconds per frame at {r.side} x {r.side}, work of the run (mask, noise, topology, statistics) spread over its frames.")
    bars, rows = [], []
    for title, work in chains[:4]:
        row = r.row(work, r.cpu(r.threads[-1]), r.side)
        if row:
            parts = [(key.replace(" ms/frame", ""), value) for key, value in row["counters"].items() if key.endswith(" ms/frame") and not key.startswith("thread") and value > 0.02]
            bars.append((title.replace("with components, thinning, graph in every frame", "topology in every frame"), parts))
            rows += [(title, name, number(value)) for name, value in sorted(parts, key=lambda p: -p[1])]
    section.charts.append(charts.stacked("Thread time per frame by stage", bars, "ms of one thread a frame"))
    return section.table(["run", "stage", "ms a frame"], rows, folded=True)


def kernel_section(r):
    section = Section("Kernels", f"Wall time per call at {r.side} x {r.side}, data where the kernel runs; medians. Beside it, on one thread, what OpenCV has for the purpose. Each row checks its own result.")
    groups, rows = [], []
    for title, work, other in kernels + [(title, work, None) for title, work in per_run]:
        values = [(name, r.ms(work, device, r.side)) for device, name in r.devices()]
        beside = r.ms(other, "baseline", r.side) if other else None
        groups.append((title, values + [("OpenCV", beside)]))
        for size in r.sizes:
            base, ours = (r.ms(other, "baseline", size, "cpu_ms") if other else None), r.ms(work, r.cpu(1), size, "cpu_ms")
            if ours:
                rows.append((title, size, number(ours), *(number(r.ms(work, device, size)) for device, _ in r.devices()), number(base), number(base / ours) if base else "-"))
    section.charts.append(charts.bars("Kernels", groups, "ms", log=True))
    return section.table(["kernel", "side", "CPU ms, 1 thread", *(f"{name}: ms" for _, name in r.devices()), "OpenCV: CPU ms", "ratio"], rows, folded=True)


def cost_section(r):
    section = Section("Cost and limits", f"What a call must move (every input and output once) and compute per pixel at {r.side} x {r.side}, and which share of the device's measured limits that is. "
                      "Planes that stay in the caches can exceed 100 % of the copy.")
    rows = []
    for title, work, _ in kernels:
        for device, name in r.devices():
            row = r.row(work, device, r.side)
            if row and "bytes" in row["counters"]:
                c, pixels = row["counters"], r.side * r.side
                percent = lambda key: f"{100 * c[key]:.0f} %" if key in c else "-"
                rows.append((title, name, number(c["bytes"] / pixels), number(c["flops"] / pixels) if "flops" in c else "-", number(c.get("GB/s")), percent("of_copy"), percent("of_fma")))
    return section.table(["kernel", "device", "bytes/px", "flops/px", "GB/s", "of copy bandwidth", "of multiply-add rate"], rows)


def size_section(r):
    section = Section("Cost per pixel over size", "Nanoseconds of one thread per pixel (chain: per pixel and frame). Flat is what it should be.")
    works = [("chain, 32 frames", "chain/throughput"), ("vesselness, default", "vesselness/default"), ("vesselness, Frangi", "vesselness/frangi"),
             ("diameters, filled", "diameters_of_a_frame/filled"), ("registration", "mask_registration/from_start"), ("subtraction", "log_subtract/small_rotation/stored"),
             ("temporal filter, moved", "temporal_filter/moved"), ("hysteresis", "hysteresis"), ("thinning", "thinning")]
    series = {}
    for name, work in works:
        points = []
        for size in r.sizes:
            row = r.row(work, r.cpu(1), size)
            if row:
                points.append((size, 1e6 * row["cpu_ms"] / row["counters"].get("frames", 1) / size**2))
        series[name] = points
    section.charts.append(charts.lines("Cost per pixel", series, "side, px", "ns/px"))
    rows = [(name, *(number(dict(points).get(size)) for size in r.sizes), number(max(y for _, y in points) / min(y for _, y in points))) for name, points in series.items() if points]
    return section.table(["work", *(f"{size}: ns/px" for size in r.sizes), "largest / least"], rows, folded=True)


def scaling_section(r):
    section = Section("Scaling over cores", "Speed over that of one thread. Throughput: frames over cores; latency: one frame in flight, its tiles over cores.")
    works = [("throughput, 60 frames", "chain/throughput_60_frames"), ("throughput, topology in every frame", "chain/throughput_with_topology_in_every_frame"), ("latency mode", "chain/latency"), ("vesselness alone", "vesselness/default")]
    series = {}
    for name, work in works:
        one = r.ms(work, r.cpu(1), r.side)
        series[name] = [(t, one / ms) for t in r.threads if one and (ms := r.ms(work, r.cpu(t), r.side))]
    if len(r.threads) > 1:
        section.charts.append(charts.lines("Speed-up over threads", series, "threads", "x", ideal=[(t, t) for t in r.threads], height=240))
    rows = [(name, *(number(dict(points).get(t)) for t in r.threads)) for name, points in series.items() if points]
    return section.table(["work", *(f"{t} threads" if t > 1 else "1 thread" for t in r.threads)], rows)


def transfer_section(r):
    section = Section("Transfer between host and device", "Pinned memory is what the chain uses.")
    rows = [(row["work"], row["device"], row["size"], number(row["wall_ms"]), number(row["counters"].get("GB/s"))) for row in r.rows if "transfer" in row["work"]]
    return section.table(["what", "device", "side", "ms", "GB/s"], rows)


def stream_section(r):
    s = r.all["stream"]
    section = Section("A live stream at 30 frames/s", f"{s['frames']} raw frames through a pipe into `cinelumen stream`, from a frame's arrival to its line of results; {s['segments']} segments at the end, "
                      f"{s['dropped_for_display']} frames not shown, none left unmeasured. The first half is when mask and vessels are being found.")
    section.charts.append(charts.lines("Latency of each frame", {"latency": list(enumerate(s["latency_ms"], 1))}, "frame", "ms", log_x=False, dots=False, marks=[(1000 / 30, "a frame's time, 33 ms")], height=220))
    names = ("p50", "p95", "p99", "max")
    rows = [("all frames", *(number(s["whole"][n]) for n in names)), ("second half", *(number(s["second_half"][n]) for n in names))]
    if s["idle_timer_p99_ms"] is not None:
        rows.append(("this machine's idle timer", "-", "-", number(s["idle_timer_p99_ms"]), "-"))
    return section.table(["latency, ms", *names], rows)


def peer_sections(r):
    peers = r.all["peers"]
    times = {(t["side"], t["stage"], t["peer"], t["threads"]): t for t in peers["times"]}
    sides = sorted({t["side"] for t in peers["times"]})
    side = 1024 if 1024 in sides else sides[-1]
    most = max(t["threads"] for t in peers["times"])
    labels = list(dict.fromkeys(t["peer"] for t in peers["times"]))
    series = lambda label: "ours" + label[len("CineLumen"):] if label.startswith("CineLumen") else label
    speed = Section("Beside other programs, on the same files", f"Processor time per frame on one thread at {side} x {side}, logarithmic. A: registration and subtraction, making the mask included; B: Frangi at five scales; "
                    "C: hysteresis, components, thinning; D: diameters (ours: re-snap and model fits with error bars; theirs: distance transform); E: all of it, topology in every frame. Rounds interleaved, medians.")
    groups = [(f"{stage}  {words}", [(series(label), times[side, stage, label, 1]["cpu_ms"]) for label in labels if (side, stage, label, 1) in times]) for stage, words in peers["stages"].items()]
    speed.charts.append(charts.bars("CPU time per frame", groups, "CPU ms a frame", log=True))
    chain = [(f"{label}", [(series(label), 1e3 / times[side, "E", label, t]["wall_ms"])]) for label in labels for t in [max((t for t in (1, most) if (side, "E", label, t) in times), default=0)] if t]
    speed.charts.append(f"<h3>Whole chain, frames/s, {most} thread{'s where the library has them' if most > 1 else ''}</h3>" + charts.bars("Whole chain", chain, "frames/s"))
    rows = [(t["side"], f"{t['stage']} {peers['stages'][t['stage']]}", t["peer"], t["threads"], number(t["cpu_ms"]), number(t["cpu_ms_least"]), number(t["wall_ms"]), number(1e3 / t["wall_ms"]), number(t["peak_mb"])) for t in sorted(peers["times"], key=lambda t: (t["side"], t["stage"], t["threads"], t["cpu_ms"]))]
    speed.table(["side", "stage", "program", "threads", "CPU ms a frame", "least", "wall ms a frame", "frames/s", "peak MB"], rows, folded=True)
    right = Section("How right they are", "Against the synthetic cine's truth. A: rms error of the shift. B: area under the ROC curve and best Dice over thresholds. D, E: bias and SD of diameters in px at true, isolated centreline points, and the share of them that was found "
                    "(ours leaves out what it can't measure). Same files, same scores.")
    cell = lambda a, key, form=number: form(a[key]) if a.get(key) is not None else "-"
    rows = [(a["side"], a["stage"], a["peer"], cell(a, "shift_rms_px"), cell(a, "roc_area", lambda v: f"{v:.4f}"), cell(a, "best_dice", lambda v: f"{v:.3f}"), cell(a, "dice", lambda v: f"{v:.3f}"), cell(a, "bias_px", lambda v: f"{v:+.2f}"), cell(a, "sd_px", lambda v: f"{v:.2f}"), cell(a, "found", lambda v: f"{100 * v:.0f} %")) for a in peers["accuracy"]]
    right.table(["side", "stage", "program", "shift rms px", "ROC area", "best Dice", "Dice", "diameter bias px", "SD px", "found"], rows)
    return [speed] + ([right] if rows else [])


def all_rows_section(r):
    spread = lambda row: f"{number(row['wall_ms_spread'][0])} - {number(row['wall_ms_spread'][1])}"
    rows = [(row["work"], row["device"], row["size"] or "-", number(row["wall_ms"]), spread(row), number(row["cpu_ms"]), row["repetitions"]) for row in r.rows]
    return Section("Every row", "As cinelumen_bench names them.").table(["work", "device", "size", "wall ms", "least - most", "CPU ms, all threads", "repetitions"], rows, folded=True)


def sections(r):
    made = []
    if r.rows:
        made += [chain_section(r), stage_section(r), kernel_section(r)]
    if r.all.get("peers", {}).get("times"):
        made += peer_sections(r)
    if "stream" in r.all:
        made.append(stream_section(r))
    if r.rows:
        made += [size_section(r), scaling_section(r), cost_section(r), limits_section(r)]
        if r.gpus:
            made.append(transfer_section(r))
    made = [section for section in made if section.rows or any(section.charts)]
    made.append(machine_section(r))
    notes = Section("Notes", "Times are medians over repetitions whose order is shuffled; on a machine that others use, too, trust ratios within this page before absolute times. CPU ms are of all threads together. "
                    "Shares of limits are of limits measured in the same run. Printed by tools/bench.sh; results.json beside this page has every figure.")
    made.append(notes)
    if r.rows:
        made.append(all_rows_section(r))
    return made


def main():
    with open(sys.argv[1]) as file:
        results = json.load(file)
    r = Results(results)
    made = sections(r)
    m, s = results["machine"], results["software"]
    title, sub = "CineLumen benchmark", f"{m['cpu']}, {m['cores']} cores" + "".join(f" · {gpu.split(',')[0]}" for gpu in m["gpus"])
    stamp = f"version {s['version']}, commit {s['commit']}, {results['made'][:16].replace('T', ' ')} UTC" + (", quick run" if s["mode"] == "quick" else "")
    tiles = headline(r)
    missing = results["missing"]
    said = "".join(f"<li>{escape(x['what'])}: {escape(x['reason'])}</li>" for x in missing)
    missing_html = f'<section class="missing"><h2>Not measured</h2><ul>{said}</ul></section>' if missing else ""
    tiles_html = '<div class="tiles">' + "".join(f'<div class="tile"><b>{escape(a)}</b><span>{escape(b)}</span></div>' for a, b in tiles) + "</div>"
    with open(sys.argv[2], "w") as page:
        page.write(f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}: {escape(m["cpu"])}</title><style>{style}</style></head>'
                   f"<body><header><div><h1>{title}</h1><p>{escape(sub)}</p><p>{escape(stamp)}</p></div></header><main>{tiles_html}{missing_html}{''.join(section.html() for section in made)}</main></body></html>\n")
    parts = [f"# {title}", sub, stamp, "\n".join(f"- **{a}**: {b}" for a, b in tiles)]
    if missing:
        parts.append("## Not measured\n\n" + "\n".join(f"- {x['what']}: {x['reason']}" for x in missing))
    with open(sys.argv[3], "w") as page:
        page.write("\n\n".join(part for part in parts + [section.markdown() for section in made] if part) + "\n")


if __name__ == "__main__":
    main()
