"""Data versions in git, files in a DVC remote on a real S3 server, by the make targets that a user calls."""

from __future__ import annotations

import random
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
from clone import Clone
from services.s3_server import S3Server
from services.test_s3_root import tree

from capnet.commands.doctor.data import DEADLINE
from capnet.config import Data
from capnet.data.sources.root import local_root
from capnet.errors import CapnetError, DataError


def two_versions() -> tuple[dict[str, bytes], dict[str, bytes]]:
    generator = random.Random(5)
    first = {f"images/{k:02}.jpg": generator.randbytes(3000) for k in range(12)} | {
        "labels.csv": b"path,labels\nimages/00.jpg,a\n"
    }
    second = {**first, "images/new.jpg": generator.randbytes(3000), "labels.csv": b"path,labels\nimages/00.jpg,b\n"}
    del second["images/03.jpg"]
    return first, second


@pytest.fixture(scope="module")
def original(server: S3Server, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Two data versions, tagged v1 and v2, pushed to S3; the newer one is checked out. Tests work on copies."""
    workspace = Clone(tmp_path_factory.mktemp("original") / "clone")
    workspace.start(repository)
    server.client().create_bucket(Bucket="versions")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        workspace.make(f"data-remote URL=s3://versions/dvc ENDPOINT={server.endpoint}")
        for tag, files in zip(("v1", "v2"), two_versions(), strict=True):
            workspace.write(files)
            workspace.do("dvc add -q data")
            workspace.make("data-push")
            workspace.do(f"git add -A && git commit -qm {tag} && git tag {tag}")
    return workspace


@pytest.fixture
def clone(s3: S3Server, original: Clone, tmp_path: Path) -> Clone:
    """A copy of the two versions, with all their files."""
    return Clone(Path(shutil.copytree(original.root, tmp_path / "clone", symlinks=True)))


def doctor(clone: Clone, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return clone.run("capnet doctor", environment)


def seconds(clone: Clone) -> float:
    """How long `capnet doctor` takes."""
    start = time.monotonic()
    doctor(clone)
    return time.monotonic() - start


def test_push_remove_pull_and_switch_by_git(clone: Clone) -> None:
    first, second = two_versions()
    clone.forget_files()
    result = doctor(clone)
    assert result.returncode == 3
    assert "there is no folder data" in result.stderr
    assert "dvc pull data.dvc" in result.stderr
    assert "answers at http://127.0.0.1" in result.stdout
    assert "it has this data version" in result.stdout
    assert "environment variables AWS_ACCESS_KEY_ID" in result.stdout
    clone.make("data-pull")
    assert tree(clone.root / "data") == second
    assert doctor(clone).returncode == 0
    clone.make("data-version REV=v1")
    assert tree(clone.root / "data") == first
    clone.make("data-version REV=v2")
    assert tree(clone.root / "data") == second
    (clone.root / "data" / "images" / "new.jpg").unlink()
    result = doctor(clone)
    assert result.returncode == 3
    assert "missing are images/new.jpg" in result.stderr


def test_a_version_that_was_never_pushed_is_told(clone: Clone) -> None:
    (clone.root / "data" / "images" / "extra.jpg").write_bytes(b"x")
    clone.do("dvc add -q data")
    result = doctor(clone)
    assert result.returncode == 3
    assert "lacks this data version" in result.stderr
    assert "dvc push" in result.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "refuses the credentials (SignatureDoesNotMatch)"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no credentials for S3 were found"),
        ({"AWS_PROFILE": "nobody"}, "nobody"),
    ],
)
def test_the_doctor_names_wrong_credentials(clone: Clone, change: Mapping[str, str], message: str) -> None:
    result = doctor(clone, change)
    assert result.returncode == 3
    assert message in result.stderr


def test_the_doctor_does_not_wait_for_a_server_that_is_gone_or_silent(clone: Clone) -> None:
    """It has five seconds: two of a processor for itself, and what DEADLINE says for servers, however busy the machine
    is.
    """
    doctor(clone)  # once, so that Python's own caches are there
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    usual = seconds(clone)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.0
    clone.do("dvc remote modify --local store endpointurl http://127.0.0.1:9")
    assert "S3 does not answer" in doctor(clone).stderr
    with socket.create_server(("127.0.0.1", 0)) as silent:
        clone.do(f"dvc remote modify --local store endpointurl http://127.0.0.1:{silent.getsockname()[1]}")
        assert "answer" in doctor(clone).stderr
        assert seconds(clone) < 2 * usual + DEADLINE


def test_a_missing_bucket_of_the_dvc_remote_is_told(clone: Clone) -> None:
    clone.do("dvc remote modify --local store url s3://no-such-bucket/dvc")
    assert "there is no such bucket" in doctor(clone).stderr


@pytest.mark.parametrize("scheme", ["git+file://", "git+"])
def test_a_git_repository_as_root_fetches_only_what_is_asked_for(clone: Clone, scheme: str) -> None:
    first, second = two_versions()
    clone.forget_files()  # so that files can come from S3 only
    root = f"{scheme}{clone.root}"
    here = {}
    for revision, files in (("v1", first), ("v2", second), ("", second)):
        settings = Data(root=root, revision=revision)
        folder = local_root(settings, Path(root))
        some = ["images/00.jpg", "images/05.jpg"]
        local_root(settings, Path(root), pd.DataFrame({"path": some}))
        here = tree(folder)
        assert here == {name: files[name] for name in ("labels.csv", *some)}
    assert here["labels.csv"] == second["labels.csv"]


def test_what_is_wrong_with_a_git_root_is_told(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    clone.forget_files()
    root = f"git+file://{clone.root}"

    def error(settings: Data) -> str:
        with pytest.raises(CapnetError) as caught:
            local_root(settings, Path(settings.root))
        return str(caught.value)

    assert "data.revision" in error(Data(root=root, revision="v9"))
    assert "no folder 'pictures'" in error(Data(root=root, path="pictures"))
    assert "can git clone it" in error(Data(root="git+file:///nowhere/at/all"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "credentials of the DVC remote" in error(Data(root=root, revision="v1"))


def test_a_git_root_whose_server_is_gone(clone: Clone, s3: S3Server) -> None:
    clone.forget_files()
    root = f"git+file://{clone.root}"
    s3.kill()
    try:
        with pytest.raises(DataError, match="does the remote answer"):
            local_root(Data(root=root, revision="v1"), Path(root), pd.DataFrame({"path": ["images/00.jpg"]}))
    finally:
        s3.start()


def test_dvc_imports_another_repository_s_version(clone: Clone, tmp_path: Path) -> None:
    first, second = two_versions()
    mine = Clone(tmp_path / "mine")
    mine.root.mkdir()
    shutil.copy(clone.root / "params.yaml", mine.root / "params.yaml")
    mine.do(f"git init -q . && dvc init -q && dvc import -q {clone.root} data --rev v1")
    assert tree(mine.root / "data") == first
    assert "as many as data.dvc says" in mine.run("capnet doctor").stdout
    mine.do("dvc update -q data.dvc --rev v2")
    assert tree(mine.root / "data") == second
