"""Coverage-guided fuzzing (atheris) of everything that reads a stranger's bytes: `python -m faults.fuzz TARGET` and
options of libFuzzer, or `make fuzz SECONDS=60`. An execution passes where it returns or refuses in three parts.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["capnet", "ijson", "yaml"]):
    from faults.fuzz_targets import TARGETS, seeds

    from capnet.data.images.decode import Unusable
    from capnet.errors import CapnetError


def main() -> None:
    name, *options = sys.argv[1:]
    warnings.simplefilter("ignore")
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a file on a disk takes longer than reading it
    corpus, root = (Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-", dir=memory)) for _ in range(2))
    for number, content in enumerate(seeds(name)):
        (corpus / str(number)).write_bytes(content)
    target = TARGETS[name]

    def once(data: bytes) -> None:
        try:
            target(root, data)
        except CapnetError as error:
            if not all(problem.what and problem.where and problem.todo for problem in error.problems):
                raise AssertionError(f"not in three parts: {error}") from error
        except Unusable as error:
            if not str(error):
                raise AssertionError("no reason") from error

    try:
        atheris.Setup([sys.argv[0], str(corpus), "-rss_limit_mb=2048", "-timeout=20", "-max_len=8192", *options], once)
        atheris.Fuzz()
    finally:
        for folder in (corpus, root):
            shutil.rmtree(folder, ignore_errors=True)
        os.chdir("/")


if __name__ == "__main__":
    main()
