"""Meta's SAM 2.1 checkpoints that can be pulled: names, files, sizes, hashes. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from segment_duo.segmenters.base import Capability

CAPABILITIES: frozenset[str] = frozenset(
    {Capability.POINTS, Capability.BOX, Capability.MASK_INPUT, Capability.AUTOMATIC, Capability.TRACK}
)
"""What every SAM 2 model can here, except that one whose config says :data:`UNTRAINED_MEMORY` does not track."""

UNTRAINED_MEMORY = "memory: untrained"
"""A line of a model's yaml: its memory attention and memory encoder never saw a film. Models trained from it inherit the line with the file."""

SAM_INPUT = 1024
"""Pixels a side that SAM 2.1 shrinks every image to."""

OFFICIAL_ADDRESS = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A checkpoint that can be pulled. ``config`` is the name of a yaml inside the ``sam2`` package, ``bytes`` and ``sha256`` those of the file."""

    id: str
    description: str
    config: str
    checkpoint_file: str
    bytes: int
    sha256: str

    @property
    def url(self) -> str:
        return OFFICIAL_ADDRESS + self.checkpoint_file


SAM21: tuple[ModelSpec, ...] = (
    ModelSpec(
        "sam2.1-tiny", "SAM 2.1, Hiera tiny", "configs/sam2.1/sam2.1_hiera_t.yaml", "sam2.1_hiera_tiny.pt",
        156_008_466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
    ),
    ModelSpec(
        "sam2.1-small", "SAM 2.1, Hiera small", "configs/sam2.1/sam2.1_hiera_s.yaml", "sam2.1_hiera_small.pt",
        184_416_285, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
    ),
    ModelSpec(
        "sam2.1-base-plus", "SAM 2.1, Hiera base-plus", "configs/sam2.1/sam2.1_hiera_b+.yaml", "sam2.1_hiera_base_plus.pt",
        323_606_802, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
    ),
    ModelSpec(
        "sam2.1-large", "SAM 2.1, Hiera large", "configs/sam2.1/sam2.1_hiera_l.yaml", "sam2.1_hiera_large.pt",
        898_083_611, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
    ),
)  # fmt: skip
"""Meta's SAM 2.1 checkpoints (Apache-2.0), smallest first."""
