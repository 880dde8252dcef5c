# SPDX-License-Identifier: Apache-2.0
"""SciPy and NumPy, float32: FFT phase correlation, textbook Frangi on derivatives of Gaussians, labels, exact distances. SciPy has no
thinning, so no whole chain. One thread."""

import numpy as np
import scipy.fft
from scipy import ndimage

from peer import run_peer


class SciPy:
    @staticmethod
    def spectrum(cine, image):
        return scipy.fft.rfft2((image - image.mean()) * cine.window)

    @staticmethod
    def parabola(left, middle, right):
        curve = left - 2 * middle + right
        return 0.5 * (left - right) / curve if curve else 0.0

    def shift(self, cine, fixed_spectrum, image):
        cross = self.spectrum(cine, image) * np.conj(fixed_spectrum)
        cross /= np.abs(cross) + 1e-20
        peaks = scipy.fft.irfft2(cross, s=image.shape)
        height, width = peaks.shape
        y, x = np.unravel_index(np.argmax(peaks), peaks.shape)
        dy = self.parabola(peaks[y - 1, x], peaks[y, x], peaks[(y + 1) % height, x])
        dx = self.parabola(peaks[y, x - 1], peaks[y, x], peaks[y, (x + 1) % width])
        return (x - width if x > width // 2 else x) + dx, (y - height if y > height // 2 else y) + dy

    @staticmethod
    def moved(image, by):
        return ndimage.shift(image, (by[1], by[0]), order=1, mode="nearest", prefilter=False)

    def make_mask(self, cine):
        first = cine.logarithm(cine.mask_frames[0])
        total, spectrum = first.copy(), self.spectrum(cine, first)
        for frame in cine.mask_frames[1:]:
            image = cine.logarithm(frame)
            dx, dy = self.shift(cine, spectrum, image)
            total += self.moved(image, (-dx, -dy))
        total /= len(cine.mask_frames)
        return total, self.spectrum(cine, total)

    def subtract(self, cine, mask, frame):
        image = cine.logarithm(frame)
        by = self.shift(cine, mask[1], image)
        return self.moved(mask[0], by) - image, by

    @staticmethod
    def vesselness(cine, plane):
        best = np.zeros(plane.shape, np.float32)
        over_beta, over_c = np.float32(0.5 / cine.frangi_beta**2), np.float32(0.5 / cine.frangi_c**2)
        for sigma in cine.sigmas:
            yy, xx, xy = (
                ndimage.gaussian_filter(plane, sigma, order=order, output=np.float32, mode="reflect") for order in ((2, 0), (0, 2), (1, 1))
            )
            square = np.float32(sigma * sigma)
            mean = 0.5 * (xx + yy) * square
            radius = np.sqrt((0.5 * (xx - yy)) ** 2 + xy * xy) * square
            low, high = mean - radius, mean + radius
            value = np.exp(-(high * high) / (low * low + np.float32(1e-20)) * over_beta)
            value *= 1 - np.exp(-(high * high + low * low) * over_c)
            value[mean >= 0] = 0
            np.maximum(best, value, out=best)
        return best

    @staticmethod
    def segment(response, low, high, least_area):
        labels, count = ndimage.label(response > low, structure=np.ones((3, 3)))
        keep = np.zeros(count + 1, bool)
        keep[np.unique(labels[response > high])] = True
        keep &= np.bincount(labels.ravel(), minlength=count + 1) >= least_area
        keep[0] = False
        return keep[labels], None

    @staticmethod
    def diameters(mask, skeleton):
        distance = ndimage.distance_transform_edt(mask)
        y, x = np.nonzero(skeleton)
        return np.c_[x, y, 2 * distance[y, x] - 1]


if __name__ == "__main__":
    run_peer("scipy", SciPy())
