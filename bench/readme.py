"""readme.py RESULTS.json [PROFILE.md] README.md: puts the figures of tools/bench.sh and bench/profile.sh into README.md, each between its
marks `<!-- name -->` and `<!-- /name -->`. What was not measured stays as it is, and is said."""

import json
import re
import sys

from page import Results, accuracy_table, chains, kernels, per_run
from charts import number


def table(head, rows):
    line = lambda cells: "| " + " | ".join(str(cell) for cell in cells) + " |"
    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])


def machine(r):
    m, s = r.all["machine"], r.all["software"]
    gpus = "; ".join(m["gpus"]) or "no GPU"
    return (
        f"Machine: {m['cpu']}, {m['cores']} cores, {m['memory_gib']:.0f} GiB, {gpus}; {s['compiler']}, {s['build']}; commit "
        f"{s['commit']}. Noisy: compare within one run."
    )


def kernel_table(r):
    rows = []
    for title, work, other in kernels + [(title, work, None) for title, work in per_run]:
        ours = {size: r.ms(work, r.cpu(1), size, "cpu_ms") for size in r.sizes}
        if any(ours.values()):
            base = r.ms(other, "baseline", r.side, "cpu_ms") if other else None
            rows.append(
                (
                    title,
                    *(number(ours[size]) for size in r.sizes),
                    f"{other.split('/')[-1].replace('_', ' ')} {number(base)}" if base else "",
                )
            )
    return table(("kernel", *(f"{size}^2" for size in r.sizes), f"baseline, {r.side}^2"), rows) if rows else None


def cost_table(r):
    rows, pixels = [], r.side**2
    for title, work, _ in kernels:
        row = r.row(work, r.cpu(1), r.side)
        if row and "of_copy" in row["counters"]:
            c = row["counters"]
            rows.append(
                (
                    title,
                    number(c["bytes"] / pixels),
                    number(c["flops"] / pixels) if "flops" in c else "",
                    number(row["cpu_ms"]),
                    f"{100 * r.share(row, 'of_copy'):.0f} %",
                    f"{100 * r.share(row, 'of_fma'):.0f} %" if "of_fma" in c else "",
                )
            )
    return (
        table(("stage", "bytes/px", "flops/px", f"CPU ms, {r.side}^2", "of copy bandwidth", "of multiply-add rate"), rows) if rows else None
    )


def chain_table(r):
    names = [(r.cpu(t), "1 thread" if t == 1 else f"{t} threads") for t in r.threads] + [(gpu, gpu) for gpu in r.gpus]
    rows = [
        (f"{title}, {size}^2", *(number(r.counter(work, device, size, "frames/s")) for device, _ in names))
        for title, work in chains
        for size in r.sizes
        if any(r.row(work, device, size) for device, _ in names)
    ]
    return table(("run, frames/s", *(name for _, name in names)), rows) if rows else None


def stage_table(r):
    row = next(
        (row for work in ("chain/throughput_60_frames", "chain/throughput") if (row := r.row(work, r.cpu(r.threads[-1]), r.side))), None
    )
    if not row:
        return None
    parts = [(key.replace(" ms/frame", ""), ms) for key, ms in row["counters"].items() if key.endswith(" ms/frame") and ms > 0.02]
    return table(
        (f"stage, {r.side}^2", "ms of one thread a frame"),
        [(name.replace("thread", "all"), number(ms)) for name, ms in sorted(parts, key=lambda part: part[1])[::-1]],
    )


def stream_table(r):
    s = r.all.get("stream")
    if not s:
        return None
    rows = [
        (name, *(number(s[key][q]) for q in ("p50", "p95", "p99", "max")))
        for name, key in (("all frames", "whole"), ("second half", "second_half"))
    ]
    words = f"{s['frames']} frames, {s['segments']} segments; idle timer p99 {number(s['idle_timer_p99_ms'])} ms.\n\n"
    return words + table(("latency, ms", "p50", "p95", "p99", "most"), rows)


def peer_table(r):
    peers = r.all.get("peers")
    if not peers or not peers["times"]:
        return None
    side = max(t["side"] for t in peers["times"])
    ms = {(t["peer"], t["stage"]): t["cpu_ms"] for t in peers["times"] if t["side"] == side and t["threads"] == 1}
    most = max(t["threads"] for t in peers["times"])
    fps = {}
    for t in sorted((t for t in peers["times"] if t["side"] == side and t["stage"] == "E"), key=lambda t: t["threads"]):
        fps[t["peer"]] = f"{1e3 / t['wall_ms']:.1f}" + ("" if t["threads"] == most else " (1 thread)")
    labels = list(dict.fromkeys(t["peer"] for t in peers["times"]))
    rows = [
        (label, *(number(ms[label, stage]) if (label, stage) in ms else "" for stage in peers["stages"]), fps.get(label, ""))
        for label in labels
    ]
    return table(
        (f"CPU ms a frame, {side}^2, 1 thread", *(f"{k} {words}" for k, words in peers["stages"].items()), f"E frames/s, {most} threads"),
        rows,
    )


def main():
    with open(sys.argv[1]) as file:
        r = Results(json.load(file))
    peers = r.all.get("peers", {})
    made = {
        "machine": machine(r),
        "kernels": kernel_table(r),
        "cost": cost_table(r),
        "chain": chain_table(r),
        "stages": stage_table(r),
        "stream": stream_table(r),
        "peers": peer_table(r),
        "peers accuracy": table(*accuracy_table(peers)) if peers.get("accuracy") else None,
    }
    if len(sys.argv) > 3:
        with open(sys.argv[2]) as file:
            made["profile"] = file.read().strip()
    with open(sys.argv[-1]) as file:
        text = file.read()
    for name, content in made.items():
        marks = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
        if content is None or not marks.search(text):
            print(f"{name}: " + ("not measured" if content is None else "README has no marks for it"), file=sys.stderr)
            continue
        text = marks.sub(lambda m: m[1] + content + m[2], text)
    with open(sys.argv[-1], "w") as file:
        file.write(text)


if __name__ == "__main__":
    main()
