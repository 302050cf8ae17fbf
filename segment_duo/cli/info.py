"""``segduo info``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import typer

from segment_duo.cli.bundles import bundled
from segment_duo.cli.each import run_batch
from segment_duo.cli.human import size, when
from segment_duo.cli.inputs import expand_inputs
from segment_duo.cli.options import (
    FramesOption,
    FromFileOption,
    InputsArgument,
    JsonLinesOption,
    ModelOption,
    ReadingOptions,
    SocketOption,
    check_frame,
    open_session,
)
from segment_duo.cli.output import emit, emit_json, image_record
from segment_duo.lengths import describe_nm
from segment_duo.types import FrameAxes, ImageFacts, ImageRef, Instrument, PixelSize

if TYPE_CHECKING:
    from segment_duo.session import OpenImage, Session


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("info", rich_help_panel=panel)(info)


@bundled
def info(
    reading: ReadingOptions,
    images: InputsArgument = None,
    from_file: FromFileOption = None,
    as_json: JsonLinesOption = False,
    frame: FramesOption = None,
    model: ModelOption = None,
    socket: SocketOption = None,
) -> None:
    """Tell what is known of an image: size, depth, scale, instrument, banner, embedding, saved sets.

    Of a stack or film it tells the axes, the number of frames and the time between them. Sets that bear the image's name but were made
    for another image or page are marked "not its own".

    [bold]Examples[/bold]

      segduo info /drops/labdaq/img.tif

      segduo info images/ --json | jq '{image, pixel_size}'

      segduo info film.tif --frame -1
    """
    check_frame(frame, reading.page)
    with open_session(model=model, socket=socket, max_pixels=reading.max_pixels) as session:
        inputs = expand_inputs(session, images, from_file, frame)

        def work(ref: ImageRef) -> None:
            opened = session.open_image(ref, **reading.arguments())
            if as_json:
                emit_json(_record(session, opened))
            else:
                _print(session, opened, blank=ref != inputs.refs[0])

        run_batch(inputs.refs, work, as_json=as_json, failures=inputs.failures)


def _record(session: Session, image: OpenImage) -> dict[str, Any]:
    record = {**image_record(image.ref), **dataclasses.asdict(image.data.facts)}
    record["embedding"] = session.is_embedded(image)
    record["sets"] = [
        {**dataclasses.asdict(found.version), "path": found.path, "belongs": found.belongs, "notice": found.notice}
        for found in session.sets.listed(image.ref, image.data.facts)
    ]
    return record


def _print(session: Session, image: OpenImage, *, blank: bool) -> None:
    if blank:
        emit("")
    facts = image.data.facts
    _print_rows([*_rows(image.ref, facts), ("embedding", session.is_embedded(image) or "not computed")])
    _print_sets(session, image)


def _rows(ref: ImageRef, facts: ImageFacts) -> list[tuple[str, str]]:
    bits = f", {facts.significant_bits} bits used" if facts.significant_bits else ""
    return [
        ("image", str(ref)),
        ("size", f"{facts.width} x {facts.height} pixels, {size(facts.bytes)}, {facts.format}"),
        ("samples", f"{facts.dtype}, {facts.channels} channel{'s' * (facts.channels > 1)}{bits}"),
        ("shown", facts.stretch),
        ("frame", "" if ref.frame is None else str(ref.frame)),
        ("page", f"{facts.page} of {facts.pages}" if facts.pages > 1 else ""),
        ("frames", _frames(facts.frames) if facts.frames else ""),
        ("banner", f"{facts.banner.height} rows cut (by {facts.banner.source})" if facts.banner.height else "none"),
        ("pixel size", _scale(facts.pixel_size, facts.width)),
        *_instrument(facts.instrument),
        ("sha256", facts.sha256),
    ]


def _print_rows(rows: list[tuple[str, str]]) -> None:
    for name, value in rows:
        if value:
            emit(f"{name:<12}{value}")


def _print_sets(session: Session, image: OpenImage) -> None:
    facts = image.data.facts
    sets = session.sets.listed(image.ref, facts)
    widest = max((len(found.version.name) for found in sets), default=0)
    for found in sets:
        version = found.version
        name = "saved set" if found.belongs else "not its own" if found.belongs is False else "damaged set"
        facts_of_file = f"{when(version.modified)}  {size(version.size)}  {found.path}"
        emit(f"{name:<12}{version.name:<{widest}}  {facts_of_file}")
        if found.notice:
            emit(f"{'':<12}{found.notice}")


def _frames(frames: FrameAxes) -> str:
    """``5 along T; T 5, Z 3, C 2; 0.2 s a frame; 300 nm between slices``"""
    parts = [f"{frames.count} along {frames.axis}"]
    if len(frames.sizes) > 1:
        parts.append(", ".join(f"{axis} {size}" for axis, size in frames.sizes))
    if frames.frame_seconds is not None:
        parts.append(f"{frames.frame_seconds:.4g} s a frame")
    if frames.spacing_nm is not None:
        parts.append(f"{describe_nm(frames.spacing_nm)} between slices")
    return "; ".join(parts)


def _scale(scale: PixelSize | None, width: int) -> str:
    if scale is None:
        return "unknown (give --pixel-size)"
    both = (
        describe_nm(scale.x_nm)
        if scale.x_nm == scale.y_nm
        else f"{describe_nm(scale.x_nm)} x {describe_nm(scale.y_nm)}"
    )
    return f"{both} (from {scale.source}, {scale.trust} trust); field width {describe_nm(scale.x_nm * width)}"


def _instrument(instrument: Instrument) -> list[tuple[str, str]]:
    maker = " ".join(part for part in (instrument.maker, instrument.model) if part)
    figures = [
        f"{instrument.accelerating_voltage_kv:g} kV" if instrument.accelerating_voltage_kv is not None else "",
        f"WD {instrument.working_distance_mm:.3g} mm" if instrument.working_distance_mm is not None else "",
        f"{instrument.magnification:g}x" if instrument.magnification is not None else "",
        instrument.detector,
        instrument.beam,
    ]
    return [
        ("instrument", maker),
        ("beam", ", ".join(figure for figure in figures if figure)),
        ("acquired", instrument.acquired),
    ]
