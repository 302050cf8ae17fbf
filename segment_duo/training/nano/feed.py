"""Batches for the training of nano: what they are made of, and making them one ahead in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segment_duo.training.nano.auxiliary import dense_targets
from segment_duo.training.nano.batches import Batch, Source, make_batch, mixed, synthetic_views
from segment_duo.training.nano.pool import Pool
from segment_duo.training.nano.real import RealPictures

Sample = tuple["Batch", torch.Tensor, torch.Tensor]
"""A batch with its dense targets and their weights."""


@dataclass(frozen=True, slots=True)
class Diet:
    """What batches are made of: scenes of ``pool``, and a share ``real`` of views of the pictures in ``folders`` but those named in ``without``."""

    pool: Path
    folders: tuple[Path, ...] = ()
    without: tuple[str, ...] = ()
    real: float = 0.65

    def source(self) -> Source:
        scenes = synthetic_views(Pool(self.pool).draw)
        if not self.folders:
            return scenes
        return mixed(scenes, RealPictures(self.folders, self.without).view, self.real)


class Feed:
    """Batches made one ahead in a process of their own, or (``apart`` false) when they are asked for: a tenth of a step's time on one core."""

    def __init__(self, diet: Diet, seed: int, frame: int, first: tuple[int, int, int], apart: bool = True) -> None:
        self.executor: Executor = (
            ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _open_feed, (diet, seed, frame))
            if apart
            else _Here(diet, seed, frame)
        )
        self.pending: Future[Sample] = self.executor.submit(_feed, *first)

    def take(self, following: tuple[int, int, int]) -> Sample:
        """The batch asked for last time; ``following`` (images, prompts, side) is begun."""
        ready, self.pending = self.pending, self.executor.submit(_feed, *following)
        return ready.result()


class _Here(Executor):
    """Does the work at once, in this thread."""

    def __init__(self, diet: Diet, seed: int, frame: int) -> None:
        _open_feed(diet, seed, frame)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


_feeding: dict[str, Any] = {}


def _open_feed(diet: Diet, seed: int, frame: int) -> None:
    torch.set_num_threads(1)
    _feeding.update(source=diet.source(), rng=np.random.default_rng(seed), frame=frame)


def _feed(images: int, prompts: int, side: int) -> Sample:
    batch = make_batch(_feeding["rng"], _feeding["source"], images, prompts, side, _feeding["frame"])
    return batch, *dense_targets(batch.labels)
