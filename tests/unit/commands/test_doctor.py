"""`capnet doctor` on data of an unusual kind: too large to count in time, the working folder itself, a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from capnet.commands.doctor import data
from capnet.config import Data
from capnet.errors import counted


@pytest.mark.parametrize("recorded", [False, True])
def test_a_folder_with_too_many_files_to_count_is_no_network_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    (folder := tmp_path / "data").mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(b"x")
    if recorded:
        text = "outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  size: 3\n  nfiles: 3\n  hash: md5\n  path: data\n"
        (tmp_path / "data.dvc").write_text(text)
    monkeypatch.setattr(data, "COUNTING", 0.0)
    (finding,) = data.check_folder(folder)
    assert finding.problem is None
    assert finding.message == f"more than {counted(1, 'file')} in {folder}, too many to count in 0 seconds"
    assert finding.warning == (f"`dvc status {folder}.dvc` compares them all" if recorded else "")


def test_the_working_folder_may_be_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"x")
    (finding,) = data.check_folder(Path())
    assert finding.problem is None
    assert finding.message.startswith("1 file, 0.0 MB in .; not under DVC")


@pytest.mark.parametrize("text", ["", "outs: [", "outs:\n- md5: ../../secret\n  path: data\n"])
def test_a_data_dvc_that_cannot_be_read_is_no_data_outside_dvc(tmp_path: Path, text: str) -> None:
    (folder := tmp_path / "data").mkdir()
    (folder / "a.jpg").write_bytes(b"x")
    (tmp_path / "data.dvc").write_text(text)
    (finding,) = data.check_folder(folder)
    assert finding.problem is not None
    assert finding.problem.where == str(tmp_path / "data.dvc")
    assert "cannot be read" in finding.problem.what
    assert "dvc add" not in f"{finding.message} {finding.problem.todo}"


@pytest.mark.parametrize("configured", [False, True])
def test_data_dvc_says_nothing_of_images_that_stay_in_a_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configured: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    store = "[core]\n    remote = store\n['remote \"store\"']\n    url = ../elsewhere\n"
    (tmp_path / ".dvc" / "config").write_text(store if configured else "")
    text = "outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  size: 3\n  nfiles: 3\n  hash: md5\n  path: data\n"
    (tmp_path / "data.dvc").write_text(text)
    findings = list(data.data_checks(Data(root="s3://bucket/birds"))["dvc remotes"]())
    assert [finding.problem for finding in findings] == [None] * configured
    assert not any("images" in finding.message or "version" in finding.message for finding in findings)


@pytest.mark.parametrize(("root", "library"), [("git+https://example.org/birds", "dvc.api"), ("data", "dvc.config")])
def test_what_the_checks_import_is_loaded_before_the_clock_runs(
    monkeypatch: pytest.MonkeyPatch, root: str, library: str
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(data, "import_module", loaded.append)
    data.data_checks(Data(root=root))
    assert loaded == ["boto3", library]
