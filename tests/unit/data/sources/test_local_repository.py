"""Data versions in a git repository on this machine: its commits count, and not its working files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from capnet.data.sources.cache import Cache
from capnet.data.sources.dvc_versions import DvcSource
from capnet.errors import DataError


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two DVC folders, whose names end alike and whose files have very different sizes; a file was
    edited since.
    """
    root = tmp_path_factory.mktemp("pictures")
    for name, size in (("data/images/a.jpg", 10), ("data/labels.csv", 30), ("all-data/film.bin", 90_000)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * size)
    commands = (
        "git init -q && git config user.email someone@example.org && git config user.name someone && dvc init -q"
        " && dvc add -q all-data data && git add -A && git commit -qm first"
    )
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(commands, shell=True, cwd=root, check=True, env=environment)
    (root / "data/labels.csv").write_text("edited")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["git+", "git+file://"])
def test_working_files_that_nobody_committed_are_not_read(versions: Path, tmp_path: Path, scheme: str) -> None:
    source = DvcSource(f"{scheme}{versions}")
    copies = Cache(tmp_path / "cache", 10**6, 1).bring(source)
    source.close()
    assert (copies / "labels.csv").read_bytes() == b"x" * 30


@pytest.mark.parametrize(("path", "size"), [("data", 20), ("data/images", 20), ("all-data", 90_000)])
def test_sizes_are_the_average_of_that_folder_and_of_no_other(versions: Path, path: str, size: int) -> None:
    source = DvcSource(f"git+{versions}", "HEAD", path)
    entries = source.entries()
    source.close()
    assert {entry.size for entry in entries.values()} == {size}


@pytest.mark.parametrize(("path", "message"), [("data", "names no default remote"), ("pictures", "has no folder")])
def test_a_version_without_a_remote_is_not_one_without_the_folder(
    versions: Path, tmp_path: Path, path: str, message: str
) -> None:
    # a bare clone has no DVC cache, as on a git server
    subprocess.run(["git", "clone", "-q", "--bare", versions, tmp_path / "pictures.git"], check=True)
    source = DvcSource(f"git+{tmp_path / 'pictures.git'}", "HEAD", path)
    with pytest.raises(DataError, match=message):
        source.entries()
    source.close()
