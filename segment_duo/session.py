"""The use cases, as both front ends call them: open an image, prompt, generate, save, load.

    cli, tui ──> Session ──> stores   (bytes and names)
                        ├──> images   (bytes -> pixels and facts)
                        ├──> saved_sets ──> masks, stores   (which sets there are, and whose)
                        └──> engine.connect ══ socket ══> the engine (pixels and prompts -> masks)

The engine sees the image without its info banner; everything a front end gets from here has the size and the coordinates of the
uncut image. Nothing here prints, asks or knows a widget.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segment_duo.errors import (
    EngineUnavailable,
    ImageError,
    InputError,
    ModelError,
    NotFound,
    SegduoError,
)
from segment_duo.library.library import LoadedSet, Saved, SavedSets
from segment_duo.library.sequences import SequenceSets
from segment_duo.library.versions import version_hint
from segment_duo.paths import Paths
from segment_duo.prompts import check_prompts
from segment_duo.provenance import auto_origin, of_edit, of_set, point_origin
from segment_duo.stores.locate import open_store, parse_reference
from segment_duo.types import (
    AutoParameters,
    Entry,
    ImageData,
    ImageIdentity,
    ImageRef,
    Mask,
    ModelIdentity,
    PixelSize,
    Prompt,
    StoreKind,
    Version,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from segment_duo.config import Config, Resolved
    from segment_duo.engine.api import Engine
    from segment_duo.engine.protocol import AutoEvent, EngineStatus, ImageState
    from segment_duo.images.sequences import FrameSequence
    from segment_duo.models.registry import ModelChoice
    from segment_duo.results import AutoResult, Candidate, PredictedObject
    from segment_duo.segmenters.asking import OnProgress
    from segment_duo.segmenters.tracking import Direction, Frames, Known, ObjectPrompt, TrackedFrame
    from segment_duo.stores.base import Store


_MOST_BYTES_A_PIXEL = 16
"""Four channels of 32 bit; a file with more bytes than that for the largest image allowed is not read."""


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


class Session:
    """One user's work with one configuration. Its methods may be called from several threads."""

    def __init__(
        self,
        resolved: Resolved,
        paths: Paths | None = None,
        *,
        out: str | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        """Args:
        resolved: the settings.
        paths: the user's folders.
        out: a folder for saved sets instead of the configured place (``--out``).
        notify: receives one-line messages for the user, such as that the engine died and is started again.
        """
        self.resolved = resolved
        self.paths = paths or Paths.default()
        self._stores: dict[StoreKind, Store] = {}
        self._notify = notify
        self.sets = SavedSets(self.config, self.paths, self.store, out=out, tell=self._tell)
        self.sequences = SequenceSets(self.sets, self.store, self.paths, max_pixels=self.config.max_pixels)
        self._engine: Engine | None = None
        self._lock = threading.RLock()
        # The engine may ask for the pixels of an image again; whoever works on it still holds it.
        self._images: weakref.WeakValueDictionary[str, OpenImage] = weakref.WeakValueDictionary()
        self._model: ModelChoice | None = None

    @property
    def config(self) -> Config:
        return self.resolved.config

    # -- the engine ---------------------------------------------------------------------------------------------------

    @property
    def model(self) -> ModelChoice:
        """The model that this session's requests name."""
        with self._lock:
            if self._model is None and self.config.socket is not None:
                from segment_duo.engine.api import engine_model

                # Which models there are is decided by the machine that the named engine runs on.
                self._model = engine_model(self.engine(), self.config.model)
            elif self._model is None:
                from segment_duo.models.registry import resolve_model

                self._model = resolve_model(self.config, self.paths)
            return self._model

    @property
    def identity(self) -> ModelIdentity:
        """The model of this session's requests, as sets record it."""
        return ModelIdentity(self.model.id, self.model.sha256)

    def engine(self) -> Engine:
        """The engine, started when none answers."""
        with self._lock:
            if self._engine is None:
                from segment_duo.engine.connect import connect

                self._engine = connect(self.config, self.paths, notify=self._notify, pixels_of=self._pixels_of)
            return self._engine

    def _running_engine(self) -> Engine | None:
        if self._engine is not None:
            return self._engine
        from segment_duo.engine.connect import connect

        try:
            return connect(self.config, self.paths, start=False)
        except EngineUnavailable:
            return None

    def _pixels_of(self, image_id: str) -> npt.NDArray[np.uint8] | None:
        image = self._images.get(image_id)
        return image.data.pixels if image else None

    def engine_status(self, *, start: bool = False) -> EngineStatus | None:
        """What the engine says of itself; None when none runs (and ``start`` is not set)."""
        engine = self.engine() if start else self._running_engine()
        return engine.status() if engine else None

    # -- images -------------------------------------------------------------------------------------------------------

    def store(self, kind: StoreKind) -> Store:
        with self._lock:
            if kind not in self._stores:
                self._stores[kind] = open_store(kind, self.config, self.paths, self._notify)
            return self._stores[kind]

    def reference(self, text: str) -> ImageRef:
        """What the user typed -> where it is."""
        return parse_reference(text, cwd=Path.cwd())

    def list_folder(self, text: str) -> list[Entry]:
        """The entries of a folder, newest first."""
        ref = self.reference(text)
        try:
            return self.store(ref.store).list(ref.path)
        except NotFound as error:
            raise NotFound(error.message, self.missing_hint(ref) or error.hint) from None

    def missing_hint(self, ref: ImageRef) -> str:
        """The next step for somebody whose file or folder is not there, if a version or the place of Drops explains it; else empty."""
        on_drops = bool(self.config.drops_url) or self.config.use_local_files
        if on_drops and ref.store is StoreKind.LOCAL and not Path(*Path(ref.path).parts[:2]).exists():
            return f"On Drops it is {ImageRef(StoreKind.DROPS, ref.path)}: paths there begin with /drops."
        return version_hint(ref.path)

    def open_image(
        self, ref: ImageRef, *, page: int = 0, banner: str | int = "auto", pixel_size: PixelSize | None = None
    ) -> OpenImage:
        """Read and decode an image; maker's text files beside it are read when the image itself does not tell its scale.

        Raises:
            NotFound, ImageError, DropsError, StoreError
        """
        from segment_duo.engine.protocol import image_id
        from segment_duo.images import read_image

        store = self.store(ref.store)
        limit = self.config.max_pixels
        try:
            content = store.read(ref.path, max_bytes=limit * _MOST_BYTES_A_PIXEL)
        except MemoryError:
            raise ImageError(f"{ref}: not enough memory to read this image") from None
        except NotFound as error:
            raise NotFound(error.message, self.missing_hint(ref) or error.hint) from None

        data = read_image(
            content,
            name=ref.name,
            page=page,
            banner=banner,
            pixel_size=pixel_size,
            sidecars=lambda: self._sidecars(store, ref),
            max_pixels=limit,
        )
        for warning in data.facts.warnings:
            self._tell(f"{ref}: {warning}")
        if data.facts.pages > 1 and page == 0:
            self._tell(f"{ref}: page 0 of {data.facts.pages} (they count from 0)")
        image = OpenImage(ref, data, image_id(data.pixels))
        self._images[image.image_id] = image
        return image

    def open_frame(self, sequence: FrameSequence, ref: ImageRef, number: int) -> OpenImage:
        """One frame of an open sequence, whose reference is ``ref``; raises as :meth:`FrameSequence.frame` does."""
        from segment_duo.engine.protocol import image_id

        data = sequence.frame(number)
        image = OpenImage(dataclasses.replace(ref, frame=number), data, image_id(data.pixels))
        self._images[image.image_id] = image
        return image

    def open_array(
        self, samples: npt.NDArray[Any], *, name: str = "array", banner: int = 0, pixel_size: PixelSize | None = None
    ) -> OpenImage:
        """Prepare an image that is in memory already, (H, W) or (H, W, 3) of any depth; see :func:`segment_duo.images.read_array`."""
        from segment_duo.engine.protocol import image_id
        from segment_duo.images import read_array

        data = read_array(samples, name=name, banner=banner, pixel_size=pixel_size)
        image = OpenImage(ImageRef(StoreKind.LOCAL, f"/{name}"), data, image_id(data.pixels))
        self._images[image.image_id] = image
        return image

    def _sidecars(self, store: Store, ref: ImageRef) -> dict[str, bytes]:
        from segment_duo.images import sidecar_names

        wanted = {name.casefold() for name in sidecar_names(ref.name)}
        if not wanted:
            return {}
        try:
            entries = store.list(ref.folder)
        except SegduoError as error:
            self._tell(f"{ref}: no look at the files beside it ({error.message})")
            return {}
        found = [entry for entry in entries if entry.name.casefold() in wanted and not entry.is_folder]
        return {entry.name: store.read(entry.path, max_bytes=1 << 20) for entry in found if entry.size <= 1 << 20}

    def _tell(self, message: str) -> None:
        if self._notify is not None:
            self._notify(message)

    def is_embedded(self, image: OpenImage) -> str | None:
        """``memory`` or ``disk`` when the running engine has this image's embedding, else None. Starts nothing."""
        engine = self._running_engine()
        try:
            return engine.image_state(image.image_id, model=self.model).embedding if engine else None
        except ModelError:
            return None

    # -- masks from the engine ----------------------------------------------------------------------------------------

    def embed(self, image: OpenImage) -> ImageState:
        """Make sure that the engine has the embedding of this image."""
        return self.engine().ensure_image(image.data.pixels, image_id=image.image_id, model=self.model)

    def predict(
        self,
        image: OpenImage,
        prompts: Sequence[Prompt],
        *,
        multimask_output: bool | None = None,
        preview_max_side: int | None = None,
    ) -> list[PredictedObject]:
        """Masks for prompts, one result for each; candidates of a result best first.

        Args:
            multimask_output: three candidates for each prompt or one; None follows SAM's advice (three for a single point).
            preview_max_side: ask for small masks, at most this many pixels a side, for a display; they keep the preview's size.

        Raises:
            PromptError: a prompt is not on the image.
            UsageError: the model does not take such prompts.
        """
        from segment_duo.models.registry import needs

        facts = image.data.facts
        check_prompts(prompts, width=facts.width, height=facts.height, banner=facts.banner.height)
        self.model.require(*needs(prompts))
        found = self.engine().predict(
            image.image_id,
            prompts,
            model=self.model,
            multimask_output=multimask_output,
            preview_max_side=preview_max_side,
        )
        preview = preview_max_side is not None

        def ours(candidate: Candidate, prompt: Prompt) -> Candidate:
            mask = self._ours(candidate.mask, None if preview else image)
            origin = point_origin(self.identity, prompt, multimask_output)
            return dataclasses.replace(candidate, mask=dataclasses.replace(mask, origin=origin))

        return [
            dataclasses.replace(item, candidates=tuple(ours(candidate, prompt) for candidate in item.candidates))
            for item, prompt in zip(found, prompts, strict=True)
        ]

    def auto_defaults(self, preset: str = "default") -> AutoParameters:
        """The parameters of a preset for this session's model; see :mod:`segment_duo.segmenters.presets`."""
        from segment_duo.segmenters.presets import preset_parameters

        return preset_parameters(preset, self.model.auto_defaults)

    def auto(
        self,
        image: OpenImage,
        parameters: AutoParameters,
        *,
        preset: str = "",
        on_event: Callable[[AutoEvent], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> AutoResult:
        """All masks of an image. ``preset``: the name of what ``parameters`` began with, for the masks' origin.

        Raises:
            Cancelled: ``cancelled`` said so.
            PromptError: ``parameters.region`` does not lie on the image.
            UsageError: the model has no automatic masks.
        """
        from segment_duo.segmenters.base import Capability

        self.model.require(Capability.AUTOMATIC)
        if parameters.region is not None:
            facts = image.data.facts
            region = Prompt(box=parameters.region, object_id="region")
            check_prompts([region], width=facts.width, height=facts.height, banner=facts.banner.height)
        result = self.engine().auto(
            image.image_id,
            parameters,
            model=self.model,
            on_event=on_event,
            cancelled=cancelled,
        )
        origin = auto_origin(result.model or self.identity, parameters, preset, result.notes)
        masks = (dataclasses.replace(self._ours(mask, image), origin=origin) for mask in result.masks)
        return dataclasses.replace(result, masks=tuple(masks))

    def track(
        self,
        frames: Frames,
        prompts: Sequence[ObjectPrompt],
        *,
        direction: Direction = "forward",
        start: int | None = None,
        end: int | None = None,
        known: Known | None = None,
        on_progress: OnProgress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Iterator[TrackedFrame]:
        """Follow objects through a sequence; frames are read when they are needed, and results come as they are found.

        Args:
            frames: such as :func:`segment_duo.frames.sequence_of` gives. Coordinates are those of the uncut frames.
            prompts: at least one for each object.
            direction: ``both`` gives the frames after an object's first prompt, then those before it.
            start, end: the frames to answer, ``end`` not included; None for all. An object can have its prompts outside.
            known: results of a run before. With them frames before ``start`` (backward: from ``end`` on) are not computed again: those next to it are
                looked up. The first frames then differ slightly from those of an uninterrupted run.
            on_progress: (phase, done, total); phase ``frames`` counts frames, the others are the engine's within one.
            cancelled: asked about twice a second.

        Raises:
            UsageError: the model follows no objects; a stretch without frames; ``known`` with ``both``.
            PromptError: nothing to follow, or a prompt that is not on its frame.
            Cancelled: ``cancelled`` said so. What was found before was given already.
        """
        from segment_duo.following import Following
        from segment_duo.segmenters.asking import no_progress
        from segment_duo.segmenters.base import Capability

        self.model.require(Capability.TRACK)
        return Following(
            self.engine(), self.model, frames, prompts, direction=direction, start=start, end=end, known=known,
            on_progress=on_progress or no_progress, cancelled=cancelled, tell=self._tell,
        ).frames()  # fmt: skip

    @staticmethod
    def _ours(mask: Mask, image: OpenImage | None) -> Mask:
        """The engine's mask with our box, and on the uncut image unless that is None (a preview)."""
        from segment_duo.masks.rle import bounding_box, resize_canvas

        mask = dataclasses.replace(mask, bbox=bounding_box(mask.rle))
        if image is None or image.data.facts.banner.height == 0:
            return mask
        facts = image.data.facts
        return dataclasses.replace(mask, rle=resize_canvas(mask.rle, facts.height, facts.width))

    # -- images and their sets -----------------------------------------------------------------------------------------

    def load_with_image(
        self,
        ref: ImageRef,
        version: str | None = None,
        *,
        banner: str | int = "auto",
        pixel_size: PixelSize | None = None,
    ) -> tuple[LoadedSet, OpenImage]:
        """A set and its image, read as the set records it: its page, its banner unless told otherwise, its pixel size unless given."""
        loaded = self.sets.load(ref, version)
        recorded = loaded.mask_set.provenance
        cut = recorded.banner.height if banner == "auto" and recorded.banner else banner
        page = recorded.image.page if recorded.image else 0
        image = self.open_image(ref, page=page, banner=cut, pixel_size=pixel_size or recorded.pixel_size)
        return self.sets.refit(ref, loaded, image.data.facts), image

    def labelled_image(
        self, ref: ImageRef, version: str | None = None, *, page: int = 0, banner: str | int = "auto"
    ) -> LabelledImage:
        """An image without its banner, and the masks of a set of it. Raises NotFound when there is no such set."""
        image = self.open_image(ref, page=page, banner=banner)
        loaded = self.sets.load(ref, version, image.data.facts)
        return LabelledImage(image.data.pixels, loaded.mask_set.masks, loaded.version, image.data.facts.sha256)

    def save(
        self,
        image: OpenImage,
        masks: Iterable[Mask],
        *,
        operation: str,
        parameters: Mapping[str, Any] | None = None,
        suffix: str = "",
        parent: str | None = None,
        notices: Sequence[str] = (),
    ) -> Saved:
        """Save masks of an open image as a new version; see :meth:`SavedSets.save`.

        Args:
            operation: what is being saved (``auto``, ``point``, ``tui``, ...); what made each mask is in its ``origin``.
            parameters: of that operation, JSON values; None takes those of the masks, if all have the same.
            parent: the version that was edited.
        """
        made = tuple(masks)
        provenance = of_set(
            image.identity,
            image.data.facts,
            made,
            operation=operation,
            parameters=parameters,
            parent=parent,
            notices=notices,
            model=self.identity if operation == "auto" else None,
        )
        return self.sets.save(image.ref, made, provenance, suffix=suffix)

    def save_edit(
        self,
        ref: ImageRef,
        loaded: LoadedSet,
        masks: Sequence[Mask],
        *,
        operation: str,
        parameters: Mapping[str, Any],
        suffix: str = "",
    ) -> Saved:
        """Save what was made of a saved set without opening its image, as a new version.

        Raises:
            InputError: the set belongs to another image.
        """
        if not loaded.belongs:
            raise InputError(
                f"set {loaded.version.name} belongs to another image and is not edited as one of {ref}", loaded.notice
            )
        provenance = of_edit(
            loaded.mask_set.provenance, masks, operation=operation, parameters=parameters, parent=loaded.version.name
        )
        return self.sets.save(ref, masks, provenance, suffix=suffix)
