"""A line to type in that keeps the order of keys, however fast they come."""

from __future__ import annotations

from textual import events
from textual.binding import Binding
from textual.widgets import Input

_EDITING = {
    key: binding.action for binding in Input.BINDINGS if isinstance(binding, Binding) for key in binding.key.split(",")
}


class Field(Input):
    """An input that edits at once.

    A key that edits (Ctrl+U, Backspace, an arrow) goes with Textual from the input up to the app before it does anything, one queue after the other;
    characters typed meanwhile are in the text by then, and Ctrl+U took them, too.
    """

    async def on_key(self, event: events.Key) -> None:
        action = _EDITING.get(event.key)
        if action is not None:
            event.stop()
            event.prevent_default()
            await self.run_action(action)
