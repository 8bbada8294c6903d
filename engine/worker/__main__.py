"""``python -m engine.worker``: one model's process; with ``--inspect`` the framework-free inspector."""

from __future__ import annotations

import sys

from engine.worker.channel import Channel


def main(arguments: list[str]) -> int:
    channel = Channel.from_standard_streams()
    if "--inspect" in arguments:
        from engine.worker.inspector import Inspector

        return Inspector(channel).run()
    from engine.worker.loop import WorkerLoop

    return WorkerLoop(channel).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
