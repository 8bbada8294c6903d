"""``python -m tests.engine.worker.ask_streams FOLDER`` (of ``make_prepared torch``): the ways to run its models,
whether several threads may run each, and what two threads at once answer. Writes JSON."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.model_spec import TensorSpec
from engine.worker.runtimes.base import Threaded, Variant
from engine.worker.runtimes.state_dict import StateDictRuntime
from tests.engine.worker.make_prepared import images
from tests.engine.worker.process import make_spec

ASKED = 300


def ask(folder: Path, name: str) -> dict[str, Any]:
    import torch

    files = (folder / "net.pth", folder / "net.py")
    runtime = StateDictRuntime()
    assert isinstance(runtime, Threaded)
    spec = make_spec(
        path=files[0], model_file=files[0], format="state_dict", runtime="state_dict", files=files,
        inputs=(TensorSpec("x", "float32", (-1, 3, 32, 32)),), architecture=f"net.py:{name}",
    )  # fmt: skip
    runtime.load(spec, "cpu", 2, lambda stage: None)
    here = torch.get_num_threads()
    ways = runtime.variants({"x": images(2, 3, 32, 32)})
    variant, shared = next(ways), {}
    try:
        while True:
            assert isinstance(variant, Variant)
            shared[variant.steps[-1]] = variant.is_shared
            last = variant
            variant = ways.send(len(shared) == 1)
    except StopIteration:
        pass
    inputs = np.random.default_rng(3).standard_normal((ASKED, 2, 3, 32, 32)).astype(np.float32)
    expected = [runtime.run({"x": x}, "")["scores" if name == "Named" else "output"] for x in inputs]
    found: list[Mapping[str, np.ndarray]] = [{}] * ASKED
    both = threading.Barrier(2)
    threads: list[int] = []

    def stream(number: int) -> None:
        both.wait()
        for turn in range(number, ASKED, 2):
            runtime.use_threads(1 + turn % 4 // 2)
            threads.append(torch.get_num_threads() - turn % 4 // 2)
            found[turn] = last.run({"x": inputs[turn]})

    if last.is_shared:
        streams = [threading.Thread(target=stream, args=(number,)) for number in range(2)]
        for thread in streams:
            thread.start()
        for thread in streams:
            thread.join()
    wrong = [
        turn for turn, answer in enumerate(found)
        if answer and np.abs(answer["output"] - expected[turn]).max() > 2e-5 * np.abs(expected[turn]).max()
    ]  # fmt: skip
    asked = sum(bool(answer) for answer in found)
    # What one thread is told is not told another.
    kept = here == torch.get_num_threads() == 2 and set(threads) <= {1}
    return {"shared": shared, "asked": asked, "wrong": wrong, "threads_kept": kept}


if __name__ == "__main__":
    sys.stdout.write(json.dumps({name: ask(Path(sys.argv[1]), name) for name in ("Convolutions", "Scratch")}))
