"""Faster ways to run a PyTorch module: memory laid out channels-last, the graph traced, frozen and optimised.

All work on a copy of the module: the untouched one keeps its weights, its layout and its state, and answers meanwhile.
``torch.compile`` is not among them: it starts a compiler, and a model's process may start no program.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from engine.preparation import Reason, Step
from engine.worker.runtimes.base import Arrays, NotPrepared, Variant
from engine.worker.runtimes.torch_setup import to_array, to_tensor
from engine.worker.runtimes.torch_state import placed, widened

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

MAX_WEIGHT_BYTES = 256 << 20
"""Of a model that is prepared: its weights are then held twice, three times while it is being prepared."""

Call = Callable[[Any, "dict[str, torch.Tensor]"], list[tuple[str, Any]]]
"""A module and its inputs by their declared names -> its outputs, named, in their order."""


def torch_variants(
    module: torch.nn.Module,
    call: Call,
    sample: Mapping[str, NDArray[Any]],
    device: torch.device,
    dtype: torch.dtype | None,
) -> Generator[Variant | NotPrepared, bool, None]:
    """See :meth:`engine.worker.runtimes.base.Preparable.variants`. Raises NotPrepared."""
    import torch

    weights = [*module.parameters(), *module.buffers()]
    if sum(w.numel() * w.element_size() for w in weights) > MAX_WEIGHT_BYTES:
        raise NotPrepared(Reason.TOO_LARGE)
    try:
        copied = copy.deepcopy(module)
    except Exception as error:  # an owner's class may copy itself, and fail in its own way
        raise NotPrepared(Reason.FAILED, "the module could not be copied") from error

    layout = torch.contiguous_format

    def given(inputs: Mapping[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
        tensors = {name: placed(to_tensor(array), device, dtype) for name, array in inputs.items()}
        if layout is torch.channels_last:
            return {n: t.contiguous(memory_format=layout) if t.dim() == 4 else t for n, t in tensors.items()}
        return tensors

    def named(flat: list[tuple[str, Any]]) -> Arrays:
        return {name: to_array(widened(value, dtype)) for name, value in flat}

    def run_copied(inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        with torch.inference_mode():
            return named(call(copied, given(inputs)))

    kept: tuple[Step, ...] = ()
    if any(weight.dim() == 4 for weight in weights):
        layout = torch.channels_last
        copied.to(memory_format=layout)  # type: ignore[call-overload]  # the stubs know it only beside a device
        if (yield Variant((Step.CHANNELS_LAST,), run_copied)):
            kept = (Step.CHANNELS_LAST,)
        else:
            layout = torch.contiguous_format
            copied.to(memory_format=layout)  # type: ignore[call-overload]

    ways: list[tuple[Step, ...]] = [(Step.TRACED, Step.FROZEN)]
    if device.type == "cpu":
        # For the CPU it lays weights out for oneDNN; where that does not pay, the frozen graph alone may.
        ways.insert(0, (Step.TRACED, Step.FROZEN, Step.OPTIMISED))
    for way in ways:
        try:
            graph, names, is_shared = _traced(copied, call, given(sample), optimised=Step.OPTIMISED in way)
        except NotPrepared as refusal:
            yield refusal
            return  # every way begins with the same trace
        except Exception as error:  # what a model may raise is not bounded
            log.info("the model could not be traced", exc_info=error)
            yield NotPrepared(Reason.FAILED)
            continue

        def run_graph(inputs: Mapping[str, NDArray[Any]], graph: Any = graph, names: Any = names) -> Arrays:
            with torch.inference_mode():
                tensors = given(inputs)
                # In the traced order: a client names its inputs in any.
                return named(list(zip(names, graph(*[tensors[name] for name in sample]), strict=True)))

        if (yield Variant((*kept, *way), run_graph, is_shared)):
            return


def _traced(
    copied: Any, call: Call, tensors: dict[str, torch.Tensor], *, optimised: bool
) -> tuple[Any, list[str], bool]:
    """The graph of one run, which takes the tensors in their order and answers a tuple, the outputs' names, and whether
    several threads may run it at once.

    Raises NotPrepared for a module whose code looks at the values of tensors: a trace has only one of its ways.
    """
    import torch

    names: list[str] = []
    tracer_warning: type[Warning] = torch.jit._trace.TracerWarning

    class Flat(torch.nn.Module):
        """The module with its inputs in a row and its outputs in a tuple, whatever shape it gives its answer."""

        def __init__(self) -> None:
            super().__init__()
            self.module = copied

        def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
            flat = call(self.module, dict(zip(tensors, given, strict=True)))
            if not flat or not all(isinstance(value, torch.Tensor) for _, value in flat):
                raise NotPrepared(Reason.FAILED, "an output is no tensor")
            names[:] = [name for name, _ in flat]
            return tuple(value for _, value in flat)

    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("ignore", message=r"`torch\.jit\..*` is deprecated", category=DeprecationWarning)
        # Behind PyTorch's own filters, which leave out what its library's code warns of by itself.
        warnings.filterwarnings("always", category=tracer_warning, append=True)
        graph = torch.jit.trace(Flat().eval(), tuple(tensors.values()), check_trace=False)  # type: ignore[no-untyped-call]
        graph = torch.jit.freeze(graph)
        is_shared = _is_stateless(graph.graph)
        if optimised:
            graph = torch.jit.optimize_for_inference(graph)
    told = [w for w in caught if issubclass(w.category, tracer_warning)]
    if told:
        raise NotPrepared(Reason.DEPENDS, str(told[0].message))
    for warning in caught:
        log.warning("%s", warning.message)
    return graph, names, is_shared


def _is_stateless(graph: Any) -> bool:
    """Whether a run of the frozen graph leaves nothing behind: it asks its module for nothing (freezing leaves there
    what is written to), writes to no constant, and calls nothing of Python's."""
    try:
        aliases = graph.alias_db()
    except RuntimeError as error:  # an operator of which PyTorch does not know what it writes to
        log.info("what the graph writes to cannot be told", exc_info=error)
        return False

    def nodes(block: Any) -> Iterator[Any]:
        for node in block.nodes():
            yield node
            for inner in node.blocks():
                yield from nodes(inner)

    for node in nodes(graph):
        if node.kind() in ("prim::GetAttr", "prim::SetAttr", "prim::CallMethod", "prim::PythonOp"):
            return False
        if node.kind() == "prim::Constant" and any(aliases.has_writers(value) for value in node.outputs()):
            return False
    return True
