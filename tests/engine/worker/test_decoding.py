"""The pictures of a batch are decoded side by side, in order, within one bound of memory; nothing else is."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.errors import EngineError, UnusableInput
from engine.model_spec import Preprocessing, TensorSpec
from engine.protocol import Buffer
from engine.worker import decoding, images
from engine.worker.decoding import MOST_THREADS, WORTH_BYTES, PictureDecoding, is_worth_a_thread
from engine.worker.images import PixelBudget, decode_image
from engine.worker.work import Form, Work
from tests.engine.worker.process import WorkerProcess, item_of, make_spec, read_done

PATIENCE_S = 30.0
PICTURE = b"\xff\xd8\xff" + bytes(WORTH_BYTES)
ROW = [{"a": 1}]


@dataclass
class Batch:
    items: list[dict[str, Any]] = field(default_factory=list)
    buffers: list[Sequence[Buffer]] = field(default_factory=list)
    recalled: bool = False


def batch_of(*inputs: Any) -> Batch:
    batch = Batch()
    for number, data in enumerate(inputs):
        item, buffers = item_of(str(number), data)
        batch.items.append(item)
        batch.buffers.append(buffers)
    return batch


def work_of(item: dict[str, Any]) -> Work:
    return Work(item["id"], Form.PREDICTIONS, {})


def names(works: list[Work | EngineError]) -> list[str]:
    return [work.id if isinstance(work, Work) else str(work) for work in works]


def test_two_pictures_are_decoded_at_the_same_time_and_stay_in_order() -> None:
    both = threading.Barrier(2)

    def decode(item: dict[str, Any], _buffers: Sequence[Buffer]) -> Work | EngineError:
        if item["kind"] == "bytes":
            both.wait(PATIENCE_S)  # broken, and so an error, unless two threads are here
        return work_of(item) if item["id"] != "3" else UnusableInput("Number 3 is damaged.", code="image_invalid")

    works = PictureDecoding(decode, 2).decode_all(batch_of(PICTURE, ROW, PICTURE, PICTURE, PICTURE, ROW))
    assert names(works) == ["0", "1", "2", "Number 3 is damaged.", "4", "5"]


def threads_of(decode_all: Callable[[PictureDecoding], object], threads: int) -> list[int]:
    used: list[int] = []

    def decode(item: dict[str, Any], _buffers: Sequence[Buffer]) -> Work | EngineError:
        used.append(threading.get_ident())
        return work_of(item)

    decode_all(PictureDecoding(decode, threads))
    return used


@pytest.mark.parametrize(
    "inputs",
    [
        (ROW, ROW, ROW),
        (b'{"x": [1, 2]}', b'{"x": [1, 2]}'),
        (b"\xff\xd8\xff" + bytes(100), b"\xff\xd8\xff" + bytes(100)),
        (b"a,b\n" + b"1,2\n" * WORTH_BYTES, b"a,b\n" + b"1,2\n" * WORTH_BYTES),
        ({"x": np.zeros((WORTH_BYTES, 1))}, {"x": np.zeros((WORTH_BYTES, 1))}),
        (PICTURE, ROW),
    ],
    ids=["rows", "json", "small-pictures", "tables", "tensors", "one-picture"],
)
def test_nothing_but_several_pictures_leaves_the_thread_of_the_caller(inputs: tuple[Any, ...]) -> None:
    assert set(threads_of(lambda pictures: pictures.decode_all(batch_of(*inputs)), 4)) == {threading.get_ident()}


def test_on_one_core_pictures_do_not_either() -> None:
    used = threads_of(lambda pictures: pictures.decode_all(batch_of(PICTURE, PICTURE, PICTURE)), 1)
    assert used == [threading.get_ident()] * 3


def test_forms_are_taken_for_pictures_and_bodies_of_protocols_are_not() -> None:
    item, buffers = item_of("a", bytes(WORTH_BYTES), "multipart/form-data; boundary=x")
    assert is_worth_a_thread(item, buffers)
    item, buffers = item_of("a", memoryview(PICTURE).tobytes(), "image/jpeg")
    assert is_worth_a_thread(item, [memoryview(buffers[0])])
    assert not is_worth_a_thread(item | {"wire": {"protocol": "open-inference"}}, buffers)


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (3, 3), (64, MOST_THREADS)])
def test_never_more_threads_than_cores_or_four(cores: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "usable_cores", lambda: cores)
    together = threading.Barrier(expected)
    used: set[int] = set()

    def decode(item: dict[str, Any], _buffers: Sequence[Buffer]) -> Work | EngineError:
        used.add(threading.get_ident())
        together.wait(PATIENCE_S)  # all of them, or the barrier breaks
        return work_of(item)

    PictureDecoding(decode).decode_all(batch_of(*[PICTURE] * (2 * expected)))
    assert len(used) == expected


def test_a_batch_that_is_recalled_meanwhile_is_decoded_no_further() -> None:
    for inputs, most in (([PICTURE] * 20, 2), ([ROW] * 20, 1)):
        batch = batch_of(*inputs)

        def decode(item: dict[str, Any], _buffers: Sequence[Buffer], batch: Batch = batch) -> Work | EngineError:
            batch.recalled = True
            return work_of(item)

        assert 1 <= len(PictureDecoding(decode, 2).decode_all(batch)) <= most


def test_a_fault_in_any_thread_is_raised() -> None:
    caller = threading.get_ident()
    entered = threading.Barrier(2)

    def decode(item: dict[str, Any], _buffers: Sequence[Buffer]) -> Work | EngineError:
        entered.wait(PATIENCE_S)
        if threading.get_ident() != caller:
            raise RuntimeError("a fault")
        return work_of(item)

    with pytest.raises(RuntimeError, match="a fault"):
        PictureDecoding(decode, 2).decode_all(batch_of(PICTURE, PICTURE))


# -- memory ------------------------------------------------------------------------------------------------------------
def test_a_picture_waits_until_it_fits_beside_the_others() -> None:
    budget = PixelBudget(100)
    order: list[str] = []
    first_holds, second_asks = threading.Event(), threading.Event()

    def second() -> None:
        first_holds.wait(PATIENCE_S)
        with budget.shared():
            second_asks.set()
            budget.claim(40)
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with budget.shared():
        budget.claim(70)
        first_holds.set()
        assert second_asks.wait(PATIENCE_S)
        thread.join(0.1)  # the second would be through long since
        order.append("first")
        budget.claim(60)  # its next picture: the one before no longer counts, and 60 and 40 fit
    thread.join(PATIENCE_S)
    assert order == ["first", "second"]


def test_a_picture_of_all_there_is_fits_alone_and_outside_nothing_is_counted() -> None:
    budget = PixelBudget(100)
    budget.claim(1000)
    for _ in range(2):
        with budget.shared():
            budget.claim(100)
            budget.claim(100)


def test_what_is_decoded_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    claimed: list[int] = []
    monkeypatch.setattr(images.PIXELS, "claim", claimed.append)
    stream = io.BytesIO()
    Image.new("RGB", (64, 32)).save(stream, "JPEG")
    decode_image(stream.getvalue())
    decode_image(stream.getvalue(), lambda _size: (8, 4))
    assert claimed == [64 * 32, 8 * 4]


# -- in the worker -----------------------------------------------------------------------------------------------------
def noisy(value: int) -> bytes:
    """A PNG too large to be small, whose first pixel is ``value``."""
    pixels = np.random.default_rng(value).integers(0, 256, (120, 120), dtype=np.uint8)
    pixels[0, 0] = value
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    assert len(stream.getvalue()) > WORTH_BYTES
    return stream.getvalue()


def test_a_batch_of_pictures_is_answered_as_each_of_them_is_alone() -> None:
    tensor = TensorSpec("image", "float32", (-1, 120, 120, 1))
    how = Preprocessing(channel_order="grayscale", scaling="0..255")
    with WorkerProcess() as worker:
        spec = make_spec("image-classification", inputs=(tensor,), preprocessing=how, labels=("a", "b", "c"))
        assert worker.load(spec).type == "ready"
        bodies = [noisy(1), noisy(2), noisy(3)[:9000], noisy(4), b"no picture", noisy(5)]
        alone = []
        for number, body in enumerate(bodies):
            worker.send_batch(number, item_of("alone", body))
            assert worker.receive().type == "started"
            alone += read_done(worker.receive())
        worker.send_batch(99, *(item_of(str(n), body) for n, body in enumerate(bodies)))
        assert worker.receive().type == "started"
        together = read_done(worker.receive())
        told = [(item.get("result"), item.get("error")) for item in together]
        assert told == [(item.get("result"), item.get("error")) for item in alone]
        assert [item["id"] for item in together] == [str(n) for n in range(6)]
        assert [item["error"]["code"] for item in together if "error" in item] == ["image_invalid", "image_format"]
