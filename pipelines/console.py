"""What a terminal shows of a run on this machine: a line a task, and what the tasks print. Everything else goes to the
run's log.
"""

from __future__ import annotations

import io
import json
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from capnet.stages import figures_in_words

LOG = "log.txt"
HIDDEN = ("plan", "outcome")  # the one has no result, the other repeats the last lines
COLOUR = re.compile(r"\x1b\[\d+m")
RUNNER = re.compile(r"\d\d:\d\d:\d\d\.\d{3} - [A-Z]+ - (.*)")  # of kfp.local itself
EXECUTOR = re.compile(r"\s*\[KFP Executor \S+ \S+ ([A-Z]+)\]: (.*)")  # of the process that runs a task
STARTED = re.compile(r"Executing task '(.+)'")
ENDED = re.compile(r"Task '(.+)' finished with status (\w+)")
AGAIN = re.compile(r"Task \S+ failed \(attempt (\d+)/(\d+)\)\. Retrying in ([\d.]+)s")
MISTAKE = re.compile(r"(.+ )?error, exit code \d+")  # as capnet/tasks.py writes it
INPUT = "Got executor_input:"
QUIET = (
    "Looking for component",
    "--component_module_path is not",
    "Loading KFP component",
    INPUT,
    "Wrote executor output",
    "Did not write",
    "Found image ",
)


@dataclass
class Task:
    """The task at work: ``label`` for people, the ``folder`` it writes to, its last ``mistake``, whether it
    ``explained`` why it failed.
    """

    label: str
    hidden: bool = False
    folder: Path | None = None
    mistake: str = ""
    explained: bool = False
    since: float = field(default_factory=time.monotonic)


class Console(io.TextIOBase):
    """Writes all that kfp.local prints to ``run``/log.txt, and to ``terminal`` what people want to read of it."""

    def __init__(self, terminal: TextIO, root: Path) -> None:
        self.terminal, self.root = terminal, root
        self.run: Path | None = None  # known once the first task has got its paths
        self.failed: list[Task] = []
        self.task = Task("", hidden=True)
        self._lines: list[str] = []  # not yet in the log
        self._rest = ""
        self._mode = "skip"  # skip, input (a task's arguments) or output (what a task prints)
        self._input: list[str] = []
        self._open = False  # a task's name stands at the end of the terminal, its result comes behind
        self._seeds: dict[str, str] = {}

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Lines arrive in pieces; whole ones are looked at."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            plain = COLOUR.sub("", line)
            self._lines.append(plain)
            self._read(plain)
        if self.run and self._lines:
            with open(self.log, "a") as log:
                log.writelines(f"{line}\n" for line in self._lines)
            self._lines.clear()
        return len(text)

    def flush(self) -> None:
        self.terminal.flush()

    @property
    def log(self) -> Path:
        return (self.run or self.root) / LOG

    def _read(self, line: str) -> None:
        if match := RUNNER.fullmatch(line):
            self._runner(match[1])
        elif match := EXECUTOR.fullmatch(line):
            level, message = match[1], match[2]
            self._input = []
            if message == INPUT:
                self._mode = "input"
            elif message.startswith(QUIET):
                self._mode = "skip"
            else:
                self._mode = "output"
                self._output(message, level)
        elif self._mode == "input":
            self._input.append(line)
            if line.strip() == "}" and (arguments := whole("\n".join(self._input))):
                self._arguments(arguments)
                self._mode = "output"
        elif self._mode == "output" and line.strip():
            self._output(line.removeprefix("    "), "")

    def _runner(self, message: str) -> None:
        self._mode = "skip"
        if match := STARTED.fullmatch(message):
            name = match[1].removesuffix("-2")  # kfp's name for the second task of a component
            self.task = Task(name, hidden=name in HIDDEN)
        elif message.startswith("Streamed logs"):
            self._mode = "output"
        elif match := ENDED.fullmatch(message):
            self._end(match[2] == "SUCCESS")
        elif match := AGAIN.match(message):
            self.failed.clear()
            self._print(f"  tried again in {float(match[3]):.0f} s ({match[1]} of {int(match[2]) - 1})")

    def _arguments(self, arguments: dict[str, Any]) -> None:
        """Learn from a task's arguments where the run lies and which seed or part this is."""
        self.task.folder = Path(arguments["outputs"]["outputFile"]).parent
        values = arguments.get("inputs", {}).get("parameterValues", {})
        folder = self.task.folder.parent
        if "shard" in values:
            self.task.label += f", part {values['shard'] + 1:.0f} of {values['shards']:.0f}"
        if "seed" in values:
            self._seeds[folder.name] = f", seed {values['seed']:.0f}"
        if self.task.label in ("train", "evaluate"):
            self.task.label += self._seeds.get(folder.name, "")
        if self.run is None and folder.is_relative_to(self.root):
            self.run = self.root / folder.relative_to(self.root).parts[0]
            self.run.mkdir(parents=True, exist_ok=True)
        if not self.task.hidden:
            self.end_line()
            self.terminal.write(f"{self.task.label:<20}")
            self.terminal.flush()
            self._open = True

    def _output(self, message: str, level: str) -> None:
        if MISTAKE.fullmatch(message):
            self.task.mistake = message
        self.task.explained |= level in ("ERROR", "CRITICAL") or message.startswith("Traceback ")
        if not self.task.hidden:
            self._print(f"  {message}")

    def _end(self, good: bool) -> None:
        seconds = f"{time.monotonic() - self.task.since:7.1f} s  "
        if not good:
            self.failed.append(self.task)
        if self.task.hidden and good:
            return
        if not self._open:
            self.terminal.write(f"{self.task.label:<20}")
        self._open = False
        self._print(seconds + (figures_in_words(figures(self.task.folder)) if good else "FAILED"))

    def _print(self, line: str) -> None:
        self.end_line()
        self.terminal.write(line + "\n")
        self.terminal.flush()

    def end_line(self) -> None:
        """End a half-written line."""
        if self._open:
            self.terminal.write("\n")
        self._open = False


def whole(text: str) -> dict[str, Any]:
    """The object that ``text`` is; {} while its end is missing."""
    try:
        return dict(json.loads(text))
    except ValueError:
        return {}


def figures(folder: Path | None) -> dict[str, float]:
    """The figures that a task logged as Metrics, read from its ``folder``."""
    path = folder / "executor_output.json" if folder else None
    if path is None or not path.is_file():
        return {}
    artifacts = json.loads(path.read_text()).get("artifacts", {}).get("metrics", {}).get("artifacts", [])
    return dict(artifacts[0]["metadata"]) if artifacts else {}


def shortest(path: Path) -> str:
    """From here where it lies below, else in full."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
