"""What the watershed segmenter computes.

grey --blur--> threshold --> foreground, holes filled --distance to the ground--> maxima = one an object --watershed--> labels
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from segment_duo.errors import Cancelled
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.base import AutomaticRun, EmbedCrop, LoadRequest, OnProgress, Segmenter, never, no_progress
from segment_duo.segmenters.watershed import INFO

if TYPE_CHECKING:
    import numpy.typing as npt

    Foreground = npt.NDArray[np.bool_]
    Labels = npt.NDArray[np.int32]

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of red, green and blue (ITU-R BT.601)."""

SMALLEST_WINDOW = 15
CLEAR = 0.25
"""By how much of the image's standard deviation an object differs from the mean of its surroundings: even ground would be half objects at 0."""


class Watershed(Segmenter):
    """Needs no weights and keeps nothing of an image."""

    info = INFO

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    def automatic(
        self,
        pixels: npt.NDArray[np.uint8],
        parameters: AutoParameters,
        *,
        embedding: Any = None,  # noqa: ARG002
        embed_crop: EmbedCrop | None = None,  # noqa: ARG002
        on_progress: OnProgress = no_progress,  # noqa: ARG002
        should_cancel: Callable[[], bool] = never,
        candidates: Any = None,  # noqa: ARG002
    ) -> AutomaticRun:
        """All objects. Of ``parameters`` ``region`` (an object's middle lies in it) and ``min_mask_region_area`` count; there is no point grid."""

        def check() -> None:
            if should_cancel():
                raise Cancelled("automatic mask generation was cancelled")

        options = self.options
        found, said = foreground(pixels, options, check)
        least = max(int(options["min_size"]), parameters.min_mask_region_area)
        labels = without_small(split(found, options, check), least)
        if parameters.region is not None:
            box = parameters.region
            labels = _inside(labels, (box.x0, box.y0, box.x1, box.y1))
        check()
        return AutomaticRun.of_labels(labels, [f"watershed: {said}; the parameters of the point grid do not count"])


def load(request: LoadRequest) -> Watershed:
    return Watershed(request.options)


def foreground(
    pixels: npt.NDArray[np.uint8], options: Mapping[str, Any], check: Callable[[], None]
) -> tuple[Foreground, str]:
    """Pixels that belong to objects, holes filled, bool (H, W), and how they were told apart."""
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    grey = pixels @ LUMINANCE
    if options["denoise"]:
        grey = ndimage.gaussian_filter(grey, options["denoise"])
    check()
    if grey.min() == grey.max():
        return np.zeros(grey.shape, dtype=bool), "one grey value all over"
    level = float(threshold_otsu(grey))
    wanted = options["objects"]
    if wanted == "auto":
        edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
        wanted = "bright" if (edge > level).mean() <= 0.5 else "dark"
    if options["threshold"] == "otsu":
        objects, said = grey > level if wanted == "bright" else grey <= level, f"Otsu's threshold {level:.0f}"
    else:
        side = options["window"] or max(SMALLEST_WINDOW, min(grey.shape) // 4)
        # The mean of the surroundings, in time that does not depend on their size.
        above = grey - ndimage.uniform_filter(grey, side, mode="reflect")
        least = CLEAR * float(grey.std())
        objects, said = above > least if wanted == "bright" else above < -least, f"local threshold in {side} pixels"
    check()
    # Single pixels and threads of noise go, so that they join nothing.
    objects = ndimage.binary_opening(objects, structure=np.ones((3, 3), dtype=bool))
    check()
    filled: Foreground = ndimage.binary_fill_holes(objects)
    return filled, f"{said}, {wanted} objects"


def split(found: Foreground, options: Mapping[str, Any], check: Callable[[], None]) -> Labels:
    """Connected foreground parted into objects, int32 (H, W), 0 is the ground."""
    from scipy import ndimage
    from skimage.feature import peak_local_max
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    whole, count = ndimage.label(found, structure=np.ones((3, 3), dtype=bool))
    if options["split"] == "none" or not count:
        return np.asarray(whole, dtype=np.int32)
    distance = ndimage.distance_transform_edt(np.pad(found, 1))[1:-1, 1:-1].astype(np.float32)
    check()
    if options["split"] == "distance":
        at = peak_local_max(distance, min_distance=options["distance"], labels=whole, exclude_border=False)
        markers = np.zeros(found.shape, dtype=np.int32)
        markers[tuple(at.T)] = np.arange(1, len(at) + 1)
    else:
        # Objects lower than the depth are flat in the reconstruction, and above the ground: one maximum each.
        seed = np.where(found, np.maximum(distance - np.float32(options["depth"]), np.float32(0.5)), np.float32(0))
        levelled = reconstruction(seed, distance)
        check()
        markers, _ = ndimage.label(
            local_maxima(levelled, connectivity=2) & found, structure=np.ones((3, 3), dtype=bool)
        )
    check()
    return np.asarray(watershed(-distance, markers, mask=found), dtype=np.int32)


def without_small(labels: Labels, least: int) -> Labels:
    """Labels of at least so many pixels; the numbers of the others are 0."""
    sizes = np.bincount(labels.ravel())
    small = sizes < least
    small[0] = False
    return np.where(small[labels], 0, labels)


def _inside(labels: Labels, box: tuple[float, float, float, float]) -> Labels:
    """Only objects whose middle (of their rectangle) lies in a box, XYXY."""
    from scipy import ndimage

    keep = np.zeros(int(labels.max()) + 1, dtype=bool)
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if place is not None:
            y, x = ((part.start + part.stop - 1) / 2 for part in place)
            keep[number] = box[0] <= x < box[2] and box[1] <= y < box[3]
    return np.where(keep[labels], labels, 0)
