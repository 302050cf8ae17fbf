"""Which licences a user has to accept before a model runs, and which ones were accepted.

Permissive ones need no word. Everything else, a licence that a plug-in does not state among them, is accepted once for a model
(``segduo models accept NAME``); the file ``accepted-licences.json`` beside ``config.toml`` holds name, licence and date.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any

from segment_duo.durable import make_folders, replace_file
from segment_duo.errors import ModelError, StoreError
from segment_duo.paths import Paths

PERMISSIVE = frozenset(
    {
        "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC-BY-4.0", "CC0-1.0", "ISC", "MIT", "MIT-0", "PSF-2.0", "Unlicense",
        "Zlib",
    }
)  # fmt: skip
"""SPDX names of licences that ask for no more than that their text and the authors' names stay."""

FILE = "accepted-licences.json"


def must_be_accepted(licence: str) -> bool:
    """Whether a model under this licence runs only after the user agreed."""
    return licence not in PERMISSIVE


def is_accepted(paths: Paths, name: str, licence: str) -> bool:
    """Whether the user accepted this licence for this model; another licence of the same model is a new question."""
    entry = _accepted(paths).get(name)
    return isinstance(entry, dict) and entry.get("licence") == licence


def accept(paths: Paths, name: str, licence: str) -> None:
    """Record that the user accepts a licence for a model.

    Raises:
        StoreError: the record cannot be written.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    entries = {**_accepted(paths), name: {"licence": licence, "accepted": now}}
    _write(paths, entries)


def check(paths: Paths, name: str, licence: str) -> None:
    """Raise ModelError for a model whose licence is to be accepted and was not."""
    if must_be_accepted(licence) and not is_accepted(paths, name, licence):
        raise ModelError(
            f"the model '{name}' has {described(licence)}, which you have not accepted yet",
            f"`segduo models show {name}` tells more, `segduo models accept {name}` accepts it.",
        )


def described(licence: str) -> str:
    """A licence in a sentence."""
    return f"the licence {licence}" if licence else "no stated licence"


def _accepted(paths: Paths) -> Mapping[str, Any]:
    try:
        found = json.loads((paths.config_dir / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(paths: Paths, entries: Mapping[str, Any]) -> None:
    file = paths.config_dir / FILE
    try:
        make_folders(file.parent)
        replace_file(file, json.dumps(entries, indent=1, sort_keys=True).encode() + b"\n")
    except OSError as error:
        raise StoreError(
            f"{file}: {error.strerror or error}", "Make the folder writable, or set SEGDUO_HOME."
        ) from None
