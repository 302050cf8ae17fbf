"""The classes below the list of masks: number key, colour, name, how many masks have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text
from textual.widgets import Static

from segment_duo.masks.classes import MaskClass
from segment_duo.text import safe


class ClassList(Static):
    """Hidden where there is neither a class nor a label."""

    DEFAULT_CSS = """
    ClassList { height: auto; max-height: 5; padding: 0 1; background: $surface; color: $foreground; }
    ClassList.-none { display: none; }
    """

    def __init__(self) -> None:
        super().__init__("", id="classes", markup=False)
        self._shown: object = None

    def show(self, classes: Sequence[MaskClass], counts: Mapping[str, int]) -> None:
        """``counts``: label -> masks; labels that are no classes come after them."""
        wanted = (tuple(classes), dict(counts))
        if wanted == self._shown:
            return
        self._shown = wanted
        names = {one.name for one in classes}
        others = [label for label in counts if label and label not in names]
        line = Text(overflow="fold")
        for one in classes:
            line.append("■\u00a0", f"rgb({one.colour[0]},{one.colour[1]},{one.colour[2]})")
            line.append(f"{one.key}\u00a0" if one.key else "", "bold")
            line.append(f"{_whole(one.name)}\u00a0{counts.get(one.name, 0)}  ")
        for label in others:
            line.append(f"{_whole(label)}\u00a0{counts[label]}  ")
        self.set_class(not classes and not others, "-none")
        self.update(line)


def _whole(label: str) -> str:
    """Escaped, and not broken at its spaces."""
    return safe(label, limit=20).replace(" ", "\u00a0")
