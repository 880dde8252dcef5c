"""collect.py OUT.json NAME=FILE ...: one file of all that tools/bench.sh measured, with the machine and the versions it was measured on.
NAME is benchmark (Google Benchmark's JSON), peers (of compare.py), stream (the lines of `cinelumen stream`), stream_summary (its last
words), or one of the plain values commit, version, compiler, build, mode. A file that is not there is said in `missing`."""

import datetime
import json
import os
import re
import statistics
import subprocess
import sys


def first_line(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def of_file(path, pattern, default="unknown"):
    try:
        found = re.search(pattern, open(path).read(), re.MULTILINE)
    except OSError:
        return default
    return found.group(1).strip() if found else default


def machine():
    memory = of_file("/proc/meminfo", r"^MemTotal:\s*(\d+)", "0")
    gpus = first_line(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"])
    return {
        "cpu": of_file("/proc/cpuinfo", r"^model name\s*: (.*)$"),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 2**20, 1),
        "gpus": gpus.splitlines(),
        "kernel": os.uname().release,
        "system": of_file("/etc/os-release", r'^PRETTY_NAME="?([^"\n]*)'),
        "load_at_start": float(load) if (load := os.environ.get("LOAD_AT_START")) else None,
    }


def rows_of(report):
    """One entry per row: medians over repetitions, in ms; counters as they are."""
    grouped = {}
    for run in report["benchmarks"]:
        if run.get("run_type", "iteration") == "iteration":
            grouped.setdefault(run["name"], []).append(run)
    known = {
        "name",
        "run_name",
        "run_type",
        "family_index",
        "per_family_instance_index",
        "repetitions",
        "repetition_index",
        "threads",
        "iterations",
        "real_time",
        "cpu_time",
        "time_unit",
        "error_occurred",
        "error_message",
    }
    rows = []
    for name, runs in grouped.items():
        parts = name.replace("/process_time", "").replace("/real_time", "").split("/")
        sizes = [part for part in parts if part.isdigit()]
        words = [part for part in parts if not part.isdigit() and not part.startswith("iterations:")]
        row = {"name": "/".join(words), "size": int(sizes[0]) if sizes else None, "repetitions": len(runs)}
        device = [word for word in words if re.fullmatch(r"cpu_\d+_threads?|cuda\d+", word)]
        row["device"] = device[0] if device else "baseline"
        row["work"] = "/".join(word for word in words if word not in device)
        errors = [run["error_message"] for run in runs if run.get("error_occurred")]
        if errors:
            row["error"] = errors[0]
        else:
            row["wall_ms"] = statistics.median(run["real_time"] for run in runs)
            row["cpu_ms"] = statistics.median(run["cpu_time"] for run in runs)
            row["wall_ms_spread"] = [min(run["real_time"] for run in runs), max(run["real_time"] for run in runs)]
            row["counters"] = {key: statistics.median(run[key] for run in runs) for key in runs[0] if key not in known}
        rows.append(row)
    return rows


def stream_of(lines, summary):
    frames = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    latency = [frame["latency_ms"] for frame in frames]
    if not latency:
        raise ValueError("no frame came out of the stream")

    def quantiles(values):
        ordered = sorted(values)
        return {
            name: ordered[min(len(ordered) - 1, int(share * len(ordered)))]
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
        }

    idle = re.search(r"idle timer p99 ([\d.]+) ms", summary)
    return {
        "frames": len(frames),
        "latency_ms": latency,
        "whole": quantiles(latency),
        "second_half": quantiles(latency[len(latency) // 2 :]),
        "segments": len(frames[-1]["segments"]),
        "dropped_for_display": frames[-1]["dropped_for_display"],
        "idle_timer_p99_ms": float(idle.group(1)) if idle else None,
        "summary": summary.strip().splitlines(),
    }


def main():
    files = dict(argument.split("=", 1) for argument in sys.argv[2:])
    result = {
        "schema": "cinelumen.bench/1",
        "made": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "software": {key: files.pop(key, "unknown") for key in ("version", "commit", "compiler", "build", "mode")},
        "machine": machine(),
        "missing": [],
    }

    def take(name, parse, *others):
        try:
            result[name] = parse(*(open(files[key]).read() for key in (name, *others)))
        except KeyError:
            result["missing"].append({"what": name, "reason": "not asked for"})
        except (OSError, ValueError) as error:
            result["missing"].append(
                {"what": name, "reason": "nothing was written" if isinstance(error, FileNotFoundError) else str(error)}
            )

    take("benchmark", lambda text: rows_of(json.loads(text)))
    take("peers", json.loads)
    take("stream", stream_of, "stream_summary")
    for row in result.get("benchmark", []):
        if "error" in row:
            result["missing"].append({"what": f"{row['name']}/{row['size']}", "reason": row["error"]})
    for label, reason in result.get("peers", {}).get("absent", {}).items():
        result["missing"].append({"what": "peer " + label, "reason": reason})
    for failure in result.get("peers", {}).get("failed", []):
        result["missing"].append(
            {"what": f"peer {failure['peer']}, stage {failure['stage']}, {failure['side']} px", "reason": failure["reason"]}
        )
    with open(sys.argv[1], "w") as file:
        json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
