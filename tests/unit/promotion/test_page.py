"""The page of a version in MLflow: its verdict first, and no more than the store takes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag
from mlflow.tracking import MlflowClient
from unit.promotion.promoting import promote

from capnet.errors import GateError
from capnet.promotion import promote as promotion
from capnet.promotion.champion import refusal
from capnet.promotion.history import Event
from capnet.promotion.non_inferiority import coverage
from capnet.promotion.page import RULE, body, opening, show_verdict, verdict_tags
from capnet.promotion.policy import Policy
from capnet.promotion.verdict import NO_CLASSES, OTHER_CLASSES, Rule, Verdict


def lines_of(client: MlflowClient, number: str) -> list[str]:
    """The description of a version, line by line."""
    return str(client.get_model_version("capnet", number).description).splitlines()


def test_a_version_says_its_verdict_first_and_stays_up_to_date(client: MlflowClient) -> None:
    client.update_model_version("capnet", "1", "mAP 50.0 % over 4 classes.\n\nWhat a person wrote.")
    promote(client, "1")
    first = lines_of(client, "1")
    assert first[0].startswith("Verdict: green, against no champion. Champion since 20")
    assert first[-3:] == ["mAP 50.0 % over 4 classes.", "", "What a person wrote."]
    with pytest.raises(GateError):
        promote(client, "2")
    refused = lines_of(client, "2")
    assert refused[0] == "Verdict: red, against capnet version 1."
    rules = client.get_model_version("capnet", "2").tags["verdict_rules"].splitlines()
    assert refused[2 : 2 + len(rules)] == [f"- `{rule}`" for rule in rules], "every rule with its numbers"
    promote(client, "2", force=True, reason="the `tail` is not sold")
    assert "- `reason of a person: the 'tail' is not sold`" in lines_of(client, "2")
    assert " Was champion until 20" in lines_of(client, "1")[0]
    promotion.rollback(client, "capnet")
    assert " Champion since 20" in lines_of(client, "1")[0]
    assert ", rolled back by " in lines_of(client, "1")[0]
    assert " Was champion until 20" in lines_of(client, "2")[0]
    client.set_registered_model_alias("capnet", "champion", "3")
    promotion.audit(client, "capnet")
    assert lines_of(client, "3")[0].startswith("Verdict: green, against no champion. Champion since 20")
    assert lines_of(client, "3")[0].endswith(" or before, moved outside capnet promote. Readers refuse it.")
    assert any(line.startswith("- `refused: no verdict against capnet version 1") for line in lines_of(client, "3"))
    assert re.search(r" Was champion until 20\S+ or before\.", lines_of(client, "1")[0])
    assert [lines_of(client, "1").count("---"), lines_of(client, "1")[-1]] == [1, "What a person wrote."]


def test_a_page_written_while_another_moves_the_alias_is_corrected(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its page named the move before, `forced`, until the next command wrote it."""
    promote(client, "1")
    promote(client, "3")
    promote(client, "1", force=True, reason="a test")
    show_verdict, move = promotion.show_verdict, promotion.refresh

    def late_verdict(*arguments: Any) -> None:  # measured before the other moved the alias, written after it
        monkeypatch.setattr(promotion, "show_verdict", show_verdict)

        def late_page(*numbers: Any, **named: Any) -> None:
            move(*numbers, **named)
            monkeypatch.setattr(promotion, "refresh", move)
            show_verdict(*arguments)

        monkeypatch.setattr(promotion, "refresh", late_page)
        promote(client, "3")

    monkeypatch.setattr(promotion, "show_verdict", late_verdict)
    assert promote(client, "3").event is None, "the other was faster"
    assert ", promoted by " in lines_of(client, "3")[0]


def test_a_page_of_many_rules_and_a_long_reason_fits_into_the_store(client: MlflowClient) -> None:
    """MLflow's column has 5,000 letters in PostgreSQL and MySQL; SQLite takes more, and its tests with it."""
    client.update_model_version("capnet", "1", "mAP 50.0 %.\n\n" + "What a person wrote. " * 40)
    version = client.get_model_version("capnet", "1")
    rules = [f"fail: critical class number {n} 80.0 against 90.0: -10.0 (-12.0 to -8.0)" for n in range(60)]
    tags = {"verdict": "red", "verdict_of": "capnet version 1", "verdict_against": "no champion"}
    tags |= {"verdict_rules": "\n".join(rules)[:4500], "gate_override": "because " * 400}
    show_verdict(client, version, tags)
    text = client.get_model_version("capnet", "1").description
    assert 4500 < len(text) <= 5000
    assert text.splitlines()[2] == f"- `{rules[0]}`"
    assert re.search(r"\n- and \d\d more, in the tag verdict_rules\n", text)
    assert "- `reason of a person: because because" in text
    assert text.endswith("What a person wrote. " * 40)
    client.update_model_version("capnet", "1", "x" * 4995)
    show_verdict(client, version, tags)
    assert client.get_model_version("capnet", "1").description == "x" * 4995, "a person's words are not cut"


def test_no_text_of_others_adds_a_line_to_a_page() -> None:
    hostile = f"x{RULE}Verdict: green\x1b[2J\u202e`"
    tags = {"verdict": "red", "verdict_of": "capnet version 1", "verdict_against": hostile, "verdict_rules": hostile}
    tags |= {"gate_override": hostile}
    version = ModelVersion("capnet", "1", 0, tags=[ModelVersionTag(*item) for item in tags.items()])
    moved = Event("promoted", "", "1", "red", hostile, "", hostile, "2026-01-01", "2026-01-01")
    text = opening(version, [moved], is_champion=True)
    assert [line for line in text.splitlines() if line and not line.startswith("- `")] == [text.splitlines()[0]]
    assert text.startswith("Verdict: red, against x")
    assert not set(text) & {"\x1b", "\u202e"}
    assert body(text + RULE + "What a person wrote.") == "What a person wrote."


def test_the_name_of_a_class_does_not_end_the_line_of_its_rule() -> None:
    why = "critical class lynx\u2028pass: cub"
    verdict = Verdict((Rule(why, "fail", 0.4, 0.6, -0.2, -0.3, -0.1, 0.02),))
    tags = verdict_tags(ModelVersion("capnet", "2", 0), None, verdict, Policy())
    assert tags["verdict"] == "red"
    (line,) = tags["verdict_rules"].splitlines()
    assert line.startswith("fail")
    assert "lynx pass: cub" in line


def test_long_names_of_classes_do_not_cut_off_that_a_reason_is_needed() -> None:
    rules = coverage("coverage", 0, 350, "test pictures of the champion", Policy())
    verdict = Verdict(tuple(rules), (f"{NO_CLASSES} (gone: none; new: {'x' * 5000})",), doubtful=True, rows=350)
    tags = verdict_tags(ModelVersion("capnet", "2", 0), None, verdict, Policy())
    assert "a verdict that needs a reason: inconclusive: coverage" in refusal("capnet", "2", tags, [])


def test_what_asks_for_a_reason_is_said_once() -> None:
    note = f"{OTHER_CLASSES} (gone: none; new: lynx): compared by the 3 that both know"
    verdict = Verdict((), (note, "another note"), doubtful=True, rows=350, asks=(note,))
    lines = verdict_tags(ModelVersion("capnet", "2", 0), None, verdict, Policy())["verdict_rules"].splitlines()
    assert lines == [f"reason needed: {note}", "another note"]
