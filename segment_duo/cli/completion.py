"""What Tab completes: values of options, and versions behind an image's ``@``. Typer's scripts ask for it in bash, zsh and fish.

A completion never fails and never waits for a server: what cannot be had quickly is not offered.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from segment_duo.errors import SegduoError

Completer = Callable[[str], list[str]]


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def presets(incomplete: str) -> list[str]:
    from segment_duo.segmenters.presets import PRESETS

    return _beginning(incomplete, PRESETS)


def devices(incomplete: str) -> list[str]:
    return _beginning(incomplete, ("auto", "cuda", "mps", "cpu"))


def models(incomplete: str) -> list[str]:
    """Every model of this machine, and those that can be pulled."""
    from segment_duo.config import load_config
    from segment_duo.models.known import known_models
    from segment_duo.paths import Paths

    try:
        return _beginning(incomplete, (model.id for model in known_models(Paths.default(), load_config().config)))
    except SegduoError:
        return []


def pulled_models(incomplete: str) -> list[str]:
    """What `segduo models pull` can fetch."""
    from segment_duo.segmenters.sam2.catalogue import SAM21

    return _beginning(incomplete, (spec.id for spec in SAM21))


def export_formats(incomplete: str) -> list[str]:
    from segment_duo.masks.formats.export import FORMATS
    from segment_duo.tracking.export import SEQUENCE_FORMATS

    return _beginning(incomplete, (*FORMATS, *SEQUENCE_FORMATS))


def import_formats(incomplete: str) -> list[str]:
    from segment_duo.masks.formats.importers import IMPORTS

    return _beginning(incomplete, (*IMPORTS, "labels-stack", "ctc"))


def overlap_rules(incomplete: str) -> list[str]:
    from segment_duo.masks.overlap import OVERLAP_RULES

    return _beginning(incomplete, OVERLAP_RULES)


def banners(incomplete: str) -> list[str]:
    return _beginning(incomplete, ("auto", "off"))


def versions(incomplete: str) -> list[str]:
    """``IMAGE@`` and the versions of a local image; nothing before the ``@``, so that the shell completes file names."""
    image, at, begun = incomplete.rpartition("@")
    if not (at and image):
        return []
    from segment_duo.config import load_config
    from segment_duo.session import Session
    from segment_duo.types import StoreKind

    try:
        session = Session(load_config())
        ref = session.reference(image)
        if ref.store is not StoreKind.LOCAL or session.sets.folder(ref)[0] is not StoreKind.LOCAL:
            return []
        names = [version.name for version in session.sets.versions(ref)]
    except SegduoError:
        return []
    found = [f"{image}@{name}" for name in _beginning(begun, names)]
    if SPLIT_AT in os.environ:  # bash puts the answer behind the image's name
        return [_Tail(whole.removeprefix(image)) for whole in found]
    return found


SPLIT_AT = "_SEGDUO_SPLIT_AT"


class _Tail(str):
    """The end of a completion. Typer drops what does not begin with the whole word so far."""

    __slots__ = ()

    def startswith(self, *_: object) -> bool:
        return True


def join_words() -> None:
    """Undo that bash breaks ``IMAGE@VERSION`` into words at the ``@``, before Typer reads them."""
    if os.environ.get("_SEGDUO_COMPLETE") != "complete_bash":
        return
    words = os.environ.get("COMP_WORDS", "").split("\n")
    at = int(os.environ.get("COMP_CWORD", "0"))
    joined: list[str] = []
    for number, word in enumerate(words):
        follows = number > 1 and (word.startswith("@") or words[number - 1] == "@")
        if follows:
            joined[-1] += word
        else:
            joined.append(word)
        if number == at:
            os.environ["COMP_CWORD"] = str(len(joined) - 1)
            if follows:
                os.environ[SPLIT_AT] = "1"
    os.environ["COMP_WORDS"] = "\n".join(joined)
