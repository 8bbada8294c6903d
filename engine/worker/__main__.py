"""``python -m engine.worker``: one model's process; with ``--spare FRAMEWORK`` one that imports it before its model is
known; with ``--inspect`` the framework-free inspector, with ``--capture`` a camera's."""

from __future__ import annotations

import logging
import os
import sys

from engine.worker.sandbox import Reached, enter_as_ordered


def main(arguments: list[str]) -> None:
    # Before anything that reads a file or starts a thread. A camera's process needs its device, and runs no model.
    reached = Reached() if "--capture" in arguments else enter_as_ordered()
    from engine.worker.channel import Channel

    channel = Channel.from_standard_streams()
    # Standard error: the parent keeps its last lines for "Details".
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if "--inspect" in arguments:
        from engine.worker.inspector import Inspector

        sys.exit(Inspector(channel, reached).run())
    if "--capture" in arguments:
        from engine.worker.capture.loop import CaptureLoop

        # Not by the interpreter's own way out: it would wait for a driver that stands still.
        os._exit(CaptureLoop(channel).run())
    if "--spare" in arguments:
        from engine.worker.spare import become_worker

        if not become_worker(channel, arguments[arguments.index("--spare") + 1], reached):
            return
    from engine.worker.loop import WorkerLoop, leave_process

    # Threads may be deep inside a framework: the interpreter's own way out would wait for them, or pull it from
    # under them.
    leave_process(WorkerLoop(channel, reached=reached).run())


if __name__ == "__main__":
    main(sys.argv[1:])
