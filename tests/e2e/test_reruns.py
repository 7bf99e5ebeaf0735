"""Run again, interrupted or not: the same bytes."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from e2e.warm import PRINTED
from e2e.workspace import QUICK, STORE, Workspace, merge


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def copy(finished: Workspace, tmp_path: Path) -> Workspace:
    """The finished run in another folder, without its model store, and of its state only the backbone that it put
    together.
    """
    left_out = ("features", "train", *STORE, *PRINTED)
    shutil.copytree(finished.root, tmp_path / "copy", ignore=shutil.ignore_patterns(*left_out))
    return Workspace(tmp_path / "copy")


def test_training_killed_midway_ends_with_the_weights_of_an_uninterrupted_run(copy: Workspace) -> None:
    copy.settings(merge(QUICK, {"train": {"epochs": 30}}))
    copy.capnet("train")
    expected = hashes(copy.root / "outputs" / "model")
    shutil.rmtree(copy.root / "outputs" / "model")

    for moment in ("first checkpoint", "first checkpoint of a fold"):
        process = subprocess.Popen(
            ["capnet", "train"],
            cwd=copy.root,
            env=copy.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        known = checkpoints(copy)
        places = {path for path, _ in known}
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            now = checkpoints(copy)
            if now != known and ("fold" not in moment or {path for path, _ in now} - places):
                break
            time.sleep(0.01)
        assert process.poll() is None, f"training ended before its {moment}"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (copy.root / "outputs" / "model").exists(), (
            "a killed run leaves nothing half-written under the stage's name"
        )
    assert "train: " in copy.capnet("train")
    assert hashes(copy.root / "outputs" / "model") == expected


def checkpoints(workspace: Workspace) -> set[tuple[str, int]]:
    """Place and time of every file that training keeps to resume from."""
    files = (workspace.root / ".capnet" / "train").rglob("*.safetensors")
    return {
        (path.relative_to(workspace.root).as_posix(), path.stat().st_mtime_ns)
        for path in files
        if not path.name.startswith(".")
    }


def test_dvc_repeats_all_stages_bit_for_bit_in_another_folder(copy: Workspace) -> None:
    copy.versioned()
    committed = copy.run("dvc", "commit", "-q", "-f")
    assert committed.returncode == 0, committed.stderr
    assert "up to date" in copy.run("dvc", "status").stdout
    assert "didn't change, skipping" in copy.run("dvc", "repro").stdout
    expected = hashes(copy.root / "outputs")
    for folder in (*(path for path in (copy.root / "outputs").iterdir() if path.is_dir()), copy.root / ".capnet"):
        shutil.rmtree(folder)
    again = copy.run("dvc", "repro", "-f", "evaluate")
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("Running stage") == 6
    now = hashes(copy.root / "outputs")
    assert {**now, ".gitignore": ""} == {**expected, ".gitignore": ""}  # DVC's, in the order of what ran
    assert "up to date" in copy.run("dvc", "status").stdout

    reference, note = copy.root / "reference/validation.json", copy.root / "outputs/validation/validation.json"
    copy.capnet("validate", "--save-reference")
    assert "Running stage 'validate'" in copy.run("dvc", "repro", "-s", "validate").stdout
    assert "no file reference" not in note.read_text()
    saved = reference.read_text()
    reference.write_text(saved.replace('"labels": ', '"labels": 1'))
    assert "reference" in copy.run("dvc", "status", "validate").stdout
    reference.unlink()
    assert copy.run("dvc", "repro", "-s", "validate").returncode == 0
    assert "no file reference/validation.json" in note.read_text()
