"""What the config of a Functional or Sequential model tells about its inputs, its output and its scaling.

Follows Keras' serialised form (keras/src/models/functional.py and sequential.py, ``get_config``): layers in order,
``inbound_nodes`` with ``keras_history``, ``input_layers`` and ``output_layers``, ``build_config.input_shape``; and
that of Keras 2 (tf_keras/src/engine): ``inbound_nodes`` of ``["layer", 0, 0, {}]``, ``batch_input_shape`` in the first
layer, no built shapes, and before 2.2.3 a Sequential model that is a bare list of layers.
Whatever is not found there stays unknown; nothing is computed by guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.model_spec import TensorSpec


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MODELS = frozenset({"Functional", "Sequential", "Model"})
_KEEP_SHAPE = _names(
    """Activation ActivityRegularization AlphaDropout BatchNormalization Dropout ELU GaussianDropout GaussianNoise
    Identity LayerNormalization LeakyReLU PReLU ReLU Relu Sigmoid Softmax"""
)
_BEFORE_COMPUTING = _names(
    """AutoContrast Cast CenterCrop Cropping2D Equalization ExpandDims GaussianNoise Identity InputLayer Permute
    RandomBrightness RandomColorJitter RandomContrast RandomCrop RandomErasing RandomFlip RandomGaussianBlur
    RandomGrayscale RandomHue RandomInvert RandomPerspective RandomRotation RandomSaturation RandomSharpness RandomShear
    RandomTranslation RandomZoom RepeatVector Reshape Resizing ZeroPadding2D"""
)
"""Layers that may stand between the input and its scaling; the search ends at any other."""
_SQUASHING = frozenset({"softmax", "sigmoid"})
_TO_ROWS = _names(
    """Flatten GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D
    GlobalMaxPooling2D GlobalMaxPooling3D"""
)
"""Layers that make one row of numbers of each input."""
_TENSORFLOW_KEEPS = _names(
    """__operators__.add math.add math.divide math.multiply math.subtract math.truediv nn.relu nn.relu6 nn.sigmoid
    nn.softmax math.sigmoid"""
)
"""What a TFOpLambda of Keras 2 may call on one tensor and one number without changing the shape."""
_TENSORFLOW_SQUASHING = {"nn.softmax": "softmax", "nn.sigmoid": "sigmoid", "math.sigmoid": "sigmoid"}
MAX_NESTING = 16
MAX_CHAIN = 200


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """``output_activation`` is ``softmax``, ``sigmoid``, ``none`` (raw scores) or empty where unknown; with its key.

    ``scaling`` is the range of values the model takes, as in :class:`~engine.model_spec.Preprocessing`, or empty.
    """

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    output_activation: str = ""
    output_key: str = ""
    scaling: str = ""
    scaling_key: str = ""


def read_graph(config: dict[str, Any], where: str = "config.json:") -> GraphFacts:
    """Facts of a parsed config; of a model that is neither Functional nor Sequential, none. ``where`` begins a key."""
    if config.get("class_name") not in _MODELS:
        return GraphFacts()
    inner = _inner(config)
    outputs, activation, output_key = _outputs(inner)
    scaling, scaling_key = _scaling(inner, "", 0)
    return GraphFacts(
        _inputs(inner),
        outputs,
        activation,
        output_key and f"{where} {output_key}",
        scaling,
        scaling_key and f"{where} {scaling_key}",
    )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _inner(model: dict[str, Any]) -> dict[str, Any]:
    """The config of a model, or of one inside another."""
    config = model.get("config")
    return {"layers": config} if isinstance(config, list) else _dict(config)


def _layers(inner: dict[str, Any]) -> list[dict[str, Any]]:
    layers = inner.get("layers")
    return [layer for layer in layers if isinstance(layer, dict)] if isinstance(layers, list) else []


def _name(layer: dict[str, Any]) -> str:
    return str(layer.get("name") or _dict(layer.get("config")).get("name") or "")


def shape_of(value: Any) -> tuple[int, ...] | None:
    """A shape as Keras writes it (null for a free dimension) with -1 for free, or None where it is no shape."""
    if not isinstance(value, list) or not value or len(value) > 32:
        return None
    dims = [-1 if n is None else n for n in value]
    if all(isinstance(n, int) and not isinstance(n, bool) and (n == -1 or 0 < n < 1 << 31) for n in dims):
        return tuple(dims)
    return None


def _flatten_references(value: Any) -> list[str]:
    """Layer names in ``["a", 0, 0]``, ``[["a", 0, 0], …]`` or ``{"key": ["a", 0, 0]}``."""
    if isinstance(value, dict):
        return [name for item in value.values() for name in _flatten_references(item)]
    if isinstance(value, list):
        if value and isinstance(value[0], str):
            return [value[0]]
        return [name for item in value if isinstance(item, list | dict) for name in _flatten_references(item)]
    return []


def _inputs(inner: dict[str, Any], nesting: int = 0) -> tuple[TensorSpec, ...]:
    found: dict[str, TensorSpec] = {}
    layers = _layers(inner)
    for layer in layers:
        if layer.get("class_name") != "InputLayer":
            continue
        tensor = _input_tensor(layer)
        if tensor is None:
            return ()
        found[tensor.name] = tensor
    if not found and layers and "output_layers" not in inner:
        return _inputs_without_layer(inner, layers[0], nesting)
    order = _flatten_references(inner.get("input_layers"))
    if order and all(name in found for name in order):
        return tuple(found[name] for name in order)
    return tuple(found.values())


def _inputs_without_layer(inner: dict[str, Any], first: dict[str, Any], nesting: int) -> tuple[TensorSpec, ...]:
    """The input of a Sequential model that has no layer for it."""
    if (shape := shape_of(inner.get("build_input_shape"))) is not None:
        return (TensorSpec("input", "float32", shape),)
    if first.get("class_name") in _MODELS:
        return _inputs(_inner(first), nesting + 1) if nesting < MAX_NESTING else ()
    tensor = _input_tensor(first)
    return () if tensor is None else (TensorSpec(f"{tensor.name}_input", tensor.dtype, tensor.shape),)


def _input_tensor(layer: dict[str, Any]) -> TensorSpec | None:
    settings = _dict(layer.get("config"))
    shape = shape_of(settings.get("batch_shape") or settings.get("batch_input_shape"))
    if shape is None:
        return None
    dtype = settings.get("dtype")
    # A policy such as mixed_float16 is no dtype; what such a layer takes is float32.
    known = isinstance(dtype, str) and not dtype.startswith("mixed_")
    return TensorSpec(_name(layer), "str" if dtype == "string" else str(dtype) if known else "float32", shape)


def _outputs(inner: dict[str, Any], nesting: int = 0) -> tuple[tuple[TensorSpec, ...], str, str]:
    """Output tensors, activation and its key, where the one output ends in a Dense layer."""
    layers = _layers(inner)
    names = _flatten_references(inner.get("output_layers")) if "output_layers" in inner else []
    if not layers or len(names) > 1 or nesting > MAX_NESTING:
        return (), "", ""
    positions = {_name(layer): i for i, layer in enumerate(layers)}
    at: int | None = positions.get(names[0]) if names else len(layers) - 1
    first_name, activation, key = "", "", ""
    kept: tuple[int, ...] | None = None  # the shape of an output whose last layers keep it
    for _ in range(len(layers)):
        if at is None or at < 0:
            break
        layer, settings = layers[at], _dict(layers[at].get("config"))
        class_name = str(layer.get("class_name"))
        first_name = first_name or _name(layer)
        if class_name in _MODELS:
            outputs, inner_activation, inner_key = _outputs(_inner(layer), nesting + 1)
            nested = f"layers[{at}] {inner_key}" if inner_key else ""
            renamed = tuple(TensorSpec(first_name, t.dtype, t.shape) for t in outputs)
            return renamed, activation or inner_activation, key or nested
        here = _activation(class_name, settings)
        if not activation and here in _SQUASHING:
            activation, key = here, f"layers[{at}] {class_name} {here}"
        if class_name == "Dense":
            shape = _shape_after(inner, at, 0)
            if shape is None:
                break
            key = key or f"layers[{at}] Dense {here or 'activation'}"
            activation = activation or ("none" if here == "linear" else "")
            return (TensorSpec(first_name, "float32", shape),), activation, key
        if class_name not in _KEEP_SHAPE and class_name != "TFOpLambda":
            break
        if class_name == "TFOpLambda" and here not in _SQUASHING:
            break
        previous, shape = _inbound(layer)
        kept = kept or shape
        at = positions.get(previous) if "output_layers" in inner else at - 1
    if kept is not None and key:
        return (TensorSpec(first_name, "float32", kept),), activation, key
    return (), activation, key


def _shape_after(inner: dict[str, Any], at: int, chain: int) -> tuple[int, ...] | None:
    """The shape of what layer ``at`` gives, -1 also for what is not known of it; None where not even the number of
    dimensions is. Only layers that make rows or keep them are followed."""
    layers = _layers(inner)
    layer, settings = layers[at], _dict(layers[at].get("config"))
    class_name = str(layer.get("class_name"))
    if class_name == "InputLayer":
        tensor = _input_tensor(layer)
        return None if tensor is None else tensor.shape
    if class_name in _TO_ROWS:
        return None if settings.get("keepdims") else (-1, -1)
    if class_name in _MODELS:
        nested = _layers(_inner(layer))
        if not nested or chain >= MAX_CHAIN:
            return None
        last = {_name(n): i for i, n in enumerate(nested)}
        ends = _flatten_references(_inner(layer).get("output_layers"))
        end = last.get(ends[0]) if len(ends) == 1 else len(nested) - 1 if not ends else None
        return None if end is None else _shape_after(_inner(layer), end, chain + 1)
    if class_name != "Dense" and class_name not in _KEEP_SHAPE and not _keeps(layer, settings):
        return None
    before = shape_of(_dict(layer.get("build_config")).get("input_shape")) or shape_of(
        settings.get("batch_input_shape")
    )
    if before is None and chain < MAX_CHAIN:
        previous = _previous(inner, layers, at)
        before = None if previous is None else _shape_after(inner, previous, chain + 1)
    if before is None or class_name != "Dense":
        return before
    units = settings.get("units", settings.get("output_dim"))
    if not isinstance(units, int) or isinstance(units, bool) or not 0 < units < 1 << 31:
        return None
    return (*before[:-1], units)


def _keeps(layer: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether a TFOpLambda keeps the shape of its one tensor."""
    nodes = layer.get("inbound_nodes")
    node = nodes[0] if isinstance(nodes, list) and nodes else None
    if layer.get("class_name") != "TFOpLambda" or settings.get("function") not in _TENSORFLOW_KEEPS:
        return False
    arguments = _dict(node[3]) if isinstance(node, list) and len(node) == 4 else {"y": None}
    return isinstance(arguments.get("y", 0), int | float)


def _previous(inner: dict[str, Any], layers: list[dict[str, Any]], at: int) -> int | None:
    """The one layer before layer ``at``."""
    if "output_layers" not in inner:
        return at - 1 if at else None
    name = _inbound(layers[at])[0]
    found = next((i for i, layer in enumerate(layers) if _name(layer) == name), None)
    return found if name else None


def _activation(class_name: str, settings: dict[str, Any]) -> str:
    if class_name in ("Softmax", "Sigmoid"):
        return class_name.lower()
    if class_name == "TFOpLambda":
        return _TENSORFLOW_SQUASHING.get(str(settings.get("function")), "")
    value = settings.get("activation")
    if isinstance(value, dict):
        value = value.get("config") if value.get("class_name") == "function" else value.get("class_name")
    return value.lower() if isinstance(value, str) else ""


def _inbound(layer: dict[str, Any]) -> tuple[str, tuple[int, ...] | None]:
    """The layer whose output a one-input layer takes, and the shape of that output where it is stated."""
    nodes = layer.get("inbound_nodes")
    node = nodes[0] if isinstance(nodes, list) and nodes else {}
    if isinstance(node, list):
        names = _flatten_references(node)
        return (names[0] if len(names) == 1 else ""), None
    arguments = _dict(node).get("args")
    first = _dict(arguments[0]) if isinstance(arguments, list) and arguments else {}
    tensor = _dict(first.get("config"))
    history = tensor.get("keras_history")
    return (str(history[0]) if isinstance(history, list) and history else ""), shape_of(tensor.get("shape"))


def _scaling(inner: dict[str, Any], prefix: str, nesting: int) -> tuple[str, str]:
    """The value range the model scales itself, looked for in the layers before the first that computes."""
    if nesting > MAX_NESTING:
        return "", ""
    for at, layer in enumerate(_layers(inner)):
        class_name, settings = str(layer.get("class_name")), _dict(layer.get("config"))
        key = f"{prefix}layers[{at}] {class_name}"
        if class_name == "Rescaling":
            return _range_of(settings.get("scale"), settings.get("offset")), key
        divides = class_name == "TFOpLambda" and settings.get("function") == "math.truediv"
        if divides or class_name in ("Normalization", "TrueDivide", "Divide"):
            return ("0..255" if class_name == "Normalization" else _divided(layer)), key
        if class_name in _MODELS:
            nested = _inner(layer)
            found = _scaling(nested, f"{prefix}layers[{at}].", nesting + 1)
            if found[0] or any(str(n.get("class_name")) not in _BEFORE_COMPUTING for n in _layers(nested)):
                return found
        elif class_name not in _BEFORE_COMPUTING:
            return "", ""
    return "", ""


def _first_number(value: Any) -> float | None:
    value = value[0] if isinstance(value, list) and value else value
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _range_of(scale: Any, offset: Any) -> str:
    """The range that ``x * scale + offset`` brings to 0..1 or -1..1; 0..255 where it brings none there."""
    factor, shift = _first_number(scale), _first_number(offset)
    if not factor or shift is None or factor < 0:
        return "0..255"
    if abs(shift) < 1e-6:
        top = 1.0 / factor
    elif abs(shift + 1.0) < 1e-6:
        top = 2.0 / factor
    else:
        return "0..255"
    whole = round(top) if top < 1e6 else 255
    return f"0..{whole}" if whole >= 1 and abs(top - whole) < 0.01 * whole else "0..255"


def _divided(layer: dict[str, Any]) -> str:
    """``0..255`` where a layer divides by what brings that range to 0..1 or 0..2."""
    nodes = layer.get("inbound_nodes")
    node = nodes[0] if isinstance(nodes, list) and nodes else None
    arguments = _dict(node).get("args")
    divisor = _first_number(arguments[1]) if isinstance(arguments, list) and len(arguments) > 1 else None
    if isinstance(node, list) and node and isinstance(node[0], list):
        node = node[0]
    if isinstance(node, list) and len(node) == 4:
        divisor = _first_number(_dict(node[3]).get("y"))
    return "0..255" if divisor in (255.0, 127.5) else ""
