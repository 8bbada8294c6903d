"""Where the time of one answer goes: both processes of Deskside, by thread and by area, while they are saturated.

``PYSPY=/path/to/py-spy python -m benchmarks.where_time_goes``. Two sources are put together. The kernel says how much
CPU time each thread took; py-spy says what a thread was at, so its time is shared out over its samples, those at rest
left out. A sample belongs to the innermost frame that says an area (``AREAS``). Where a thread was seen at work longer
than it had a core, it waited for the interpreter's lock or for a core: no CPU time, but time of the answer's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.load import outcome, start
from benchmarks.servers import Running, deskside, family, running

SECONDS = 2.0 if os.environ.get("QUICK") else 5.0
SAMPLES_A_SECOND = 100
WARM_S, END_S = 1.5, 4.0
CASES = (("s", "json", 32), ("m", "raw", 32))
LEAST_SHARE = 0.01
"""Of a process's CPU time: smaller areas are summed up."""

AREAS = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("socket send", r"dispatcher\.send|_flush_some|\bChannel\.send \(embedded_server"),
        ("socket receive", r"dispatcher\.recv"),
        ("waiting on sockets (poll)", r"poll2|\breadable |\bwritable |lane_loop\.py:9\d|pull_trigger|_physical_pull"),
        ("journal, log, metrics", r"engine/journal|request_log|/?logging/|metrics\.py|engine/statistics"),
        ("reading the head", r"waitress_adapter/parsing|waitress/parser|waitress/utilities|waitress/receiver"),
        ("door: access rules, keys", r"embedded_server/(door|access|keys|key_limits|reach)\.py"),
        ("model", r"worker/runtimes/|torch/|engine/worker/execution\.py"),
        ("reading the body", r"engine/codecs/|engine/worker/(inputs|images|table|audio)"),
        ("pipe between the processes", r"engine/protocol\.py|worker/channel\.py|WorkerClient\._(write|read)|\._send "),
        ("request and answer in HTTP", r"embedded_server/|waitress/|werkzeug/|flask/"),
        ("engine: queues, hops, futures", r"engine/|threading\.py|concurrent/|queue\.py"),
    )
)  # fmt: skip
BLOCKS = re.compile(
    r"^(Condition\.wait|poll2|_read_exactly|WorkerClient\._write|WorkerClient\._keep_stderr|EventThread\._run"
    r"|_Writer\._run|Journal\._\w+|WorkerLoop\.\w+|Queue\.get|_worker|Inbox\._next) "
)
"""Functions in which a thread rests; of a thread's ends in them the most frequent one is its rest."""


@dataclass(frozen=True)
class Stack:
    thread: int
    thread_name: str
    frames: tuple[str, ...]  # the outermost first, as "function (file:line)"
    count: int


THREAD = re.compile(r"^thread \((\d+)\): ?(.*)$")


def stacks(raw: str) -> list[Stack]:
    """What ``py-spy record --format raw --threads`` writes."""
    found = []
    for line in raw.splitlines():
        path, _, count = line.rpartition(" ")
        head, *frames = path.split(";")
        while head.startswith("process "):  # of a child
            head, *frames = frames
        if (thread := THREAD.match(head)) and frames:
            found.append(Stack(int(thread[1]), thread[2], tuple(frames), int(count)))
    return found


def area(frames: Iterable[str]) -> str:
    for frame in reversed(list(frames)):
        for name, pattern in AREAS:
            if pattern.search(frame):
                return name
    return "other"


def at_work(found: list[Stack]) -> dict[int, list[Stack]]:
    """By thread, the stacks in which it did not rest."""
    ends: dict[int, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for stack in found:
        if BLOCKS.match(stack.frames[-1]):
            ends[stack.thread][stack.frames[-2:]] += stack.count
    rests = {thread: counts.most_common(1)[0][0] for thread, counts in ends.items()}
    working: dict[int, list[Stack]] = defaultdict(list)
    for stack in found:
        is_wait = stack.frames[-1].startswith("Condition.wait ")
        if not is_wait and stack.frames[-2:] != rests.get(stack.thread):
            working[stack.thread].append(stack)
    return working


@dataclass(frozen=True)
class Process:
    """One process under load: CPU seconds by thread, and what py-spy saw."""

    name: str
    cpu_s: dict[int, float]
    stacks: list[Stack]
    seconds: float  # in which the CPU time was taken


def by_area(process: Process) -> dict[str, float]:
    """CPU seconds by area: a thread's time shared out over its samples at work."""
    spent: dict[str, float] = defaultdict(float)
    working, python = at_work(process.stacks), {stack.thread for stack in process.stacks}
    for thread, seconds in process.cpu_s.items():
        samples = working.get(thread, [])
        total = sum(stack.count for stack in samples)
        for stack in samples:
            spent[area(stack.frames)] += seconds * stack.count / total
        if not total:
            spent["too short to be sampled" if thread in python else "threads of the libraries (OpenMP)"] += seconds
    return dict(spent)


def waited_s(process: Process) -> float:
    """Seconds in which threads were at work without a core: waiting for the interpreter's lock, or for a core."""
    taken = Counter[int]()
    for stack in process.stacks:
        taken[stack.thread] += stack.count
    total = max(taken.values(), default=0)
    waited = 0.0
    for thread, samples in at_work(process.stacks).items():
        seen = sum(stack.count for stack in samples) / total * process.seconds
        waited += max(0.0, seen - process.cpu_s.get(thread, 0.0))
    return waited


def table(title: str, processes: list[Process], answers: float) -> list[str]:
    """Lines of Markdown; ``answers`` came within the seconds of each process."""
    lines = [title, "", "| process | area | CPU us an answer | share of the process |", "|---|---|---|---|"]
    for process in processes:
        spent = by_area(process)
        total = sum(spent.values())
        lines.append(f"| **{process.name}** | all | **{total / answers * 1e6:.0f}** | |")
        small = 0.0
        for name, seconds in sorted(spent.items(), key=lambda item: -item[1]):
            if seconds < LEAST_SHARE * total:
                small += seconds
                continue
            lines.append(f"| | {name} | {seconds / answers * 1e6:.0f} | {seconds / total:.0%} |")
        if small:
            lines.append(f"| | smaller ones | {small / answers * 1e6:.0f} | {small / total:.0%} |")
        lines.append(f"| | *at work without a core or the lock* | *{waited_s(process) / answers * 1e6:.0f}* | |")
    return [*lines, ""]


def thread_seconds(process: psutil.Process) -> dict[int, float]:
    return {thread.id: thread.user_time + thread.system_time for thread in process.threads()}


def record(pyspy: str, run: Running, kind: str, connections: int, folder: Path) -> tuple[list[Process], float]:
    """Both processes while the generator asks, and how many answers came meanwhile."""
    generator = start(run.load(kind, connections, SECONDS + WARM_S + END_S))
    time.sleep(WARM_S)
    worker = max(family(run.process.pid)[1:], key=lambda process: sum(process.cpu_times()[:2]))
    names = {"the app (server and engine)": psutil.Process(run.process.pid), "the model's process": worker}
    before, began = {name: thread_seconds(process) for name, process in names.items()}, time.perf_counter()
    recorders = []
    for number, process in enumerate(names.values()):
        command = [
            pyspy, "record", "--format", "raw", "--rate", str(SAMPLES_A_SECOND), "--duration", str(int(SECONDS)),
            "--threads", "--idle", "--nonblocking", "--output", str(folder / f"{number}.raw"),
            "--pid", str(process.pid),
        ]  # fmt: skip
        recorders.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    said = [recorder.communicate()[0] for recorder in recorders]
    seconds = time.perf_counter() - began
    after = {name: thread_seconds(process) for name, process in names.items()}
    for recorder, text in zip(recorders, said, strict=True):
        if recorder.returncode:
            raise SystemExit(f"py-spy failed: {text}")
    found = [
        Process(
            name,
            {thread: spent - before[name].get(thread, 0.0) for thread, spent in after[name].items()},
            stacks((folder / f"{number}.raw").read_text()),
            seconds,
        )
        for number, name in enumerate(names)
    ]
    answers = outcome(generator)
    answers.check("Deskside while it was profiled")
    return found, answers.rate * seconds


def main(arguments: list[str]) -> None:
    pyspy = os.environ.get("PYSPY") or shutil.which("py-spy")
    lines: list[str] = []
    found: dict[str, object] = {"answers": 0, "tables": lines}
    if pyspy is None:
        lines.append("The profile was not taken: py-spy is not here (`PYSPY=/path/to/py-spy`).")
    else:
        for model, kind, connections in CASES:
            with running(deskside(model), model) as run, tempfile.TemporaryDirectory() as folder:
                processes, answers = record(pyspy, run, kind, connections, Path(folder))
            rate = answers / processes[0].seconds
            title = (
                f"**{model.upper()} {kind}, {connections} connections**, {rate:.0f} answers a second while profiled:"
            )
            lines += table(title, processes, answers)
            found |= {
                f"{model} {process.name} us": sum(process.cpu_s.values()) / answers * 1e6 for process in processes
            }
    print(json.dumps(found) if "--json" in arguments else "\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
