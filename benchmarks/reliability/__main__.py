"""All trials, one after the other, and their table: ``python -m benchmarks.reliability [--short] [--only NAME ...]``.

Everything happens in a temporary folder and on loopback. Exit code 1 when anything was lost, torn, doubled, hung or wrong.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.reliability import kills, lines, mutants, soak, sockets
from benchmarks.reliability.ground import Row
from segment_duo import __version__

Trial = Callable[[Path], Row]


def trials(short: bool) -> dict[str, Trial]:
    return {
        "engine": lambda folder: kills.engine(folder, 3 if short else 20),
        "command": lambda folder: kills.command(folder, 5 if short else 40),
        "delivery": lambda folder: kills.delivery(folder, 3 if short else 15),
        "server": lambda folder: kills.server(folder, 3 if short else 15),
        "lines": lambda folder: lines.faults(folder, positions=1) if short else lines.faults(folder),
        "sockets": lambda folder: sockets.fuzz(folder, 200 if short else 3000),
        "mutants": lambda _: mutants.mutants(250 if short else 5000),
        "soak": lambda folder: soak.soak(folder, 40, 20) if short else soak.soak(folder, 1000, 100),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("--short", action="store_true", help="A few of each, in some minutes.")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=list(trials(True)), help="Of: " + ", ".join(trials(True))
    )
    arguments = parser.parse_args()
    print(f"segduo {__version__}, {datetime.date.today()}, Python {platform.python_version()}, {os.cpu_count()} CPUs\n")
    print("| trial | tries | lost | torn | doubled | hung | wrong | minutes | |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for trial, run in trials(arguments.short).items():
            if arguments.only and trial not in arguments.only:
                continue
            started = time.monotonic()
            row = run(Path(name, trial))
            counts = " | ".join(str(n) for n in (row.tries, row.lost, row.torn, row.doubled, row.hung, row.wrong))
            print(f"| {row.what} | {counts} | {(time.monotonic() - started) / 60:.1f} | {row.note} |", flush=True)
            for detail in row.details:
                print(f"  {detail}", file=sys.stderr, flush=True)
            rows.append(row)
    sys.exit(0 if all(row.good for row in rows) else 1)


if __name__ == "__main__":
    main()
