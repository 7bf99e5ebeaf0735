"""Settings files that would fill the memory or the stack: refused in words, soon."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from faults.bounded import bounded

from capnet.cli import main
from capnet.config import load
from capnet.errors import ConfigError
from capnet.promotion.policy import read_policy
from capnet.yaml_text import read_yaml

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))
HOSTILE = {
    "aliases that laugh": LAUGHS,
    "merges that laugh": MERGES,
    "an alias of itself": "data: &a [*a]",
    "deep lists": "data: " + "[" * 100_000 + "]" * 100_000,
    "deep mappings": "{data: " * 50_000 + "}" * 50_000,
    "deep blocks": "".join(f"{' ' * depth}a:\n" for depth in range(1000)),
    "5,000 digits": f"runtime: {{seed: {'9' * 5000}}}",
    "5,000 hexadecimal digits": f"runtime: {{seed: 0x{'f' * 5000}}}",
    "a number of 5,000 digits as key": f"0x{'f' * 5000}: 1",
    "5,000 binary digits": f"runtime: {{seed: 0b{'1' * 20_000}}}",
    "an infinity": "train: {epochs: .inf}",
    "an endless text": "data: {root: '" + "a" * 3_000_000 + "'}",
    "an object of Python": "data: !!python/object/apply:os.system ['touch EXECUTED']",
    "an unknown tag": "data: !x {}",
    "a zero byte": "data: {root: 'a\0b'}",
    "two documents": "data: {}\n---\ndata: {}",
    "half a letter": 'data: {root: "\\ud800"}',
    "a list as key": "? [a, b]\n: 1",
    "a mapping as key": "? {a: b}\n: 1",
    "a date that is none": "data: {root: 2001-99-99}",
    "binary that is none": "data: {root: !!binary '***'}",
    "a truth value that is none": "data: {anonymous: !!bool x}",
    "a tag for a date that is none": "data: {root: !!timestamp x}",
    "a tag for a mapping of a list": "data: !!map [a]",
    "a number in base 60 of 4,000 parts": f"train: {{lr: {':'.join(['59'] * 4000)}.5}}",
    "a zero byte as an escape": 'data: {root: "a\\0b"}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_settings_are_refused_with_the_file_in_bounded_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(HOSTILE[name])
    outcome = bounded(lambda: load(path))
    assert outcome.kind == "refused", outcome
    assert outcome.is_bounded, outcome
    assert str(path) in outcome.text
    assert len(outcome.text) < 4000
    assert not Path("EXECUTED").exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_and_on_the_command_line(name: str) -> None:
    started = time.monotonic()
    result = CliRunner().invoke(main, ["ingest", "--params", "no.yaml", "--set", f"data.root={HOSTILE[name]}"])
    assert isinstance(result.exception, ConfigError)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("read", "limit"),
    [(load, "settings have at most 1,048,576 letters"), (read_policy, "and at most 4,194,304 are read")],
)
def test_a_file_of_gigabytes_is_not_read(tmp_path: Path, read: Callable[[Path], object], limit: str) -> None:
    path = tmp_path / "large.yaml"
    with open(path, "wb") as file:
        file.truncate(4 << 30)
    outcome = bounded(lambda: read(path))
    assert outcome.kind == "refused", outcome
    assert outcome.has_three_parts, outcome
    assert "4,294,967,296 bytes" in outcome.text
    assert limit in outcome.text
    assert outcome.megabytes < 50


def test_aliases_and_merges_that_people_write_are_still_read() -> None:
    text = "usual: &usual {epochs: 3}\ntrain: {<<: *usual, views: 2}\nmore: [*usual, *usual]"
    assert read_yaml(text) == {
        "usual": {"epochs": 3},
        "train": {"epochs": 3, "views": 2},
        "more": [{"epochs": 3}, {"epochs": 3}],
    }
    assert read_yaml("") is None


@pytest.mark.parametrize("number", ["010", "-007", "0_10", "1:30", "1:30.5"])
def test_a_number_that_dvc_reads_as_another_one_is_refused(number: str) -> None:
    """PyYAML made 8 of 010, and 90 of 1:30."""
    with pytest.raises(ValueError, match=f"line 2: {number} is "):
        read_yaml(f"split:\n  seed: {number}")


def test_numbers_that_both_read_alike_are_read() -> None:
    assert read_yaml("[0, -0, 10, 1_000, 0x1F, 0.5, '010']") == [0, 0, 10, 1000, 31, 0.5, "010"]
