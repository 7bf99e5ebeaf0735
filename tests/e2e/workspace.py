"""A user's machine in small: a folder with pictures and settings, and the real commands run in it."""

from __future__ import annotations

import csv
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from e2e import warm
from PIL import Image, ImageDraw

from capnet.commands.preset import read, render
from capnet.config import parse
from capnet.stages import STAGES

REPOSITORY = Path(__file__).resolve().parents[2]
COLOURS = {"lemon": (240, 220, 40), "strawberry": (220, 30, 50), "broccoli": (40, 150, 60), "blueberry": (50, 60, 180)}
QUICK = {
    "backbone": {"name": "lit-efflite0-minilm", "pretrained": "wheels"},
    "runtime": {"threads": 1},
    "split": {"validation": {"source": "none"}, "buckets": [12, 7]},
    "train": {"epochs": 3, "batch_size": 16, "views": 1, "folds": 2},
    "evaluate": {"bootstrap": 100},
}
STORE = ("mlflow.db", "mlruns", "mlartifacts")


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the leaves of ``change``."""
    result = dict(base)
    for key, value in change.items():
        result[key] = merge(result.get(key, {}), value) if isinstance(value, Mapping) else value
    return result


@dataclass(frozen=True)
class Workspace:
    """A folder in which a user works."""

    root: Path

    def settings(self, change: Mapping[str, Any]) -> None:
        """Write params.yaml: preset own with ``change``."""
        own = read("own").model_dump(mode="json", by_alias=True)
        (self.root / "params.yaml").write_text(render(parse(merge(own, change)), "settings of a test"))

    def labels(self, rows: Sequence[Mapping[str, str]]) -> None:
        with open(self.root / "data" / "labels.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def environment(self) -> dict[str, str]:
        ours = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "CAPNET_STATE": str(self.root / ".capnet"),
            "CUDA_VISIBLE_DEVICES": "",
        }
        hidden = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")
        return {**{key: value for key, value in os.environ.items() if key not in hidden}, **ours}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command here and return what it printed."""
        return subprocess.run(
            command, cwd=self.root, env=self.environment(), capture_output=True, text=True, check=False, timeout=600
        )

    def capnet(self, *arguments: str) -> str:
        """`capnet ...`, on Linux by a process that has imported what is slow; demand success, return stdout."""
        safe_to_fork = sys.platform == "linux"
        result = (
            warm.run(list(arguments), self.root, self.environment()) if safe_to_fork else self.run("capnet", *arguments)
        )
        assert result.returncode == 0, f"capnet {' '.join(arguments)}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def submit(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `python -m pipelines.submit ... --local subprocess` here, from this repository's folder of
        pipelines.
        """
        command = (sys.executable, "-m", "pipelines.submit", *arguments, "--local", "subprocess")
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment() | {"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def submitted(self, *arguments: str) -> tuple[int, str]:
        """The same to its end: exit code and output."""
        process = self.submit(*arguments)
        output, _ = process.communicate(timeout=600)
        return process.returncode, output

    def versioned(self) -> None:
        """Put the folder under git and DVC with this repository's stages, but for their dependencies on its code."""
        content = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())
        for stage in content["stages"].values():
            stage["deps"] = [item for item in stage["deps"] if not item.startswith("capnet/")]
        (self.root / "dvc.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        shutil.copytree(REPOSITORY / "reference", self.root / "reference")
        for command in ("git init -q", "dvc init -q", "dvc add -q data"):
            result = self.run(*command.split())
            assert result.returncode == 0, result.stderr

    def stages(self, first: str = "ingest", last: str = "register") -> None:
        names = list(STAGES)
        for name in names[names.index(first) : names.index(last) + 1]:
            self.capnet(name)


def refuse(workspace: Workspace, *command: str, code: int, words: tuple[str, ...]) -> None:
    """Run a command that must refuse, and look at how it does so."""
    before = sorted((workspace.root / "outputs").rglob("*"))
    result = workspace.run("capnet", *command)
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert "where: " in result.stderr
    assert "to do: " in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
    assert sorted((workspace.root / "outputs").rglob("*")) == before, "something was written"


def draw(path: Path, labels: Sequence[str], generator: random.Random) -> None:
    """Coloured discs on a grey ground, one per label; seeds give each picture other places."""
    picture = Image.new("RGB", (96, 80), tuple(generator.randrange(110, 150) for _ in range(3)))
    canvas = ImageDraw.Draw(picture)
    for label in labels:
        x, y, radius = generator.randrange(5, 60), generator.randrange(5, 45), generator.randrange(9, 15)
        canvas.ellipse((x, y, x + 2 * radius, y + 2 * radius), COLOURS[label])
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=90)


def small_rows(data: Path, pictures: int = 30) -> list[dict[str, str]]:
    """Draw ``pictures`` pictures of four long-tailed classes into data/images and return their label rows."""
    generator = random.Random(0)
    rows = []
    for number in range(pictures):
        labels = [name for name, share in zip(COLOURS, (0.9, 0.5, 0.4, 0.3), strict=True) if generator.random() < share]
        name = f"images/{number:03}.jpg"
        draw(data / name, labels, generator)
        rows.append({"path": name, "labels": "|".join(labels)})
    return rows


def small_workspace(root: Path) -> Workspace:
    """30 pictures of one's own without a validation or a test side, and quick settings."""
    workspace = Workspace(root)
    (root / "data").mkdir()
    workspace.labels(small_rows(root / "data"))
    workspace.settings(QUICK)
    return workspace
