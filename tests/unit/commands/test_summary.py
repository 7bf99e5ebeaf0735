"""`capnet summary` on files as the evaluation writes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from capnet.cli import main
from capnet.contracts import tree_hash
from capnet.errors import ContractError

COLUMNS = "class,train_count,bucket,positives,ap,ap_low,ap_high,ap_single_view,ap_zero_shot,ap_linear_probe,"
PER_CLASS = f"""{COLUMNS}threshold,borrowed
cat,120,head,40,0.9,0.85,0.95,0.9,0.8,0.7,0.5,False
"[bold]dog, big",7,tail,12,0.512,0.4,0.6,0.5,0.25,0.3,0.5,False
owl,3,tail,0,,,,,,,0.5,True
"""


def _values(value: float) -> dict[str, float]:
    result = {}
    for name in ("CF1", "OF1"):  # at 0.5, which nobody serves with
        result |= {name: value / 2, f"{name}_low": value / 2 - 0.01, f"{name}_high": value / 2 + 0.01}
    for name in ("mAP", "head", "tail", "CF1_chosen", "OF1_chosen"):
        result |= {name: value, f"{name}_low": value - 0.021, f"{name}_high": value + 0.034}
    return result


@pytest.fixture
def evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("COLUMNS", raising=False)
    variants = {
        "capnet": 0.601,
        "single_view": 0.58,
        "zero_shot": 0.2,
        "zero_shot_single_view": 0.19,
        "linear_probe": 0.55,
    }
    metrics: dict[str, Any] = {"schema": 1} | {name: _values(value) for name, value in variants.items()}
    metrics |= {"test_rows": 700, "left_out": ["owl"], "differences": {}}
    metrics["slices"] = {"[unseen] artwork": {"capnet": _values(0.4), "zero_shot": _values(0.1)}}
    metrics["slice_info"] = {"[unseen] artwork": {"test_rows": 350}}
    (tmp_path / "evaluation.json").write_text(json.dumps(metrics))
    (tmp_path / "per_class.csv").write_text(PER_CLASS)
    return tmp_path


def _summary(folder: Path) -> str:
    result = CliRunner().invoke(main, ["summary", "--evaluation", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_figures_of_another_model_than_the_one_beside_them_are_pointed_out(evaluation: Path) -> None:
    folder, model = evaluation / "evaluation", evaluation / "model"
    for path in (folder, model):
        path.mkdir()
    (model / "config.json").write_text("{}")
    for name in ("evaluation.json", "per_class.csv"):
        (evaluation / name).rename(folder / name)
    assert "another one" not in _summary(folder), "of an evaluation that names no model nothing is known"
    for model_md5, times in ((tree_hash(model), 0), ("another.dir", 1)):
        content = json.loads((folder / "evaluation.json").read_text()) | {"model_md5": model_md5}
        (folder / "evaluation.json").write_text(json.dumps(content))
        assert _summary(folder).count(f"The model in {model} is another one: `capnet evaluate` measures it.") == times


def _terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """What rich takes for a terminal, without styles in the text."""
    for name, value in {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": str(columns), "LINES": "40"}.items():
        monkeypatch.setenv(name, value)


def test_the_table_has_every_variant_with_intervals_in_percent(evaluation: Path) -> None:
    lines = _summary(evaluation).splitlines()
    first = [line.split()[0] for line in lines if line.strip()]
    assert first[first.index("variant") + 2 :][:5] == [
        "capnet",
        "single_view",
        "zero_shot",
        "zero_shot_single_view",
        "linear_probe",
    ]
    row = next(line for line in lines if line.strip().startswith("capnet"))
    assert row.count("60.1 (58.0-63.5)") == 5
    assert "medium" not in "\n".join(lines[:4])  # no class is of medium frequency


def test_no_interval_is_named_where_all_test_pictures_are_of_one_group(evaluation: Path) -> None:
    assert "Intervals are 95 % bootstrap intervals." in _summary(evaluation)
    path = evaluation / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bootstrap": {"unit": "group", "units": 1}}))
    metrics = json.loads(path.read_text())
    metrics["slice_info"]["[unseen] artwork"]["test_rows"] = 1
    path.write_text(json.dumps(metrics))
    text = _summary(evaluation)
    assert "Slice [unseen] artwork: 1 test picture\n" in "\n".join(map(str.strip, text.splitlines())) + "\n"
    assert "There are no intervals, because all test pictures are of one group." in text
    assert "Intervals are" not in text


def test_slices_tail_classes_and_the_report_follow(evaluation: Path) -> None:
    text = _summary(evaluation)
    order = [
        "Slice [unseen] artwork: 350 test pictures",
        "40.0 (37.9-43.4)",
        "Tail classes",
        "[bold]dog, big",
        "Without test positives",
        "report.html",
    ]
    assert [text.index(word) for word in order] == sorted(text.index(word) for word in order)
    dog, owl = (next(line for line in text.splitlines() if word in line) for word in ("[bold]dog", " owl "))
    assert dog.split()[-5:] == ["7", "12", "51.2", "25.0", "30.0"]
    assert owl.split()[-3:] == ["-", "-", "-"]
    assert "cat" not in text
    assert text.splitlines()[-1] == f"Report: {evaluation / 'report.html'}"


def test_promises_and_few_groups_are_said(evaluation: Path) -> None:
    assert "Asked for" not in _summary(evaluation)
    path = evaluation / "evaluation.json"
    rates = {"recall": 0.853, "recall_low": 0.788, "recall_high": 0.918}
    threshold = {"objective": "recall>=0.9", "source": "val", "notes": []}
    more = {"threshold": threshold, "decisions": {"all": rates}, "bootstrap": {"unit": "group", "units": 4}}
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    text = " ".join(_summary(evaluation).split())
    assert "The test pictures are of only 4 groups. Intervals from so few can be too narrow" in text
    assert "Asked for: recall of at least 90.0 %. On the test pictures: 85.3 % (78.8 to 91.8), which shows" in text


def test_a_slice_without_a_positive_is_named(evaluation: Path) -> None:
    metrics = json.loads((evaluation / "evaluation.json").read_text())
    metrics["slice_info"]["[b]night"] = {"test_rows": 12}
    (evaluation / "evaluation.json").write_text(json.dumps(metrics))
    sentence = "Slice [b]night: no class has a positive and a negative on its 12 test pictures, so no figures."
    assert sentence in " ".join(_summary(evaluation).split())


def test_names_are_shown_as_they_are_written(evaluation: Path) -> None:
    metrics = json.loads((evaluation / "evaluation.json").read_text())
    metrics["left_out"] = [":cat: [red]left"]
    metrics["slices"] = {":dog: [b]slice\x1b[2J": metrics["slices"]["[unseen] artwork"]}
    (evaluation / "evaluation.json").write_text(json.dumps(metrics))
    names = [":owl: [/b]class", "end\\"]
    (evaluation / "per_class.csv").write_text(
        PER_CLASS + "".join(f"{name},3,tail,0,,,,,,,0.5,True\n" for name in names)
    )
    lines = _summary(evaluation).splitlines()
    assert "Slice :dog: [b]slice\\x1b[2J: ? test pictures" in [line.strip() for line in lines]
    assert [name for name in names if not any(line.split("  ")[1] == name for line in lines if "  " in line)] == []
    assert "Without test positives or test negatives, so without average precision: :cat: [red]left." in lines


def test_of_many_classes_without_test_positives_some_are_named_and_the_rest_counted(evaluation: Path) -> None:
    file = evaluation / "evaluation.json"
    metrics = json.loads(file.read_text())
    metrics["left_out"] = [f"rare {c}" for c in range(500)]
    file.write_text(json.dumps(metrics))
    sentence = " ".join(_summary(evaluation).partition("Without test positives")[2].partition("Report:")[0].split())
    assert sentence.count("rare") == 40
    assert sentence.endswith(" and 460 more.")


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_a_narrow_terminal_cuts_nothing(evaluation: Path, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    file = evaluation / "evaluation.json"
    metrics = json.loads(file.read_text())
    metrics["capnet"] |= {"medium": 1.0, "medium_low": 1.0, "medium_high": 1.0}
    file.write_text(json.dumps(metrics))
    classes = (evaluation / "per_class.csv").read_text()
    (evaluation / "per_class.csv").write_text(classes.replace("owl", "owl" * 30))
    _terminal(monkeypatch, columns)
    text = _summary(evaluation)
    assert "…" not in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("Report")) <= columns
    assert text.count("58.0-63.5") == 5
    assert text.count("100.0-100.0") == 1
    assert text.count("60.1 (58.0-63.5)") == 0
    assert ("zero_shot_single_view" in text) is (columns >= 100), "a name in one line where there is room"


def test_a_wide_terminal_shows_values_and_intervals_side_by_side(
    evaluation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _terminal(monkeypatch, 150)
    assert _summary(evaluation).count("60.1 (58.0-63.5)") == 5


def test_a_class_that_the_output_cannot_show_is_escaped(evaluation: Path) -> None:
    """The command ended with a traceback."""
    file = evaluation / "per_class.csv"
    file.write_text(file.read_text().replace("owl", "赤狐"), encoding="utf-8")
    command = [sys.executable, "-m", "capnet", "summary", "--evaluation", str(evaluation)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert r"\u8d64\u72d0" in done.stdout


@pytest.mark.parametrize("columns", ["", "80", "120"])
def test_a_pipe_is_no_wider_than_a_terminal(evaluation: Path, columns: str) -> None:
    """All six means with their intervals do not fit into one line of 120 columns."""
    file = evaluation / "evaluation.json"
    metrics = json.loads(file.read_text())
    for variant in ("capnet", "single_view", "zero_shot", "zero_shot_single_view", "linear_probe"):
        metrics[variant] |= {"medium": 0.601, "medium_low": 0.58, "medium_high": 0.635}
    file.write_text(json.dumps(metrics))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    environment |= {"COLUMNS": columns} if columns else {}
    text = subprocess.run(
        [sys.executable, "-m", "capnet.cli", "summary", "--evaluation", str(evaluation)],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    ).stdout
    lines = [line for line in text.splitlines() if not line.startswith("Report")]
    assert max(map(len, lines)) <= int(columns or 120)
    assert "\u2026" not in text
    assert text.count("58.0-63.5") == 10  # capnet has six of them, the other variants one


def test_missing_or_foreign_files_are_contract_errors(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="missing"):
        _summary(tmp_path)
    (tmp_path / "evaluation.json").write_text('{"schema": 2, "capnet": {"mAP": 0.5}}')
    with pytest.raises(ContractError, match="schema version 2"):
        _summary(tmp_path)
    (tmp_path / "evaluation.json").write_text('{"schema": 1, "zero_shot": {}}')
    with pytest.raises(ContractError, match="no results of the variant capnet"):
        _summary(tmp_path)
    (tmp_path / "evaluation.json").write_text('{"schema": 1, "capnet": {"mAP": 0.5}}')
    with pytest.raises(ContractError, match="missing"):
        _summary(tmp_path)


def test_nothing_heavy_is_imported(evaluation: Path) -> None:
    code = f"""
import sys
from capnet.cli import main
main(["summary", "--evaluation", {str(evaluation)!r}], standalone_mode=False)
heavy = {{"torch", "pandas", "numpy", "scipy", "sklearn"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
