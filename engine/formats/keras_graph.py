"""What the ``config.json`` of a Functional or Sequential model tells about its inputs, its output and its scaling.

Follows Keras' serialised form (keras/src/models/functional.py and sequential.py, ``get_config``): layers in order,
``inbound_nodes`` with ``keras_history``, ``input_layers`` and ``output_layers``, ``build_config.input_shape``.
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
MAX_NESTING = 16


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


def read_graph(config: dict[str, Any]) -> GraphFacts:
    """Facts of a parsed ``config.json``; of a model that is neither Functional nor Sequential, none."""
    if config.get("class_name") not in _MODELS:
        return GraphFacts()
    inner = _dict(config.get("config"))
    outputs, activation, output_key = _outputs(inner)
    scaling, scaling_key = _scaling(inner, "", 0)
    return GraphFacts(_inputs(inner), outputs, activation, output_key, scaling, scaling_key)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


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


def _inputs(inner: dict[str, Any]) -> tuple[TensorSpec, ...]:
    found: dict[str, TensorSpec] = {}
    for layer in _layers(inner):
        if layer.get("class_name") != "InputLayer":
            continue
        settings = _dict(layer.get("config"))
        shape = shape_of(settings.get("batch_shape") or settings.get("batch_input_shape"))
        if shape is None:
            return ()
        dtype = settings.get("dtype")
        dtype = "str" if dtype == "string" else dtype if isinstance(dtype, str) else "float32"
        found[_name(layer)] = TensorSpec(_name(layer), dtype, shape)
    if not found and (shape := shape_of(inner.get("build_input_shape"))) is not None:
        return (TensorSpec("input", "float32", shape),)
    order = _flatten_references(inner.get("input_layers"))
    if order and all(name in found for name in order):
        return tuple(found[name] for name in order)
    return tuple(found.values())


def _outputs(inner: dict[str, Any], nesting: int = 0) -> tuple[tuple[TensorSpec, ...], str, str]:
    """Output tensors, activation and its key, where the one output ends in a Dense layer."""
    layers = _layers(inner)
    names = _flatten_references(inner.get("output_layers")) if "output_layers" in inner else []
    if not layers or len(names) > 1 or nesting > MAX_NESTING:
        return (), "", ""
    positions = {_name(layer): i for i, layer in enumerate(layers)}
    at: int | None = positions.get(names[0]) if names else len(layers) - 1
    functional = "output_layers" in inner
    first_name, activation, key = "", "", ""
    kept: tuple[int, ...] | None = None  # the shape of an output whose last layers keep it
    for _ in range(len(layers)):
        if at is None or at < 0:
            break
        layer, settings = layers[at], _dict(layers[at].get("config"))
        class_name = str(layer.get("class_name"))
        first_name = first_name or _name(layer)
        if class_name in _MODELS:
            outputs, inner_activation, inner_key = _outputs(settings, nesting + 1)
            nested = f"config.json: layers[{at}] {inner_key.removeprefix('config.json: ')}" if inner_key else ""
            renamed = tuple(TensorSpec(first_name, t.dtype, t.shape) for t in outputs)
            return renamed, activation or inner_activation, key or nested
        here = _activation(class_name, settings)
        if not activation and here in _SQUASHING:
            activation, key = here, f"config.json: layers[{at}] {class_name} {here}"
        if class_name == "Dense":
            shape, units = shape_of(_dict(layer.get("build_config")).get("input_shape")), settings.get("units")
            if shape is None or not isinstance(units, int) or not 0 < units < 1 << 31:
                break
            key = key or f"config.json: layers[{at}] Dense {here or 'activation'}"
            activation = activation or ("none" if here == "linear" else "")
            return (TensorSpec(first_name, "float32", (*shape[:-1], units)),), activation, key
        if class_name not in _KEEP_SHAPE:
            break
        previous, shape = _inbound(layer)
        kept = kept or shape
        at = positions.get(previous) if functional else at - 1
    if kept is not None and key:
        return (TensorSpec(first_name, "float32", kept),), activation, key
    return (), activation, key


def _activation(class_name: str, settings: dict[str, Any]) -> str:
    if class_name in ("Softmax", "Sigmoid"):
        return class_name.lower()
    value = settings.get("activation")
    if isinstance(value, dict):
        value = value.get("config") if value.get("class_name") == "function" else value.get("class_name")
    return value.lower() if isinstance(value, str) else ""


def _inbound(layer: dict[str, Any]) -> tuple[str, tuple[int, ...] | None]:
    """The layer whose output a one-input layer takes, and the shape of that output."""
    nodes = layer.get("inbound_nodes")
    node = _dict(nodes[0]) if isinstance(nodes, list) and nodes else {}
    arguments = node.get("args")
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
            return _range_of(settings.get("scale"), settings.get("offset")), f"config.json: {key}"
        if class_name in ("Normalization", "TrueDivide", "Divide"):
            return ("0..255" if class_name == "Normalization" else _divided(layer)), f"config.json: {key}"
        if class_name in _MODELS:
            found = _scaling(settings, f"{prefix}layers[{at}].", nesting + 1)
            if found[0] or any(str(n.get("class_name")) not in _BEFORE_COMPUTING for n in _layers(settings)):
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
    nodes = layer.get("inbound_nodes")
    arguments = _dict(nodes[0]).get("args") if isinstance(nodes, list) and nodes else None
    divisor = _first_number(arguments[1]) if isinstance(arguments, list) and len(arguments) > 1 else None
    return "0..255" if divisor in (255.0, 127.5) else ""
