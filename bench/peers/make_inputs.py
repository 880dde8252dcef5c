# SPDX-License-Identifier: Apache-2.0
"""make_inputs.py NAME.json ...: the inputs of stages B, C and D, the same for every peer: the subtraction made with the true motion,
textbook Frangi of it, thresholds at its best Dice (low 0.8, high 1.3 times that), mask and skeleton."""

import json
import sys

import numpy as np
from scipy import ndimage
from skimage.morphology import skeletonize

from peer import Cine
from scipy_peer import SciPy

border = 12
least_area = 30


def best_dice(response, truth):
    """Largest Dice over thresholds, and the threshold."""
    inner = np.s_[:, border:-border, border:-border]
    values, labels = response[inner].ravel(), truth[inner].ravel()
    order = np.argsort(values, kind="stable")[::-1]
    dice = 2 * np.cumsum(labels[order]) / (np.arange(1, len(order) + 1) + labels.sum())
    best = int(np.argmax(dice))
    return float(dice[best]), float(values[order[best]])


def main(path):
    cine = Cine(path, "A")
    motion = np.array(cine.header["motion_px_dxdy"])

    def logarithm(frame):
        return np.log(cine.raw[frame].astype(np.float64) + 1)

    def laid(image, dx, dy):
        return ndimage.shift(image, (dy, dx), order=3, mode="nearest")

    mask = sum(laid(logarithm(f), -motion[f][0], -motion[f][1]) for f in cine.mask_frames) / len(cine.mask_frames)
    subtracted = np.stack([laid(mask, *motion[f]) - logarithm(f) for f in cine.scored_frames]).astype("<f4")
    response = np.stack([SciPy.vesselness(cine, plane) for plane in subtracted]).astype("<f4")
    truth = cine.read(".truth_mask.u8", "u1") > 0
    dice, threshold = best_dice(response, truth)
    low, high = 0.8 * threshold, 1.3 * threshold
    masks = [SciPy.segment(plane, low, high, least_area)[0] for plane in response]
    subtracted.tofile(cine.base + ".ref_dsa.f32")
    response.tofile(cine.base + ".ref_vess.f32")
    np.stack(masks).astype("u1").tofile(cine.base + ".ref_mask.u8")
    np.stack([skeletonize(m) for m in masks]).astype("u1").tofile(cine.base + ".ref_skel.u8")
    with open(cine.base + ".thresholds.json", "w") as file:
        json.dump({"low": low, "high": high, "best_dice": dice}, file)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        main(argument)
