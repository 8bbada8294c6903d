"""The runtimes by name. A runtime's module is imported when a model asks for it, its framework when it loads."""

from __future__ import annotations

from importlib import import_module

from engine.errors import LoadFailed
from engine.model_spec import ModelSpec
from engine.worker.runtimes.base import Runtime
from engine.worker.runtimes.package import PackageRuntime

PACKAGE = "bioimage_io"
"""The format whose specs describe tensors of the package around the weights, not of the weights."""

_RUNTIMES = {
    "keras": ("engine.worker.runtimes.keras", "KerasRuntime"),
    "keras_legacy": ("engine.worker.runtimes.keras_legacy", "KerasLegacyRuntime"),
    "saved_model": ("engine.worker.runtimes.saved_model", "SavedModelRuntime"),
    "litert": ("engine.worker.runtimes.litert", "LiteRtRuntime"),
    "onnxruntime": ("engine.worker.runtimes.onnx_runtime", "OnnxRuntime"),
    "torch_export": ("engine.worker.runtimes.torch_export", "TorchExportRuntime"),
    "aot_inductor": ("engine.worker.runtimes.aot_inductor", "AotInductorRuntime"),
    "torchscript": ("engine.worker.runtimes.torchscript", "TorchScriptRuntime"),
    "transformers": ("engine.worker.runtimes.transformers_runtime", "TransformersRuntime"),
    "state_dict": ("engine.worker.runtimes.state_dict", "StateDictRuntime"),
    "fake": ("engine.worker.runtimes.fake", "FakeRuntime"),
}


def runtime_for(spec: ModelSpec) -> Runtime:
    """The runtime of a model, inside a package's own where it comes in one. Raises LoadFailed."""
    check_precision(spec)
    runtime = create_runtime(spec.runtime)
    return PackageRuntime(runtime) if spec.format == PACKAGE else runtime


_WITH_PRECISION = frozenset({"transformers", "state_dict", "torchscript", "fake"})
"""Those that compute in another precision than the file's when they are asked to."""


def check_precision(spec: ModelSpec) -> None:
    """Raises LoadFailed where a precision was asked for that the model's runtime cannot choose."""
    if spec.precision and spec.runtime not in _WITH_PRECISION:
        raise LoadFailed(
            f"{spec.path.name} computes in the precision it was saved with: {spec.precision} cannot be chosen for "
            f"{spec.runtime}."
        )


def create_runtime(name: str) -> Runtime:
    """A runtime that has loaded nothing yet. Raises LoadFailed for a name that is none of ours."""
    if name not in _RUNTIMES:
        raise LoadFailed(f"There is no runtime named {name!r}; there are {', '.join(sorted(_RUNTIMES))}.")
    module, attribute = _RUNTIMES[name]
    runtime: Runtime = getattr(import_module(module), attribute)()
    return runtime
