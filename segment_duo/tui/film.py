"""A stack, a film or a folder of frames as the terminal UI uses it: frames, the sequence set that is shown, and the runs that make new ones.

    Film ──> segment_duo.sequences            opening, linking, saving edits
         └─> segment_duo.sequence_tracking    following objects

No Textual here, and no state of the UI: that is :mod:`segment_duo.tui.timeline`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from segment_duo.errors import MaskFileError
from segment_duo.segmenters.tracking import Direction
from segment_duo.tui.ports import SessionPort
from segment_duo.tui.timeline import SavedTracks
from segment_duo.types import ImageRef, Mask

if TYPE_CHECKING:
    from segment_duo.images.sequences import FolderSequence
    from segment_duo.masks.formats.sequence import SequenceHead, SequenceSet
    from segment_duo.opening import OpenImage
    from segment_duo.sequences import Followed, OnFrame, OpenSequence
    from segment_duo.session import Session


class Film:
    """The frames of one file, or of the images of a folder, all with one stretch of contrast. Satisfies :class:`segment_duo.tui.ports.FilmPort`."""

    def __init__(self, session: Session, opened: OpenSequence) -> None:
        self._session, self._opened = session, opened
        self._set: SequenceSet | None = None

    @classmethod
    def open(cls, session: Session, ref: ImageRef) -> Film:
        """A file, a folder or a pattern, as ``segduo track`` takes them. Raises NotFound, ImageError: it cannot be had."""
        from segment_duo.sequences import open_sequence

        return cls(session, open_sequence(session, dataclasses.replace(ref, frame=None)))

    def close(self) -> None:
        self._opened.frames.close()
        if self._set is not None:
            self._set.close()
            self._set = None

    @property
    def ref(self) -> ImageRef:
        return self._opened.ref

    @property
    def named(self) -> ImageRef:
        return self._opened.named

    @property
    def of_files(self) -> bool:
        return self._folder is not None

    @property
    def _folder(self) -> FolderSequence | None:
        from segment_duo.images.sequences import FolderSequence

        frames = self._opened.frames
        return frames if isinstance(frames, FolderSequence) else None

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._opened.frames.warnings

    @property
    def count(self) -> int:
        return len(self._opened.frames)

    @property
    def seconds(self) -> float | None:
        return self._opened.frames.frame_seconds

    def image(self, frame: int) -> OpenImage:
        return self._session.open_frame(self._opened.frames, self.ref, frame)

    def label(self, frame: int) -> str:
        return self._opened.frames.label(frame) if self.of_files else ""

    def frame_of(self, page: int) -> int:
        frames = self._opened.frames
        return next((frame for frame in range(self.count) if frames.page(frame) == page), 0)

    def newest(self) -> str | None:
        sets = self._session.sets
        versions = sets.versions(self.named)
        # Sets of one image that bear a folder's name are an image's of that name, and do not hide the folder's own.
        looked = versions if self.of_files else versions[:1]
        return next((one.name for one in looked if sets.peek(self.named, one).frames is not None), None)

    def load(self, version: str) -> SavedTracks:
        """Raises MaskFileError: it is no sequence set, or one of frames of another size."""
        from segment_duo.tracking.asked import asked_places

        _, found = self._session.sequences.open(self.named, version)
        frames = self._opened.frames
        if found.head.size != (frames.height, frames.width):
            found.close()
            height, width = found.head.size
            raise MaskFileError(
                f"version {version} is of frames of {width} x {height} px; these have {frames.width} x {frames.height}",
                "v shows the other versions.",
            )
        if self._set is not None:
            self._set.close()
        self._set = found
        return SavedTracks(
            version,
            frozenset(chunk.frame for chunk in found.chunks if chunk.ids),
            {life.id: (life.first, life.last) for life in found.lives()},
            frozenset((frame, one) for one, frame in asked_places(found.head)),
            ""
            if self._is_of_these(found.head)
            else "its frames had other names or another place; check where the masks lie",
        )

    def masks(self, frame: int) -> tuple[Mask, ...]:
        known = self._set
        return known.frame(frame).masks if known is not None and frame in known else ()

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
        from segment_duo.sequence_tracking import TrackRequest, follow
        from segment_duo.sequences import save_edited

        # A run is known again by what it asks for, in which the masks themselves are not.
        digest = hashlib.sha256("".join(mask.rle.counts for _, _, mask in objects).encode()).hexdigest()
        request = TrackRequest(masks=tuple(objects), direction=direction, source=f"terminal UI, masks {digest[:12]}")
        frames = self._frames_of(onto, {frame for _, frame, _ in objects})
        if onto is not None and frames.numbers != self._frames_of(onto, grown=False).numbers:
            # A correction is of a version with the same frames.
            onto = save_edited(self._session, frames, {}, onto=onto).saved.version.name
        return follow(
            self._session, frames, request,
            onto=onto, on_frame=on_frame, cancelled=cancelled, enough=enough,
        )  # fmt: skip

    def link(self, *, on_frame: OnFrame, cancelled: Callable[[], bool]) -> Followed:
        from segment_duo.sequences import LinkRequest, link

        request = LinkRequest(self._session.auto_defaults(), "default")
        return link(self._session, self._opened, request, on_frame=on_frame, cancelled=cancelled)

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
        from segment_duo.sequences import save_edited

        other = cast("Session | None", into)  # what gives sessions of other folders gives whole ones
        return save_edited(
            self._session, self._frames_of(onto, changes), changes,
            onto=onto, suffix=suffix, into=other, labels=labels, gone=gone, since=since,
        )  # fmt: skip

    def _frames_of(self, version: str | None, touched: Collection[int] = (), *, grown: bool = True) -> OpenSequence:
        """The frames that a version is of, which may be a choice of all; all of them where others are touched.

        ``grown``: files that came to the folder since the version was made count as chosen, if all were.
        """
        if version is None:
            return self._opened
        _, known = self._session.sequences.open(self.named, version)
        with known:
            head = known.head
        later = grown and self._is_grown(head)
        chosen = head.frames if set(touched) <= set(head.frames) and not later else self._opened.numbers
        return dataclasses.replace(self._opened, numbers=chosen)

    def _is_of_these(self, head: SequenceHead) -> bool:
        """Whether a set is of these files: of a folder by their names, to which others may have come behind the last one."""
        image = head.provenance.image
        if self._folder is None or image is None or not image.sha256:
            return True
        return image.sha256 == self._folder.names_sha256(head.axes.count)

    def _is_grown(self, head: SequenceHead) -> bool:
        """Whether a set is of all files of the folder but those that came later."""
        then = head.axes.count
        return self.of_files and head.frames == tuple(range(then)) and then < self.count and self._is_of_these(head)
