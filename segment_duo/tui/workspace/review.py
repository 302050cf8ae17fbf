"""Review: in which order one goes through the masks, and what one thinks of each. Verdicts guide the eye and the deletion; sets do not hold them."""

from __future__ import annotations

from collections.abc import Callable

from segment_duo.tui.listing import ORDERS
from segment_duo.tui.wording import counted
from segment_duo.tui.workspace.desk import Desk


class Review:
    """Args:
    edited: called after every change of the document.
    """

    def __init__(self, desk: Desk, edited: Callable[[], None]) -> None:
        self.desk = desk
        self._edited = edited

    def action_sort(self) -> None:
        """The next order of the list, which n and the verdicts follow."""
        doc = self.desk.doc
        doc.order = ORDERS[(ORDERS.index(doc.order) + 1) % len(ORDERS)]
        first = next(iter(doc.shown), None)
        if first is not None:
            doc.current = first.id
            self.desk.go_to(first)
        self.desk.say(f"List: {doc.order}. n goes through it in this order; V changes it.")
        self.desk.show_document()

    def action_judge(self, good: int) -> None:
        """Accept (1) or reject (0) the current mask and go to the next one without a verdict; the same verdict again takes it back."""
        doc = self.desk.doc
        mask = doc.mask(doc.current)
        if mask is None:
            self.desk.say("No mask is the current one; n goes to the next.")
            return
        taken_back = doc.verdicts.get(mask.id) == bool(good)
        doc.judge(mask.id, None if taken_back else bool(good))
        following = None if taken_back else doc.next_unjudged()
        if following is not None:
            doc.current = following.id
            self.desk.go_to(following)
        accepted, rejected, left = doc.judged()
        word = "no verdict" if taken_back else "accepted" if good else "rejected"
        rest = (
            f"{left} left" if left else "all have a verdict; D deletes the rejected" if rejected else "all are accepted"
        )
        self.desk.say(f"Mask {mask.id}: {word}. {accepted} accepted, {rejected} rejected, {rest}.")
        self._edited()

    def action_delete_rejected(self) -> None:
        doc = self.desk.doc
        count = doc.delete(mask_id for mask_id, good in doc.verdicts.items() if not good)
        if not count:
            self.desk.say("No mask is rejected; w rejects the current one.")
            return
        self.desk.say(f"{counted(count, 'rejected mask')} deleted; u brings {'them' if count > 1 else 'it'} back.")
        self._edited()
