# SPDX-License-Identifier: Apache-2.0
"""The best of both, as one would build it in Python: SciPy's registration, labels and distances, scikit-image's Frangi and skeleton."""

from skimage import morphology

from peer import run_peer
from scikit_image_peer import ScikitImage
from scipy_peer import SciPy


class PythonMix(SciPy):
    vesselness = staticmethod(ScikitImage.vesselness)

    @staticmethod
    def segment(response, low, high, least_area):
        mask, _ = SciPy.segment(response, low, high, least_area)
        return mask, morphology.skeletonize(mask)


if __name__ == "__main__":
    run_peer("python-mix", PythonMix())
