"""Copies to another registered model: each needs a verdict of its own."""

from __future__ import annotations

import pytest
from mlflow.tracking import MlflowClient
from unit.promotion.promoting import POLICY, champion, never, promote

from capnet.errors import GateError
from capnet.promotion import history, versions
from capnet.promotion import promote as promotion
from capnet.promotion.champion import resolve
from capnet.promotion.copies import copy


def test_a_copy_needs_a_verdict_of_its_own(client: MlflowClient) -> None:
    promote(client, "1")
    promote(client, "2", force=True, reason="only in staging")
    copied = copy(client, client.get_model_version("capnet", "2"), "capnet-production")
    assert not {"verdict", "gate_override"} & copied.tags.keys()
    assert copied.tags["copied_from"] == "capnet version 2"
    assert copied.tags["content_hash"] == client.get_model_version("capnet", "2").tags["content_hash"]
    assert copy(client, client.get_model_version("capnet", "2"), "capnet-production").version == copied.version
    for reason, refused in (("", "needs --reason"), ("as in staging", "nobody confirmed")):
        with pytest.raises(
            GateError, match=rf"\ncapnet version 2, which it is a copy of, has a red verdict; fail: (.|\n)*{refused}\n"
        ):
            promotion.promote(client, copied, POLICY, lambda verdict: False, reason=reason)
    assert versions.champion_of(client, "capnet-production") is None
    done = promotion.promote(client, copied, POLICY, lambda verdict: True, reason="as in staging")
    assert (done.name, done.now, done.verdict and done.verdict.colour) == ("capnet-production", "1", "inconclusive")
    assert champion(client, "capnet-production") == "1"
    client.copy_model_version("models:/capnet/2", "elsewhere")  # as the UI's button does
    client.set_registered_model_alias("elsewhere", "champion", "1")
    assert client.get_model_version("elsewhere", "1").tags["gate_override"] == "only in staging"
    with pytest.raises(GateError, match=r"no verdict.*its tags are those of capnet version 2"):
        resolve(client, "models:/elsewhere@champion")
    client.delete_registered_model_alias("elsewhere", "champion")
    for _ in range(2):  # the first call gives the copy tags of its own
        with pytest.raises(GateError, match="capnet version 2, which it is a copy of, has a red verdict"):
            promotion.promote(client, client.get_model_version("elsewhere", "1"), POLICY, lambda verdict: False)


def test_a_copy_that_was_interrupted_is_completed(client: MlflowClient) -> None:
    promote(client, "1")
    home = client.get_model_version("capnet", "1")
    for interrupted in ("no tag", "half of the tags"):
        client.copy_model_version("models:/capnet/1", interrupted)
        if interrupted == "half of the tags":
            client.set_model_version_tag(interrupted, "1", "copied_from", "capnet version 1")
            for key in ("verdict", "verdict_of"):
                client.delete_model_version_tag(interrupted, "1", key)
        done = copy(client, home, interrupted)
        assert str(done.version) == "1"
        assert done.tags["copied_from"] == "capnet version 1"
        assert not [key for key in done.tags if key.startswith("verdict")]
        with pytest.raises(GateError, match="needs --reason"):
            promotion.promote(client, done, POLICY, never)


def test_a_copy_of_a_green_version_passes_where_no_champion_is(client: MlflowClient) -> None:
    promote(client, "1")
    copied = copy(client, client.get_model_version("capnet", "1"), "capnet-production")
    with pytest.raises(
        GateError, match=r"^a copy of capnet version 1.*no champion to compare it with\n(.|\n)*needs --reason\n"
    ):
        promotion.promote(client, copied, POLICY, never)
    client.set_registered_model_alias("capnet-production", "champion", "1")
    with pytest.raises(GateError, match="reason needed: a copy of capnet version 1"):
        resolve(client, "models:/capnet-production@champion")
    client.delete_registered_model_alias("capnet-production", "champion")
    done = promotion.promote(client, copied, POLICY, never, reason="proven in staging")
    assert done.verdict is not None
    assert (done.now, done.verdict.colour) == ("1", "green")
    assert history.events(client, "capnet-production")[-1].reason == "proven in staging"
    assert str(resolve(client, "models:/capnet-production@champion").version) == "1"


def test_a_copy_does_not_show_the_verdict_of_another(client: MlflowClient) -> None:
    promote(client, "1")
    copied = copy(client, client.get_model_version("capnet", "1"), "capnet-production")
    assert str(copied.description).splitlines()[0] == "Verdict: none of its own."
