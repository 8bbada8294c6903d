"""BentoML, started by ``bentoml serve``: JSON fields are arguments, files arrive as paths."""

from __future__ import annotations

from pathlib import Path

import bentoml

from benchmarks.peers.answering import WORKERS, Model


@bentoml.service(workers=WORKERS, traffic={"timeout": 60, "max_concurrency": 256})
class Service:
    def __init__(self) -> None:
        self.answers = Model()

    @bentoml.api
    def json(self, inputs: dict[str, list[list[float]]]) -> dict[str, list[float]]:
        return {"scores": self.answers.rows(inputs["x"])}

    @bentoml.api
    def raw(self, file: Path) -> dict[str, list[float]]:
        return {"scores": self.answers.raw(file.read_bytes())}

    @bentoml.api
    def jpeg(self, file: Path) -> dict[str, list[float]]:
        return {"scores": self.answers.jpeg(file.read_bytes())}
