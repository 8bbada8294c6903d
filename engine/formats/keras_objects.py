"""What a ``config.json`` of Keras may name: pure computation only, checked before Keras sees the file.

Keras builds a model by looking up every ``class_name`` in its ``module``; each of its past holes was one more thing
that could be named there (CVE-2024-3660, CVE-2025-1550, -8747, -9906, -12058, -49655). Hence a list of what is
allowed, not of what is forbidden. Names as exported by Keras 3.15; an unknown one is refused, never tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LAYERS = _names(
    """Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
    AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention AugMix
    AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization Bidirectional
    CategoryEncoding CenterCrop Concatenate ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D
    Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D Cropping3D CutMix
    Dense DepthwiseConv1D DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense Embedding Equalization Flatten
    GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention HashedCrossing
    Hashing Identity InputLayer IntegerLookup LSTM LSTMCell LayerNormalization LeakyReLU Masking MaxNumBoundingBoxes
    MaxPooling1D MaxPooling2D MaxPooling3D Maximum MelSpectrogram Minimum MixUp MultiHeadAttention Multiply
    Normalization PReLU Permute Pipeline RMSNormalization RNN RandAugment RandomBrightness RandomColorDegeneration
    RandomColorJitter RandomContrast RandomCrop RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur
    RandomGrayscale RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation
    RandomSharpness RandomShear RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape Resizing
    ReversibleEmbedding STFTSpectrogram SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell Softmax Solarization
    SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells StringLookup Subtract
    TextVectorization TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D
    ZeroPadding2D ZeroPadding3D"""
)
_INITIALIZERS = _names(
    """Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity LecunNormal LecunUniform Ones
    Orthogonal RandomNormal RandomUniform STFT TruncatedNormal VarianceScaling
    Zeros"""
)
_REGULARIZERS = _names("L1 L1L2 L2 OrthogonalRegularizer")
_CONSTRAINTS = _names("MaxNorm MinMaxNorm NonNeg UnitNorm")
_DTYPE_POLICIES = _names(
    """DTypePolicy DTypePolicyMap FloatDTypePolicy GPTQDTypePolicy Int4DTypePolicy QuantizedDTypePolicy
    QuantizedFloat8DTypePolicy AWQDTypePolicy"""
)
_MODELS = _names("Functional Sequential")
_ACTIVATIONS = _names(
    """celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear
    log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus
    sparse_sigmoid sparsemax squareplus swish tanh tanh_shrink threshold"""
)
_NUMPY_OPERATIONS = _names(
    """Abs Absolute Add All Amax Amin Any Append Arange Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh Argmax
    Argmin Argsort Average Bincount BitwiseAnd BitwiseInvert BitwiseNot BitwiseOr BitwiseXor BroadcastTo Cbrt Ceil Clip
    Concatenate Conj Conjugate Copy Cos Cosh CountNonzero Cross Cumprod Cumsum Deg2rad Diag Diagonal Diff Digitize
    Divide DivideNoNan Dot Einsum Equal Exp Exp2 ExpandDims Expm1 Flip Floor FloorDivide Full FullLike GetItem Greater
    GreaterEqual Hstack Imag Inner Isclose Isfinite Isinf Isnan Less LessEqual Linspace Log Log10 Log1p Log2 Logaddexp
    LogicalAnd LogicalNot LogicalOr LogicalXor Matmul Max Maximum Mean Median Meshgrid Min Minimum Mod Moveaxis Multiply
    NanToNum Ndim Negative Nonzero NotEqual OnesLike Outer Pad Power Prod Quantile Ravel Real Reciprocal Repeat Reshape
    Roll Rot90 Round Sign Sin Sinh Size Sort Split Sqrt Square Squeeze Stack Std Subtract Sum Swapaxes Take
    TakeAlongAxis Tan Tanh Tensordot Tile Trace Transpose Tril Triu TrueDivide Trunc Var Vdot Vstack Where
    ZerosLike"""
)
_NN_OPERATIONS = _names(
    """AdaptiveAveragePool AdaptiveMaxPool AveragePool BatchNorm Celu Conv ConvTranspose DepthToSpace DepthwiseConv
    DotProductAttention Elu Fold Gelu Glu HardShrink HardSigmoid HardSilu HardTanh LayerNorm LeakyRelu LogSigmoid
    LogSoftmax MaxPool Moments MultiHot Normalize OneHot RMSNorm Relu Relu6 Selu SeparableConv Sigmoid Silu SoftShrink
    Softmax Softplus Softsign SpaceToDepth SparsePlus SparseSigmoid Sparsemax Squareplus TanhShrink Threshold
    Unfold"""
)
_MATH_OPERATIONS = _names(
    """Erf Erfc Erfinv ExtractSequences FFT FFT2 IFFT2 IRFFT ISTFT Logsumexp RFFT Rsqrt STFT SegmentMax SegmentMin
    SegmentProd SegmentSum TopK"""
)
_IMAGE_OPERATIONS = _names("CropImages ExtractPatches HSVToRGB PadImages RGBToGrayscale RGBToHSV Resize")
_LINALG_OPERATIONS = _names("Cholesky Det Inv Norm Qr Solve SolveTriangular SVD")
# Map, Scan, Cond, WhileLoop and their kin take functions and are left out.
_CORE_OPERATIONS = _names(
    "Cast ConvertToTensor SaturateCast Scatter ScatterUpdate Slice SliceUpdate StopGradient Unstack"
)

ALLOWED: dict[str, frozenset[str]] = {
    "keras": _MODELS | {"DTypePolicy", "DTypePolicyMap", "FloatDTypePolicy"},
    "keras.models": _MODELS,
    "keras.src.models.functional": frozenset({"Functional"}),
    "keras.src.models.sequential": frozenset({"Sequential"}),
    "keras.layers": _LAYERS,
    "keras.initializers": _INITIALIZERS,
    "keras.regularizers": _REGULARIZERS,
    "keras.constraints": _CONSTRAINTS,
    "keras.dtype_policies": _DTYPE_POLICIES,
    "keras.random": frozenset({"SeedGenerator"}),
    "keras.src.random.seed_generator": frozenset({"SeedGenerator"}),
    "keras.src.applications.convnext": frozenset({"LayerScale", "StochasticDepth"}),
    "keras.src.ops.numpy": _NUMPY_OPERATIONS,
    "keras.src.ops.nn": _NN_OPERATIONS,
    "keras.src.ops.math": _MATH_OPERATIONS,
    "keras.src.ops.image": _IMAGE_OPERATIONS,
    "keras.src.ops.linalg": _LINALG_OPERATIONS,
    "keras.src.ops.core": _CORE_OPERATIONS,
}
"""Module, as Keras writes it -> classes that may be named in it."""

_TENSORFLOW_FUNCTIONS = _names(
    """__operators__.add __operators__.getitem __operators__.ne abs broadcast_to cast clip_by_value concat cos exp
    expand_dims gather identity image.resize linalg.matmul linalg.l2_normalize math.abs math.add math.ceil math.cos
    math.divide math.divide_no_nan math.equal math.erf math.exp math.floor math.greater math.l2_normalize math.less
    math.log math.log1p math.logical_and math.logical_not math.logical_or math.maximum math.minimum math.multiply
    math.negative math.not_equal math.pow math.reciprocal math.reduce_max math.reduce_mean math.reduce_min
    math.reduce_prod math.reduce_std math.reduce_sum math.reduce_variance math.round math.rsqrt math.sigmoid math.sign
    math.sin math.softplus math.sqrt math.square math.squared_difference math.subtract math.tanh math.truediv matmul
    nn.avg_pool nn.avg_pool2d nn.bias_add nn.conv2d nn.crelu nn.depth_to_space nn.elu nn.gelu nn.l2_normalize
    nn.leaky_relu nn.log_softmax nn.max_pool nn.max_pool2d nn.relu nn.relu6 nn.selu nn.sigmoid nn.silu nn.softmax
    nn.softplus nn.softsign nn.space_to_depth nn.swish nn.tanh one_hot ones_like pad repeat reshape reverse shape split
    squeeze stack stop_gradient strided_slice sqrt square tanh tile transpose unstack where zeros_like"""
)
"""What a TFOpLambda layer of Keras 2 may call, below ``tf.``: computation on tensors, no files, no Python."""
_LEGACY_LAYERS = _LAYERS | _names(
    "CuDNNGRU CuDNNLSTM LocallyConnected1D LocallyConnected2D RandomHeight RandomWidth SyncBatchNormalization "
    "ThresholdedReLU"
)
LEGACY_ALLOWED: dict[str, frozenset[str]] = {
    "keras": _MODELS,
    "keras.models": _MODELS,
    "keras.layers": _LEGACY_LAYERS,
    "keras.initializers": _INITIALIZERS,
    "keras.regularizers": _REGULARIZERS,
    "keras.constraints": _CONSTRAINTS,
    "keras.mixed_precision": frozenset({"Policy"}),
} | {
    f"{package}.{module}": classes
    for package in ("keras", "keras.src", "tf_keras.src")
    for module, classes in (
        ("engine.functional", frozenset({"Functional"})),
        ("engine.sequential", frozenset({"Sequential"})),
        ("layers.core.tf_op_layer", frozenset({"TFOpLambda", "SlicingOpLambda"})),
        ("applications.convnext", frozenset({"LayerScale", "StochasticDepth"})),
    )
}
"""The same for Keras 2, whose package has lain in three places (2.12, 2.13 to 2.15, tf_keras)."""

_VALUES = frozenset({"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"})
"""Names Keras uses for plain values."""
_WITHOUT_MODULE = _LAYERS | _INITIALIZERS | _REGULARIZERS | _CONSTRAINTS
_RUNS_CODE = frozenset({"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"})
_CALLS_TENSORFLOW = frozenset({"TFOpLambda", "SlicingOpLambda"})
_READS_FILES = {
    "StringLookup": ("vocabulary", "idf_weights"),
    "IntegerLookup": ("vocabulary", "idf_weights"),
    "TextVectorization": ("vocabulary", "idf_weights"),
}


def first_refusal(config: Any, *, legacy: bool = False) -> str | None:
    """Why a model's nested config is refused, as the rest of a sentence ("its layer …"), or None where all is allowed.

    ``legacy``: Keras 2 wrote it, and reads it. The model's own ``compile_config`` (optimizer, loss, metrics) is not
    looked at: the load never builds it.
    """
    if isinstance(config, dict):
        config = {key: value for key, value in config.items() if key != "compile_config"}
    for reference in _references(config):
        refusal = _refusal(reference, LEGACY_ALLOWED if legacy else ALLOWED)
        if refusal is not None:
            return refusal
    return None


def code_layer(config: Any) -> str | None:
    """The first layer of a config that carries Python code of its own ("twice (Lambda)"), or None."""
    for reference in _references(config):
        if reference.get("class_name") in _RUNS_CODE:
            return f"{_layer_name(reference.get('config')) or 'a layer'} ({str(reference['class_name']).strip('_')})"
    return None


def _references(config: Any) -> Iterator[dict[str, Any]]:
    """Every dict in ``config`` that Keras would take for an object, in the order of the file."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if "class_name" in value or "spec_name" in value:
                yield value
            pending.extend(reversed(value.values()))
        elif isinstance(value, list):
            pending.extend(reversed(value))


def _refusal(reference: dict[str, Any], known: dict[str, frozenset[str]]) -> str | None:
    class_name, inner = reference.get("class_name"), reference.get("config")
    module, registered = reference.get("module"), reference.get("registered_name")
    named = f"its layer {_shorten(_layer_name(inner) or class_name)}"
    if not isinstance(class_name, str):
        return "its description names an object that is not text"
    if class_name in _RUNS_CODE:
        return f"{named} ({class_name.strip('_')}) holds code of its own"
    if class_name == "function":
        if isinstance(inner, str) and inner in _ACTIVATIONS and module in (None, "builtins", "keras.activations"):
            return None
        return f"it needs the function {_shorten(inner)}, which is not part of Keras' own layers"
    if class_name in _VALUES and module is None:
        return None
    allowed = _WITHOUT_MODULE if module is None else known.get(module) if isinstance(module, str) else None
    if allowed is None or class_name not in allowed:
        return f"{named} ({_shorten(module or class_name)}) is not one of Keras' own, and its code is not in the file"
    if registered not in (None, class_name):
        return f"{named} is registered as {_shorten(registered)}, which is not part of Keras"
    if class_name in _CALLS_TENSORFLOW:
        function = inner.get("function") if isinstance(inner, dict) else None
        if not isinstance(function, str) or function not in _TENSORFLOW_FUNCTIONS:
            return f"{named} calls {_shorten(function)}, which is not known to be harmless"
    if isinstance(inner, dict):
        for key in _READS_FILES.get(class_name, ()):
            if isinstance(inner.get(key), str):
                return f"{named} ({class_name}) would read another file ({key})"
    return None


def _layer_name(inner: Any) -> str:
    name = inner.get("name") if isinstance(inner, dict) else None
    return name[:60] if isinstance(name, str) else ""


def _shorten(value: Any) -> str:
    return repr(str(value)[:60])
