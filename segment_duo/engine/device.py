"""The device models compute on: which one, what it is called, how full it is. torch: only the engine's process and training import this module."""

from __future__ import annotations

from pathlib import Path

import torch

from segment_duo.engine.reports import CacheUse
from segment_duo.errors import ConfigError


def choose_device(wanted: str) -> torch.device:
    """The device to compute on: ``cuda``, else ``mps``, else ``cpu`` for ``auto``.

    Raises:
        ConfigError: the named device is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available.get(wanted, False):
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise ConfigError(f"this machine has no device '{wanted}'", f"Available: {there}. Use --device auto.")
    return torch.device(wanted)


def allowed_threads(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """CPU threads that this container's quota pays for, at least 1; None without one. More would be stopped in turn, waiting for each other."""
    try:
        granted, period = quota.read_text(encoding="ascii").split()
        return max(1, round(int(granted) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number
        return None


def device_name(device: torch.device) -> str:
    """What the device is called by its maker."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type == "mps":
        return "Apple GPU"
    return _cpu_name()


def empty_device_cache(device: torch.device) -> None:
    """Give memory that torch holds but does not use back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def device_memory(device: torch.device) -> CacheUse | None:
    """Bytes taken on the device and what it has, None on a CPU."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return CacheUse(used=total - free, bound=total)
    if device.type == "mps":
        return CacheUse(used=torch.mps.driver_allocated_memory(), bound=torch.mps.recommended_max_memory())
    return None


def _cpu_name() -> str:
    import platform

    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
