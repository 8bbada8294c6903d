"""The worker process with the fake runtime: the protocol, threads, faults."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.events import LoadStage
from engine.model_spec import SIDECAR, ModelSpec, Preprocessing, TensorSpec
from engine.protocol import PROTOCOL_VERSION, Message, ProtocolError
from engine.worker.runtimes.fake_lies import LIES
from tests.engine.worker.process import WorkerProcess, item_of, make_spec, read_done

X = (TensorSpec("x", "float32", (-1, 2)),)
IMAGE = (TensorSpec("image", "float32", (-1, 4, 4, 1)),)


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as process:
        yield process


def ready(worker: WorkerProcess, task: str = "raw-tensors", /, **changes: Any) -> dict[str, Any]:
    message = worker.load(make_spec(task, **changes))
    assert message.type == "ready", message.header
    info: dict[str, Any] = message.header["info"]
    return info


def rows(*first: float) -> dict[str, np.ndarray]:
    return {"x": np.array([[v, 1.0] for v in first], dtype=np.float32)}


# -- load --------------------------------------------------------------------------------------------------------------
def test_a_load_says_hello_then_its_stages_in_order_then_ready(worker: WorkerProcess, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(bytes(1000))
    hello = worker.receive().header
    assert hello.pop("sandbox")["level"] == "none"  # nobody ordered one
    assert hello == {"type": "hello", "protocol": PROTOCOL_VERSION, "pid": worker.process.pid}
    spec = make_spec(inputs=X, files=(weights,))
    worker.send({"type": "load", "spec": spec.to_json(), "device": "cpu", "threads": 1})
    messages = [worker.receive().header for _ in range(6)]
    assert [m.get("stage") for m in messages[:5]] == [
        LoadStage.IMPORTING, LoadStage.READING, LoadStage.BUILDING, LoadStage.MOVING, LoadStage.WARMING
    ]  # fmt: skip
    assert messages[1]["total_bytes"] == 1000
    assert messages[5]["type"] == "ready"
    assert messages[5]["info"]["device"] == "cpu"
    assert messages[5]["info"]["evidence"]["inputs"] == "tensor signature"


def failed(worker: WorkerProcess, spec: ModelSpec, **extra: Any) -> dict[str, Any]:
    message = worker.load(spec, **extra)
    assert message.type == "failed", message.header
    assert worker.receive_end() is None
    assert worker.exit_code() == 0
    error: dict[str, Any] = message.header["error"]
    return error


def test_a_load_that_fails_says_why_and_the_process_ends(worker: WorkerProcess) -> None:
    error = failed(worker, make_spec(options={"load_error": "The weights are made of cheese."}))
    assert error["code"] == "load_failed"
    assert error["message"] == "The weights are made of cheese."
    assert "LoadFailed" in error["details"]


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (TensorSpec("y", "float32", (-1, 2)), "names the inputs 'y', but the model has 'x'"),
        (TensorSpec("x", "float32", (-1, 2, 1)), "the shape [any, 2, 1], but the model has [any, 2]"),
        (TensorSpec("x", "float32", (-1, 3)), "the shape [any, 3], but the model has [any, 2]"),
        (TensorSpec("x", "int8", (-1, 2)), "the dtype int8, but the model has float32"),
    ],
)
def test_a_sidecar_must_not_contradict_the_model(stated: TensorSpec, words: str) -> None:
    from engine.errors import LoadFailed
    from engine.worker.loading import complete_spec
    from engine.worker.runtimes.base import LoadedSignature

    spec = make_spec(inputs=(stated,), evidence={"inputs": SIDECAR})
    with pytest.raises(LoadFailed) as caught:
        complete_spec(spec, LoadedSignature(inputs=X))
    assert words in caught.value.message
    # The same from anything weaker than a sidecar: the model's own word counts.
    assert complete_spec(make_spec(inputs=(stated,)), LoadedSignature(inputs=X)).inputs == X


def test_an_unknown_runtime_and_a_broken_description_fail_the_load() -> None:
    with WorkerProcess() as first:
        assert "'abacus'" in failed(first, make_spec(runtime="abacus"))["message"]
    with WorkerProcess() as second:
        assert second.receive().type == "hello"
        second.send({"type": "load", "spec": {}, "device": "cpu", "threads": 1})
        assert second.receive().header["error"]["code"] == "internal"


def test_a_load_that_hangs_still_ends_with_the_channel(worker: WorkerProcess) -> None:
    assert worker.receive().type == "hello"
    spec = make_spec(options={"stage_hang": "building"})
    worker.send({"type": "load", "spec": spec.to_json(), "device": "cpu", "threads": 1})
    while worker.receive().header["stage"] != "building":
        pass
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    assert worker.exit_code() == 0


# -- batches -----------------------------------------------------------------------------------------------------------
def test_every_item_gets_its_own_answer(worker: WorkerProcess) -> None:
    ready(worker, inputs=X)
    items = worker.run_batch(*(item_of(f"r{i}", rows(i, i + 100)) for i in range(5)))
    assert [item["id"] for item in items] == [f"r{i}" for i in range(5)]
    for i, item in enumerate(items):
        np.testing.assert_array_equal(item["outputs"]["checksum"], [i + 1, i + 101])
        assert set(item["timing"]) == {"decode", "infer", "post"}


def test_an_unusable_item_fails_alone(worker: WorkerProcess) -> None:
    ready(worker, inputs=X)
    good, bad, good_too = worker.run_batch(
        item_of("a", rows(1)), item_of("b", b'{"inputs": {"x": [[1]]}}', "application/json"), item_of("c", rows(3))
    )
    assert bad["error"]["code"] == "invalid_shape"
    assert good["outputs"]["checksum"] == [2]
    assert good_too["outputs"]["checksum"] == [4]


def test_a_poison_row_fails_alone_over_the_wire(worker: WorkerProcess) -> None:
    ready(worker, inputs=X, options={"raise_on_value": 666})
    good, bad = worker.run_batch(item_of("a", rows(1)), item_of("b", rows(666)))
    assert good["outputs"]["checksum"] == [2]
    assert bad["error"]["code"] == "model_error"
    assert "poison" in bad["error"]["details"]
    assert "poison" not in bad["error"]["message"]


def test_out_of_memory_is_told_and_remembered(worker: WorkerProcess) -> None:
    ready(worker, inputs=X, options={"oom_above_rows": 3})
    worker.send_batch(1, item_of("a", rows(*range(8))))
    assert worker.receive().type == "started"
    done = worker.receive()
    assert done.header["max_batch_size"] == 2
    np.testing.assert_array_equal(read_done(done)[0]["outputs"]["checksum"], np.arange(8) + 1)
    worker.send_batch(2, item_of("b", rows(1)))
    assert worker.receive().type == "started"
    assert "max_batch_size" not in worker.receive().header


def test_a_row_that_never_fits_is_device_oom(worker: WorkerProcess) -> None:
    ready(worker, inputs=X, options={"oom_above_rows": 0})
    assert worker.predict(rows(1))["error"]["code"] == "device_oom"


def test_the_limit_of_rows_comes_with_the_load(worker: WorkerProcess) -> None:
    message = worker.load(make_spec(inputs=X), limits={"max_batch_size": 3})
    assert message.header["info"]["max_batch_size"] == 3


def test_another_limit_of_rows_comes_while_it_runs(worker: WorkerProcess) -> None:
    worker.load(make_spec(inputs=X), limits={"max_batch_size": 2})
    worker.send({"type": "limit", "max_batch_size": 8})
    worker.send_batch(1, item_of("a", rows(*range(8))))
    assert worker.receive().type == "started"
    done = worker.receive()
    assert done.header["inferences"] == 1
    # Of the device's memory nothing was learnt.
    assert "max_batch_size" not in done.header


def test_a_batch_that_has_not_started_can_be_recalled(worker: WorkerProcess, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    ready(worker, inputs=X, options={"gate_file": str(gate)})
    for number in (1, 2, 3):
        worker.send_batch(number, item_of(f"r{number}", rows(number)))
    assert worker.receive().header == {"type": "started", "batch": 1}
    worker.send({"type": "recall", "batch": 2})
    worker.send({"type": "recall", "batch": 1})
    worker.send({"type": "recall", "batch": 77})
    assert worker.receive().header == {"type": "recalled", "batch": 2, "ok": True}
    assert worker.receive().header == {"type": "recalled", "batch": 1, "ok": False}
    assert worker.receive().header == {"type": "recalled", "batch": 77, "ok": False}
    gate.touch()
    rest = [worker.receive() for _ in range(3)]
    assert [(m.type, m.header["batch"]) for m in rest] == [("done", 1), ("started", 3), ("done", 3)]


def test_of_a_lone_batch_it_is_not_told_that_it_started(worker: WorkerProcess) -> None:
    ready(worker, inputs=X)
    header, buffers = item_of("r", rows(3))
    worker.send({"type": "batch", "batch": 1, "lone": True, "items": [header]}, buffers)
    done = worker.receive()
    assert (done.type, read_done(done)[0]["id"]) == ("done", "r")
    worker.send_batch(2, item_of("r", rows(3)))
    assert [worker.receive().type for _ in range(2)] == ["started", "done"]


def test_small_batches_overtake_no_large_one_that_is_still_to_be_read(worker: WorkerProcess) -> None:
    ready(worker, inputs=X)
    big = {"x": np.zeros((200_000, 2), dtype=np.float32)}
    for number in range(6):
        worker.send_batch(number, item_of("r", rows(number) if number % 2 else big))
    messages = [worker.receive() for _ in range(12)]
    assert [m.header["batch"] for m in messages if m.type == "done"] == list(range(6))


def test_a_running_batch_does_not_hold_up_the_channel(worker: WorkerProcess, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    ready(worker, inputs=X, options={"gate_file": str(gate)})
    worker.send_batch(0, item_of("slow", rows(1)))
    assert worker.receive().type == "started"
    # Far more than a pipe holds: were the channel not drained, this would block.
    big = {"x": np.zeros((200_000, 2), dtype=np.float32)}
    for number in range(1, 7):
        worker.send_batch(number, item_of("big", big))
    worker.send({"type": "recall", "batch": 6})
    assert worker.receive().header == {"type": "recalled", "batch": 6, "ok": True}
    gate.touch()
    assert worker.receive().type == "done"


# -- inputs ------------------------------------------------------------------------------------------------------------
def picture(value: int = 128, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("L", (9, 7), value).save(stream, kind)
    return stream.getvalue()


def form(*files: bytes) -> bytes:
    head = b'--B\r\nContent-Disposition: form-data; name="f"; filename="f"\r\nContent-Type: image/png\r\n\r\n'
    return b"".join(head + data + b"\r\n" for data in files) + b"--B--\r\n"


def npz(**named: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **named)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


FORM = "multipart/form-data; boundary=B"


def code_of(item: dict[str, Any]) -> str:
    return str(item["error"]["code"])


def test_an_image_classifier_takes_pictures_in_every_wrapping(worker: WorkerProcess) -> None:
    import base64

    how = Preprocessing(channel_order="grayscale", scaling="0..255")
    ready(worker, "image-classification", inputs=IMAGE, preprocessing=how, labels=("a", "b", "c"))
    png = picture()
    plain = worker.predict(png, "image/png")["result"]
    assert plain["kind"] == "predictions"
    assert plain["value"][0] == {"label": "c", "score": pytest.approx(0.9)}  # checksum 16 * 128 = 2048 = 2 mod 3
    assert worker.predict(png)["result"] == plain
    assert worker.predict(png, "application/octet-stream")["result"] == plain
    assert worker.predict(picture(kind="BMP"), "image/bmp")["result"] == plain
    assert worker.predict(form(png), FORM)["result"] == plain
    body = b'{"image": "%s"}' % base64.b64encode(png)
    assert worker.predict(body, "application/json")["result"] == plain
    assert len(worker.predict(png, "image/png", top_k=1)["result"]["value"]) == 1

    several = worker.predict(form(png, b"broken", picture(0)), FORM)["result"]
    assert several["kind"] == "results"
    assert several["value"][0] == {"input": 0, "predictions": plain["value"]}
    assert several["value"][1]["error"]["code"] == "image_format"
    assert several["value"][2]["predictions"][0]["label"] == "a"

    assert code_of(worker.predict(b"", "image/png")) == "nothing_to_predict"
    assert code_of(worker.predict(png[:50], "image/png")) == "image_invalid"
    assert code_of(worker.predict(b"no picture", None)) == "image_format"
    assert code_of(worker.predict(form(b"broken"), FORM)) == "image_format"
    assert code_of(worker.predict(b"a,b\n1,2\n", "text/csv")) == "unsupported_media_type"
    assert code_of(worker.predict(body, "text/plain")) == "unsupported_media_type"
    assert code_of(worker.predict(body, "application/x-www-form-urlencoded")) == "unsupported_media_type"
    assert code_of(worker.predict(b'{"text": "x"}', "application/json")) == "unsupported_media_type"
    assert code_of(worker.predict([{"a": 1}])) == "unsupported_media_type"
    assert code_of(worker.predict(b"{", "application/json")) == "malformed"
    assert code_of(worker.predict(png, "image/png", top_k="many")) == "malformed"

    tensor = np.full((2, 4, 4, 1), 128, dtype=np.uint8)
    for data, kind in ((npy(tensor), "application/x-npy"), (npz(image=tensor), None)):
        raw = worker.predict(data, kind)
        assert raw["result"]["kind"] == "outputs"
        assert raw["outputs"]["scores"].shape == (2, 3)


def test_a_table_classifier_takes_csv_and_rows(worker: WorkerProcess) -> None:
    ready(worker, "tabular-classification", inputs=X, columns=("a", "b"), labels=("p", "q", "r"))
    csv = worker.predict(b"b;extra;a\n1,5;;0,5\n2;;x\n1;;1\n", "text/csv")["result"]
    assert csv["kind"] == "results"
    assert [entry["input"] for entry in csv["value"]] == [0, 1, 2]
    assert csv["value"][0]["predictions"][0]["label"] == "r"
    assert csv["value"][1]["error"]["code"] == "value_invalid"
    assert csv["value"][2]["predictions"][0]["label"] == "r"
    assert worker.predict(b"a,b\n1,1\n")["result"]["kind"] == "results"

    one = worker.predict([{"a": 1, "b": 1}])["result"]
    assert one == {"kind": "predictions", "value": csv["value"][2]["predictions"]}
    assert worker.predict(b'{"rows": [{"a": 1, "b": 1}]}', "application/json")["result"] == one
    assert worker.predict([{"a": 1, "b": 1}] * 20)["result"]["kind"] == "results"

    assert code_of(worker.predict([{"a": 1}])) == "column_missing"
    assert code_of(worker.predict([{"a": 1, "b": None}])) == "value_invalid"
    assert code_of(worker.predict([])) == "nothing_to_predict"
    assert code_of(worker.predict(b"a\n1\n", "text/csv")) == "column_missing"
    assert code_of(worker.predict(b"a,b\n1\n", "text/csv")) == "table_invalid"
    assert code_of(worker.predict(picture(), "image/png")) == "unsupported_media_type"
    assert code_of(worker.predict(picture())) == "unsupported_media_type"


def test_raw_tensors_are_checked_by_name_dtype_and_shape(worker: WorkerProcess) -> None:
    ready(worker, inputs=X)
    good = np.ones((3, 2), dtype=np.float32)
    assert worker.predict({"x": good})["outputs"]["checksum"].tolist() == [2, 2, 2]
    assert worker.predict(npy(good))["outputs"]["y"].tolist() == (good * 2).tolist()
    assert worker.predict(npz(x=good.astype(np.int64)), "application/x-npz")["outputs"]["y"].dtype == np.float32
    assert worker.predict(b'{"inputs": {"x": [[1, 2]]}}')["outputs"]["checksum"].tolist() == [3]
    assert code_of(worker.predict({"z": good})) == "unknown_input"
    assert code_of(worker.predict({"x": good[:, :1]})) == "invalid_shape"
    assert code_of(worker.predict({"x": np.array([["a", "b"]])})) == "invalid_dtype"
    assert code_of(worker.predict({"x": good[:0]})) == "nothing_to_predict"
    assert code_of(worker.predict(b"hello", "application/octet-stream")) == "unsupported_media_type"
    assert code_of(worker.predict(npy(good)[:-3], "application/x-npy")) == "malformed"


def test_one_array_for_several_inputs_names_them(worker: WorkerProcess) -> None:
    ready(worker, inputs=(*X, TensorSpec("z", "float32", (-1, 1))))
    error = worker.predict(npy(np.ones((1, 2))))["error"]
    assert error["code"] == "unknown_input"
    assert "'x', 'z'" in error["message"]
    uneven = {"x": np.ones((2, 2), np.float32), "z": np.ones((1, 1), np.float32)}
    assert code_of(worker.predict(uneven)) == "invalid_shape"


def test_scores_that_are_no_numbers_are_no_answer(worker: WorkerProcess) -> None:
    ready(
        worker, "tabular-classification", inputs=X, columns=("a", "b"), labels=("p", "q"), options={"nan_on_value": 13}
    )
    good, bad = worker.predict([{"a": 1, "b": 1}, {"a": 13, "b": 1}])["result"]["value"]
    assert "predictions" in good
    assert bad["error"]["code"] == "model_error"
    assert code_of(worker.predict([{"a": 13, "b": 1}])) == "model_error"


# -- refine ------------------------------------------------------------------------------------------------------------
def test_refining_answers_again_without_the_model(worker: WorkerProcess, tmp_path: Path) -> None:
    started = tmp_path / "started"
    options = {"started_file": str(started)}
    ready(worker, "tabular-classification", inputs=X, columns=("a", "b"), labels=("p", "q", "r"), options=options)
    full = worker.predict([{"a": 1, "b": 1}])["result"]["value"]
    started.unlink()

    def refine(prediction: str, **params: Any) -> Message:
        worker.send({"type": "refine", "id": "q1", "prediction": prediction, "params": params})
        return worker.receive()

    message = refine("r", top_k=1)
    result = {"kind": "predictions", "value": full[:1]}
    assert message.header == {"type": "refined", "id": "q1", "result": result, "inferences": 1}
    assert not started.exists()
    assert refine("never").header["error"]["code"] == "prediction_expired"
    assert refine("r", top_k=0).header["error"]["code"] == "malformed"
    for _ in range(8):
        worker.run_batch(*(item_of(f"n{worker._next}-{i}", [{"a": 1, "b": 1}]) for i in range(8)))
    assert refine("r").header["error"]["code"] == "prediction_expired"


# -- the end -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["stop", "eof"])
def test_the_process_ends_at_once_even_while_it_computes(worker: WorkerProcess, how: str) -> None:
    ready(worker, inputs=X, options={"hang_on_value": 1})
    worker.send_batch(1, item_of("a", rows(1)))
    assert worker.receive().type == "started"
    if how == "stop":
        worker.send({"type": "stop"})
    else:
        assert worker.process.stdin is not None
        worker.process.stdin.close()
    assert worker.exit_code() == 0


def test_what_a_model_prints_never_reaches_the_channel(worker: WorkerProcess) -> None:
    ready(worker, inputs=X, options={"noise": True})
    for i in range(30):
        assert worker.predict(rows(i))["outputs"]["checksum"] == [i + 1]
    worker.send({"type": "stop"})
    assert worker.exit_code() == 0
    assert "noise on standard output" in worker.errors()


def test_a_crash_takes_the_process_and_nothing_is_answered(worker: WorkerProcess, tmp_path: Path) -> None:
    options = {"crash_on_value": 666, "crash_times": 1, "counter_file": str(tmp_path / "count")}
    ready(worker, inputs=X, options=options)
    worker.send_batch(1, item_of("a", rows(666)))
    worker.receive_end()
    assert worker.exit_code() == 9
    with WorkerProcess() as second:
        ready(second, inputs=X, options=options)
        assert second.predict(rows(666))["outputs"]["checksum"] == [667]


def test_a_lost_device_ends_the_process(worker: WorkerProcess) -> None:
    ready(worker, inputs=X, options={"lost_on_value": 5})
    worker.send_batch(1, item_of("a", rows(5)))
    worker.receive_end()
    assert worker.exit_code() == 75


LOAD_AGAIN = {"type": "load", "spec": make_spec().to_json(), "device": "cpu", "threads": 1}


@pytest.mark.parametrize("message", [{"type": "sing"}, {"type": "batch", "batch": 1}, LOAD_AGAIN])
def test_a_parent_that_breaks_the_protocol_ends_the_worker(worker: WorkerProcess, message: dict[str, Any]) -> None:
    ready(worker, inputs=X)
    worker.send(message)
    assert worker.receive_end() is None
    assert worker.exit_code() not in (0, -signal.SIGKILL)
    assert "ProtocolError" in worker.errors()


def test_a_thread_that_fails_takes_the_process_with_it(worker: WorkerProcess) -> None:
    """Half a worker would leave every later request without an answer."""
    ready(worker, inputs=X)
    worker.send({"type": "refine"})
    assert worker.receive_end() is None
    assert worker.exit_code() == 70
    assert "KeyError" in worker.errors()


# -- lies --------------------------------------------------------------------------------------------------------------
BROKEN_FRAMES = {"garbage", "pickle", "partial_frame", "huge_header", "huge_buffer"}


@pytest.mark.parametrize("lie", sorted(BROKEN_FRAMES))
def test_lies_in_the_frame_are_seen_by_the_reader(worker: WorkerProcess, lie: str, tmp_path: Path) -> None:
    ready(worker, inputs=X, options={"lie": lie, "pickle_file": str(tmp_path / "made")})
    worker.send_batch(1, item_of("a", rows(1)))
    assert isinstance(worker.receive_end(), ProtocolError)
    assert not (tmp_path / "made").exists()


def test_lies_in_the_message_are_what_they_say(tmp_path: Path) -> None:
    replies: dict[str, list[Message]] = {}
    for lie in sorted(set(LIES) - BROKEN_FRAMES - {"stalled_frame", "flood"}):
        options = {"lie": lie, "lie_times": 1, "counter_file": str(tmp_path / lie)}
        with WorkerProcess() as worker:
            ready(worker, inputs=X, options=options)
            worker.send_batch(1, item_of("a", rows(1, 2)), item_of("b", rows(3)))
            assert worker.receive().type == "started"
            replies[lie] = [worker.receive()]
            worker.send_batch(2, item_of("c", rows(3)))
            while (message := worker.receive()).type != "started":
                replies[lie].append(message)
            assert read_done(worker.receive())[0]["outputs"]["checksum"] == [4]  # it lies once
    with pytest.raises(ProtocolError):
        read_done(replies["wrong_length"][0])
    assert read_done(replies["wrong_shape"][0])[0]["outputs"]["checksum"].shape == (3,)
    assert replies["wrong_id"][0].header["items"][0]["id"] == "nobody-a"
    assert [i["id"] for i in replies["missing_item"][0].header["items"]] == ["a"]
    assert replies["not_a_result"][0].header["items"][0]["result"] == 42
    assert len(replies["duplicate_done"]) == 2
    assert [m.type for m in replies["started_twice"]] == ["started", "done"]
    assert [m.type for m in replies["many_streams"]] == ["prepared", "done"]
