"""A port for a test that has to name one before it is bound."""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """One that nobody listens on, below those that systems give to connections and to port 0 (IANA: from 49152, Linux:
    from 32768): so no other process comes into its way before the test binds it."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as sock:
            try:
                sock.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port
