"""Models of Keras 3 (``.keras``, ``.h5``) on the TensorFlow backend."""

from __future__ import annotations

import zipfile
from collections.abc import Generator, Mapping
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from engine.errors import FrameworkMissing, LoadFailed, ModelCorrupt
from engine.events import LoadStage
from engine.model_spec import ModelSpec, TensorSpec, TrustClass
from engine.worker.runtimes.base import (
    Arrays,
    FailureKind,
    LoadedSignature,
    NotPrepared,
    ReportStage,
    Variant,
    unique_names,
)
from engine.worker.runtimes.tensorflow_setup import (
    failure_kind,
    import_tensorflow,
    tensor_spec,
    to_array,
    to_tensor,
    use_threads,
)
from engine.worker.runtimes.tensorflow_variants import file_bytes, tensorflow_variants

_HDF5 = b"\x89HDF\r\n\x1a\n"


class KerasRuntime:
    """One model, run through one compiled function whose rows are free (``model.predict`` is many times slower)."""

    warm_up_runs = 1
    computes_in_caller = False

    def __init__(self) -> None:
        self._device = "cpu"
        self._tf: ModuleType | None = None
        self._answer: Any = None
        self._inputs: list[Any] = []
        self._output_names: list[str] = []
        self._file_bytes = 0
        self._threads = 1

    @property
    def device(self) -> str:
        return self._device

    def load(self, spec: ModelSpec, device: str, threads: int, report: ReportStage) -> LoadedSignature:
        check_container(spec)
        report(LoadStage.IMPORTING)
        tf, self._device = import_tensorflow(device, threads)
        self._tf, self._threads = tf, threads
        keras = self._import_keras()
        report(LoadStage.READING)
        self._file_bytes = file_bytes(spec)
        model = read_model(keras, spec, self._custom_objects(keras))
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
        self._output_names = self._name_outputs(_structure(keras, model, "output"), model)
        nest = self._nest(keras, tf)

        def answer(flat: list[Any]) -> list[Any]:
            given = nest.pack_sequence_as(structure, flat)
            flattened: list[Any] = nest.flatten(model(given, training=False))
            return flattened

        self._answer = tf.function(answer, input_signature=[self._inputs])
        self._answer.get_concrete_function()
        return LoadedSignature(
            tuple(_spec_of(tf, n, t) for n, t in zip(names, inputs, strict=True)),
            tuple(_spec_of(tf, n, t) for n, t in zip(self._output_names, _tensors_of(model, "outputs"), strict=True)),
        )

    def _import_keras(self) -> ModuleType:
        """Raises FrameworkMissing with the command that installs it."""
        try:
            import keras
        except ModuleNotFoundError as error:
            if error.name != "keras":
                raise
            raise FrameworkMissing(
                "Keras is not installed for this Python. Install it with: pip install keras"
            ) from error
        module: ModuleType = keras
        return module

    def _custom_objects(self, keras: ModuleType) -> dict[str, Any]:
        """Classes by the names a file may have for them, beyond those Keras finds by itself."""
        return {}

    def _nest(self, keras: ModuleType, tf: ModuleType) -> Any:
        """What flattens and packs the structures of this Keras."""
        return keras.tree

    def _name_outputs(self, structure: Any, model: Any) -> list[str]:
        """Names for the flattened outputs: the keys of a dict, else the names of the layers they come from."""
        if isinstance(structure, dict) and not any(isinstance(v, dict | list | tuple) for v in structure.values()):
            return [str(key) for key in sorted(structure)]
        return unique_names([self._layer_of(tensor) or f"output_{i}" for i, tensor in enumerate(model.outputs)])

    def _layer_of(self, tensor: Any) -> str:
        history = getattr(tensor, "_keras_history", None)
        return "" if history is None else str(history.operation.name)

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str) -> Arrays:
        tf = self._tf
        assert tf is not None
        flat = [to_tensor(tf, inputs[name], t.dtype) for name, t in zip(self._names, self._inputs, strict=True)]
        return {name: to_array(tf, t) for name, t in zip(self._output_names, self._answer(flat), strict=True)}

    def variants(self, sample: Mapping[str, NDArray[Any]]) -> Generator[Variant | NotPrepared, bool, None]:
        assert self._tf is not None
        return tensorflow_variants(
            self._tf,
            self._answer.get_concrete_function(),
            [(name, tensor.dtype) for name, tensor in zip(self._names, self._inputs, strict=True)],
            self._output_names,
            sample,
            file_bytes=self._file_bytes,
            threads=self._threads if self._device == "cpu" else 0,
        )

    def use_threads(self, threads: int) -> None:
        use_threads(threads)

    def failure(self, error: Exception) -> FailureKind:
        assert self._tf is not None
        return failure_kind(self._tf, error)


def check_container(spec: ModelSpec) -> None:
    """Raises ModelCorrupt where the file is neither of the containers Keras writes."""
    if is_hdf5(spec) or zipfile.is_zipfile(spec.model_file):
        return
    raise ModelCorrupt(
        f"{spec.path.name} is damaged or no Keras model: a .keras file is a ZIP archive, an .h5 file is HDF5."
    )


def is_hdf5(spec: ModelSpec) -> bool:
    """Whether the model's file starts as HDF5 does."""
    with spec.model_file.open("rb") as handle:
        return handle.read(len(_HDF5)) == _HDF5


def read_model(keras: ModuleType, spec: ModelSpec, custom_objects: dict[str, Any]) -> Any:
    """The model. Raises ModelCorrupt for a damaged file, LoadFailed for what Keras refuses or does not know.

    An HDF5 file is a program, which nobody has loaded without consent: only there code inside is run.
    """
    name = spec.path.name
    safe_mode = not (is_hdf5(spec) and spec.trust_class is TrustClass.PROGRAM)
    try:
        # Keras 2 tells the kind of a file by its name, Keras 3 by either.
        return keras.models.load_model(
            str(spec.model_file), custom_objects=custom_objects, compile=False, safe_mode=safe_mode
        )
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


def _spec_of(tf: ModuleType, name: str, tensor: Any) -> TensorSpec:
    # Keras 3 has the dtype as text, Keras 2 as TensorFlow's object.
    return tensor_spec(name, tf.as_dtype(tensor.dtype).name, tuple(tensor.shape))
