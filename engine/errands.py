"""What the engine does for itself on the side: reading a golden sample, writing a sidecar."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from engine.errors import EngineClosed, EngineError, InternalError
from engine.futures import reject, resolve

log = logging.getLogger(__name__)

T = TypeVar("T")
_THREADS = 2


class Errands:
    """Errands read and write disks and return; they never wait for a model."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="engine-errand")

    def later(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call it on another thread, soon. Dropped where the engine is closing."""

        def run() -> None:
            try:
                function(*arguments)
            except Exception:
                log.exception("an errand failed")

        try:
            self._pool.submit(run)
        except RuntimeError:
            log.debug("an errand came after the engine was closed")

    def ask(self, function: Callable[[], T]) -> Future[T]:
        """The result of ``function``, called on another thread. Errors come through the future as EngineErrors."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                value = function()
            except EngineError as error:
                reject(future, error)
            except Exception as error:
                log.exception("an errand failed")
                reject(future, InternalError("Something unexpected went wrong.", details=repr(error)))
            else:
                resolve(future, value)

        try:
            self._pool.submit(run)
        except RuntimeError:
            reject(future, EngineClosed())
        return future

    def close(self) -> None:
        """Finish what was begun, then end."""
        self._pool.shutdown(wait=True)
