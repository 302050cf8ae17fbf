"""Small questions: choose one of some answers, type a line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.containers import Horizontal, Vertical
from textual.suggester import SuggestFromList
from textual.widget import Widget
from textual.widgets import Button, Input, Static

from segment_duo.text import safe
from segment_duo.tui.screens.dialog import Dialog, line
from segment_duo.tui.screens.field import Field


class Choose(Dialog[str]):
    """A question with a button for each answer; the first has the focus. Left and right go from one to the next."""

    BINDINGS = [("left,up", "app.focus_previous", "Previous"), ("right,down", "app.focus_next", "Next")]  # noqa: RUF012
    DEFAULT_CSS = """
    Choose .stacked { height: auto; }
    Choose .stacked Button { width: 100%; height: 1; min-width: 0; border: none; margin-bottom: 1; }
    Choose .stacked Button.-primary, Choose .stacked Button:focus { border: none; }
    """

    def __init__(self, title: str, question: str, answers: Sequence[tuple[str, str]], *, stacked: bool = False) -> None:
        """``answers``: (what is returned, what the button says); ``stacked``: one a line, for long ones."""
        super().__init__(title)
        self._stacked = stacked
        self._question = question
        self._answers = answers

    def body(self) -> list[Widget]:
        buttons = [
            Button(text, id=f"answer-{name}", variant="primary" if index == 0 else "default")
            for index, (name, text) in enumerate(self._answers)
        ]
        holder = Vertical(*buttons, classes="stacked") if self._stacked else Horizontal(*buttons, classes="buttons")
        return [line(self._question), holder]

    def on_mount(self) -> None:
        self.set_focus(self.query(Button).first())

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss((event.button.id or "").removeprefix("answer-"))


class TypeLine(Dialog[str]):
    """Asks for a line of text; Enter takes it when ``check`` has nothing against it."""

    def __init__(
        self,
        title: str,
        question: str,
        *,
        value: str = "",
        placeholder: str = "",
        check: Callable[[str], str] = lambda _: "",
        suggestions: Sequence[str] = (),
    ) -> None:
        """``check``: returns what is wrong with a text, or an empty string."""
        super().__init__(title, "Enter takes it · Esc goes back")
        self._question = question
        self._check = check
        self._input = Field(
            value,
            placeholder=placeholder,
            select_on_focus=True,
            suggester=SuggestFromList(suggestions, case_sensitive=False) if suggestions else None,
        )
        self._wrong = line("", classes="wrong")

    def body(self) -> list[Widget]:
        return [line(self._question), self._input, self._wrong]

    def on_mount(self) -> None:
        self.set_focus(self._input)

    def on_input_changed(self) -> None:
        self._wrong.update("")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        problem = self._check(event.value)
        if problem:
            self._say(self._wrong, problem)
        else:
            self.dismiss(event.value)

    @staticmethod
    def _say(where: Static, text: str) -> None:
        from rich.text import Text

        where.update(Text(safe(text)))
