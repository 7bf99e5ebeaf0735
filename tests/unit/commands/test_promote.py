"""`capnet promote` as people type it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

Make = Callable[..., dict[str, Path]]


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory: pytest.TempPathFactory, outputs_maker: Make) -> Path:
    """A repository after two trainings, the second worse in the tail; both registered."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text("register:\n  name: capnet\n")
    for number, skill in enumerate(((2.0, 2.0, 2.0, 2.0), (9.0, 9.0, 2.0, 1.4))):
        outputs_maker(folder / "outputs", mAP=0.5 + number / 10, skill=skill)
        assert capnet(folder, "register").returncode == 0
        (folder / "outputs").rename(folder / f"outputs of version {number + 1}")
    return folder


@pytest.fixture
def project(two_versions: Path, tmp_path: Path) -> Path:
    """A copy of it; the artifacts are shared."""
    return shutil.copytree(two_versions, tmp_path / "project", ignore=shutil.ignore_patterns("mlruns", "outputs*"))


def capnet(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "CAPNET_"))}
    command = [sys.executable, "-m", "capnet.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False, timeout=180, stdin=subprocess.DEVNULL)


def test_the_story_of_a_champion(project: Path) -> None:
    first = capnet(project, "promote", "--version", "1")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == "there is no champion to compare with\nverdict: green, on 400 test pictures\nchampion of capnet: version 1\n"
    again = capnet(project, "promote", "--version", "1")
    assert (again.returncode, again.stdout) == (0, "champion of capnet: version 1 already\n")

    refused = capnet(project, "promote")  # the challenger is version 2
    assert (refused.returncode, refused.stdout) == (5, "")
    assert "capnet: gate error\nfail: tail " in refused.stderr
    assert "may be 3.0 lower\n  where: capnet version 2\n" in refused.stderr
    assert "Traceback" not in refused.stderr
    without_reason = capnet(project, "promote", "--force")
    assert (without_reason.returncode, "--force needs --reason" in without_reason.stderr) == (5, True)
    forced = capnet(project, "promote", "--force", "--reason", "the new camera")
    assert (forced.returncode, forced.stderr) == (0, "")
    assert forced.stdout.endswith("verdict: red, on 400 test pictures\nchampion of capnet: version 2, was version 1\n")

    back = capnet(project, "promote", "--rollback")
    assert (back.returncode, back.stdout) == (0, "champion of capnet: version 1 again, was version 2\n")
    audit = capnet(project, "promote", "--audit")
    assert audit.returncode == 0
    lines = audit.stdout.splitlines()
    assert [line.split()[1] for line in lines if not line.startswith(" ")] == ["promoted", "forced", "rolled"]
    assert lines[1].endswith(": the new camera")
    assert lines[2].startswith("  fail: tail ")

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    client.delete_model_version_tag("capnet", "2", "gate_override")
    client.set_registered_model_alias("capnet", "champion", "2")
    audit = capnet(project, "promote", "--audit")
    assert audit.returncode == 5
    assert "new: the alias was moved outside capnet promote, to version 2" in audit.stdout
    assert "the champion is refused by its readers: capnet version 2 has a red verdict of the promotion gate: fail: tail" in audit.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--version", "9"), 1, "correct the name, version or alias"),
        (("--rollback",), 5, "no champion before now is known"),
        (("--rollback", "--audit"), 2, "exclude each other"),
        (("--set", "register.policy=missing.yaml"), 2, "there is no promotion policy"),
        (("--set", "register.name=nobody"), 1, "correct the name, version or alias"),
    ],
)
def test_what_cannot_be_done_is_said(project: Path, arguments: tuple[str, ...], code: int, text: str) -> None:
    found = capnet(project, "promote", *arguments)
    assert (found.returncode, found.stdout) == (code, "")
    assert text in found.stderr
    assert "Traceback" not in found.stderr
