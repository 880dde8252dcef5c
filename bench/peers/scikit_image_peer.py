# SPDX-License-Identifier: Apache-2.0
"""scikit-image, called as a user would call it. One thread."""

import numpy as np
from skimage import filters, measure, morphology, registration, transform

from peer import run_peer


class ScikitImage:
    @staticmethod
    def shift(cine, fixed, moving):
        """(dx, dy): moving(x) = fixed(x - shift)."""
        spectra = [(image - image.mean()) * cine.window for image in (fixed, moving)]
        dy, dx = registration.phase_cross_correlation(*spectra, upsample_factor=10, return_error=False)
        return -dx, -dy

    @staticmethod
    def moved(image, by):
        back = transform.AffineTransform(translation=(-by[0], -by[1]))
        return transform.warp(image, back, order=1, mode="edge", preserve_range=True).astype(np.float32, copy=False)

    def make_mask(self, cine):
        first = cine.logarithm(cine.mask_frames[0])
        total = first.copy()
        for frame in cine.mask_frames[1:]:
            image = cine.logarithm(frame)
            dx, dy = self.shift(cine, first, image)
            total += self.moved(image, (-dx, -dy))
        return total / len(cine.mask_frames)

    def subtract(self, cine, mask, frame):
        image = cine.logarithm(frame)
        by = self.shift(cine, mask, image)
        return self.moved(mask, by) - image, by

    @staticmethod
    def vesselness(cine, plane):
        return filters.frangi(plane, sigmas=cine.sigmas, beta=cine.frangi_beta, gamma=cine.frangi_c, black_ridges=False)

    @staticmethod
    def segment(response, low, high, least_area):
        labels = measure.label(filters.apply_hysteresis_threshold(response, low, high), connectivity=2)
        mask = morphology.remove_small_objects(labels, least_area, connectivity=2) > 0
        return mask, morphology.skeletonize(mask)

    @staticmethod
    def diameters(mask, skeleton):
        _, distance = morphology.medial_axis(mask, return_distance=True)
        y, x = np.nonzero(skeleton)
        return np.c_[x, y, 2 * distance[y, x] - 1]


if __name__ == "__main__":
    run_peer("scikit-image", ScikitImage())
