"""Adapt any SAM 2 model to a few labelled pictures: the engine room of ``segduo train``.

    pictures --windows--> views --encoder--> embeddings --simulated prompts--> decoder with gradients
    validation pictures --clicks and automatic masks, thresholds chosen anew--> the best state --> <models folder>/NAME/
                                                                                 model.yaml, model.pt, card.json

By default only the mask decoder is trained, on embeddings of a changing handful of views; ``full`` also trains the image encoder, at a
fifth of the rate. Three things keep ``auto`` from suffering: prompts are also drawn as a grid of points meets a picture, background
included, at the scales of whole pictures and of tiles; every fourth step asks for the base's own answers on synthetic scenes; and a state
counts as better only if neither clicks nor automatic masks lose, with thresholds chosen for it. Without such a state the model keeps the
base's weights, and its card says so. Nothing here reads images or mask sets: they arrive as :class:`LabelledPicture`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from segment_duo.errors import AlreadyExists, StoreError, UsageError
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters.sam2.build import build_model
from segment_duo.training.checkpoint import Checkpoint, Weights, card_of, fingerprint
from segment_duo.training.clicks import corrections
from segment_duo.training.draws import Draws, EncodedView
from segment_duo.training.forward import Features, decode, encode, normalize, training_attention
from segment_duo.training.objective import prompt_loss
from segment_duo.training.options import BaseModel, FineTuneOptions, OnTraining, TrainingProgress
from segment_duo.training.replay import REPLAY_EVERY, SCENES, BaseAnswers, base_answers, replay_loss
from segment_duo.training.selection import better, split_pictures
from segment_duo.training.validation import (
    AutomaticResult,
    Scores,
    at_thresholds,
    by_chance,
    choose_thresholds,
    click_scores,
    find_all,
    measure,
    works_at_several_scales,
)
from segment_duo.training.views import LabelledPicture, coverages

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

THRESHOLDS = ("pred_iou_thresh", "stability_score_thresh", "box_nms_thresh")

AVERAGED = 0.93
"""Decay per step of the running mean of the weights, which is what is checked and kept: single steps on one view each are too noisy."""


GAINED = 0.01
"""What the mean of all scores must gain for the result to be recommended."""


@dataclass(frozen=True, slots=True)
class FineTuneResult:
    """``folder`` of the new model; scores on the validation pictures before and after; whether it is worth using; why it ended."""

    folder: Path
    before: Scores
    after: Scores
    gained: bool
    steps: int
    best_step: int
    ended: str  # "all steps", "early stop", "stopped by the user"
    seconds: float


def fine_tune(
    base: BaseModel,
    pictures: Sequence[LabelledPicture],
    models_dir: Path,
    name: str,
    options: FineTuneOptions | None = None,
    on_progress: OnTraining = lambda _progress: None,
    device: str | torch.device = "cpu",
) -> FineTuneResult:
    """Train, and write ``models_dir/name``. A run that was killed goes on where its last validation was.

    ``KeyboardInterrupt`` ends the training and keeps the best state so far; a second one discards the rest of the work.

    Raises:
        AlreadyExists: there is a model of that name.
        InputError: no usable mask in the pictures.
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
    run = FineTuning(model, base, pictures, options, models_dir / f".{name}.partial", on_progress)
    try:
        ended = run.train()
        run.write(target, ended, time.monotonic() - began)
    except OSError as error:
        raise StoreError(
            f"the trained model could not be written: {error.strerror or error}", f"Check {models_dir}."
        ) from error
    assert run.before is not None
    assert run.after is not None
    return FineTuneResult(
        target,
        run.before,
        run.after,
        run.gained,
        run.step,
        run.best_step,
        ended,
        time.monotonic() - began,
    )


class FineTuning:
    """One run: its data, its optimizer, and the best state so far."""

    def __init__(
        self,
        model: SAM2Base,
        base: BaseModel,
        pictures: Sequence[LabelledPicture],
        options: FineTuneOptions,
        partial: Path,
        on_progress: OnTraining = lambda _progress: None,
    ) -> None:
        self.model, self.base, self.options, self.on_progress = model, base, options, on_progress
        self.side = int(model.image_size)
        self.rng = np.random.default_rng(options.seed)
        torch.manual_seed(options.seed)
        self.prompts = options.prompts or (12 if self.side <= 512 else 8)
        self.training, self.checked, self.kept_apart = split_pictures(pictures, options.val_split, self.side)
        self.defaults = {**stock_thresholds(), **base.auto_defaults}
        self.draws = Draws(
            self.rng, self.training, self.kept_apart, self.side, self.prompts, None if options.full else self._features
        )
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        groups: list[dict[str, Any]] = [
            {"params": _enable(_decoder_parameters(model)), "lr": options.lr, "highest": options.lr}
        ]
        if options.full:
            groups.append(
                {"params": _enable(_encoder_parameters(model)), "lr": options.lr / 5, "highest": options.lr / 5}
            )
        self.trained = [p for group in groups for p in group["params"]]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
        self.step = self.best_step = self.stale = 0
        self.loss = math.nan
        self.before: Scores | None = None
        self.best: Scores | None = None
        self.base_weights = self._snapshot()
        self.best_weights = self.base_weights
        self.mean = self._snapshot()
        self.scenes: list[BaseAnswers] = []
        self.checkpoint = Checkpoint(partial, fingerprint(base.sha256, asdict(options), pictures))
        self._resume()

    @property
    def gained(self) -> bool:
        """Whether the best state is worth using: neither clicks nor automatic masks lost, and together they gained."""
        return self.best is not None and self.before is not None and better(self.best, self.before, self.before, GAINED)

    @property
    def after(self) -> Scores | None:
        """Scores of what is written: those of the base when nothing was gained."""
        return self.best if self.gained else self.before

    # -- training -----------------------------------------------------------------------------------------------------

    def train(self) -> str:
        """Run to the end; returns why it ended."""
        if self.before is None:
            self._check_base()
        ended = "all steps"
        try:
            with training_attention():
                self._ask_base()
                while self.step < self.options.steps:
                    self._step()
                    if self.step % self.options.check_every == 0 or self.step == self.options.steps:
                        self._check()
                    self._tell("train", self.step, self.options.steps)
                    if self.stale >= self.options.patience:
                        ended = "early stop"
                        break
        except KeyboardInterrupt:
            ended = "stopped by the user"
        return ended

    def _tell(self, phase: str, done: int, total: int) -> None:
        self.on_progress(TrainingProgress(done, total, self.loss, self.before, self.best, phase))

    def _step(self) -> None:
        fraction = self.step / self.options.steps
        ramp = min(1.0, (self.step + 1) / 20)
        for group in self.optimizer.param_groups:
            group["lr"] = group["highest"] * ramp * 0.5 * (1 + math.cos(math.pi * fraction))
        replay = self.scenes and self.step % REPLAY_EVERY == REPLAY_EVERY - 1
        loss = self._replay() if replay else self._loss(self.draws.view(self.step))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(AVERAGED, self.step / (self.step + 5))
        for name, value in self.model.named_parameters():
            if name in self.mean:
                self.mean[name].lerp_(value.detach(), 1 - decay)
        self.loss = self.loss if replay else float(loss.detach())  # the two cannot be compared

    def _features(self, pixels: npt.NDArray[np.uint8]) -> Features:
        """Embedding of an input; with gradients when the encoder is trained and gradients are on."""
        batch = normalize(torch.from_numpy(pixels)[None]).to(self.model.device)
        with torch.set_grad_enabled(self.options.full and torch.is_grad_enabled()):
            f = encode(self.model, batch, torch.zeros(1, 2, dtype=torch.long, device=batch.device))
        return Features(f.embedding, f.fine, f.offsets)

    def _loss(self, seen: EncodedView) -> torch.Tensor:
        """A first click on each of a few objects and on background, then one or two corrections of half of the objects."""
        device = self.model.device
        crops, clicks, blank = self.draws.clicks(seen.view)
        if not crops and not blank:
            return sum((p.sum() * 0.0 for p in self.trained), torch.zeros((), device=device))
        features = seen.features or self._features(seen.pixels)
        low = self.side // 4
        target = torch.from_numpy(coverages(crops, self.side)).to(device)
        target = torch.cat([target, target.new_zeros(len(blank), 1, low, low)])
        present = torch.arange(len(target), device=device) < len(crops)
        owner = torch.zeros(len(target), dtype=torch.long, device=device)
        points = torch.tensor(np.array([*clicks, *blank], np.float32), device=device)[:, None]
        labels = torch.ones(len(target), 1, dtype=torch.long, device=device)
        first = decode(self.model, features, owner, points, labels)
        loss, _ = prompt_loss(first, target, present)
        if not crops:
            return loss
        again = torch.from_numpy(self.rng.permutation(len(crops))[: max(1, len(crops) // 2)]).to(device)
        best = first.iou.detach()[again, 1:].argmax(dim=1) + 1
        logits = first.logits.detach()[again, best][:, None]
        points, labels = points[again], labels[again]
        rounds = int(self.rng.integers(1, 3))
        out = first
        for k in range(rounds):
            more, kinds = corrections(logits, target[again])
            points, labels = torch.cat([points, more], 1), torch.cat([labels, kinds], 1)
            with torch.set_grad_enabled(k == rounds - 1):
                out = decode(self.model, features, owner[again], points, labels, logits)
            logits = out.logits.detach()[:, :1]
        refined, _ = prompt_loss(out, target[again], present[again], single=1.0)
        return loss + 0.5 * refined

    def _ask_base(self) -> None:
        """The base's answers on synthetic scenes, to be replayed."""
        trained = self._snapshot()
        self.model.load_state_dict(self.base_weights, strict=False)
        rng = np.random.default_rng(self.options.seed + 1)
        count = min(SCENES, self.options.steps // REPLAY_EVERY)
        for number in range(count):
            self._tell("prepare", number, count)
            keep = not self.options.full
            self.scenes.append(base_answers(self.model, rng, self.prompts, self._features, keep_features=keep))
        self.model.load_state_dict(trained, strict=False)

    def _replay(self) -> torch.Tensor:
        scene = self.scenes[int(self.rng.integers(len(self.scenes)))]
        return replay_loss(self.model, scene, self._features)

    # -- validation ---------------------------------------------------------------------------------------------------

    def _scores(self, start: Mapping[str, float], *, fixed: bool = False) -> Scores:
        """Scores of the present weights, with the thresholds ``start`` if ``fixed``, else with those that suit best."""
        one, three = click_scores(self.model, self.checked, lambda view: self._features(view.pixels()), self.prompts)
        result = self._automatic(start, fixed)
        return Scores(one, three, result.precision, result.recall, result.f75, result.thresholds)

    def _automatic(self, start: Mapping[str, float], fixed: bool) -> AutomaticResult:
        def tell(_unit: str, done: int, total: int) -> None:
            self._tell("validate", done, total)

        scaled = works_at_several_scales(self.model, self.checked, self.defaults)
        if fixed and scaled:
            return measure(self.model, self.checked, self.defaults, [start], tell)[0]
        found = [find_all(self.model, one, self.defaults, tell) for one in self.checked]
        if fixed:
            return at_thresholds(found, start)
        best = choose_thresholds(found, None if scaled else self._present(), start)
        if not scaled:
            return best
        choices = [start, best.thresholds] if best.thresholds != start else [start]
        results = measure(self.model, self.checked, self.defaults, choices, tell)
        return results[-1] if results[-1].value > results[0].value + by_chance(found) else results[0]

    def _present(self) -> AutomaticResult | None:
        b = self.before
        return None if b is None else AutomaticResult(b.precision, b.recall, b.f75, b.thresholds)

    def _check_base(self) -> None:
        """Score the base as it comes."""
        own = {name: float(self.defaults[name]) for name in THRESHOLDS}
        self.before = self.best = self._scores(own, fixed=True)

    def _check(self) -> None:
        assert self.before is not None
        assert self.best is not None
        present = self._snapshot()
        self.model.load_state_dict(self.mean, strict=False)
        scores = self._scores(self.best.thresholds)
        if better(scores, self.best, self.before, 0.0):
            self.best, self.best_step, self.stale = scores, self.step, 0
            self.best_weights = self._snapshot()
        else:
            self.stale += 1
        self.model.load_state_dict(present, strict=False)
        self._save_state()

    # -- files --------------------------------------------------------------------------------------------------------

    def _snapshot(self) -> Weights:
        trained = {id(p) for p in self.trained}
        return {n: p.detach().clone() for n, p in self.model.named_parameters() if id(p) in trained}

    def _save_state(self) -> None:
        scores = [None if s is None else asdict(s) for s in (self.before, self.best)]
        state = {
            "weights": self._snapshot(),
            "mean": self.mean,
            "best": self.best_weights,
            "optimizer": self.optimizer.state_dict(),
            "numbers": [self.step, self.best_step, self.stale],
            "scores": json.dumps(scores),
            "rng": json.dumps(self.rng.bit_generator.state),
        }
        self.checkpoint.save(state)

    def _resume(self) -> None:
        state = self.checkpoint.load(self.model.device)
        if state is None:
            return
        self.model.load_state_dict(state["weights"], strict=False)
        self.mean, self.best_weights = state["mean"], state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best_step, self.stale = state["numbers"]
        self.before, self.best = (Scores(**s) for s in json.loads(state["scores"]))
        self.rng.bit_generator.state = json.loads(state["rng"])

    def write(self, target: Path, ended: str, seconds: float) -> None:
        """The finished model; with the base's weights and thresholds when nothing was gained."""
        assert self.before is not None
        assert self.after is not None
        weights = self.model.state_dict()
        weights.update(self.best_weights if self.gained else self.base_weights)
        card = card_of(
            base={"id": self.base.id, "sha256": self.base.sha256, "auto_defaults": dict(self.base.auto_defaults)},
            training=self.training,
            validation=[c.picture for c in self.checked],
            parameters=asdict(self.options),
            scores={
                "before": self.before.record(),
                "after": self.after.record(),
                "objects": sum(len(c.objects) for c in self.checked),
                "best_step": self.best_step if self.gained else 0,
                "gained": self.gained,
            },
            auto_defaults={**self.base.auto_defaults, **(self.after.thresholds if self.gained else {})},
            run={"steps": self.step, "ended": ended, "seconds": round(seconds, 1)},
        )
        self.checkpoint.write_model(target, self.base.config, weights, card)


def stock_thresholds() -> dict[str, float]:
    """Those of a model whose card says nothing."""
    stock = AutoParameters()
    return {name: float(getattr(stock, name)) for name in THRESHOLDS}


def _decoder_parameters(model: SAM2Base) -> list[torch.nn.Parameter]:
    """The mask decoder without the convolutions that belong to the cached embedding."""
    return [p for n, p in model.sam_mask_decoder.named_parameters() if not n.startswith(("conv_s0.", "conv_s1."))]


def _encoder_parameters(model: SAM2Base) -> list[torch.nn.Parameter]:
    decoder = model.sam_mask_decoder
    parts = (model.image_encoder, model.sam_prompt_encoder, decoder.conv_s0, decoder.conv_s1)
    return [p for part in parts for p in part.parameters()]


def _enable(parameters: list[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters
