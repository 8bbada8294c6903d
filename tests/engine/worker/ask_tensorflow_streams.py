"""``python -m tests.engine.worker.ask_tensorflow_streams FOLDER`` (of ``make_prepared tensorflow``): how many threads
may run the frozen graph of each model at once, and what two at once answer. Writes JSON."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.worker.runtimes import tensorflow_variants
from engine.worker.runtimes.base import Preparable, Runtime, Threaded, Variant
from engine.worker.runtimes.keras import KerasRuntime
from engine.worker.runtimes.saved_model import SavedModelRuntime
from tests.engine.worker.make_prepared import images
from tests.engine.worker.process import make_spec

ASKED = 200
INPUTS = {"net.keras": {"x": (16, 16, 3)}, "two": {"b": (3,), "a": (4,)}, "noise": {"x": (3,)}}


def ask(path: Path) -> dict[str, Any]:
    kind = "keras" if path.suffix else "saved_model"
    runtime: Runtime = KerasRuntime() if path.suffix else SavedModelRuntime()
    assert isinstance(runtime, Preparable)
    assert isinstance(runtime, Threaded)
    runtime.load(make_spec(path=path, model_file=path, format=kind, runtime=kind), "cpu", 2, lambda stage: None)

    def given(rows: int) -> Mapping[str, np.ndarray]:
        return {name: images(rows, *shape) for name, shape in INPUTS[path.name].items()}

    variant = next(runtime.variants(given(2)))
    assert isinstance(variant, Variant)
    asked = [given(1 + turn % 7) for turn in range(ASKED)]
    found: list[Mapping[str, np.ndarray]] = [{}] * ASKED
    both = threading.Barrier(2)

    def stream(number: int) -> None:
        both.wait()
        for turn in range(number, ASKED, 2):
            runtime.use_threads(1 + turn % 4 // 2)
            found[turn] = variant.run(asked[turn])

    wrong = []
    if variant.is_shared:
        threads = [threading.Thread(target=stream, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for turn, inputs in enumerate(asked):
            expected = runtime.run(inputs, "")
            if any(not np.allclose(found[turn][name], expected[name], 2e-5, 2e-5) for name in expected):
                wrong.append(turn)
    return {"shared": variant.is_shared, "wrong": wrong}


def ask_without_sessions(path: Path) -> dict[str, Any]:
    """What is offered where a session cannot be made."""

    def refuse(*_: object) -> None:
        raise RuntimeError("no session")

    tensorflow_variants._Sessions.__init__ = refuse  # type: ignore[method-assign,assignment]
    return ask(path)


if __name__ == "__main__":
    told = {name: ask(Path(sys.argv[1]) / name) for name in INPUTS}
    told["no session"] = ask_without_sessions(Path(sys.argv[1]) / "net.keras")
    sys.stdout.write(json.dumps(told))
