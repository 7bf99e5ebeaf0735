"""Coverage-guided fuzzing (atheris) of everything that reads a stranger's bytes: `python -m faults.fuzz TARGET` and
options of libFuzzer, or `make fuzz SECONDS=60`. An execution passes where it returns or refuses in three parts. How
many returned says whether the fuzzer reached what lies behind the checks.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import warnings
from contextlib import suppress
from ctypes import c_ulonglong
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["capnet", "ijson", "yaml"]):
    from faults.fuzz_targets import is_read, seeds


def main() -> None:
    name, *options = sys.argv[1:]
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a file on a disk takes longer than reading it
    executed, read = (multiprocessing.Value("Q", lock=False) for _ in range(2))
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-", dir=memory) as folder:
        # libFuzzer ends its process without Python's help, so another one tidies up and counts
        fuzzer = multiprocessing.get_context("fork").Process(
            target=_fuzz, args=(name, options, Path(folder), executed, read)
        )
        fuzzer.start()
        while fuzzer.is_alive():
            with suppress(KeyboardInterrupt):  # which the fuzzer has got as well
                fuzzer.join()
    print(f"{name}: {executed.value:,} executions, of which {read.value:,} were read to the end")
    sys.exit(fuzzer.exitcode)


def _fuzz(name: str, options: list[str], folder: Path, executed: c_ulonglong, read: c_ulonglong) -> None:
    corpus, root = folder / "corpus", folder / "root"
    corpus.mkdir()
    root.mkdir()
    for number, content in enumerate(seeds(name)):
        (corpus / str(number)).write_bytes(content)
    warnings.simplefilter("ignore")

    def once(data: bytes) -> None:
        executed.value += 1
        read.value += is_read(name, root, data)

    atheris.Setup([sys.argv[0], str(corpus), "-rss_limit_mb=2048", "-timeout=20", "-max_len=8192", *options], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
