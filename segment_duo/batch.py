"""What is done with one image of many: :func:`segment_one`, which prints nothing, and whose request and outcome can go to another process.

requests ──pool.map(partial(segment_one, request=...), refs)──> outcomes
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from segment_duo.errors import SegduoError
from segment_duo.library.versions import frame_series
from segment_duo.provenance import parameters_record
from segment_duo.types import AutoParameters, ImageRef, Mask, PixelSize

if TYPE_CHECKING:
    from segment_duo.engine.protocol import AutoEvent
    from segment_duo.library.library import Saved
    from segment_duo.session import OpenImage, Session

Watch = Callable[["OpenImage"], AbstractContextManager[Callable[["AutoEvent"], None]]]
"""Called when the image is open; what it gives is entered while the engine computes, and called with its events."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to do with an image.

    Attributes:
        parameters: of all masks; None for the embedding alone.
        preset: the name of the preset that the parameters began with, for the set's provenance.
        settings: fields of :class:`segment_duo.config.Config` on top of the user's own, for a session opened here.
        out: folder for saved sets instead of the configured place, for a session opened here.
        page, banner, pixel_size: how the image is read, as :meth:`Session.open_image` takes them.
        suffix: the series of the saved set.
        skip_existing: leave out an image that has a set of this series.
        save: keep the masks as a new version.
    """

    parameters: AutoParameters | None = None
    preset: str = "default"
    settings: Mapping[str, object] = field(default_factory=dict)
    out: str | None = None
    page: int = 0
    banner: str | int = "auto"
    pixel_size: PixelSize | None = None
    suffix: str = ""
    skip_existing: bool = False
    save: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an image. Plain values only: it can be pickled.

    Attributes:
        state: ``failed`` if and only if there is an ``error``; ``skipped``: it had a set already.
        model: id of the model that was asked.
        image_id: the engine's name for the pixels; empty when it did not come to any answer of the engine.
        computed: whether the embedding (or the candidates) had to be computed; False when they were found again.
        seconds: the engine's work.
        masks: all masks, on the uncut image; also when they could not be saved.
        notes: approximations that were used.
        messages: what the session had to say, one line each, when it was opened here.
        saved: where the set is, if it was to be saved.
    """

    ref: ImageRef
    state: Literal["done", "skipped", "failed"] = "done"
    model: str = ""
    image_id: str = ""
    computed: bool = True
    seconds: float = 0.0
    masks: tuple[Mask, ...] = ()
    notes: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    saved: Saved | None = None
    error: SegduoError | None = None


def segment_one(
    ref: ImageRef, request: Request, *, session: Session | None = None, watch: Watch | None = None
) -> Outcome:
    """Do what ``request`` says with one image.

    Args:
        ref: the image.
        request: what to do.
        session: one that is open; without it one is opened by ``request.settings``, as another process must.
        watch: see :data:`Watch`.

    Returns:
        the outcome; an error raised on purpose is in it, so that one bad image does not end the work on the others.
    """
    messages: list[str] = []
    try:
        session = session or _session(request, messages)
        outcome = _segment(session, ref, request, watch or _nobody)
    except SegduoError as error:
        outcome = Outcome(ref, "failed", error=error)
    return dataclasses.replace(outcome, messages=tuple(messages))


def is_done(session: Session, ref: ImageRef, request: Request) -> bool:
    """Whether the image is left out, for it has a set already."""
    if not request.skip_existing:
        return False
    if ref.frame is None:
        return session.sets.has_sets(ref, suffix=request.suffix, page=request.page)
    return session.sets.has_sets(ref, suffix=frame_series(request.suffix, ref.frame), page=None)


def _session(request: Request, messages: list[str]) -> Session:
    from segment_duo.config import load_config
    from segment_duo.session import Session

    return Session(load_config(request.settings), out=request.out, notify=messages.append)


def _segment(session: Session, ref: ImageRef, request: Request, watch: Watch) -> Outcome:
    frame_series(request.suffix, ref.frame)  # a bad name is refused before anything is computed
    if is_done(session, ref, request):
        return Outcome(ref, "skipped")
    image = session.open_image(ref, page=request.page, banner=request.banner, pixel_size=request.pixel_size)
    if request.parameters is None:
        with watch(image):
            state = session.embed(image)
        return Outcome(ref, model=session.model.id, image_id=state.id, computed=state.computed, seconds=state.seconds)
    with watch(image) as on_event:
        result = session.auto(image, request.parameters, preset=request.preset, on_event=on_event)
    outcome = Outcome(
        ref,
        model=session.model.id,
        image_id=image.image_id,
        computed=not result.candidates_reused,
        seconds=result.seconds,
        masks=result.masks,
        notes=result.notes,
    )
    if not request.save:
        return outcome
    try:
        saved = session.save(
            image,
            result.masks,
            operation="auto",
            suffix=request.suffix,
            parameters=parameters_record(request.parameters, request.preset),
            notices=result.notes,
        )
    except SegduoError as error:  # the masks are not lost with it
        return dataclasses.replace(outcome, state="failed", error=error)
    return dataclasses.replace(outcome, saved=saved)


def _nobody(_image: OpenImage) -> AbstractContextManager[Callable[[AutoEvent], None]]:
    return nullcontext(lambda _event: None)
