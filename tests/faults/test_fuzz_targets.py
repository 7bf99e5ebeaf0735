"""Each target of the fuzzer reads its valid file to the end: what is behind a refusal is fuzzed, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.fuzz_edits import MARK, edited, edits
from faults.fuzz_targets import EDITED, TARGETS, VALID, is_read, read, seeds

from capnet.data.annotations.rows import Annotations
from capnet.errors import DataError

ROWS = {"coco": 1, "camera_traps": 1, "csv": 2, "parquet": 1, "voc_xml": 1, "voc_list": 1, "nus_wide": 2}


@pytest.mark.parametrize("name", TARGETS)
def test_the_valid_file_is_read_without_a_mistake(name: str, tmp_path: Path) -> None:
    result = read(name, tmp_path, VALID[name])
    assert result is not None
    if name in ROWS:
        assert isinstance(result, Annotations)
        assert (result.problems, len(result.rows), result.rows.labels.map(len).gt(0).any()) == ([], ROWS[name], True)


@pytest.mark.parametrize("name", EDITED)
def test_edits_that_change_nothing_are_read_and_others_refused(name: str, tmp_path: Path) -> None:
    same = edits(VALID[name])
    assert len(same) >= 2
    for edit in same:
        assert read(name, tmp_path, edit) is not None
    contents = (b"", b"[[]]")
    refused = sum(not is_read(name, tmp_path, edit[:2] + content) for edit in same for content in contents)
    assert len(same) <= refused <= len(same) * len(contents)


def test_what_annotations_have_mistakes_in_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not an annotation"):
        read("voc_xml", tmp_path, b"<annotation>")


def test_an_edit_that_no_file_can_hold_is_none() -> None:
    assert edited(VALID["split"], MARK + b"\0" + b"[1, {}]") is None
    assert edited(VALID["split"], MARK + b"\0" + b"no JSON") is None


def test_the_first_of_all_a_fuzzer_starts_from_is_the_valid_file() -> None:
    assert set(VALID) == set(TARGETS)
    for name, valid in VALID.items():
        first, *others = seeds(name)
        assert first == valid
        assert len(others) > 5
