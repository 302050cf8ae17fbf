"""Opening images for a session: a file, one frame of a stack or film, or an array.

    ImageRef ──> the whole file, decoded            an image of its own, or ``page`` of a TIFF
             └─> one frame of a FrameSequence       where the reference names a frame, or the file is a film; lazily, the file is kept open

A frame is prepared as an image of its own: its stretch to 8 bits is its own, banner and pixel size are those of the first frame.
This module must not ask an engine or know of saved sets.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segment_duo.errors import ImageError, NotFound, PromptError
from segment_duo.library.versions import version_hint
from segment_duo.lru import BoundedLru
from segment_duo.paths import Paths
from segment_duo.stores.locate import drops_path, open_store
from segment_duo.types import Box, ImageData, ImageFacts, ImageIdentity, ImageRef, PixelSize, StoreKind
from segment_duo.waiting import StillWaiting

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from segment_duo.config import Config
    from segment_duo.images.sequences import FrameSequence
    from segment_duo.stores.base import Store
    from segment_duo.types import Mask, Version

_PARTS = 8
"""Parts of images that are kept for the engine, which may ask for their pixels again."""


@dataclass(frozen=True, eq=False)
class OpenImage:
    """An image that was read and decoded. ``image_id`` is the engine's name for its pixels."""

    ref: ImageRef
    data: ImageData
    image_id: str

    @property
    def identity(self) -> ImageIdentity:
        facts = self.data.facts
        return ImageIdentity(str(self.ref), facts.sha256, facts.width, facts.height, facts.page)


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """An image with the masks of one of its sets, to learn from.

    ``pixels``: uint8, shape (cut_height, width, 3); ``masks``: of the uncut image, not decoded (a thousand decoded ones take gigabytes);
    ``version``: the set they come from; ``sha256`` of the image file.
    """

    pixels: npt.NDArray[np.uint8]
    masks: tuple[Mask, ...]
    version: Version
    sha256: str


class Images:
    """The images of one session, and the stores they come from. Its methods may be called from several threads."""

    def __init__(self, config: Config, paths: Paths, tell: Callable[[str], None], waiting: StillWaiting) -> None:
        self._config = config
        self._paths = paths
        self._tell = tell
        self._waiting = waiting
        self._lock = threading.RLock()
        self._stores: dict[StoreKind, Store] = {}
        # The engine may ask for the pixels of an image again; whoever works on it still holds it.
        self._held: weakref.WeakValueDictionary[str, OpenImage] = weakref.WeakValueDictionary()
        self._parts: BoundedLru[tuple[str, Box], OpenImage] = BoundedLru(_PARTS)
        # The stack or film that was read last: going through its frames must not open it for each.
        self._sequence: tuple[object, FrameSequence] | None = None
        self._reading = threading.Lock()

    def store(self, kind: StoreKind) -> Store:
        with self._lock:
            if kind not in self._stores:
                self._stores[kind] = open_store(kind, self._config, self._paths, self._waiting)
            return self._stores[kind]

    def pixels_of(self, image_id: str) -> npt.NDArray[np.uint8] | None:
        image = self._held.get(image_id)
        return image.data.pixels if image else None

    def missing_hint(self, ref: ImageRef) -> str:
        """The next step for somebody whose file or folder is not there, if a version or the place of Drops explains it; else empty."""
        on_drops = bool(self._config.drops_url) or self._config.use_local_files
        if on_drops and ref.store is StoreKind.LOCAL and not Path(*Path(ref.path).parts[:2]).exists():
            return f"On Drops it is {ImageRef(StoreKind.DROPS, ref.path)}: paths there begin with /drops."
        return version_hint(ref.path)

    def open(self, ref: ImageRef, *, page: int, banner: str | int, pixel_size: PixelSize | None) -> OpenImage:
        """See :meth:`segment_duo.session.Session.open_image`."""
        chosen = ref.frame is not None or page > 0
        if ref.frame is None and _is_film(ref):
            ref = dataclasses.replace(ref, frame=page)
        try:
            one = ref.frame is not None
            data = self._frame(ref, banner, pixel_size) if one else self._whole(ref, page, banner, pixel_size)
        except NotFound as error:
            raise NotFound(error.message, self.missing_hint(ref) or error.hint) from None
        for warning in data.facts.warnings:
            self._tell(f"{ref.label}: {warning}")
        if not chosen:
            what, count = ("page", data.facts.pages) if ref.frame is None else ("frame", _count(data.facts))
            if count > 1:
                self._tell(f"{ref}: {what} 0 of {count} (they count from 0)")
        return self._hold(ref, data)

    def open_array(
        self, samples: npt.NDArray[Any], *, name: str, banner: int, pixel_size: PixelSize | None
    ) -> OpenImage:
        """See :meth:`segment_duo.session.Session.open_array`."""
        from segment_duo.images import read_array

        data = read_array(samples, name=name, banner=banner, pixel_size=pixel_size)
        return self._hold(ImageRef(StoreKind.LOCAL, f"/{name}"), data)

    def open_frame(self, sequence: FrameSequence, ref: ImageRef, number: int) -> OpenImage:
        """See :meth:`segment_duo.session.Session.open_frame`."""
        return self._hold(dataclasses.replace(ref, frame=number), sequence.frame(number))

    def _hold(self, ref: ImageRef, data: ImageData) -> OpenImage:
        from segment_duo.engine.protocol import image_id

        image = OpenImage(ref, data, image_id(data.pixels))
        self._held[image.image_id] = image
        return image

    def part(self, image: OpenImage, part: Box) -> OpenImage:
        """A part of an image as the engine knows it: an image of its own, without banner. Whole pixels inside the cut image.

        Raises:
            PromptError: it does not lie on the image.
        """
        from segment_duo.engine.protocol import image_id
        from segment_duo.masks.part import cut_pixels

        facts = image.data.facts
        if not (0 <= part.x0 <= part.x1 < facts.width and 0 <= part.y0 <= part.y1 < facts.cut_height):
            raise PromptError(f"the part {part} is not on the image ({facts.width} x {facts.cut_height})")
        key = (image.image_id, part)
        with self._lock:
            found = self._parts.get(key)
            if found is None:
                pixels = cut_pixels(image.data.pixels, part)
                found = OpenImage(image.ref, dataclasses.replace(image.data, pixels=pixels), image_id(pixels))
                self._parts.put(key, found, 1)
            self._held[found.image_id] = found
        return found

    def _whole(self, ref: ImageRef, page: int, banner: str | int, pixel_size: PixelSize | None) -> ImageData:
        from segment_duo.frames import sidecars_beside
        from segment_duo.images import read_image
        from segment_duo.images.decoded import MOST_BYTES_A_PIXEL

        store = self.store(ref.store)
        limit = self._config.max_pixels
        try:
            content = store.read(ref.path, max_bytes=limit * MOST_BYTES_A_PIXEL)
        except MemoryError:
            raise ImageError(f"{ref}: not enough memory to read this image") from None
        return read_image(
            content,
            name=ref.name,
            page=page,
            banner=banner,
            pixel_size=pixel_size,
            sidecars=lambda: sidecars_beside(store, ref.path, self._tell),
            max_pixels=limit,
        )

    def _frame(self, ref: ImageRef, banner: str | int, pixel_size: PixelSize | None) -> ImageData:
        with self._reading:
            return self._opened(ref, banner, pixel_size).frame(ref.frame or 0)

    def frames(self, ref: ImageRef, text: str) -> Sequence[ImageRef]:
        """See :meth:`segment_duo.session.Session.frames`."""
        from segment_duo.images.frame_range import parse_frames
        from segment_duo.images.sequences import FolderSequence

        with self._reading:
            try:
                sequence = self._opened(ref, "auto", None)
            except NotFound as error:
                raise NotFound(error.message, self.missing_hint(ref) or error.hint) from None
            numbers = parse_frames(text, len(sequence))
            if isinstance(sequence, FolderSequence):
                if sequence.left_out:
                    self._tell(f"{ref}: {sequence.left_out}")
                paths = [sequence.file(number).path for number in numbers]
                return [
                    ImageRef(ref.store, drops_path(path) if ref.store is StoreKind.DROPS else path) for path in paths
                ]
            if len(sequence) == 1:
                return [ref]
            return [dataclasses.replace(ref, frame=number) for number in numbers]

    def pages(self, refs: Sequence[ImageRef]) -> list[int]:
        """The page of its own file that each frame is, as sets record it; the references are of one stack or film."""
        with self._reading:
            return [self._opened(ref, "auto", None).page(ref.frame or 0) for ref in refs]

    def _opened(self, ref: ImageRef, banner: str | int, pixel_size: PixelSize | None) -> FrameSequence:
        """The sequence that ``ref`` is a frame of, kept open until another is wanted or the file has changed."""
        from segment_duo.frames import sequence_of
        from segment_duo.images.sequences import Reading

        store = self.store(ref.store)
        key = (ref.store, ref.path, store.stat(ref.path), str(banner), pixel_size)
        if self._sequence is not None and self._sequence[0] == key:
            return self._sequence[1]
        self.close()
        reading = Reading(banner, pixel_size, None, self._config.max_pixels, common_stretch=False)
        sequence = sequence_of(store, ref, reading)
        self._sequence = (key, sequence)
        return sequence

    def close(self) -> None:
        """Close the stack or film that is kept open."""
        if self._sequence is not None:
            self._sequence[1].close()
            self._sequence = None


def _count(facts: ImageFacts) -> int:
    return facts.frames.count if facts.frames else 1


def _is_film(ref: ImageRef) -> bool:
    from segment_duo.images.film import is_film_name

    return is_film_name(ref.path)
