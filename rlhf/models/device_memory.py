"""Memory that is left, on an accelerator or on this machine."""

import os
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch

NEARLY_FULL = 0.9
"""Share of the memory beyond which a run is at risk: what others take, and holes between blocks, are in no estimate."""


def room(device: torch.device) -> int:
    """Bytes that this process may hold in all: what is free, and what it holds already."""
    return free(device) + held(device)


def free(device: torch.device) -> int:
    """Bytes that this process may still take; on a CPU its share among the processes of this machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - held(device)
    available = psutil.virtual_memory().available
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    text = limit.read_text().strip() if limit.is_file() else "max"
    if text != "max":
        available = max(0, min(available, int(text) - resident()))
    return available // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def held(device: torch.device) -> int:
    """Bytes that this process holds: tensors on an accelerator, everything on a CPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else resident()


def resident() -> int:
    """Bytes of memory that this process holds on the machine."""
    return int(psutil.Process().memory_info().rss)


def amount(size: float) -> str:
    """Bytes in readable units."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
