"""Weights for a class of the owner's own (``architecture = "my_model.py:MyModel"`` in the sidecar, consented to)."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from engine.errors import LoadFailed
from engine.events import LoadStage
from engine.model_spec import ModelSpec
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
from engine.worker.runtimes.torchscript import named_by

if TYPE_CHECKING:
    import torch

_MODULE = "deskside_owners_model"


class StateDictRuntime:
    """A module made from the owner's class, with every one of its weights from the file. Inputs are passed by the names
    of its forward; where the declared ones have others, in their declared order."""

    warm_up_runs = 1
    computes_in_caller = True

    def __init__(self) -> None:
        self._module: torch.nn.Module | None = None
        self._torch_device: torch.device | None = None
        self._dtype: torch.dtype | None = None
        self._names: dict[str, str] = {}
        self._output_names: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        return str(self._torch_device or "cpu")

    def load(self, spec: ModelSpec, device: str, threads: int, report: ReportStage) -> LoadedSignature:
        report(LoadStage.IMPORTING)
        import_torch()
        use_threads(threads)
        self._torch_device = choose_device(device)
        self._dtype = chosen_dtype(spec, self._torch_device)
        module = _build(spec)
        report(LoadStage.READING)
        state = read_state(spec.model_file)
        report(LoadStage.BUILDING)
        try:
            found = module.load_state_dict(state, strict=False)
        except RuntimeError as error:  # strict or not, shapes that differ are an error
            raise LoadFailed(
                f"The weights of {spec.path.name} have other shapes than {spec.architecture} has."
            ) from error
        check_keys(spec, found.missing_keys, found.unexpected_keys)
        module.eval()
        self._names = _argument_names(module, spec)
        self._output_names = tuple(tensor.name for tensor in spec.outputs)
        report(LoadStage.MOVING)
        self._module = module.to(device=self._torch_device, dtype=self._dtype)
        return LoadedSignature()

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str) -> Arrays:
        import torch

        assert self._module is not None
        with torch.inference_mode():
            tensors = {n: placed(to_tensor(array), self._torch_device, self._dtype) for n, array in inputs.items()}
            return {name: to_array(widened(value, self._dtype)) for name, value in self._call(self._module, tensors)}

    def _call(self, module: Any, tensors: Mapping[str, torch.Tensor]) -> list[tuple[str, Any]]:
        given = {self._names.get(name, name): tensor for name, tensor in tensors.items()}
        if len(given) == 1 and not self._names.keys() & tensors.keys():
            answer = module(*given.values())  # one array without a declared name is the one argument
        else:
            answer = module(**given)
        return named_by(self._output_names, answer)

    def variants(self, sample: Mapping[str, NDArray[Any]]) -> Generator[Variant | NotPrepared, bool, None]:
        assert self._module is not None
        assert self._torch_device is not None
        return torch_variants(self._module, self._call, sample, self._torch_device, self._dtype)

    def use_threads(self, threads: int) -> None:
        use_threads(threads)

    def failure(self, error: Exception) -> FailureKind:
        return failure_kind(error, self._torch_device)


def _build(spec: ModelSpec) -> torch.nn.Module:
    """The class of the owner's file, called with the stated arguments. Raises LoadFailed with what went wrong in it."""
    import torch

    file_name, _, class_name = spec.architecture.rpartition(":")
    # The inspector resolved the name to the one Python file that consent is bound to.
    file = next((path for path in spec.files if path.suffix == ".py"), None)
    loader = None if file is None else importlib.util.spec_from_file_location(_MODULE, file)
    if loader is None or loader.loader is None:
        raise LoadFailed(f"{file_name or spec.architecture} is not among the files of {spec.path.name}.")
    code = importlib.util.module_from_spec(loader)
    sys.modules[_MODULE] = code
    try:
        loader.loader.exec_module(code)
    except ModuleNotFoundError as error:
        raise LoadFailed(
            f"{file_name} imports {error.name!r}, which is not there: the class must lie in one file, and use packages "
            "that are installed."
        ) from error
    except Exception as error:
        raise LoadFailed(f"{file_name} failed with {type(error).__name__} when it was opened.") from error
    found = getattr(code, class_name, None)
    if not inspect.isclass(found) or not issubclass(found, torch.nn.Module):
        raise LoadFailed(f"{file_name} has no torch.nn.Module named {class_name}.")
    try:
        return found(**spec.architecture_kwargs)
    except TypeError as error:
        raise LoadFailed(
            f"{class_name} does not take the arguments it was given (architecture_kwargs in the sidecar): {error}."
        ) from error
    except Exception as error:
        raise LoadFailed(f"{class_name} failed with {type(error).__name__} when it was made.") from error


def _argument_names(module: torch.nn.Module, spec: ModelSpec) -> dict[str, str]:
    """Declared name -> argument of the forward. Raises LoadFailed where their number cannot be right."""
    parameters = [
        p
        for p in inspect.signature(module.forward).parameters.values()
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    names = [p.name for p in parameters]
    declared = [tensor.name for tensor in spec.inputs]
    if set(declared) <= set(names):
        return {name: name for name in declared}
    required = sum(1 for p in parameters if p.default is p.empty)
    if not required <= len(declared) <= len(names):
        raise LoadFailed(
            f"{len(declared)} inputs are declared, but the model's forward takes {required}: {', '.join(names)}."
        )
    return dict(zip(declared, names, strict=False))
