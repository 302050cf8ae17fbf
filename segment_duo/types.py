"""The words the layers share: frozen domain types, and the coordinate convention.

Coordinates: x to the right, y down, origin at the top-left corner of the **uncut** image, in pixels; the centre of the first
pixel is (0, 0) as in SAM's own prompts. Rectangles: :mod:`segment_duo.boxes`. Cutting the info banner removes rows at the bottom only,
so it never moves the origin. Masks always have the size of the uncut image.

This module must not import NumPy, torch or anything slow: every command imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

DROPS_PREFIX = "/drops/"
"""How users write a path on Drops: ``/drops/labdaq/a.tif`` is the server's ``/labdaq/a.tif``."""


class StoreKind(StrEnum):
    LOCAL = "local"
    DROPS = "drops"
    S3 = "s3"


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where an image is. ``path``: absolute local path, or the server's path on Drops (begins with one ``/``, no ``/drops``), or ``/bucket/key`` in
    an object store.

    ``frame``, counted from 0, is the page of a TIFF, the time or depth of a hyperstack, or the number in a film; None where none was chosen.
    In a folder of frames it is the file that counts, and this stays None.
    """

    store: StoreKind
    path: str
    frame: int | None = None

    @property
    def name(self) -> str:
        """File name with its extension."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def stem(self) -> str:
        """File name without its last extension; what mask sets are named after."""
        name = self.name
        head, dot, _ = name.rpartition(".")
        return head if dot and head else name

    @property
    def folder(self) -> str:
        return self.path.rsplit("/", 1)[0] or "/"

    def __str__(self) -> str:
        """The path as users type it."""
        if self.store is StoreKind.S3:
            return f"s3:/{self.path}"
        return DROPS_PREFIX.rstrip("/") + self.path if self.store is StoreKind.DROPS else self.path

    @property
    def label(self) -> str:
        """What to call it in messages: the path, and the frame where one was chosen."""
        return str(self) if self.frame is None else f"{self}, frame {self.frame}"


Trust = Literal["high", "medium", "low"]


@dataclass(frozen=True, slots=True)
class PixelSize:
    """Edge lengths of a pixel in **nanometres**, and where the number comes from."""

    x_nm: float
    y_nm: float
    source: str
    trust: Trust = "high"


@dataclass(frozen=True, slots=True)
class Banner:
    """Rows cut from the bottom of the image. ``source``: ``tag``, ``pixels``, ``flag``, ``off`` or ``none`` (nothing found)."""

    height: int
    source: Literal["tag", "pixels", "flag", "off", "none"]


@dataclass(frozen=True, slots=True)
class Instrument:
    """What the microscope wrote about itself; empty strings and None where the file does not say."""

    maker: str = ""
    model: str = ""
    accelerating_voltage_kv: float | None = None
    working_distance_mm: float | None = None
    magnification: float | None = None
    detector: str = ""
    beam: str = ""
    acquired: str = ""


@dataclass(frozen=True, slots=True)
class FrameAxes:
    """How the frames of a stack or film are arranged.

    Attributes:
        axis: the one that its frames run along: ``T`` time, ``Z`` depth, ``C`` channel, ``page`` where nothing is known, ``file`` in a folder.
        sizes: (axis, length), slowest first; their product is the number of planes.
        frame_seconds: time from one frame to the next along T.
        spacing_nm: distance from one slice to the next along Z.
    """

    axis: str
    sizes: tuple[tuple[str, int], ...]
    frame_seconds: float | None = None
    spacing_nm: float | None = None

    @property
    def count(self) -> int:
        """Frames along ``axis``."""
        return dict(self.sizes).get(self.axis, 1)

    def place_of(self, page: int) -> dict[str, int]:
        """Axis -> index of a page, where pages are in the order of ``sizes``."""
        place: dict[str, int] = {}
        for axis, size in reversed(self.sizes):
            page, place[axis] = divmod(page, size)
        return place

    def along(self, axis: str) -> FrameAxes:
        """The same with frames along another axis."""
        return FrameAxes(axis, self.sizes, self.frame_seconds, self.spacing_nm)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of an image besides its pixels.

    ``width`` and ``height`` are those of the uncut image; ``dtype`` is NumPy's name of the stored samples; ``significant_bits`` the
    number of bits the brightest sample needs (a 12-bit camera in a 16-bit file: 12), None for float; ``frames`` how a stack's pages are arranged.
    """

    width: int
    height: int
    format: str
    dtype: str
    channels: int
    page: int
    pages: int
    sha256: str
    bytes: int
    significant_bits: int | None = None
    banner: Banner = Banner(0, "none")
    pixel_size: PixelSize | None = None
    instrument: Instrument = Instrument()
    stretch: str = "none"
    warnings: tuple[str, ...] = ()
    frames: FrameAxes | None = None

    @property
    def cut_height(self) -> int:
        """Rows left after the banner is cut."""
        return self.height - self.banner.height


@dataclass(frozen=True, slots=True, eq=False)
class ImageData:
    """A decoded image.

    Attributes:
        pixels: uint8, shape (cut_height, width, 3), C-contiguous: what the model and the screen see.
        original: the same rows at the stored depth, shape (cut_height, width) or (cut_height, width, channels); for intensity measures.
        facts: size, depth, pixel size, banner, hash.
    """

    pixels: npt.NDArray[np.uint8]
    original: npt.NDArray[Any]
    facts: ImageFacts


@dataclass(frozen=True, slots=True)
class Point:
    """A click. ``label`` 1 = include, 0 = exclude."""

    x: float
    y: float
    label: Literal[0, 1] = 1


@dataclass(frozen=True, slots=True)
class Box:
    """XYXY corners, x0 < x1 and y0 < y1."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True)
class Rle:
    """COCO's compressed run-length encoding, column-major; the whole uncut image is ``width`` x ``height``."""

    height: int
    width: int
    counts: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What asks for one object. ``object_id``: the user's name for it.

    ``mask_input``: the engine's handle of the low-res logits to refine; ``mask``: a mask of the image's size to refine where there are none.
    """

    points: tuple[Point, ...] = ()
    box: Box | None = None
    mask_input: str | None = None
    mask: Rle | None = None
    object_id: str = "0"


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which weights made a mask. ``weights_sha256`` is that of the checkpoint file."""

    id: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a mask comes from; it stays with the mask through every later version.

    Attributes:
        operation: what made it: ``auto``, ``point``, ``import``, ``track``.
        model: the weights that made it; None where no model took part.
        parameters: JSON values.
        program_version: of this program, when it made the mask; empty if not known.
        notices: every approximation that was used.
        edits: what was done to it by hand since, oldest first.
    """

    operation: str
    model: ModelIdentity | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    program_version: str = ""
    notices: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()


MaskSource = Literal["auto", "prompt", "import"]


@dataclass(frozen=True, slots=True)
class Mask:
    """One mask with the fields of a SAM record.

    ``bbox``, the smallest rectangle that holds the mask, and ``crop_box`` are XYWH (:mod:`segment_duo.boxes`); in the engine's answers ``bbox`` is
    SAM's own. ``point_coords`` are the prompt points; ``predicted_iou`` and ``stability_score`` are None where nobody computed them (imports).
    """

    rle: Rle
    area: int
    bbox: tuple[float, float, float, float]
    id: int = 0
    predicted_iou: float | None = None
    stability_score: float | None = None
    point_coords: tuple[tuple[float, float], ...] = ()
    point_labels: tuple[int, ...] = ()
    crop_box: tuple[float, float, float, float] | None = None
    label: str = ""
    source: MaskSource = "auto"
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class ImageIdentity:
    """Which image a set belongs to: its path as users type it, and the SHA-256 of the file's bytes (empty when a predecessor's set does not say)."""

    path: str
    sha256: str
    width: int
    height: int
    page: int = 0


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a mask set came to be; :mod:`segment_duo.provenance` makes it. What made each mask is the mask's own :class:`Origin`.

    ``model``: the one that made every mask, None where they differ or one is not known. ``operation`` and ``parameters`` (JSON values only) are
    those of the command that saved the set, ``created`` is ISO 8601 in UTC, ``parent`` the version it was edited from. ``models``: ids of all
    models that made masks of it, as far as they are known.
    """

    image: ImageIdentity | None = None
    model: ModelIdentity | None = None
    created: str = ""
    program_version: str = ""
    operation: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None
    banner: Banner | None = None
    pixel_size: PixelSize | None = None
    notices: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MaskSet:
    """Masks of one image with their provenance. ``masks[i].id`` is unique within the set."""

    masks: tuple[Mask, ...]
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a folder listing. ``name`` is the bare file name, unescaped; ``modified`` is seconds since the epoch (UTC).

    ``is_link`` marks symbolic links; the other fields are those of what it leads to.
    """

    name: str
    path: str
    is_folder: bool
    size: int
    modified: float
    is_link: bool = False


@dataclass(frozen=True, slots=True)
class Version:
    """One saved set in a store: ``name`` is what ``IMAGE@name`` takes (``0``, ``2``, ``grain``, ``grain_1``)."""

    name: str
    suffix: str
    number: int
    path: str
    size: int
    modified: float
