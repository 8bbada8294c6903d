"""The Flask application: every route answers here, whatever hosts it.

No module-level application, no static folder, no templates, no session. Paths match exactly or not at all: no redirect,
no merged slash.
"""

from __future__ import annotations

from importlib import resources
from importlib.metadata import version as package_version
from typing import Any

import orjson
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from embedded_server.access import AccessRules
from embedded_server.addresses import loopback_rules
from embedded_server.data_plane import DataPlane
from embedded_server.door import Door, DoorMiddleware
from embedded_server.errors import SECURITY_HEADERS, STATUS
from embedded_server.failures import failure
from embedded_server.hot_lane import EXTENSION, LaneParts
from embedded_server.openapi import openapi
from embedded_server.protocols.native import native_routes
from embedded_server.protocols.open_inference import open_inference_routes
from embedded_server.protocols.tensorflow_serving import tensorflow_serving_routes
from embedded_server.reference_page import reference_html
from engine.errors import EngineError
from engine.ports import EnginePort
from engine.settings import ServerSettings

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGES: tuple[tuple[str, str, str], ...] = (
    ("/", "page.html", "text/html; charset=utf-8"),
    ("/docs", "docs.html", "text/html; charset=utf-8"),
    ("/page.js", "page.js", "text/javascript; charset=utf-8"),
    ("/page.css", "page.css", "text/css; charset=utf-8"),
    ("/icon.svg", "icon.svg", "image/svg+xml"),
    ("/openapi.json", "openapi.json", "application/json"),
)
"""What is the same for everybody: path, file in package data (the OpenAPI document is made), content type."""
REFERENCE = b"<!-- reference -->"
"""Where the page for programs has its reference."""


def create_app(
    engine: EnginePort,
    settings: ServerSettings | None = None,
    *,
    rules: AccessRules | None = None,
    door: Door | None = None,
) -> Flask:
    """The application over ``engine``.

    ``rules`` default to this computer on ``settings.port`` without a key. The controller passes its own ``door``
    instead, which carries the rules, the drain and the counters.
    """
    settings = settings or ServerSettings.model_validate({})
    if door is None:
        rules = rules or loopback_rules(settings.port, settings.allowed_hosts)
        door = Door(rules, requests_inside=settings.requests_inside)
    app = Flask("embedded_server", static_folder=None, template_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    plane = DataPlane(engine, door)
    app.register_blueprint(native_routes(plane, settings.body_bytes))
    app.register_blueprint(open_inference_routes(plane, settings))
    app.register_blueprint(tensorflow_serving_routes(plane, settings.body_bytes))
    document = openapi(package_version("deskside"))
    _add_pages(app, document)
    _add_error_handlers(app, door)
    app.after_request(_secure)
    app.wsgi_app = DoorMiddleware(app.wsgi_app, door)  # type: ignore[method-assign]  # Flask's documented way
    app.extensions[EXTENSION] = LaneParts(app, plane, door)
    return app


def _add_pages(app: Flask, document: dict[str, Any]) -> None:
    folder = resources.files("embedded_server.pages") / "static"
    made = {"openapi.json": orjson.dumps(document, option=orjson.OPT_INDENT_2)}
    for path, name, content_type in PAGES:
        data = made[name] if name in made else (folder / name).read_bytes()
        data = data.replace(REFERENCE, reference_html(document).encode())

        def page(data: bytes = data, content_type: str = content_type) -> Response:
            response = Response(data, content_type=content_type)
            response.headers["Content-Security-Policy"] = PAGE_POLICY
            return response

        app.add_url_rule(path, endpoint=f"page:{name}", view_func=page, methods=["GET"])


def _add_error_handlers(app: Flask, door: Door) -> None:
    @app.errorhandler(EngineError)
    @app.errorhandler(HTTPException)
    @app.errorhandler(Exception)
    def on_error(error: Exception) -> Response:
        return failure(door, request, error).as_response()


def _secure(response: Response) -> Response:
    for name, value in SECURITY_HEADERS:
        response.headers.setdefault(name, value)
    return response


__all__ = ["PAGES", "STATUS", "create_app"]
