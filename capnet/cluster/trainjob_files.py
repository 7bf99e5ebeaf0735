"""Files that a task and the pods of its TrainJob exchange, in a folder of the state volume that all of them mount."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from capnet.contracts import read_json, write_json
from capnet.errors import CapnetError, ConfigError, ContractError, DataError, GateError, Problem

JOB, METRICS, MODEL = "job.json", "metrics.json", "model"
ALIVE, ABANDONED = "alive", "abandoned"
SECONDS = 60.0  # for a network volume to show what another node wrote
CLEAR_TRIES = 5  # a second apart

Paths = Mapping[str, str | Path]


def put(
    folder: Path,
    params: Mapping[str, Any],
    inputs: Paths,
    own_data: Path | None,
    accelerators: int,
    certificates: Mapping[str, Path],
) -> None:
    """Copy inputs and certificates for the nodes and say in job.json where the inputs are.

    Args:
        folder: of the TrainJob; emptied first.
        params: sections that the nodes read.
        inputs: paths of the stage's inputs by name; images are named where they are.
        own_data: the task's own input, which no other pod sees: images that lie in it are copied. None for none.
        accelerators: GPUs of a node.
        certificates: files of this pod, by the name that they get.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "inputs").mkdir(parents=True)
    for name, file in certificates.items():
        shutil.copyfile(file, folder / name)
    copies = {}
    for name, path in inputs.items():
        copies[name] = str(path)
        if name != "data" or (own_data is not None and Path(path).is_relative_to(own_data)):
            copies[name] = str(folder / "inputs" / name)
            shutil.copytree(path, copies[name])
    write_json(folder / JOB, {"params": dict(params), "inputs": copies, "accelerators": accelerators})


def beat(folder: Path) -> None:
    """Tell the nodes that the task still waits for them."""
    with suppress(OSError):
        (folder / ALIVE).write_text(str(time.time_ns()))


def silence(folder: Path) -> float:
    """Seconds since a task made the folder or last wrote that it waits.

    Raises:
        FileNotFoundError: the folder is gone.
    """
    made, alive = folder.stat().st_mtime, folder / ALIVE
    return time.time() - max(made, alive.stat().st_mtime if alive.exists() else made)


def abandon(folder: Path) -> None:
    """Tell the nodes that no task waits for them any more; it takes a moment, and a cancelled task may have no more."""
    with suppress(OSError):
        (folder / ABANDONED).touch()


def is_abandoned(folder: Path) -> bool:
    return (folder / ABANDONED).exists()


def is_complete(folder: Path) -> bool:
    return (folder / METRICS).is_file()


def take(folder: Path, target: Path, claim: str) -> dict[str, float]:
    """Copy the model that the nodes wrote.

    Args:
        folder: of the TrainJob.
        target: folder of the model.
        claim: name of the state volume's claim, for the message.

    Returns:
        Metrics of stage train.

    Raises:
        ContractError: the model does not show within SECONDS.
    """
    deadline = time.monotonic() + SECONDS
    while not is_complete(folder):
        if time.monotonic() > deadline:
            what = "the nodes say that training is complete, and their model is not on the state volume"
            raise ContractError(
                what,
                str(folder),
                f"claim {claim} must be one volume for all nodes (ReadWriteMany), not a folder of each",
            )
        os.listdir(folder)  # a look at the folder itself: NFS remembers for a while what was not there
        time.sleep(0.5)
    target.parent.mkdir(parents=True, exist_ok=True)
    copy = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.copytree(folder / MODEL, copy)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(copy, target)
    return {name: float(value) for name, value in read_json(folder / METRICS).items()}


def write_error(folder: Path, rank: int, error: CapnetError) -> None:
    """Tell the task which error ended a process; where the folder is gone, no task waits any more.

    Args:
        folder: of the TrainJob.
        rank: of the process.
        error: its problems and exit code are kept.
    """
    problems = [[problem.what, problem.where, problem.todo] for problem in error.problems]
    target = folder / f"error-{rank}.json"
    with suppress(FileNotFoundError):  # not write_json, which would make the folder again
        temporary = target.with_suffix(".tmp")
        temporary.write_text(json.dumps({"exit_code": error.exit_code, "problems": problems}))
        os.replace(temporary, target)


def clear(folder: Path) -> None:
    """Remove the folder of a TrainJob that is gone; a node that ends just now may still write into it."""
    for _ in range(CLEAR_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(1)


def error_of(folder: Path, where: str) -> CapnetError | None:
    """The error that ended the first process, as the same kind of error: a second try would end with it too. None
    where no process wrote one.
    """
    errors = sorted(folder.glob("error-*.json"))
    if not errors:
        return None
    content = read_json(errors[0])
    kinds = {kind.exit_code: kind for kind in (ConfigError, DataError, ContractError, GateError)}
    problems = [Problem(*item) for item in content["problems"]]
    first = problems[0]
    problems[0] = Problem(first.what, "; ".join(part for part in (first.where, where) if part), first.todo)
    return kinds.get(content["exit_code"], CapnetError)(problems=problems)
