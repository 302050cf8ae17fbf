"""What the image encoder makes of an image, and its way to disk. torch is not needed to import this module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PREPROCESSING = 1
"""Version of what happens to pixels before the encoder and to features after it; part of the key of cached embeddings."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """What the image encoder makes of an image.

    Attributes:
        image_embed: float32 (1, C, h, w).
        high_res_feats: float32 (1, C / 8, 4h, 4w) and (1, C / 4, 2h, 2w), or empty for a model without them.
        height, width: of the image in pixels.

    The memory layout of each tensor (plain or channels-last) is kept, also through :meth:`to_tensors`: results depend on it in the last bit.
    """

    image_embed: Tensor
    high_res_feats: tuple[Tensor, ...]
    height: int
    width: int

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in (self.image_embed, *self.high_res_feats))

    def to_tensors(self) -> dict[str, Tensor]:
        """Contiguous CPU tensors under stable names, for ``safetensors``."""
        import torch

        tensors = {"image_embed": self.image_embed}
        tensors |= {f"high_res_{i}": t for i, t in enumerate(self.high_res_feats)}
        layout = [int(not t.is_contiguous()) for t in tensors.values()]
        out = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        out["meta"] = torch.tensor([self.height, self.width, len(self.high_res_feats), *layout], dtype=torch.int64)
        return out

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], device: torch.device | str = "cpu") -> Embedding:
        """Inverse of :meth:`to_tensors`.

        Raises:
            KeyError, ValueError: the tensors are not those of an embedding.
        """
        import torch

        height, width, levels, *layout = tensors["meta"].tolist()
        names = ["image_embed", *(f"high_res_{i}" for i in range(levels))]
        if len(layout) != len(names) or any(tensors[n].dim() != 4 for n in names):
            raise ValueError("not the tensors of an embedding")
        formats = [torch.channels_last if last else torch.contiguous_format for last in layout]
        restored = [tensors[n].to(device).contiguous(memory_format=f) for n, f in zip(names, formats, strict=True)]
        return cls(restored[0], tuple(restored[1:]), height, width)
