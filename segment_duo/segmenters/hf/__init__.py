"""Mask-generation models of the ``transformers`` package, from files that are here already. Extra ``[hf]``.

Nothing is ever downloaded, and no code of a model's author is run: classes are those of ``transformers``, weights are safetensors.
This module is light; ``segmenter`` loads the models, ``hub`` finds their folder.
"""

from __future__ import annotations

from segment_duo.segmenters.base import Capability

ID = "hf"

CAPABILITIES: frozenset[Capability] = frozenset(
    {Capability.POINTS, Capability.BOX, Capability.MASK_INPUT, Capability.AUTOMATIC}
)

KINDS = {
    "sam": ("SamModel", "sam1"),
    "sam_hq": ("SamHQModel", "sam1"),
    "sam2": ("Sam2Model", "sam2"),
    "sam2_video": ("Sam2Model", "sam2"),
    "edgetam": ("EdgeTamModel", "sam2"),
    "edgetam_video": ("EdgeTamModel", "sam2"),
    "sam3_tracker": ("Sam3TrackerModel", "sam2"),
    "sam3_tracker_video": ("Sam3TrackerModel", "sam2"),
    "sam3_video": ("Sam3TrackerModel", "sam2"),
}
"""By ``model_type`` of a model's config: the class for still pictures, and how the image lies in its input (``segmenters.layout``)."""
