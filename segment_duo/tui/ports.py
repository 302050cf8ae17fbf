"""What the terminal UI needs from the rest of the program. :class:`segment_duo.session.Session` satisfies it, and for stacks and films
:class:`segment_duo.tui.film.Film`; tests bring small fakes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from segment_duo.parameters import AutoParameters
from segment_duo.types import (
    Box,
    Entry,
    ImageData,
    ImageFacts,
    ImageRef,
    Mask,
    MaskSet,
    PixelSize,
    Prompt,
    Provenance,
    Version,
)

if TYPE_CHECKING:
    from segment_duo.closer import PromptScale
    from segment_duo.engine.protocol import AutoEvent
    from segment_duo.engine.reports import EngineStatus
    from segment_duo.results import AutoResult, PredictedObject
    from segment_duo.segmenters.tracking import Direction
    from segment_duo.sequences import Followed, OnFrame
    from segment_duo.tui.timeline import SavedTracks


class OpenImagePort(Protocol):
    """A decoded image and where it came from."""

    @property
    def ref(self) -> ImageRef: ...
    @property
    def data(self) -> ImageData: ...


class LoadedSetPort(Protocol):
    @property
    def version(self) -> Version: ...
    @property
    def mask_set(self) -> MaskSet: ...
    @property
    def notice(self) -> str: ...


class PeekPort(Protocol):
    """``frames``: how many a sequence set has; None for a set of one image."""

    @property
    def count(self) -> int: ...
    @property
    def frames(self) -> int | None: ...
    @property
    def provenance(self) -> Provenance: ...


class ListedSetPort(Protocol):
    """``belongs``: None when the file cannot be read, and ``notice`` says why; ``peek`` is then None."""

    @property
    def version(self) -> Version: ...
    @property
    def belongs(self) -> bool | None: ...
    @property
    def notice(self) -> str: ...
    @property
    def peek(self) -> PeekPort | None: ...


class SavedPort(Protocol):
    """``spooled`` is the local file when the store was away, else None."""

    @property
    def version(self) -> Version | None: ...
    @property
    def path(self) -> str: ...
    @property
    def spooled(self) -> Path | None: ...


class ChosenModel(Protocol):
    """``input_size``: pixels a side that an image is shrunk to, 0 if it is taken as it is."""

    @property
    def id(self) -> str: ...
    @property
    def input_size(self) -> int: ...
    @property
    def capabilities(self) -> frozenset[str]: ...


class SetsPort(Protocol):
    """The saved sets; called as the use cases are."""

    def stems(self, folder: ImageRef) -> set[str]: ...
    def versions(self, ref: ImageRef) -> list[Version]: ...
    def listed(self, ref: ImageRef, facts: ImageFacts | None = None) -> Sequence[ListedSetPort]: ...
    def check_out(self) -> None: ...
    def load(self, ref: ImageRef, version: str | None = None, facts: ImageFacts | None = None) -> LoadedSetPort: ...


class SessionPort(Protocol):
    """The use cases. Every method may take long and may raise :class:`segment_duo.errors.SegduoError`; all are called in threads."""

    @property
    def model(self) -> ChosenModel: ...
    @property
    def sets(self) -> SetsPort: ...
    def reference(self, text: str) -> ImageRef: ...
    def list_folder(self, text: str) -> list[Entry]: ...
    def open_image(
        self, ref: ImageRef, *, page: int = 0, banner: str | int = "auto", pixel_size: PixelSize | None = None
    ) -> Any: ...
    def embed(self, image: Any, part: Box | None = None) -> Any: ...
    def predict(
        self,
        image: Any,
        prompts: Sequence[Prompt],
        *,
        multimask_output: bool | None = None,
        preview_max_side: int | None = None,
        part: Box | None = None,
    ) -> list[PredictedObject]: ...
    def predict_at_scale(
        self,
        image: Any,
        prompts: Sequence[Prompt],
        scale: PromptScale | None = None,
        *,
        multimask_output: bool | None = None,
    ) -> list[PredictedObject]: ...
    def auto(
        self,
        image: Any,
        parameters: AutoParameters,
        *,
        preset: str = "",
        part: Box | None = None,
        on_event: Callable[[AutoEvent], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> AutoResult: ...
    def auto_defaults(self, preset: str = "default") -> AutoParameters: ...
    def save(
        self,
        image: Any,
        masks: Sequence[Mask],
        *,
        operation: str,
        parameters: Mapping[str, Any] | None = None,
        suffix: str = "",
        parent: str | None = None,
    ) -> SavedPort: ...
    def engine_status(self, *, start: bool = False) -> EngineStatus | None: ...


class FilmPort(Protocol):
    """A stack or film that is open, its saved sequence sets, and what follows objects in it.

    Methods may take long and may raise :class:`segment_duo.errors.SegduoError`; all are called in threads, those that read a set by one at a time.
    """

    @property
    def ref(self) -> ImageRef: ...
    @property
    def named(self) -> ImageRef:
        """What its sets are called after."""
        ...

    @property
    def of_files(self) -> bool:
        """Whether each frame is a file of its own, so that none is a page with masks of its own."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about it, in sentences."""
        ...

    @property
    def count(self) -> int: ...
    @property
    def seconds(self) -> float | None: ...
    def image(self, frame: int) -> Any:
        """One frame, as :meth:`SessionPort.open_image` gives images."""
        ...

    def label(self, frame: int) -> str:
        """The name of the frame's own file; empty where it has none."""
        ...

    def frame_of(self, page: int) -> int:
        """The frame that is this page of the file."""
        ...

    def newest(self) -> str | None:
        """The version that was saved last, if it is a sequence set; with ``of_files`` the last one that is."""
        ...

    def load(self, version: str) -> SavedTracks:
        """Read from this sequence set from now on."""
        ...

    def masks(self, frame: int) -> tuple[Mask, ...]:
        """The masks of the set on a frame; none without a set."""
        ...

    def follow(
        self,
        objects: Sequence[tuple[int, int, Mask]],
        direction: Direction,
        *,
        onto: str | None,
        on_frame: OnFrame,
        cancelled: Callable[[], bool],
        enough: Callable[[], bool],
    ) -> Followed:
        """Follow objects, each given by (object, frame, mask), and save the result as a new version."""
        ...

    def link(self, *, on_frame: OnFrame, cancelled: Callable[[], bool]) -> Followed:
        """Link automatic masks of all frames, and save the result as a new version."""
        ...

    def save(
        self,
        changes: Mapping[int, Sequence[Mask]],
        *,
        onto: str | None,
        suffix: str = "",
        into: SessionPort | None = None,
        labels: Mapping[int, str] | None = None,
        gone: Collection[int] = (),
        since: int = 0,
    ) -> Followed:
        """Save masks of single frames, and of all others those of the version ``onto``, as a new version.

        ``into``: in that session's folder. ``labels``: of objects that got another one, on all frames. ``gone``: ids of objects to leave out,
        from the frame ``since`` on.
        """
        ...

    def close(self) -> None: ...
