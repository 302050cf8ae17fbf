"""What is done with one image of many: :func:`segment_one`, which prints nothing, and whose request and outcome can go to another process.

requests ──pool.map(partial(segment_one, request=...), refs)──> outcomes
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from segment_duo.errors import MaskFileError, SegduoError
from segment_duo.library.versions import frame_series
from segment_duo.parameters import AutoParameters
from segment_duo.provenance import made_since, parameters_record
from segment_duo.types import ImageRef, Mask, PixelSize

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

    def record(self) -> dict[str, Any]:
        """What tells one batch from another, as JSON values."""
        size = self.pixel_size
        return {
            "parameters": parameters_record(self.parameters) if self.parameters else None,
            "page": self.page,
            "banner": self.banner,
            "pixel_size": [size.x_nm, size.y_nm] if size else None,
            "suffix": self.suffix,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an image. Plain values only: it can be pickled.

    Attributes:
        state: ``failed`` if and only if there is an ``error``; ``skipped``: it had a set already.
        model, model_sha256: id of the model that was asked, and the hash of its weights.
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
    model_sha256: str = ""
    image_id: str = ""
    computed: bool = True
    seconds: float = 0.0
    masks: tuple[Mask, ...] = ()
    notes: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    saved: Saved | None = None
    error: SegduoError | None = None


def segment_one(
    ref: ImageRef,
    request: Request,
    *,
    session: Session | None = None,
    watch: Watch | None = None,
    since: float | None = None,
) -> Outcome:
    """Do what ``request`` says with one image.

    Args:
        ref: the image.
        request: what to do.
        session: one that is open; without it one is opened by ``request.settings``, as another process must.
        watch: see :data:`Watch`.
        since: an attempt began then (seconds since the epoch, on whatever machine) and may have saved the set before it died: look first.

    Returns:
        the outcome; an error raised on purpose is in it, so that one bad image does not end the work on the others.
    """
    messages: list[str] = []
    try:
        session = session or _session(request, messages)
        found = _made_since(session, ref, request, since) if since is not None else None
        outcome = found or _segment(session, ref, request, watch or _nobody)
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
    from segment_duo.waiting import StillWaiting

    # Whoever reads the messages reads them when the waiting is over.
    return Session(load_config(request.settings), out=request.out, notify=messages.append, waiting=StillWaiting(None))


def _segment(session: Session, ref: ImageRef, request: Request, watch: Watch) -> Outcome:
    frame_series(request.suffix, ref.frame)  # a bad name is refused before anything is computed
    if is_done(session, ref, request):
        return Outcome(ref, "skipped")
    image = session.open_image(ref, page=request.page, banner=request.banner, pixel_size=request.pixel_size)
    model = session.model
    if request.parameters is None:
        with watch(image):
            state = session.embed(image)
        return Outcome(
            ref,
            model=model.id,
            model_sha256=model.sha256,
            image_id=state.id,
            computed=state.computed,
            seconds=state.seconds,
        )
    with watch(image) as on_event:
        result = session.auto(image, request.parameters, preset=request.preset, on_event=on_event)
    outcome = Outcome(
        ref,
        model=model.id,
        model_sha256=model.sha256,
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


def _made_since(session: Session, ref: ImageRef, request: Request, since: float) -> Outcome | None:
    """The outcome of an attempt that saved its set and died before it could say so, if there was one."""
    if request.parameters is None or not request.save:
        return None
    from segment_duo.library.library import Saved

    wanted = _plain(parameters_record(request.parameters, request.preset))
    for version in session.sets.versions(ref, request.suffix):
        try:
            known = session.sets.peek(ref, version).provenance
            if not (
                known.operation == "auto"
                and known.image is not None
                and (known.image.path, known.image.page) == (str(ref), request.page)
                and known.model == session.identity
                and _plain(known.parameters) == wanted
                and made_since(known.created, since)
            ):
                continue
            masks = session.sets.read(ref, version)
        except MaskFileError:
            continue
        kind, _ = session.sets.folder(ref)
        saved = Saved(str(ImageRef(kind, version.path)), version, masks)
        model = session.model
        return Outcome(
            ref, model=model.id, model_sha256=model.sha256, masks=masks.masks, notes=known.notices, saved=saved
        )
    return None


def _plain(parameters: Mapping[str, object]) -> str:
    """Equal for equal parameters, whether they have been through a file (tuples become lists there) or not."""
    return json.dumps(parameters, sort_keys=True, default=str)


def _nobody(_image: OpenImage) -> AbstractContextManager[Callable[[AutoEvent], None]]:
    return nullcontext(lambda _event: None)
