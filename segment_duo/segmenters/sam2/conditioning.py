"""Memory attention over several objects of one frame: the function of ``MemoryAttention.forward``, with less work.

    frame     once a frame: what the first layer makes of the frame alone (its self-attention, and the queries of its cross-attention)
    objects   in batches: cross-attention to each object's memories, the other layers

Two things are reordered, both exact up to rounding. Attention weights are applied to the memories themselves (M channels, 64 in SAM 2) and
projected to values afterwards, instead of the other way round (C channels, 256): a sum over memories and a matrix commute. And attention runs over
blocks of queries and keys that fit the cache, as FlashAttention does (``products``).

The weights are those of an unmodified ``SAM2Base``. This module must not know prompts, masks or frames' numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import Tensor, nn

from segment_duo.errors import ModelError
from segment_duo.segmenters.sam2.products import attend, linear

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

    from segment_duo.segmenters.sam2.memory import Seen


POOLED = 4
"""Tokens that one stands for in a pooled memory."""


@dataclass(frozen=True, eq=False)
class SharedFrame:
    """What all objects share on a frame. ``tokens``: (T, C) after the first self-attention; ``queries``: (T, C) of the first cross-attention."""

    tokens: Tensor
    queries: Tensor


class MemoryConditioner:
    """Conditions a frame's features on what is remembered of objects.

    Args:
        model: ``SAM2Base`` in evaluation mode.
        pointers: most pointers that an object shows (``Reach.pointers``).

    Raises:
        ModelError: its memory attention is not built as in SAM 2 and SAM 2.1.
    """

    def __init__(self, model: SAM2Base, pointers: int) -> None:
        self.model = model
        self.attention = model.memory_attention
        self.layers = list(self.attention.layers)
        _check(self.attention)
        self._values = [
            _through(layer.cross_attn_image.v_proj, layer.cross_attn_image.out_proj) for layer in self.layers
        ]
        self._space: Tensor | None = None
        self._pointers = pointers

    def frame(self, features: Tensor, position: Tensor) -> SharedFrame:
        """Args:
        features, position: (T, C), the coarsest feature map of a frame and its positional encoding.
        """
        tokens = features + 0.1 * position
        tokens = self._self_attention(self.layers[0], tokens)
        return SharedFrame(tokens, self._queries(self.layers[0], tokens))

    def objects(self, shared: SharedFrame, seen: Sequence[Seen], check: Callable[[], None]) -> Tensor:
        """Features (B, T, C) for B objects that see equally many memories and pointers.

        On a CPU one after the other: what is made of one then fits its caches, and keys and the widened tokens of all would take half a gigabyte.
        """
        at_once = 1 if shared.tokens.device.type == "cpu" else len(seen)
        parts = [self._batch(shared, seen[i : i + at_once], check) for i in range(0, len(seen), at_once)]
        return torch.cat(parts)

    def _batch(self, shared: SharedFrame, seen: Sequence[Seen], check: Callable[[], None]) -> Tensor:
        memories, keys_in, counts = self._gather(seen)
        tokens = shared.tokens.expand(len(seen), -1, -1)
        for number, layer in enumerate(self.layers):
            check()
            if number:
                tokens = self._self_attention(layer, tokens)
                queries = self._queries(layer, tokens)
            else:
                queries = shared.queries.expand(len(seen), -1, -1)
            keys = _projected(layer.cross_attn_image.k_proj, keys_in)
            _rotate(layer.cross_attn_image, keys[:, : counts[0][0]], queries.shape[1])
            if counts[1][0]:
                _rotate_pooled(layer.cross_attn_image, keys[:, counts[0][0] : counts[0][0] + counts[1][0]])
            weight, bias = self._values[number]
            attended = torch.stack(
                [attend(q, k, m, check, counts) for q, k, m in zip(queries, keys, memories, strict=True)]
            )
            tokens = tokens + linear(attended, weight, bias)
            widened = layer.activation(_projected(layer.linear1, layer.norm3(tokens)))
            tokens = tokens + _projected(layer.linear2, widened)
        return self.attention.norm(tokens)  # type: ignore[no-any-return]

    def _self_attention(self, layer: Any, tokens: Tensor) -> Tensor:
        attention = layer.self_attn
        normed = layer.norm1(tokens)
        queries, keys = _projected(attention.q_proj, normed), _projected(attention.k_proj, normed)
        _rotate(attention, queries, queries.shape[-2])
        _rotate(attention, keys, keys.shape[-2])
        values = _projected(attention.v_proj, normed)
        if tokens.dim() == 2:
            attended = attend(queries, keys, values)
        else:
            attended = torch.stack([attend(q, k, v) for q, k, v in zip(queries, keys, values, strict=True)])
        return tokens + _projected(attention.out_proj, attended)

    def _queries(self, layer: Any, tokens: Tensor) -> Tensor:
        queries = _projected(layer.cross_attn_image.q_proj, layer.norm2(tokens))
        return _rotate(layer.cross_attn_image, queries, queries.shape[-2])

    def _gather(self, seen: Sequence[Seen]) -> tuple[Tensor, Tensor, tuple[tuple[int, int], ...]]:
        """Memories (B, K, M), the same with their positions, and how many of the K are whole, pooled, and pointers', each with what it stands for."""
        model = self.model
        space = self._spatial()
        first = seen[0]
        width = space.shape[1]
        split = model.hidden_dim // width
        whole = sum(len(features) for _, features in first.features if len(features) == len(space))
        length = sum(len(features) for _, features in first.features)
        tokens = len(first.pointers) * split
        memories = space.new_empty((len(seen), length + tokens, width))
        placed = torch.empty_like(memories)
        for row, one in enumerate(seen):
            begin = 0
            for time, features in one.features:
                part = slice(begin, begin := begin + len(features))
                memories[row, part] = features
                where = space if len(features) == len(space) else pooled(space[None])[0]
                torch.add(where, model.maskmem_tpos_enc[time, 0], out=placed[row, part])
            if one.pointers:
                memories[row, length:] = torch.stack([pointer for _, pointer in one.pointers]).view(-1, width)
                placed[row, length:] = self._pointer_positions([away for away, _ in one.pointers], split)
        return memories, placed.add_(memories), ((whole, 1), (length - whole, POOLED), (tokens, 1))

    def _pointer_positions(self, away: Sequence[int], split: int) -> Tensor:
        """(len(away) * split, M): how far each pointer is, as ``SAM2Base`` encodes it."""
        model = self.model
        if not model.add_tpos_enc_to_obj_ptrs:
            return torch.zeros((), device=model.device)
        farthest = self._pointers - 1
        width = model.hidden_dim if model.proj_tpos_enc_in_obj_ptrs else model.mem_dim
        places = torch.tensor(away, device=model.device) / farthest
        encoded: Tensor = model.obj_ptr_tpos_proj(get_1d_sine_pe(places, dim=width))
        return encoded.repeat_interleave(split, dim=0)

    def _spatial(self) -> Tensor:
        """(T, M), where each token of a memory lies; the same for all."""
        if self._space is None:
            side = self.model.sam_image_embedding_size
            blank = torch.zeros(1, self.model.mem_dim, side, side, device=self.model.device)
            self._space = self.model.memory_encoder.position_encoding(blank).flatten(2)[0].T.contiguous()
        return self._space


def _rotate(attention: Any, x: Tensor, tokens: int) -> Tensor:
    """Rotary positions, in place, on (..., n * tokens, C)."""
    if attention.freqs_cis.shape[0] != tokens:
        side = math.isqrt(tokens)
        attention.freqs_cis = attention.compute_cis(end_x=side, end_y=side)
    attention.freqs_cis = attention.freqs_cis.to(x.device)
    places = x.view(*x.shape[:-2], -1, tokens, x.shape[-1] // 2, 2)
    torch.view_as_complex(places).mul_(attention.freqs_cis)
    return x


def _rotate_pooled(attention: Any, x: Tensor) -> None:
    """:func:`_rotate` of pooled tokens: each lies in the middle of its four."""
    cis = attention.freqs_cis
    side = math.isqrt(len(cis))
    half = torch.polar(torch.full_like(cis.real[0], 1.0), cis[side + 1].angle() / 2)
    middle = cis.view(side, side, -1)[::2, ::2].reshape(-1, cis.shape[-1]) * half
    torch.view_as_complex(x.view(len(x), -1, len(middle), x.shape[-1] // 2, 2)).mul_(middle)


def pooled(tokens: Tensor) -> Tensor:
    """Means (B, T / 4, C) of 2 x 2 tokens (B, T, C) of a square map."""
    side = math.isqrt(tokens.shape[1])
    cells = tokens.view(len(tokens), side // 2, 2, side // 2, 2, -1)
    return cells.mean((2, 4), dtype=torch.float32).to(tokens.dtype).flatten(1, 2)


def _projected(layer: nn.Linear, x: Tensor) -> Tensor:
    return linear(x, layer.weight, layer.bias)


def _through(first: nn.Linear, second: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias of ``second(first(x))``."""
    return second.weight @ first.weight, F.linear(first.bias, second.weight, second.bias)


def _check(attention: Any) -> None:
    for layer in attention.layers:
        one_head = layer.self_attn.num_heads == layer.cross_attn_image.num_heads == 1
        rotary = isinstance(layer.self_attn, RoPEAttention) and isinstance(layer.cross_attn_image, RoPEAttention)
        places = (layer.pos_enc_at_attn, layer.pos_enc_at_cross_attn_queries, layer.pos_enc_at_cross_attn_keys)
        if not one_head or not rotary or places != (False, False, True) or not attention.pos_enc_at_input:
            raise ModelError(
                "this model's memory attention is not built as in SAM 2", "Follow objects with a SAM 2.1 model or nano."
            )
