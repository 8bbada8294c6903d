"""AOTInductor packages: a model compiled to native code (torch._inductor.aoti_compile_and_package)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from engine.errors import LoadFailed, ModelCorrupt
from engine.events import LoadStage
from engine.model_spec import ModelSpec
from engine.worker.runtimes.base import Arrays, FailureKind, LoadedSignature, ReportStage
from engine.worker.runtimes.torch_export import named_outputs
from engine.worker.runtimes.torch_setup import choose_device, failure_kind, import_torch, to_tensor

if TYPE_CHECKING:
    import torch


class AotInductorRuntime:
    """One compiled package. It says how many arguments it takes and how its keyword arguments are called, but neither
    dtypes nor shapes: what the spec declares is kept, and its inputs are passed in their declared order."""

    warm_up_runs = 1

    def __init__(self) -> None:
        self._model: Any = None
        self._torch_device: torch.device | None = None
        self._order: tuple[str, ...] = ()
        self._keywords: tuple[str, ...] = ()
        self._count = 0
        self._output_names: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        return str(self._torch_device or "cpu")

    def load(self, spec: ModelSpec, device: str, threads: int, report: ReportStage) -> LoadedSignature:
        report(LoadStage.IMPORTING)
        torch = import_torch()

        torch.set_num_threads(threads)
        chosen = choose_device(device)
        report(LoadStage.READING)
        try:
            index = chosen.index if chosen.type == "cuda" and chosen.index is not None else -1
            model = import_module("torch._inductor").aoti_load_package(str(spec.model_file), device_index=index)
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelCorrupt(f"{spec.path.name} could not be opened as an AOTInductor package.") from error
        report(LoadStage.BUILDING)
        built_for = str(model.get_metadata().get("AOTI_DEVICE_KEY", "cpu"))
        if built_for != chosen.type and device != "auto":
            raise LoadFailed(f"{spec.path.name} was compiled for {built_for}; it runs on no other device.")
        self._torch_device = torch.device("cpu") if built_for == "cpu" else chosen
        self._model = model
        self._take_call_spec(spec)
        return LoadedSignature()

    def _take_call_spec(self, spec: ModelSpec) -> None:
        """How many arguments there are, and the keywords among them. Raises LoadFailed where the declared inputs are
        not as many."""
        _, tree = json.loads(self._model.loader.get_call_spec()[0])
        positional, keywords = tree["children_spec"]
        self._keywords = tuple(str(key) for key in json.loads(keywords["context"]))
        self._count = len(positional["children_spec"]) + len(self._keywords)
        self._order = tuple(tensor.name for tensor in spec.inputs)
        self._output_names = tuple(tensor.name for tensor in spec.outputs)
        if self._order and len(self._order) != self._count:
            raise LoadFailed(f"{len(self._order)} inputs are declared, but the compiled model takes {self._count}.")

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str) -> Arrays:
        import torch

        order = self._order if set(self._order) == set(inputs) else tuple(inputs)
        if len(order) != self._count:
            raise ValueError(f"the compiled model takes {self._count} tensors, not {len(order)}")
        with torch.inference_mode():
            given = [to_tensor(inputs[name]).to(self._torch_device) for name in order]
            positional = self._count - len(self._keywords)
            keywords = dict(zip(self._keywords, given[positional:], strict=True))
            return named_outputs(self._model(*given[:positional], **keywords), self._output_names)

    def failure(self, error: Exception) -> FailureKind:
        return failure_kind(error, self._torch_device)
