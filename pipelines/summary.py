"""The last lines of a run on this machine: what came out, where it is, what to type next."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from capnet.contracts import read_json
from pipelines.console import figures, shortest

SHOWN = 10  # drifted classes


def summary(run: Path, settings: Sequence[str]) -> list[str]:
    """Lines about a finished run.

    Args:
        run: its folder.
        settings: options by which another command reads the settings that the run had.
    """
    what = _training(run, settings) if (run / "register").is_dir() else _prediction(run)
    return [
        "the run succeeded",
        *(f"  {name + ':':<12} {value}" for name, value in {**what, "all outputs": shortest(run)}.items()),
    ]


def _training(run: Path, settings: Sequence[str]) -> dict[str, str]:
    """The report gets a name that a browser opens."""
    page = run / "report.html"
    shutil.copyfile(run / "report" / "report", page)
    registration = read_json(run / "register" / "registration" / "registration.json")
    version = f"{figures(run / 'register')['version']:.0f}"
    promote = shlex.join(["capnet", "promote", "--version", version, *settings])
    return {
        "report": shortest(page),
        "registered": f"{registration['name']} version {version}, alias {registration['alias']}",
        "next": f"{promote}    makes it the champion, if the gate lets it pass",
    }


def _prediction(run: Path) -> dict[str, str]:
    folder, counts = run / "merge" / "predictions", figures(run / "merge")
    lines = {
        "labelled": f"{counts['pictures'] - counts['not_read']:.0f} images, {counts['not_read']:.0f} not read",
        "table": shortest(folder / "predictions.parquet"),
    }
    if not (folder / "drift.json").is_file():
        return lines
    report = read_json(folder / "drift.json")
    drifted = [item["name"] for item in report["classes"] if item["drifted"]]
    named = ": " + ", ".join(drifted[:SHOWN]) + (" ..." if len(drifted) > SHOWN else "") if drifted else ""
    line = f"{len(drifted)} of {len(report['classes'])} classes differ from the reference{named}"
    if not report["enough_pictures"]:
        line = f"too few images to tell: {report['pictures']:,}, and {report['reference_pictures']:,} in the reference"
    return {**lines, "drift": line}
