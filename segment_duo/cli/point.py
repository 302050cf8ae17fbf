"""``segduo point``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment_duo.cli.bundles import bundled
from segment_duo.cli.chosen import load, masks, parse_choice, series_of
from segment_duo.cli.inputs import frame_of
from segment_duo.cli.options import (
    EngineOptions,
    FrameOption,
    JsonOption,
    OutOption,
    ReadingOptions,
    SaveOption,
    SeriesOption,
    check_frame,
    check_save,
    open_session,
)
from segment_duo.cli.output import image_record, note, waiting
from segment_duo.cli.saving import deliver_waiting, finish_saved
from segment_duo.closer import PromptScale
from segment_duo.errors import InputError, PromptError, UsageError
from segment_duo.prompts import check_asks, parse_box, parse_point, parse_prompts
from segment_duo.text import well_formed
from segment_duo.types import Mask, Prompt

if TYPE_CHECKING:
    from segment_duo.library.library import LoadedSet
    from segment_duo.session import OpenImage, Session


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("point", rich_help_panel=panel)(point)


@bundled
def point(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="An image, local or on Drops.")],
    reading: ReadingOptions,
    engine: EngineOptions,
    frame: FrameOption = None,
    points: Annotated[
        list[str] | None,
        typer.Option(
            "--point", "-p", metavar="X,Y[,LABEL]", help="A point; label 1 includes (default), 0 excludes. Repeatable."
        ),
    ] = None,
    boxes: Annotated[
        list[str] | None,
        typer.Option("--box", metavar="X0,Y0,X1,Y1", help="A box around an object. Repeatable: one object for each."),
    ] = None,
    points_file: Annotated[
        str | None,
        typer.Option("--points", metavar="FILE", help="CSV, plain text or JSON with points; - reads stdin."),
    ] = None,
    multimask_output: Annotated[
        bool | None,
        typer.Option("--multimask/--no-multimask", help="Keep all three candidates / ask for one mask only."),
    ] = None,
    scale: Annotated[
        PromptScale | None,
        typer.Option(
            "--scale",
            help="Show the model the whole picture only, or also the part around the prompt, closer.",
            show_default="closer for models with a small input, as nano",
        ),
    ] = None,
    in_turn: Annotated[
        bool | None,
        typer.Option(
            "--in-turn/--at-once",
            help="Each point refines the mask of those before it / the model gets all points at once.",
            show_default="in turn for models with a small input, as nano",
        ),
    ] = None,
    append: Annotated[
        bool,
        typer.Option(
            "--append", "-a", help="Put the masks after those of the latest version, in a new version of its series."
        ),
    ] = False,
    onto: Annotated[
        str | None,
        typer.Option(
            "--onto", metavar="VERSION", help="Put the masks after those of this version, or of the .pkl file of a set."
        ),
    ] = None,
    label: Annotated[str, typer.Option("--label", help="Label for the new masks.")] = "",
    suffix: SeriesOption = None,
    out: OutOption = None,
    save: SaveOption = True,
    as_json: JsonOption = False,
) -> None:
    """Make masks from points or boxes and save them as a new version.

    x runs to the right, y down, from the top-left corner, in pixels. A single point gets the best of three candidates.

    All -p make one object together, within the box if there is one; several boxes make an object each.

    The new version holds the new masks only, unless --append or --onto puts them after those of another.

    A points file may hold many objects. Text: a line x,y or x,y,label or x,y,label,object for each point (commas, blanks, tabs or
    semicolons; with a header in any order); lines with the same object make one mask. Labels: 1, +, include, positive; 0, -, exclude,
    negative. A line that begins with # is a comment. JSON: a list of \\[x, y] or \\[x, y, label], or of objects
    {"points": \\[\\[x, y, label], ...], "box": \\[x0, y0, x1, y1], "object": "name"}.

    [bold]Examples[/bold]

      segduo point grain.tif -p 120,88 -p 160,90,0

      segduo point grain.tif --box 90,60,150,120 --box 200,60,260,110

      segduo point grain.tif --points clicks.csv --suffix grains

      segduo point film.tif --frame 12 -p 120,88

      echo '120 88' | segduo point grain.tif --points - --append
    """
    from segment_duo.provenance import prompt_record
    from segment_duo.segmenters.advice import sees_nothing

    check_save(save, as_json)
    check_frame(frame, reading.page)
    given = points_text(points_file)
    prompts = gather_prompts(points or [], boxes or [], given)
    with open_session(out=out, say_model=True, max_pixels=reading.max_pixels, **engine.flags()) as session:
        ref = frame_of(session, session.reference(image), frame)
        if save:
            session.sets.check_destination([ref])
        opened = session.open_image(ref, **reading.arguments())
        facts = opened.data.facts
        prompts = gather_prompts(points or [], boxes or [], given, within=(facts.width, facts.height))
        before: tuple[Mask, ...] = ()
        parent = None
        if append or onto is not None:
            loaded = _set_before(session, opened, onto)
            before, parent = loaded.mask_set.masks, loaded.version.name
            suffix = series_of(session, opened.ref, loaded) if suffix is None else suffix
        found = session.predict_at_scale(opened, prompts, scale, multimask_output=multimask_output, in_turn=in_turn)
        made = [
            dataclasses.replace(candidate.mask, label=well_formed(label), id=-1)
            for item in found
            for candidate in (item.candidates if multimask_output else item.candidates[:1])
        ]
        first = max((mask.id for mask in before), default=-1) + 1
        made = [dataclasses.replace(mask, id=first + index) for index, mask in enumerate(made)]
        for mask in made:
            if sees_nothing(mask.predicted_iou):
                note(
                    f"mask {mask.id}: the model sees no object there (predicted IoU {max(mask.predicted_iou or 0.0, 0.0):.2f})"
                )
        record: dict[str, Any] = {**image_record(opened.ref), "masks": len(before) + len(made), "new": len(made)}
        if as_json:
            from segment_duo.masks.formats.native import to_record

            record["records"] = [to_record(mask) for mask in made]
        if not save:
            from segment_duo.cli.output import emit_json

            emit_json(record)
            return
        deliver_waiting(session, [opened.ref])
        earlier = session.sets.latest(opened.ref, facts) if parent is None else None
        saved = session.save(
            opened,
            [*before, *made],
            operation="point",
            suffix=suffix or "",
            parent=parent,
            parameters={"prompts": [prompt_record(prompt) for prompt in prompts], "multimask_output": multimask_output},
        )
        if earlier is not None and earlier.peek is not None and earlier.peek.count:
            note(f"{masks(len(made))}; the set before has {earlier.peek.count}: --append adds to it")
        finish_saved(saved, record, as_json=as_json)


def _set_before(session: Session, opened: OpenImage, onto: str | None) -> LoadedSet:
    """The set of this image that the new masks are put after: the latest, a version, or a file.

    Raises:
        InputError: the file holds a set of another image.
    """
    from segment_duo.library.versions import EXTENSION

    facts = opened.data.facts
    if onto is None or not onto.endswith(EXTENSION):
        loaded = session.sets.load(opened.ref, onto, facts)
    else:
        given = load(session, parse_choice(session, onto))
        loaded = session.sets.refit(opened.ref, given, facts)
        if not loaded.belongs:
            raise InputError(f"{onto} is not a set of {opened.ref}", loaded.notice)
    if loaded.notice:
        note(loaded.notice)
    return loaded


def gather_prompts(
    points: list[str],
    boxes: list[str],
    given: tuple[str, str] | None,
    within: tuple[int, int] | None = None,
) -> list[Prompt]:
    """The prompts of a command line: points make one object, with the box if there is one; of several boxes each makes one; a file may hold several.

    Args:
        given: name and text of the points file.
        within: the image's width and height in pixels, once they are known; wrong prompts are refused before the image is read.

    Raises:
        UsageError: no prompt at all, or points and several boxes: whose the points are would be a guess.
        PromptError: something that is not a prompt.
    """
    prompts: list[Prompt] = []
    if points and len(boxes) > 1:
        raise UsageError(
            f"-p with {len(boxes)} boxes: which box the points belong to is unknown",
            "Give the points with one --box, or put several objects into a JSON file for --points: "
            '[{"points": [[x, y, label]], "box": [x0, y0, x1, y1]}, ...]',
        )
    corners = [parse_box(text) for text in boxes]
    if points:
        clicks = tuple(parse_point(text) for text in points)
        prompts.append(Prompt(points=clicks, box=corners[0] if corners else None))
    else:
        prompts.extend(Prompt(box=box, object_id=str(index)) for index, box in enumerate(corners))
    if given is not None:
        prompts.extend(parse_prompts(given[1], name=given[0], within=within))
    if not prompts:
        raise UsageError("no prompt given", "Give -p x,y, --box x0,y0,x1,y1 or --points FILE.")
    check_asks(prompts)
    return prompts


def points_text(file: str | None) -> tuple[str, str] | None:
    """Name and content of the points file, if one was named; ``-`` is stdin."""
    if file is None:
        return None
    try:
        if file != "-":
            return file, Path(file).read_text(encoding="utf-8")
        with waiting.during(lambda: "waiting for points on stdin"):
            return "stdin", sys.stdin.read()
    except UnicodeDecodeError:
        raise PromptError(f"{file}: not a text file") from None
    except OSError as error:
        raise PromptError(f"{file}: {error.strerror}") from None
