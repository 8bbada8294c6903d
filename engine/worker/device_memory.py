"""What this process has of a GPU's memory, as PyTorch counts it."""

from __future__ import annotations

import logging
import sys
from typing import Any

from engine.worker.runtimes.base import cuda_index

log = logging.getLogger(__name__)


def device_memory(device: str) -> dict[str, Any] | None:
    """``{device, allocated, reserved, free, total}`` in bytes; None where the model runs on no CUDA device, or not by
    PyTorch, and where the device no longer answers.

    ``reserved`` is what PyTorch's allocator holds, ``allocated`` the part of it that tensors take; what the driver
    needs for the process is in neither. ``free`` and ``total`` are the device's, whoever uses it.
    """
    torch = sys.modules.get("torch")
    # Asking a device that is not in use would take some hundred megabytes of it.
    if torch is None or not device.startswith("cuda") or not torch.cuda.is_initialized():
        return None
    index = cuda_index(device)
    try:
        free, total = torch.cuda.mem_get_info(index)
    except RuntimeError as error:
        log.warning("%s does not say what memory it has: %s", device, error)
        return None
    return {
        "device": device, "allocated": int(torch.cuda.memory_allocated(index)),
        "reserved": int(torch.cuda.memory_reserved(index)), "free": int(free), "total": int(total),
    }  # fmt: skip
