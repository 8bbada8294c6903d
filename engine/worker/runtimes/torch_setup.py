"""PyTorch for every runtime that uses it: import, device, tensors, and what its exceptions mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameworkMissing
from engine.worker.runtimes.base import FailureKind, cuda_index, no_such_device

if TYPE_CHECKING:
    import torch

_LOST_MARKS = ("CUDA error", "CUDNN_STATUS_EXECUTION_FAILED", "CUBLAS_STATUS_EXECUTION_FAILED")
_MEMORY_MARKS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def import_torch() -> Any:
    """Raises FrameworkMissing with the command that installs it."""
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise FrameworkMissing(
            "PyTorch is not installed for this Python. Install it with: pip install torch"
        ) from error
    return torch


def choose_device(device: str) -> torch.device:
    """``auto`` is CUDA, else MPS, else the CPU. Raises LoadFailed for a device that is not there."""
    import torch

    has_mps = torch.backends.mps.is_available()
    if device == "cpu":
        return torch.device("cpu")
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    if device == "mps":
        if not has_mps:
            raise no_such_device(device, "PyTorch")
        return torch.device("mps")
    index = cuda_index(device)
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        raise no_such_device(device, "PyTorch")
    return torch.device(f"cuda:{index}")


def use_threads(threads: int) -> None:
    """Operators that the calling thread runs from now on take so many threads. Costs less than a microsecond.

    A thread that has run nothing yet takes, at its first operator, the number that any thread has set last, even over
    its own: asking it for its number first has that behind it.
    """
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def to_tensor(array: NDArray[Any]) -> torch.Tensor:
    """An array as a tensor on the CPU, sharing its memory where it may be written. Raises TypeError for text."""
    import torch

    if array.dtype.kind == "O":
        raise TypeError("PyTorch takes numbers, not text")
    return torch.from_numpy(array if array.flags.writeable and array.flags.c_contiguous else array.copy())


def to_array(value: Any) -> NDArray[Any]:
    """A tensor, or a plain number, as NumPy's array; bfloat16, unknown to NumPy, as float32."""
    import torch

    if not isinstance(value, torch.Tensor):
        return np.asarray(value)
    tensor = value.detach().cpu()
    array: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def failure_kind(error: Exception, device: torch.device | None) -> FailureKind:
    """What an exception of PyTorch means, raised by a model on ``device``."""
    import torch

    text = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(mark in text for mark in _MEMORY_MARKS):
        if device is not None and device.type == "cuda":
            torch.cuda.empty_cache()
        return FailureKind.OUT_OF_MEMORY
    if isinstance(error, torch.AcceleratorError) or any(mark in text for mark in _LOST_MARKS):
        return FailureKind.DEVICE_LOST
    return FailureKind.INPUT
