"""The pictures of a batch, decoded side by side: Pillow lets go of the interpreter while it decodes and resizes.

Only encoded pictures that are worth it leave the decoding thread, and only where there are several; a row of JSON never
costs a hop to another thread. What is in memory at once is bounded in pixels, as if they were decoded one by one.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from engine.codecs import media_types
from engine.errors import EngineError
from engine.protocol import Buffer
from engine.worker.images import PIXELS, sniff_image
from engine.worker.work import Work

Decode = Callable[[dict[str, Any], Sequence[Buffer]], Work | EngineError]

MOST_THREADS = 4
WORTH_BYTES = 8 << 10
"""Of an encoded picture. One of that size takes several times as long to decode as another thread takes to wake."""
_HEAD_BYTES = 64


class Undecoded(Protocol):
    """A batch: its items as they came, the buffers of each, and whether nobody waits for it any more."""

    items: list[dict[str, Any]]
    buffers: list[Sequence[Buffer]]
    recalled: bool


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class PictureDecoding:
    """Decodes batches, in one thread of the caller's and up to ``threads`` - 1 of its own.

    ``decode`` makes of an item and its buffers what it becomes, errors included. Whatever it raises is a fault, and is
    raised again by :meth:`decode_all`.
    """

    def __init__(self, decode: Decode, threads: int | None = None) -> None:
        self._decode = decode
        self._beside = min(threads or usable_cores(), MOST_THREADS) - 1
        self._pool = ThreadPoolExecutor(max(1, self._beside), thread_name_prefix="decode")

    def decode_all(self, batch: Undecoded) -> list[Work | EngineError]:
        """What the items of ``batch`` became, in their order; a batch that is recalled meanwhile ends short."""
        decoded: dict[int, Work | EngineError] = {}
        others, pictures = deque(range(len(batch.items))), deque[int]()
        if self._beside and len(others) > 1:
            pictures.extend(n for n in others if is_worth_a_thread(batch.items[n], batch.buffers[n]))
        beside = min(self._beside, len(pictures) - 1)
        if beside > 0:
            others = deque(n for n in others if n not in pictures)
            helping = [self._pool.submit(self._work_off, pictures, batch, decoded) for _ in range(beside)]
            self._work_off(others, batch, decoded)
            self._work_off(pictures, batch, decoded)
            for each in helping:
                if not each.cancel():  # one that has not begun finds nothing left to do
                    each.result()
        else:
            self._work_off(others, batch, decoded)
        return [decoded[n] for n in sorted(decoded)]

    def _work_off(self, numbers: deque[int], batch: Undecoded, decoded: dict[int, Work | EngineError]) -> None:
        with PIXELS.shared():
            while not batch.recalled:
                try:
                    number = numbers.popleft()
                except IndexError:
                    return
                decoded[number] = self._decode(batch.items[number], batch.buffers[number])


def is_worth_a_thread(item: Mapping[str, Any], buffers: Sequence[Buffer]) -> bool:
    """Whether an item is an encoded picture of some size, or a form that may hold one."""
    if item["kind"] != "bytes" or item.get("wire") is not None or len(buffers) != 1:
        return False
    body = memoryview(buffers[0])
    if body.nbytes < WORTH_BYTES:
        return False
    return media_types.media_type(item.get("content_type")) == media_types.MULTIPART or (
        sniff_image(bytes(body[:_HEAD_BYTES])) is not None
    )
