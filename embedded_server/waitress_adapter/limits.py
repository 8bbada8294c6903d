"""waitress's settings as data, made from ours."""

from __future__ import annotations

import select
from typing import Any

from engine.settings import ServerSettings

SPARE_THREADS = 8
"""Threads above the requests inside the engine: health, pages and refusals are answered in a full house."""
SPARE_CONNECTIONS = 64


def adjustments(settings: ServerSettings) -> dict[str, Any]:
    """Keyword arguments of ``waitress.adjustments.Adjustments``. Sizes in bytes, times in seconds.

    waitress refuses at ``>=`` its limits, hence the ``+ 1``. Its own connection limit stops accepting in silence, so it
    lies above ours, which answers 503. The overflow limits keep people's pictures off the disk.
    """
    return {
        "threads": settings.requests_inside + SPARE_THREADS,
        "connection_limit": settings.connections + SPARE_CONNECTIONS,
        "channel_timeout": 15,
        "cleanup_interval": 1,
        "channel_request_lookahead": 1,
        "asyncore_use_poll": hasattr(select, "poll"),
        "ident": None,
        "expose_tracebacks": False,
        "recv_bytes": 262_144,
        "inbuf_overflow": settings.body_bytes + 2,
        "outbuf_overflow": settings.body_bytes + 2,
        "max_request_header_size": settings.header_bytes + 1,
        "max_request_body_size": settings.body_bytes + 1,
        "clear_untrusted_proxy_headers": True,
        "log_socket_errors": False,
    }
