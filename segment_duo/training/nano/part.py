"""Training some weights of nano and no others: a resumable run until a given time, and its export.

What is trained has its learning rate fall to zero at that time, whatever the machine's speed, and its weights are averaged; the average is exported
beside the base's other weights, which stay the same to the last bit.
"""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from segment_duo.segmenters.sam2.build import build_model
from segment_duo.training.nano.optimizers import Optimizers, has_bfloat16
from segment_duo.training.nano.weights import CONFIG, write

Losses = Callable[[float], Iterator[tuple[Tensor, dict[str, float]]]]
"""The losses of a step, told how far the run is (0 to 1), each with figures for the log. Each is gone back through before the next is asked for."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Highest learning rates of AdamW and Muon, Muon's weight decay, steps over which the rates rise, how long weights are averaged."""

    lr: float
    matrix_lr: float
    weight_decay: float
    ramp: int
    ema: float


class PartTraining:
    """A run in a folder: ``file`` there holds all weights, the averages of those that are trained, the optimizers and the progress.

    Args:
        until: epoch seconds at which it ends.
        base: checkpoint to go on from.
        trains: whether a weight of this name is trained.
    """

    file: ClassVar[str]
    log: ClassVar[str]

    def __init__(self, folder: Path, rates: Rates, until: float, base: Path, trains: Callable[[str], bool]) -> None:
        self.folder, self.rates, self.until = folder, rates, until
        torch.manual_seed(0)
        self.model: Any = build_model(CONFIG).eval()
        self.model.load_state_dict(torch.load(base, weights_only=True)["model"])
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(trains(name))
        self.trained: dict[str, nn.Parameter] = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.beside = self.extra()
        self.optimizers = Optimizers(
            [*self.trained.values(), *self.beside.parameters()], rates.lr, rates.matrix_lr, rates.weight_decay
        )
        self.step, self.spent = 0, 0.0
        self.average = {n: p.detach().clone() for n, p in self.trained.items()}
        self.resumed = (folder / self.file).exists()
        if self.resumed:
            saved = torch.load(folder / self.file, weights_only=True)
            self.model.load_state_dict(saved["model"])
            self.beside.load_state_dict(saved["beside"])
            self.optimizers.load_state_dict(saved["optimizers"])
            self.average, self.step, self.spent = saved["average"], saved["step"], saved["spent"]
            self.restore(saved)

    def extra(self) -> nn.Module:
        """What is trained with the model and thrown away."""
        return nn.Identity()

    def state(self) -> dict[str, Any]:
        """What a run keeps beside what every run keeps."""
        return {}

    def restore(self, saved: dict[str, Any]) -> None:
        """Take :meth:`state` back."""

    def save(self) -> None:
        temporary = (self.folder / self.file).with_suffix(".tmp")
        torch.save(
            {
                "model": self.model.state_dict(),
                "beside": self.beside.state_dict(),
                "optimizers": self.optimizers.state_dict(),
                "average": self.average,
                "step": self.step,
                "spent": self.spent,
                **self.state(),
            },
            temporary,
        )
        temporary.replace(self.folder / self.file)

    def run(self, losses: Losses) -> None:
        """Steps until the time is over; saved every 25 of them and at the end."""
        began, before = time.time(), self.spent
        total = before + max(1.0, self.until - began)
        sums: dict[str, list[float]] = {}
        last = began
        while self.spent < total:
            progress = self.spent / total
            ramp = min(1.0, (self.step + 1) / self.rates.ramp)
            self.optimizers.rate(ramp * max(0.01, 0.5 * (1 + math.cos(math.pi * progress))))
            waiting = losses(progress)
            while True:
                with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
                    given = next(waiting, None)
                if given is None:
                    break
                loss, stats = given
                loss.backward()  # type: ignore[no-untyped-call]
                for key, value in {**stats, "loss": float(loss.detach())}.items():
                    if not math.isnan(value):
                        sums.setdefault(key, []).append(value)
            norm = nn.utils.clip_grad_norm_(self.trained.values(), 1.0)
            if torch.isfinite(norm):
                self.optimizers.step()
            self.optimizers.zero_grad()
            self._follow()
            self.step += 1
            self.spent = before + time.time() - began
            sums.setdefault("norm", []).append(float(norm))
            sums.setdefault("s", []).append(time.time() - last)
            last = time.time()
            if self.step % 25 == 0:
                figures = " ".join(f"{k} {np.mean(v):.3f}" for k, v in sums.items())
                with (self.folder / self.log).open("a", encoding="utf-8") as log:
                    log.write(f"{dt.datetime.now():%H:%M:%S} step {self.step} {self.spent:.0f}s {figures}\n")
                sums = {}
                self.save()
        self.save()

    @torch.no_grad()
    def _follow(self) -> None:
        """Exponential average of what is trained; its memory grows with the run."""
        keep = min(self.rates.ema, (1 + self.step) / (20 + self.step))
        for name, parameter in self.trained.items():
            self.average[name].lerp_(parameter, 1 - keep)


def export_part(run: Path, target: Path) -> None:
    """Write the weights of a run's file, the averages of those that it trained, as one checkpoint."""
    saved = torch.load(run, weights_only=True)
    write({**saved["model"], **saved["average"]}, target)
