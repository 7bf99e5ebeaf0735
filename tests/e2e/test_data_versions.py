"""Data versions in a folder as DVC's remote: a switch that fails changes nothing, and a missing remote is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from clone import Clone, make_line

FIRST = {"labels.csv": b"path,labels\na.jpg,fox\n", "a.jpg": b"a", "b.jpg": b"b"}
SECOND = {**FIRST, "labels.csv": b"path,labels\na.jpg,owl\n", "c.jpg": b"c"}


@pytest.fixture(scope="module")
def original(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Versions v1 and v2, pushed to a folder; v1 is checked out. Tests work on copies."""
    workspace = Clone(tmp_path_factory.mktemp("original") / "clone")
    workspace.start(repository)
    workspace.make(f"data-remote URL={workspace.root.parent / 'store'}")
    for tag, files in (("v1", FIRST), ("v2", SECOND)):
        workspace.write(files)
        workspace.do("dvc add -q data")
        workspace.make("data-push")
        workspace.do(f"git add -A && git commit -qm {tag} && git tag {tag}")
    workspace.make("data-version REV=v1")
    workspace.do("git commit -qm back")
    return workspace


@pytest.fixture
def clone(original: Clone, tmp_path: Path) -> Clone:
    return Clone(Path(shutil.copytree(original.root, tmp_path / "clone", symlinks=True)))


def content(workspace: Clone) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (workspace.root / "data").iterdir()}


def test_a_switch_brings_pictures_and_data_dvc(clone: Clone) -> None:
    assert content(clone) == FIRST
    clone.forget_files()
    clone.make("data-version REV=v2")
    assert content(clone) == SECOND
    assert clone.do("git diff --cached --name-only").split() == ["data.dvc"]
    assert clone.do("git diff --cached v2 -- data.dvc") == ""


def test_a_version_holds_pictures_in_folders_that_are_called_as_ours_are(clone: Clone) -> None:
    names = ("runs", "build", "mlruns", "mlartifacts", ".venv", ".capnet")
    files = {**FIRST, **{f"images/{name}/1.jpg": name.encode() for name in names}}
    clone.write(files)
    clone.do("dvc add -q data")
    assert yaml.safe_load((clone.root / "data.dvc").read_text())["outs"][0]["nfiles"] == len(files)
    assert clone.do(f"dvc check-ignore {' '.join(f'{name}/1.jpg' for name in names)}").split() == [
        f"{name}/1.jpg" for name in names
    ]


@pytest.mark.parametrize("fault", ["unsaved", "no store"])
def test_a_switch_that_fails_leaves_data_dvc_and_the_index(clone: Clone, fault: str) -> None:
    if fault == "unsaved":
        (clone.root / "data/b.jpg").write_bytes(b"mine")
    else:
        clone.do("dvc remote modify --local store url /nowhere && rm -rf .dvc/cache")
    before, pictures = (clone.root / "data.dvc").read_bytes(), content(clone)
    result = clone.run(make_line("data-version REV=v2"))
    assert result.returncode != 0
    assert "data.dvc stays as it was" in result.stderr
    assert (clone.root / "data.dvc").read_bytes() == before
    assert content(clone) == pictures
    assert clone.do("git status --short") == ""


def test_a_revision_that_is_not_there_changes_nothing(clone: Clone) -> None:
    result = clone.run(make_line("data-version REV=v9"))
    assert result.returncode != 0
    assert "v9" in result.stderr
    assert clone.do("git status --short") == ""


def test_a_file_that_has_other_bytes_in_the_store_is_not_pulled(original: Clone, clone: Clone, tmp_path: Path) -> None:
    store = Path(shutil.copytree(original.root.parent / "store", tmp_path / "store"))
    clone.do(f"dvc remote modify --local store url {store}")
    clone.forget_files()
    stored = next(path for path in store.rglob("*") if path.is_file() and path.read_bytes() == FIRST["b.jpg"])
    stored.chmod(0o600)
    stored.write_bytes(b"other")
    assert clone.run(make_line("data-pull")).returncode != 0
    assert not (clone.root / "data").exists()
    assert "data/b.jpg" in clone.do("dvc status --cloud data.dvc")


@pytest.mark.parametrize("target", ["data-push", "data-pull", "data-version REV=v2"])
def test_without_a_remote_make_says_how_to_set_one(clone: Clone, target: str) -> None:
    clone.do("dvc remote remove store")
    if target != "data-push":
        clone.forget_files()
    result = clone.run(make_line(target))
    assert result.returncode != 0
    assert "make data-remote URL=" in result.stderr


def test_an_address_that_dvc_cannot_write_leaves_its_settings_and_gives_the_reason(clone: Clone) -> None:
    before = (clone.root / ".dvc/config").read_bytes()
    result = clone.run(make_line("data-remote URL=/mnt/Müller"))
    assert result.returncode != 0
    assert "can't encode" in result.stderr
    assert ".dvc/config stays as it was" in result.stderr
    assert (clone.root / ".dvc/config").read_bytes() == before


def test_the_doctor_advises_a_pull_that_works(clone: Clone) -> None:
    assert clone.run("capnet doctor").returncode == 0
    before = (clone.root / "data/b.jpg").read_bytes()
    (clone.root / "data/b.jpg").write_bytes(before + b"x")
    message = clone.run("capnet doctor").stderr
    total = sum(path.stat().st_size for path in (clone.root / "data").rglob("*"))
    assert f"files, {total} bytes in data, but data.dvc says " in message
    assert f"{total - 1} bytes\n" in message
    assert "to do: `dvc add data` records the folder as it is; `dvc checkout data` asks and brings" in message
    assert "fetch" not in message, "nothing is missing"
    (clone.root / "data/b.jpg").unlink()
    (clone.root / ".dvc/cache").rename(clone.root / ".dvc/gone")
    assert "to do: dvc pull data.dvc fetches what is missing" in clone.run("capnet doctor").stderr
    clone.forget_files()
    assert "to do: dvc pull data.dvc\n" in clone.run("capnet doctor").stderr + "\n"
    clone.do("dvc pull data.dvc")
    assert content(clone) == FIRST


def test_without_a_remote_the_doctor_advises_none(clone: Clone) -> None:
    clone.do("dvc remote remove store")
    (clone.root / "data/b.jpg").unlink()
    for _ in range(2):
        result = clone.run("capnet doctor")
        assert result.returncode == 3
        assert "dvc pull" not in result.stderr
        assert "no DVC remote is set" in result.stderr
        assert "make data-remote URL=" in result.stderr
        clone.forget_files()
