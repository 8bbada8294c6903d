"""Keras 3 models (``.keras``) on the TensorFlow backend."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from engine.errors import FrameworkMissing, LoadFailed, ModelCorrupt
from engine.events import LoadStage
from engine.model_spec import ModelSpec, TensorSpec
from engine.worker.runtimes.base import Arrays, FailureKind, LoadedSignature, ReportStage, unique_names
from engine.worker.runtimes.tensorflow_setup import failure_kind, import_tensorflow, tensor_spec, to_array, to_tensor


class KerasRuntime:
    """One model, run through one compiled function whose rows are free (``model.predict`` is many times slower)."""

    warm_up_runs = 1

    def __init__(self) -> None:
        self._device = "cpu"
        self._tf: ModuleType | None = None
        self._answer: Any = None
        self._inputs: list[Any] = []
        self._output_names: list[str] = []

    @property
    def device(self) -> str:
        return self._device

    def load(self, spec: ModelSpec, device: str, threads: int, report: ReportStage) -> LoadedSignature:
        if not zipfile.is_zipfile(spec.model_file):
            raise ModelCorrupt(f"{spec.path.name} is damaged or no Keras model: a .keras file is a ZIP archive.")
        report(LoadStage.IMPORTING)
        tf, self._device = import_tensorflow(device, threads)
        self._tf = tf
        keras = _import_keras()
        report(LoadStage.READING)
        model = _read(keras, spec)
        report(LoadStage.BUILDING)
        inputs = _tensors_of(model, "inputs")
        if not inputs:
            raise LoadFailed(f"{spec.path.name} does not say which inputs it takes: save it after it was built.")
        names = unique_names([tensor.name for tensor in inputs])
        structure = _structure(keras, model, "input")
        self._inputs = [
            tf.TensorSpec(shape=list(t.shape), dtype=t.dtype, name=None) for t in inputs
        ]  # shapes as Keras has them: None for a free dimension
        self._names = names
        self._output_names = _output_names(_structure(keras, model, "output"), model)

        def answer(flat: list[Any]) -> list[Any]:
            given = keras.tree.pack_sequence_as(structure, flat)
            flattened: list[Any] = keras.tree.flatten(model(given, training=False))
            return flattened

        self._answer = tf.function(answer, input_signature=[self._inputs])
        self._answer.get_concrete_function()
        return LoadedSignature(
            tuple(_spec_of(n, t) for n, t in zip(names, inputs, strict=True)),
            tuple(_spec_of(n, t) for n, t in zip(self._output_names, _tensors_of(model, "outputs"), strict=True)),
        )

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str) -> Arrays:
        tf = self._tf
        assert tf is not None
        flat = [to_tensor(tf, inputs[name], t.dtype) for name, t in zip(self._names, self._inputs, strict=True)]
        return {name: to_array(tf, t) for name, t in zip(self._output_names, self._answer(flat), strict=True)}

    def failure(self, error: Exception) -> FailureKind:
        assert self._tf is not None
        return failure_kind(self._tf, error)


def _import_keras() -> ModuleType:
    try:
        import keras
    except ModuleNotFoundError as error:
        if error.name != "keras":
            raise
        raise FrameworkMissing("Keras is not installed for this Python. Install it with: pip install keras") from error
    module: ModuleType = keras
    return module


def _read(keras: ModuleType, spec: ModelSpec) -> Any:
    """The model. Raises ModelCorrupt for a damaged archive, LoadFailed for what Keras refuses or does not know."""
    name = spec.path.name
    try:
        return keras.models.load_model(spec.model_file, compile=False, safe_mode=True)
    except (zipfile.BadZipFile, KeyError, EOFError, OSError) as error:
        raise ModelCorrupt(f"{name} is damaged or incomplete: Keras could not read it.") from error
    except (ValueError, TypeError) as error:
        text = str(error)
        if "safe_mode" in text or "unsafe deserialization" in text:
            raise LoadFailed(f"{name} contains Python code (a Lambda layer), which is not run.") from error
        if "Could not locate" in text or "Could not deserialize" in text or "Unknown" in text:
            raise LoadFailed(
                f"{name} uses a class that Keras does not know: custom layers cannot be loaded."
            ) from error
        raise LoadFailed(f"{name} could not be loaded by Keras.") from error


def _tensors_of(model: Any, attribute: str) -> list[Any]:
    """``model.inputs`` or ``model.outputs``; empty where the model was never built (Keras then raises)."""
    try:
        return list(getattr(model, attribute) or ())
    except (AttributeError, ValueError):
        return []


def _structure(keras: ModuleType, model: Any, attribute: str) -> Any:
    """``model.input`` or ``model.output``. A Sequential model has no such node of its own (Keras then raises), but
    never more than one of either."""
    if isinstance(model, keras.Sequential):
        return getattr(model, attribute + "s")[0]
    return getattr(model, attribute)


def _output_names(structure: Any, model: Any) -> list[str]:
    """Names for the flattened outputs: the keys of a dict, else the names of the layers they come from."""
    if isinstance(structure, dict) and not any(isinstance(v, dict | list | tuple) for v in structure.values()):
        return [str(key) for key in sorted(structure)]
    history = [getattr(tensor, "_keras_history", None) for tensor in model.outputs]
    names = [h.operation.name if h is not None else f"output_{i}" for i, h in enumerate(history)]
    return unique_names([str(name) for name in names])


def _spec_of(name: str, tensor: Any) -> TensorSpec:
    return tensor_spec(name, str(tensor.dtype), tuple(tensor.shape))
