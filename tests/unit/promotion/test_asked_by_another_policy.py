"""A request by another policy is refused, and what it leaves among the tags of a former champion helps nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from unit.promotion.promoting import champion_scores, click, submit
from unit.promotion.worse_tables import BAD, worse

from capnet.errors import GateError
from capnet.promotion import promote as promotion
from capnet.promotion.policy import MayFall, Policy
from capnet.promotion.versions import version_to_beat

POLICY = Policy(draws=200)
LAX = Policy(draws=200, coverage=0.0, may_fall=MayFall(mAP=1.0, tail=1.0, critical=1.0))


def promote(client: MlflowClient, number: str, policy: Policy = POLICY) -> Any:
    return promotion.promote(client, client.get_model_version("capnet", number), policy, lambda verdict: True)


def submit_bad(client: MlflowClient, folder: Path) -> str:
    scores = worse(champion_scores(client))
    scores = type(scores)({**scores.classes, "content_hash": BAD}, scores.test, scores.seen)
    return submit(client, scores, folder)


def rival_of(client: MlflowClient, number: str) -> str:
    version = version_to_beat(client, "capnet", number)
    return str(version.version) if version else ""


def test_the_policy_of_a_champion_is_the_one_that_it_passed(client: MlflowClient, tmp_path: Path) -> None:
    promote(client, "1")
    bad = submit_bad(client, tmp_path / "gate")
    client.delete_registered_model_alias("capnet", "champion")  # a click
    with pytest.raises(GateError, match="as champion it passed another policy"):
        promote(client, "1", LAX)
    with pytest.raises(GateError, match=r"it is not the one that the champion passed: policy .* tail by 3"):
        promote(client, bad, LAX)
    with pytest.raises(GateError, match="fail: mAP"):
        promote(client, bad)
    assert promote(client, "3").now == "3", "by the same policy nothing is in the way"


def test_a_champion_that_was_only_clicked_has_a_policy_too(client: MlflowClient) -> None:
    client.set_registered_model_alias("capnet", "champion", "1")  # green from registration
    promotion.audit(client, "capnet")
    client.delete_registered_model_alias("capnet", "champion")
    with pytest.raises(GateError, match="as champion it passed another policy"):
        promote(client, "1", LAX)


@pytest.mark.parametrize("gap", ["no alias", "on a bad model"])
def test_a_refused_request_does_not_make_an_older_champion_the_rival(
    client: MlflowClient, gap: str, tmp_path: Path
) -> None:
    promote(client, "1")
    promote(client, "3")
    bad = submit_bad(client, tmp_path / "gate")
    if gap == "no alias":
        client.delete_registered_model_alias("capnet", "champion")
    else:
        click(client, bad)
    with pytest.raises(GateError, match="fail: policy"):
        promote(client, "3", LAX)
    assert rival_of(client, "2") == "3", "it was champion last, whatever was asked since"
    with pytest.raises(GateError, match="fail: policy"):
        promote(client, "1", LAX)
    assert rival_of(client, "2") == "3"
    assert rival_of(client, "3") == "1", "not the bad one"
    assert promote(client, "3").now == "3"


def test_a_policy_that_lost_its_tag_is_known_from_the_history(client: MlflowClient) -> None:
    """The usual one was green then, where the champion had passed a stricter one."""
    strict = Policy(draws=200, may_fall=MayFall(mAP=0.001))
    promote(client, "1", strict)
    client.delete_model_version_tag("capnet", "1", "verdict_policy")
    with pytest.raises(GateError, match=r"it is not the one that the champion passed: policy .* may fall by 0\.1"):
        promote(client, "3")
    assert promote(client, "3", strict).now == "3"


def test_a_champion_without_any_policy_passed_the_usual_one(client: MlflowClient) -> None:
    client.set_registered_model_alias("capnet", "champion", "1")
    for name in client.get_model_version("capnet", "1").tags:
        if name == "verdict_policy":
            client.delete_model_version_tag("capnet", "1", name)
    with pytest.raises(GateError, match="coverage 0 instead of"):
        promote(client, "3", LAX)
    assert promote(client, "3").now == "3"
