"""FastAPI and uvicorn. ``BENCH_POOL=1`` answers in the thread pool (``def``), else on the loop (``async def``)."""

from __future__ import annotations

import os

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from benchmarks.peers.answering import PORT, WORKERS, Model

app = FastAPI()
model = Model() if __name__ != "__main__" else None
POOL = os.environ.get("BENCH_POOL") == "1"


class Question(BaseModel):
    inputs: dict[str, list[list[float]]]


class Answer(BaseModel):
    scores: list[float]


if POOL:

    @app.post("/json")
    def in_the_pool(question: Question) -> Answer:
        return Answer(scores=model.rows(question.inputs["x"]))

else:

    @app.post("/json")
    async def on_the_loop(question: Question) -> Answer:
        return Answer(scores=model.rows(question.inputs["x"]))


@app.post("/raw")
async def raw(request: Request) -> Answer:
    data = await request.body()
    return Answer(scores=await run_in_threadpool(model.raw, data) if POOL else model.raw(data))


@app.post("/jpeg")
async def jpeg(request: Request) -> Answer:
    data = await request.body()
    return Answer(scores=await run_in_threadpool(model.jpeg, data) if POOL else model.jpeg(data))


if __name__ == "__main__":
    # Of several workers each has to answer within five seconds, else it is started anew: on a busy machine for ever.
    uvicorn.run(
        "benchmarks.peers.fastapi_server:app", host="127.0.0.1", port=PORT, workers=WORKERS, log_level="warning",
        access_log=False, timeout_worker_healthcheck=60,
    )  # fmt: skip
