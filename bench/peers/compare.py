# SPDX-License-Identifier: Apache-2.0
"""compare.py BIN_FOLDER DATA_FOLDER OUT.json [--rounds N] [--seconds S] [--sides 512,1024] [--no-accuracy]: times every peer that is here
on every stage, rounds interleaved (all peers of one stage and size one after another, the whole list again and again), scores what they
found, and writes both. What is absent or fails is in the file by name, with the reason."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", PYTHONWARNINGS="ignore", PYTHONDONTWRITEBYTECODE="1")
stages = {
    "A": "registration and subtraction",
    "B": "Frangi, five scales",
    "C": "hysteresis, components, thinning",
    "D": "diameters",
    "E": "whole chain",
}


class Peer:
    """A program, the stages it has, and in how many threads it is worth running."""

    def __init__(self, label, program, stages, threads=(1,), variant="", most_frames=None):
        self.label, self.program, self.stages, self.threads, self.variant, self.most_frames = (
            label,
            program,
            stages,
            threads,
            variant,
            most_frames,
        )

    def command(self, bin_folder):
        if self.program.endswith(".py"):
            return [sys.executable, os.path.join(here, self.program)]
        return [os.path.join(bin_folder, self.program)]


def all_peers(cores):
    both = (1,) if cores == 1 else (1, cores)
    return [
        Peer("CineLumen", "cinelumen_peer", "BCE", both),
        Peer("CineLumen", "cinelumen_peer", "AD"),  # stages of its chain, timed in one thread
        Peer("CineLumen, topology once per run", "cinelumen_peer", "E", both, variant="once_per_run"),
        Peer("OpenCV", "opencv_peer", "ABCDE", both),
        Peer("OpenCV, blur and differences", "opencv_peer", "BE", both, variant="blur"),
        Peer("ITK", "itk_peer", "ABCDE", both, most_frames=6),
        Peer("scikit-image", "scikit_image_peer.py", "ABCDE", most_frames=12),
        Peer("SciPy", "scipy_peer.py", "ABCD"),
        Peer("SciPy and scikit-image", "python_mix_peer.py", "E", most_frames=12),
        Peer("FFTW by hand", "fftw_peer", "A"),
    ]


def versions():
    """Of the libraries, as Debian has them."""
    packages = {
        "OpenCV": "libopencv-contrib-dev",
        "ITK": "libinsighttoolkit5-dev",
        "FFTW": "libfftw3-dev",
        "scikit-image": "python3-skimage",
        "SciPy": "python3-scipy",
    }
    found = {}
    for name, package in packages.items():
        query = subprocess.run(["dpkg-query", "-W", "-f=${Version}", package], capture_output=True, text=True)
        found[name] = query.stdout if query.returncode == 0 and query.stdout else "absent (" + package + ")"
    return found


def why_not(peer, bin_folder):
    """Empty where it can run."""
    command = peer.command(bin_folder)
    if not peer.program.endswith(".py"):
        return "" if os.access(command[0], os.X_OK) else peer.program + " was not built: its library is not here"
    tried = subprocess.run([*command, "--help"], env=environment, capture_output=True, text=True)
    return "" if tried.returncode == 0 else (tried.stderr.strip().splitlines() or ["does not start"])[-1]


class Comparison:
    def __init__(self, options):
        self.options = options
        self.peers = all_peers(os.cpu_count() or 1)
        self.absent = {peer.label: reason for peer in self.peers if (reason := why_not(peer, options.bin))}
        self.peers = [peer for peer in self.peers if peer.label not in self.absent]
        self.failed = []

    def cine(self, side):
        return os.path.join(self.options.data, f"cine{side}.json")

    def call(self, peer, side, stage, *more):
        command = [*peer.command(self.options.bin), "--cine", self.cine(side), "--stage", stage, *more]
        if peer.variant:
            command += ["--variant", peer.variant]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
            if done.returncode == 0:
                return done.stdout
            reason = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        except subprocess.TimeoutExpired:
            reason = "took more than 600 s"
        self.failed.append({"peer": peer.label, "stage": stage, "side": side, "reason": reason})
        print(f"failed: {peer.label}, stage {stage}, {side}: {reason}", file=sys.stderr)
        return None

    def thresholds(self, side, stage, peer, own):
        if stage == "E" and own.get((peer.label, side)):
            return ["--low", str(0.8 * own[peer.label, side]), "--high", str(1.3 * own[peer.label, side])]
        if stage in "CE":
            with open(self.cine(side).replace(".json", ".thresholds.json")) as file:
                common = json.load(file)
            return ["--low", str(common["low"]), "--high", str(common["high"])]
        return []

    def score(self, side, folder):
        """Accuracy of every peer and stage; each peer's own best threshold on its vesselness, which its whole chain then takes."""
        from score import score

        accuracy, own = [], {}
        source = {"SciPy and scikit-image": "scikit-image"}
        for stage in "ABCDE":
            for peer in self.peers:
                if stage not in peer.stages:
                    continue
                if stage == "E" and (peer.label in source):
                    own[peer.label, side] = own.get((source[peer.label], side))
                prefix = os.path.join(folder, f"{peer.label}.{stage}.{side}")
                if self.call(peer, side, stage, "--dump", prefix, *self.thresholds(side, stage, peer, own)) is None:
                    continue
                result = score(self.cine(side), prefix)
                if "threshold" in result:
                    own[peer.label, side] = result.pop("threshold")
                accuracy.append({"side": side, "stage": stage, "peer": peer.label, **result})
        return accuracy, own

    def time(self, sides, own):
        runs = {}
        for number in range(self.options.rounds):
            for side in sides:
                for stage in stages:
                    for peer in self.peers:
                        for threads in peer.threads if stage in peer.stages else ():
                            more = ["--threads", str(threads), "--seconds", str(self.options.seconds)]
                            if stage == "E" and peer.most_frames:
                                more += ["--most-frames", str(peer.most_frames)]
                            said = self.call(peer, side, stage, *more, *self.thresholds(side, stage, peer, own))
                            if said:
                                runs.setdefault((side, stage, peer.label, threads), []).append(json.loads(said.strip().splitlines()[-1]))
            print(f"round {number + 1} of {self.options.rounds} done", file=sys.stderr)
        return [
            {
                "side": side,
                "stage": stage,
                "peer": label,
                "threads": threads,
                "rounds": len(all_runs),
                "cpu_ms": 1e3 * statistics.median(run["cpu_s"] for run in all_runs),
                "cpu_ms_least": 1e3 * min(run["cpu_s"] for run in all_runs),
                "wall_ms": 1e3 * statistics.median(run["wall_s"] for run in all_runs),
                "wall_ms_least": 1e3 * min(run["wall_s"] for run in all_runs),
                "peak_mb": max(run["peak_kb"] for run in all_runs) / 1024,
            }
            for (side, stage, label, threads), all_runs in runs.items()
        ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin")
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.8)
    parser.add_argument("--sides", default="512,1024")
    parser.add_argument("--no-accuracy", action="store_true")
    options = parser.parse_args()
    sides = [int(side) for side in options.sides.split(",")]
    comparison = Comparison(options)
    accuracy, own = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for side in [] if options.no_accuracy else sides:
            scores, thresholds = comparison.score(side, folder)
            accuracy += scores
            own.update(thresholds)
    result = {
        "stages": stages,
        "versions": versions(),
        "absent": comparison.absent,
        "times": comparison.time(sides, own),
        "accuracy": accuracy,
        "failed": comparison.failed,
    }
    with open(options.out, "w") as file:
        json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
