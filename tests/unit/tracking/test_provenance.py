"""What a run says of its origin: the commit, and the tags that a registration finds it by."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from capnet.config import parse
from capnet.tracking.provenance import fingerprints, git_revision

SECTIONS = ("backbone", "tte", "train")


@pytest.mark.parametrize("foreign", [False, True])
def test_a_commit_that_git_does_not_tell_because_another_account_owns_the_folder_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, foreign: bool
) -> None:
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.delenv("CAPNET_GIT_REVISION", raising=False)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", str(int(foreign)))
    assert git_revision() == ""
    assert ("the commit is not recorded: fatal: detected dubious ownership" in caplog.text) == foreign
    monkeypatch.setenv("CAPNET_GIT_REVISION", "abc")
    assert git_revision() == "abc"


def test_a_run_of_settings_with_several_seeds_is_found_by_its_model_which_has_one(tmp_path: Path) -> None:
    (tmp_path / "split.parquet").write_bytes(b"rows")
    settings, model, another = (
        fingerprints(parse({"train": train}).subset(SECTIONS), tmp_path)
        for train in ({"seeds": [0, 1, 2]}, {}, {"seeds": [0, 1, 2], "epochs": 7})
    )
    assert settings == model != another
