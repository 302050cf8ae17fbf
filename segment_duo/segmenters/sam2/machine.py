"""What the machine is good at: lower precision, and how many image tokens its caches hold."""

from __future__ import annotations

import os
from pathlib import Path

import torch

SCREENING = "SEGDUO_SCREENING"
"""Environment variable: ``float32`` forces lower precision off, ``bfloat16`` forces it on, for measurements and tests."""

WORTH_SCREENING = 2**19
"""Elements of image tokens a prompt from which a pass in lower precision pays on a CPU. Official models have 2^20, nano 2^17: its one pass in float32
takes less time than two."""

CACHES = Path("/sys/devices/system/cpu")
"""Where Linux describes the caches of each processor."""

LEAST_CHUNK, MOST_CHUNK = 4 * 2**20, 16 * 2**20


def image_chunk_bytes(caches: Path = CACHES) -> int:
    """Bytes of image tokens that a CPU works on at once: twice the smallest second-level cache of the cores this process may use.

    Measured with nano and tiny on a core with 2 MiB, processor time a prompt by bytes of tokens: 4 MiB takes 8 to 18 % less than 16 MiB, 32 MiB a
    quarter more, and below 2 MiB the calls themselves cost. Without a known cache (other systems) the least, 4 MiB.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    sizes = [size for cpu in allowed if (size := _second_level(caches / f"cpu{cpu}" / "cache"))]
    return min(max(2 * min(sizes, default=0), LEAST_CHUNK), MOST_CHUNK)


def _second_level(folder: Path) -> int:
    """Bytes of a processor's second-level cache; 0 if not known."""
    for index in folder.glob("index*"):
        try:
            if (index / "level").read_text().strip() == "2":
                return int((index / "size").read_text().strip().removesuffix("K")) * 1024
        except (OSError, ValueError):
            continue
    return 0


def half_precision(device: torch.device) -> torch.dtype | None:
    """The dtype that a device computes faster in; None where that is float32, as on a CPU without bfloat16 instructions (nine times)."""
    if device.type == "cpu":
        can = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return torch.bfloat16 if can.get("avx512_bf16") or can.get("amx_bf16") else None
    return {"cuda": torch.bfloat16, "mps": torch.float16}.get(device.type)


def screening_precision(device: torch.device, elements: int) -> torch.dtype | None:
    """The dtype of a first, cheap pass of the decoder; None where it would not pay.

    Args:
        elements: of the image tokens of one prompt.
    """
    forced = os.environ.get(SCREENING)
    if forced == "float32":
        return None
    if forced == "bfloat16":
        return torch.bfloat16
    return half_precision(device) if device.type != "cpu" or elements >= WORTH_SCREENING else None
