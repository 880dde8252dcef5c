# SPDX-License-Identifier: Apache-2.0
"""make_cine.py FOLDER [512] [1024]: synthetic XA cines with known truth, the same bytes every time; formats in README.md. Shares nothing
with CineLumen's own phantom: Murray-law trees of circular vessels with a filling front, on soft tissue, ribs and vertebrae; rigid motion;
Poisson and electronic noise, a fixed pattern, quantisation."""

import json
import os
import sys

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scipy import ndimage
from scipy.spatial import cKDTree

mask_frames = list(range(8))
first_arrival = 10  # frame in which contrast enters
photons = 2500.0  # at the brightest pixel
electronic_photons = 6.0
attenuation_per_px = 0.0225  # of full contrast, log units
supersampling = 2  # of the scene
margin = 16  # px around the frame in the scene, for motion
cines = {
    512: {"frames": 64, "bits": 10, "spacing_mm": 0.308, "seed": 20240501, "scored": [16, 20, 24, 32, 40, 48, 56, 62]},
    1024: {"frames": 32, "bits": 12, "spacing_mm": 0.154, "seed": 20240507, "scored": [16, 20, 24, 30]},
}


def grow_tree(rng, width, root, direction, radius, occupied, number, least_radius=1.0):
    """A bifurcating tree that obeys Murray's law and does not cross itself: branches with x, y, radius and path length per px."""
    branches = []
    waiting = [(np.array(root, float), direction, radius, 0.0, -1)]
    while waiting and len(branches) <= 160:
        waiting.sort(key=lambda branch: branch[2])
        position, angle, radius, path, parent = waiting.pop()  # widest first
        length = int((radius * rng.uniform(9, 14) + rng.uniform(28, 45)) * (width / 512) ** 0.75)
        bend = rng.normal(0, 0.012 * 512 / width)
        end_radius = radius * rng.uniform(0.86, 0.95)
        key = number * 10000 + len(branches) + 1
        points, radii, paths, stopped = [], [], [], False
        for step in range(length):
            here = radius + (end_radius - radius) * step / max(length - 1, 1)
            points.append(position.copy())
            radii.append(here)
            paths.append(path + step)
            bend = 0.96 * bend + rng.normal(0, 0.006 * (512 / width) ** 0.8)
            angle += bend
            heading = np.array([np.cos(angle), np.sin(angle)])
            position = position + heading
            if not ((-margin < position) & (position < width + margin)).all():
                stopped = True
                break
            x, y = (int(round(v)) + margin for v in position + heading * (here + 7))
            if 0 <= x < len(occupied) and 0 <= y < len(occupied) and step > 3 * radius + 8:
                other = occupied[y, x]
                if other and other // 10000 == number and other != key and other - 1 != number * 10000 + parent:
                    stopped = True
                    break
        branches.append(
            {"x": np.array([p[0] for p in points]), "y": np.array([p[1] for p in points]), "r": np.array(radii), "s": np.array(paths)}
        )
        for point, here in zip(points, radii):
            x, y, reach = int(round(point[0])) + margin, int(round(point[1])) + margin, int(np.ceil(here)) + 3
            occupied[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = key
        if stopped or len(points) < 8:
            continue
        ratio = rng.uniform(0.45, 0.9)
        larger = end_radius / (1 + ratio**3) ** (1 / 3)
        smaller = ratio * larger
        side = rng.choice([-1, 1])
        angles = angle - side * np.deg2rad(rng.uniform(8, 22)), angle + side * np.deg2rad(rng.uniform(38, 65))
        me = len(branches) - 1
        if larger >= least_radius:
            waiting.append((position.copy(), angles[0], larger, path + length, me))
        if 0.6 * least_radius < smaller < least_radius:
            smaller = least_radius
        if smaller >= least_radius and rng.uniform() > (0.25 if smaller < 2.5 else 0.0):
            waiting.append((position.copy(), angles[1], smaller, path + length, me))
    return branches


def scene_coordinates(first, last):
    """Pixel coordinates of supersamples first ... last - 1."""
    return (np.arange(first, last) + 0.5) / supersampling - 0.5 - margin


def render_tree(branches, width):
    """On the supersampled scene: chord through the vessel (px), signed distance to its edge, path length from the root."""
    size = (width + 2 * margin) * supersampling
    chord, distance, path = np.zeros((size, size), np.float32), np.full((size, size), 99, np.float32), np.zeros((size, size), np.float32)
    for branch in branches:
        fine = np.arange(0, len(branch["x"]) - 1 + 1e-6, 0.25)
        x, y, r, s = (np.interp(fine, np.arange(len(branch["x"])), branch[k]) for k in "xyrs")
        reach = r.max() + 3
        x0, x1, y0, y1 = (
            int(np.clip((v + margin) * supersampling, 0, size))
            for v in (x.min() - reach, x.max() + reach, y.min() - reach, y.max() + reach)
        )
        if x1 <= x0 or y1 <= y0:
            continue
        xx, yy = np.meshgrid(scene_coordinates(x0, x1), scene_coordinates(y0, y1))
        away, nearest = cKDTree(np.c_[x, y]).query(np.c_[xx.ravel(), yy.ravel()], distance_upper_bound=reach + 1)
        nearest = np.minimum(nearest, len(x) - 1).reshape(xx.shape)
        away = np.where(np.isfinite(away), away, 99).reshape(xx.shape)
        radius, part = r[nearest], np.s_[y0:y1, x0:x1]
        path[part] = np.where(away - radius < distance[part], s[nearest], path[part])
        distance[part] = np.minimum(distance[part], away - radius)
        chord[part] = np.maximum(chord[part], 2 * np.sqrt(np.maximum(radius * radius - away * away, 0)))
    return chord, distance, path


def background(rng, width):
    """Attenuation without contrast: tissue, diaphragm, ribs with cortex, vertebrae, texture, a catheter."""
    scale = width / 512
    c = scene_coordinates(0, (width + 2 * margin) * supersampling)
    x, y = (v.astype(np.float32) for v in np.meshgrid(c, c))
    total = np.full_like(x, 1.2)
    for _ in range(9):
        sigma = rng.uniform(70, 190) * scale
        height = rng.uniform(-0.35, 0.45)
        total += height * np.exp(-((x - rng.uniform(0, width)) ** 2 + (y - rng.uniform(0, width)) ** 2) / (2 * sigma * sigma))
    edge = 0.86 * width - 0.20 * width * np.exp(-(((x - 0.3 * width) / (0.35 * width)) ** 2))
    with np.errstate(over="ignore"):
        total += 0.55 / (1 + np.exp(-(y - edge) / 2.5))
    for i in range(7):
        start, sag, half = (-0.1 + 0.18 * i) * width, rng.uniform(0.12, 0.22) * width, rng.uniform(11, 15) * scale
        middle = start + sag * ((x / width - 0.35) ** 2) * 2.2 + 0.22 * (x - 0.2 * width)
        away = np.abs(y - middle) / np.sqrt(1 + 0.09)
        bone, marrow = (2 * np.sqrt(np.maximum(h * h - away * away, 0)) for h in (half, 0.78 * half))
        total += 0.010 / scale * (bone - 0.7 * marrow)
    spine = 0.72 * width + 0.02 * width * np.sin(y / width * 3)
    period = 0.17 * width
    phase = np.mod(y + 0.03 * width * np.sin(x / width * 9), period) / period
    with np.errstate(over="ignore"):
        column = 1 / (1 + np.exp((np.abs(x - spine) - 0.075 * width) / 1.5))
        body = 1 / (1 + np.exp((np.abs(phase - 0.5) - 0.42) * period / 1.5))
    total += column * (0.22 + 0.22 * body)
    spectrum = np.fft.rfft2(rng.standard_normal(x.shape).astype(np.float32))
    frequency = np.hypot(np.fft.fftfreq(x.shape[0])[:, None] * supersampling, np.fft.rfftfreq(x.shape[1])[None] * supersampling)
    texture = np.fft.irfft2(spectrum / (frequency + 0.01) ** 1.3 * np.exp(-((frequency / 0.25) ** 2)), s=x.shape)
    total += (0.03 * texture / texture.std()).astype(np.float32)
    catheter = np.abs(x - 0.5 * width - 0.06 * width * np.sin(y / width * 4))
    total += (y < 0.2 * width) * 0.12 * np.sqrt(np.maximum(2.5**2 - catheter * catheter, 0))
    return ndimage.gaussian_filter(total, 0.5 * supersampling)


def motion_of(frames):
    """(dx, dy) per frame: two slow swings and a jolt."""
    t = np.arange(frames)
    jolt = 1 / (1 + np.exp(-(t - 0.45 * frames) / 0.7))
    dx = 1.3 * np.sin(2 * np.pi * t / 37) + 0.9 * jolt
    dy = 0.9 * np.sin(2 * np.pi * t / 29 + 0.4) - 0.9 * np.sin(0.4) - 0.8 * jolt
    return np.c_[dx, dy]


def placed(scene, by, width, order=3):
    """The scene moved by (dx, dy) px: means over width x width pixels."""
    moved = ndimage.shift(scene, (by[1] * supersampling, by[0] * supersampling), order=order, mode="nearest", prefilter=order > 1)
    inner = moved[margin * supersampling :][: width * supersampling, margin * supersampling :][:, : width * supersampling]
    return inner.reshape(width, supersampling, width, supersampling).mean((1, 3))


def filling(frame, arrival):
    since = np.maximum(frame - arrival, 0)
    return (1 - np.exp(-since * since / (2 * 1.6**2))) * np.exp(-np.maximum(since - 26, 0) / 22)


def write_centrelines(path, trees, speed):
    """Truth: per centreline point x, y, diameter, arrival, branch, and whether no other vessel is within 2 px."""
    branches = [(10000 * i + k, branch) for i, tree in enumerate(trees) for k, branch in enumerate(tree)]
    x, y, r, s = (np.concatenate([branch[k] for _, branch in branches]) for k in "xyrs")
    owner = np.concatenate([np.full(len(branch["x"]), key) for key, branch in branches])
    from_end = np.concatenate([np.minimum(np.arange(len(b["x"])), np.arange(len(b["x"]))[::-1]) for _, b in branches])
    near = cKDTree(np.c_[x, y])
    isolated = np.ones(len(x), int)
    for i in range(len(x)):
        others = [j for j in near.query_ball_point([x[i], y[i]], r[i] + 16) if owner[j] != owner[i]]
        if from_end[i] < 3 or (others and (np.hypot(x[others] - x[i], y[others] - y[i]) - r[others] - r[i]).min() <= 2):
            isolated[i] = 0
    np.savetxt(
        path,
        np.c_[x, y, 2 * r, first_arrival + s / speed, owner, isolated],
        fmt="%.3f,%.3f,%.3f,%.3f,%d,%d",
        comments="",
        header="x_px,y_px,diameter_px,arrival_frame,branch,isolated",
    )


def write_dicom(path, frames, header):
    """The frames as multi-frame XA with a Mask Module."""
    root = "1.2.826.0.1.3680043.8.498."

    def uid(of):
        return generate_uid(prefix=root, entropy_srcs=[of, header["file"]])

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.12.1"
    meta.MediaStorageSOPInstanceUID = uid("inst")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = root + "1"
    data = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    data.is_little_endian, data.is_implicit_VR = True, False
    for name, value in {
        "SpecificCharacterSet": "ISO_IR 100",
        "ImageType": ["ORIGINAL", "PRIMARY", "SINGLE PLANE"],
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyDate": "20240101",
        "SeriesDate": "20240101",
        "ContentDate": "20240101",
        "AcquisitionDate": "20240101",
        "StudyTime": "120000",
        "ContentTime": "120000",
        "AccessionNumber": "",
        "Modality": "XA",
        "Manufacturer": "synthetic",
        "ReferringPhysicianName": "",
        "PatientName": "PHANTOM^SYNTHETIC",
        "PatientID": "PEERS",
        "PatientBirthDate": "",
        "PatientSex": "O",
        "StudyInstanceUID": uid("study"),
        "SeriesInstanceUID": uid("series"),
        "StudyID": "1",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "PatientOrientation": ["L", "F"],
        "KVP": "75",
        "RadiationSetting": "GR",
        "PositionerMotion": "STATIC",
        "PositionerPrimaryAngle": "0",
        "PositionerSecondaryAngle": "0",
        "DistanceSourceToDetector": "1100",
        "DistanceSourceToPatient": "780",
        "FieldOfViewShape": "RECTANGLE",
        "XRayTubeCurrent": "600",
        "ExposureTime": "7",
        "Exposure": "4",
        "Laterality": "",
        "ImagerPixelSpacing": header["imager_pixel_spacing_mm"],
        "CineRate": 15,
        "RecommendedDisplayFrameRate": 15,
        "FrameTime": "%.4f" % header["frame_time_ms"],
        "FrameIncrementPointer": pydicom.tag.Tag(0x0018, 0x1063),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "NumberOfFrames": header["frames"],
        "Rows": header["height"],
        "Columns": header["width"],
        "BitsAllocated": 16,
        "BitsStored": header["bits_stored"],
        "HighBit": header["bits_stored"] - 1,
        "PixelRepresentation": 0,
        "PixelIntensityRelationship": "LIN",
        "WindowCenter": 1 << (header["bits_stored"] - 1),
        "WindowWidth": 1 << header["bits_stored"],
        "RecommendedViewingMode": "SUB",
    }.items():
        setattr(data, name, value)
    mask = pydicom.Dataset()
    mask.MaskOperation = "AVG_SUB"
    mask.MaskFrameNumbers = [frame + 1 for frame in header["mask_frames"]]
    mask.ContrastFrameAveraging = 1
    mask.ApplicableFrameRange = [len(header["mask_frames"]) + 1, header["frames"]]
    data.MaskSubtractionSequence = pydicom.Sequence([mask])
    data.PixelData = frames.astype("<u2").tobytes()
    data["PixelData"].VR = "OW"
    data.save_as(path, write_like_original=False)


def make(folder, width):
    want = cines[width]
    rng = np.random.default_rng(want["seed"])
    occupied = np.zeros((width + 2 * margin,) * 2, np.int64)
    trees = [
        grow_tree(rng, width, (0.44 * width, 6), np.deg2rad(75), 10.0, occupied, 1),
        grow_tree(rng, width, (-6, 0.30 * width), np.deg2rad(20), 6.0, occupied, 2),
    ]
    if width > 600:
        trees.append(grow_tree(rng, width, (width + 6, 0.62 * width), np.deg2rad(190), 8.0, occupied, 3))
    rendered = [render_tree(tree, width) for tree in trees]
    speed = max(branch["s"].max() for tree in trees for branch in tree) / 9  # px a frame: all is full nine frames after arrival
    still, motion = background(rng, width), motion_of(want["frames"])
    open_field = photons / np.exp(-still.min())
    full = (1 << want["bits"]) - 1
    gain = 0.88 * full / photons
    pattern = 1 + 0.002 * rng.standard_normal((width, width))
    frames, truth = np.empty((want["frames"], width, width), np.uint16), []
    for frame in range(want["frames"]):
        vessels = sum(attenuation_per_px * chord * filling(frame, first_arrival + path / speed) for chord, _, path in rendered)
        vessels = ndimage.gaussian_filter(vessels, 0.5 * supersampling)
        expected = open_field * np.exp(-placed(still + vessels, motion[frame], width))
        counted = rng.poisson(expected) + rng.normal(0, electronic_photons, expected.shape)
        frames[frame] = np.clip(np.rint(counted * gain * pattern), 0, full).astype(np.uint16)
        if frame in want["scored"]:
            inside = np.zeros((width, width), bool)
            for _, distance, path in rendered:
                filled = filling(frame, first_arrival + path / speed).astype(np.float32)
                inside |= (placed(distance, motion[frame], width, 1) < 0) & (placed(filled, motion[frame], width, 1) > 0.35)
            truth.append(inside)
    base = os.path.join(folder, f"cine{width}")
    header = {
        "file": f"cine{width}.raw",
        "width": width,
        "height": width,
        "frames": want["frames"],
        "dtype": "<u2",
        "bits_stored": want["bits"],
        "frame_time_ms": 1000 / 15,
        "imager_pixel_spacing_mm": [want["spacing_mm"]] * 2,
        "mask_frames": mask_frames,
        "sigmas": [1, 2, 3, 4, 6],
        "frangi_beta": 0.5,
        "frangi_c": 0.03,
        "eval_frames": want["scored"],
        "motion_px_dxdy": np.round(motion, 4).tolist(),
    }
    frames.astype("<u2").tofile(base + ".raw")
    np.stack(truth).astype(np.uint8).tofile(base + ".truth_mask.u8")
    write_centrelines(base + ".centreline.csv", trees, speed)
    write_dicom(base + ".dcm", frames, header)
    with open(base + ".json", "w") as file:  # last: where it stands, the cine is whole
        json.dump(header, file, indent=1)


if __name__ == "__main__":
    os.makedirs(sys.argv[1], exist_ok=True)
    for side in [int(argument) for argument in sys.argv[2:]] or cines:
        make(sys.argv[1], side)
