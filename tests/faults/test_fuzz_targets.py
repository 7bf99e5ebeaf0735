"""Each target of the fuzzer reads its valid file to the end: what is behind a refusal is fuzzed, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.fuzz_targets import TARGETS, VALID, seeds

from capnet.data.annotations.rows import Annotations

ROWS = {"coco": 1, "camera_traps": 1, "csv": 2, "parquet": 1, "voc_xml": 1, "voc_list": 1, "nus_wide": 2}


@pytest.mark.parametrize("name", TARGETS)
def test_the_valid_file_is_read_without_a_mistake(name: str, tmp_path: Path) -> None:
    if name == "request":  # of which one part is always wrong
        with pytest.raises(Exception, match="neither an image in base64 nor a file") as refused:
            TARGETS[name](tmp_path, VALID[name])
        assert [problem.where for problem in refused.value.problems] == ["row 0", "row 1"]  # type: ignore[attr-defined]
        return
    result = TARGETS[name](tmp_path, VALID[name])
    assert result is not None
    if name in ROWS:
        assert isinstance(result, Annotations)
        assert (result.problems, len(result.rows), result.rows.labels.map(len).gt(0).any()) == ([], ROWS[name], True)


def test_the_first_of_all_a_fuzzer_starts_from_is_the_valid_file() -> None:
    assert set(VALID) == set(TARGETS)
    for name, valid in VALID.items():
        first, *others = seeds(name)
        assert first == valid
        assert len(others) > 5
