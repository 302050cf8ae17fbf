"""Matrix products and attention in float32, by the quickest way a CPU has. Sums come in another order than stock's.

    linear      F.linear
    attend      softmax(q kT) v, block by block, of many queries
    looked_up   the same of few queries: prompt tokens that look at an image
    handed_out  the other way round: an image that looks at few tokens
    @quickly    products, attention and convolutions inside an unmodified model for as long as a function runs

torch leaves float32 products to MKL, which does without the wide registers of processors that are not Intel's: 105 GFLOP/s where oneDNN reaches
235, on a Zen 5 core. And torch's ``exp2`` takes a quarter of the time of its ``exp``. Where exact bits are promised (``--exact``, embeddings) this
module must not be used.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from segment_duo.segmenters.asking import unchecked

P = ParamSpec("P")
T = TypeVar("T")

QUERY_BLOCK = 512
KEY_BLOCK = 1024
SMALL = 2**20
"""Multiplications below which a call of oneDNN costs more than it saves."""
LONG = 1024
"""Tokens from which a model's own attention goes block by block."""

_X86 = torch._C._has_mkldnn and platform.machine().lower() in {"x86_64", "amd64"}  # nowhere else was it tried
_ONE_DNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if _X86 else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``: (..., N) of (..., C) and (N, C)."""
    if x.numel() * len(weight) >= SMALL and _suits(x):
        # For other layouts oneDNN has only its reference code, a hundred times slower.
        x = x.contiguous()
        weight = weight if weight.T.is_contiguous() else weight.contiguous()
        return _ONE_DNN(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]
    return F.linear(x, weight, bias)


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    check: Callable[[], None] = unchecked,
    counts: Sequence[tuple[int, int]] = (),
) -> Tensor:
    """softmax(queries keysT / sqrt(D)) values: (T, V) of (T, D), (K, D) and (K, V). On a CPU in blocks, with a running maximum and sum.

    Args:
        counts: for keys that stand for several equal ones: (how many keys, how many each stands for) of their stretches in order.
    """
    counts = counts or ((len(keys), 1),)
    if queries.device.type != "cpu":
        weight = torch.cat([keys.new_full((1, length), math.log(each)) for length, each in counts], 1)
        return F.scaled_dot_product_attention(queries[None, None], keys[None, None], values[None, None], weight)[0, 0]
    out = queries.new_empty((queries.shape[0], values.shape[1]))
    scaled = queries * (queries.shape[1] ** -0.5 * math.log2(math.e))
    turned = values.contiguous().T
    for start in range(0, len(queries), QUERY_BLOCK):
        check()
        rows = scaled[start : start + QUERY_BLOCK]
        before: tuple[Tensor, Tensor, Tensor] | None = None
        for part, each in _blocks(counts):
            scores = linear(rows, keys[part])
            peak = scores.amax(1, keepdim=True)
            if before is not None:
                torch.maximum(peak, before[0], out=peak)
            scores.sub_(peak).exp2_()
            total, gathered = scores.sum(1, keepdim=True), linear(scores, turned[:, part])
            if each != 1:
                total, gathered = total.mul_(each), gathered.mul_(each)
            if before is not None:
                shrunk = before[0].sub_(peak).exp2_()
                total.addcmul_(before[1], shrunk)
                gathered.addcmul_(before[2], shrunk)
            before = peak, total, gathered
        if before is not None:
            torch.div(before[2], before[1], out=out[start : start + QUERY_BLOCK])
    return out


def looked_up(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(queries keysT) values, (B, M, V) of (B, M, C), (B, T, C) and (B, T, V); scaled queries."""
    if not _suits(queries):
        return torch.bmm(torch.bmm(queries, keys.transpose(1, 2)).softmax(dim=-1), values)
    # Prompt by prompt: what is between the two products fits the second-level cache.
    found = [linear(linear(q, k).softmax(-1), v.T) for q, k, v in zip(queries, keys, values, strict=True)]
    return torch.stack(found)


def handed_out(
    image: Tensor, keys: Tensor, queries: Tensor, bias: Tensor, values: Tensor, heads: int, *, in_place: bool
) -> Tensor:
    """``image`` (B, T, C) plus what each of its tokens takes from M = heads * N rows, shared out within each head.

    Args:
        keys: (B, T, C) of the image's tokens; queries: (B, M, C) of the rows, scaled; bias: (B, M, 1) on their products.
        values: (B, M, C) that the rows carry.
        in_place: write into ``image``.
    """
    count, rows, _ = queries.shape

    # Image tokens last: a softmax over 8 neighbours in memory runs element by element, one over rows takes 16 columns at a time.
    def shared(scores: Tensor) -> Tensor:
        split = scores.view(*scores.shape[:-2], heads, rows // heads, scores.shape[-1])
        return split.softmax(dim=-2).view(scores.shape)

    if not _suits(queries):
        shares = shared(torch.baddbmm(bias, queries, keys.transpose(1, 2)))
        return (torch.Tensor.baddbmm_ if in_place else torch.baddbmm)(image, shares.transpose(1, 2), values)
    out = image if in_place else torch.empty_like(keys)
    for i in range(count):
        shares = shared(linear(queries[i], keys[i]).add_(bias[i]))
        torch.add(image[i], linear(shares.T, values[i].T), out=out[i])
    return out


def _blocks(counts: Sequence[tuple[int, int]]) -> Iterator[tuple[slice, int]]:
    """Stretches of keys in blocks, each with what its keys stand for."""
    begin = 0
    for length, each in counts:
        for start in range(begin, begin + length, KEY_BLOCK):
            yield slice(start, min(start + KEY_BLOCK, begin + length)), each
        begin += length


def quickly(work: Callable[P, T]) -> Callable[P, T]:
    """While the function runs, the products of models go this way; in its thread only."""

    @wraps(work)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with _Quick():
            return work(*args, **kwargs)

    return wrapped


class _Quick(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if not kwargs and args and isinstance(args[0], Tensor) and _suits(args[0]):
            if func is F.linear:
                return linear(*args)
            if func is F.conv2d and len(args) == 7 and args[0].dim() == 4 and not isinstance(args[4], str):
                # With one thread and one image torch has a slower way for kernels of 1 x 1.
                x, weight, bias, stride, padding, dilation, groups = args
                return torch.mkldnn_convolution(x, weight, bias, padding, stride, dilation, groups)
            if func is F.scaled_dot_product_attention and len(args) == 3 and args[0].shape[-2] >= LONG:
                return _heads(*args)
        return func(*args, **(kwargs or {}))


def _heads(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """(..., T, V): attention of each head by itself."""
    flat = [tensor.reshape(-1, *tensor.shape[-2:]) for tensor in (queries, keys, values)]
    found = torch.stack([attend(q, k, v) for q, k, v in zip(*flat, strict=True)])
    return found.view(*queries.shape[:-1], values.shape[-1])


def _suits(x: Tensor) -> bool:
    return (
        _ONE_DNN is not None
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.is_inference_mode_enabled()
    )
