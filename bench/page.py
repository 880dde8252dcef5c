"""page.py RESULTS.json PAGE.html PAGE.md: what tools/bench.sh measured as one page to post, charts and tables, and the tables as "
"Markdown."""

import json
import os
import re
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
    ("Vesselness, ridge at half resolution", "vesselness/ridge_at_half_resolution", None),
    ("Hysteresis, components", "hysteresis", "hysteresis/opencv_components"),
    ("Thinning", "thinning", "thinning/opencv_guo_hall"),
    ("Re-snap of a frame", "re_snap_of_a_frame", None),
    ("Diameters of a filled frame", "diameters_of_a_frame/filled", "diameters_of_a_frame/opencv_half_maximum"),
]
per_run = [("Centrelines traced, once a run", "trace_centrelines"), ("Centrelines refitted, once a run", "fit_centrelines")]
chains = [
    ("analyze, 32 frames", "chain/throughput"),
    ("analyze, 60 frames", "chain/throughput_60_frames"),
    ("analyze, 300 frames (sustained)", "chain/throughput_300_frames"),
    ("the same with topology in every frame", "chain/throughput_300_frames_with_topology_in_every_frame"),
    ("with components, thinning, graph in every frame", "chain/throughput_with_topology_in_every_frame"),
    ("one frame in flight (latency mode)", "chain/latency"),
]


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
            figures = [all(re.fullmatch(r"[-+\d.,% x/]*", row[i]) for row in self.rows) for i in range(len(self.head))]
            kinds = ["" if figure else ' class="words"' for figure in figures]
            cells = lambda tag, row: "<tr>" + "".join(f"<{tag}{k}>{escape(cell)}</{tag}>" for k, cell in zip(kinds, row)) + "</tr>"
            table = f'<div class="wide"><table>{cells("th", self.head)}{"".join(cells("td", row) for row in self.rows)}</table></div>'
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

    def share(self, row, name):
        """A rate of a row. One thread's is by its own time: others on the machine do not lower it."""
        rate = row["counters"].get(name)
        return rate * row["wall_ms"] / row["cpu_ms"] if rate is not None and row["device"] == self.cpu(1) else rate

    def counter(self, work, device, size, name):
        found = self.row(work, device, size)
        return found["counters"].get(name) if found else None


def headline(r):
    tiles, most = [], r.cpu(r.threads[-1])
    for device, where in [(most, f"{r.threads[-1]} CPU threads")] + [(gpu, gpu.upper()) for gpu in r.gpus]:
        fps = next(
            (
                f
                for work in ("chain/throughput_300_frames", "chain/throughput_60_frames", "chain/throughput")
                if (f := r.counter(work, device, r.side, "frames/s"))
            ),
            None,
        )
        if fps:
            tiles.append((f"{number(fps)} frames/s", f"raw frames to diameters, {r.side} x {r.side}, {where}"))
    ours, opencv = r.ms("vesselness/frangi", r.cpu(1), r.side, "cpu_ms"), r.ms("vesselness/opencv_frangi", "baseline", r.side, "cpu_ms")
    if ours:
        tiles.append(
            (
                f"{number(ours)} ms",
                f"Frangi, five scales, {r.side} x {r.side}, one thread"
                + (f"; {number(opencv / ours)} times as fast as OpenCV's filters" if opencv else ""),
            )
        )
    stream = r.all.get("stream")
    if stream:
        tiles.append((f"{number(stream['second_half']['p99'])} ms", "p99 latency of a live stream at 30 frames/s, vessels known"))
    one, all_threads = (
        r.counter("chain/throughput_60_frames", d, r.side, "frames/s") or r.counter("chain/throughput", d, r.side, "frames/s")
        for d in (r.cpu(1), most)
    )
    if one and all_threads and r.threads[-1] > 1:
        tiles.append((f"{number(all_threads / one)} x", f"throughput of {r.threads[-1]} threads over 1"))
    return tiles


def machine_section(r):
    m, s = r.all["machine"], r.all["software"]
    rows = [("Processor", m["cpu"]), ("Cores", m["cores"]), ("Memory", f"{m['memory_gib']} GiB")]
    rows += [(f"GPU {i}", gpu) for i, gpu in enumerate(m["gpus"])] or [("GPU", "none")]
    rows += [
        ("System", f"{m['system']}, kernel {m['kernel']}"),
        ("CineLumen", f"{s['version']}, commit {s['commit']}"),
        ("Compiler", f"{s['compiler']}, {s['build']}"),
    ]
    rows += [(name, version) for name, version in r.all.get("peers", {}).get("versions", {}).items()]
    rows += [("Mode", s["mode"]), ("Load before it began", number(m["load_at_start"]))]
    return Section("Machine and versions").table(["what", "which"], rows)


def limits_section(r):
    section = Section(
        "What the machine can do",
        "Measured in the same run: bytes read and written per second of a copy far larger than the caches, and single-precision "
        "multiply-adds in registers.",
    )
    rows = []
    for device in [r.cpu(t) for t in r.threads] + r.gpus:
        rate = lambda work, size, name: r.share(row, name) if (row := r.row(work, device, size)) else None
        copy, small = (rate("copy_plane", size, "GB/s") for size in (4096, 1024))
        fma = rate("multiply_add_chains", 1024, "GFLOP/s")
        if copy or fma:
            rows.append((device.replace("_", " "), number(copy), number(small), number(fma)))
    return section.table(["device", "copy, 4096 x 4096: GB/s", "copy, 1024 x 1024: GB/s", "multiply-adds: GFLOP/s"], rows)


def chain_section(r):
    section = Section(
        "The whole chain",
        "Stored frames in memory to lumen diameters: ingest, registration, subtraction, temporal filter, vesselness, re-snap, diameters "
        "and flow in every frame; mask choice, noise and topology of the run are in the time, decoding and writing are not. On a GPU "
        "each frame's way there and its figures' way back are in the time.",
    )
    names = [(r.cpu(t), "ours, 1 thread" if t == 1 else f"ours, {t} threads") for t in r.threads] + [
        (gpu, f"GPU {gpu[4:]}") for gpu in r.gpus
    ]
    sizes = sorted({row["size"] for row in r.rows if row["work"].startswith("chain/")})
    for size in sizes:
        groups = [
            (
                title.replace("with components, thinning, graph in every frame", "topology in every frame"),
                [(name, r.counter(work, device, size, "frames/s")) for device, name in names],
            )
            for title, work in chains
        ]
        section.charts.append(f"<h3>{size} x {size}</h3>" + charts.bars(f"Frames per second at {size} x {size}", groups, "frames/s"))
    rows = []
    for title, work in chains:
        for size in sizes:
            for device, name in names:
                row = r.row(work, device, size)
                if row:
                    c = row["counters"]
                    tail = (f"{number(c.get('p50 ms'))} / {number(c.get('p99 ms'))}") if "p50 ms" in c else "-"
                    rows.append(
                        (
                            title,
                            size,
                            name,
                            number(c["frames/s"]),
                            number(1e3 / c["frames/s"]),
                            number(row["cpu_ms"] / c["frames"]),
                            number(c.get("segments")),
                            tail,
                        )
                    )
    return section.table(
        ["run", "side", "device", "frames/s", "ms a frame", "CPU ms a frame, all threads", "segments", "latency p50 / p99 ms"],
        rows,
        folded=True,
    )


def stage_section(r):
    section = Section(
        "Where a frame's time goes",
        f"One thread's milliseconds per frame at {r.side} x {r.side}, work of the run (mask, noise, topology, statistics) spread over "
        "its frames.",
    )
    bars, rows = [], []
    for title, work in chains[:4]:
        row = r.row(work, r.cpu(r.threads[-1]), r.side)
        if row:
            parts = [
                (key.replace(" ms/frame", ""), value)
                for key, value in row["counters"].items()
                if key.endswith(" ms/frame") and not key.startswith("thread") and value > 0.02
            ]
            parts.sort(key=lambda part: -part[1])
            shown = parts[:9] + [("others", sum(ms for _, ms in parts[9:]))]
            bars.append((title.replace("with components, thinning, graph in every frame", "topology in every frame"), shown))
            rows += [(title, name, number(value)) for name, value in parts]
    section.charts.append(charts.stacked("Thread time per frame by stage", bars, "ms of one thread a frame"))
    return section.table(["run", "stage", "ms a frame"], rows, folded=True)


def kernel_section(r):
    section = Section(
        "Kernels",
        f"Time per call at {r.side} x {r.side}, data where the kernel runs; medians. One thread: its processor time; otherwise by the "
        "clock. Beside it, on one thread, what OpenCV has for the purpose. Each row checks its own result.",
    )
    groups, rows = [], []
    for title, work, other in kernels + [(title, work, None) for title, work in per_run]:
        values = [(name, r.ms(work, device, r.side, "cpu_ms" if device == r.cpu(1) else "wall_ms")) for device, name in r.devices()]
        beside = r.ms(other, "baseline", r.side, "cpu_ms") if other else None
        groups.append((title, values + [("OpenCV", beside)]))
        for size in r.sizes:
            base, ours = (r.ms(other, "baseline", size, "cpu_ms") if other else None), r.ms(work, r.cpu(1), size, "cpu_ms")
            if ours:
                rows.append(
                    (
                        title,
                        size,
                        number(ours),
                        *(number(r.ms(work, device, size)) for device, _ in r.devices()),
                        number(base),
                        number(base / ours) if base else "-",
                    )
                )
    section.charts.append(charts.bars("Kernels", groups, "ms", log=True))
    return section.table(
        ["kernel", "side", "CPU ms, 1 thread", *(f"{name}: ms" for _, name in r.devices()), "OpenCV: CPU ms", "ratio"], rows, folded=True
    )


def cost_section(r):
    section = Section(
        "Cost and limits",
        f"What a call must move (every input and output once) and compute per pixel at {r.side} x {r.side}, and which share of the "
        "device's measured limits that is. Planes that stay in the caches can exceed 100 % of the copy.",
    )
    rows = []
    for title, work, _ in kernels:
        for device, name in [d for d in r.devices() if d[0] == r.cpu(1) or d[0] in r.gpus]:
            row = r.row(work, device, r.side)
            if row and "bytes" in row["counters"]:
                c, pixels = row["counters"], r.side * r.side
                percent = lambda key: f"{100 * r.share(row, key):.0f} %" if key in c else "-"
                rows.append(
                    (
                        title,
                        name,
                        number(c["bytes"] / pixels),
                        number(c["flops"] / pixels) if "flops" in c else "-",
                        number(r.share(row, "GB/s")),
                        percent("of_copy"),
                        percent("of_fma"),
                    )
                )
    return section.table(["kernel", "device", "bytes/px", "flops/px", "GB/s", "of copy bandwidth", "of multiply-add rate"], rows)


def size_section(r):
    section = Section(
        "Cost per pixel over size",
        f"Processor time of one thread per pixel (chain: per pixel and frame) over that at {r.side} x {r.side}. Flat is what it should be.",
    )
    works = [
        ("chain, 32 frames", "chain/throughput"),
        ("vesselness, default", "vesselness/default"),
        ("vesselness, Frangi", "vesselness/frangi"),
        ("diameters, filled", "diameters_of_a_frame/filled"),
        ("registration", "mask_registration/from_start"),
        ("subtraction", "log_subtract/small_rotation/stored"),
        ("temporal filter, moved", "temporal_filter/moved"),
        ("hysteresis", "hysteresis"),
        ("thinning", "thinning"),
    ]
    series = {}
    for name, work in works:
        points = []
        for size in r.sizes:
            row = r.row(work, r.cpu(1), size)
            if row:
                points.append((size, 1e6 * row["cpu_ms"] / row["counters"].get("frames", 1) / size**2))
        series[name] = points
    relative = {name: [(x, y / dict(points)[r.side]) for x, y in points] for name, points in series.items() if r.side in dict(points)}
    section.charts.append(charts.lines("Cost per pixel over size", relative, "side, px", "x", marks=[(1, "")], height=220))
    rows = [
        (name, *(number(dict(points).get(size)) for size in r.sizes), number(max(y for _, y in points) / min(y for _, y in points)))
        for name, points in series.items()
        if points
    ]
    return section.table(["work", *(f"{size}: ns/px" for size in r.sizes), "largest / least"], rows, folded=True)


def scaling_section(r):
    section = Section(
        "Scaling over cores",
        "Speed over that of one thread. Throughput: frames over cores; latency: one frame in flight, its tiles over cores.",
    )
    works = [
        ("throughput, 60 frames", "chain/throughput_60_frames"),
        ("throughput, topology in every frame", "chain/throughput_with_topology_in_every_frame"),
        ("latency mode", "chain/latency"),
        ("vesselness alone", "vesselness/default"),
    ]
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
    rows = [
        (row["work"], row["device"], row["size"], number(row["wall_ms"]), number(row["counters"].get("GB/s")))
        for row in r.rows
        if "transfer" in row["work"]
    ]
    return section.table(["what", "device", "side", "ms", "GB/s"], rows)


def stream_section(r):
    s = r.all["stream"]
    section = Section(
        "A live stream at 30 frames/s",
        f"{s['frames']} raw frames through a pipe into `cinelumen stream`, from a frame's arrival to its line of results; "
        f"{s['segments']} segments at the end, {s['dropped_for_display']} frames not shown, none left unmeasured. The first half is when "
        "mask and vessels are being found.",
    )
    section.charts.append(
        charts.lines(
            "Latency of each frame",
            {"latency": list(enumerate(s["latency_ms"], 1))},
            "frame",
            "ms",
            log_x=False,
            dots=False,
            marks=[(1000 / 30, "a frame's time, 33 ms")],
            height=220,
        )
    )
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
    series = lambda label: "ours" + label[len("CineLumen") :] if label.startswith("CineLumen") else label
    speed = Section(
        "Beside other programs, on the same files",
        f"Processor time per frame on one thread at {side} x {side}, logarithmic. A: registration and subtraction, making the mask "
        "included; B: Frangi at five scales; C: hysteresis, components, thinning; D: diameters (ours: re-snap and model fits with error "
        "bars; theirs: distance transform); E: all of it, topology in every frame. Rounds interleaved, medians.",
    )
    groups = [
        (
            f"{stage}  {words}",
            [(series(label), times[side, stage, label, 1]["cpu_ms"]) for label in labels if (side, stage, label, 1) in times],
        )
        for stage, words in peers["stages"].items()
    ]
    speed.charts.append(charts.bars("CPU time per frame", groups, "CPU ms a frame", log=True))
    chain = [
        (f"{label}", [(series(label), 1e3 / times[side, "E", label, t]["wall_ms"])])
        for label in labels
        for t in [max((t for t in (1, most) if (side, "E", label, t) in times), default=0)]
        if t
    ]
    chain.sort(key=lambda bar: -bar[1][0][1])
    speed.charts.append(
        f"<h3>Whole chain, frames/s, {most} thread{'s where the library has them' if most > 1 else ''}</h3>"
        + charts.bars("Whole chain", chain, "frames/s")
    )
    rows = [
        (
            t["side"],
            f"{t['stage']} {peers['stages'][t['stage']]}",
            t["peer"],
            t["threads"],
            number(t["cpu_ms"]),
            number(t["cpu_ms_least"]),
            number(t["wall_ms"]),
            number(1e3 / t["wall_ms"]),
            number(t["peak_mb"]),
        )
        for t in sorted(peers["times"], key=lambda t: (t["side"], t["stage"], t["threads"], t["cpu_ms"]))
    ]
    speed.table(
        ["side", "stage", "program", "threads", "CPU ms a frame", "least", "wall ms a frame", "frames/s", "peak MB"], rows, folded=True
    )
    right = Section(
        "How right they are",
        "Against the synthetic cine's truth. A: rms error of the shift. B: area under the ROC curve and best Dice over thresholds. E: "
        "bias and SD of the chain's diameters in px at true, isolated centreline points, and the share of them that was found (ours "
        "leaves out what it can't measure).",
    )
    return [speed, right.table(*accuracy_table(peers))]


def accuracy_table(peers):
    """Head and rows: one per side and program."""
    by = {}
    for entry in peers["accuracy"]:
        by.setdefault((entry["side"], entry["peer"]), {})[entry["stage"]] = entry
    columns = [
        ("A shift rms px", "A", "shift_rms_px", "{:.3f}"),
        ("B ROC area", "B", "roc_area", "{:.4f}"),
        ("B best Dice", "B", "best_dice", "{:.3f}"),
        ("E diameter bias px", "E", "bias_px", "{:+.2f}"),
        ("E SD px", "E", "sd_px", "{:.2f}"),
        ("E found", "E", "found", "{:.0%}"),
    ]
    head = ["side", "program", *(title for title, *_ in columns)]
    rows = []
    for (side, peer), entries in by.items():
        values = [entries.get(stage, {}).get(key) for _, stage, key, _ in columns]
        rows.append((side, peer, *("-" if v is None else form.format(v) for v, (*_, form) in zip(values, columns))))
    return head, rows


def all_rows_section(r):
    spread = lambda row: f"{number(row['wall_ms_spread'][0])} - {number(row['wall_ms_spread'][1])}"
    rows = [
        (row["work"], row["device"], row["size"] or "-", number(row["wall_ms"]), spread(row), number(row["cpu_ms"]), row["repetitions"])
        for row in r.rows
    ]
    return Section("Every row", "As cinelumen_bench names them.").table(
        ["work", "device", "size", "wall ms", "least - most", "CPU ms, all threads", "repetitions"], rows, folded=True
    )


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
    notes = Section(
        "Notes",
        "Times are medians over repetitions whose order is shuffled; on a machine that others use, too, trust ratios within this page "
        "before absolute times. CPU ms are of all threads together. Shares of limits are of limits measured in the same run. Printed by "
        "tools/bench.sh; results.json beside this page has every figure.",
    )
    made.append(notes)
    if r.rows:
        made.append(all_rows_section(r))
    return made


def main():
    with open(sys.argv[1]) as file:
        results = json.load(file)
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "page.css")) as file:
        style = file.read()
    r = Results(results)
    made, tiles, missing = sections(r), headline(r), results["missing"]
    m, s = results["machine"], results["software"]
    title = "CineLumen benchmark"
    lines = [
        f"{m['cpu']}, {m['cores']} cores" + "".join(f" · {gpu.split(',')[0]}" for gpu in m["gpus"]),
        f"version {s['version'].replace('cinelumen ', '')}, commit {s['commit']}, {results['made'][:16].replace('T', ' ')} UTC"
        + (", quick run: small images, few repetitions" if s["mode"] == "quick" else ""),
    ]
    body = [f"<header><div><h1>{title}</h1>" + "".join(f"<p>{escape(line)}</p>" for line in lines) + "</div></header><main>"]
    body.append(
        '<div class="tiles">' + "".join(f'<div class="tile"><b>{escape(a)}</b><span>{escape(b)}</span></div>' for a, b in tiles) + "</div>"
    )
    if missing:
        said = "".join(f"<li>{escape(x['what'])}: {escape(x['reason'])}</li>" for x in missing)
        body.append(f'<section class="missing"><h2>Not measured</h2><ul>{said}</ul></section>')
    body += [section.html() for section in made]
    with open(sys.argv[2], "w") as page:
        page.write(
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>{title}: {escape(m['cpu'])}</title><style>{style}</style></head><body>{''.join(body)}</main></body></html>\n"
        )
    parts = [f"# {title}", *lines, "\n".join(f"- **{a}**: {b}" for a, b in tiles)]
    if missing:
        parts.append("## Not measured\n\n" + "\n".join(f"- {x['what']}: {x['reason']}" for x in missing))
    with open(sys.argv[3], "w") as page:
        page.write("\n\n".join(part for part in parts + [section.markdown() for section in made] if part) + "\n")


if __name__ == "__main__":
    main()
