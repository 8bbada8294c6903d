"""A program of somebody else: ``tritonclient.http``, sync and asyncio, against a running server. Asserts as it goes.

``python -m tests.e2e.ask_triton HOST:PORT PICTURE`` ends with 0 and prints the answers that other clients are compared
with. The server has the models that :func:`tests.e2e.test_open_inference.models` makes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as sync_client
import tritonclient.http.aio as aio_client
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

KINDS = {
    "bool": [True, False, True], "uint8": [0, 7, 255], "uint16": [0, 7, 2**16 - 1], "uint32": [0, 7, 2**32 - 1],
    "uint64": [0, 7, 2**64 - 1], "int8": [-128, 0, 127], "int16": [-(2**15), 0, 7], "int32": [-(2**31), 0, 5],
    "int64": [-(2**62), 1, 2**62], "float16": [0.5, -2.0, 6e4], "float32": [0.1, -1e30, 3.0],
    "float64": [0.1, -1e300, 3.0],
}  # fmt: skip


def inputs_of(module: Any, arrays: dict[str, np.ndarray], binary: bool) -> list[Any]:
    made = []
    for name, array in arrays.items():
        tensor = module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array, binary_data=binary)
        made.append(tensor)
    return made


def outputs_of(module: Any, names: list[str], binary: bool, classes: int = 0) -> list[Any]:
    return [module.InferRequestedOutput(name, binary_data=binary, class_count=classes) for name in names]


def told(call: Callable[[], Any]) -> str:
    """The sentence of the error that a call raises."""
    try:
        call()
    except InferenceServerException as error:
        return f"{error.status()} {error.message()}"
    raise AssertionError("no error came")


def ask_sync(url: str, picture: bytes) -> dict[str, Any]:
    client = sync_client.InferenceServerClient(url)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("sums")
    assert client.is_model_ready("sums", "1")
    assert client.get_server_metadata()["name"] == "deskside"
    metadata = client.get_model_metadata("sums")
    assert metadata["inputs"][0] == {"name": "a", "datatype": "FP32", "shape": [-1, -1]}
    config = client.get_model_config("sums", "1")
    assert config["max_batch_size"] > 0
    assert config["input"][0] == {"name": "a", "data_type": "TYPE_FP32", "dims": [-1]}
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays = {"a": a, "b": np.full((2, 3), 2, np.float32)}
    for binary_in in (True, False):
        for binary_out in (True, False, None):
            for packed in (None, "gzip", "deflate"):
                outputs = None if binary_out is None else outputs_of(sync_client, ["sum", "product"], binary_out)
                result = client.infer(
                    "sums", inputs_of(sync_client, arrays, binary_in), outputs=outputs, request_id="r-1",
                    request_compression_algorithm=packed, response_compression_algorithm=packed,
                )  # fmt: skip
                assert result.get_response()["id"] == "r-1"
                np.testing.assert_array_equal(result.as_numpy("sum"), a + 2)
                np.testing.assert_array_equal(result.as_numpy("product"), a * 2)
    only = client.infer("sums", inputs_of(sync_client, arrays, True), outputs=outputs_of(sync_client, ["sum"], True))
    assert only.as_numpy("product") is None
    for name, values in KINDS.items():
        array = np.array([values], dtype=name)
        forms = [(True, True)] if name == "float16" else [(True, True), (False, False), (False, True)]
        for binary_in, binary_out in forms:
            result = client.infer(
                f"kind-{name}",
                inputs_of(sync_client, {"x": array}, binary_in),
                outputs=outputs_of(sync_client, ["y"], binary_out),
            )
            found = result.as_numpy("y")
            assert found.dtype == array.dtype, (name, found.dtype)
            np.testing.assert_array_equal(found, array)
    words = np.array([["grün", "", "a b"]], dtype=object)
    for binary in (True, False):
        result = client.infer("words", inputs_of(sync_client, {"x": words}, binary),
                              outputs=outputs_of(sync_client, ["y"], binary))  # fmt: skip
        spoken = [v.decode() if isinstance(v, bytes) else v for v in result.as_numpy("y").ravel()]
        assert spoken == ["grüngrün", "", "a ba b"], spoken
    shown = np.array([picture], dtype=object)
    image = client.infer("digits", inputs_of(sync_client, {"image": shown}, True))
    name = client.get_model_metadata("digits")["outputs"][0]["name"]
    scores = image.as_numpy(name)
    two = client.infer(
        "digits", inputs_of(sync_client, {"image": np.array([picture, picture], dtype=object)}, True)
    ).as_numpy(name)
    np.testing.assert_allclose(two, np.concatenate([scores, scores]), atol=1e-6)
    best = client.infer("digits", inputs_of(sync_client, {"image": shown}, True),
                        outputs=outputs_of(sync_client, [name], True, classes=3))  # fmt: skip
    classes = [value.decode() for value in best.as_numpy(name)[0]]
    running = client.async_infer("sums", inputs_of(sync_client, arrays, True), priority=1, timeout=20_000_000)
    np.testing.assert_array_equal(running.get_result().as_numpy("sum"), a + 2)
    stats = client.get_inference_statistics("sums")["model_stats"][0]
    assert stats["inference_stats"]["success"]["count"] >= 20
    assert stats["inference_count"] >= 40
    assert any(s["name"] == "words" for s in client.get_inference_statistics()["model_stats"])
    index = {entry["name"]: entry["state"] for entry in client.get_model_repository_index()}
    assert index["words"] == "READY"
    client.unload_model("words")
    assert not client.is_model_ready("words") if client.is_server_live() else False
    client.load_model("words")
    assert client.is_model_ready("words")
    wrong = {"a": a, "b": np.ones((2, 2, 2), np.float32)}
    errors = {
        "model": told(lambda: client.infer("nobody", inputs_of(sync_client, arrays, True))),
        "version": told(lambda: client.infer("sums", inputs_of(sync_client, arrays, True), model_version="9")),
        "shape": told(lambda: client.infer("sums", inputs_of(sync_client, wrong, True))),
        "dtype": told(lambda: client.infer("sums", inputs_of(sync_client, {"a": a.astype(np.int32), "b": a}, True))),
        "missing": told(lambda: client.infer("sums", inputs_of(sync_client, {"a": a}, True))),
        "surplus": told(lambda: client.infer("sums", inputs_of(sync_client, arrays | {"c": a}, True))),
        "output": told(
            lambda: client.infer("sums", inputs_of(sync_client, arrays, True),
                                 outputs=outputs_of(sync_client, ["z"], True))
        ),
        "files": told(lambda: client.load_model("sums", files={"file:1/model.onnx": b"x"}, config="{}")),
    }  # fmt: skip
    client.close()
    return {"scores": scores[0].tolist(), "classes": classes, "errors": errors}


async def ask_aio(url: str, picture: bytes) -> list[float]:
    async with aio_client.InferenceServerClient(url) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("sums")
        name = (await client.get_model_metadata("digits"))["outputs"][0]["name"]
        assert (await client.get_model_config("sums"))["input"][0]["name"] == "a"
        a = np.ones((1, 4), np.float32)
        arrays = {"a": a, "b": a}
        for binary in (True, False):
            for packed in (None, "gzip", "deflate"):
                result = await client.infer(
                    "sums", inputs_of(aio_client, arrays, binary), request_compression_algorithm=packed,
                    outputs=outputs_of(aio_client, ["sum"], binary), response_compression_algorithm=packed,
                )  # fmt: skip
                np.testing.assert_array_equal(result.as_numpy("sum"), a + 1)
        many = await asyncio.gather(*(client.infer("sums", inputs_of(aio_client, arrays, True)) for _ in range(20)))
        assert all((one.as_numpy("sum") == 2).all() for one in many)
        shown = np.array([picture], dtype=object)
        image = await client.infer("digits", inputs_of(aio_client, {"image": shown}, True))
        assert (await client.get_inference_statistics("digits"))["model_stats"][0]["name"] == "digits"
        return [float(score) for score in image.as_numpy(name)[0]]


def main() -> None:
    url, picture = sys.argv[1], Path(sys.argv[2]).read_bytes()
    found = ask_sync(url, picture)
    found["aio"] = asyncio.run(ask_aio(url, picture))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
