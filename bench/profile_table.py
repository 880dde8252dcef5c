"""profile_table.py FOLDER: what the PTX machine counted (files of bench/profile.sh) as Markdown. Exit 1 where a bound below is broken."""

import collections
import glob
import json
import os
import re
import sys

# Bounds, for kernels that move more than `share_that_counts` of the chain's bytes, for rows by themselves, and for a frame.
share_that_counts = 0.01
most_sectors_over_unique = 1.6  # 32-byte sectors requested over those that are different
most_bank_conflicts = 0.05  # of the cycles of shared memory
most_bytes_over_minimum = 1.2  # different bytes over each input and output once
most_bytes_per_px = 80.0  # of a frame's way through the chain
most_floor_ms = 0.15  # of a 1024 x 1024 frame on an H100, launches apart
most_calls = {
    "synchronising calls": 0,
    "allocations and frees": 0,
    "pageable copies": 0,
    "graph launches": 1,
    "kernel launches outside a graph": 0,
}

# What may exceed a bound, up to what, and why. A name is that of a kernel, or of a row of cinelumen_bench; the first that matches counts.
exceptions = {
    "sectors": [
        (
            r"NormalEquations<1>",
            2.1,
            "the last block reads single pixels, one in hundreds, for the residual's scale: a sector for each row of four coefficients",
        ),
        (
            r"StoredSource|OntoMask",
            8,
            "looks stored values up in a table, which neighbours find anywhere; from planes of attenuation the same code asks 1.1 to 1.2 times"
            " (`log_subtract/shift`, `Smooth<2, PlaneSource>`)",
        ),
        (r"LumenFitKernel", 12, "gathers profiles across vessels in any direction"),
        (r"SearchRidges|LocatePeaks", 25, "gathers along and across centrelines"),
        (r"FindPaths", 8, "goes along a line row by row, of 25 to 51 samples each: a block has few numbers to read at a time"),
        (
            r"ChooseStarts|JudgePoints",
            7,
            "a thread reads the record of a point, of 60 bytes and more, number by number: its neighbour's lies a record further",
        ),
    ],
    "banks": [
        (r"LumenFitKernel", 0.2, "the normal equations of a profile are indexed by parameter"),
        (r"FindPaths", 0.3, "the way back along a line is one thread's, and what it reads depends on what it read before"),
    ],
    "bytes": [
        (r"mask_registration", 10, "the minimum counts the frame once; its pyramid and every iteration come on top"),
        (r"vesselness", 3.5, "planes of coarse scales are kept between launches"),
        (
            r"log_subtract/rotation/stored_onto_mask",
            2.6,
            "a large rotation resamples the frame by splines: its coefficients are a plane of their own",
        ),
        (r"hysteresis|thinning", 2, "the minimum counts image and mask; runs of pixels and their unions come on top"),
    ],
}


def exception(bound, name):
    """(bound, reason) where there is one."""
    return next(((most, reason) for pattern, most, reason in exceptions.get(bound, []) if re.search(pattern, name)), (0, ""))


class Kernel:
    """Sums over launches."""

    def __init__(self):
        self.launches = self.instructions = self.sectors = self.unique = self.accesses = self.cycles = self.bytes = 0
        self.limits_us, self.launch_us = collections.Counter(), 0.0

    def add(self, entry, sign=1):
        self.launches += sign * entry["launches"]
        self.instructions += sign * entry["warp_instructions"]
        for way in ("global_read", "global_write"):
            self.sectors += sign * entry[way]["sectors"]
            self.unique += sign * entry[way]["unique_sector_bytes"] / 32
            self.bytes += sign * entry[way]["unique_bytes"]
        self.accesses += sign * entry.get("shared", {}).get("accesses", 0)
        self.cycles += sign * entry.get("shared", {}).get("cycles", 0)

    def estimate(self, entry, sign=1):
        for limit in ("dram", "l2", "issue", "shared"):
            self.limits_us[limit] += sign * entry[limit + "_us"]
        self.launch_us += sign * entry["launch_us"]

    @property
    def requested(self):
        return self.sectors / self.unique if self.unique > 0 else 0

    @property
    def conflicts(self):
        return 1 - self.accesses / self.cycles if self.cycles > 0 else 0

    @property
    def floor_us(self):
        return max(self.limits_us.values(), default=0)


def short(name):
    """The kernel struct's own name."""
    name = re.sub(r"\(anonymous namespace\)::|cinelumen::|detail::|^void ", "", name)
    name = re.sub(r"^(run_tile<\d+, \d+, |run_items<)", "", name)
    if name.startswith(("thrust", "cub")):
        found = re.findall(r"(Device\w+Kernel|\w+_kernel|\w+Agent)", name)
        return "thrust " + (found[0] if found else name[:30])
    depth = 0
    for i, c in enumerate(name):
        depth += c == "<"
        depth -= c == ">"
        if depth < 0 or (c == "(" and depth == 0):
            return name[:i].strip()
    return name


def read(path, kernels, sign=1):
    """Adds a profile's kernels; returns what the host did within the profiler's range, and altogether."""
    hosts = {}
    with open(path) as file:
        for line in file:
            entry = json.loads(line)
            if entry["type"] == "kernel":
                kernels[short(entry["kernel"])].add(entry, sign)
            elif entry["type"] == "estimate":
                kernels[short(entry["kernel"])].estimate(entry, sign)
            else:
                hosts[entry["type"]] = entry
    return hosts.get("host_in_profiler_range", {}), hosts.get("host", {})


def host_calls(host, frames):
    calls = {key[6:]: value for key, value in host.items() if key.startswith("calls.")}
    total = lambda pattern: sum(value for name, value in calls.items() if re.fullmatch(pattern, name)) / frames
    pageable = sum(value for key, value in host.items() if re.fullmatch(r"copy\..*pageable\.count", key)) / frames
    return {
        "synchronising calls": total(r"cuda(Stream|Device)Synchronize|cudaMemcpy(2D)?"),
        "waits for an event": total("cudaEventSynchronize"),
        "allocations and frees": total(r"cuda(Malloc|Free)\w*"),
        "pageable copies": pageable,
        "graph launches": total("cudaGraphLaunch"),
        "kernel launches outside a graph": total("cudaLaunchKernel\\w*"),
    }


def table(head, rows):
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print()


class Report:
    def __init__(self):
        self.broken, self.excused = [], {}

    def check(self, bound, name, value, most, words):
        """`value`, marked where it is beyond the bound."""
        if value <= most + 1e-9:
            return words
        allowed, reason = exception(bound, name)
        if value <= allowed:
            self.excused[name, bound] = reason
            return words + " (*)"
        most = max(most, allowed)
        self.broken.append(f"{name}: {words} {bound}, at most {most:g}")
        return f"**{words}**"


def frames_seen(kernels, asked):
    """Several frames are in flight when the profiler is turned on: those that it saw are as many as went through what all of them do."""
    return max((k.launches for name, k in kernels.items() if name.startswith(("FilterFrame", "Smooth<2, StoredSource>"))), default=0) or asked


def chain_tables(folder, report):
    chain = []
    for path in sorted(glob.glob(os.path.join(folder, "chain*.jsonl"))):
        with open(path[:-1]) as file:
            said = json.loads(file.read().strip().splitlines()[-1])
        kernels = collections.defaultdict(Kernel)
        host, _ = read(path, kernels)
        chain.append((said["side"], kernels, host, frames_seen(kernels, said["frames"])))
    if not chain:
        return report.broken.append("the chain was not profiled")
    side = chain[0][0]
    everything = sum(k.unique / frames for _, kernels, _, frames in chain for k in kernels.values())
    print(
        f"### The chain, a frame of {side} x {side} in the steady state\n\nCounted under a PTX machine; times are the floor of a simple "
        "model of an H100, not measurements. Pass 1 registers, subtracts and gathers; pass 2 finds the vessels again and measures them. "
        "B/px: different 32-byte sectors per launch, summed.\n"
    )
    rows, total = [], collections.Counter()
    for number, (_, kernels, _, frames) in enumerate(chain, 1):
        pixels = side * side * frames
        for name, k in sorted(kernels.items(), key=lambda item: -item[1].unique):
            if k.launches == 0:
                continue
            share = k.unique / frames / everything
            counts = share > share_that_counts
            total["bytes"] += 32 * k.unique / pixels
            total["floor"] += k.floor_us / frames
            total["launch"] += k.launch_us / frames
            total["launches"] += k.launches / frames
            total["instructions"] += k.instructions / pixels
            if counts or k.floor_us / frames > 1:
                sectors, banks = f"{k.requested:.2f}", f"{100 * k.conflicts:.0f} %"
                rows.append(
                    (
                        number,
                        f"`{name}`",
                        f"{k.launches / frames:.1f}",
                        f"{k.instructions / pixels:.2f}",
                        f"{32 * k.unique / pixels:.2f}",
                        f"{100 * share:.1f} %",
                        report.check("sectors", name, k.requested, most_sectors_over_unique, sectors) if counts else sectors,
                        report.check("banks", name, k.conflicts, most_bank_conflicts, banks) if counts else banks,
                        f"{k.floor_us / frames:.1f}",
                        max(k.limits_us, key=k.limits_us.get),
                    )
                )
    table(
        (
            "pass",
            "kernel",
            "launches",
            "warp instr./px",
            "B/px",
            "of all bytes",
            "sectors / different",
            "bank conflicts",
            "floor us",
            "set by",
        ),
        rows,
    )
    floor_ms = 1e-3 * total["floor"] * 1024**2 / side**2
    summary = [
        (
            "different bytes, B/px",
            report.check("B/px", "the chain", total["bytes"], most_bytes_per_px, f"{total['bytes']:.1f}"),
            f"<= {most_bytes_per_px:g}",
        ),
        ("warp instructions per px", f"{total['instructions']:.1f}", ""),
        (
            "model floor for 1024 x 1024, kernels one after another, launches apart, ms",
            report.check("ms", "the chain", floor_ms, most_floor_ms, f"{floor_ms:.3f}"),
            f"<= {most_floor_ms:g}",
        ),
        ("kernels", f"{total['launches']:.0f}", ""),
        ("the model's cost of as many single launches, ms", f"{1e-3 * total['launch']:.3f}", ""),
    ]
    calls = collections.Counter()
    for _, _, host, frames in chain:
        calls.update(host_calls(host, frames))
    for name, value in {**dict.fromkeys(most_calls, 0), **calls}.items():
        most = most_calls.get(name)
        words = f"{value:.1f}"
        most = most * len(chain) if most is not None else None
        summary.append(
            (
                name + " a frame, both passes",
                words if most is None else report.check(name, "the chain", value, most, words),
                "" if most is None else f"<= {most:g}",
            )
        )
    table(("a frame", "counted", "bound"), summary)


def row_tables(folder, report):
    rows = []
    for path in sorted(glob.glob(os.path.join(folder, "row_*.2.jsonl"))):
        with open(path[:-1]) as file:
            text = file.read()
        said = json.loads(text)["benchmarks"][0] if text.strip() else {"error_message": "no result", "name": os.path.basename(path)}
        name = re.sub(r"/(cuda0|process_time|real_time|iterations:\d+)", "", said["name"])
        if said.get("error_message"):
            report.broken.append(f"{name}: {said['error_message']}")
            continue
        kernels = collections.defaultdict(Kernel)
        read(path, kernels)
        read(path.replace(".2.jsonl", ".1.jsonl"), kernels, -1)
        work = [k for k in kernels.values() if k.launches > 0]
        if not work:
            continue
        size = int(name.split("/")[-1])
        pixels = size * size if size >= 64 else None
        add = lambda of: sum(of(k) for k in work)
        unique, cycles = add(lambda k: k.unique), add(lambda k: k.cycles)
        requested, conflicts = add(lambda k: k.sectors) / max(unique, 1), 1 - add(lambda k: k.accesses) / cycles if cycles else 0
        over = add(lambda k: k.bytes) / said["bytes"] if "bytes" in said else None
        rows.append(
            (
                f"`{name}`",
                add(lambda k: k.launches),
                f"{add(lambda k: k.instructions) / pixels:.2f}" if pixels else "-",
                f"{32 * unique / pixels:.1f}" if pixels else "-",
                f"{said['bytes'] / pixels:.1f}" if pixels and over else "-",
                "-" if over is None else report.check("bytes", name, over, most_bytes_over_minimum, f"{over:.2f}"),
                f"{requested:.2f}",
                f"{100 * conflicts:.0f} %",
                f"{add(lambda k: k.floor_us):.1f}",
            )
        )
    print(
        "### Kernels by themselves\n\nOne call each; minimum: every input and output once. The size is the last figure of the name "
        "(side in px; radius of `lumen_fit`).\n"
    )
    table(
        (
            "row",
            "launches",
            "warp instr./px",
            "B/px",
            "minimum B/px",
            "different bytes / minimum",
            "sectors / different",
            "bank conflicts",
            "floor us",
        ),
        rows,
    )
    if not rows:
        report.broken.append("no kernel was profiled by itself")


def main():
    report = Report()
    chain_tables(sys.argv[1], report)
    row_tables(sys.argv[1], report)
    by_reason = collections.defaultdict(list)
    for (name, bound), reason in report.excused.items():
        by_reason[bound, reason].append(f"`{name}`")
    for (bound, reason), names in by_reason.items():
        print(f"(*) {bound}: {', '.join(names)}: {reason}.")
    if report.broken:
        print("\nBeyond their bounds:\n" + "\n".join(f"- {line}" for line in report.broken))
        for line in report.broken:
            print("broken: " + line, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
