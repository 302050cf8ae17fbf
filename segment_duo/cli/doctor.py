"""``segduo doctor``."""

from __future__ import annotations

import dataclasses

import typer

from segment_duo.cli.options import JsonOption, ModelOption, SocketOption
from segment_duo.cli.output import emit, emit_json, note

_MARKS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}


def register(app: typer.Typer, *, panel: str) -> None:
    app.command("doctor", rich_help_panel=panel)(doctor)


def doctor(as_json: JsonOption = False, model: ModelOption = None, socket: SocketOption = None) -> None:
    """Check terminal, engine, models, memory, disk, caches and Drops, and say what to do.

    Exits with 0 when nothing is wrong, with 8 when some check found a problem.

    [bold]Example[/bold]

      segduo doctor
    """
    from segment_duo.cli.diagnostics import CheckResult, Verdict, examine
    from segment_duo.config import inspect_config
    from segment_duo.session import Session
    from segment_duo.terminal.graphics import terminal_report

    findings: list[CheckResult] = []
    session = Session(inspect_config({"model": model, "socket": socket}), notify=note)
    for finding in examine(session, lambda: terminal_report(session.config.graphics)):
        findings.append(finding)
        if not as_json:
            emit(f"{_MARKS[finding.verdict]}  {finding.check}: {finding.detail}")
            if finding.advice:
                emit(f"{'':9}-> {finding.advice}")
    if as_json:
        emit_json([dataclasses.asdict(finding) for finding in findings], indent=1)
    if any(finding.verdict is Verdict.PROBLEM for finding in findings):
        raise typer.Exit(8)
