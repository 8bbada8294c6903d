"""What can be opened, as data: a row for each source a model comes from, the rows of docs/model-formats.md.

Tests hold each row against the formats, suffixes and runtimes there are, and against the models the formats suite
opens.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.formats import (
    bioimage_io,
    hugging_face,
    keras,
    keras_h5,
    litert,
    onnx_model,
    saved_model,
    state_dict,
    torch_export,
    torch_files,
)
from engine.model_spec import TrustClass

DATA, PROGRAM = TrustClass.DATA, TrustClass.PROGRAM


@dataclass(frozen=True, slots=True)
class FormatFacts:
    """One source. ``cases`` begin the names that cases of the formats suite give their source.

    ``opened`` says what a person opens, ``suffixes`` are those of single files among it. ``reads`` is what is read from
    the file and its neighbours. ``formats``, ``runtimes`` and ``trust`` are what ``ModelSpec`` then says; ``why`` tells
    what decides the trust class and what is refused.
    """

    source: str
    opened: str
    suffixes: tuple[str, ...]
    reads: str
    formats: tuple[str, ...]
    trust: tuple[TrustClass, ...]
    why: str
    runtimes: tuple[str, ...]
    cases: tuple[str, ...]


FACTS = (
    FormatFacts(
        source="Keras `.keras`",
        opened="the file, of Keras 3 or of the last releases of Keras 2",
        suffixes=(".keras",),
        reads="`config.json`: inputs, outputs, the last activation, a Rescaling or Normalization layer in the model; "
        "`metadata.json`: the version of Keras",
        formats=(keras.NAME,),
        trust=(DATA,),
        why="refused where the config names anything but Keras' own layers, a Lambda layer or a file to read",
        runtimes=("keras", "keras_legacy"),
        cases=("Keras `.keras`",),
    ),
    FormatFacts(
        source="Keras/TF `.h5`",
        opened="the file, or the folder of it and `labels.txt` (Teachable Machine)",
        suffixes=(".h5", ".hdf5"),
        reads="`model_config`: as of `.keras`; `keras_version`; `labels.txt`; for Teachable Machine's export its "
        "published preparation (224 pixels, x / 127.5 - 1)",
        formats=(keras_h5.NAME,),
        trust=(PROGRAM,),
        why="the file may hold Python code; refused: weights alone, links to other files",
        runtimes=("keras", "keras_legacy"),
        cases=("Keras/TF `.h5`",),
    ),
    FormatFacts(
        source="TensorFlow SavedModel",
        opened="the folder, with Lobe's `signature.json` or without",
        suffixes=(),
        reads="every signature's names, types and shapes; of Lobe's file the classes and the picture's size",
        formats=(saved_model.NAME,),
        trust=(PROGRAM,),
        why="refused where the graph, a function or the initialiser holds an operation that does more than compute",
        runtimes=("saved_model",),
        cases=("TensorFlow SavedModel",),
    ),
    FormatFacts(
        source="LiteRT `.tflite`",
        opened="the file",
        suffixes=(".tflite",),
        reads="tensors, quantisation, the embedded metadata and its label file, `labels.txt`",
        formats=(litert.NAME,),
        trust=(DATA, PROGRAM),
        why="*data* where all operators are LiteRT's own; *program* with custom or TensorFlow operators",
        runtimes=("litert",),
        cases=("LiteRT `.tflite`",),
    ),
    FormatFacts(
        source="TorchScript `.pt`, `.torchscript`",
        opened="the file",
        suffixes=(".pt", ".torchscript"),
        reads="the extra files (Ultralytics' `config.txt`: task, names, size, stride); a traced graph carries no input "
        "shape, which is then said to be assumed",
        formats=(torch_files.NAME,),
        trust=(PROGRAM,),
        why="refused: pickled Python objects, and pickles as PyTorch wrote them before 1.6",
        runtimes=("torchscript",),
        cases=("TorchScript",),
    ),
    FormatFacts(
        source="`torch.export` `.pt2`",
        opened="the file; AOTInductor packages are told apart by what they hold",
        suffixes=(".pt2",),
        reads="the signature: names, types, shapes, free dimensions",
        formats=(torch_export.NAME, torch_export.AOT_NAME),
        trust=(PROGRAM,),
        why="an AOTInductor package is native code; refused: pickles in it that hold more than tensors, code for "
        "another machine",
        runtimes=("torch_export", "aot_inductor"),
        cases=("`torch.export` `.pt2`", "AOTInductor `.pt2`"),
    ),
    FormatFacts(
        source="Hugging Face folder",
        opened="the folder, its `config.json` or its weights",
        suffixes=(),
        reads="`config.json`: the task from the architecture, `id2label`; `preprocessor_config.json`: size, mean, "
        "standard deviation; the tokenizer's files; the header of the weights",
        formats=(hugging_face.NAME,),
        trust=(DATA,),
        why="refused: Python code in the folder, architectures transformers does not have, weights that are pickled "
        "objects",
        runtimes=("transformers",),
        cases=("Hugging Face folder",),
    ),
    FormatFacts(
        source="State dict `.pth`, `.pt`, `.safetensors`",
        opened="the file, beside a transformers `config.json` or with a class named in the sidecar",
        suffixes=(".pth", ".pt", ".safetensors"),
        reads="the names and shapes in the header; otherwise as of a Hugging Face folder",
        formats=(state_dict.NAME,),
        trust=(DATA, PROGRAM),
        why="*program* with a class of the owner's own; refused: weights without their model, pickled objects",
        runtimes=("transformers", "state_dict"),
        cases=("state dict",),
    ),
    FormatFacts(
        source="ONNX `.onnx`",
        opened="the file, with its external data beside it",
        suffixes=(".onnx",),
        reads="inputs, outputs, `metadata_props` (Ultralytics': task, names, size)",
        formats=(onnx_model.NAME,),
        trust=(DATA,),
        why="refused: operations that need a library of their own, external data outside the folder",
        runtimes=("onnxruntime",),
        cases=("ONNX",),
    ),
    FormatFacts(
        source="BioImage.IO package",
        opened="the unpacked folder of `rdf.yaml` with TorchScript, ONNX or Keras weights",
        suffixes=(),
        reads="axes, pre- and postprocessing, test inputs and outputs",
        formats=(bioimage_io.NAME,),
        trust=(DATA, PROGRAM),
        why="that of its weights",
        runtimes=("torchscript", "onnxruntime", "keras", "keras_legacy"),
        cases=("BioImage.IO package",),
    ),
)
"""In the order of the document."""


def facts_of(source: str) -> FormatFacts:
    """The row a case of the formats suite stands for. Raises KeyError where there is none."""
    for facts in FACTS:
        if source.startswith(facts.cases):
            return facts
    raise KeyError(source)
