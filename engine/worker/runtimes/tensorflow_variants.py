"""Faster ways to run a TensorFlow function: its variables frozen into constants, which its optimiser can fold; where it
has no state, in sessions, of which several calls run at once with a thread each.

How many threads an operator takes is fixed for a process by its first use of TensorFlow, but for sessions, which bring
their own where ``tensorflow_setup`` asked for that. So there are two: one for calls that have a core to themselves, one
for a call that has them all. (A MobileNetV2 of half width on two cores: 417 pictures a second in the first, 217 by two
threads calling the function, 148 by one.)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.model_spec import ModelSpec
from engine.preparation import Reason, Step
from engine.worker.runtimes.base import Arrays, NotPrepared, Variant
from engine.worker.runtimes.tensorflow_setup import INTER_OP_THREADS, threads_of_call, to_array, to_tensor

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 256 << 20
"""Of a model that is prepared: constants are a second copy of its weights."""
MAX_SESSION_BYTES = 128 << 20
"""Of a model that is run in sessions: each has its constants."""


def file_bytes(spec: ModelSpec) -> int:
    """Bytes of the model's files, which hold its weights."""
    return sum(path.stat().st_size for path in spec.files if path.is_file())


def tensorflow_variants(
    tf: ModuleType,
    concrete: Any,
    inputs: Sequence[tuple[str, Any]],
    outputs: Sequence[str],
    sample: Mapping[str, NDArray[Any]],
    *,
    file_bytes: int,
    threads: int,
) -> Generator[Variant | NotPrepared, bool, None]:
    """``concrete`` is the compiled function that answers: it takes ``inputs`` (name and TensorFlow's dtype) in their
    order and answers ``outputs``. ``file_bytes``: of its model's files. ``threads``: those of one operator on the CPU;
    0 on another device. See :meth:`engine.worker.runtimes.base.Preparable.variants`. Raises NotPrepared."""
    if file_bytes > MAX_FILE_BYTES:
        raise NotPrepared(Reason.TOO_LARGE)
    try:
        # Under a private name, and used by TensorFlow's own converters; there is no other.
        module = import_module("tensorflow.python.framework.convert_to_constants")
        frozen = module.convert_variables_to_constants_v2(concrete)
    except Exception as error:
        raise NotPrepared(Reason.FAILED, "the variables could not be frozen") from error

    if threads and file_bytes <= MAX_SESSION_BYTES and _is_stateless(frozen) and _is_numeric(frozen):
        try:
            sessions = _Sessions(tf, frozen, inputs, outputs, threads)
            sessions.warm_up(sample)
        except Exception as error:  # what a model may raise is not bounded; the frozen function may do without
            log.info("the frozen graph does not run in a session", exc_info=error)
        else:
            if (yield Variant((Step.FROZEN,), sessions.run, is_shared=True)):
                return
            sessions.close()

    def run(given: Mapping[str, NDArray[Any]]) -> Arrays:
        found = frozen(*[to_tensor(tf, given[name], dtype) for name, dtype in inputs])
        return {name: to_array(tf, tensor) for name, tensor in zip(outputs, found, strict=True)}

    yield Variant((Step.FROZEN,), run)


class _Sessions:
    """A frozen graph in a session for each number of threads that :func:`threads_of_call` may say, one and all; any
    number of threads may run them at once."""

    def __init__(
        self, tf: ModuleType, frozen: Any, inputs: Sequence[tuple[str, Any]], outputs: Sequence[str], threads: int
    ) -> None:
        self._threads = threads
        self._inputs = [(name, np.dtype(dtype.as_numpy_dtype)) for name, dtype in inputs]
        self._outputs = list(outputs)
        v1 = tf.compat.v1
        graph = tf.Graph()
        with graph.as_default():
            v1.import_graph_def(frozen.graph.as_graph_def(), name="")
        self._sessions = []
        self._calls: dict[int, Callable[..., list[NDArray[Any]]]] = {}
        for number in sorted({1, threads}):
            # As many graphs at once as there are threads, or one whose branches may run at once.
            config = v1.ConfigProto(
                intra_op_parallelism_threads=number,
                inter_op_parallelism_threads=threads if number == 1 else INTER_OP_THREADS,
                use_per_session_threads=True,
                device_count={"GPU": 0},
            )
            session = v1.Session(graph=graph, config=config)
            self._sessions.append(session)
            fetched, fed = [t.name for t in frozen.outputs], [t.name for t in frozen.inputs]
            self._calls[number] = session.make_callable(fetched, fed)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        return self._run(self._calls[1 if threads_of_call(self._threads) == 1 else self._threads], inputs)

    def _run(self, call: Callable[..., list[NDArray[Any]]], inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        found = call(*[np.asarray(inputs[name], dtype) for name, dtype in self._inputs])
        return dict(zip(self._outputs, found, strict=True))

    def warm_up(self, sample: Mapping[str, NDArray[Any]]) -> None:
        """A session optimises its graph and makes its kernels when it first runs."""
        for call in self._calls.values():
            self._run(call, sample)

    def close(self) -> None:
        for session in self._sessions:
            session.close()


def _is_stateless(frozen: Any) -> bool:
    """Whether no operator is left that TensorFlow says has a state (a variable, a table, random numbers), nor calls one
    that has: a call of a function with a state is an operator of its own kind, which says so too."""
    return not any(operation.op_def.is_stateful for operation in frozen.graph.get_operations())


def _is_numeric(frozen: Any) -> bool:
    """Whether its inputs and outputs are of NumPy's own numbers: no text, no bfloat16."""
    return all(np.dtype(t.dtype.as_numpy_dtype).kind in "biuf" for t in (*frozen.inputs, *frozen.outputs))
