"""Settling a Future that somebody else may cancel, or settle, at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeVar

T = TypeVar("T")


def resolve(future: Future[T], value: T) -> bool:
    """Set the result; False where the future was settled or cancelled before."""
    try:
        future.set_result(value)
    except InvalidStateError:
        return False
    return True


def reject(future: Future[T], error: BaseException) -> bool:
    """Set the exception; False where the future was settled or cancelled before."""
    try:
        future.set_exception(error)
    except InvalidStateError:
        return False
    return True


def all_settled(futures: Sequence[Future[Any]]) -> Future[None]:
    """Done once every one of ``futures`` is, whatever became of it; at once where there are none."""
    everything: Future[None] = Future()
    lock = threading.Lock()
    left = len(futures)

    def one_less(_: Future[Any]) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = left == 0
        if last:
            resolve(everything, None)

    for future in futures:
        future.add_done_callback(one_less)
    if not futures:
        resolve(everything, None)
    return everything
