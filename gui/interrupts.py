"""SIGINT and SIGTERM close the window as a click does.

Qt's loop runs in C++, where Python's signal handlers never get a turn. Python writes the signal's number into a socket
from its C handler (``signal.set_wakeup_fd``); Qt watches that socket, and its slot is the turn they need.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from PySide6.QtCore import QSocketNotifier

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def closing_on_signals(close: Callable[[], object]) -> Iterator[None]:
    """Call ``close`` on the main thread when a signal comes; the handlers before are back at the end."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    notifier = QSocketNotifier(reader.fileno(), QSocketNotifier.Type.Read)
    notifier.activated.connect(lambda *_: reader.recv(64))
    before = {number: signal.signal(number, lambda *_: close()) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        notifier.setEnabled(False)
        reader.close()
        writer.close()
