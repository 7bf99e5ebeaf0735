"""Every benchmark that the command lists has a file with a main."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, FILES


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_listed_benchmark_has_its_file(name: str, repository: Path) -> None:
    path = repository / "benchmarks" / f"{FILES.get(name, name)}.py"
    assert path.is_file()
    assert "\ndef main(" in path.read_text()
