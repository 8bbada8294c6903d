"""TensorFlow itself, for the runtimes that stand on it: import, threads, device, tensors to and from NumPy."""

from __future__ import annotations

import os
import threading
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import FrameworkMissing
from engine.model_spec import TensorSpec
from engine.worker.runtimes.base import FailureKind, cuda_index, no_such_device

INTER_OP_THREADS = 2
"""Independent branches of a graph; more only fight for the cores that one operator already uses."""
_LOST_MARKS = ("CUDA_ERROR_ASSERT", "CUDA_ERROR_ILLEGAL", "CUDA_ERROR_LAUNCH_FAILED", "failed to synchronize")


def import_tensorflow(device: str, threads: int) -> tuple[ModuleType, str]:
    """TensorFlow, restricted to ``device`` with its memory growing as needed, and the device's name in our words.

    Must run before anything else touches TensorFlow in this process: threads and devices are fixed by its first use.
    Raises FrameworkMissing with the command that installs it, LoadFailed for a device that is not there.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # Each session has the threads that it is made with (engine.worker.runtimes.tensorflow_variants), not all the same.
    os.environ.setdefault("TF_OVERRIDE_GLOBAL_THREADPOOL", "1")
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise FrameworkMissing(
            "TensorFlow is not installed for this Python. Install it with: pip install tensorflow"
        ) from error
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(min(threads, INTER_OP_THREADS))
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return tf, _choose_device(tf, gpus, device)


def _choose_device(tf: ModuleType, gpus: list[Any], device: str) -> str:
    if device == "cpu" or (device == "auto" and not gpus):
        tf.config.set_visible_devices([], "GPU")
        return "cpu"
    is_metal = not tf.test.is_built_with_gpu_support() and bool(gpus)
    if is_metal:
        if device not in ("auto", "mps"):
            raise no_such_device(device, "TensorFlow")
        return "mps"
    index = 0 if device == "auto" else -1 if device == "mps" else cuda_index(device)
    if not 0 <= index < len(gpus):
        raise no_such_device(device, "TensorFlow")
    tf.config.set_visible_devices(gpus[index], "GPU")
    return f"cuda:{index}"


_calls = threading.local()


def use_threads(threads: int) -> None:
    """What the calling thread runs from now on takes so many threads, where it runs in a session."""
    _calls.threads = threads


def threads_of_call(otherwise: int) -> int:
    """What :func:`use_threads` was told in this thread; ``otherwise`` where it was told nothing."""
    return int(getattr(_calls, "threads", otherwise))


def tensor_spec(name: str, dtype: str, shape: tuple[int | None, ...]) -> TensorSpec:
    """TensorFlow's words in ours: ``string`` is ``str``; bfloat16, unknown to NumPy, is taken and given as float32."""
    words = {"string": "str", "bfloat16": "float32"}
    return TensorSpec(name, words.get(dtype, dtype), tuple(-1 if n is None else int(n) for n in shape))


def to_tensor(tf: ModuleType, array: NDArray[Any], dtype: Any) -> Any:
    """``array`` as a tensor of ``dtype`` (TensorFlow's)."""
    if array.dtype.kind == "O":
        return tf.constant(array.tolist(), dtype=tf.string, shape=array.shape)
    return tf.convert_to_tensor(array) if array.dtype.name == dtype.name else tf.cast(tf.constant(array), dtype)


def to_array(tf: ModuleType, tensor: Any) -> NDArray[Any]:
    """A tensor as NumPy's array; text as an object array of ``str``."""
    if tensor.dtype == tf.bfloat16:
        tensor = tf.cast(tensor, tf.float32)
    array = np.asarray(tensor.numpy())
    if array.dtype.kind != "O":
        return array
    texts = np.empty(array.shape, dtype=object)
    for index, value in np.ndenumerate(array):
        texts[index] = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return texts


def failure_kind(tf: ModuleType, error: Exception) -> FailureKind:
    """What an exception of TensorFlow means."""
    if isinstance(error, MemoryError | tf.errors.ResourceExhaustedError):
        return FailureKind.OUT_OF_MEMORY
    if isinstance(error, tf.errors.OpError) and any(mark in str(error) for mark in _LOST_MARKS):
        return FailureKind.DEVICE_LOST
    return FailureKind.INPUT
