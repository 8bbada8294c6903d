"""The network's door: an HTTP server on the engine, started and stopped from the window or headless."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_server.controller import ServeOptions, ServerController
from engine.serving_types import ServerState

if TYPE_CHECKING:
    from embedded_server.app import create_app

__all__ = ["ServeOptions", "ServerController", "ServerState", "create_app"]


def __getattr__(name: str) -> Any:
    """``create_app`` comes with Flask, which nobody needs before a server is switched on."""
    if name == "create_app":
        from embedded_server.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
