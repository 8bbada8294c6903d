"""Ray Serve: one deployment, its replicas, the request as Starlette gives it."""

from __future__ import annotations

import threading

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.peers.answering import PORT, WORKERS, Model


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


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Deployment.bind(), route_prefix="/")
    threading.Event().wait()
