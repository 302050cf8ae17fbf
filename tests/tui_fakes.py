"""A session in memory for the tests of the terminal UI: images are arrays, the engine answers with discs."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segment_duo.closer import PromptScale
from segment_duo.config import ClassSettings
from segment_duo.engine.protocol import AutoEvent
from segment_duo.engine.reports import EngineStatus
from segment_duo.errors import Cancelled, NotFound
from segment_duo.masks.rle import bounding_box, encode
from segment_duo.parameters import AutoParameters
from segment_duo.provenance import point_origin
from segment_duo.results import AutoResult, Candidate, PredictedObject
from segment_duo.tui.ports import SessionPort
from segment_duo.types import (
    Banner,
    Box,
    Entry,
    ImageData,
    ImageFacts,
    ImageRef,
    Mask,
    MaskSet,
    ModelIdentity,
    PixelSize,
    Prompt,
    Provenance,
    StoreKind,
    Version,
)


def disc(height: int, width: int, x: float, y: float, radius: float, **fields: Any) -> Mask:
    """A round mask."""
    yy, xx = np.ogrid[:height, :width]
    bits = (xx - x) ** 2 + (yy - y) ** 2 <= radius**2
    rle = encode(bits)
    return Mask(rle, int(bits.sum()), bounding_box(rle), **fields)


def micrograph(height: int = 240, width: int = 320, seed: int = 1) -> np.ndarray:
    """Bright discs on a grey ground, with noise; uint8 (H, W)."""
    generator = np.random.default_rng(seed)
    image = generator.normal(80, 8, (height, width))
    yy, xx = np.ogrid[:height, :width]
    for y in range(40, height, 80):
        for x in range(40, width, 80):
            image[(xx - x) ** 2 + (yy - y) ** 2 <= 22**2] += 90
    return np.clip(image, 0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class FakeImage:
    ref: ImageRef
    data: ImageData


@dataclass(frozen=True)
class FakeModel:
    id: str = "nano"
    capabilities: frozenset[str] = frozenset({"points", "box", "mask input", "automatic"})
    input_size: int = 512


@dataclass(frozen=True)
class FakeConfig:
    start_folder: str = "/pictures"
    classes: Mapping[str, ClassSettings] = field(default_factory=dict)


@dataclass(frozen=True)
class FakeLoaded:
    version: Version
    mask_set: MaskSet
    notice: str = ""


@dataclass(frozen=True)
class FakePeek:
    count: int
    provenance: Provenance
    frames: int | None = None


@dataclass(frozen=True)
class FakeListed:
    version: Version
    peek: FakePeek
    belongs: bool = True
    notice: str = ""


@dataclass(frozen=True)
class FakeSaved:
    version: Version | None
    path: str
    spooled: Path | None = None


NANO = ModelIdentity("nano", "0" * 64)


@dataclass
class FakeSession:
    """``images``: path -> grey pixels. ``banners``: path -> rows. ``failures``: method name -> error to raise."""

    images: dict[str, np.ndarray] = field(default_factory=dict)
    banners: dict[str, int] = field(default_factory=dict)
    saved: dict[str, list[tuple[Version, MaskSet]]] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    slow: dict[str, float] = field(default_factory=dict)
    spool: bool = False
    parts: list[Box | None] = field(default_factory=list)
    closer: Box | None = None
    predicted_iou: float = 0.9
    pages: int = 1
    more_listed: list[FakeListed] = field(default_factory=list)
    gate: threading.Event | None = None
    config: FakeConfig = FakeConfig()
    model: FakeModel = FakeModel()

    def _enter(self, name: str, detail: Any = None) -> None:
        self.calls.append((name, detail))
        if name in self.slow:
            time.sleep(self.slow[name])
        if name in self.failures:
            raise self.failures[name]

    def count(self, name: str) -> int:
        return sum(call[0] == name for call in self.calls)

    def reference(self, text: str) -> ImageRef:
        if text.startswith("/drops/"):
            return ImageRef(StoreKind.DROPS, text.removeprefix("/drops"))
        return ImageRef(StoreKind.LOCAL, "/pictures" if text == "." else text)

    def list_folder(self, text: str) -> list[Entry]:
        self._enter("list_folder", text)
        folder = text.rstrip("/") + "/"
        now = time.time()
        names = [path.removeprefix(folder) for path in self.images if path.startswith(folder)]
        files = [Entry(n, folder + n, False, 1000, now - 60 * i) for i, n in enumerate(names) if "/" not in n]
        return [
            *files,
            Entry("older", folder + "older", True, 0, now - 10**6),
            Entry("notes.txt", folder + "notes.txt", False, 3, now),
        ]

    @property
    def sets(self) -> FakeSession:
        """The saved sets; this one object fakes both."""
        return self

    def stems(self, folder: ImageRef) -> set[str]:
        return {path.rsplit("/", 1)[-1].rsplit(".", 1)[0] for path, sets in self.saved.items() if sets}

    def open_image(
        self, ref: ImageRef, *, page: int = 0, banner: str | int = "auto", pixel_size: PixelSize | None = None
    ) -> FakeImage:
        self._enter("open_image", (ref.path, banner))
        if ref.path not in self.images:
            raise NotFound(f"{ref.path}: no such file", "Check the name.")
        grey = self.images[ref.path]
        cut = self.banners.get(ref.path, 0) if banner == "auto" else 0
        height, width = grey.shape
        rows = grey[: height - cut]
        facts = ImageFacts(
            width, height, "PNG", "uint8", 1, page, self.pages, "ab" * 32, grey.nbytes, 8,
            Banner(cut, "pixels" if cut else "off"), PixelSize(3.37, 3.37, "test"),
        )  # fmt: skip
        return FakeImage(ref, ImageData(np.repeat(rows[..., None], 3, axis=2), rows, facts))

    def embed(self, image: FakeImage, part: Box | None = None) -> None:
        self._enter("embed", image.ref.path)

    def predict(
        self,
        image: FakeImage,
        prompts: Sequence[Prompt],
        *,
        multimask_output: bool | None = None,
        preview_max_side: int | None = None,
        part: Box | None = None,
    ) -> list[PredictedObject]:
        self._enter("predict", (prompts[0], multimask_output))
        self.parts.append(part)
        if self.gate is not None:
            self.gate.wait(10)
        prompt = prompts[0]
        height, width = image.data.facts.height, image.data.facts.width
        if prompt.points:
            x, y = prompt.points[0].x, prompt.points[0].y
        else:
            assert prompt.box is not None
            x, y = (prompt.box.x0 + prompt.box.x1) / 2, (prompt.box.y0 + prompt.box.y1) / 2
        many = (
            multimask_output if multimask_output is not None else len(prompt.points) == 1 and prompt.mask_input is None
        )
        radii = (22, 11, 33) if many else (22 + len(prompt.points),)
        return [
            PredictedObject(
                "0",
                tuple(
                    Candidate(
                        disc(height, width, x, y, radius, predicted_iou=self.predicted_iou - i / 10), f"logits-{radius}"
                    )
                    for i, radius in enumerate(radii)
                ),
            )
        ]

    def predict_at_scale(
        self,
        image: FakeImage,
        prompts: Sequence[Prompt],
        scale: PromptScale | None = None,
        *,
        multimask_output: bool | None = None,
    ) -> list[PredictedObject]:
        """Looks at ``self.closer`` if the session was told one, and at all of the image else."""
        part = self.closer if scale is None else None
        found = self.predict(image, prompts, multimask_output=multimask_output, part=part)
        origin = point_origin(NANO, prompts[0], multimask_output, part)
        return [
            dataclasses.replace(
                answer,
                candidates=tuple(
                    dataclasses.replace(one, mask=dataclasses.replace(one.mask, origin=origin))
                    for one in answer.candidates
                ),
            )
            for answer in found
        ]

    def auto(
        self,
        image: FakeImage,
        parameters: AutoParameters,
        *,
        preset: str = "",
        part: Box | None = None,
        on_event: Callable[[AutoEvent], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> AutoResult:
        self._enter("auto", parameters)
        self.parts.append(part)
        height, width = image.data.facts.height, image.data.facts.width
        masks = []
        centres = [(x, y) for y in range(40, height, 80) for x in range(40, width, 80)]
        for i, (x, y) in enumerate(centres):
            masks.append(disc(height, width, x, y, 22, id=i, predicted_iou=0.95, stability_score=0.97))
            if on_event:
                on_event(AutoEvent("progress", phase="points", done=i + 1, total=len(centres)))
            while self.gate is not None and not self.gate.is_set():
                if cancelled and cancelled():
                    raise Cancelled("cancelled")
                time.sleep(0.01)
        return AutoResult(tuple(masks), (), 0.5, False)

    def auto_defaults(self, preset: str = "default") -> AutoParameters:
        return dataclasses.replace(AutoParameters(), points_per_side=16 if preset == "coarse" else 32)

    def versions(self, ref: ImageRef) -> list[Version]:
        self._enter("versions")
        return [version for version, _ in self.saved.get(ref.path, [])]

    def listed(self, ref: ImageRef, facts: ImageFacts | None = None) -> list[FakeListed]:
        self._enter("listed")
        sets = self.saved.get(ref.path, [])
        own = [FakeListed(version, FakePeek(len(found.masks), found.provenance)) for version, found in sets]
        return [*own, *self.more_listed]

    def check_out(self) -> None:
        self._enter("check_out")

    def load(self, ref: ImageRef, version: str | None = None, facts: ImageFacts | None = None) -> FakeLoaded:
        self._enter("load", version)
        for found, mask_set in reversed(self.saved.get(ref.path, [])):
            if version in (None, found.name):
                return FakeLoaded(found, mask_set)
        raise NotFound(f"{ref}: no saved sets yet")

    def save(
        self,
        image: FakeImage,
        masks: Sequence[Mask],
        *,
        operation: str,
        parameters: Mapping[str, Any] | None = None,
        suffix: str = "",
        parent: str | None = None,
    ) -> FakeSaved:
        self._enter("save", (suffix, parent, dict(parameters or {})))
        sets = self.saved.setdefault(image.ref.path, [])
        number = sum(version.suffix == suffix for version, _ in sets)
        name = (f"{suffix}_{number}" if number else suffix) if suffix else str(number)
        path = f"/masks/{image.ref.stem}_{name}.pkl"
        version = Version(name, suffix, number, path, 100, time.time())
        sets.append((version, MaskSet(tuple(masks), Provenance(operation=operation))))
        if self.spool:
            return FakeSaved(None, "/spool/x.pkl", Path("/spool/x.pkl"))
        return FakeSaved(version, path)

    def engine_status(self, *, start: bool = False) -> EngineStatus | None:
        return EngineStatus(protocol=1, version="0", pid=1, state="idle", device="cpu")


def pictures() -> FakeSession:
    """Two images, one with an info banner."""
    with_banner = micrograph(260, 320, 2)
    with_banner[240:] = 0
    return FakeSession(
        {"/pictures/particles.tif": micrograph(), "/pictures/banner.tif": with_banner}, {"/pictures/banner.tif": 20}
    )


def _keeps_to_the_protocol(session: FakeSession) -> SessionPort:
    """For the type checker: a method that the real session has and the fake has not, or has otherwise, is an error here."""
    return session
