"""Every benchmark that the command lists has a file with a main, a help, and options that refuse what is no number."""

from __future__ import annotations

import re
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


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_number_of_a_benchmark_is_refused_out_of_its_range(
    name: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (repository / "benchmarks" / f"{FILES.get(name, name)}.py").read_text()
    numbers = re.findall(r'add_argument\("(--[a-z]+)",[^\n]*type=(?:int|from_one)', source)
    counts = [option for option in numbers if option != "--seeds"]  # seeds begin at 0, and settings check them
    needed = {"ablation": ["--sets", "a=b"], "paper": ["voc-lt"]}.get(name, [])
    for option in counts:
        for value in ("0", "-3", "1.5", "many"):
            with pytest.raises(SystemExit, match="2"):
                main([name, *needed, f"{option}={value}"])
            assert f"argument {option}: {value!r} is no whole number from 1 on" in capsys.readouterr().err
    assert counts
