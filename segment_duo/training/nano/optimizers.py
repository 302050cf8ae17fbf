"""The two optimizers of nano's trainings: Muon for matrices, AdamW for everything else."""

from __future__ import annotations

from typing import Any

import torch


def orthogonal(
    gradient: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """What :class:`torch.optim.Muon` does with a gradient, in float32: its own bfloat16 is emulated on older CPUs, and took 20 s a step there."""
    a, b, c = coefficients
    tall = gradient.size(0) > gradient.size(1)
    x = gradient.T if tall else gradient
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def has_bfloat16() -> bool:
    """Whether this CPU computes in bfloat16 itself; where it is emulated a step takes four times as long as in float32."""
    return bool(torch.cpu._is_avx512_bf16_supported())


class Optimizers:
    """Args:
    parameters: all that are trained.
    lr, matrix_lr: highest learning rates of AdamW and of Muon.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], lr: float, matrix_lr: float, weight_decay: float) -> None:
        matrices = [p for p in parameters if p.ndim == 2 and min(p.shape) > 8]
        chosen = {id(p) for p in matrices}
        others = [p for p in parameters if id(p) not in chosen]
        self._highest = (lr, matrix_lr)
        self._all: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
            torch.optim.Muon(
                matrices, lr=matrix_lr, momentum=0.95, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
        )
        if not has_bfloat16():
            torch.optim._muon._zeropower_via_newtonschulz = orthogonal  # type: ignore[assignment]

    def rate(self, share: float) -> None:
        """Set the learning rates to a share of the highest."""
        for optimizer, highest in zip(self._all, self._highest, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = highest * share

    def zero_grad(self) -> None:
        for optimizer in self._all:
            optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        for optimizer in self._all:
            optimizer.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self._all]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for optimizer, state in zip(self._all, states, strict=True):
            optimizer.load_state_dict(state)
