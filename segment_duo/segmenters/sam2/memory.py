"""What is remembered of objects that are followed, and which of it the model looks at on a frame: the rules of ``SAM2Base``, without its growth.

    ObjectMemory ── conditioned: every frame that was prompted or corrected
                 └─ followed: the last frames only; features as far back as they are attended to, pointers somewhat further

Stock keeps every frame's memory for ever. Here what no later frame can see is dropped. For a pass backward after one forward, what lies just
behind an object's first prompt is kept too: stock sees it there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sam2.modeling.sam2_utils import select_closest_cond_frames

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Memory:
    """An object on one frame.

    Attributes:
        features: bfloat16 (T, M), as stock keeps them; T memory tokens (h * w) of M channels, or a quarter of them where they were pooled. None when
            only the pointer can still be seen.
        pointer: float32 (C,), the object pointer.
    """

    features: Tensor | None
    pointer: Tensor

    @property
    def nbytes(self) -> int:
        tensors = (self.pointer,) if self.features is None else (self.features, self.pointer)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@dataclass(frozen=True, eq=False)
class Seen:
    """What an object's memory shows to one frame.

    Attributes:
        features: (temporal position, features) of each memory, in stock's order; the position is an index into ``maskmem_tpos_enc``.
        pointers: (signed distance in frames, pointer).
    """

    features: list[tuple[int, Tensor]]
    pointers: list[tuple[int, Tensor]]

    @property
    def lengths(self) -> tuple[int, int]:
        """How many memories, and how many pointers."""
        return len(self.features), len(self.pointers)

    @property
    def kind(self) -> tuple[int, ...]:
        """Objects of the same kind fit into one batch: pointers, and the tokens of each memory."""
        return len(self.pointers), *(len(features) for _, features in self.features)


@dataclass(frozen=True)
class Reach:
    """How far the model looks back, in frames.

    Attributes:
        memories: ``num_maskmem``: memory frames attended to, the conditioned one included.
        stride: ``memory_temporal_stride_for_eval``.
        pointers: most pointers attended to in a sequence of this many frames.
        conditioned: most conditioned frames attended to, -1 for all.
        past_pointers, signed: whether pointers of conditioned frames that lie ahead are left out, and distances carry a sign.
    """

    memories: int
    stride: int
    pointers: int
    conditioned: int
    past_pointers: bool
    signed: bool
    frames: int

    @classmethod
    def of(cls, model: SAM2Base, frames: int) -> Reach:
        return cls(
            model.num_maskmem,
            model.memory_temporal_stride_for_eval,
            min(frames, model.max_obj_ptrs_in_encoder),
            model.max_cond_frames_in_attn,
            model.only_obj_ptrs_in_the_past_for_eval,
            model.use_signed_tpos_enc_to_obj_ptrs,
            frames,
        )

    @property
    def features_back(self) -> int:
        return (self.memories - 2) * self.stride + 1

    @property
    def pointers_back(self) -> int:
        return max(self.pointers - 1, self.features_back)

    def earlier(self, frame: int, reverse: bool) -> Iterator[tuple[int, int]]:
        """(t_pos, number) of the frames whose memories are looked at, farthest first; t_pos as ``SAM2Base`` counts it."""
        for t_pos in range(1, self.memories):
            back = self.memories - t_pos
            if back == 1:
                yield t_pos, frame + 1 if reverse else frame - 1
            elif reverse:
                yield t_pos, -(-(frame + 2) // self.stride) * self.stride + (back - 2) * self.stride
            else:
                yield t_pos, ((frame - 2) // self.stride) * self.stride - (back - 2) * self.stride


@dataclass(eq=False)
class ObjectMemory:
    """One object's memories, by frame."""

    conditioned: dict[int, Memory] = field(default_factory=dict)
    followed: dict[int, Memory] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(memory.nbytes for held in (self.conditioned, self.followed) for memory in held.values())

    def condition(self, frame: int, memory: Memory) -> None:
        """Remember a prompted frame."""
        self.conditioned[frame] = memory
        self.followed.pop(frame, None)

    def follow(self, frame: int, memory: Memory, reach: Reach) -> None:
        """Remember a frame the object was followed to, and forget what cannot be seen any more."""
        self.followed[frame] = memory
        first = min(self.conditioned)
        for number, held in list(self.followed.items()):
            # One more than the next frame sees, so that this one may be done again. And what a backward pass from the first prompt sees.
            near = abs(number - frame)
            behind = number - first if number > first else reach.frames
            distance = min(near, behind)
            if distance > reach.pointers_back:
                del self.followed[number]
            elif distance > reach.features_back and held.features is not None:
                self.followed[number] = replace(held, features=None)

    def seen_from(self, frame: int, reach: Reach, *, reverse: bool) -> Seen:
        """What ``SAM2Base._prepare_memory_conditioned_features`` would look at on this frame, in its order."""
        selected, rest = select_closest_cond_frames(frame, self.conditioned, reach.conditioned)
        features = [(reach.memories - 1, memory.features) for memory in selected.values()]
        for t_pos, number in reach.earlier(frame, reverse):
            memory = self.followed.get(number) or rest.get(number)
            if memory is not None and memory.features is not None:
                features.append((reach.memories - t_pos - 1, memory.features))
        features.sort(key=lambda one: -len(one[1]))  # those that are pooled come last
        pointers = []
        for number, memory in selected.items():
            away = (frame - number) * (-1 if reverse else 1)
            if away >= 0 or not reach.past_pointers:
                pointers.append((away if reach.signed else abs(away), memory.pointer))
        for away in range(1, reach.pointers):
            number = frame + away if reverse else frame - away
            if number < 0 or number >= reach.frames:
                break
            memory = self.followed.get(number) or rest.get(number)
            if memory is not None:
                pointers.append((away, memory.pointer))
        return Seen(features, pointers)
