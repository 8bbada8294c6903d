"""The floors: a bare loop around the prepared model, with nothing served.

``python -m benchmarks.floors MODEL SECONDS STREAMS [jpeg]`` prints samples a second for each batch. ``floors`` tries
each way of using the cores: PyTorch's own threads over all of them, or a stream of one thread a core over the same
weights; on one core there is one way. The best is the floor. With ``jpeg`` each stream also decodes and resizes, by
Pillow, a picture for each sample; what is then done to pixels is left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

BATCHES = (1, 4, 8)


def measure(name: str, seconds: float, streams: int, decode: bool) -> dict[str, float]:
    import numpy as np
    import torch

    from benchmarks.models import arrays, jpegs, picture
    from benchmarks.networks import prepared

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = prepared(name)
    values = torch.from_numpy(np.array(arrays(name)))
    pictures = jpegs() if decode else []
    found = {}
    for batch in BATCHES:
        parts = values.split(batch)
        counts = [0] * streams
        start = threading.Barrier(streams + 1)

        def loop(number: int, batch=batch, parts=parts, counts=counts, start=start) -> None:  # type: ignore[no-untyped-def]
            torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # a thread's own setting
            with torch.inference_mode():
                for part in parts[:4]:
                    model(part)
                start.wait()
                until, turn = time.perf_counter() + seconds, number
                while time.perf_counter() < until:
                    part = parts[turn % len(parts)]
                    for at in range(len(part) if decode else 0):
                        picture(pictures[(turn * batch + at) % len(pictures)])
                    counts[number] += len(model(part))
                    turn += streams

        threads = [threading.Thread(target=loop, args=(number,)) for number in range(streams)]
        for thread in threads:
            thread.start()
        start.wait()
        began = time.perf_counter()
        for thread in threads:
            thread.join()
        found[f"batch {batch}"] = sum(counts) / (time.perf_counter() - began)
    return found


def floors(name: str, seconds: float, one_core: bool, decode: bool = False) -> dict[str, float]:
    """Samples a second of every way, each in a process of its own."""
    cores = len(os.sched_getaffinity(0))
    ways = {"1 thread": (1, 1)} if one_core else {f"{cores} threads": (1, cores), f"{cores} streams": (cores, 1)}
    found = {}
    for way, (streams, threads) in ways.items():
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.floors", name, str(seconds), str(streams)]
        command += ["jpeg"] if decode else []
        if one_core:
            command = ["taskset", "--cpu-list", "0", *command]
        env = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
        env["OMP_NUM_THREADS"] = str(threads)
        printed = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
        found |= {f"{way}, {batch}": rate for batch, rate in json.loads(printed).items()}
    return found


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), "jpeg" in sys.argv[4:])))
