"""Train nano's memory on clips: memory attention, memory encoder, object pointers, occlusion score. What an image needs stays as it is.

    python -m segment_duo.training.nano memory RUN --until +60 --base nano.pt --real emps --without NAMES      (--afresh: from nothing)
    python -m segment_duo.training.nano export-memory RUN nano.pt

The image encoder, the prompt encoder and the mask decoder are frozen, so clicks and automatic masks stay the same to the last bit. The decoder
already takes a mask prompt as a map that is added to the image's features; the memory attention learns to make such a map of what it remembers. It
begins as what does nothing (features leave it as the decoder knows them) and as looking at the same place of the frames before.

A clip is tracked as the engine tracks it, by ``SAM2Base``'s own functions: objects are prompted on the first frame, by a mask or a click, and
followed to the last. Every followed frame has the losses of :mod:`segment_duo.training.objective`. Remembered masks carry no gradient back.
"""

from __future__ import annotations

import datetime as dt
import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segment_duo.segmenters.sam2.build import build_model
from segment_duo.training.clicks import coverage, first_click
from segment_duo.training.forward import Features, decode, encode, normalize, training_attention
from segment_duo.training.nano.batches import object_depth
from segment_duo.training.nano.clips import Clip, Clips, clips_of
from segment_duo.training.nano.optimizers import Optimizers, has_bfloat16
from segment_duo.training.nano.pool import Pool
from segment_duo.training.nano.real import RealPictures
from segment_duo.training.nano.weights import CONFIG, MEMORY, write
from segment_duo.training.objective import mask_loss, overlap

OCCLUSION = "sam_mask_decoder.pred_obj_score_head"
"""Of the decoder, but read by tracking alone."""

SMALLEST = 40
"""Objects with fewer pixels than this on the first frame are not followed."""
VISIBLE = 12
"""Pixels from which an object counts as seen."""


@dataclass(frozen=True, slots=True, eq=False)
class TrackedClip:
    """A clip and the objects to follow.

    ``frames`` uint8 (T, S, S, 3); ``targets`` (T, B, 1, S / 4, S / 4) coverages; ``masks`` bool (B, S, S) on the first frame; ``clicks`` (B, 2);
    ``seen`` bool (T, B).
    """

    frames: npt.NDArray[np.uint8]
    targets: Tensor
    masks: npt.NDArray[np.bool_]
    clicks: Tensor
    seen: Tensor


def choose(rng: np.random.Generator, clip: Clip, most: int) -> TrackedClip | None:
    """Up to ``most`` objects of the first frame, not tiny, not half of the picture, those that vanish rather than others; None: there are none."""
    first = clip.labels[0]
    areas = np.bincount(first.ravel())
    areas[0] = 0
    usable = np.flatnonzero((areas >= SMALLEST) & (areas < 0.45 * first.size))
    if not usable.size:
        return None
    later = np.bincount(clip.labels[-1].ravel(), minlength=int(usable.max()) + 1)[usable]
    weights = np.where(later < VISIBLE, 2.0, 1.0)
    chosen = rng.choice(usable, min(most, usable.size), replace=False, p=weights / weights.sum())
    depth = object_depth(first)
    masks = [first == label for label in chosen]
    targets = [coverage(np.stack([labels == label for label in chosen])) for labels in clip.labels]
    seen = [[int((labels == label).sum()) >= VISIBLE for label in chosen] for labels in clip.labels]
    clicks = [first_click(rng, mask, depth, 0.7) for mask in masks]
    return TrackedClip(clip.frames, torch.stack(targets), np.stack(masks), torch.tensor(clicks), torch.tensor(seen))


def begin(model: Any) -> None:
    """Initial values of the memory: see the module's text. Statistics of nano's features, on its own training pictures, are set by :func:`settle`."""
    attention = model.memory_attention
    for layer in attention.layers:
        for part, strength in ((layer.self_attn, 0.5), (layer.cross_attn_image, 1.5)):
            # With rotary positions an equal constant in queries and keys is a preference for the same place.
            part.q_proj.bias.fill_(strength)
            part.k_proj.bias.fill_(strength)
        for last in (layer.self_attn.out_proj, layer.linear2):
            last.weight.mul_(0.1)
            last.bias.zero_()
        layer.cross_attn_image.out_proj.weight.mul_(8.0)
        layer.cross_attn_image.out_proj.bias.zero_()
    model.mask_downsample.weight.fill_(20.0 / model.mask_downsample.weight[0].numel())
    model.mask_downsample.bias.fill_(-10.0)
    for layer in model.memory_encoder.fuser.layers:
        layer.gamma.fill_(0.1)


def settle(model: Any, embedding: Tensor, positions: Tensor) -> None:
    """Let the attention's last normalisation give back what went in, on the whole.

    Args:
        embedding: (I, C, h, w) as the decoder knows it.
        positions: (T, C), positional encoding of its T = h * w places.
    """
    tokens = embedding.flatten(2).transpose(1, 2)
    entered = tokens - model.no_mem_embed.view(1, 1, -1) + 0.1 * positions
    plain = F.layer_norm(entered, entered.shape[-1:]).flatten(0, 1)
    wanted = tokens.flatten(0, 1)
    # The straight line through each channel.
    slope = ((plain - plain.mean(0)) * (wanted - wanted.mean(0))).mean(0) / plain.var(0, correction=0)
    model.memory_attention.norm.weight.copy_(slope)
    model.memory_attention.norm.bias.copy_(wanted.mean(0) - slope * plain.mean(0))


def follow(
    model: Any,
    probe: nn.Module,
    task: TrackedClip,
    rng: np.random.Generator,
    by_truth: float = 0.0,
    balance: float = 0.0,
) -> tuple[Tensor, dict[str, float]]:
    """Track a clip; the mean loss of its followed frames, and figures.

    Args:
        probe: reads from each place of the conditioned features the 4 x 4 coverages that lie there: C to 16 channels. It gives the memory attention
            a gradient from every place, at once, and is thrown away.
        by_truth: share of steps in which what is seen is known to the memory, not taken from the occlusion score.
        balance: of :func:`segment_duo.training.objective.mask_loss`.
    """
    count, total = task.targets.shape[1], len(task.frames)
    with torch.no_grad():
        features = encode(model, normalize(torch.from_numpy(task.frames)), torch.zeros(total, 2, dtype=torch.long))
    position = model.image_encoder.neck.position_encoding(features.embedding[:1]).flatten(2).permute(2, 0, 1)
    sizes = [tuple(features.embedding.shape[-2:])]
    tokens = (features.embedding - model.no_mem_embed.view(1, -1, 1, 1)).float()
    outputs: dict[str, dict[int, dict[str, Any]]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    certain = rng.random() < by_truth
    losses, reached, probed = [], [], []
    occlusion: list[Tensor] = []
    for t in range(total):
        frame = tokens[t : t + 1].flatten(2).permute(2, 0, 1).expand(-1, count, -1)
        seen, target = task.seen[t], task.targets[t]
        if t == 0:
            logits, pointer, presence = _prompted(model, features, task, rng)
        else:
            conditioned = model._prepare_memory_conditioned_features(
                t, False, [frame], [position.expand(-1, count, -1)], sizes, outputs, total
            )
            logits, pointer, presence, loss, iou = _found(model, features, t, conditioned, target, seen, balance)
            read = F.pixel_shuffle(probe(conditioned.movedim(1, -1)).movedim(-1, 1).float(), 4)
            direct = (mask_loss(read, target, balance)[:, 0] * seen).sum() / seen.sum().clamp(min=1)
            losses.append(loss + direct)
            probed.append(overlap(read.detach(), target)[seen])
            reached.append(iou[seen])
        occlusion.append(F.binary_cross_entropy_with_logits(presence[:, 0], seen.float()))
        shown = (seen if certain or t == 0 else presence[:, 0] > 0).float()[:, None]
        pointer = shown * pointer + (1 - shown) * model.no_obj_ptr
        high = F.interpolate(
            logits.detach(), (model.image_size, model.image_size), mode="bilinear", align_corners=False
        )
        high = torch.where(shown[:, :, None, None] > 0, high, -1024.0)
        memory, places = model._encode_new_memory([frame], sizes, high, 20.0 * shown - 10.0, t == 0)
        outputs["non_cond_frame_outputs" if t else "cond_frame_outputs"][t] = {
            "maskmem_features": memory,
            "maskmem_pos_enc": places,
            "obj_ptr": pointer,
        }
    presence_loss = torch.stack(occlusion).mean()
    stats = {
        "first": float(reached[0].mean()) if len(reached[0]) else math.nan,
        "last": float(reached[-1].mean()) if len(reached[-1]) else math.nan,
        "probe": float(torch.cat(probed).mean()),
        "occlusion": float(presence_loss.detach()),
    }
    return torch.stack(losses).mean() + 0.3 * presence_loss, stats


def _prompted(
    model: Any, features: Features, task: TrackedClip, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The first frame: logits (B, 1, h, w), pointers (B, C), occlusion logits (B, 1). A click that finds something else is taken for the mask."""
    count = len(task.clicks)
    zeros, none = torch.zeros(count, 1, 2), -torch.ones(count, 1, dtype=torch.long)
    masks = torch.from_numpy(task.masks)[:, None].float()
    truth = F.interpolate(20.0 * masks - 10.0, scale_factor=0.25, mode="bilinear", antialias=True)
    here = _of_frame(features, 0, features.embedding[:1].expand(count, -1, -1, -1))
    owner = torch.arange(count)
    if rng.random() < 0.5:
        out = decode(model, here, owner, zeros, none, model.mask_downsample(masks))
        return truth, model.obj_ptr_proj(out.tokens[:, 0].float()), out.presence
    out = decode(model, here, owner, task.clicks[:, None], torch.ones(count, 1, dtype=torch.long))
    best = out.iou[:, 1:].argmax(1) + 1
    logits = out.logits[owner, best][:, None]
    fits = overlap(logits, task.targets[0]) > 0.6
    logits = torch.where(fits[:, :, None, None], logits, truth)
    return logits, model.obj_ptr_proj(out.tokens[owner, best].float()), out.presence


def _found(
    model: Any, features: Features, t: int, conditioned: Tensor, target: Tensor, seen: Tensor, balance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A followed frame: logits, pointers and occlusion logits as above, the loss, and the IoU (B,) of the mask that is chosen."""
    count = len(conditioned)
    here = _of_frame(features, t, conditioned)
    owner = torch.arange(count)
    out = decode(model, here, owner, torch.zeros(count, 1, 2), -torch.ones(count, 1, dtype=torch.long))
    losses = mask_loss(out.logits[:, 1:], target, balance)
    each = overlap(out.logits.detach(), target)
    best = out.iou.detach()[:, 1:].argmax(1) + 1
    chosen = losses[owner, best - 1]
    mask = losses.min(1).values + 0.5 * chosen + 0.05 * losses.mean(1)
    weight = seen.float()
    scored = F.binary_cross_entropy_with_logits(out.iou_logit[:, 1:], each[:, 1:], reduction="none").mean(1)
    loss = ((mask + scored) * weight).sum() / weight.sum().clamp(min=1)
    pointer = model.obj_ptr_proj(out.tokens[owner, best].float())
    return out.logits[owner, best][:, None], pointer, out.presence, loss, each[owner, best]


def _of_frame(features: Features, t: int, embedding: Tensor) -> Features:
    count = len(embedding)
    fine = (
        features.fine[0][t : t + 1].expand(count, -1, -1, -1),
        features.fine[1][t : t + 1].expand(count, -1, -1, -1),
    )
    return Features(embedding, fine, torch.zeros(count, 2, dtype=torch.long))


@dataclass(frozen=True, slots=True)
class ClipDiet:
    """What clips are made of: scenes of ``pool``, and a share ``real`` over pictures in ``folders`` but those named in ``without``."""

    pool: Path
    folders: tuple[Path, ...] = ()
    without: tuple[str, ...] = ()
    real: float = 0.6

    def source(self) -> Clips:
        pictures = RealPictures(self.folders, self.without) if self.folders else None
        return clips_of(Pool(self.pool), pictures, self.real)


_feeding: dict[str, Any] = {}


def _open_feed(diet: ClipDiet, seed: int) -> None:
    torch.set_num_threads(1)
    _feeding.update(source=diet.source(), rng=np.random.default_rng(seed))


def _feed(frames: int, objects: int) -> TrackedClip:
    while True:
        task = choose(_feeding["rng"], _feeding["source"](_feeding["rng"], frames), objects)
        if task is not None:
            return task


@dataclass(frozen=True, slots=True)
class MemoryRecipe:
    """Numbers of a run: highest learning rates of AdamW and Muon, steps over which they rise, how long weights are averaged."""

    lr: float = 6e-4
    matrix_lr: float = 1.2e-3
    weight_decay: float = 0.02
    ramp: int = 40
    clips: int = 2
    """Clips a step."""
    followed: int = 24
    """Objects times followed frames of a clip, about."""
    ema: float = 0.995


class MemoryTraining:
    """A resumable run in a folder: ``memory.pt`` holds all weights, the averages of those that are trained, the optimizers and the progress."""

    def __init__(self, folder: Path, recipe: MemoryRecipe, until: float, base: Path, *, afresh: bool = False) -> None:
        self.folder, self.recipe, self.until = folder, recipe, until
        torch.manual_seed(0)
        self.model: Any = build_model(CONFIG).eval()
        self.model.binarize_mask_from_pts_for_mem_enc = True
        self.model.load_state_dict(torch.load(base, weights_only=True)["model"])
        names = [n for n, _ in self.model.named_parameters() if n.startswith((*MEMORY, OCCLUSION))]
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in names)
        self.trained: dict[str, nn.Parameter] = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.probe = nn.Linear(self.model.hidden_dim, 16)
        self.optimizers = Optimizers(
            [*self.trained.values(), *self.probe.parameters()], recipe.lr, recipe.matrix_lr, recipe.weight_decay
        )
        self.step, self.spent, self.afresh = 0, 0.0, afresh
        self.average = {n: p.detach().clone() for n, p in self.trained.items()}
        resumed = (folder / "memory.pt").exists()
        self.begins = afresh and not resumed
        if resumed:
            saved = torch.load(folder / "memory.pt", weights_only=True)
            self.model.load_state_dict(saved["model"])
            self.probe.load_state_dict(saved["probe"])
            self.optimizers.load_state_dict(saved["optimizers"])
            self.average, self.step, self.spent = saved["average"], saved["step"], saved["spent"]
            self.afresh = saved["afresh"]

    def save(self) -> None:
        temporary = self.folder / "memory.pt.tmp"
        torch.save(
            {
                "model": self.model.state_dict(),
                "probe": self.probe.state_dict(),
                "optimizers": self.optimizers.state_dict(),
                "average": self.average,
                "step": self.step,
                "spent": self.spent,
                "afresh": self.afresh,
            },
            temporary,
        )
        temporary.replace(self.folder / "memory.pt")

    def train(self, diet: ClipDiet) -> None:
        """Train until the time is over, and save."""
        seed = self.step + 1
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        if self.begins:
            self._begin(diet, rng)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _open_feed, (diet, seed)) as feed:
            began, before = time.time(), self.spent
            total = before + max(1.0, self.until - began)
            waiting = [feed.submit(_feed, *self._size(rng, self._lesson(0.0))) for _ in range(2 * self.recipe.clips)]
            sums: dict[str, list[float]] = {}
            last = began
            while self.spent < total:
                progress = self.spent / total
                lesson = self._lesson(progress)
                ramp = min(1.0, (self.step + 1) / self.recipe.ramp)
                self.optimizers.rate(ramp * max(0.01, 0.5 * (1 + math.cos(math.pi * progress))))
                self.model.memory_attention.train()
                for _ in range(self.recipe.clips):
                    task = waiting.pop(0).result()
                    waiting.append(feed.submit(_feed, *self._size(rng, lesson)))
                    with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
                        loss, stats = follow(
                            self.model,
                            self.probe,
                            task,
                            rng,
                            by_truth=max(0.2, 1 - 3 * lesson),
                            balance=max(0.0, 0.9 - 3 * lesson),
                        )
                    (loss / self.recipe.clips).backward()  # type: ignore[no-untyped-call]
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
                    with (self.folder / "memory.txt").open("a", encoding="utf-8") as log:
                        log.write(f"{dt.datetime.now():%H:%M:%S} step {self.step} {self.spent:.0f}s {figures}\n")
                    sums = {}
                    self.save()
            feed.shutdown(cancel_futures=True)
        self.save()

    @torch.no_grad()
    def _begin(self, diet: ClipDiet, rng: np.random.Generator) -> None:
        begin(self.model)
        draw = diet.source()
        frames = torch.from_numpy(np.concatenate([draw(rng, 1).frames for _ in range(12)]))
        embedding = encode(self.model, normalize(frames), torch.zeros(len(frames), 2, dtype=torch.long)).embedding
        positions = self.model.image_encoder.neck.position_encoding(embedding[:1]).flatten(2)[0].T
        settle(self.model, embedding, positions)
        self.average = {n: p.detach().clone() for n, p in self.trained.items()}

    def _lesson(self, progress: float) -> float:
        """How far the lessons are, 0 to 1: a memory that is trained already is not taught its first ones again."""
        return progress if self.afresh else max(progress, 0.6)

    def _size(self, rng: np.random.Generator, progress: float) -> tuple[int, int]:
        """Frames and objects of a clip: longer ones as the run goes on."""
        choices = [2, 3, 3, 4] if progress < 0.3 else [2, 3, 4, 6] if progress < 0.6 else [3, 4, 6, 8]
        frames = int(rng.choice(choices))
        return frames, min(12, max(2, round(self.recipe.followed / (frames - 1))))

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(self.recipe.ema, (1 + self.step) / (20 + self.step))
        for name, parameter in self.trained.items():
            self.average[name].lerp_(parameter, 1 - keep)


def train_memory(folder: Path, until: float, base: Path, diet: ClipDiet, rate: float, *, afresh: bool = False) -> None:
    """One process with one thread. ``afresh``: forget the base's memory."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = MemoryRecipe()
    recipe = MemoryRecipe(lr=recipe.lr * rate, matrix_lr=recipe.matrix_lr * rate)
    with training_attention():
        MemoryTraining(folder, recipe, until, base, afresh=afresh).train(diet)


def export_memory(folder: Path, target: Path) -> None:
    """Write the base's image weights and the averaged memory of the run as one checkpoint."""
    saved = torch.load(folder / "memory.pt", weights_only=True)
    write({**saved["model"], **saved["average"]}, target)
