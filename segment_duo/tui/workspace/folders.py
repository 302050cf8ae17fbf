"""The explorer: which folder it lists, where one can go, and paths typed by the user."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from segment_duo.errors import InputError, SegduoError
from segment_duo.paths import current_folder
from segment_duo.stores.base import has_magic
from segment_duo.tui.errands import Errand
from segment_duo.tui.explorer.explorer import Item
from segment_duo.tui.screens.ask import TypeLine
from segment_duo.tui.status.lines import short_path
from segment_duo.tui.wording import counted
from segment_duo.tui.workspace.desk import Desk
from segment_duo.types import ImageRef, StoreKind

QUEUE = "queue"
"""The pseudo-folder that lists the images named on the command line."""
PLACES = ""
"""The pseudo-folder that lists where one can go."""


class Folders:
    """Args:
    open_image: opens what is no folder, as users type it.
    open_film: opens the images of a folder, or of a pattern, as one film.
    """

    def __init__(self, desk: Desk, open_image: Callable[[str], None], open_film: Callable[[str], None]) -> None:
        self.desk = desk
        self._open = open_image
        self._open_film = open_film
        self.folder = PLACES
        self.queue: tuple[ImageRef, ...] = ()

    def start_at(self, text: str, *, film: bool = False) -> None:
        """Open what was named on the command line, or typed: a folder, an image, or a pattern, which is one film.

        ``film``: a folder is one, too.
        """

        def work(_: Errand) -> tuple[str, Callable[[str], None] | None]:
            ref = self.desk.session.reference(text)
            if film or is_pattern(ref):
                return str(ref), self._open_film
            return str(ref), None if is_folder(ref) else self._open

        def done(found: tuple[str, Callable[[str], None] | None]) -> None:
            target, opens = found
            if opens is None:
                self.show_folder(target, focus=True)
            else:
                self.show_folder(listed_with(target), at=target, counts=False)
                opens(target)

        self.desk.errands.start("start", work, done, what="Opening")

    def show_folder(self, target: str, *, at: str = "", focus: bool = False, counts: bool = True) -> None:
        """List a folder in the explorer; "" lists the places. ``counts``: say how many images there are while none is open."""
        if target == PLACES:
            self._show_places()
            return

        def work(_: Errand) -> tuple[Item, ...]:
            if target == QUEUE:
                with self.desk.store_lock:
                    return self._queued()
            with self.desk.store_lock:
                ref = self.desk.session.reference(target)
                entries = self.desk.session.list_folder(target)
                saved = self.desk.session.sets.stems(ref)
            return (*folder_items(ref, entries, saved), *unusable(ref))

        def done(items: tuple[Item, ...]) -> None:
            self.folder = target
            self.desk.explorer.show_title(
                f"queue of {counted(len(self.queue), 'image')}" if target == QUEUE else short_path(target)
            )
            images = sum(not item.is_folder for item in items)
            self.desk.explorer.show(items, hint="no images here", at=at)
            self.desk.show_header()
            if counts and not self.desk.image:
                self.desk.say(
                    f"{counted(images, 'image')} here. Enter opens, typing narrows the list, F1 shows all keys."
                )

        def failed(error: SegduoError) -> None:
            self.desk.report(error)
            if not self.desk.explorer.list.items:
                self._show_places()

        if focus:
            self.desk.explorer.remove_class("-hidden")
            self.desk.explorer.list.focus()
        self.desk.errands.start("folder", work, done, what="Reading the folder", failed=failed)

    def start_queue(self, refs: Sequence[ImageRef]) -> None:
        """List these images and open the first that is not done."""
        self.queue = tuple(refs)

        def work(_: Errand) -> tuple[Item, ...]:
            with self.desk.store_lock:
                return self._queued()

        def done(items: tuple[Item, ...]) -> None:
            first = next((item for item in items if not self.desk.explorer.list.is_done(item)), items[0])
            self.show_folder(QUEUE, at=first.target)
            self._open(first.target)

        self.desk.errands.start("start", work, done, what="Reading the queue")

    def _queued(self) -> tuple[Item, ...]:
        """The queue's lines. A folder that cannot be looked into has no marks; opening its images will tell why."""
        saved: dict[tuple[StoreKind, str], set[str]] = {}
        for ref in self.queue:
            if (ref.store, ref.folder) not in saved:
                saved[ref.store, ref.folder] = set()
                with contextlib.suppress(SegduoError):
                    saved[ref.store, ref.folder] = self.desk.session.sets.stems(ImageRef(ref.store, ref.folder))
        return tuple(
            Item(ref.name, str(ref), False, saved=ref.stem in saved[ref.store, ref.folder]) for ref in self.queue
        )

    def _show_places(self) -> None:
        self.folder = PLACES
        config = getattr(self.desk.session, "config", None)
        here = _here()
        items = [
            *([Item("working folder", here, True, note="local")] if here else []),
            Item("home", str(Path.home()), True, note="local"),
        ]
        if self.queue:
            items.insert(0, Item("queue", QUEUE, True, note=counted(len(self.queue), "image")))
        start = getattr(config, "start_folder", None)
        if start:
            items.insert(0, Item(start, start, True, note="start"))
        self.desk.explorer.show_title("places")
        self.desk.explorer.show(tuple(items))
        self.desk.say("Ctrl+O types a path; those on Drops begin with /drops/.")

    def chosen(self, item: Item) -> None:
        if not item.target:
            self.desk.say(
                "The name of this file is not UTF-8, so no set could be named after it. Rename it.", "warning"
            )
        elif item.is_folder:
            self.show_folder(item.target)
        else:
            self._open(item.target)

    def action_choose(self) -> None:
        self.desk.explorer.list.choose()

    def action_film(self) -> None:
        """Open the images of the folder under the cursor, or of the listed one, as the frames of a film."""
        images = self.desk.explorer.list
        item = images.items[images.cursor] if images.items else None
        target = item.target if item is not None and item.is_folder else self.folder
        if target in (PLACES, QUEUE):
            self.desk.say("A queue is no film: go to a folder, or Ctrl+O and type a pattern such as scan_*.tif.")
        else:
            self._open_film(target)

    def action_up(self) -> None:
        if self.folder == QUEUE:
            self._show_places()
        elif self.folder != PLACES:
            self.show_folder(parent_of(self.folder), at=self.folder)

    def action_reload(self) -> None:
        items = self.desk.explorer.list.items
        at = items[self.desk.explorer.list.cursor].target if items else ""
        self.show_folder(self.folder, at=at)

    def action_back(self) -> None:
        if self.desk.explorer.list.filter:
            self.desk.explorer.list.set_filter("")
        elif self.desk.image is not None:
            self.desk.canvas.focus()

    def action_explorer(self) -> None:
        self.action_side_bar()

    def action_side_bar(self) -> None:
        """Show the folder with the focus, or hide it; a picture that fills the screen makes room for it."""
        explorer, screen = self.desk.explorer, self.desk.screen
        hidden = explorer.has_class("-hidden") or screen.has_class("-full")
        screen.remove_class("-full")
        explorer.set_class(not hidden, "-hidden")
        if hidden:
            explorer.list.focus()
        elif screen.focused is explorer.list:
            self.desk.canvas.focus()

    def action_open_path(self) -> None:
        on_drops = self.folder.startswith("/drops")
        question = "A folder, an image, or a pattern (scan_*.tif) to open as one film; /drops/... is on the server."

        def take(text: str | None) -> None:
            if text and text.strip():
                self.start_at(drops_path(text.strip(), on_drops))

        value = str(self.desk.image.ref) if self.desk.image else (self.folder or _here())
        self.desk.ask(TypeLine("Open a path", question, value=value), take)

    def follow(self, ref: ImageRef) -> None:
        self.show_folder(listed_with(str(ref)), at=str(ref))


def is_folder(ref: ImageRef) -> bool:
    """Local paths are looked up; on Drops a name without an image's ending is taken for a folder."""
    if ref.store is StoreKind.LOCAL and os.path.lexists(ref.path):
        return Path(ref.path).is_dir()
    from segment_duo.images import IMAGE_SUFFIXES

    return not any(ref.name.lower().endswith(suffix) for suffix in IMAGE_SUFFIXES)


def is_pattern(ref: ImageRef) -> bool:
    """Whether wildcards are meant. A local file that is really called so is none; on a server brackets alone are taken for a name."""
    if ref.store is StoreKind.LOCAL:
        return has_magic(ref.path) and not os.path.lexists(ref.path)
    return any(sign in ref.path for sign in "*?")


def listed_with(target: str) -> str:
    """The folder to list for what is opened: the one above, of a pattern the last one above its wildcards."""
    folder = parent_of(target)
    while has_magic(folder) and not os.path.lexists(folder):
        folder = parent_of(folder)
    return folder


def parent_of(target: str) -> str:
    """The folder above, as users type it; :data:`PLACES` above the root and above Drops' first folders, for that root cannot be listed."""
    path = target.rstrip("/")
    head = path.rpartition("/")[0]
    if not path or head == "/drops" or path == "/drops":
        return PLACES
    return head or "/"


def drops_path(text: str, on_drops: bool) -> str:
    """``/labdaq`` typed while a folder on Drops is shown means ``/drops/labdaq``, unless there is such a local path."""
    if on_drops and text.startswith("/") and not text.startswith("/drops") and not os.path.lexists(text):
        return "/drops" + text
    return text


def folder_items(ref: ImageRef, entries: list[Any], saved: set[str]) -> tuple[Item, ...]:
    """Entries of a folder -> lines: folders, then images, each group in the given order (newest first)."""
    from segment_duo.images import IMAGE_SUFFIXES

    folders, images = [], []
    for entry in entries:
        own = ImageRef(ref.store, entry.path)
        if entry.is_folder:
            if not entry.name.startswith("."):
                folders.append(Item(entry.name, str(own), True, entry.modified))
        elif any(entry.name.lower().endswith(suffix) for suffix in IMAGE_SUFFIXES):
            images.append(Item(entry.name, str(own), False, entry.modified, own.stem in saved))
    return (*folders, *images)


def unusable(ref: ImageRef) -> tuple[Item, ...]:
    """Lines for local images whose names are not UTF-8: stores leave them out, and a file that vanishes would be a riddle."""
    from segment_duo.images import IMAGE_SUFFIXES

    if ref.store is not StoreKind.LOCAL or not Path(ref.path).is_dir():
        return ()
    names = sorted(path.name for path in Path(ref.path).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return tuple(Item(name, "", False, note="not UTF-8") for name in names if not name.isascii() and not _is_utf8(name))


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _here() -> str:
    """The current folder; empty when it has been removed."""
    try:
        return str(current_folder())
    except InputError:
        return ""
