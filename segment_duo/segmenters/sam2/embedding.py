"""What the image encoder makes of an image, and its way to disk. torch is not needed to import this module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Sam2Embedding:
    """What the image encoder makes of an image.

    Attributes:
        image_embed: float32 (1, C, h, w).
        high_res_feats: float32 (1, C / 8, 4h, 4w) and (1, C / 4, 2h, 2w), or empty for a model without them.
        height, width: of the image in pixels.

    The memory layout of each tensor (plain or channels-last) is kept, also through :meth:`to_arrays`: results depend on it in the last bit.
    """

    image_embed: Tensor
    high_res_feats: tuple[Tensor, ...]
    height: int
    width: int

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in (self.image_embed, *self.high_res_feats))

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """float32 arrays under stable names, and ``meta`` (int64: height, width, number of high-res maps, layout of each tensor)."""
        tensors = {"image_embed": self.image_embed}
        tensors |= {f"high_res_{i}": t for i, t in enumerate(self.high_res_feats)}
        layout = [int(not t.is_contiguous()) for t in tensors.values()]
        out = {name: t.detach().cpu().contiguous().numpy() for name, t in tensors.items()}
        out["meta"] = np.array([self.height, self.width, len(self.high_res_feats), *layout], dtype=np.int64)
        return out

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], device: torch.device | str = "cpu") -> Sam2Embedding:
        """Inverse of :meth:`to_arrays`.

        Raises:
            KeyError, ValueError: the arrays are not those of an embedding.
        """
        import torch

        height, width, levels, *layout = arrays["meta"].tolist()
        names = ["image_embed", *(f"high_res_{i}" for i in range(levels))]
        if len(layout) != len(names) or any(arrays[n].ndim != 4 for n in names):
            raise ValueError("not the arrays of an embedding")
        formats = [torch.channels_last if last else torch.contiguous_format for last in layout]
        restored = [
            torch.from_numpy(arrays[n]).to(device).contiguous(memory_format=f)
            for n, f in zip(names, formats, strict=True)
        ]
        return cls(restored[0], tuple(restored[1:]), height, width)
