"""The only package that touches waitress: parser, channel, threads, drain and close.

waitress 3.0.2 has no supported stop; this package uses names it does not promise. It is pinned exactly, and
``tests/embedded_server/test_waitress_contract.py`` holds every name and fact used here.
"""

from embedded_server.waitress_adapter.channel import Pace
from embedded_server.waitress_adapter.limits import adjustments
from embedded_server.waitress_adapter.server import HttpServer

__all__ = ["HttpServer", "Pace", "adjustments"]
