"""Settling a Future that somebody else may cancel, or settle, at the same moment."""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from typing import TypeVar

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
