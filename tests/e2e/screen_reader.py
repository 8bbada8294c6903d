"""A screen reader's part: the real program, known through the accessibility bus alone.

Started by ``test_screen_reader.py`` as ``python -m tests.e2e.screen_reader FOLDER`` inside ``dbus-run-session`` on a
display of its own; writes what it found as JSON to ``FOLDER/seen.json``. Everything it knows of the window came over
AT-SPI; it asks with an action of that bus, and turns the pages by keyboard.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jeepney import DBusAddress, MatchRule, message_bus, new_method_call
from jeepney.io.blocking import DBusConnection, open_dbus_connection
from jeepney.wrappers import DBusErrorResponse, unwrap_msg

from tests.e2e.program import DIGITS_TORCH, PATIENCE_S, Program

REGISTRY = "org.a11y.atspi.Registry"
ROOT_PATH = "/org/a11y/atspi/accessible/root"
ACCESSIBLE = "org.a11y.atspi.Accessible"
# Bits of a state, as numbered by AT-SPI (AtspiStateType).
CHECKED, FOCUSABLE, SHOWING = 4, 11, 25
LOOK_AGAIN_S = 1.0
"""Not every change is told: a name that is painted, for one."""


@dataclass
class Node:
    """One object of the tree, with those below it that are on the screen."""

    owner: str
    path: str
    name: str
    role: str
    states: int
    children: list[Node] = field(default_factory=list)

    def has(self, state: int) -> bool:
        return bool(self.states >> state & 1)

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            yield from child.walk()

    def find(self, role: str, name: str = "") -> list[Node]:
        """Those of ``role`` on the screen, in their order; with ``name``, those whose name is it or ends in it."""
        return [
            node for node in self.walk()
            if node.role == role and node.has(SHOWING) and (not name or node.name.split()[-1:] == [name])
        ]  # fmt: skip


class Desktop:
    """The accessibility bus, as a screen reader uses it."""

    def __init__(self) -> None:
        with open_dbus_connection() as session:
            # Asking for its address starts the bus, where nothing else has.
            (address,) = call(session, "org.a11y.Bus", "/org/a11y/bus", "org.a11y.Bus", "GetAddress")
        self.bus = open_dbus_connection(address)
        # Programs tell what changes only where somebody listens.
        call(self.bus, REGISTRY, "/org/a11y/atspi/registry", REGISTRY, "RegisterEvent", "s", "object")
        self._changes = MatchRule(type="signal", interface="org.a11y.atspi.Event.Object")
        unwrap_msg(self.bus.send_and_get_reply(message_bus.AddMatch(self._changes)))

    def look(self, owner: str, path: str) -> Node:
        """The tree below an object, without what is not on the screen."""
        name = call(self.bus, owner, path, "org.freedesktop.DBus.Properties", "Get", "ss", ACCESSIBLE, "Name")[0][1]
        (role,) = call(self.bus, owner, path, ACCESSIBLE, "GetRoleName")
        ((low, high),) = call(self.bus, owner, path, ACCESSIBLE, "GetState")
        node = Node(owner, path, name, role, low | high << 32)
        if node.has(SHOWING) or role == "application":
            (below,) = call(self.bus, owner, path, ACCESSIBLE, "GetChildren")
            node.children = [self.look(*child) for child in below]
        return node

    def applications(self) -> list[Node]:
        (below,) = call(self.bus, REGISTRY, ROOT_PATH, ACCESSIBLE, "GetChildren")
        return [self.look(*child) for child in below]

    def until(self, found: Callable[[list[Node]], Any], what: str) -> Any:
        """Look at the whole desktop after each change until ``found`` has something."""
        deadline = time.monotonic() + PATIENCE_S
        applications: list[Node] = []
        while time.monotonic() < deadline:
            with self.bus.filter(self._changes, bufsize=1) as changes:
                try:
                    applications = self.applications()
                    if value := found(applications):
                        return value
                except DBusErrorResponse:  # what was just told of is gone again: the next look will not meet it
                    continue
                try:
                    self.bus.recv_until_filtered(changes, timeout=LOOK_AGAIN_S)
                except TimeoutError:
                    continue
        heard = [(n.role, n.name) for application in applications for n in application.walk() if n.has(SHOWING)]
        raise AssertionError(f"did not come: {what}; on the bus: {heard}")

    def press(self, node: Node) -> None:
        """The first action of ``node``, which presses a button and checks a box."""
        (done,) = call(self.bus, node.owner, node.path, "org.a11y.atspi.Action", "DoAction", "i", 0)
        assert done, f"{node.role} {node.name} cannot be pressed"


def call(
    bus: DBusConnection, owner: str, path: str, interface: str, member: str, signature: str | None = None, *args: Any
) -> tuple[Any, ...]:
    """The answer of one method."""
    message = new_method_call(DBusAddress(path, owner, interface), member, signature, args)
    return unwrap_msg(bus.send_and_get_reply(message, timeout=PATIENCE_S))


def nameless(application: Node) -> list[str]:
    """What can have the keyboard on this page and could not be said by a screen reader."""
    return [
        f"{node.role} at {node.path}"
        for node in application.walk()
        if node.has(FOCUSABLE) and node.has(SHOWING) and not node.name.strip()
    ]


def session(program: Program) -> dict[str, Any]:
    """Find the window, ask a sample of the model, hear the answer, and go through the pages."""
    desktop = Desktop()

    def ours(applications: list[Node]) -> Node | None:
        return next((a for a in applications if a.name == "Deskside"), None)

    def here(found: Callable[[Node], Any]) -> Callable[[list[Node]], Any]:
        return lambda applications: (application := ours(applications)) and found(application)

    seen: dict[str, Any] = {"pages": []}
    window = desktop.until(here(lambda deskside: deskside.find("frame")), "the window")[0]
    seen["window"] = window.name

    def sample_of_the_open_model(deskside: Node) -> list[Node]:
        """The start page, there until the load begins, shows samples too, and the bundled models by their titles."""
        return [] if deskside.find("push button", "PyTorch") else deskside.find("push button", "digit-7.png")

    (sample,) = desktop.until(here(sample_of_the_open_model), "the sample")
    assert not here(lambda deskside: deskside.find("label", "7"))(desktop.applications())
    desktop.press(sample)
    seen["answer"] = desktop.until(here(lambda deskside: deskside.find("label", "7")), "the answer")[0].name

    window_id = xdotool("search", "--onlyvisible", "--name", f"^{window.name}$").split()[0]
    xdotool("windowfocus", window_id)
    for number, keys in enumerate(("ctrl+1", "ctrl+2", "ctrl+comma")):

        def is_open(deskside: Node, number: int = number) -> Node | None:
            rail = [node for node in deskside.walk() if node.role in ("check box", "radio button")]
            return deskside if rail[number].has(CHECKED) else None

        xdotool("key", keys)
        page = desktop.until(here(is_open), f"the page of {keys}")
        focusable = sum(node.has(FOCUSABLE) and node.has(SHOWING) for node in page.walk())
        seen["pages"].append({"focusable": focusable, "nameless": nameless(page)})

    seen["exit"] = program.stop()
    desktop.until(lambda applications: not ours(applications) or None, "the program's leaving the bus")
    return seen


def xdotool(*words: str) -> str:
    """What one command of xdotool says."""
    return subprocess.run(["xdotool", *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def main(folder: Path) -> None:
    program = Program([DIGITS_TORCH], folder / "home", QT_QPA_PLATFORM="xcb")
    try:
        seen = session(program)
    finally:
        program.stop()
        (folder / "stderr.txt").write_text("\n".join(program.stderr), encoding="utf-8")
    (folder / "seen.json").write_text(json.dumps(seen), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
