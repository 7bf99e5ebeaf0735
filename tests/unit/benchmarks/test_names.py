"""Every benchmark that the command lists has a file with a main."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, FILES, main


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_listed_benchmark_has_its_file(name: str, repository: Path) -> None:
    path = repository / "benchmarks" / f"{FILES.get(name, name)}.py"
    assert path.is_file()
    assert "\ndef main(" in path.read_text()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_help_of_a_benchmark_names_its_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: python -m benchmarks {name} ")
