"""What a server is made of once it is switched on: the Flask application, its hot lane, waitress, TLS in front of it.

Imported then and not before: a window that serves nobody does without Flask and all that comes with it (18 MB).
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from embedded_server.app import create_app
from embedded_server.body_budget import BodyBudget, affordable
from embedded_server.door import Door
from embedded_server.hot_lane import hot_lane
from embedded_server.tls_server import TlsServer
from embedded_server.tls_terminator import tls_context
from embedded_server.waitress_adapter import HttpServer, Pace, adjustments
from engine.ports import EnginePort
from engine.prediction import Lane
from engine.settings import ServerSettings

if TYPE_CHECKING:
    from embedded_server.certificates import ServerCertificate


def host(
    engine: EnginePort,
    settings: ServerSettings,
    listener: socket.socket,
    door: Door,
    certificate: ServerCertificate | None,
    *,
    on_refused: Callable[[str, str, Lane, str], None],
    on_death: Callable[[], None],
) -> HttpServer | TlsServer:
    """A server behind ``door`` on ``listener`` (bound and listening, owned from here on), with TLS where there is a
    ``certificate``; it is still to be started. ``on_refused`` and ``on_death`` as
    :class:`~embedded_server.waitress_adapter.HttpServer` has them."""
    if certificate is None:
        kind: Callable[..., HttpServer | TlsServer] = HttpServer
    else:
        context = tls_context(certificate.certificate_file, certificate.key_file)
        kind = functools.partial(TlsServer, context=context)
    app = create_app(engine, settings, door=door)
    return kind(
        app,
        listener,
        adjustments(settings),
        connections=settings.connections,
        connections_per_address=settings.connections_per_address,
        on_refused=on_refused,
        on_death=on_death,
        check=door.check,
        budget=BodyBudget(affordable(settings.bodies_bytes, settings.body_bytes)),
        pace=Pace(settings.head_timeout_s, settings.body_timeout_s, settings.reply_timeout_s),
        lane=hot_lane(app) if settings.hot_lane else None,
    )
