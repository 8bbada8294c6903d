"""Futures that several parties settle."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from engine.futures import all_settled, reject, resolve


def test_only_the_first_to_settle_a_future_does() -> None:
    future: Future[int] = Future()
    assert resolve(future, 1)
    assert not resolve(future, 2)
    assert not reject(future, ValueError())
    assert future.result(0) == 1
    cancelled: Future[int] = Future()
    cancelled.cancel()
    assert not resolve(cancelled, 1)


def test_all_are_settled_once_the_last_is_whatever_became_of_them() -> None:
    futures: list[Future[Any]] = [Future(), Future(), Future()]
    done = all_settled(futures)
    resolve(futures[0], None)
    reject(futures[1], ValueError())
    assert not done.done()
    futures[2].cancel()
    assert done.result(0) is None


def test_none_to_wait_for_is_settled_at_once() -> None:
    assert all_settled([]).result(0) is None
