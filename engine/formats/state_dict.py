"""Weights without their model: ``torch.save(model.state_dict())`` and safetensors files.

``torch.save`` writes a zip with ``data.pkl`` and ``data/`` below one folder (torch/serialization.py); its pickle is
read opcode by opcode and must hold tensors and plain values only. The model they belong to comes from a transformers
``config.json`` beside the file (class *data*), or from a Python class the sidecar names (class *program*).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from engine.errors import ModelRefused, SidecarInvalid
from engine.formats import hugging_face
from engine.formats.container import LOCAL_HEADER, ZipContainer
from engine.formats.disk import read_bounded, read_head
from engine.formats.safetensors_file import read_tensors
from engine.formats.safetensors_file import recognise as is_safetensors
from engine.formats.torch_files import archive_root
from engine.formats.torch_weights import EXPECTED, check_torch_weights
from engine.model_spec import ASSUMED, SIDECAR, ModelSpec, TrustClass

NAME = "state_dict"
RUNTIME = "state_dict"
MAX_CODE = 16 << 20
_ARCHITECTURE = re.compile(r"((?:[^/\\:\x00-\x1f]+/)*[^/\\:\x00-\x1f]+\.py):([A-Za-z_]\w*)", re.ASCII)


def recognise(path: Path) -> bool:
    """A safetensors file, or a zip of ``torch.save`` that holds no TorchScript code."""
    if is_safetensors(path):
        return True
    if not path.is_file() or read_head(path, 4) != LOCAL_HEADER or path.suffix.lower() == ".keras":
        return False
    with ZipContainer(path, EXPECTED) as container:
        names = container.names
    root = archive_root(names)
    return root is not None and f"{root}/data.pkl" in names and f"{root}/constants.pkl" not in names


def describe(path: Path) -> ModelSpec:
    """The weights, and the model a ``config.json`` beside them names; ``architecture`` is "" where there is none.

    Raises ModelCorrupt, ModelRefused, ModelUnreadable.
    """
    if is_safetensors(path):
        count = len(read_tensors(path))
        how = f"{path.name}: {count} tensors in its header"
    else:
        check_torch_weights(path)
        how = f"{path.name}: data.pkl"
    config = path.parent / hugging_face.CONFIG
    if hugging_face.names_a_model(config):
        spec = hugging_face.describe_with(path.parent, (path,))
        evidence = spec.evidence | {"format": how}
        return replace(spec, path=path, model_file=path, format=NAME, evidence=evidence)
    return ModelSpec(
        path=path,
        model_file=path,
        format=NAME,
        runtime=RUNTIME,
        task="raw-tensors",
        trust_class=TrustClass.DATA,
        files=(path,),
        evidence={"format": how, "runtime": how},
    )


def with_architecture(spec: ModelSpec) -> ModelSpec:
    """``spec`` with the class the sidecar names: its file joins those that consent is bound to.

    Raises ModelRefused where nothing names a class; SidecarInvalid where the class cannot be one, or where the model
    is none that takes one.
    """
    stated = spec.evidence.get("architecture", ASSUMED) == SIDECAR
    if not stated:
        if spec.format == NAME and not spec.architecture:
            raise ModelRefused(
                f"{spec.model_file.name} holds weights, but not the model they belong to. Put its config.json beside "
                'it, or name its class in deskside.toml (architecture = "my_model.py:MyModel").'
            )
        if spec.architecture_kwargs:
            raise SidecarInvalid(
                f"The sidecar of {spec.model_file.name}: architecture_kwargs: architecture is missing."
            )
        return spec
    if spec.format != NAME:
        raise SidecarInvalid(
            f"The sidecar of {spec.model_file.name}: architecture: only weights alone take a class, and "
            f"{spec.model_file.name} is a model by itself."
        )
    code = code_file(spec)
    read_bounded(code, MAX_CODE)
    return replace(
        spec,
        runtime=RUNTIME,
        trust_class=TrustClass.PROGRAM,
        files=(spec.model_file, code),
        evidence=spec.evidence | {"runtime": SIDECAR},
    )


def code_file(spec: ModelSpec) -> Path:
    """The Python file of ``spec.architecture``, in the model's folder or below it. Raises SidecarInvalid."""
    match = _ARCHITECTURE.fullmatch(spec.architecture)
    folder = spec.model_file.parent
    wanted = 'a Python file in the model\'s folder and a class in it, as "my_model.py:MyModel"'
    if match is None or ".." in match[1].split("/"):
        raise SidecarInvalid(f"The sidecar of {spec.model_file.name}: architecture: expected {wanted}.")
    code = (folder / match[1]).resolve()
    if not code.is_relative_to(folder.resolve()) or not code.is_file():
        raise SidecarInvalid(
            f"The sidecar of {spec.model_file.name}: architecture: {match[1]} is not there; expected {wanted}."
        )
    return code
