"""The register stage as users run it: `capnet register` and `--check` with the default sqlite store."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e import warm
from mlflow.tracking import MlflowClient
from unit.stores import clean_environment

from capnet.contracts import tree_hash
from capnet.registry.cards import DATA_CARD

pytestmark = pytest.mark.slow

Make = Callable[..., dict[str, Path]]
FRESH = (
    "register: version 1  mAP 0.5  head 0.6  medium 0.5  tail 0.4\n"
    "register: report outputs/evaluation/report.html; `capnet promote` compares this version with the champion\n"
)


@pytest.fixture
def project(tmp_path: Path, make_outputs: Make) -> Path:
    """A folder as a repository is after `capnet evaluate`."""
    folder = tmp_path / "project"
    folder.mkdir()
    make_outputs(folder / "outputs")
    (folder / "params.yaml").write_text("register:\n  name: capnet\n")
    (folder / "data.dvc").write_text("outs:\n- md5: 0123.dir\n  path: data\n")
    return folder


def _capnet(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "capnet.cli", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def _again(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same by a process that has imported what is slow, once a test has seen an ordinary one."""
    if sys.platform != "linux":
        return _capnet(folder, *arguments, **environment)
    return warm.run(list(arguments), folder, clean_environment() | environment)


def test_register_and_check_on_the_default_store(project: Path) -> None:
    first = _capnet(project, "register")
    assert (first.returncode, first.stdout, first.stderr) == (0, FRESH, "")
    record = (project / "outputs" / "registration.json").read_bytes()
    content = json.loads(record)
    assert set(content) == {"schema", "name", "alias", "content_hash", "metrics"}
    assert (content["name"], content["alias"], content["metrics"]["tail"]) == (
        "capnet",
        "challenger",
        pytest.approx(0.4),
    )
    version = MlflowClient(f"sqlite:///{project / 'mlflow.db'}").get_model_version("capnet", "1")
    assert str(version.run_id) not in record.decode()

    again = _again(project, "register", "--check")
    assert (again.returncode, again.stdout, again.stderr) == (0, "register: the store has this model version\n", "")

    for name in ("mlflow.db", "mlruns"):
        (project / name).rename(project / f"old {name}")
    back = _again(project, "register", "--check")
    assert (back.returncode, back.stdout, back.stderr) == (0, FRESH, ""), "a store that is new gets the version"
    assert (project / "outputs" / "registration.json").read_bytes() == record, "equal in every store"


@pytest.mark.parametrize(("root", "md5", "licence"), [("data", "0123.dir", "CC BY 4.0"), ("photos", "", "not known")])
def test_what_lies_elsewhere_says_nothing_of_the_images(project: Path, root: str, md5: str, licence: str) -> None:
    (project / "params.yaml").write_text(f"data:\n  root: {root}\n")
    (project / "photos").mkdir()
    (project / "data").mkdir()
    (project / "data" / "LICENSE").write_text("CC BY 4.0\n")
    (project / ".dvc").mkdir()
    (project / ".dvc" / "config").write_text("[core]\n    remote = s3\n['remote \"s3\"']\n    url = s3://bucket\n")
    assert _again(project, "register").returncode == 0
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    version = client.get_model_version("capnet", "1")
    assert json.loads(version.tags["provenance"]).get("data_md5", "") == md5
    cards = {path.read_text() for path in project.rglob(DATA_CARD)}
    assert len(cards) == 1, "of the run and of the model"
    text = cards.pop()
    assert (f"Licence of the pictures: {licence}" in text, "s3://bucket" in text) == (True, bool(md5))


def test_the_command_of_the_promotion_names_the_settings_of_the_registration(project: Path) -> None:
    (project / "params.yaml").rename(project / "my params.yaml")
    changes = ("--set", "register.name=red foxes", "--set", "runtime.threads=1")
    result = _again(project, "register", "--params", "my params.yaml", *changes)
    assert result.returncode == 0, result.stderr
    command = shlex.split(result.stdout.splitlines()[1].split("`")[1])
    assert command == ["capnet", "promote", "--params", "my params.yaml", "--set", "register.name=red foxes"]
    promoted = _again(project, *command[1:], "--yes")
    assert promoted.returncode == 0, promoted.stderr
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    assert client.get_model_version_by_alias("red foxes", "champion").version == 1


def test_an_unreachable_server_is_told_in_three_parts_and_leaves_nothing(project: Path) -> None:
    before, begin = tree_hash(project), time.monotonic()
    for arguments in (("register",), ("register", "--check")):
        result = _again(project, *arguments, MLFLOW_TRACKING_URI="http://someone:hunter2@127.0.0.1:9")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith(
            "capnet: MLflow error\ncould not register the model: [Errno 111] Connection refused\n"
        )
        assert "where: http://someone:***@127.0.0.1:9\n  to do: see that the MLflow server runs" in result.stderr
        assert "Traceback" not in result.stderr
    assert tree_hash(project) == before
    assert time.monotonic() - begin < 60


def test_folders_that_do_not_belong_together_are_refused(project: Path) -> None:
    path = project / "outputs" / "evaluation" / "thresholds.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"class_fingerprint": "of other classes"}))
    result = _again(project, "register")
    assert (result.returncode, result.stdout) == (4, "")
    assert "made for other classes" in result.stderr
    assert not (project / "mlflow.db").exists()
