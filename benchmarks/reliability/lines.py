"""Every call of the Drops client through a proxy that trickles, stalls, resets, cuts and lies."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.reliability.ground import Row
from segment_duo.errors import DropsError
from segment_duo.library.versions import save_version
from segment_duo.stores.drops import DropsStore
from segment_duo.stores.transport import Patience
from tests.drops_server import DropsServer
from tests.fault_proxy import KINDS, Fault, FaultProxy

IMAGE = bytes(range(256)) * 3
PATIENCE = Patience(
    connect_seconds=2, read_seconds=0.2, answer_seconds=0.5, slowest_rate=1e6, attempts=2, first_pause=0.001, longest_pause=0.01,
    known_down_seconds=0,
)  # fmt: skip
SLACK_SECONDS = 20.0
POSITIONS = (0, 30, 240)
"""After how many bytes of the answer it is spoilt: before it, in its headers, in its body."""


def faults(folder: Path, *, positions: int = len(POSITIONS), repeats: tuple[int, ...] = (1, 8)) -> Row:
    """Each fault at each place, once and for good, in listing, reading, and saving a new version."""
    row = Row("proxy faults in list, read and save")
    refused = 0
    with DropsServer(folder / "drops") as server, FaultProxy(server.url) as proxy:
        server.put("/lab/a.tif", IMAGE)
        for kind in KINDS:
            for at in POSITIONS[:positions]:
                for times in repeats:
                    for call in ("list", "read", "save"):
                        row.tries += 1
                        refused += not _one(row, server, proxy, call, [Fault(kind, at)] * times)
    row.note = f"{refused} ended in a clear error"
    return row


def _one(row: Row, server: DropsServer, proxy: FaultProxy, call: str, plan: list[Fault]) -> bool:
    """One call; False if it ended in an error of ours."""
    for path in server.files():
        if path != "/lab/a.tif":
            (server.root / path.lstrip("/")).unlink()
    store = DropsStore(proxy.url, "ann", "secret", patience=PATIENCE)
    what = f"{call} with {len(plan)} x {plan[0].kind} at {plan[0].at}"
    data, saved, ended = b"masks " * 50, False, True
    proxy.faults = list(plan)
    started = time.monotonic()
    try:
        if call == "list" and [entry.name for entry in store.list("/lab")] != ["a.tif"]:
            row.count("lost", what)
        # A proxy that announces less sends a shorter answer that is whole in itself; the copy kept of a file is checked by its size.
        if call == "read" and store.read("/lab/a.tif") != IMAGE and plan[0].kind != "announce_less":
            row.count("torn", what)
        if call == "save":
            save_version(store, "/lab", "a", "", data)
            saved = True
    except DropsError as error:
        ended = False
        if not (error.message and error.hint):
            row.count("wrong", f"{what}: {error!r}")
    if time.monotonic() - started > 5 * PATIENCE.longest(len(IMAGE)) + SLACK_SECONDS:
        row.count("hung", what)
    proxy.faults = []
    made = {path: content for path, content in server.files().items() if path != "/lab/a.tif"}
    if set(made.values()) - {data}:
        row.count("torn", what)
    if len(made) > 1:
        row.count("doubled", what)
    if saved and not made:
        row.count("lost", what)
    return ended
