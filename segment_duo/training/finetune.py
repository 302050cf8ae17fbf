"""Adapt any SAM 2 model to a few labelled images: the engine room of ``segduo train``.

    examples --encoder, once--> cached embeddings --simulated clicks--> decoder with gradients --> <models folder>/NAME/
                                                                                               model.yaml, model.pt, card.json

By default only the mask decoder is trained, on embeddings computed once, so that five images take minutes on a CPU; ``full`` also trains the
image encoder, at a fifth of the rate. The weights with the best validation IoU are kept, also when the user stops the run. Nothing
here reads images or mask sets: they arrive as :class:`TrainingExample`.
"""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from segment_duo.errors import AlreadyExists, InputError, StoreError, UsageError
from segment_duo.segmenters.sam2.build import build_model, find_config
from segment_duo.training.clicks import STRIDE, corrections, first_click
from segment_duo.training.forward import Features, decode, encode, normalize, training_attention
from segment_duo.training.objective import overlap, prompt_loss

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

MIN_AREA = 16
"""Masks with fewer pixels than this at the model's input size are left out."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingExample:
    """One labelled image.

    Attributes:
        image: uint8, shape (height, width, 3), as the model is to see it.
        masks: bool, each (height, width). Together they should hold every object in the picture if ``complete``.
        name: for the card and messages.
        sha256: of the image file, for the card.
        complete: pixels outside all masks are background, where a click must find nothing.
    """

    image: npt.NDArray[np.uint8]
    masks: Sequence[npt.NDArray[np.bool_]]
    name: str
    sha256: str
    complete: bool = True


@dataclass(frozen=True, slots=True)
class FineTuneOptions:
    """Attributes:
    steps: optimizer steps at most.
    lr: highest learning rate of the decoder; falls to zero as a cosine.
    full: also train the image encoder and prompt encoder.
    val_split: share of the images kept for validation; below three images the same share of the objects.
    prompts: prompts a step; 0 chooses 16 for inputs up to 512 pixels, 8 above.
    views: each training image is also seen mirrored: 1 to 4 of (as is, left-right, upside-down, both).
    check_every: steps between validations; patience: validations without a better IoU before an early stop.
    seed: of clicks, views and the split.
    """

    steps: int = 400
    lr: float = 3e-4
    full: bool = False
    val_split: float = 0.2
    prompts: int = 0
    views: int = 4
    check_every: int = 25
    patience: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        if (
            self.steps < 1
            or self.lr <= 0
            or not 0 <= self.val_split < 1
            or not 1 <= self.views <= 4
            or self.check_every < 1
        ):
            raise UsageError(
                "steps, lr, val-split, views or check-every are out of range", "See `segduo train --help`."
            )


@dataclass(frozen=True, slots=True)
class BaseModel:
    """What is adapted: the registry's facts. ``auto_defaults`` go to the new model's card unchanged."""

    id: str
    config: str
    checkpoint: str
    sha256: str
    auto_defaults: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progress:
    """Sent after every step; ``val_iou`` is that of the last validation (1 click), ``best_iou`` the best so far."""

    step: int
    steps: int
    loss: float
    val_iou: float
    best_iou: float
    phase: str = "train"


@dataclass(frozen=True, slots=True)
class FineTuneResult:
    """``folder`` of the new model; IoU after one click on the validation objects, before and after; why it ended."""

    folder: Path
    val_iou_before: float
    val_iou: float
    steps: int
    best_step: int
    ended: str  # "all steps", "early stop", "stopped by the user"
    seconds: float


OnProgress = Callable[[Progress], None]


def fine_tune(
    base: BaseModel,
    examples: Sequence[TrainingExample],
    models_dir: Path,
    name: str,
    options: FineTuneOptions | None = None,
    on_progress: OnProgress = lambda _progress: None,
    device: str | torch.device = "cpu",
) -> FineTuneResult:
    """Train, and write ``models_dir/name``. A run that was killed goes on where its last validation was.

    ``KeyboardInterrupt`` ends the training and keeps the best weights so far; a second one discards the rest of the work.

    Raises:
        AlreadyExists: there is a model of that name.
        InputError: no usable mask in the examples.
        ModelError: the base model cannot be loaded.
        StoreError: the result cannot be written.
        UsageError: the name is not a plain folder name.
    """
    options = options or FineTuneOptions()
    target = models_dir / name
    if name in {"", ".", ".."} or name.startswith(".") or Path(name).name != name:
        raise UsageError(f"{name!r} cannot be the name of a model", "Use letters, digits, - and _.")
    if target.exists():
        raise AlreadyExists(
            f"there is already a model {name!r}", "Choose another --name, or remove the old model first."
        )
    began = time.monotonic()
    model = build_model(base.config, base.checkpoint, device)
    session = _Session(model, base, examples, options, models_dir / f".{name}.partial", on_progress)
    try:
        ended = session.train()
        seconds = time.monotonic() - began
        session.write(target, ended, seconds)
    except OSError as error:
        raise StoreError(
            f"the trained model could not be written: {error.strerror or error}", f"Check {models_dir}."
        ) from error
    return FineTuneResult(
        target, session.before, session.best_iou, session.step, session.best_step, ended, time.monotonic() - began
    )


@dataclass(eq=False)
class _Prepared:
    """One view of an image at the model's input size: features (None when the encoder is trained) and its objects."""

    features: Features | None
    pixels: torch.Tensor
    masks: npt.NDArray[np.bool_]  # (objects, S, S)
    depths: list[npt.NDArray[np.float64]]
    background: npt.NDArray[np.int64]  # (n, 2) x and y


class _Session:
    """One run: its data, its optimizer, and the file it resumes from."""

    def __init__(
        self,
        model: SAM2Base,
        base: BaseModel,
        examples: Sequence[TrainingExample],
        options: FineTuneOptions,
        partial: Path,
        on_progress: OnProgress,
    ) -> None:
        self.model, self.base, self.examples, self.options = model, base, examples, options
        self.partial, self.on_progress = partial, on_progress
        self.rng = np.random.default_rng(options.seed)
        torch.manual_seed(options.seed)
        self.prompts = options.prompts or (16 if model.image_size <= 512 else 8)
        self.training, self.validation = self._prepare()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        groups: list[dict[str, Any]] = [
            {"params": _enable(_decoder_parameters(model)), "lr": options.lr, "highest": options.lr}
        ]
        if options.full:
            encoder = [*model.image_encoder.parameters(), *model.sam_prompt_encoder.parameters()]
            encoder += [*model.sam_mask_decoder.conv_s0.parameters(), *model.sam_mask_decoder.conv_s1.parameters()]
            groups.append({"params": _enable(encoder), "lr": options.lr / 5, "highest": options.lr / 5})
        self.trained = [p for group in groups for p in group["params"]]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
        self.step = self.best_step = self.stale = 0
        self.before = self.best_iou = self.last_iou = float("nan")
        self.best = self._snapshot()
        self._resume()

    # -- data ---------------------------------------------------------------------------------------------------------

    def _prepare(self) -> tuple[list[_Prepared], list[_Prepared]]:
        usable = [e for e in self.examples if any(int(m.sum()) > 0 for m in e.masks)]
        if not usable:
            raise InputError(
                "there is no mask to learn from", "Save masks for the images first (`segduo auto` or the terminal UI)."
            )
        order = self.rng.permutation(len(usable))
        held = round(self.options.val_split * len(usable)) if len(usable) >= 3 else 0
        held = max(held, 1) if len(usable) >= 3 and self.options.val_split > 0 else held
        training, validation = [], []
        for rank, index in enumerate(order):
            example = usable[int(index)]
            self.on_progress(Progress(rank, len(usable), math.nan, math.nan, math.nan, phase="embed"))
            if rank < held:
                validation += self._views(example, 1)
            else:
                training += self._views(example, self.options.views)
        training = [t for t in training if len(t.masks)]
        validation = [v for v in validation if len(v.masks)]
        if not training:
            raise InputError("all masks are too small at the model's input size", "Crop or tile the images first.")
        if not validation:
            training, validation = self._split_objects(training)
        return training, validation

    def _split_objects(self, training: list[_Prepared]) -> tuple[list[_Prepared], list[_Prepared]]:
        """Keep some objects of the first views for validation; with one object in all, it serves both."""
        first = training[0]
        held = max(1, round(self.options.val_split * len(first.masks)))
        if len(first.masks) < 2 or self.options.val_split == 0:
            return training, [first]
        kept = copy.copy(first)
        kept.masks, kept.depths = first.masks[:held], first.depths[:held]
        views = min(self.options.views, len(training))
        for view in training[:views]:  # the views of one image hold the same objects in the same order
            if len(view.masks) == len(first.masks):
                view.masks, view.depths = view.masks[held:], view.depths[held:]
        return training, [kept]

    def _views(self, example: TrainingExample, count: int) -> list[_Prepared]:
        from PIL import Image
        from scipy import ndimage

        side = int(self.model.image_size)
        image = np.asarray(Image.fromarray(example.image).resize((side, side), Image.Resampling.BILINEAR))
        height, width = example.image.shape[:2]
        rows = ((np.arange(side) + 0.5) * height / side).astype(int)
        columns = ((np.arange(side) + 0.5) * width / side).astype(int)
        resized = [np.asarray(m, bool)[rows[:, None], columns[None]] for m in example.masks]
        masks = [m for m in resized if int(m.sum()) >= MIN_AREA]
        out = []
        for flips in ((), (1,), (0,), (0, 1))[:count]:
            turned = np.flip(image, flips).copy()
            own = np.stack([np.flip(m, flips) for m in masks]) if masks else np.zeros((0, side, side), bool)
            empty = np.zeros((0, 2), np.int64)
            if example.complete and len(own):
                free = ndimage.minimum_filter((~own.any(axis=0)).astype(np.uint8), size=7)
                empty = np.argwhere(free)[:, ::-1]
            pixels = normalize(torch.from_numpy(turned)[None]).to(self.model.device)
            features = None
            if not self.options.full:
                with torch.no_grad():
                    features = self._encode(pixels)
                features = Features(features.embedding, features.fine, features.offsets)
            depths = [np.asarray(ndimage.distance_transform_edt(np.pad(m, 1))[1:-1, 1:-1]) for m in own]
            out.append(_Prepared(features, pixels, own, depths, empty))
        return out

    def _encode(self, pixels: torch.Tensor) -> Features:
        return encode(self.model, pixels, torch.zeros(1, 2, dtype=torch.long, device=pixels.device))

    # -- training -----------------------------------------------------------------------------------------------------

    def train(self) -> str:
        """Run to the end; returns why it ended."""
        if self.step == 0:
            self.before = self.best_iou = self.last_iou = self._validate()
        ended = "all steps"
        try:
            with training_attention():
                while self.step < self.options.steps:
                    loss = self._step()
                    if self.step % self.options.check_every == 0 or self.step == self.options.steps:
                        self._check()
                    self.on_progress(Progress(self.step, self.options.steps, loss, self.last_iou, self.best_iou))
                    if self.stale >= self.options.patience:
                        ended = "early stop"
                        break
        except KeyboardInterrupt:
            ended = "stopped by the user"
        return ended

    def _step(self) -> float:
        fraction = self.step / self.options.steps
        ramp = min(1.0, (self.step + 1) / 20)
        for group in self.optimizer.param_groups:
            group["lr"] = group["highest"] * ramp * 0.5 * (1 + math.cos(math.pi * fraction))
        view = self.training[int(self.rng.integers(len(self.training)))]
        loss = self._loss(view)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    def _loss(self, view: _Prepared) -> torch.Tensor:
        """A first click on each of a few objects and on background, then one to three corrections of half of the objects."""
        device = self.model.device
        features = view.features or self._encode(view.pixels)
        blank = min(self.prompts // 5, len(view.background))
        chosen = self.rng.choice(len(view.masks), min(self.prompts - blank, len(view.masks)), replace=False)
        clicks = [first_click(self.rng, view.masks[i], view.depths[i]) for i in chosen]
        clicks += (
            [tuple(view.background[i]) for i in self.rng.integers(len(view.background), size=blank)] if blank else []
        )
        target = _coverage(view.masks[chosen], device)
        target = torch.cat([target, target.new_zeros(blank, *target.shape[1:])])
        present = torch.arange(len(target), device=device) < len(chosen)
        owner = torch.zeros(len(target), dtype=torch.long, device=device)
        points = torch.tensor(np.array(clicks, np.float32), device=device)[:, None]
        labels = torch.ones(len(target), 1, dtype=torch.long, device=device)
        first = decode(self.model, features, owner, points, labels)
        loss, _ = prompt_loss(first, target, present)
        again = torch.from_numpy(self.rng.permutation(len(chosen))[: max(1, len(chosen) // 2)]).to(device)
        best = first.iou.detach()[again, 1:].argmax(dim=1) + 1
        logits = first.logits.detach()[again, best][:, None]
        points, labels = points[again], labels[again]
        rounds = int(self.rng.integers(1, 4))
        for k in range(rounds):
            more, kinds = corrections(logits, target[again])
            points, labels = torch.cat([points, more], 1), torch.cat([labels, kinds], 1)
            with torch.set_grad_enabled(k == rounds - 1):
                out = decode(self.model, features, owner[again], points, labels, logits)
            logits = out.logits.detach()[:, :1]
        refined, _ = prompt_loss(out, target[again], present[again], single=1.0)
        return loss + 0.5 * refined

    @torch.no_grad()
    def _validate(self) -> float:
        """Mean IoU after one click in the middle of each validation object (at the logits' resolution)."""
        found: list[float] = []
        device = self.model.device
        for view in self.validation:
            features = view.features or self._encode(view.pixels)
            for start in range(0, len(view.masks), self.prompts):
                part = slice(start, start + self.prompts)
                rng = np.random.default_rng(0)
                pairs = zip(view.masks[part], view.depths[part], strict=True)
                clicks = [first_click(rng, mask, depth, middle=1.0) for mask, depth in pairs]
                count = len(clicks)
                out = decode(
                    self.model,
                    features,
                    torch.zeros(count, dtype=torch.long, device=device),
                    torch.tensor(clicks, device=device)[:, None],
                    torch.ones(count, 1, dtype=torch.long, device=device),
                )
                reached = overlap(out.logits, _coverage(view.masks[part], device))
                best = out.iou[:, 1:].argmax(dim=1) + 1
                found += reached.gather(1, best[:, None])[:, 0].tolist()
        return float(np.mean(found))

    def _check(self) -> None:
        self.last_iou = self._validate()
        if self.last_iou > self.best_iou:
            self.best_iou, self.best_step, self.stale = self.last_iou, self.step, 0
            self.best = self._snapshot()
        else:
            self.stale += 1
        self._save_state()

    # -- files --------------------------------------------------------------------------------------------------------

    def _snapshot(self) -> dict[str, torch.Tensor]:
        trained = {id(p) for p in self.trained}
        return {n: p.detach().clone() for n, p in self.model.named_parameters() if id(p) in trained}

    def _fingerprint(self) -> str:
        facts = {
            "base": self.base.sha256,
            "options": asdict(self.options),
            "data": [[e.sha256, len(e.masks), sum(int(m.sum()) for m in e.masks)] for e in self.examples],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _save_state(self) -> None:
        self.partial.mkdir(parents=True, exist_ok=True)
        state = {
            "fingerprint": self._fingerprint(),
            "weights": self._snapshot(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "numbers": [self.step, self.best_step, self.stale, self.before, self.best_iou, self.last_iou],
            "rng": json.dumps(self.rng.bit_generator.state),
        }
        torch.save(state, self.partial / "state.pt.tmp")
        (self.partial / "state.pt.tmp").replace(self.partial / "state.pt")

    def _resume(self) -> None:
        try:
            state = torch.load(self.partial / "state.pt", map_location=self.model.device, weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError):
            return
        if state["fingerprint"] != self._fingerprint():
            return  # other data or options: start over
        self.model.load_state_dict(state["weights"], strict=False)
        self.best = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best_step, self.stale, self.before, self.best_iou, self.last_iou = state["numbers"]
        self.rng.bit_generator.state = json.loads(state["rng"])

    def write(self, target: Path, ended: str, seconds: float) -> None:
        """The finished model: written beside its place, then renamed, so that it is there whole or not at all."""
        staging = self.partial / "finished"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        state = self.model.state_dict()
        for name, value in self.best.items():
            state[name] = value
        torch.save({"model": {k: v.detach().cpu() for k, v in state.items()}}, staging / "model.pt")
        shutil.copyfile(find_config(self.base.config), staging / "model.yaml")
        card = {
            "made": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "base": {"id": self.base.id, "sha256": self.base.sha256},
            "data": [{"name": e.name, "sha256": e.sha256, "masks": len(e.masks)} for e in self.examples],
            "parameters": asdict(self.options),
            "scores": {"val_iou_before": self.before, "val_iou": self.best_iou, "best_step": self.best_step},
            "steps": self.step,
            "ended": ended,
            "seconds": round(seconds, 1),
            "auto_defaults": dict(self.base.auto_defaults),
        }
        (staging / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        for path in staging.iterdir():
            with _opened(path) as descriptor:
                os.fsync(descriptor)
        staging.rename(target)
        shutil.rmtree(self.partial, ignore_errors=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _decoder_parameters(model: SAM2Base) -> list[torch.nn.Parameter]:
    """The mask decoder without the convolutions that belong to the cached embedding."""
    return [p for n, p in model.sam_mask_decoder.named_parameters() if not n.startswith(("conv_s0.", "conv_s1."))]


def _enable(parameters: list[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


def _coverage(masks: npt.NDArray[np.bool_], device: torch.device) -> torch.Tensor:
    stacked = torch.from_numpy(np.ascontiguousarray(masks)).float()[:, None]
    return torch.nn.functional.avg_pool2d(stacked, STRIDE).to(device)
