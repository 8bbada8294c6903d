"""Answers drawn over their pictures, as ``Accept: image/png`` asks for them, over a real socket."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedded_server.controller import ServeOptions, ServerController
from engine.engine import Engine
from engine.settings import Settings
from tests.e2e.program import DIGITS_KERAS, EXAMPLES, PATIENCE_S, WINE, Client

pytestmark = pytest.mark.real
SAMPLES = {
    "shapes-detector": "crowd.png", "shapes-segmenter": "wide.png", "shapes-keypoints": "two.png",
    "shapes-depth": "wide.png", "photo-2x": "temple.png", "digits-keras": "digit-7.png",
}  # fmt: skip


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    settings = Settings()
    with Engine(settings, folder=folder / "engine") as engine:
        for load in [engine.load(EXAMPLES / name) for name in (*SAMPLES, "wine")]:
            load.future.result(PATIENCE_S)
        server = ServerController(engine, settings.server, folder)
        try:
            yield f"http://127.0.0.1:{server.start_at(ServeOptions(port=0)).port}"
        finally:
            server.stop()


def post(url: str, model: str, data: bytes, **headers: str) -> tuple[int, str, bytes]:
    client = Client(url)
    client.connection.request("POST", f"/predict/{model}", data, headers)
    response = client.connection.getresponse()
    body = response.read()
    client.connection.close()
    return response.status, response.headers["Content-Type"], body


@pytest.mark.parametrize("model", SAMPLES)
def test_an_answer_is_drawn_over_its_picture(url: str, tmp_path: Path, model: str) -> None:
    data = (EXAMPLES / model / "samples" / SAMPLES[model]).read_bytes()
    status, kind, body = post(url, model, data, Accept="image/png")
    assert (status, kind) == (200, "image/png")
    with Image.open(io.BytesIO(data)) as source, Image.open(io.BytesIO(body)) as drawn:
        scale = 2 if model == "photo-2x" else 1
        assert drawn.size == (source.width * scale, source.height * scale)
        if scale == 1:
            changed = (np.asarray(source.convert("RGB")) != np.asarray(drawn.convert("RGB"))).any(axis=2)
            assert changed.mean() > (0.5 if "depth" in model or "segmenter" in model else 0.005)
    (tmp_path / f"{model}.png").write_bytes(body)


@pytest.mark.parametrize("accept", ["*/*", "application/json", "image/png;q=0.5, application/json", "text/html, */*"])
def test_others_read_json(url: str, accept: str) -> None:
    data = (DIGITS_KERAS / "samples" / "digit-7.png").read_bytes()
    assert post(url, "digits-keras", data, Accept=accept)[:2] == (200, "application/json")


def test_what_is_no_picture_cannot_be_drawn_over(url: str) -> None:
    table = (WINE / "samples" / "cellar.csv").read_bytes()
    status, kind, body = post(url, "wine", table, Accept="image/png")
    assert (status, kind) == (415, "application/json")
    assert b"An answer is drawn over one picture" in body
