"""Every key of the terminal UI, once: bindings, footer, help screen, command palette and the documentation are made from this table.

A user's ``[keys]`` table in ``config.toml`` replaces the keys of a command by its id.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding, BindingType
from textual.keys import format_key

from segment_duo.errors import ConfigError

Place = Literal["anywhere", "workspace", "canvas", "masks", "explorer"]

CLASSES = "Classes"
GROUPS = (
    "Making a mask",
    "Correcting masks",
    "The masks",
    CLASSES,
    "Cross-hair",
    "Image",
    "Frames",
    "Saving",
    "Folders",
    "Program",
)


@dataclass(frozen=True, slots=True)
class Command:
    """One thing a key can do.

    Attributes:
        id: what the ``[keys]`` table names.
        keys: Textual's key names, comma-separated.
        action: the action's name.
        title: in the footer, short; the command palette's entry.
        help: one line for the help screen.
        place: the pane that must have the focus; ``workspace`` = any pane in which one does not type.
        group: of :data:`GROUPS`.
        footer: show in the footer (when it works).
        palette: offer in the command palette.
    """

    id: str
    keys: str
    action: str
    title: str
    help: str
    place: Place
    group: str
    footer: bool = False
    palette: bool = True


TWINS = {"smaller": "frame-previous", "larger": "frame-next"}
"""Commands that share a key: the first works while a tool is in the hand, the second while none is."""
_CLASS = "The class with this key; again: no label"
COMMANDS: tuple[Command, ...] = (
    Command("choose", "enter,right", "choose", "Open", "Open the image or the folder", "explorer", "Folders", footer=True, palette=False),
    Command("folder-up", "left", "up", "Folder above", "To the folder above", "explorer", "Folders", footer=True, palette=False),
    Command("open-film", "f8", "film", "As one film", "The folder's images as frames of one film", "explorer", "Folders", footer=True, palette=False),
    Command("back", "escape", "back", "To the image", "Clear the filter; again: to the image", "explorer", "Folders", footer=True, palette=False),
    Command("toggle", "space,enter", "tick", "Select", "Select or deselect the mask", "masks", "The masks", footer=True, palette=False),
    Command("include", "space,p", "point(1)", "Include", "Include point: this belongs to the object", "canvas", "Making a mask", footer=True),
    Command("exclude", "x", "point(0)", "Exclude", "Exclude point: this does not belong to it", "canvas", "Making a mask", footer=True),
    Command("accept", "enter", "accept", "Keep", "Keep this mask; without points: select the one here", "canvas", "Making a mask", footer=True),
    Command("candidate", "m", "next_candidate", "Another", "Show the next of the three candidates", "workspace", "Making a mask", footer=True),
    Command("drop", "escape", "drop", "Drop", "Forget the points and the box", "canvas", "Making a mask", footer=True),
    Command("auto", "a", "auto", "Find all", "Find all objects; asks for preset and parameters", "workspace", "Making a mask", footer=True),
    Command("frame-next", "full_stop", "frame(1)", "Next frame", "The next frame of a stack or film", "workspace", "Frames", footer=True),
    Command("track", "f7", "track", "Follow", "Follow objects through the frames; asks which way", "anywhere", "Frames", footer=True),
    Command("play", "f6", "play", "Play", "Play from here, or stop", "anywhere", "Frames", footer=True),
    Command("save", "s", "save", "Save", "Save as a new version; nothing is overwritten", "workspace", "Saving", footer=True),
    Command("undo", "u", "undo", "Undo", "Take back the last edit, of any kind", "workspace", "The masks", footer=True),
    Command("delete", "d,delete", "delete", "Delete", "Delete the selected masks", "workspace", "The masks", footer=True),
    Command("next", "n", "step(1)", "Next", "Go to the next mask", "workspace", "The masks", footer=True),
    Command("tick", "t", "tick", "Select", "Select or deselect the current mask", "workspace", "The masks", footer=True),
    Command("explorer", "o", "explorer", "Files", "Show the folder and go there, or hide it", "workspace", "Folders", footer=True),
    Command("side-bar", "f9", "side_bar", "Folder on or off", "Show or hide the folder, from anywhere", "anywhere", "Folders"),
    Command("zoom-in", "plus,equals_sign", "zoom(1)", "Zoom", "Enlarge, about the cross-hair", "workspace", "Image", footer=True),
    Command("corner", "r", "corner", "Box", "A corner of a box; the second one asks for the mask", "canvas", "Making a mask", footer=True),
    Command("left", "left", "move(-1, 0)", "Left", "Cross-hair left by one screen pixel", "canvas", "Cross-hair", palette=False),
    Command("right", "right", "move(1, 0)", "Right", "Cross-hair right", "canvas", "Cross-hair", palette=False),
    Command("up", "up", "move(0, -1)", "Up", "Cross-hair up", "canvas", "Cross-hair", palette=False),
    Command("down", "down", "move(0, 1)", "Down", "Cross-hair down", "canvas", "Cross-hair", palette=False),
    Command("far-left", "shift+left", "move(-10, 0)", "Far left", "Ten screen pixels left", "canvas", "Cross-hair", palette=False),
    Command("far-right", "shift+right", "move(10, 0)", "Far right", "Ten right", "canvas", "Cross-hair", palette=False),
    Command("far-up", "shift+up", "move(0, -10)", "Far up", "Ten up", "canvas", "Cross-hair", palette=False),
    Command("far-down", "shift+down", "move(0, 10)", "Far down", "Ten down", "canvas", "Cross-hair", palette=False),
    Command("goto", "g", "goto", "Go to", "Type the coordinates to go to", "workspace", "Cross-hair"),
    Command("loupe", "z", "loupe", "Loupe", "Loupe: large pixels, small pixels, off", "workspace", "Cross-hair"),
    Command("zoom-out", "minus,underscore", "zoom(-1)", "Zoom out", "Reduce", "workspace", "Image"),
    Command("fit", "0,home", "fit", "Fit", "Show the whole image", "workspace", "Image"),
    Command("one-to-one", "end", "one_to_one", "1:1", "One image pixel on one screen pixel", "workspace", "Image"),
    Command("pan-left", "ctrl+left,H", "pan(-1, 0)", "Pan left", "Move the view left", "workspace", "Image", palette=False),
    Command("pan-right", "ctrl+right,L", "pan(1, 0)", "Pan right", "Move the view right", "workspace", "Image", palette=False),
    Command("pan-up", "ctrl+up,K", "pan(0, -1)", "Pan up", "Move the view up", "workspace", "Image", palette=False),
    Command("pan-down", "ctrl+down,J", "pan(0, 1)", "Pan down", "Move the view down", "workspace", "Image", palette=False),
    Command("contrast", "c", "contrast", "Contrast", "Stretch the contrast, or not", "workspace", "Image"),
    Command("narrower", "right_parenthesis", "window(1)", "More contrast", "A narrower contrast window", "workspace", "Image"),
    Command("wider", "left_parenthesis", "window(-1)", "Less contrast", "A wider contrast window", "workspace", "Image"),
    Command("refine", "R", "refine", "Refine", "Correct the current mask by further points", "workspace", "Correcting masks", footer=True),
    Command("brush", "e", "brush(0)", "Brush", "Brush on the current mask; again: put it away", "workspace", "Correcting masks", footer=True),
    Command("eraser", "E", "brush(1)", "Eraser", "Eraser on the current mask", "workspace", "Correcting masks", footer=True),
    Command("new-mask", "B", "new_mask", "Paint a new mask", "Brush for a mask that is not there yet", "workspace", "Correcting masks"),
    Command("smaller", "comma", "size(-1)", "Smaller", "Smaller brush; in a split: cut less", "workspace", "Correcting masks", footer=True),
    Command("larger", "full_stop", "size(1)", "Larger", "Larger brush; in a split: cut more", "workspace", "Correcting masks", footer=True),
    Command("merge", "j", "merge", "Merge", "Join the selected masks into one", "workspace", "Correcting masks"),
    Command("cut", "k", "cut", "Cut", "Cut the mask: one end of a line, then the other", "workspace", "Correcting masks"),
    Command("split", "W", "split", "Split", "Split the mask at its necks; shows it first", "workspace", "Correcting masks"),
    Command("subtract", "slash", "subtract", "Subtract", "Cut the selected masks out of the current one", "workspace", "Correcting masks"),
    Command("no-overlap", "O", "no_overlap", "Remove overlap", "Shared pixels go to the smaller mask", "workspace", "Correcting masks"),
    Command("fill", "G", "fill_holes", "Fill holes", "Fill the holes of the selected, or the current mask", "workspace", "Correcting masks"),
    Command("smooth", "M", "smooth", "Smooth", "Round the outline; thin spurs vanish", "workspace", "Correcting masks"),
    Command("grow", "greater_than_sign", "grow(1)", "Grow", "Larger by a pixel all around", "workspace", "Correcting masks"),
    Command("shrink", "less_than_sign", "grow(-1)", "Shrink", "Smaller by a pixel all around", "workspace", "Correcting masks"),
    Command("closer", "Y", "closer", "Part in view", "Zoomed in: the model sees the part in view, or all", "workspace", "Making a mask"),
    Command("overlay", "h", "overlay", "Hide masks", "Hide the masks in the picture, or show them", "workspace", "Image"),
    Command("tint", "i", "tint", "Tint", "Tints of the masks: as designed, strong, outlines only", "workspace", "Image"),
    Command("cells", "P", "cells", "Finer characters", "Half cells, quadrants, sextants or octants", "workspace", "Image"),
    Command("ids", "number_sign", "ids", "Ids", "The masks' ids in the picture, or not", "workspace", "Image"),
    Command("scale-bar", "Q", "scale_bar", "Scale bar", "Scale bar in the picture, or not", "workspace", "Image"),
    Command("measure", "X", "measure", "Measure", "Distance from here to the cross-hair; again: end", "workspace", "Cross-hair"),
    Command("full", "F,f10", "full", "Full picture", "The picture alone, or with the folder and the masks", "workspace", "Image"),
    Command("page-next", "pagedown", "page(1)", "Next page", "The next page of a stack", "canvas", "Image"),
    Command("page-previous", "pageup", "page(-1)", "Previous page", "The page before", "canvas", "Image"),
    Command("frame-previous", "comma", "frame(-1)", "Frame before", "The frame before", "workspace", "Frames"),
    Command("frames-ahead", "colon", "frame(10)", "Ten frames on", "Ten frames on", "workspace", "Frames"),
    Command("frames-back", "semicolon", "frame(-10)", "Ten frames back", "Ten frames back", "workspace", "Frames"),
    Command("frame-goto", "at", "frame_goto", "Go to a frame", "Type the number of the frame to go to", "workspace", "Frames"),
    Command("banner", "b", "banner", "Banner", "Show or cut the microscope's info banner", "workspace", "Image"),
    Command("previous", "N", "step(-1)", "Previous mask", "Go to the previous mask", "workspace", "The masks"),
    Command("all", "A", "tick_all('all')", "Select all", "Select all masks that are shown", "workspace", "The masks"),
    Command("zoom-mask", "Z", "zoom_mask", "Zoom to the mask", "Show the current mask as large as it fits", "workspace", "The masks"),
    Command("none", "T", "tick_all('none')", "Select none", "Select none", "workspace", "The masks"),
    Command("invert", "I", "tick_all('invert')", "Invert selection", "Invert the selection", "workspace", "The masks"),
    Command("good", "y", "judge(1)", "Accept", "Accept the mask and go to the next without a verdict", "workspace", "The masks"),
    Command("bad", "w", "judge(0)", "Reject", "Reject the mask and go on; D deletes the rejected", "workspace", "The masks"),
    Command("delete-rejected", "D", "delete_rejected", "Delete rejected", "Delete all rejected masks", "workspace", "The masks"),
    Command("sort", "V", "sort", "Sort", "Sort the list: id, certainty, odd sizes, area, label", "workspace", "The masks"),
    Command("label", "l", "label", "Label", "Label the selected masks, or the current one", "workspace", "The masks"),
    *(Command(f"class-{n}", f"{n}", f"classify('{n}')", f"Class {n}", _CLASS, "workspace", CLASSES, palette=False) for n in range(1, 10)),
    Command("filter", "f", "filter", "Filter", "Show only masks of a certain size, score or label", "workspace", "The masks"),
    Command("redo", "U", "redo", "Redo", "Do it again", "workspace", "The masks"),
    Command("save-as", "S", "save_as", "Save with suffix", "Save under a name of its own: IMAGE_suffix", "workspace", "Saving"),
    Command("save-elsewhere", "ctrl+s", "save_elsewhere", "Save elsewhere", "Save in a folder of your choice", "workspace", "Saving"),
    Command("versions", "v", "versions", "Versions", "Load a saved version", "workspace", "Saving"),
    Command("image-next", "right_square_bracket", "image(1)", "Next image", "The next image of the list", "workspace", "Folders", footer=True),
    Command("image-previous", "left_square_bracket", "image(-1)", "Previous image", "The image before", "workspace", "Folders"),
    Command("undone-next", "right_curly_bracket", "undone(1)", "Next not done", "The next image that is not done", "workspace", "Folders"),
    Command("undone-previous", "left_curly_bracket", "undone(-1)", "Previous not done", "The one before that is not done", "workspace", "Folders"),
    Command("done", "C", "done", "Done", "Mark the image as done, or as not done", "workspace", "Folders"),
    Command("only-undone", "f4", "only_undone", "Only not done", "List only images that are not done, or all", "anywhere", "Folders"),
    Command("open-path", "ctrl+o", "open_path", "Open a path", "Type a path, local or /drops/...", "anywhere", "Folders"),
    Command("reload", "f5", "reload", "Read again", "Read the folder again", "anywhere", "Folders"),
    Command("help", "f1,question_mark", "help", "Help", "All keys", "anywhere", "Program", footer=True),
    Command("palette", "ctrl+p", "command_palette", "Commands", "Find a command by typing", "anywhere", "Program", palette=False),
    Command("theme", "f2", "other_theme", "Light or dark", "Light or dark colours", "anywhere", "Program"),
    Command("quit", "q", "leave", "Quit", "Quit; asks when there is unsaved work", "workspace", "Program", footer=True),
    Command("quit-anyway", "ctrl+q", "leave", "Quit", "Quit from anywhere; asks as well", "anywhere", "Program", palette=False),
)  # fmt: skip


def bindings(*places: Place) -> list[BindingType]:
    """Textual's bindings of the commands of these places."""
    return [
        Binding(
            command.keys,
            target(command),
            command.title,
            show=command.footer,
            id=command.id,
            priority=command.id == "quit-anyway",
        )
        for command in COMMANDS
        if command.place in places
    ]


def target(command: Command) -> str:
    """The action with the node that has it: the workspace's actions may be bound in a pane."""
    name = command.action
    return f"app.{name}" if name == "command_palette" else f"screen.{name}"


def check_keymap(keymap: Mapping[str, str]) -> None:
    """Refuse a ``[keys]`` table that names unknown commands.

    Raises:
        ConfigError: with the nearest id.
    """
    known = [command.id for command in COMMANDS]
    for name in keymap:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(
                f"[keys]: there is no command '{name}'",
                f"Did you mean '{close[0]}'?" if close else "The commands are listed in docs/tui.md.",
            )


def with_twins(keymap: Mapping[str, str]) -> dict[str, str]:
    """The user's keys with those named that a command keeps when its twin gets others; Textual takes the key from both."""
    found = dict(keymap)
    for command in COMMANDS:
        for pair in TWINS.items():
            if command.id in pair and any(one in keymap for one in pair):
                found.setdefault(command.id, command.keys)
    return found


def footer_key(command: Command, keymap: Mapping[str, str]) -> str:
    """The first key of a command."""
    return _pretty(keymap.get(command.id, command.keys).split(",")[0])


def shown_keys(command: Command, keymap: Mapping[str, str]) -> str:
    """The keys of a command as people write them: ``Space p``."""
    return "  ".join(_pretty(key) for key in keymap.get(command.id, command.keys).split(","))


_ARROWS = {"left": "←", "right": "→", "up": "↑", "down": "↓"}
_NAMES = {
    "space": "Space",
    "enter": "Enter",
    "escape": "Esc",
    "delete": "Del",
    "backspace": "Backspace",
    "home": "Home",
}


def _pretty(key: str) -> str:
    *modifiers, last = key.strip().split("+")
    name = (
        _ARROWS.get(last) or _NAMES.get(last) or (last.upper() if last.startswith("f") and last[1:].isdigit() else "")
    )
    return "+".join([*(modifier.capitalize() for modifier in modifiers), name or format_key(last)])


def help_rows(
    keymap: Mapping[str, str], classes: Mapping[str, str] | None = None
) -> Iterable[tuple[str, list[tuple[str, str]]]]:
    """Group by group: the keys and what they do. Arrow commands are listed as they are, one a line.

    Args:
        classes: number key -> name of the class; without, one line stands for all nine.
    """
    for group in GROUPS:
        rows = [(shown_keys(command, keymap), command.help) for command in COMMANDS if command.group == group]
        if group == CLASSES:
            first, last = rows[0][0], rows[-1][0]
            named = {
                command.id.removeprefix("class-"): shown_keys(command, keymap)
                for command in COMMANDS
                if command.group == CLASSES
            }
            rows = [(named[key], name) for key, name in (classes or {}).items() if key]
            rows = rows or [(f"{first} … {last}", _CLASS)]
        yield group, rows
