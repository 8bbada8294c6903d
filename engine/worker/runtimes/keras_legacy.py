"""Models that Keras 2 wrote (``.h5``, ``.keras``), on Keras 2 itself as the ``tf_keras`` package keeps it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from engine.errors import FrameworkMissing
from engine.worker.runtimes.keras import KerasRuntime


class KerasLegacyRuntime(KerasRuntime):
    """See :class:`KerasRuntime`; the two differ in where a class is found and in what a tensor says of itself."""

    def _import_keras(self) -> ModuleType:
        try:
            import tf_keras
        except ModuleNotFoundError as error:
            if error.name != "tf_keras":
                raise
            raise FrameworkMissing(
                "This model was saved by Keras 2, which is not installed for this Python. Install it with: "
                "pip install tf-keras"
            ) from error
        module: ModuleType = tf_keras
        return module

    def _custom_objects(self, keras: ModuleType) -> dict[str, Any]:
        # Keras 2.12 wrote the modules of these three as they lay then; tf_keras knows where they have lain since 2.13.
        from tf_keras.src.engine.functional import Functional
        from tf_keras.src.layers.core.tf_op_layer import SlicingOpLambda, TFOpLambda

        return {cls.__name__: cls for cls in (Functional, TFOpLambda, SlicingOpLambda)}

    def _nest(self, keras: ModuleType, tf: ModuleType) -> Any:
        return tf.nest

    def _layer_of(self, tensor: Any) -> str:
        history = getattr(tensor, "_keras_history", None)
        return "" if history is None else str(history.layer.name)
