"""source.json: versions, files that travel, files that stay."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from capnet.config import Data
from capnet.contracts import tree_hash
from capnet.data.sources import source
from capnet.data.sources.cache_index import INDEX, open_index
from capnet.data.sources.remote import Entry
from capnet.data.sources.source import DataSource, digest, read_source, write_source
from capnet.errors import ContractError, DataError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (root / "labels.csv").write_text("path,labels\nimages/a.jpg,x\n")
    (root / "images" / "a.jpg").write_bytes(b"picture")
    return root


def test_files_of_a_folder_that_no_volume_holds_travel(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    result = write_source(Data(root=str(pictures)), out)
    assert (result.root, result.files) == ("", 2)
    assert tree_hash(out / "files") == tree_hash(pictures)
    assert str(tmp_path) not in (out / "source.json").read_text(), "an output holds no absolute path"
    assert read_source(out) == result


def test_nothing_that_a_link_takes_from_elsewhere_travels(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "secret").write_text("password")
    for name, target in (("images/b.jpg", "../../secret"), ("c", ".."), ("d.jpg", "nowhere")):
        (pictures / name).symlink_to(target)
    with pytest.raises(DataError) as caught:
        write_source(Data(root=str(pictures)), tmp_path / "out")
    assert {problem.what.split(" is a link")[0] for problem in caught.value.problems} >= {"'images/b.jpg'", "'d.jpg'"}
    assert list((tmp_path / "out").iterdir()) == []
    for name in ("c", "d.jpg"):
        (pictures / name).unlink()
    assert write_source(Data(root=str(pictures), links="anywhere"), tmp_path / "out").files == 3


def test_links_to_folders_that_lead_to_each_other_end(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        (pictures / name).symlink_to(".")
    assert write_source(Data(root=str(pictures)), tmp_path, str(tmp_path)).files == 2
    for name in "cdefgh":
        (pictures / name).mkdir()
        for other in "cdefgh":
            (pictures / name / other).symlink_to(f"../{other}")
    monkeypatch.setattr(source, "MOST_LINKED", 100)
    with pytest.raises(DataError, match="links lead to more than 100 folders"):
        write_source(Data(root=str(pictures)), tmp_path, str(tmp_path))


def test_a_table_that_is_edited_later_does_not_change_the_run(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_source(Data(root=str(pictures)), out)
    with open(pictures / "labels.csv", "a") as file:
        file.write("images/b.jpg,y\n")
    assert "b.jpg" not in (out / "files" / "labels.csv").read_text()


def test_files_on_a_volume_stay(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    result = write_source(Data(root=str(pictures)), out, str(tmp_path))
    assert result.root == str(pictures)
    assert [path.name for path in out.iterdir()] == ["source.json"]
    (pictures / "images" / "a.jpg").write_bytes(b"another picture")
    assert write_source(Data(root=str(pictures)), out, str(tmp_path)).digest != result.digest


def test_a_folder_beside_the_volume_is_not_on_it(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()
    out = tmp_path / "out"
    out.mkdir()
    assert write_source(Data(root=str(pictures)), out, str(tmp_path / "mount")).root == ""


def test_the_digest_sees_names_sizes_and_versions_and_no_order() -> None:
    one = {"a": Entry(1, "x"), "b": Entry(2, "y")}
    assert digest(one) == digest(dict(reversed(one.items())))
    for other in (
        {"a": Entry(1, "x")},
        {"a": Entry(2, "x"), "b": Entry(2, "y")},
        {"a": Entry(1, "z"), "b": Entry(2, "y")},
        {"c": Entry(1, "x"), "b": Entry(2, "y")},
    ):
        assert digest(other) != digest(one)


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        write_source(Data(root=str(tmp_path / "nothing")), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        write_source(Data(root=str(tmp_path / "empty")), tmp_path)


@pytest.mark.parametrize("content", [{"schema": 2}, {"schema": 1, "root": ""}, [], {"schema": 1, "where": "x"}])
def test_another_file_in_its_place_is_refused(tmp_path: Path, content: object) -> None:
    (tmp_path / "source.json").write_text(json.dumps(content))
    with pytest.raises(ContractError):
        read_source(tmp_path)


@pytest.mark.slow
def test_a_branch_becomes_the_commit_that_it_is_now(tmp_path: Path) -> None:
    """With a real DVC repository: the branch moves on, and the run still reads what it began with."""
    repository = tmp_path / "repository"
    (repository / "data").mkdir(parents=True)

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    dvc = str(Path(sys.executable).parent / "dvc")
    who = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    run("git", "init", "-q", "-b", "main")
    run(dvc, "init", "-q")
    run(dvc, "remote", "add", "-q", "-d", "store", str(tmp_path / "store"))
    commits, result = [], []
    for text in ("path,labels\na.jpg,x\n", "path,labels\na.jpg,y\n"):
        (repository / "data" / "labels.csv").write_text(text)
        run(dvc, "add", "-q", "data")
        run(dvc, "push", "-q")
        run("git", "add", "-A")
        run("git", *who, "commit", "-q", "-m", "data")
        commits.append(run("git", "rev-parse", "HEAD"))
        out = tmp_path / f"out{len(commits)}"
        out.mkdir()
        result.append(write_source(Data(root=f"git+file://{repository}", revision="main"), out))
    assert [item.revision for item in result] == commits
    assert result[0].digest != result[1].digest
    assert result[0].settings(Data(root="elsewhere", revision="main")).revision == commits[0]


def test_settings_keep_what_the_source_does_not_say() -> None:
    settings = Data(root="s3://bucket/x", anonymous=True, format="voc")
    assert DataSource("s3://bucket/x", "", "data", "d", 1).settings(settings) == settings


def test_a_group_that_the_umask_gives_the_right_to_write_has_it_in_the_index(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        open_index(tmp_path).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / INDEX).stat().st_mode) == 0o664
