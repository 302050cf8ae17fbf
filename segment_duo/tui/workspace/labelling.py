"""Labels: by a typed word, or by the number key of a class."""

from __future__ import annotations

from collections.abc import Callable

from segment_duo.tui.screens.ask import TypeLine
from segment_duo.tui.wording import counted
from segment_duo.tui.workspace.desk import Desk


class Labelling:
    """Args:
    edited: called after every change of the document.
    """

    def __init__(self, desk: Desk, edited: Callable[[], None]) -> None:
        self.desk = desk
        self._edited = edited

    def _meant(self) -> frozenset[int]:
        """The selected masks, or else the current one."""
        doc = self.desk.doc
        return doc.selected or frozenset({doc.current} if doc.current is not None else ())

    def action_classify(self, key: str) -> None:
        """Give the class with this number key; to masks that all have it already: take it off."""
        found = next((one for one in self.desk.classes if one.key == key), None)
        if found is None:
            named = ", ".join(f"{one.key} {one.name}" for one in self.desk.classes if one.key)
            self.desk.say(
                f"No class has the key {key}. {'There are: ' + named if named else 'The table [classes] of config.toml names them'}."
            )
            return
        doc, ids = self.desk.doc, self._meant()
        if not ids:
            self.desk.say("No mask is the current one and none is selected: n goes to the next.")
            return
        off = all(mask.label == found.name for mask in doc.masks if mask.id in ids)
        count = doc.label(ids, "" if off else found.name)
        what = f"mask {min(ids)}" if count == 1 and len(ids) == 1 else counted(count, "mask")
        self.desk.say(f"Label taken off {what}." if off else f"{found.name}: {what}; u takes it back.")
        self._edited()

    def action_label(self) -> None:
        doc, ids = self.desk.doc, self._meant()
        if not ids:
            self.desk.say("No mask to label yet.")
            return
        first = doc.mask(min(ids))
        known = sorted({mask.label for mask in doc.masks if mask.label} | {one.name for one in self.desk.classes})

        def take(text: str | None) -> None:
            if text is not None:
                count = doc.label(ids, text.strip())
                self.desk.say(f"Label set for {counted(count, 'mask')}.")
                self._edited()

        what = f"mask {min(ids)}" if len(ids) == 1 else f"the {len(ids)} selected masks"
        dialog = TypeLine(
            "Label",
            f"Label of {what}; empty removes it.",
            value=first.label if first else "",
            check=lambda text: "At most 100 characters, please." if len(text) > 100 else "",
            suggestions=known,
        )
        self.desk.ask(dialog, take)
