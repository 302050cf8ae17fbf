"""The protocol every segmenter follows: what the engine asks of a model, whatever family it is of.

    pixels --embed--> Embedding (opaque; bytes, and arrays for the disk) --predict--> candidates of each prompt
                                                                         --automatic--> all masks of the image
                                                                         --tracker--> masks frame by frame (``tracking``)

A segmenter says what it can (:class:`Capability`) before anything is computed; front ends offer that and nothing else. The engine
reaches models through this module alone. NumPy arrays cross
this border. It must not import torch, nor any family of models, and is light: commands that list models import it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from segment_duo.boxes import SamBox, Window, sam, whole
from segment_duo.errors import UsageError
from segment_duo.masks.cropped import CroppedMask
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.asking import OnProgress, PromptArrays, never, no_progress, unchecked
from segment_duo.segmenters.options import Option
from segment_duo.segmenters.tracking import Tracker
from segment_duo.types import Mask, Rle

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "API_VERSION",
    "EMBEDDINGS",
    "AutomaticRun",
    "CandidateMask",
    "Capability",
    "DeviceMemoryFull",
    "EmbedCrop",
    "Embedding",
    "Family",
    "LoadRequest",
    "OnProgress",
    "Option",
    "Prediction",
    "PromptArrays",
    "Reusable",
    "Segmenter",
    "SegmenterInfo",
    "cropped_labels",
    "fingerprint",
    "never",
    "no_progress",
    "unchecked",
]

API_VERSION = 1
"""Raised when a plug-in made for the version before would be misunderstood."""


EMBEDDINGS = 1
"""Part of the key of embeddings on disk: raised when what any family makes of the same pixels with the same weights changes."""


class DeviceMemoryFull(Exception):
    """The device has no room for a model. The engine lets go of others and tries once more."""


class Capability(StrEnum):
    """What a segmenter can be asked for."""

    POINTS = "points"
    BOX = "box"
    MASK_INPUT = "mask input"
    AUTOMATIC = "automatic"
    TRACK = "track"
    TEXT = "text"


@dataclass(frozen=True)
class SegmenterInfo:
    """What is known of a segmenter before it is loaded.

    Attributes:
        id: the name users give with ``--model``.
        sha256: of its weights; for a method without weights, of what else decides its results (:func:`fingerprint`).
        capabilities: of :class:`Capability`.
        licence: SPDX name of the licence of its weights (or of its code), empty if not known. One that is not permissive is to be accepted by
            the user first (``segduo models accept``).
        terms: what one accepts: the licence's conditions in some lines, or the address of its text.
        description: one line for ``segduo models ls``.
        source: where it comes from: an address, a package, a paper.
        input_size: pixels a side that an image is shrunk to, 0 if it is taken as it is.
        auto_defaults: its own parameters for automatic masks, by field of :class:`~segment_duo.parameters.AutoParameters`.
        options: parameters that only this model has, by name. They reach it as :attr:`LoadRequest.options`.
    """

    id: str
    sha256: str
    capabilities: frozenset[str]
    licence: str = ""
    terms: str = ""
    description: str = ""
    source: str = ""
    input_size: int = 0
    auto_defaults: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)


class Embedding(Protocol):
    """What a segmenter keeps of an image; only the segmenter that made it looks inside.

    ``height`` and ``width`` are those of the image in pixels.
    """

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """Bytes it takes in memory."""

    def to_arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Arrays under stable names, for the disk; :meth:`Segmenter.restore` is the inverse."""


class Reusable(Protocol):
    """What an automatic run leaves behind so that the next one with other thresholds need not compute again. Opaque."""

    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True, eq=False)
class CandidateMask:
    """One mask for a prompt.

    Attributes:
        mask: the mask inside its rectangle, at image size or at preview size.
        height, width: the size that ``mask`` refers to.
        predicted_iou, stability_score: as in SAM records; stability is that of the full-size mask with offset 1 (None for a preview,
            or where the segmenter has none).
        low_res: float32 (h, w), clamped to +-32 as SAM does, for :attr:`PromptArrays.mask_input`; None without that capability.
    """

    mask: CroppedMask
    height: int
    width: int
    predicted_iou: float | None = None
    stability_score: float | None = None
    low_res: npt.NDArray[np.float32] | None = None

    @classmethod
    def of(cls, mask: npt.NDArray[np.bool_], predicted_iou: float | None = None) -> CandidateMask:
        """A candidate of a whole mask, bool (height, width)."""
        height, width = mask.shape
        return cls(CroppedMask.of(mask), height, width, predicted_iou)

    @property
    def rle(self) -> Rle:
        return self.mask.rle(self.height, self.width)

    @property
    def area(self) -> int:
        return self.mask.area

    @property
    def bbox(self) -> SamBox:
        return sam(self.mask.box)

    def array(self) -> npt.NDArray[np.bool_]:
        """The whole mask, bool (height, width)."""
        import numpy as np

        full = np.zeros((self.height, self.width), dtype=bool)
        inner = self.mask
        rows, cols = inner.pixels.shape
        full[inner.top : inner.top + rows, inner.left : inner.left + cols] = inner.pixels
        return full


Prediction = tuple[CandidateMask, ...]
"""Candidates for one prompt, best predicted IoU first."""


@dataclass(frozen=True, eq=False)
class AutomaticRun:
    """What :meth:`Segmenter.automatic` answers.

    Attributes:
        masks: in the segmenter's order, ids 0, 1, 2, ...; coordinates of the image.
        notes: every approximation that was used and every way in which the result may differ from the model's stock generator.
        candidates: to be given to the next run on this image; None when there is nothing to reuse.
        seconds: wall time by stage.
        points: prompts that were decoded.
        reused: True when candidates of an earlier run answered.
    """

    masks: tuple[Mask, ...]
    notes: tuple[str, ...] = ()
    candidates: Reusable | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    points: int = 0
    reused: bool = False

    @classmethod
    def of_masks(cls, masks: Iterable[CroppedMask], height: int, width: int, notes: Sequence[str] = ()) -> AutomaticRun:
        """An answer of masks without scores, in their order; empty ones are left out."""
        kept = [mask for mask in masks if mask.pixels.size]
        return cls(tuple(_record(mask, number, height, width) for number, mask in enumerate(kept)), tuple(notes))

    @classmethod
    def of_labels(cls, labels: npt.NDArray[np.integer[Any]], notes: Sequence[str] = ()) -> AutomaticRun:
        """An answer of a label image, integers (height, width): 0 is background, each other number one mask, in the order of the numbers."""
        height, width = labels.shape
        return cls.of_masks(cropped_labels(labels), height, width, notes)


def cropped_labels(labels: npt.NDArray[np.integer[Any]]) -> Iterator[CroppedMask]:
    """The mask of each number above 0 of a label image, in the order of the numbers."""
    from scipy import ndimage

    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if place is not None:
            rows, cols = place
            yield CroppedMask(labels[place] == number, int(cols.start), int(rows.start))


def _record(mask: CroppedMask, number: int, height: int, width: int) -> Mask:
    return Mask(
        rle=mask.rle(height, width),
        area=mask.area,
        bbox=sam(mask.box),
        id=number,
        crop_box=whole(height, width),
        source="auto",
    )


EmbedCrop = Callable[[Window, Callable[[], Any]], Any]
"""Given a crop's window and a function that computes its embedding, returns the embedding: the place for a cache."""


class Segmenter:
    """A loaded model. Families derive from it and override what they can do; its methods are called from one thread.

    Every array is NumPy; coordinates are pixels of the image that was embedded, x to the right, y down.
    """

    info: SegmenterInfo
    parameters: int = 0
    """Number of its parameters, for ``segduo engine status``."""

    @property
    def embeds(self) -> bool:
        """Whether it makes something of an image that is worth keeping: it overrides :meth:`embed`."""
        return type(self).embed is not Segmenter.embed

    def embed(self, pixels: npt.NDArray[np.uint8]) -> Embedding:
        """What is computed once for an image.

        Args:
            pixels: uint8 (H, W, 3).
        """
        raise self._cannot("embed images")

    @property
    def embed_batch(self) -> int:
        """How many images go through :meth:`embed_many` at a time because its device gains from it; 1: none does."""
        return 1

    def embed_many(self, images: Sequence[npt.NDArray[np.uint8]]) -> Sequence[Embedding]:
        """:meth:`embed` of several images, in their order; equal to it within float rounding."""
        return [self.embed(pixels) for pixels in images]

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Embedding:
        """The embedding that :meth:`Embedding.to_arrays` wrote.

        Raises:
            KeyError, ValueError: these arrays are not an embedding of this segmenter.
        """
        raise ValueError(f"{self.info.id} keeps no embeddings on disk")

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        """Height and width, in pixels of an image of this size, of what the model sees: more than the image where it is padded right and below."""
        return height, width

    def predict(
        self,
        embedding: Any,
        prompts: Sequence[PromptArrays],
        *,
        preview_max_side: int | None = None,
        check: Callable[[], None] = unchecked,
    ) -> list[Prediction]:
        """Candidates for each prompt, in order.

        Args:
            embedding: of :meth:`embed` or :meth:`restore`.
            preview_max_side: masks at a size whose longer side has at most this many pixels, None = image size.
            check: to be called between pieces of work; raises Cancelled.
        """
        raise self._cannot("answer points and boxes")

    def automatic(
        self,
        pixels: npt.NDArray[np.uint8],
        parameters: AutoParameters,
        *,
        embedding: Any = None,
        embed_crop: EmbedCrop | None = None,
        on_progress: OnProgress = no_progress,
        should_cancel: Callable[[], bool] = never,
        candidates: Any = None,
    ) -> AutomaticRun:
        """All masks of an image.

        Args:
            pixels: uint8 (H, W, 3).
            embedding: of the whole image, if it is at hand.
            embed_crop: cache for the embeddings of crops and tiles.
            candidates: of an earlier run on the same image; used if they can answer.

        Raises:
            Cancelled: ``should_cancel`` said so.
            UsageError: parameters that contradict each other.
        """
        raise self._cannot("find all masks of an image")

    def tracker(self, frames: int, *, fast: bool = False) -> Tracker:
        """What follows objects through a sequence of so many frames; one for each sequence. ``fast``: it may approximate."""
        raise self._cannot("follow objects through frames")

    def release(self) -> None:
        """Forget what was prepared for images."""

    def _cannot(self, what: str) -> UsageError:
        return UsageError(f"the model '{self.info.id}' cannot {what}", "`segduo models ls` shows what each model can.")


@dataclass(frozen=True)
class LoadRequest:
    """What a family is told to load.

    Attributes:
        id: the model's name.
        config, checkpoint: what is known of its files; empty for models that bring their own.
        device: ``cpu``, ``cuda`` or ``mps``.
        threads: CPU threads to compute with, 0 for the library's choice.
        options: a value for each of :attr:`SegmenterInfo.options`.
        check: to be called often while loading; what it raises (nobody waits any more) ends it.
    """

    id: str
    config: str = ""
    checkpoint: str = ""
    device: str = "cpu"
    threads: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[], None] = field(default=unchecked, compare=False)

    @property
    def checkpoint_path(self) -> Path:
        return Path(self.checkpoint)


@dataclass(frozen=True)
class Family:
    """What an entry point of the group ``segment_duo.segmenters`` names: a model, or a family of them.

    Importing it must be quick: heavy imports belong into ``load``.

    Attributes:
        info: of the model with the entry point's name; None for families whose models ``models.known`` lists (SAM 2).
        load: makes the segmenter ready.
        api: the :data:`API_VERSION` it was written for.
    """

    load: Callable[[LoadRequest], Segmenter]
    info: SegmenterInfo | None = None
    api: int = API_VERSION

    GROUP: ClassVar[str] = "segment_duo.segmenters"


def fingerprint(*parts: str) -> str:
    """SHA-256 (64 hexadecimal digits) for a method without weights, of its name, version and whatever else decides its results."""
    import hashlib

    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
