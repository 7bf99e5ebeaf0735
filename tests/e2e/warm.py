"""`capnet ...` without the seconds of importing torch, mlflow and the like: a process that has them forks for every
command.

Each command is a process of its own with its own folder, environment and output, and ends by the console script's own
entry. What `dvc repro`, pipelines and `Workspace.run` start are ordinary processes; tests compare the bytes of both.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from functools import cache
from pathlib import Path
from typing import Any

SLOW = (
    "great_expectations",
    "mlflow",
    "mlflow.pyfunc",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tracking._tracking_service.utils",
    "open_clip",
    "pyarrow.dataset",
    "sklearn.linear_model",
    "timm",
    "torch",
    "torch.distributed.checkpoint",
    "transformers.models.bert.modeling_bert",
)
PRINTED = (".stdout", ".stderr")  # what a command prints, in its folder while it runs


def run(arguments: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`capnet` with ``arguments`` in ``folder``; in ``environment`` nothing counts that a library reads while it is
    imported.
    """
    output, errors = (folder / name for name in PRINTED)
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    request = {
        "arguments": ["capnet", *arguments],
        "folder": str(folder),
        "environment": environment,
        "files": [str(output), str(errors)],
    }
    print(json.dumps(request), file=server.stdin, flush=True)
    answer = server.stdout.readline()
    assert answer, "the warm process is gone"
    result = subprocess.CompletedProcess(request["arguments"], int(answer), output.read_text(), errors.read_text())
    output.unlink()
    errors.unlink()
    return result


@cache
def _server() -> subprocess.Popen[str]:
    """One for each process of pytest; it ends with its standard input."""
    return subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )


def serve() -> None:
    """Fork for every request and answer with the exit code."""
    gc.disable()  # nothing that is imported is garbage
    for name in SLOW:
        importlib.import_module(name)
    gc.freeze()
    gc.enable()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _become(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(request: dict[str, Any]) -> None:
    """The command. At its end nothing that was imported is taken apart: with all of it, that takes two seconds."""
    from capnet.cli import entry

    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, path in enumerate([os.devnull, *request["files"]]):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = request["arguments"]
    code: Any = 70
    try:
        entry()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve()
