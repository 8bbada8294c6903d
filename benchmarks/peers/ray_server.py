"""Ray Serve: one deployment, its replicas, the request as Starlette gives it."""

from __future__ import annotations

import sys
import threading

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.peers.answering import PORT, WORKERS, Model

STARTS = 4


@serve.deployment(num_replicas=WORKERS, max_ongoing_requests=64, ray_actor_options={"num_cpus": 0.1})
class Deployment:
    def __init__(self) -> None:
        self.answers = Model()

    async def __call__(self, request: Request) -> dict[str, list[float]]:
        kind = request.headers["content-type"]
        if kind == "application/json":
            return {"scores": self.answers.rows((await request.json())["inputs"]["x"])}
        data = await request.body()
        return {"scores": self.answers.jpeg(data) if kind == "image/jpeg" else self.answers.raw(data)}


def start() -> None:
    """Ray gives its own processes 30 seconds, which on a busy machine is not enough the first time."""
    for attempt in range(STARTS):
        try:
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
            return
        except Exception as error:
            print(f"start {attempt + 1} of {STARTS} failed: {error}", file=sys.stderr, flush=True)
            ray.shutdown()
            if attempt + 1 == STARTS:
                raise


if __name__ == "__main__":
    start()
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Deployment.bind(), route_prefix="/")
    threading.Event().wait()
