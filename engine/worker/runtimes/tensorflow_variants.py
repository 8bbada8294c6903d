"""A faster way to run a TensorFlow function: its variables frozen into constants, which its optimiser can fold."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from importlib import import_module
from typing import Any

from numpy.typing import NDArray

from engine.model_spec import ModelSpec
from engine.preparation import Reason, Step
from engine.worker.runtimes.base import Arrays, NotPrepared, Variant

MAX_FILE_BYTES = 256 << 20
"""Of a model that is prepared: constants are a second copy of its weights."""

Ask = Callable[[Any, Mapping[str, NDArray[Any]]], Arrays]
"""A function that takes tensors in the order of the graph's inputs, and inputs by name -> outputs by name."""


def file_bytes(spec: ModelSpec) -> int:
    """Bytes of the model's files, which hold its weights."""
    return sum(path.stat().st_size for path in spec.files if path.is_file())


def tensorflow_variants(concrete: Any, ask: Ask, file_bytes: int) -> Generator[Variant | NotPrepared, bool, None]:
    """``concrete`` is the compiled function that answers, of a model whose files have ``file_bytes``. See
    :meth:`engine.worker.runtimes.base.Preparable.variants`. Raises NotPrepared."""
    if file_bytes > MAX_FILE_BYTES:
        raise NotPrepared(Reason.TOO_LARGE)
    try:
        # Under a private name, and used by TensorFlow's own converters; there is no other.
        module = import_module("tensorflow.python.framework.convert_to_constants")
        frozen = module.convert_variables_to_constants_v2(concrete)
    except Exception as error:
        raise NotPrepared(Reason.FAILED, "the variables could not be frozen") from error
    yield Variant((Step.FROZEN,), lambda inputs: ask(frozen, inputs))
