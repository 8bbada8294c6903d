"""A worker that has imported its framework before it is known which model it will have.

It is in the sandbox from its start, but for reading: which files its load needs is not known yet, and rules of Landlock
only ever get narrower. Until then nothing of a model is there: what runs is this package and the framework. With the
order of the load it takes on the rules of reading that another worker has from its start, while it is still of one
thread (:func:`~engine.worker.sandbox.narrow`); where that cannot be, the process ends, and the load starts another.
"""

from __future__ import annotations

from importlib import import_module

from engine.protocol import ProtocolError
from engine.worker.channel import Channel
from engine.worker.sandbox import Order, Reached, narrow, where_packages_lie

_MODULES = {
    "torch": ("torch", "engine.worker.runtimes.torchscript"),
    "tensorflow": ("tensorflow", "keras", "engine.worker.runtimes.keras"),
    "numpy": ("numpy",),
}
"""By framework, what its models import. None of these starts a thread or touches a GPU when it is imported."""


def become_worker(channel: Channel, framework: str, reached: Reached) -> bool:
    """Import ``framework``, wait for the order of a load and follow it. False: it is not needed any more.

    Raises KeyError for a framework that is none of ours, ImportError, ProtocolError, NotNarrowed.
    """
    readable = where_packages_lie()  # before a package could change where packages are looked for
    from engine.worker.inputs import WIRES  # not before that: it imports packages itself

    for module in ("engine.worker.loop", *_MODULES[framework], *WIRES.values()):
        import_module(module)
    channel.send({"type": "warm"})
    message = channel.receive()
    if message is None or message.type == "stop":
        return False
    if message.type != "order":
        raise ProtocolError(f"a spare knows no message {message.type!r}")
    if (text := message.header.get("order")) is not None:
        narrow(reached, readable, Order.from_text(text))
    return True
