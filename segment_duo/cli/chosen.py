"""Which saved sets are meant: ``IMAGE[@VERSION]``, or the file of a set; loading them, and telling which one was taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segment_duo.cli.inputs import expand_inputs, image_and_version
from segment_duo.cli.output import note
from segment_duo.errors import InputError, MaskFileError, NotFound, SegduoError, UsageError
from segment_duo.stores.base import has_magic
from segment_duo.types import ImageRef, MaskSet, PixelSize, Version

if TYPE_CHECKING:
    from segment_duo.library.library import ListedSet, LoadedSet
    from segment_duo.session import OpenImage, Session


@dataclass(frozen=True)
class Choice:
    """One set that is meant: of an image, by the version's name or (None) the latest; or, with ``is_file``, the file ``ref`` itself."""

    ref: ImageRef
    version: str | None = None
    is_file: bool = False

    def __str__(self) -> str:
        return self.ref.label

    def name(self, loaded: LoadedSet) -> str:
        """What to call the set that was loaded, as it can be typed."""
        return str(self.ref) if self.is_file else f"{self.ref}@{loaded.version.name}"


def parse_choice(session: Session, text: str) -> Choice:
    """What one argument means."""
    from segment_duo.library.versions import EXTENSION

    if text.endswith(EXTENSION):
        return Choice(session.reference(text), is_file=True)
    return Choice(*image_and_version(session, text))


def expand_choices(
    session: Session, texts: Sequence[str], frames: str | None = None
) -> tuple[list[Choice], list[tuple[str, SegduoError]]]:
    """What several arguments mean, and what means nothing, with the reason; folders and patterns of images stand for their latest sets.

    With ``frames`` (``--frame``) it is the latest sets of these frames; of several frames those without one are left out and counted on stderr.
    """
    found: list[Choice] = []
    failures: list[tuple[str, SegduoError]] = []
    for text in texts:
        choice = parse_choice(session, text)
        if frames is not None and (choice.is_file or choice.version is not None):
            raise UsageError(f"{text}: a set knows its frame", "Give --frame with images only.")
        if choice.is_file and has_magic(text) and session.store(choice.ref.store).stat(choice.ref.path) is None:
            files = session.store(choice.ref.store).glob(choice.ref.path)
            found.extend(Choice(ImageRef(choice.ref.store, entry.path), is_file=True) for entry in files)
            if not files:
                failures.append((text, NotFound(f"no sets match '{text}'")))
        elif choice.is_file or choice.version is not None:
            found.append(choice)
        else:
            inputs = expand_inputs(session, [text], None, frames)
            found.extend(Choice(ref) for ref in inputs.refs if ref.frame is None)
            found.extend(_of_frames(session, text, [ref for ref in inputs.refs if ref.frame is not None]))
            failures.extend(inputs.failures)
    return found, failures


def _of_frames(session: Session, text: str, refs: Sequence[ImageRef]) -> list[Choice]:
    if len(refs) <= 1:
        return [Choice(ref) for ref in refs]
    found = [Choice(ref, version.name) for ref, version in session.frames_with_sets(refs) if version is not None]
    if not found:
        raise NotFound(
            f"{text}: none of these {len(refs)} frames has saved masks", "Make some with `segduo auto --frame`."
        )
    if len(found) < len(refs):
        note(f"{text}: {len(refs) - len(found)} of {len(refs)} frames have no saved masks, left out")
    return found


def load(session: Session, choice: Choice) -> LoadedSet:
    """The set; says on stderr what keeps it from fitting its image exactly."""
    loaded = _load_file(session, choice.ref) if choice.is_file else session.sets.load(choice.ref, choice.version)
    if loaded.notice:
        note(loaded.notice)
    return loaded


def load_one(session: Session, text: str) -> tuple[LoadedSet, Choice]:
    """The set that one argument means; see :func:`load`."""
    choice = parse_choice(session, text)
    loaded = load(session, choice)
    identity = loaded.mask_set.provenance.image
    if identity and identity.page:
        note(f"{choice.name(loaded)} is of page {identity.page}")
    return loaded, choice


def load_pair(session: Session, first: str, second: str) -> tuple[MaskSet, MaskSet]:
    """Two sets to compare; ``@VERSION`` alone means the first one's image."""
    from segment_duo.library.versions import split_version

    other = split_version(first)[0] + second if second.startswith("@") else second
    return load_one(session, first)[0].mask_set, load_one(session, other)[0].mask_set


def load_with_image(
    session: Session, choice: Choice, *, banner: str | int, pixel_size: PixelSize | None
) -> tuple[LoadedSet, OpenImage | None]:
    """A set and its image, read as the set records it; a set given as a file does without when its image is not where it was."""
    if not choice.is_file:
        loaded, opened = session.load_with_image(choice.ref, choice.version, banner=banner, pixel_size=pixel_size)
        if loaded.notice:
            note(loaded.notice)
        return loaded, opened
    loaded = load(session, choice)
    recorded = loaded.mask_set.provenance
    if recorded.image is None:
        note(f"{choice}: the set does not say which image it is of; without the image there are no intensities")
        return loaded, None
    cut = recorded.banner.height if banner == "auto" and recorded.banner else banner
    try:
        image = session.open_image(
            session.reference(recorded.image.path),
            page=recorded.image.page,
            banner=cut,
            pixel_size=pixel_size or recorded.pixel_size,
        )
    except SegduoError as error:
        note(f"{choice}: its image cannot be read ({error.message}); without it there are no intensities")
        return loaded, None
    facts = image.data.facts
    if (facts.width, facts.height) != (recorded.image.width, recorded.image.height):
        note(f"{choice}: {recorded.image.path} has another size now; without the image there are no intensities")
        return loaded, None
    if recorded.image.sha256 and facts.sha256 != recorded.image.sha256:
        note(f"{choice}: {recorded.image.path} has changed since the set was made")
    return loaded, image


def image_of(session: Session, choice: Choice, loaded: LoadedSet) -> ImageRef:
    """The image whose set it is: where an edited version of it goes.

    Raises:
        InputError: a set given as a file does not say.
    """
    if not choice.is_file:
        return choice.ref
    identity = loaded.mask_set.provenance.image
    if identity is None or not identity.path:
        raise InputError(
            f"{choice}: the set does not say which image it is of",
            f"`segduo masks import IMAGE {choice}` gives it one.",
        )
    return session.reference(identity.path)


def series_of(session: Session, ref: ImageRef, loaded: LoadedSet) -> str:
    """The series that a set belongs to, also when it was given as a file: where what is made of it goes on."""
    at = loaded.version.path
    return next((known.suffix for known in session.sets.versions(ref) if known.path == at), loaded.version.suffix)


def tell_taken(session: Session, choice: Choice, loaded: LoadedSet) -> None:
    """Say on stderr which set was taken when none was named, and whether a much larger one may have been meant."""
    if choice.is_file or choice.version is not None:
        return
    count = masks(len(loaded.mask_set.masks))
    larger = session.sets.larger(choice.ref, loaded)
    if larger is None or larger.peek is None:
        note(f"{choice.name(loaded)}: {count}")
    else:
        other = f"{choice.ref}@{larger.version.name}"
        note(f"{choice.name(loaded)}: {count}, the latest set; {other} has {larger.peek.count}: name it if you mean it")


def masks(count: int) -> str:
    """A number of masks in words."""
    return "1 mask" if count == 1 else f"{count} masks"


def look_at_file(session: Session, ref: ImageRef) -> ListedSet:
    """The file of a set as a listing has it, without decoding its masks."""
    from segment_duo.library.library import ListedSet
    from segment_duo.library.sequence_files import peek_file

    store = session.store(ref.store)
    entry = store.stat(ref.path)
    version = Version(ref.name, "", 0, ref.path, entry.size if entry else 0, entry.modified if entry else 0.0)
    return ListedSet(version, str(ref), True, "", peek_file(store, ref.store, ref.path))


def _load_file(session: Session, ref: ImageRef) -> LoadedSet:
    from segment_duo.library.library import LoadedSet
    from segment_duo.library.sequence_files import SEQUENCE_HINT
    from segment_duo.masks.formats.native import loads
    from segment_duo.masks.formats.sequence import holds_sequence

    content, version = _read_file(session, ref)
    if holds_sequence(content):
        raise MaskFileError(f"{ref} is a sequence set: it holds masks of many frames", SEQUENCE_HINT)
    return LoadedSet(version, loads(content, name=str(ref), max_pixels=session.config.max_pixels))


def _read_file(session: Session, ref: ImageRef) -> tuple[bytes, Version]:
    store = session.store(ref.store)
    content = store.read(ref.path)
    entry = store.stat(ref.path)
    return content, Version(ref.name, "", 0, ref.path, len(content), entry.modified if entry else 0.0)
