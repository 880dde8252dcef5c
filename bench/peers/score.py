# SPDX-License-Identifier: Apache-2.0
"""How right the peers are, against the cine's truth: what they wrote with --dump."""

import os

import numpy as np
from scipy.spatial import cKDTree

from peer import Cine

border = 12


def area_and_dice(response, truth):
    """ROC area (ties counted half), best Dice over thresholds, and its threshold."""
    inner = np.s_[:, border:-border, border:-border]
    values, labels = response[inner].ravel(), truth[inner].ravel()
    order = np.argsort(values, kind="stable")
    values, labels = values[order], labels[order]
    first = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    last = np.r_[first[1:], len(values)]
    ranks = np.repeat((first + last + 1) / 2, last - first)
    positives = labels.sum()
    area = (ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * (len(labels) - positives))
    dice = 2 * np.cumsum(labels[::-1]) / (np.arange(1, len(labels) + 1) + positives)
    best = int(np.argmax(dice))
    return float(area), float(dice[best]), float(values[::-1][best])


def dice(mask, truth):
    inner = np.s_[:, border:-border, border:-border]
    return float(2 * (mask[inner] & truth[inner]).sum() / (mask[inner].sum() + truth[inner].sum()))


def diameter_errors(cine, read):
    """Of every true centreline point that is filled and has no other vessel near: found or not, and the error of the diameter found
    nearest, within two pixels or the radius."""
    points = np.loadtxt(cine.base + ".centreline.csv", delimiter=",", skiprows=1)
    motion = np.array(cine.header["motion_px_dxdy"])
    errors, total = [], 0
    for i, frame in enumerate(cine.scored_frames):
        clear = points[(points[:, 5] > 0) & (points[:, 3] < frame - 2)][::2]
        at = clear[:, :2] + motion[frame]
        inside = ((at > border) & (at < np.array([cine.width, cine.height]) - 1 - border)).all(axis=1)
        clear, at = clear[inside], at[inside]
        total += len(clear)
        found = read(i).reshape(-1, 3)
        if not len(found):
            continue
        distance, nearest = cKDTree(found[:, :2]).query(at)
        near = distance <= np.maximum(2, clear[:, 2] / 2)
        errors.append(found[nearest[near], 2] - clear[near, 2])
    errors = np.concatenate(errors) if errors else np.zeros(0)
    if not len(errors):
        return {"found": 0.0}
    return {"found": len(errors) / total, "bias_px": float(errors.mean()), "sd_px": float(errors.std())}


def shift_error(cine, prefix):
    shifts = np.fromfile(prefix + ".shift.f32", "<f4").reshape(-1, 2)
    motion = np.array(cine.header["motion_px_dxdy"])
    reference = cine.mask_frames[0]
    if os.path.exists(prefix + ".reference.i32"):
        reference = int(np.fromfile(prefix + ".reference.i32", "<i4")[0])
    missed = shifts - (motion[list(cine.live_frames())] - motion[reference])
    return {"shift_rms_px": float(np.sqrt((missed**2).sum(axis=1).mean()))}


def score(cine_path, prefix):
    """All that can be said of the files PREFIX.*."""
    cine = Cine(cine_path, "-")
    truth = cine.read(".truth_mask.u8", "u1") > 0
    shape = (-1, cine.height, cine.width)
    result = {}
    if os.path.exists(prefix + ".shift.f32"):
        result.update(shift_error(cine, prefix))
    if os.path.exists(prefix + ".vess.f32"):
        area, best, threshold = area_and_dice(np.fromfile(prefix + ".vess.f32", "<f4").reshape(shape), truth)
        result.update(roc_area=area, best_dice=best, threshold=threshold)
    if os.path.exists(prefix + ".mask.u8"):
        result["dice"] = dice(np.fromfile(prefix + ".mask.u8", "u1").reshape(shape) > 0, truth)
    if os.path.exists(prefix + ".diam0.f32"):
        result.update(diameter_errors(cine, lambda i: np.fromfile(f"{prefix}.diam{i}.f32", "<f4")))
    return result
