"""What `capnet predict` prints of drift, and what Ctrl-C prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from capnet import cli
from capnet.commands import predict


def drift_report(*drifted: bool) -> dict[str, Any]:
    rates = {"decided_rate": 0.25, "reference_rate": 0.125, "z": 4.0, "psi": 0.5}
    classes = [{"name": f"class {c}", "drifted": value, **rates} for c, value in enumerate(drifted)]
    return {"enough_pictures": True, "psi_limit": 0.25, "classes": classes}


def test_drift_says_what_differs_and_where_all_of_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    predict.show_drift(drift_report(True, False), Path("a.csv.drift.json"))
    assert capsys.readouterr().out.splitlines() == [
        "drift: class 0 on 25.0 % of the images, 12.5 % in the reference, PSI of its scores 0.50",
        "drift: 1 of 2 classes differ from the reference, by their rate or by their scores (PSI above 0.25);"
        " see a.csv.drift.json",
    ]


def test_rates_of_a_rare_class_are_not_shown_as_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    report = drift_report(True)
    report["classes"][0] |= {"decided_rate": 0.0004, "reference_rate": 0.0}
    predict.show_drift(report, Path("a.csv.drift.json"))
    assert "class 0 on 0.04 % of the images, 0.0 % in the reference" in capsys.readouterr().out


@pytest.mark.parametrize(("psi", "text"), [(0.2537, "0.254"), (0.2503, "0.2503"), (0.2462, "0.246"), (0.31, "0.31")])
def test_scores_are_not_shown_as_at_the_limit_that_they_are_above_or_below(psi, text, capsys) -> None:
    report = drift_report(True)
    report["classes"][0] |= {"psi": psi}
    predict.show_drift(report, Path("a.csv.drift.json"))
    assert f"PSI of its scores {text}\n" in capsys.readouterr().out


def test_no_drift_needs_no_explanation(capsys: pytest.CaptureFixture[str]) -> None:
    predict.show_drift(drift_report(False), Path("a.csv.drift.json"))
    assert capsys.readouterr().out == "drift: 0 of 1 classes differ from the reference; see a.csv.drift.json\n"


def test_ctrl_c_says_that_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("capnet.config.load", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main(["predict", "--input", "images"])
    assert ended.value.code == 1
    assert capsys.readouterr().err.strip() == "capnet: stopped; the same command again goes on"
