"""Models of transformers: folders of ``save_pretrained``, or weights with a ``config.json`` beside them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from engine.errors import FrameworkMissing, LoadFailed, ModelCorrupt
from engine.events import LoadStage
from engine.model_spec import ModelSpec, TensorSpec
from engine.worker.runtimes.base import Arrays, FailureKind, LoadedSignature, NotPrepared, ReportStage, Variant
from engine.worker.runtimes.torch_setup import (
    choose_device,
    failure_kind,
    import_torch,
    to_array,
    to_tensor,
    use_threads,
)
from engine.worker.runtimes.torch_state import check_keys, chosen_dtype, placed, read_state, widened
from engine.worker.runtimes.torch_variants import torch_variants
from engine.worker.runtimes.torchscript import flatten

if TYPE_CHECKING:
    import torch

_SAFETENSORS = (".safetensors", ".safetensors.index.json")


class TransformersRuntime:
    """One model, opened without the network and without any code but the library's own."""

    warm_up_runs = 1
    computes_in_caller = True

    def __init__(self) -> None:
        self._model: Any = None
        self._torch_device: torch.device | None = None
        self._dtype: torch.dtype | None = None
        self._outputs: frozenset[str] = frozenset()

    @property
    def device(self) -> str:
        return str(self._torch_device or "cpu")

    def load(self, spec: ModelSpec, device: str, threads: int, report: ReportStage) -> LoadedSignature:
        report(LoadStage.IMPORTING)
        import_torch()
        use_threads(threads)
        self._torch_device = choose_device(device)
        self._dtype = chosen_dtype(spec, self._torch_device)
        transformers = import_transformers()
        model_class = _model_class(transformers, spec)
        report(LoadStage.READING)
        model = _read(transformers, model_class, spec, self._dtype)
        report(LoadStage.BUILDING)
        model.eval()
        inputs = _inputs(model, spec)
        report(LoadStage.MOVING)
        self._model = model.to(self._torch_device)
        self._outputs = frozenset(tensor.name for tensor in spec.outputs)
        return LoadedSignature(inputs)

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str) -> Arrays:
        import torch

        assert self._model is not None
        with torch.inference_mode():
            given = {n: placed(to_tensor(array), self._torch_device, self._dtype) for n, array in inputs.items()}
            return {name: to_array(widened(value, self._dtype)) for name, value in self._call(self._model, given)}

    def _call(self, model: Any, given: Mapping[str, torch.Tensor]) -> list[tuple[str, Any]]:
        named = dict(flatten("output", dict(model(**given, return_dict=True))))
        # Beside them some models give the features of their backbones, many times as large.
        told = {name: value for name, value in named.items() if name in self._outputs} or named
        return list(told.items())

    def variants(self, sample: Mapping[str, NDArray[Any]]) -> Generator[Variant | NotPrepared, bool, None]:
        assert self._torch_device is not None
        return torch_variants(self._model, self._call, sample, self._torch_device, self._dtype)

    def use_threads(self, threads: int) -> None:
        use_threads(threads)

    def failure(self, error: Exception) -> FailureKind:
        return failure_kind(error, self._torch_device)


def import_transformers() -> ModuleType:
    """The library, set never to fetch anything. Raises FrameworkMissing."""
    # Before the import, where they are read: nothing is ever fetched.
    os.environ.update(
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
    )
    try:
        import transformers
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise FrameworkMissing(
            "transformers is not installed for this Python. Install it with: pip install transformers"
        ) from error
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # the library has no types
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # the library has no types
    module: ModuleType = transformers
    return module


def _model_class(transformers: ModuleType, spec: ModelSpec) -> Any:
    """The class the config names. Raises LoadFailed where this version of the library has none of that name."""
    name = spec.architecture
    found = getattr(transformers, name, None) if name.isidentifier() else None
    if not inspect.isclass(found) or not issubclass(found, transformers.PreTrainedModel):
        raise LoadFailed(
            f"{spec.path.name} is a {name}, which transformers {transformers.__version__} does not have; "
            "a newer one may: pip install --upgrade transformers"
        )
    return found


def _read(transformers: ModuleType, model_class: Any, spec: ModelSpec, dtype: torch.dtype) -> Any:
    """The model on the CPU with every weight from the file. Raises LoadFailed, ModelCorrupt."""
    folder = spec.model_file if spec.model_file.is_dir() else spec.model_file.parent
    try:
        if spec.model_file.is_dir():
            model, report = model_class.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=any(_is_safetensors(path) for path in spec.files),
                weights_only=True,
                dtype=dtype,
                output_loading_info=True,
            )
        else:
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict=read_state(spec.model_file),
                dtype=dtype,
                output_loading_info=True,
            )
    except ImportError as error:
        raise LoadFailed(f"{spec.path.name} needs a package that is not installed: {_first_line(error)}") from error
    except RuntimeError as error:
        if "size mismatch" in str(error) or "ignore_mismatched_sizes" in str(error):
            raise LoadFailed(f"The weights of {spec.path.name} have other shapes than its config.json says.") from error
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelCorrupt(
            f"{spec.path.name} could not be opened by transformers: its config.json or its weights are damaged or not "
            f"for a {spec.architecture}."
        ) from error
    check_keys(spec, report["missing_keys"], report["unexpected_keys"])
    return model


def _is_safetensors(path: Path) -> bool:
    return path.name.endswith(_SAFETENSORS)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:200].rstrip(".") + "."


def _inputs(model: Any, spec: ModelSpec) -> tuple[TensorSpec, ...] | None:
    """The main input where nothing declares any. Raises LoadFailed for a declared one the forward does not take."""
    parameters = inspect.signature(model.forward).parameters
    for tensor in spec.inputs:
        if tensor.name not in parameters:
            there = ", ".join(name for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD)
            raise LoadFailed(f"{spec.architecture} takes no input {tensor.name!r}; it takes {there}.")
    if spec.inputs:
        return None
    name = str(model.main_input_name)
    if name == "input_ids":
        return (TensorSpec(name, "int64", (-1, -1)),)
    rank = {"input_values": 2, "input_features": 3, "pixel_values": 4}.get(name)
    return None if rank is None else (TensorSpec(name, "float32", (-1,) * rank),)
