"""bench_page.py [CINELUMEN_BENCH]: the page that tools/bench.sh writes, and the bounds of bench/profile_table.py, on small made-up figures
and on rows of the real program."""

import html.parser
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
program = None


def call(script, *arguments):
    return subprocess.run([sys.executable, os.path.join(root, "bench", script), *arguments], capture_output=True, text=True)


class Balance(html.parser.HTMLParser):
    """Fails on a tag that is closed by another's end."""

    empty = {"meta", "br", "rect", "line", "polyline", "circle"}

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        if tag not in self.empty:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.empty:
            assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1:]}>"
            self.open.pop()


def entry(name, wall, **more):
    return {
        "name": name + "/process_time/real_time",
        "run_type": "iteration",
        "iterations": 3,
        "real_time": wall,
        "cpu_time": wall * 1.1,
        "time_unit": "ms",
        **more,
    }


def made_up_rows():
    rows = []
    for size in (512, 1024):
        scale = size**2 / 1024**2
        for device, faster in (("cpu_1_thread", 1), ("cpu_2_threads", 1.9), ("cuda0", 50)):
            rows += [
                entry(f"vesselness/frangi/{device}/{size}", wall * scale / faster, bytes=8e6, flops=3e8, of_copy=0.4, of_fma=0.2)
                for wall in (9, 11, 10)
            ]
            rows.append(
                entry(
                    f"chain/throughput_60_frames/{device}/{size}",
                    2000 * scale / faster,
                    frames=60,
                    segments=9,
                    **{"frames/s": 30 * faster / scale, "diameters ms/frame": 8 * scale, "thread ms/frame": 30},
                )
            )
        rows.append(entry(f"vesselness/opencv_frangi/{size}", 60 * scale))
    rows.append({**entry("thinning/cpu_1_thread/512", 0), "error_occurred": True, "error_message": "the skeleton is not <Guo> & Hall's"})
    return rows


def peers():
    times = [
        {
            "side": 1024,
            "stage": stage,
            "peer": peer,
            "threads": 1,
            "rounds": 1,
            "cpu_ms": ms,
            "cpu_ms_least": ms,
            "wall_ms": ms,
            "wall_ms_least": ms,
            "peak_mb": 90,
        }
        for stage, ms in (("B", 20), ("E", 90))
        for peer in ("CineLumen", "OpenCV")
    ]
    return {
        "stages": {"B": "Frangi", "E": "whole chain"},
        "versions": {"OpenCV": "4.6"},
        "absent": {"ITK": "itk_peer was not built"},
        "times": times,
        "accuracy": [{"side": 1024, "stage": "B", "peer": "OpenCV", "roc_area": 0.96, "best_dice": 0.8}],
        "failed": [{"peer": "SciPy", "stage": "A", "side": 512, "reason": "exit 1"}],
    }


def stream():
    return "".join(
        json.dumps({"frame": i + 1, "latency_ms": 20 + i % 7, "segments": [{"id": 1}], "dropped_for_display": 0}) + "\n" for i in range(60)
    )


class Page(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name, text=None):
        path = os.path.join(self.folder.name, name)
        if text is not None:
            with open(path, "w") as file:
                file.write(text)
        return path

    def page(self, *arguments):
        collected = call(
            "collect.py", self.path("results.json"), "version=0.1", "commit=abc", "compiler=g++", "build=Release", "mode=full", *arguments
        )
        self.assertEqual(collected.returncode, 0, collected.stderr)
        made = call("page.py", self.path("results.json"), self.path("page.html"), self.path("page.md"))
        self.assertEqual(made.returncode, 0, made.stderr)
        with open(self.path("page.html")) as page, open(self.path("page.md")) as markdown, open(self.path("results.json")) as results:
            return page.read(), markdown.read(), json.load(results)

    def check(self, page, charts):
        balance = Balance()
        balance.feed(page)
        self.assertEqual(balance.open, [])
        self.assertGreaterEqual(balance.seen.count("svg"), charts)
        self.assertFalse("http" in page.replace("http://www.w3.org/2000/svg", ""), "not self-contained")
        self.assertIsNone(re.search(r"\bnan\b|\bNone\b", page), "a figure that is none")

    def test_all_that_was_measured_is_there(self):
        page, markdown, results = self.page(
            "benchmark=" + self.path("b", json.dumps({"benchmarks": made_up_rows()})),
            "peers=" + self.path("p", json.dumps(peers())),
            "stream=" + self.path("s", stream()),
            "stream_summary=" + self.path("t", "60 frames; idle timer p99 0.31 ms late"),
        )
        self.check(page, 8)
        row = next(r for r in results["benchmark"] if (r["work"], r["device"], r["size"]) == ("vesselness/frangi", "cpu_1_thread", 1024))
        self.assertEqual((row["wall_ms"], row["repetitions"]), (10, 3), "the median")
        self.assertEqual(results["stream"]["idle_timer_p99_ms"], 0.31)
        for words in ("CineLumen benchmark", "57.0 frames/s", "GPU 0", "OpenCV", "A live stream", "0.310", "ROC area", "Every row"):
            self.assertTrue(words in page, words)
        for words in ("| Vesselness, Frangi | 1024 | 11.0 | 10.0 | 5.26 | 0.200 | 66.0 | 6.00 |", "| 1024 | E whole chain | OpenCV | 1 |"):
            self.assertIn(words, markdown)

    def test_figures_find_their_place_in_a_text(self):
        self.page("benchmark=" + self.path("b", json.dumps({"benchmarks": made_up_rows()})), "peers=" + self.path("p", json.dumps(peers())))
        marked = "<!-- {0} -->\nold\n<!-- /{0} -->\n".format
        before = marked("chain") + "kept\n" + marked("stream") + marked("profile")
        text = self.path("text.md", before)
        done = call("readme.py", self.path("results.json"), self.path("profile.md", "counted\n"), text)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("stream: not measured", done.stderr)
        with open(text) as file:
            after = file.read()
        self.assertIn("| analyze, 60 frames, 1024^2 | 30.0 | 57.0 | 1,500 |", after)
        self.assertIn("<!-- profile -->\ncounted\n<!-- /profile -->", after)
        self.assertIn("kept\n<!-- stream -->\nold\n", after)

    def test_what_is_missing_is_said(self):
        page, markdown, results = self.page(
            "benchmark=" + self.path("b", json.dumps({"benchmarks": made_up_rows()})),
            "peers=" + self.path("p", json.dumps(peers())),
            "stream=" + self.path("none"),
        )
        self.check(page, 5)
        for words in (
            "thinning/cpu_1_thread/512: the skeleton is not &lt;Guo&gt; &amp; Hall's".replace("'", "&#x27;"),
            "peer ITK: itk_peer was not built",
            "peer SciPy, stage A, 512 px: exit 1",
            "stream: ",
        ):
            self.assertTrue(words in page, words)
        self.assertIn("- peer ITK: itk_peer was not built", markdown)
        page, markdown, results = self.page()
        self.check(page, 0)
        self.assertEqual({m["what"] for m in results["missing"]}, {"benchmark", "peers", "stream"})

    def test_rows_of_the_program(self):
        if not program:
            self.skipTest("no cinelumen_bench given")
        environment = dict(os.environ, CINELUMEN_BENCH_SIDES="128", CINELUMEN_BENCH_ITERATIONS="1")
        done = subprocess.run(
            [
                program,
                "--benchmark_filter=^(log_attenuation|hysteresis|thinning|vesselness)/(.*/)?(cpu_1_thread|opencv.*)/128",
                "--benchmark_out_format=json",
                "--benchmark_out=" + self.path("b"),
            ],
            env=environment,
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        _, _, results = self.page("benchmark=" + self.path("b"))
        works = {row["work"]: row for row in results["benchmark"]}
        for work in ("log_attenuation", "hysteresis", "thinning", "vesselness/frangi", "vesselness/default", "vesselness/opencv_frangi"):
            self.assertIn(work, works)
            self.assertGreater(works[work]["wall_ms"], 0)
            self.assertEqual(works[work]["size"], 128)
        self.assertEqual(works["log_attenuation"]["counters"]["bytes"], 6 * 128**2)


class Profile(unittest.TestCase):
    def table(self, unique, sectors, cycles, syncs):
        struct = "cinelumen::(anonymous namespace)::LookUp<2>"
        kernel = f"void cinelumen::detail::run_tile<16, 32, {struct} >({struct})"
        way = {"sectors": sectors, "unique_sector_bytes": unique, "unique_bytes": unique}
        count = lambda n: [
            {
                "type": "kernel",
                "kernel": kernel,
                "launches": n,
                "warp_instructions": 500 * n,
                "global_read": {k: v * n for k, v in way.items()},
                "global_write": {k: 0 for k in way},
                "shared": {"accesses": 100 * n, "cycles": cycles * n},
            },
            {"type": "estimate", "kernel": kernel, "dram_us": 0.4 * n, "l2_us": 0.1, "issue_us": 0.1, "shared_us": 0.1, "launch_us": 3},
            {"type": "host", "calls.cudaMalloc": 7},
            {"type": "host_in_profiler_range", "calls.cudaStreamSynchronize": syncs, "calls.cudaGraphLaunch": 4},
        ]
        said = {"benchmarks": [{"name": "log_attenuation/cuda0/64/iterations:2/process_time/real_time", "bytes": 64 * 64 * 8}]}
        with tempfile.TemporaryDirectory() as folder:

            def write(name, lines):
                with open(os.path.join(folder, name), "w") as file:
                    file.write("\n".join(json.dumps(line) for line in lines) + "\n")

            write("chain1.jsonl", count(4))
            write("chain1.json", [{"side": 64, "frames": 4}])
            for n in (1, 2):
                write(f"row_a.{n}.jsonl", count(n + 1))
                write(f"row_a.{n}.json", [said])
            return call("profile_table.py", folder)

    def test_within_bounds(self):
        done = self.table(unique=64 * 64 * 8, sectors=64 * 64 * 8 // 32, cycles=102, syncs=0)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("| 1 | `LookUp<2>` | 1.0 | 0.12 | 8.00 | 100.0 % | 1.00 | 2 % | 0.4 | dram |", done.stdout)
        self.assertIn("| `log_attenuation/64` | 1 | 0.12 | 8.0 | 8.0 | 1.00 | 1.00 | 2 % | 0.4 |", done.stdout)

    def test_beyond_them(self):
        for broken, words in (
            ({"sectors": 3000}, "sectors"),
            ({"cycles": 120}, "banks"),
            ({"syncs": 4}, "synchronising calls"),
            ({"unique": 64 * 64 * 90}, "B/px"),
        ):
            figures = {"unique": 64 * 64 * 8, "sectors": 64 * 64 * 8 // 32, "cycles": 100, "syncs": 0, **broken}
            done = self.table(**figures)
            self.assertEqual(done.returncode, 1, broken)
            self.assertIn("broken: ", done.stderr)
            self.assertIn(words, done.stderr)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        program = sys.argv.pop(1)
    unittest.main()
