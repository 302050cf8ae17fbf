"""Train the shipped nano model from scratch on synthetic micrographs.

    python -m segment_duo.training.nano fill RUN --slots 5000 --start 0 --step 2      (writers, in the background)
    python -m segment_duo.training.nano train RUN --until 22:50 [--base nano.pt --rate 0.5]      (resumes if RUN holds a checkpoint)
    python -m segment_duo.training.nano export RUN nano.pt
    python -m segment_duo.training.nano sheet SCENES.png
    python -m segment_duo.training.nano memory RUN --until 23:50 --base nano.pt     (its memory, on films; resumes if RUN holds memory.pt)
    python -m segment_duo.training.nano export-memory RUN nano.pt

The run has three parts. *Warm-up*: no images; random features, a disc at the click as target, so that the decoder learns that a click is a place
before it can learn to ignore it. *Crops*: joint training on 256-pixel crops placed anywhere in the 512-pixel input frame (a
quarter of the cost a prompt). *Frames*, at full input size, replace crops more and more often, and are alone in the last quarter: on frames a model
trained on crops only has an IoU some 0.06 lower. The learning rate falls to zero at the time given with ``--until``, whatever the machine's
speed. Weights are averaged (EMA); the average is exported as float16.

Auxiliary heads on the neck's features predict object, border, distance to the object's middle and its size for every pixel. They give the encoder
a gradient from each pixel instead of one from each prompt, and are thrown away.
"""

from __future__ import annotations

import argparse
import datetime as dt
import math
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.multiprocessing.spawn import spawn

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

from segment_duo.segmenters.sam2.build import build_model
from segment_duo.training.clicks import corrections
from segment_duo.training.forward import Features, decode, encode, training_attention
from segment_duo.training.nano.auxiliary import Auxiliary, auxiliary_loss
from segment_duo.training.nano.feed import Diet, Feed, Sample
from segment_duo.training.nano.initial import prepare, warmup_batch, whiten
from segment_duo.training.nano.memory import ClipDiet, export_memory, train_memory
from segment_duo.training.nano.optimizers import Optimizers, has_bfloat16
from segment_duo.training.nano.pool import Pool
from segment_duo.training.nano.scenes import contact_sheet, generate
from segment_duo.training.nano.weights import CONFIG, MEMORY, write
from segment_duo.training.objective import prompt_loss


@dataclass(frozen=True, slots=True)
class Recipe:
    """Numbers of a run from scratch. Going on from trained weights wants half the learning rates (``--rate 0.5``)."""

    warmup_steps: int = 250
    images: int = 8
    prompts: int = 10
    frame_images: int = 3
    frame_prompts: int = 12
    frames: float = 0.0  # share of frames at the beginning
    frames_only: float = 0.25  # last part of the run; before it the chance of a step on frames grows from 0 to 1
    balanced_steps: int = 1200
    lr: float = 8e-4
    matrix_lr: float = 2e-3
    weight_decay: float = 0.03
    ema: float = 0.999
    ramp: int = 200  # steps over which the learning rate rises after a start or --base


def joint_loss(
    model: SAM2Base, auxiliary: Auxiliary, sample: Sample, rng: np.random.Generator, balance: float
) -> tuple[torch.Tensor, dict[str, float]]:
    """Clicks on all prompts, boxes on a sixth, 1 to 6 corrections on a half; only the last correction carries a gradient."""
    batch, targets, inside = sample
    features = encode(model, batch.images, batch.offsets)
    alone, all_levels = auxiliary(features)
    dense = 0.5 * auxiliary_loss(alone, targets, inside) + 0.5 * auxiliary_loss(all_levels, targets, inside)

    count = len(batch.owner)
    ones = torch.ones(count, 1, dtype=torch.long)
    first = decode(model, features, batch.owner, batch.clicks[:, None], ones)
    loss, reached = prompt_loss(first, batch.target, batch.present, balance)
    objects = batch.present
    chosen = first.iou.detach()[:, 1:].argmax(dim=1)
    answered = reached[:, 1:].gather(1, chosen[:, None])[:, 0]
    stats = {"iou1": float(answered[objects].mean()) if objects.any() else float("nan")}
    stats["best1"] = float(reached[objects, 1:].max(1).values.mean()) if objects.any() else float("nan")
    stats["bg"] = float(first.iou.detach()[~objects, 1:].max(1).values.mean()) if (~objects).any() else float("nan")

    pick = torch.from_numpy(rng.permutation(np.flatnonzero(objects.numpy())))
    boxed, refined = pick[: count // 6], pick[count // 6 : count // 6 + (3 * count) // 5]
    if boxed.numel() > 1:
        corners = torch.tensor([[2, 3]]).expand(len(boxed), -1)
        out = decode(model, features, batch.owner[boxed], batch.boxes[boxed].reshape(-1, 2, 2), corners)
        box_loss, reached = prompt_loss(out, batch.target[boxed], batch.present[boxed], balance, single=1.0)
        loss = loss + 0.25 * box_loss
        stats["box"] = float(reached[:, 0].mean())
    if refined.numel() > 1:
        rounds = int(rng.choice([1, 2, 3, 4, 5, 6], p=[0.2, 0.25, 0.2, 0.15, 0.1, 0.1]))
        owner, target = batch.owner[refined], batch.target[refined]
        points, labels = batch.clicks[refined][:, None], ones[refined]
        logits = first.logits.detach()[refined, chosen[refined] + 1][:, None]
        frozen = Features(
            features.embedding.detach(), (features.fine[0].detach(), features.fine[1].detach()), features.offsets
        )
        for k in range(rounds):
            more, kinds = corrections(logits, target)
            points, labels = torch.cat([points, more], 1), torch.cat([labels, kinds], 1)
            last = k == rounds - 1
            with torch.set_grad_enabled(last):
                out = decode(model, features if last else frozen, owner, points, labels, logits)
            logits = out.logits.detach()[:, :1]
        more_loss, reached = prompt_loss(out, target, batch.present[refined], balance, single=1.0)
        loss = loss + more_loss
        stats["more"] = float(reached[:, 0].mean())
    stats["aux"] = float(dense.detach())
    return loss + dense, stats


class NanoTraining:
    """A resumable training run in a folder: ``last.pt`` holds weights, averages, optimizer and progress."""

    def __init__(
        self, folder: Path, recipe: Recipe, until: float, base: Path | None = None, rank: int = 0, processes: int = 1
    ) -> None:
        self.folder, self.recipe, self.until, self.rank, self.processes = folder, recipe, until, rank, processes
        torch.manual_seed(0)
        self.model = build_model(CONFIG).train()
        self.auxiliary = Auxiliary(self.model.hidden_dim)
        with torch.no_grad():
            prepare(self.model)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not name.startswith(MEMORY))
        self.trained = [p for p in [*self.model.parameters(), *self.auxiliary.parameters()] if p.requires_grad]
        self.optimizers = Optimizers(self.trained, recipe.lr, recipe.matrix_lr, recipe.weight_decay)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.step = 0
        self.spent = 0.0  # seconds of training so far, all sessions together
        self.joint_began = -1.0
        if (folder / "last.pt").exists():
            self._resume()
        elif base is not None:
            self.model.load_state_dict(torch.load(base, weights_only=True)["model"])
            self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
            self.step = recipe.warmup_steps + recipe.balanced_steps
        self.first = self.step if base is not None else recipe.warmup_steps

    def _resume(self) -> None:
        saved = torch.load(self.folder / "last.pt", weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.auxiliary.load_state_dict(saved["auxiliary"])
        self.optimizers.load_state_dict(saved["optimizers"])
        self.average, self.step, self.spent = saved["average"], saved["step"], saved["spent"]
        self.joint_began = saved["joint_began"]

    def save(self) -> None:
        if self.rank:
            return
        temporary = self.folder / "last.pt.tmp"
        torch.save(
            {
                "model": self.model.state_dict(),
                "auxiliary": self.auxiliary.state_dict(),
                "optimizers": self.optimizers.state_dict(),
                "average": self.average,
                "step": self.step,
                "spent": self.spent,
                "joint_began": self.joint_began,
            },
            temporary,
        )
        temporary.replace(self.folder / "last.pt")

    def train(self, diet: Diet, apart: bool = True) -> None:
        """Train until the time is over, and save; ``apart``: batches are made in a process of their own."""
        own_seed = self.processes * (self.step + 1) + self.rank
        torch.manual_seed(own_seed)
        feed = Feed(diet, own_seed, self.model.image_size, self._size(0.0, 1.0), apart)
        try:
            self._train(Pool(diet.pool), feed, np.random.default_rng(own_seed))
        finally:
            feed.executor.shutdown(cancel_futures=True)
        self.save()

    def _train(self, pool: Pool, feed: Feed, rng: np.random.Generator) -> None:
        recipe = self.recipe
        began, before = time.time(), self.spent
        total = before + max(1.0, self.until - began)
        shared_rng = np.random.default_rng(self.step + 1)
        if self.step == 0:
            whiten(self.model, pool, shared_rng)
        sums: dict[str, list[float]] = {}
        progress, last = before / total, before
        half = has_bfloat16()
        while progress < 1:
            warming = self.step < recipe.warmup_steps
            ramp = min(1.0, (self.step + 1) / 100) if warming else min(1.0, (self.step - self.first + 1) / recipe.ramp)
            rate = ramp * max(0.002, 0.5 * (1 + math.cos(math.pi * progress)))
            self.optimizers.rate(rate)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                if warming:
                    loss, stats = self._warmup_step(rng)
                else:
                    balance = max(0.0, 1 - (self.step - recipe.warmup_steps) / recipe.balanced_steps)
                    sample = feed.take(self._size(progress, shared_rng.random()))
                    loss, stats = joint_loss(self.model, self.auxiliary, sample, rng, balance)
            self.optimizers.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.spent = before + time.time() - began
            progress = self._agree(self.spent / total)
            norm = nn.utils.clip_grad_norm_(self.trained, 2.0)
            if torch.isfinite(norm):
                self.optimizers.step()
            self._follow()
            self.step += 1
            for key, value in {**stats, "loss": float(loss.detach()), "norm": float(norm)}.items():
                if not math.isnan(value):
                    sums.setdefault(key, []).append(value)
            sums.setdefault("s", []).append(self.spent - last)
            last = self.spent
            if self.step % 25 == 0 and self.rank == 0:
                figures = " ".join(f"{k} {np.mean(v):.3f}" for k, v in sums.items())
                line = f"{dt.datetime.now():%H:%M:%S} step {self.step} {self.spent:.0f}s rate {rate:.3f} {figures}\n"
                with (self.folder / "log.txt").open("a", encoding="utf-8") as log:
                    log.write(line)
                sums = {}
            if self.step % 25 == 0:
                self.save()

    def _agree(self, progress: float) -> float:
        """Average the gradients of all processes, and return the mean of their ``progress``, so that all go on alike and stop together."""
        if self.processes == 1:
            return progress
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.trained]
        flat = torch.cat([*(part.flatten() for part in parts), torch.tensor([progress])])
        torch.distributed.all_reduce(flat)
        flat /= self.processes
        means = torch.split(flat[:-1], [p.numel() for p in self.trained])
        for parameter, mean in zip(self.trained, means, strict=True):
            parameter.grad = mean.view_as(parameter)
        return float(flat[-1])

    def _size(self, progress: float, chance: float) -> tuple[int, int, int]:
        """Images, prompts an image and side of a batch: frames where ``chance``, uniform in [0, 1), falls below their share."""
        recipe = self.recipe
        if chance < recipe.frames + (1 - recipe.frames) * progress / (1 - recipe.frames_only):
            return recipe.frame_images, recipe.frame_prompts, self.model.image_size
        return recipe.images, recipe.prompts, 256

    def _warmup_step(self, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        features, clicks, target = warmup_batch(rng, self.model, 48, 256)
        owner, ones = torch.zeros(len(clicks), dtype=torch.long), torch.ones(len(clicks), 1, dtype=torch.long)
        out = decode(self.model, features, owner, clicks, ones)
        loss, reached = prompt_loss(out, target, torch.ones(len(clicks), dtype=torch.bool), balance=1.0)
        return loss, {"iou1": float(reached[:, 1:].max(1).values.mean())}

    def _follow(self) -> None:
        """Exponential average of the weights; its memory grows with the run, so that early exports are not stale."""
        keep = min(self.recipe.ema, (1 + self.step) / (20 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - keep) if value.is_floating_point() else self.average[name].copy_(
                    value
                )


def train(rank: int, options: argparse.Namespace) -> None:
    """One of the ``--processes`` that train together; each has one thread.

    Two processes make better use of two cores than one with two threads (16 crops in 2.5 s against 8 in 1.3 s), and lose less where other work
    shares the cores (one with two threads: 3.9 s).
    """
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{options.meeting}/ranks", rank=rank, world_size=options.processes
    )
    with training_attention():
        recipe = Recipe()
        recipe = replace(
            recipe,
            lr=recipe.lr * options.rate,
            matrix_lr=recipe.matrix_lr * options.rate,
            frames=options.frames,
            ramp=options.ramp,
        )
        run = NanoTraining(options.folder, recipe, options.until, options.base, rank, options.processes)
        diet = Diet(options.folder / "pool", tuple(options.real), _names(options.without), options.share)
        run.train(diet, not options.no_feeder)
    torch.distributed.destroy_process_group()


def export(folder: Path, target: Path) -> None:
    """Write the averaged weights of the run as a float16 checkpoint in SAM 2's layout, replacing ``target`` at once."""
    write(torch.load(folder / "last.pt", weights_only=True)["average"], target)


def _names(file: Path | None) -> tuple[str, ...]:
    return tuple(file.read_text(encoding="utf-8").split()) if file else ()


def _until(text: str) -> float:
    """Epoch seconds of HH:MM today (UTC), or of now plus ``+MINUTES``."""
    if text.startswith("+"):
        return time.time() + 60 * float(text[1:])
    hour, minute = (int(part) for part in text.split(":"))
    return dt.datetime.now(dt.UTC).replace(hour=hour, minute=minute, second=0).timestamp()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train the nano model on synthetic micrographs.")
    commands = parser.add_subparsers(dest="command", required=True)
    fill = commands.add_parser("fill", help="write scenes into the pool")
    fill.add_argument("folder", type=Path)
    fill.add_argument("--slots", type=int, default=5000)
    fill.add_argument("--first-seed", type=int, default=0)
    fill.add_argument("--start", type=int, default=0)
    fill.add_argument("--step", type=int, default=1)
    fill.add_argument("--duty", type=float, default=1.0)
    sheet = commands.add_parser("sheet", help="draw scenes with their outlines, to look at")
    sheet.add_argument("target", type=Path)
    sheet.add_argument("--scenes", type=int, default=24)
    sheet.add_argument("--first-seed", type=int, default=0)
    start = commands.add_parser("train", help="start or resume training")
    start.add_argument("folder", type=Path)
    start.add_argument("--until", type=_until, required=True, help="HH:MM (UTC, today) or +MINUTES")
    start.add_argument("--base", type=Path, help="go on from this checkpoint's weights instead of from scratch")
    start.add_argument("--rate", type=float, default=1.0, help="factor on both learning rates; 0.5 with --base")
    start.add_argument("--processes", type=int, default=2, help="one a core; each makes its own batches")
    start.add_argument("--ramp", type=int, default=200, help="steps over which the learning rate rises")
    start.add_argument("--frames", type=float, default=0.0, help="share of whole frames at the beginning")
    start.add_argument("--real", type=Path, action="append", default=[], metavar="FOLDER", help="labelled pictures")
    start.add_argument("--without", type=Path, metavar="FILE", help="names of pictures to leave out, one a line")
    start.add_argument("--share", type=float, default=0.65, help="share of real views beside scenes")
    start.add_argument("--no-feeder", action="store_true", help="make batches in the training process")
    films = commands.add_parser("memory", help="train what tracking needs, and nothing else")
    films.add_argument("folder", type=Path)
    films.add_argument("--until", type=_until, required=True, help="HH:MM (UTC, today) or +MINUTES")
    films.add_argument("--base", type=Path, required=True, help="checkpoint whose image weights are kept")
    films.add_argument("--afresh", action="store_true", help="begin the memory anew; else the base's is gone on from")
    films.add_argument("--rate", type=float, default=1.0, help="factor on both learning rates")
    films.add_argument("--real", type=Path, action="append", default=[], metavar="FOLDER", help="labelled pictures")
    films.add_argument("--without", type=Path, metavar="FILE", help="names of pictures to leave out, one a line")
    films.add_argument("--share", type=float, default=0.6, help="share of clips over real pictures beside scenes")
    for name, what in (("export", "the averaged weights"), ("export-memory", "the base with the trained memory")):
        out = commands.add_parser(name, help=f"write {what} as a checkpoint")
        out.add_argument("folder", type=Path)
        out.add_argument("target", type=Path)
    return parser


def main() -> None:
    options = _parser().parse_args()
    if options.command == "fill":
        Pool(options.folder / "pool", options.slots).fill(options.first_seed, options.start, options.step, options.duty)
    elif options.command == "sheet":
        seeds = range(options.first_seed, options.first_seed + options.scenes)
        Image.fromarray(contact_sheet([generate(seed, (256, 256)) for seed in seeds], columns=6)).save(options.target)
    elif options.command == "train":
        with tempfile.TemporaryDirectory() as meeting:
            options.meeting = meeting
            spawn(train, (options,), nprocs=options.processes)  # type: ignore[no-untyped-call]
    elif options.command == "memory":
        diet = ClipDiet(options.folder / "pool", tuple(options.real), _names(options.without), options.share)
        train_memory(options.folder, options.until, options.base, diet, options.rate, afresh=options.afresh)
    elif options.command == "export-memory":
        export_memory(options.folder, options.target)
    else:
        export(options.folder, options.target)


if __name__ == "__main__":
    main()
