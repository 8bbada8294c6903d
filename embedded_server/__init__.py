"""The network's door: an HTTP server on the engine, started and stopped from the window or headless."""

from embedded_server.app import create_app
from embedded_server.controller import ServeOptions, ServerController
from engine.serving_types import ServerState

__all__ = ["ServeOptions", "ServerController", "ServerState", "create_app"]
