"""A candidate that was tested on half of the champion's pictures, on a real store: a person gives a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from unit.promotion.made_world import POLICY
from unit.stores import Make

from capnet.errors import GateError
from capnet.promotion import history, measure, versions
from capnet.promotion import promote as promotion
from capnet.promotion.champion import resolve
from capnet.promotion.scores import GateScores
from capnet.promotion.verdict import LIKELY, NO_INTERVAL, Rule, Verdict


def promote(client: MlflowClient, number: str, answer: bool = True, reason: str = "") -> promotion.Outcome:
    version = client.get_model_version("capnet", number)
    return promotion.promote(client, version, POLICY, lambda verdict: answer, reason=reason)


@pytest.fixture
def shrunken(client: MlflowClient, make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Version 1 is champion; version 3 was tested on half of its pictures."""
    promote(client, "1")
    third = client.get_model_version("capnet", "3")
    known = measure.scores_of

    def half(asked: MlflowClient, version: object) -> GateScores:
        result = known(asked, version)  # type: ignore[arg-type]
        return (
            replace(result, test=result.test.iloc[::2].reset_index(drop=True))
            if getattr(version, "version", "") == third.version
            else result
        )

    monkeypatch.setattr(measure, "scores_of", half)
    return client


def test_a_person_must_give_a_reason_which_stays(shrunken: MlflowClient) -> None:
    for reason in ("", "  "):
        with pytest.raises(GateError, match=r"needs --reason") as caught:
            promote(shrunken, "3", reason=reason)
        assert "200 of 400 test pictures of the champion are compared" in str(caught.value)
        assert str(versions.champion_of(shrunken, "capnet").version) == "1"  # type: ignore[union-attr]
    with pytest.raises(GateError, match="nobody confirmed"):
        promote(shrunken, "3", answer=False, reason="the old camera is gone")
    assert promote(shrunken, "3", reason="the old camera is gone").now == "3"
    last = history.events(shrunken, "capnet")[-1]
    assert (last.kind, last.verdict, last.reason) == ("promoted", "inconclusive", "the old camera is gone")
    assert str(resolve(shrunken, "models:/capnet@champion").version) == "3"


def test_who_decides_is_shown_what_fell_most() -> None:
    """A refusal named it, and so did the version's page; the question on the command line did not."""
    fell = ("free air 83.3 to 10.6, 5 test pictures",)
    for verdict in (Verdict(doubtful=True, fell=fell), Verdict(doubtful=True, fell=fell, asks=("other classes",))):
        with pytest.raises(GateError, match=r"(^|\n)fell most: free air 83\.3 to 10\.6, 5 test pictures\n"):
            promotion._require_consent(verdict, "capnet version 3", "", lambda _: False)


def test_a_refusal_by_several_rules_lists_once_what_fell_most() -> None:
    rules = [Rule(name, "fail", 0.1, 1.0, -0.9, -1.0, -0.8, 0.05) for name in ("policy", "mAP", "tail", "lynx")]
    with pytest.raises(GateError) as caught:
        promotion._require_consent(Verdict(tuple(rules), fell=("lynx 83.3 to 10.6",)), "capnet version 3", "", bool)
    assert [problem.todo for problem in caught.value.problems[:-1]] == [
        "promote by the policy that the champion passed",
        "look at what fell most (lynx 83.3 to 10.6); train again",
        "train again",
        "train again",
    ]


def test_what_probably_fell_comes_before_what_could_not_be_decided() -> None:
    unsure = Rule("coverage", "inconclusive", 0.9, 0.99, -0.09, *NO_INTERVAL, 0.0, "few")
    fell = Rule("critical class lynx", "inconclusive", 0.1, 1.0, -0.9, -1.0, -0.8, 0.05, LIKELY)
    verdict = Verdict((unsure, fell), doubtful=True, asks=("the champion knows other classes",))
    with pytest.raises(GateError) as caught:
        promotion._require_consent(verdict, "capnet version 3", "", lambda _: False)
    begins = [problem.what.split(" ")[:2] for problem in caught.value.problems]
    assert begins[:3] == [["the", "champion"], ["inconclusive:", "critical"], ["inconclusive:", "coverage"]]


def test_a_click_needs_the_reason_too(shrunken: MlflowClient) -> None:
    with pytest.raises(GateError):
        promote(shrunken, "3")  # tags the verdict
    shrunken.set_registered_model_alias("capnet", "champion", "3")
    with pytest.raises(GateError, match="inconclusive: coverage"):
        resolve(shrunken, "models:/capnet@champion")
    assert "200 of 400 test pictures of the champion" in promotion.audit(shrunken, "capnet").refused
    shrunken.set_model_version_tag("capnet", "3", "gate_override", "the old camera is gone")
    assert str(resolve(shrunken, "models:/capnet@champion").version) == "3"
