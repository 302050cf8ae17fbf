"""The use cases, as the front ends call them: open an image, prompt, generate, save, load.

    cli, tui, api ──> Session ──> stores   (bytes and names)
                         ├──> images   (bytes -> pixels and facts)
                         ├──> library ──> masks, stores   (which sets there are, and whose)
                         └──> engine.link ══ socket ══> the engine (pixels and prompts -> masks)

The engine sees the image without its info banner; everything a front end gets from here has the size and the coordinates of the
uncut image. Nothing here prints, asks or knows a widget.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from segment_duo.closer import PromptScale, look_closer
from segment_duo.engine.link import EngineLink
from segment_duo.errors import InputError, ModelError, NotFound
from segment_duo.in_turn import ask_in_turn
from segment_duo.library.library import LoadedSet, Saved, SavedSets
from segment_duo.library.sequences import SequenceSets
from segment_duo.library.versions import frame_of_series, frame_series
from segment_duo.opening import Images, LabelledImage, OpenImage
from segment_duo.parameters import AutoParameters
from segment_duo.paths import Paths
from segment_duo.prompts import check_prompts
from segment_duo.provenance import auto_origin, of_edit, of_set, point_origin
from segment_duo.stores.locate import parse_reference
from segment_duo.types import Box, Entry, ImageRef, Mask, ModelIdentity, PixelSize, Prompt, StoreKind, Version
from segment_duo.waiting import StillWaiting

if TYPE_CHECKING:
    import numpy.typing as npt

    from segment_duo.config import Config, Resolved
    from segment_duo.engine.api import Engine
    from segment_duo.engine.protocol import AutoEvent, ImageState
    from segment_duo.engine.reports import EngineStatus
    from segment_duo.images.sequences import FrameSequence
    from segment_duo.models.choice import ModelChoice
    from segment_duo.results import AutoResult, Candidate, PredictedObject
    from segment_duo.segmenters.asking import OnProgress
    from segment_duo.segmenters.tracking import Direction, Frames, Known, Newcomers, ObjectPrompt, TrackedFrame
    from segment_duo.stores.base import Store

__all__ = ["LabelledImage", "OpenImage", "Session"]


class Session:
    """One user's work with one configuration. Its methods may be called from several threads."""

    def __init__(
        self,
        resolved: Resolved,
        paths: Paths | None = None,
        *,
        out: str | None = None,
        notify: Callable[[str], None] | None = None,
        waiting: StillWaiting | None = None,
    ) -> None:
        """Args:
        resolved: the settings.
        paths: the user's folders.
        out: a folder for saved sets instead of the configured place (``--out``).
        notify: receives one-line messages for the user, such as that the engine died and is started again.
        waiting: tells the user what is waited for, the engine or a server; by default it tells ``notify``.
        """
        self.resolved = resolved
        self.paths = paths or Paths.default()
        self._notify = notify
        waiting = waiting or StillWaiting(notify)
        self._images = Images(self.config, self.paths, self._tell, waiting)
        self.sets = SavedSets(self.config, self.paths, self.store, out=out, tell=self._tell)
        self.sequences = SequenceSets(self.sets, self.store, self.paths, max_pixels=self.config.max_pixels)
        self._link = EngineLink(self.config, self.paths, waiting, notify=notify, pixels_of=self._images.pixels_of)

    @property
    def config(self) -> Config:
        return self.resolved.config

    # -- the engine ---------------------------------------------------------------------------------------------------

    @property
    def model(self) -> ModelChoice:
        """The model that this session's requests name."""
        return self._link.model

    @property
    def identity(self) -> ModelIdentity:
        """The model of this session's requests, as sets record it."""
        return ModelIdentity(self.model.id, self.model.sha256)

    def engine(self) -> Engine:
        """The engine, started when none answers."""
        return self._link.engine()

    def engine_status(self, *, start: bool = False) -> EngineStatus | None:
        """What the engine says of itself; None when none runs (and ``start`` is not set)."""
        engine = self.engine() if start else self._link.running()
        return engine.status() if engine else None

    # -- images -------------------------------------------------------------------------------------------------------

    def store(self, kind: StoreKind) -> Store:
        return self._images.store(kind)

    def reference(self, text: str) -> ImageRef:
        """What the user typed -> where it is."""
        return parse_reference(text)

    def list_folder(self, text: str) -> list[Entry]:
        """The entries of a folder, newest first."""
        ref = self.reference(text)
        try:
            return self.store(ref.store).list(ref.path)
        except NotFound as error:
            raise NotFound(error.message, self.missing_hint(ref) or error.hint) from None

    def open_image(
        self, ref: ImageRef, *, page: int = 0, banner: str | int = "auto", pixel_size: PixelSize | None = None
    ) -> OpenImage:
        """Read and decode an image; maker's text files beside it are read when the image itself does not tell its scale.

        Args:
            ref: a file; with a ``frame`` that one alone is decoded, and the stack or film stays open for the next.
            page: of a TIFF as the file has them, for a ``ref`` without a frame; of a film the frame.
            banner, pixel_size: see :func:`segment_duo.images.read_image`.

        Raises:
            NotFound, ImageError, DropsError, StoreError
        """
        return self._images.open(ref, page=page, banner=banner, pixel_size=pixel_size)

    def open_frame(self, sequence: FrameSequence, ref: ImageRef, number: int) -> OpenImage:
        """One frame of an open sequence, whose reference is ``ref``; raises as :meth:`FrameSequence.frame` does."""
        return self._images.open_frame(sequence, ref, number)

    def open_array(
        self, samples: npt.NDArray[Any], *, name: str = "array", banner: int = 0, pixel_size: PixelSize | None = None
    ) -> OpenImage:
        """Prepare an image that is in memory already, (H, W) or (H, W, 3) of any depth; see :func:`segment_duo.images.read_array`."""
        return self._images.open_array(samples, name=name, banner=banner, pixel_size=pixel_size)

    def frames(self, ref: ImageRef, text: str) -> Sequence[ImageRef]:
        """The frames that ``text`` (``all``, ``7``, ``0:100:2``) means of a stack, a film, a folder or a pattern: each a reference of its own.

        In a folder, or of a pattern, they are its files in natural order. A file of one image is itself.

        Raises:
            NotFound, ImageError: nothing there, or nothing that can be read.
            UsageError: ``text`` is no range of frames, or means none.
        """
        return self._images.frames(ref, text)

    def frames_with_sets(self, refs: Sequence[ImageRef]) -> Sequence[tuple[ImageRef, Version | None]]:
        """Each of the frames of one stack or film with the latest set of it; a look into each set's file, once for all frames."""
        latest = self.sets.latest_by_page(refs[0])
        pages = self._images.pages(refs)
        return [(ref, latest.get(page)) for ref, page in zip(refs, pages, strict=True)]

    def missing_hint(self, ref: ImageRef) -> str:
        """The next step for somebody whose file or folder is not there; empty when nothing explains it."""
        return self._images.missing_hint(ref)

    def _tell(self, message: str) -> None:
        if self._notify is not None:
            self._notify(message)

    def is_embedded(self, image: OpenImage) -> str | None:
        """``memory`` or ``disk`` when the running engine has this image's embedding, else None. Starts nothing."""
        engine = self._link.running()
        try:
            return engine.image_state(image.image_id, model=self.model).embedding if engine else None
        except ModelError:
            return None

    # -- masks from the engine ----------------------------------------------------------------------------------------

    def embed(self, image: OpenImage, part: Box | None = None) -> ImageState:
        """Make sure that the engine has the embedding of this image, or of a part of it."""
        if part is not None:
            image = self._images.part(image, part)
        with self._link.at_work() as engine:
            return engine.ensure_image(image.data.pixels, image_id=image.image_id, model=self.model)

    def predict(
        self,
        image: OpenImage,
        prompts: Sequence[Prompt],
        *,
        multimask_output: bool | None = None,
        preview_max_side: int | None = None,
        part: Box | None = None,
    ) -> list[PredictedObject]:
        """Masks for prompts, one result for each; candidates of a result best first.

        Args:
            multimask_output: three candidates for each prompt or one; None follows SAM's advice (three for a single point).
            preview_max_side: ask for small masks, at most this many pixels a side, for a display; they keep the preview's size.
            part: have the model look at this part of the image only, whose embedding must be there (:meth:`embed`) or can be made; corners are
                whole pixels, both inside. Not with previews.

        Raises:
            PromptError: a prompt is not on the image.
            UsageError: the model does not take such prompts.
        """
        from segment_duo.masks.part import cut_mask, into_part, uncut
        from segment_duo.models.choice import needs

        facts = image.data.facts
        check_prompts(prompts, width=facts.width, height=facts.height, banner=facts.banner.height)
        self.model.require(*needs(prompts))
        cut = [cut_mask(prompt, facts) for prompt in prompts]
        seen = self._images.part(image, part) if part is not None else image
        if part is not None:
            self.embed(image, part)
            cut = [into_part(prompt, part) for prompt in cut]
        with self._link.at_work() as engine:
            found = engine.predict(
                seen.image_id,
                cut,
                model=self.model,
                multimask_output=multimask_output,
                preview_max_side=preview_max_side,
            )
        preview = preview_max_side is not None

        def ours(candidate: Candidate, prompt: Prompt) -> Candidate:
            mask = uncut(candidate.mask, None if preview else image.data.facts, part)
            origin = point_origin(self.identity, prompt, multimask_output, part)
            return dataclasses.replace(candidate, mask=dataclasses.replace(mask, origin=origin))

        return [
            dataclasses.replace(item, candidates=tuple(ours(candidate, prompt) for candidate in item.candidates))
            for item, prompt in zip(found, prompts, strict=True)
        ]

    def predict_at_scale(
        self,
        image: OpenImage,
        prompts: Sequence[Prompt],
        scale: PromptScale | None = None,
        *,
        multimask_output: bool | None = None,
        in_turn: bool | None = None,
    ) -> list[PredictedObject]:
        """As :meth:`predict`, in the way that suits the model.

        With ``closer`` the model also looks at parts of the image around each prompt, and the better mask counts; its origin names the part that it
        is from. With ``in_turn`` each point refines the mask of those before it, else all are given at once. None: ``closer`` and in turn for models
        whose input is smaller than SAM 2's, neither for others.
        """
        facts = image.data.facts
        check_prompts(prompts, width=facts.width, height=facts.height, banner=facts.banner.height)

        def predict(asked: Sequence[Prompt], part: Box | None) -> list[PredictedObject]:
            answer = partial(self.predict, image, part=part)
            last = partial(answer, multimask_output=multimask_output)
            return ask_in_turn(last, answer, asked) if by_turns else last(asked)

        if in_turn:
            from segment_duo.segmenters.base import Capability

            self.model.require(Capability.MASK_INPUT)
        by_turns = self.model.learns_in_turn if in_turn is None else in_turn

        if scale == "whole" or (scale is None and not self.model.is_small):
            return predict(prompts, None)
        return look_closer(predict, prompts, facts.width, facts.cut_height, self.model.input_size)

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
        part: Box | None = None,
        on_event: Callable[[AutoEvent], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> AutoResult:
        """All masks of an image. ``preset``: the name of what ``parameters`` began with, for the masks' origin. ``part``: as of
        :meth:`predict`; ``parameters.region`` then counts inside it.

        Raises:
            Cancelled: ``cancelled`` said so.
            PromptError: ``parameters.region`` does not lie on the image.
            UsageError: the model has no automatic masks.
        """
        from segment_duo.masks.part import into_part, uncut
        from segment_duo.models.choice import automatic_needs

        self.model.require(*automatic_needs(parameters))
        if parameters.region is not None:
            facts = image.data.facts
            region = Prompt(box=parameters.region, object_id="region")
            check_prompts([region], width=facts.width, height=facts.height, banner=facts.banner.height)
        seen, wanted = image, parameters
        if part is not None:
            seen = self._images.part(image, part)
            self.embed(image, part)
            inside = into_part(Prompt(box=parameters.region), part).box if parameters.region is not None else None
            wanted = dataclasses.replace(parameters, region=inside)
        with self._link.at_work() as engine:
            result = engine.auto(
                seen.image_id,
                wanted,
                model=self.model,
                on_event=on_event,
                cancelled=cancelled,
            )
        origin = auto_origin(result.model or self.identity, parameters, preset, result.notes, part)
        masks = (dataclasses.replace(uncut(mask, image.data.facts, part), origin=origin) for mask in result.masks)
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
        newcomers: Newcomers | None = None,
        fast: bool = False,
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
            newcomers: asked after each frame for objects that come in there; forward only.
            fast: the model may approximate.
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
            newcomers=newcomers, fast=fast, on_progress=on_progress or no_progress, cancelled=cancelled, tell=self._tell,
        ).frames()  # fmt: skip

    # -- images and their sets -----------------------------------------------------------------------------------------

    def load_with_image(
        self,
        ref: ImageRef,
        version: str | None = None,
        *,
        banner: str | int = "auto",
        pixel_size: PixelSize | None = None,
    ) -> tuple[LoadedSet, OpenImage]:
        """A set and its image, read as the set records it: its page, its banner unless told otherwise, its pixel size unless given.

        Of a ``ref`` with a frame it is that frame, and the latest set of it.
        """
        if ref.frame is not None:
            return self._of_frame(ref, version, banner=banner, pixel_size=pixel_size)
        loaded = self.sets.load(ref, version)
        recorded = loaded.mask_set.provenance
        cut = recorded.banner.height if banner == "auto" and recorded.banner else banner
        page = recorded.image.page if recorded.image else 0
        image = self.open_image(ref, page=page, banner=cut, pixel_size=pixel_size or recorded.pixel_size)
        return self.sets.refit(ref, loaded, image.data.facts), image

    def _of_frame(
        self, ref: ImageRef, version: str | None, *, banner: str | int, pixel_size: PixelSize | None
    ) -> tuple[LoadedSet, OpenImage]:
        image = self.open_image(ref, banner=banner, pixel_size=pixel_size)
        loaded = self.sets.load(ref, version, image.data.facts)
        recorded = loaded.mask_set.provenance
        cut = recorded.banner.height if banner == "auto" and recorded.banner else banner
        facts = image.data.facts
        scale = pixel_size or recorded.pixel_size
        if cut not in ("auto", facts.banner.height) or (scale is not None and scale != facts.pixel_size):
            image = self.open_image(ref, banner=cut, pixel_size=scale)
        return loaded, image

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
            suffix: of the series; a frame's number is put behind it.
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
        return self.sets.save(image.ref, made, provenance, suffix=frame_series(suffix, image.ref.frame))

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
        series = frame_series(suffix, frame_of_series(loaded.version.suffix))
        return self.sets.save(ref, masks, provenance, suffix=series)
