"""TensorFlow SavedModel folders, through one of their signatures."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from engine.errors import LoadFailed, ModelCorrupt
from engine.events import LoadStage
from engine.model_spec import ModelSpec, TensorSpec
from engine.worker.runtimes.base import Arrays, FailureKind, LoadedSignature, NotPrepared, ReportStage, Variant
from engine.worker.runtimes.tensorflow_setup import (
    failure_kind,
    import_tensorflow,
    tensor_spec,
    to_array,
    to_tensor,
    use_threads,
)
from engine.worker.runtimes.tensorflow_variants import file_bytes, tensorflow_variants

DEFAULT_SIGNATURE = "serving_default"


class SavedModelRuntime:
    """One SavedModel. The loaded object is kept: its signatures hold its variables only weakly."""

    warm_up_runs = 1
    computes_in_caller = False

    def __init__(self) -> None:
        self._device = "cpu"
        self._tf: ModuleType | None = None
        self._loaded: Any = None
        self._function: Any = None
        self._file_bytes = 0
        self._threads = 1
        self._inputs: dict[str, Any] = {}

    @property
    def device(self) -> str:
        return self._device

    def load(self, spec: ModelSpec, device: str, threads: int, report: ReportStage) -> LoadedSignature:
        report(LoadStage.IMPORTING)
        tf, self._device = import_tensorflow(device, threads)
        self._tf, self._threads = tf, threads
        report(LoadStage.READING)
        self._file_bytes = file_bytes(spec)
        self._loaded = _read(tf, spec)
        report(LoadStage.BUILDING)
        signatures = {str(name): function for name, function in self._loaded.signatures.items()}
        name = _choose_signature(signatures, spec)
        self._function = signatures[name]
        self._inputs = dict(self._function.structured_input_signature[1])
        outputs = dict(self._function.structured_outputs)
        return LoadedSignature(
            tuple(_spec_of(n, t, spec.inputs) for n, t in sorted(self._inputs.items())),
            tuple(_spec_of(n, t, spec.outputs) for n, t in sorted(outputs.items())),
            name,
            (name, *(other for other in signatures if other != name)),
        )

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str) -> Arrays:
        tf = self._tf
        assert tf is not None
        given = {name: to_tensor(tf, inputs[name], t.dtype) for name, t in self._inputs.items()}
        return {str(name): to_array(tf, tensor) for name, tensor in sorted(self._function(**given).items())}

    def variants(self, sample: Mapping[str, NDArray[Any]]) -> Generator[Variant | NotPrepared, bool, None]:
        tf = self._tf
        assert tf is not None
        given, answered = list(self._inputs), sorted(map(str, self._function.structured_outputs))

        def answer(*flat: Any) -> list[Any]:
            named = self._function(**dict(zip(given, flat, strict=True)))
            return [named[name] for name in answered]

        specs = [tf.TensorSpec(t.shape, t.dtype, f"input_{i}") for i, t in enumerate(self._inputs.values())]
        wrapped = tf.function(answer, input_signature=specs)
        return tensorflow_variants(
            tf,
            wrapped.get_concrete_function(),
            [(name, self._inputs[name].dtype) for name in given],
            answered,
            sample,
            file_bytes=self._file_bytes,
            threads=self._threads if self._device == "cpu" else 0,
        )

    def use_threads(self, threads: int) -> None:
        use_threads(threads)

    def failure(self, error: Exception) -> FailureKind:
        assert self._tf is not None
        return failure_kind(self._tf, error)


def _read(tf: ModuleType, spec: ModelSpec) -> Any:
    """The loaded object. Raises ModelCorrupt for a damaged folder, LoadFailed for operations this build has not."""
    name = spec.path.name
    try:
        return tf.saved_model.load(str(spec.model_file))
    except (OSError, tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
        raise ModelCorrupt(f"{name} is damaged or no SavedModel folder.") from error
    except (tf.errors.NotFoundError, tf.errors.InvalidArgumentError) as error:
        if "not registered" in str(error):
            raise LoadFailed(f"{name} uses an operation that this TensorFlow does not have.") from error
        raise ModelCorrupt(f"{name} is incomplete: a part of the SavedModel folder is missing or damaged.") from error
    except Exception as error:
        # Protobuf's DecodeError, named so as not to import protobuf for one name.
        if type(error).__name__ == "DecodeError":
            raise ModelCorrupt(f"{name} is damaged: its saved_model.pb cannot be read.") from error
        raise


def _choose_signature(signatures: Mapping[str, Any], spec: ModelSpec) -> str:
    """The signature the spec puts first, else ``serving_default``, else the only one. Raises LoadFailed."""
    if spec.signatures and spec.signatures[0] in signatures:
        return spec.signatures[0]
    if DEFAULT_SIGNATURE in signatures:
        return DEFAULT_SIGNATURE
    if len(signatures) == 1:
        return next(iter(signatures))
    if not signatures:
        raise LoadFailed(f"{spec.path.name} has no signature to call: export it with one.")
    listed = ", ".join(sorted(signatures))
    raise LoadFailed(f"{spec.path.name} has the signatures {listed}: name one in the sidecar (signatures).")


def _spec_of(name: str, tensor: Any, stated: tuple[TensorSpec, ...]) -> TensorSpec:
    if tensor.shape.rank is None:
        # The signature leaves even the number of dimensions open: only the sidecar can say it.
        shape = next((t.shape for t in stated if t.name == name), None)
        if shape is None:
            raise LoadFailed(f"The model leaves the rank of {name!r} open: state its shape in the sidecar.")
        return tensor_spec(name, tensor.dtype.name, tuple(None if n < 0 else n for n in shape))
    return tensor_spec(name, tensor.dtype.name, tuple(tensor.shape.as_list()))
