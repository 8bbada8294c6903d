"""Parsers under atheris, which changes its inputs towards code that it has not seen yet.

    python -m tests.fuzz.atheris_parsers TARGET FOLDER SECONDS

``FOLDER`` gets the corpus and what was found. The exit status is 0 where nothing was, and 3 where atheris cannot be
imported; why is printed.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

LONGEST_INPUT = 4096
MEMORY_MB = 3000
"""Of the whole process: an archive may unpack to 512 MiB."""


def main(name: str, folder: Path, seconds: float) -> int:
    try:
        import atheris
    except ImportError as error:
        print(f"atheris cannot be imported here, so {name} is not fuzzed by it: {error}")  # noqa: T201  # its output
        return 3
    with atheris.instrument_imports(include=["engine", "embedded_server", "werkzeug.sansio", "numpy.lib._format_impl"]):
        from tests.fuzz.parsers import TARGETS
    warnings.simplefilter("ignore")  # of libraries, about inputs that are meant to be odd
    target = TARGETS[name]
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [
        f"-max_total_time={max(1, round(seconds))}", f"-max_len={LONGEST_INPUT}", f"-rss_limit_mb={MEMORY_MB}",
        "-timeout=20", f"-artifact_prefix={folder}/", "-print_final_stats=1",
        "-reduce_inputs=0",  # the shortest input for a line of ours is an empty array, which C code passes over
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.check)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])))
