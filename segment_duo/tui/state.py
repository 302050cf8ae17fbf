"""The document the user edits: masks, ticks, points, and the way back through every edit.

    Snapshot   everything an edit can change, frozen (snapshot.py)
    Document   the present snapshot, the past and the future ones, the mask candidates of the present points

Where a mask comes from is in the mask itself (``origin``, from the session); a correction notes itself there.

Every edit replaces the snapshot as a whole, so undo cannot miss a field. Pure data: no Textual, no engine, no disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from segment_duo.boxes import ends
from segment_duo.masks.classes import labelled
from segment_duo.masks.part import holds
from segment_duo.provenance import edited, is_reshaped, label_step, part_of
from segment_duo.tui.listing import ORDERS, SizeFilter, sort_key
from segment_duo.tui.snapshot import Logits, Snapshot
from segment_duo.tui.wording import counted
from segment_duo.types import Box, Mask, Point, Prompt

if TYPE_CHECKING:
    from segment_duo.results import Candidate

T = TypeVar("T")
UNDO_STEPS = 500

Addition = Literal["replace-auto", "add", "replace-all"]
"""What becomes of the masks that are there when automatic ones come: only automatic ones go, none goes, all go."""


@dataclass
class Document:
    """Masks and points of one image, with undo and redo."""

    present: Snapshot = field(default_factory=Snapshot)
    current: int | None = None
    """Id of the mask the list's cursor is on."""
    corner: tuple[int, int] | None = None
    """First corner of a box that is being drawn."""
    filter: SizeFilter = field(default_factory=SizeFilter)
    order: str = ORDERS[0]
    """In which order the list shows the masks, of :data:`ORDERS`."""
    version: str | None = None
    """Name of the saved version these masks came from or were last saved as."""
    candidates: tuple[Candidate, ...] = ()
    candidate_index: int = 0
    least_id: int = 0
    """New masks get this id or a higher one."""
    _past: list[tuple[str, Snapshot]] = field(default_factory=list)
    _future: list[tuple[str, Snapshot]] = field(default_factory=list)
    _saved: tuple[Mask, ...] = ()
    _listed: tuple[tuple[object, ...], tuple[Mask, ...]] | None = None

    # What is there

    @property
    def masks(self) -> tuple[Mask, ...]:
        return self.present.masks

    @property
    def shown(self) -> tuple[Mask, ...]:
        """The masks that pass the filter, in the list's order."""
        if not self.filter and self.order == ORDERS[0]:
            return self.masks
        wanted = (self.masks, self.filter, self.order)
        if self._listed is None or any(a is not b for a, b in zip(self._listed[0], wanted, strict=True)):
            found = [mask for mask in self.masks if self.filter.accepts(mask)]
            if self.order != ORDERS[0] and found:
                found.sort(key=sort_key(self.order, found))
            self._listed = (wanted, tuple(found))
        return self._listed[1]

    @property
    def selected(self) -> frozenset[int]:
        return self.present.selected

    @property
    def unsaved(self) -> bool:
        """Whether the masks differ from the saved ones. Ticks and points are not saved."""
        return self.masks is not self._saved and self.masks != self._saved

    @property
    def saved(self) -> tuple[Mask, ...]:
        """The masks as they are on the disk."""
        return self._saved

    @property
    def pointing(self) -> bool:
        """Whether a mask is being made."""
        return bool(self.present.points) or self.present.box is not None

    @property
    def refining(self) -> Mask | None:
        """The mask that the points correct."""
        return self.mask(self.present.refines)

    @property
    def candidate(self) -> Candidate | None:
        return self.candidates[self.candidate_index] if self.candidates else None

    def mask(self, mask_id: int | None) -> Mask | None:
        return next((mask for mask in self.masks if mask.id == mask_id), None)

    def prompt(self, *, as_mask: bool = False) -> Prompt | None:
        """What to ask the engine for the present points, or None without any. ``as_mask``: the model takes a mask to go on with."""
        if not self.pointing:
            return None
        found = self.present
        points, box = found.points, found.box
        mask = self.refining
        if mask is not None and found.mask_input is None:
            # Without logits to go on with, the mask itself says which object is meant, and its box, grown to what is to be added.
            left, top, right, bottom = ends(mask.bbox)
            xs = [left, max(right, left + 1), *(point.x for point in points if point.label)]
            ys = [top, max(bottom, top + 1), *(point.y for point in points if point.label)]
            box = box or Box(min(xs), min(ys), max(xs), max(ys))
            return Prompt(points=points, box=box, mask=mask.rle if as_mask else None)
        return Prompt(points=points, box=box, mask_input=found.mask_input)

    # Edits: each is one undo step

    def add_point(self, point: Point, part: Box | None = None) -> None:
        """A further point refines the mask that is shown. ``part``: what the model is to see, for a first point and where the part before ends."""
        name = "include point" if point.label else "exclude point"
        self._ask(name, replace(self.present, points=(*self.present.points, point)), part)

    def set_box(self, box: Box, part: Box | None = None) -> None:
        """A box for the mask that is being made; ``part`` as of :meth:`add_point`."""
        self.corner = None
        self._ask("box", replace(self.present, box=box), part)

    def _ask(self, name: str, asked: Snapshot, part: Box | None) -> None:
        """Go on with the logits of the mask that is shown, as long as the prompt stays in the part of the image they are of."""
        stays = asked.part is None or holds(asked.part, Prompt(asked.points, asked.box))
        if stays and (self.pointing or asked.mask_input is not None):
            self._edit(name, replace(asked, mask_input=self._shown_logits()))
        else:
            self._edit(name, replace(asked, mask_input=None, part=part))

    def drop_prompt(self) -> bool:
        """Forget points and box; False when there were none."""
        self.corner = None
        if not self.pointing and self.present.refines is None:
            return False
        self._edit(
            "points removed", replace(self.present, points=(), box=None, mask_input=None, part=None, refines=None)
        )
        return True

    def refine(self, mask_id: int) -> bool:
        """Let the next points correct this mask; undo returns to it."""
        mask = self.mask(mask_id)
        if mask is None:
            return False
        own = tuple(
            Point(x, y, 1 if label else 0) for (x, y), label in zip(mask.point_coords, mask.point_labels, strict=False)
        )
        points = own if mask.source == "prompt" else ()
        known = self.present.logits.get(mask_id)
        new = replace(
            self.present,
            points=points,
            box=None,
            mask_input=known.handle if known else None,
            part=known.part if known else None,
            refines=mask_id,
        )
        self._edit(f"refine mask {mask_id}", new)
        self.current = mask_id
        return True

    def accept(self) -> Mask | None:
        """Turn the shown candidate into a mask of the list, or into the refined mask's new shape; None when there is none."""
        candidate = self.candidate
        if candidate is None:
            return None
        prompt = self.present
        old = self.refining
        mask = replace(
            candidate.mask,
            id=old.id if old else self._next_id(),
            label=old.label if old else candidate.mask.label,
            point_coords=tuple((point.x, point.y) for point in prompt.points),
            point_labels=tuple(point.label for point in prompt.points),
            source="prompt",
        )
        if old is not None:
            mask = replace(mask, origin=edited(old.origin, "points"))
        masks = tuple(mask if m is old else m for m in self.masks) if old else (*self.masks, mask)
        new = Snapshot(
            masks,
            self.selected,
            logits={**prompt.logits, mask.id: Logits(candidate.logits, prompt.part)},
            verdicts=prompt.verdicts,
        )
        self._edit(f"mask {mask.id}", new)
        self.current = mask.id
        return mask

    def add_generated(self, masks: Sequence[Mask], addition: Addition) -> int:
        """Take over automatic masks, renumbered behind those that stay; returns how many were removed. Corrected ones are the user's and stay."""
        stay = {
            "add": self.masks,
            "replace-auto": tuple(mask for mask in self.masks if mask.source != "auto" or is_reshaped(mask.origin)),
            "replace-all": (),
        }[addition]
        first = max(self.least_id, 1 + max((mask.id for mask in stay), default=-1))
        new = tuple(replace(mask, id=first + index) for index, mask in enumerate(masks))
        kept = self.selected & {mask.id for mask in stay}
        removed = len(self.masks) - len(stay)
        self._edit(
            counted(len(new), "automatic mask"),
            replace(
                self.present,
                masks=(*stay, *new),
                selected=kept,
                logits=_only(self.present.logits, stay),
                verdicts=_only(self.present.verdicts, stay),
            ),
        )
        self.current = new[0].id if new else (stay[0].id if stay else None)
        return removed

    def delete(self, mask_ids: Iterable[int]) -> int:
        """Remove masks; returns how many."""
        gone = set(mask_ids) & {mask.id for mask in self.masks}
        if not gone:
            return 0
        rest = tuple(mask for mask in self.masks if mask.id not in gone)
        following = next(
            (m.id for m in self.masks if m.id not in gone and (self.current is None or m.id > self.current)), None
        )
        self._edit(
            f"delete {counted(len(gone), 'mask')}",
            replace(
                self.present,
                masks=rest,
                selected=self.selected - gone,
                logits=_only(self.present.logits, rest),
                verdicts=_only(self.present.verdicts, rest),
            ),
        )
        if self.current in gone:
            self.current = following if following is not None else (rest[-1].id if rest else None)
        return len(gone)

    def correct(self, step: str, results: Sequence[tuple[Sequence[int], Sequence[Mask]]]) -> tuple[int, ...]:
        """Replace masks by what a correction made of them, as one undo step.

        Args:
            step: the correction in a few words, for undo and for the masks' origins.
            results: (ids of the masks that go, the masks that take their place) each; the first new one keeps the first id. Without ids: new
                masks. Empty masks are left out.

        Returns:
            the ids of the masks that are there now in place of the old ones.
        """
        masks = list(self.masks)
        logits = dict(self.present.logits)
        free = self._next_id()
        made: list[int] = []
        lost: set[int] = set()
        for parents, children in results:
            first = self.mask(parents[0]) if parents else None
            origin = edited(first.origin if first else None, step)
            place = next((i for i, mask in enumerate(masks) if mask.id in parents), len(masks))
            masks = [mask for mask in masks if mask.id not in parents]
            for parent in parents:
                logits.pop(parent, None)
            lost |= set(parents)
            names = list(parents[:1])
            for child in children:
                if child.area == 0:
                    continue
                number = names.pop() if names else free
                free = max(free, number + 1)
                masks.insert(min(place, len(masks)), replace(child, id=number, origin=origin))
                place += 1
                made.append(number)
        new = replace(
            self.present,
            masks=tuple(masks),
            selected=self.selected - (lost - set(made)),
            logits=logits,
            verdicts={mask_id: good for mask_id, good in self.present.verdicts.items() if mask_id not in lost},
        )
        self._edit(step, new)
        if self.mask(self.current) is None:
            self.current = made[0] if made else (masks[0].id if masks else None)
        return tuple(made)

    def label(self, mask_ids: Iterable[int], text: str) -> int:
        """Label masks; returns how many changed."""
        new = labelled(self.masks, set(mask_ids), text)
        changed = sum(a is not b for a, b in zip(new, self.masks, strict=True))
        if changed:
            self._edit(label_step(text), replace(self.present, masks=new))
        return changed

    # Ticks: restored by undo, but no steps of their own

    def tick(self, mask_ids: Iterable[int], on: bool | None = None) -> None:
        """Select (True), deselect (False) or toggle (None) masks."""
        ids = set(mask_ids)
        selected = self.selected | ids if on else self.selected - ids if on is False else self.selected ^ ids
        self.present = replace(self.present, selected=frozenset(selected))

    def tick_shown(self, how: Literal["all", "none", "invert"]) -> None:
        """Select all or none of the masks that pass the filter, or invert; masks the filter hides are deselected."""
        shown = frozenset(mask.id for mask in self.shown)
        selected = {"all": shown, "none": frozenset[int](), "invert": shown - self.selected}[how]
        self.present = replace(self.present, selected=selected)

    # Verdicts: as ticks

    @property
    def verdicts(self) -> Mapping[int, bool]:
        return self.present.verdicts

    def judge(self, mask_id: int, good: bool | None) -> None:
        """Accept or reject a mask; None takes the verdict back."""
        verdicts = {known: value for known, value in self.verdicts.items() if known != mask_id}
        self.present = replace(self.present, verdicts=verdicts if good is None else {**verdicts, mask_id: good})

    def judged(self) -> tuple[int, int, int]:
        """How many are accepted, rejected, and without a verdict."""
        accepted = sum(self.verdicts.values())
        return accepted, len(self.verdicts) - accepted, len(self.masks) - len(self.verdicts)

    def next_unjudged(self) -> Mask | None:
        """The next shown mask without a verdict, behind the current one and then from the beginning."""
        shown = self.shown
        start = next((place for place, mask in enumerate(shown) if mask.id == self.current), -1) + 1
        return next((mask for mask in (*shown[start:], *shown[:start]) if mask.id not in self.verdicts), None)

    def set_filter(self, bounds: SizeFilter) -> None:
        self.filter = bounds
        shown = {mask.id for mask in self.shown}
        self.present = replace(self.present, selected=self.selected & shown)
        if self.current not in shown:
            self.current = next(iter(mask.id for mask in self.shown), None)

    def step(self, by: int) -> int | None:
        """Make the next (1) or previous (-1) shown mask the current one."""
        ids = [mask.id for mask in self.shown]
        if not ids:
            return None
        if self.current in ids:
            self.current = ids[(ids.index(self.current) + by) % len(ids)]
        else:
            self.current = ids[0 if by > 0 else -1]
        return self.current

    # The way back

    def undo(self) -> str | None:
        """Take the last edit back; its name, or None when there is none."""
        return self._travel(self._past, self._future)

    def redo(self) -> str | None:
        return self._travel(self._future, self._past)

    @property
    def can_undo(self) -> bool:
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        return bool(self._future)

    # Candidates of the present prompt

    def offer(self, candidates: Sequence[Candidate]) -> None:
        """Show what the engine answered for the present prompt; from now on it belongs to the part of the image that the answer is from."""
        self.candidates, self.candidate_index = tuple(candidates), 0
        if candidates and self.present.part is None:
            self.present = replace(self.present, part=part_of(candidates[0].mask))

    def next_candidate(self) -> bool:
        """Show the next candidate; False when there is only one."""
        if len(self.candidates) < 2:
            return False
        self.candidate_index = (self.candidate_index + 1) % len(self.candidates)
        return True

    # Saved versions

    def loaded(self, masks: Sequence[Mask], version: str | None, *, saved: bool = True) -> None:
        """Replace everything, with no way back: a version was loaded."""
        self.present = Snapshot(tuple(masks))
        self._past, self._future = [], []
        self._saved = self.masks if saved else ()
        self.version = version
        self.current = self.masks[0].id if masks else None
        self.candidates, self.candidate_index, self.corner = (), 0, None
        self.filter = SizeFilter()

    def restored(self, masks: Sequence[Mask], points: Sequence[Point], version: str | None) -> None:
        """Bring unsaved work back on top of what is there; undo leads to it."""
        self._edit("unsaved work brought back", Snapshot(tuple(masks), points=tuple(points)))
        self.version = version
        self.current = self.masks[0].id if masks else None

    def saved_as(self, masks: tuple[Mask, ...], version: str | None) -> None:
        """``masks`` are on disk now; edits made while they were being saved stay unsaved."""
        self._saved = masks
        self.version = version

    def _edit(self, name: str, new: Snapshot) -> None:
        self._past.append((name, self.present))
        del self._past[:-UNDO_STEPS]
        self._future.clear()
        self.present = new
        self.candidates, self.candidate_index = (), 0

    def _travel(self, source: list[tuple[str, Snapshot]], target: list[tuple[str, Snapshot]]) -> str | None:
        self.corner = None
        if not source:
            return None
        name, snapshot = source.pop()
        target.append((name, self.present))
        self.present = snapshot
        self.candidates, self.candidate_index = (), 0
        if self.mask(self.current) is None:
            self.current = next(iter(mask.id for mask in self.shown), None)
        return name

    def _next_id(self) -> int:
        return max(self.least_id, 1 + max((mask.id for mask in self.masks), default=-1))

    def _shown_logits(self) -> str | None:
        candidate = self.candidate
        return candidate.logits if candidate else self.present.mask_input


def _only(known: Mapping[int, T], masks: Sequence[Mask]) -> dict[int, T]:
    there = {mask.id for mask in masks}
    return {mask_id: value for mask_id, value in known.items() if mask_id in there}
