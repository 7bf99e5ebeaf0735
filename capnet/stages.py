"""The table of stages: name, settings sections, inputs, outputs. CLI, DVC and KFP all run from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capnet.contracts.files import remove
from capnet.contracts.publish import check_target, prepare, publish, temporary_path
from capnet.errors import ConfigError, ContractError, GateError, Problem
from capnet.machine_faults import machine_faults
from capnet.progress import waiting

if TYPE_CHECKING:
    from capnet.config import Params


@dataclass(frozen=True)
class Stage:
    """One step of the job, done by the function of its name in ``module``.

    ``inputs`` and ``outputs`` map a name to its usual path; a path with a suffix is a file.
    """

    name: str
    summary: str
    sections: tuple[str, ...]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    @property
    def module(self) -> str:
        """Imported only when the stage runs."""
        return f"capnet.steps.{self.name}"


TORCHRUN = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}  # its variables: the least number
_DATA = {"data": "data"}
_MANIFEST = {"manifest": "outputs/manifest"}
_SPLIT = {"split": "outputs/split"}
_VALIDATION = {"validation": "outputs/validation"}
_GRAPH = {"graph": "outputs/graph"}
_MODEL = {"model": "outputs/model"}
_EVALUATION = {"evaluation": "outputs/evaluation"}

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("ingest", "Read native annotations into one table.", ("data", "ingest"), _DATA, _MANIFEST),
        Stage(
            "split",
            "Divide the rows into train, val and test; draw a long tail on request.",
            ("split",),
            _MANIFEST,
            _SPLIT,
        ),
        Stage(
            "validate",
            "Check the data with great_expectations; stop on a critical failure.",
            ("data", "validate"),
            _SPLIT | _DATA,
            _VALIDATION,
        ),
        Stage(
            "graph",
            "Build the label-correlation graph from the text tower.",
            ("backbone", "runtime", "graph"),
            _SPLIT | _VALIDATION,
            _GRAPH,
        ),
        Stage(
            "train",
            "Fit CapNet on the training rows.",
            ("data", "backbone", "tte", "runtime", "train"),
            _SPLIT | _VALIDATION | _GRAPH | _DATA,
            _MODEL,
        ),
        Stage(
            "evaluate",
            "Measure CapNet, zero-shot and a linear probe on the test rows; choose thresholds; write the report.",
            ("data", "runtime", "evaluate"),
            _SPLIT | _MODEL | _DATA,
            _EVALUATION,
        ),
        Stage(
            "register",
            "Register the model in MLflow as challenger.",
            ("data", "register"),
            _SPLIT | _VALIDATION | _MODEL | _EVALUATION,
            {"registration": "outputs/registration.json"},
        ),
    )
}


def run(
    name: str, params: Params | Mapping[str, Any], inputs: Mapping[str, str | Path], outputs: Mapping[str, str | Path]
) -> dict[str, float]:
    """Run one stage.

    Outputs are written under a temporary name and renamed, so a failed stage leaves nothing half-written; a gate that
    refuses (GateError) still publishes its findings. Of several processes that torchrun started, the first one
    publishes.

    Args:
        name: a key of STAGES.
        params: all settings, or those of the stage's sections as a plain ``{section: {...}}``.
        inputs: paths of all inputs of the stage, by name.
        outputs: the same of its outputs.

    Returns:
        Its scalar metrics by name.

    Raises:
        ContractError: an input is not there.
        ConfigError: an input or output is not named, or an output would replace what is none.
        CapnetError: the machine refuses something.
    """
    from capnet.config import Params, parse  # here, so that the command line reads the table at once

    stage = STAGES[name]
    settings = params if isinstance(params, Params) else parse(params)
    sources = _paths(stage, "input", stage.inputs, inputs)
    targets = _paths(stage, "output", stage.outputs, outputs)
    for key, path in sources.items():
        if key != "data" and not path.exists():
            source = next((other.name for other in STAGES.values() if key in other.outputs), key)
            raise ContractError(
                f"stage {name} needs {key}, which is missing", str(path), f"run `capnet {source}` first, or `dvc repro`"
            )
    for key, path in targets.items():
        check_target(path, bool(Path(stage.outputs[key]).suffix), sources)
    with waiting(f"{name}: loading libraries"):
        step = getattr(import_module(stage.module), name)
    rank = process_rank()
    temporary = {key: temporary_path(path, rank) for key, path in targets.items()}
    try:
        for path in temporary.values():
            prepare(path)
        try:
            with machine_faults():
                metrics: dict[str, float] = _execute(name, step, settings, sources, temporary, targets)
        except GateError:
            publish(temporary, targets)
            raise
    finally:
        for path in temporary.values():
            with suppress(OSError):  # on a network file system a reader may have it open: it goes with a later run
                remove(path)
    return metrics


def _execute(
    name: str,
    step: Callable[..., dict[str, float]],
    settings: Params,
    inputs: dict[str, Path],
    outputs: dict[str, Path],
    targets: dict[str, Path],
) -> dict[str, float]:
    """Call the step and put its ``outputs`` at their ``targets``; one that takes ``log`` gets a callback for the
    tracking server, which never raises or waits. The server has seconds to hear of the end: outputs are there by then.
    """
    if "log" not in signature(step).parameters or process_rank():
        metrics = step(settings, inputs, outputs)
        if process_rank() == 0:
            publish(outputs, targets)
        return metrics
    from capnet.tracking.live import tracked

    with tracked(name, settings, inputs, targets) as log:
        metrics = step(settings, inputs, outputs, log=log)
        publish(outputs, targets)
        return metrics


def figures_in_words(figures: Mapping[str, float]) -> str:
    """`rows 30  mAP 0.9039`."""
    return "  ".join(
        f"{name} {value:.0f}" if float(value).is_integer() else f"{name} {value:.4g}" for name, value in figures.items()
    )


def process_rank() -> int:
    """Number of this process among those that torchrun started; 0 elsewhere.

    Raises ConfigError where a variable of torchrun holds no such number, or where there are fewer processes.
    """
    texts = {name: os.environ.get(name, str(least)) for name, least in TORCHRUN.items()}
    wrong = [
        Problem(f"{text!r} is no number of a process", f"the variable {name}", "unset it: torchrun sets it")
        for name, text in texts.items()
        if not (text.isascii() and text.isdigit() and int(text) >= TORCHRUN[name])
    ]
    if wrong:
        raise ConfigError(problems=wrong)
    rank, size = int(texts["RANK"]), int(texts["WORLD_SIZE"])
    if rank >= size:  # such a process would publish nothing, or wait for others that never come
        what = f"process {rank} of {size}: the first is 0"
        raise ConfigError(what, "the variables RANK and WORLD_SIZE", "unset them: torchrun sets both")
    return rank


def _paths(stage: Stage, kind: str, expected: Mapping[str, str], paths: Mapping[str, str | Path]) -> dict[str, Path]:
    unknown, missing = sorted(set(paths) - set(expected)), sorted(set(expected) - set(paths))
    if unknown or missing:
        what, names = ("has no", unknown) if unknown else ("misses its", missing)
        raise ConfigError(
            f"stage {stage.name} {what} {kind} {', '.join(map(repr, names))}",
            f"{kind}s of the stage",
            f"name just these: {', '.join(expected)}",
        )
    return {key: Path(paths[key]) for key in expected}
