# SPDX-License-Identifier: Apache-2.0
"""What the peers in Python share: the cine and its stage inputs, the command line, timing. The same options and output as peer.h."""

import argparse
import json
import resource
import time

import numpy as np


class Cine:
    """NAME.json with NAME.raw and what the stage needs of the common inputs; see README.md."""

    def __init__(self, path, stage):
        self.header = json.load(open(path))
        self.base = path.rsplit(".", 1)[0]
        self.width, self.height, self.frames = (self.header[k] for k in ("width", "height", "frames"))
        self.sigmas, self.frangi_beta, self.frangi_c = (self.header[k] for k in ("sigmas", "frangi_beta", "frangi_c"))
        self.mask_frames, self.scored_frames = self.header["mask_frames"], self.header["eval_frames"]
        hann = np.outer(np.hanning(self.height), np.hanning(self.width))
        self.window = hann.astype(np.float32)
        if stage in "AE":
            self.raw = self.read(".raw", "<u2")
        if stage == "B":
            self.subtracted = self.read(".ref_dsa.f32", "<f4")
        if stage == "C":
            self.response = self.read(".ref_vess.f32", "<f4")
        if stage == "D":
            self.mask = self.read(".ref_mask.u8", "u1") > 0
            self.skeleton = self.read(".ref_skel.u8", "u1") > 0

    def read(self, suffix, kind):
        return np.fromfile(self.base + suffix, kind).reshape(-1, self.height, self.width)

    def logarithm(self, frame):
        return np.log(self.raw[frame].astype(np.float32) + 1)

    def live_frames(self):
        return range(self.mask_frames[-1] + 1, self.frames)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cine", required=True)
    parser.add_argument("--stage", required=True, choices="ABCDE")
    parser.add_argument("--variant", default="")
    parser.add_argument("--dump", default="")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--most-frames", type=int, default=1 << 30)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--low", type=float, default=0)
    parser.add_argument("--high", type=float, default=0)
    parser.add_argument("--least-area", type=int, default=30)
    return parser.parse_args()


def memory(key):
    for line in open("/proc/self/status"):
        if line.startswith(key):
            return int(line.split()[1])
    return 0


def processor_seconds():
    use = resource.getrusage(resource.RUSAGE_SELF)
    return use.ru_utime + use.ru_stime


def time_stage(name, options, batches, frames, warm_up, batch):
    """Runs batch(0), batch(1) ... for options.seconds at least; prints a line of JSON with seconds per frame."""
    loaded = memory("VmRSS:")
    if warm_up:
        batch(0)
    done, processor, start, passed = 0, processor_seconds(), time.monotonic(), 0
    while done == 0 or (passed < options.seconds and done * frames < options.most_frames):
        batch(done % batches)
        done += 1
        passed = time.monotonic() - start
    count = done * frames
    print(
        json.dumps(
            {
                "peer": name,
                "stage": options.stage,
                "threads": options.threads,
                "frames": count,
                "cpu_s": (processor_seconds() - processor) / count,
                "wall_s": passed / count,
                "peak_kb": memory("VmHWM:"),
                "load_kb": loaded,
            }
        )
    )


def run_peer(name, peer):
    """`peer`: make_mask(cine) -> mask, subtract(cine, mask, frame) -> (plane, (dx, dy)), vesselness(cine, plane) -> response,
    segment(response, low, high, least_area) -> (mask, skeleton), diameters(mask, skeleton) -> rows of x, y, diameter."""
    options = arguments()
    cine = Cine(options.cine, options.stage)
    scored, live = len(cine.scored_frames), cine.live_frames()

    def segment(response):
        return peer.segment(response, options.low, options.high, options.least_area)

    def chain(mask, frame):
        found, skeleton = segment(peer.vesselness(cine, peer.subtract(cine, mask, frame)[0]))
        return found, peer.diameters(found, skeleton)

    def subtract_all(_):
        mask = peer.make_mask(cine)
        for frame in live:
            peer.subtract(cine, mask, frame)

    def whole_run(_):
        mask = peer.make_mask(cine)
        for frame in live[: options.most_frames]:
            chain(mask, frame)

    each = {
        "B": lambda i: peer.vesselness(cine, cine.subtracted[i]),
        "C": lambda i: segment(cine.response[i]),
        "D": lambda i: peer.diameters(cine.mask[i], cine.skeleton[i]),
    }
    if options.dump:
        dump(options, cine, peer, segment, chain)
    elif options.stage == "A":
        time_stage(name, options, 1, len(live), False, subtract_all)
    elif options.stage == "E":
        time_stage(name, options, 1, min(len(live), options.most_frames), False, whole_run)
    else:
        time_stage(name, options, scored, 1, True, each[options.stage])


def dump(options, cine, peer, segment, chain):
    def write(suffix, values, kind):
        np.asarray(values, kind).tofile(options.dump + suffix)

    if options.stage == "A":
        mask = peer.make_mask(cine)
        results = {frame: peer.subtract(cine, mask, frame) for frame in cine.live_frames()}
        write(".dsa.f32", [results[frame][0] for frame in cine.scored_frames], "<f4")
        write(".shift.f32", [shift for _, shift in results.values()], "<f4")
    elif options.stage == "B":
        write(".vess.f32", [peer.vesselness(cine, plane) for plane in cine.subtracted], "<f4")
    elif options.stage == "C":
        write(".mask.u8", [segment(response)[0] for response in cine.response], "u1")
    elif options.stage == "D":
        for i, (mask, skeleton) in enumerate(zip(cine.mask, cine.skeleton)):
            write(f".diam{i}.f32", peer.diameters(mask, skeleton), "<f4")
    else:
        mask = peer.make_mask(cine)
        masks = []
        for i, frame in enumerate(cine.scored_frames):
            found, diameters = chain(mask, frame)
            masks.append(found)
            write(f".diam{i}.f32", diameters, "<f4")
        write(".mask.u8", masks, "u1")
