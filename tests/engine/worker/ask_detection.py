"""Postprocessing of detectors in a process of its own, which may load ONNX Runtime: a line of JSON in, a line out.

``{"spec", "picture": [width, height], "raw": {name: nested list}, "params"}`` (and ``dtypes`` by name) ->
``{"answer"}`` or ``{"error": [code, message]}``; ``{"refused": message}`` where the task cannot be made.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from engine.errors import EngineError, LoadFailed
from engine.model_spec import ModelSpec
from engine.worker.tasks import create_task
from engine.worker.tasks.base import CONTEXT
from engine.worker.tasks.placement import place


def answer(question: dict[str, Any]) -> dict[str, Any]:
    spec = ModelSpec.from_json(question["spec"])
    try:
        task = create_task(spec)
    except LoadFailed as error:
        return {"refused": error.message}
    width, height = question["picture"]
    context = np.empty(1, dtype=object)
    context[0] = place((width, height), spec.preprocessing.size, spec.preprocessing)
    dtypes = question.get("dtypes", {})
    raw = {name: np.asarray(values, dtype=dtypes.get(name, "float32")) for name, values in question["raw"].items()}
    (row,) = task.post(raw | {CONTEXT: context}, task.read_params(question["params"]))
    return {"error": [row.code, row.message]} if isinstance(row, EngineError) else {"answer": row}


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()
