"""The table of commands: unique, documented, rebindable. Run as a module to renew the tables in docs/tui.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from segment_duo.errors import ConfigError
from segment_duo.tui.keys import COMMANDS, GROUPS, TWINS, bindings, check_keymap, help_rows, shown_keys, with_twins

DOCUMENT = Path(__file__).parents[2] / "docs" / "tui.md"
START, MIDDLE = "<!-- Renew this section with: python -m tests.tui.test_keys -->\n", "\n## Your own keys\n"


def tables() -> str:
    text = ""
    for group, rows in help_rows({}):
        text += f"\n### {group}\n\n| keys | |\n|---|---|\n"
        text += "".join(
            f"| {' '.join(f'`{key}`' for key in keys.split('  '))} | {meaning} |\n" for keys, meaning in rows
        )
    return text


def ids() -> str:
    return ", ".join(f"`{command.id}`" for command in COMMANDS) + "\n"


def test_documentation_is_made_of_the_table() -> None:
    text = DOCUMENT.read_text()
    assert text.split(START)[1].split(MIDDLE)[0] == tables()
    assert text.endswith(ids())


def test_ids_are_unique_and_groups_known() -> None:
    names = [command.id for command in COMMANDS]
    assert len(set(names)) == len(names)
    assert {command.group for command in COMMANDS} == set(GROUPS)


def test_no_key_means_two_things_in_one_place() -> None:
    resting = set(TWINS)  # with a tool in the hand only, when the twin rests
    everywhere = [c for c in COMMANDS if c.place in ("workspace", "anywhere") and c.id not in resting]
    for place in ("canvas", "masks"):
        here = [*everywhere, *(c for c in COMMANDS if c.place == place)]
        keys = [key for command in here for key in command.keys.split(",")]
        assert len(set(keys)) == len(keys)


def test_every_action_exists() -> None:
    from segment_duo.tui.app import SegduoApp
    from segment_duo.tui.workspace.correcting import Correcting
    from segment_duo.tui.workspace.editing import Editing
    from segment_duo.tui.workspace.files import Files
    from segment_duo.tui.workspace.folders import Folders
    from segment_duo.tui.workspace.frames import Frames
    from segment_duo.tui.workspace.labelling import Labelling
    from segment_duo.tui.workspace.review import Review
    from segment_duo.tui.workspace.saving import Saving
    from segment_duo.tui.workspace.screen import Workspace
    from segment_duo.tui.workspace.series import Series
    from segment_duo.tui.workspace.tracking import Tracking
    from segment_duo.tui.workspace.viewing import Viewing

    for command in COMMANDS:
        name = "action_" + command.action.split("(")[0]
        parts = (
            Workspace, SegduoApp, Correcting, Editing, Files, Folders, Frames, Labelling, Review, Saving, Series, Tracking, Viewing,
        )  # fmt: skip
        owners = [part for part in parts if name in vars(part)]
        assert len(owners) == 1 or hasattr(SegduoApp, name), (command.id, owners)


def test_help_texts_fit_the_help_screen() -> None:
    assert max(len(command.help) for command in COMMANDS) <= 54
    assert max(len(shown_keys(command, {})) for command in COMMANDS) <= 18


def test_unknown_command_in_the_users_table() -> None:
    check_keymap({"save": "ctrl+s"})
    with pytest.raises(ConfigError) as caught:
        check_keymap({"sav": "x"})
    assert "Did you mean 'save'?" in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        check_keymap({"zzzzzz": "x"})
    assert "docs/tui.md" in caught.value.hint


def test_a_command_keeps_the_key_that_its_twin_gives_up() -> None:
    assert with_twins({"save": "ctrl+s"}) == {"save": "ctrl+s"}
    assert with_twins({"smaller": "ctrl+k"}) == {"smaller": "ctrl+k", "frame-previous": "comma"}
    assert with_twins({"frame-next": "ctrl+k"}) == {"frame-next": "ctrl+k", "larger": "full_stop"}


def test_bindings_carry_the_ids_that_keymaps_use() -> None:
    made = bindings("canvas", "workspace", "anywhere", "masks", "explorer")
    assert [binding.id for binding in made] == [c.id for c in COMMANDS]  # type: ignore[union-attr]


def test_pictures_of_the_documentation_exist() -> None:
    for name in re.findall(r"\]\((pictures/[^)]+)\)", DOCUMENT.read_text()):
        assert (DOCUMENT.parent / name).stat().st_size > 10_000


if __name__ == "__main__":
    head, rest = DOCUMENT.read_text().split(START)
    tail = rest.split(MIDDLE)[1]
    tail = tail[: tail.rindex("The ids:") + len("The ids:")] + "\n\n" + ids()
    DOCUMENT.write_text(head + START + tables() + MIDDLE + tail)
