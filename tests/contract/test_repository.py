"""Files around the library that a newcomer's first run depends on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml


def tracked(repository: Path, *patterns: str) -> list[str]:
    result = subprocess.run(["git", "ls-files", *patterns], cwd=repository, capture_output=True, text=True, check=True)
    return result.stdout.split("\n")[:-1]


def test_the_folder_mlflow_never_shadows_the_package(repository: Path) -> None:
    assert not list((repository / "mlflow").rglob("*.py"))


def test_outputs_data_and_state_stay_out_of_git(repository: Path) -> None:
    assert tracked(repository, "data", "outputs", ".capnet", "mlflow.db", "mlruns", "mlartifacts", "dvc.lock") == []
    paths = [
        "data/labels.csv",
        "outputs/model/model.safetensors",
        "outputs/registration.json",
        ".capnet/x",
        "mlflow.db",
        ".venv/x",
    ]
    result = subprocess.run(
        ["git", "check-ignore", *paths], cwd=repository, capture_output=True, text=True, check=False
    )
    assert result.stdout.split() == paths


def test_no_large_file_is_in_git(repository: Path) -> None:
    """A package that pip has left in the folder, or weights."""
    sizes = {name: (repository / name).stat().st_size for name in tracked(repository)}
    assert len(sizes) > 500
    assert {name: size for name, size in sizes.items() if size > 200_000} == {}


def test_constraints_pin_versions_and_name_no_machine(repository: Path) -> None:
    lines = [line for line in (repository / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    ranges = {"torch>=2.13,<2.14", "torchvision>=0.28,<0.29"}  # builds for CPU and GPU carry the same version
    assert ranges <= set(lines)
    for line in set(lines) - ranges:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line


def test_constraints_pin_every_direct_dependency(repository: Path) -> None:
    from tomllib import loads

    project = loads((repository / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *(item for extra in project["optional-dependencies"].values() for item in extra)]
    pinned = {
        re.split(r"[<>=]", line)[0].lower().replace("_", "-")
        for line in (repository / "constraints.txt").read_text().splitlines()
    }
    direct = {re.split(r"[\[<>=]", item)[0].lower().replace("_", "-") for item in named} - {"capnet"}
    assert direct <= pinned


def test_inference_needs_neither_kfp_nor_dvc(repository: Path) -> None:
    from tomllib import loads

    core = " ".join(loads((repository / "pyproject.toml").read_text())["project"]["dependencies"])
    assert not re.search(r"kfp|dvc|mlflow|great-expectations|boto3|openmoji", core)


def test_dvc_sends_no_statistics_and_stages_nothing(repository: Path) -> None:
    config = (repository / ".dvc" / "config").read_text()
    assert "analytics = false" in config
    assert "autostage = false" in config


def test_metrics_and_plots_lie_in_outputs(repository: Path) -> None:
    content = yaml.safe_load((repository / "dvc.yaml").read_text())
    assert content["metrics"] == ["outputs/evaluation/metrics.json"]
    text = yaml.safe_dump(content.get("plots", []))
    for path in re.findall(r"outputs/[\w/.]+", text):
        assert path.startswith(("outputs/evaluation/", "outputs/model/"))


def test_the_record_of_a_run_is_not_ignored_because_dvc_would_refuse_it(repository: Path) -> None:
    command = ["git", "check-ignore", "dvc.lock"]
    assert subprocess.run(command, cwd=repository, capture_output=True, check=False).returncode == 1


def test_hooks_before_a_commit_are_those_of_make_lint_and_fetch_nothing(repository: Path) -> None:
    repos = yaml.safe_load((repository / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    assert all(hook["language"] == "system" for hook in repos[0]["hooks"])
    entries = [hook["entry"].removeprefix(".venv/bin/").split(" --")[0] for hook in repos[0]["hooks"]]
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (repository / "Makefile").read_text(), flags=re.MULTILINE)
    assert lint is not None
    assert entries == [re.sub(r" (\.|--check \.)$", "", line.strip()) for line in lint[1].splitlines()]


def test_make_takes_no_other_python_than_the_one_that_is_named(repository: Path, tmp_path: Path) -> None:
    for name, code in {"python3.11": 0, "named": 1}.items():  # 1: of another version, or without the module venv
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $1" >> asked\nexit {code}\n')
        (tmp_path / name).chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).symlink_to(repository / name)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["make", "env", f"PYTHON={tmp_path / 'named'}"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "no Python 3.11 to 3.13" in result.stderr
    assert f"where: {tmp_path / 'named'}\n" in result.stderr
    assert (tmp_path / "asked").read_text() == "named -c\n"


@pytest.mark.parametrize(("named", "code"), [("3.11.9", 0), ("3.13.1", 2)])
def test_an_environment_of_another_python_than_the_one_that_is_named_is_not_taken(
    repository: Path, tmp_path: Path, named: str, code: int
) -> None:
    for path, version in {tmp_path / ".venv" / "bin" / "python": "3.11.9", tmp_path / "named": named}.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho Python {version}\n")
        path.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).symlink_to(repository / name)
    (tmp_path / ".venv" / ".installed").touch()
    command = ["make", "env", f"PYTHON={tmp_path / 'named'}"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stderr
    assert ("rm -r .venv" in result.stderr) == bool(code)


@pytest.mark.parametrize("path", [".ci/run"])
def test_scripts_run_from_a_clone(repository: Path, path: str) -> None:
    assert os.access(repository / path, os.X_OK)
    assert subprocess.run(["bash", "-n", path], cwd=repository, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped"), ("true", "1 error")])
def test_absent_shared_data_is_said_aloud_and_fails_on_ci(
    repository: Path, tmp_path: Path, ci: str, outcome: str
) -> None:
    folder = tmp_path / "clone" / "tests"
    folder.mkdir(parents=True)
    (folder / "conftest.py").write_text((repository / "tests" / "conftest.py").read_text())
    (folder / "test_one.py").write_text("def test_one(shared):\n    assert shared\n")
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", str(folder)]
    result = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "CI": ci}, capture_output=True, text=True, check=False
    )
    assert outcome in result.stdout
    assert "belongs beside the repository" in result.stdout
