"""What every file of Keras has in common: a model's config as JSON, and the version of Keras that wrote it.

Keras 3 refuses many files of Keras 2 (layers that take other arguments, ``batch_input_shape``, operations written as
TFOpLambda), so those are opened with Keras 2 itself, as the ``tf_keras`` package keeps it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.formats.guesses import picture_of
from engine.formats.keras_graph import GraphFacts, read_graph
from engine.model_spec import ModelSpec, Postprocessing, Preprocessing, TrustClass

MAX_CONFIG = 64 << 20
MAX_NESTING = 200


@dataclass(frozen=True, slots=True)
class WrittenBy:
    """The version of Keras in a file, as text; ``stated_in`` is the key it was read from."""

    version: str
    stated_in: str

    @property
    def is_legacy(self) -> bool:
        """Whether Keras 2 or older wrote the file; files from before the version was stored are that old."""
        major = self.version.partition(".")[0]
        return not major.isdigit() or int(major) < 3

    @property
    def runtime(self) -> str:
        return "keras_legacy" if self.is_legacy else "keras"

    @property
    def evidence(self) -> dict[str, str]:
        stated = f"{self.stated_in} keras_version {self.version[:20] or 'not stated'}"
        how = ", opened with tf_keras, which is Keras 2" if self.is_legacy else ""
        return {"format": stated, "runtime": stated + how}


def parse_config(text: bytes | str) -> dict[str, Any]:
    """A JSON object. Raises ValueError, the rest of a sentence ("is not JSON")."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("is not JSON") from error
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    if _depth_exceeds(value, MAX_NESTING):
        raise ValueError("is nested too deeply")
    return value


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def spec_of_config(
    path: Path, name: str, config: dict[str, Any], where: str, written_by: WrittenBy, trust_class: TrustClass
) -> ModelSpec:
    """The spec of the file at ``path`` in the format ``name``, with all its config tells; ``where`` begins its keys
    ("config.json:")."""
    facts = read_graph(config, where)
    spec = ModelSpec(
        path=path,
        model_file=path,
        format=name,
        runtime=written_by.runtime,
        task="raw-tensors",
        trust_class=trust_class,
        inputs=facts.inputs,
        outputs=facts.outputs,
        files=(path,),
        evidence=written_by.evidence,
    )
    return _with_facts(spec, facts, where)


def _with_facts(spec: ModelSpec, facts: GraphFacts, where: str) -> ModelSpec:
    evidence = dict(spec.evidence)
    if facts.inputs:
        evidence["inputs"] = f"{where} batch_shape"
    if facts.outputs:
        evidence["outputs"] = facts.output_key
    if facts.output_activation in ("softmax", "sigmoid"):
        # The model has applied it already; applying it again would flatten every score.
        evidence["postprocessing.activation"] = facts.output_key
    elif facts.output_activation == "none" and facts.outputs:
        activation = "sigmoid" if facts.outputs[0].shape[-1] == 1 else "softmax"
        spec = replace(spec, postprocessing=Postprocessing(activation=activation))
        evidence["postprocessing.activation"] = facts.output_key
    if facts.scaling and len(facts.inputs) == 1 and picture_of(facts.inputs[0]) is not None:
        spec = replace(spec, preprocessing=Preprocessing(scaling=facts.scaling))
        evidence["preprocessing.scaling"] = facts.scaling_key
    return replace(spec, evidence=evidence)
