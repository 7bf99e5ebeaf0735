"""Promotion on a real store: the gate at work, and champions that were clicked or have no verdict."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from unit.promotion.promoting import POLICY, champion, champion_scores, click, moves, never, promote, submit
from unit.promotion.worse_tables import BAD

from capnet.config import Register
from capnet.errors import ConfigError, ContractError, GateError
from capnet.promotion import history, measure, page
from capnet.promotion import promote as promotion
from capnet.promotion.champion import check_files, resolve
from capnet.promotion.policy import Minimum
from capnet.promotion.verdict import Verdict
from capnet.tracking.faults import StoreError
from capnet.tracking.store import store


def test_better_in_the_mean_and_worse_in_the_tail_is_refused_with_rule_and_numbers(client: MlflowClient) -> None:
    assert promote(client, "1").now == "1"
    with pytest.raises(GateError) as caught:
        promote(client, "2")
    text = str(caught.value)
    assert text.startswith("fail: tail ")
    assert "may be 3.0 lower" in text
    assert "fail: mAP" not in text
    assert re.search(r"\n.*the promotion gate refuses this version, on \d+ test pictures; ", text)
    assert re.search(
        r"to do: look at what fell most \(.+ \d+\.\d to \d+\.\d, \d+ test pictures\b.*\); train again", text
    )
    assert champion(client) == "1"
    tags = client.get_model_version("capnet", "2").tags
    assert (tags["verdict"], tags["verdict_of"], tags["verdict_against"]) == (
        "red",
        "capnet version 2",
        "capnet version 1",
    )
    assert tags["verdict_rules"].splitlines()[0].startswith("fail: tail ")
    assert "pass: mAP" in tags["verdict_rules"]
    assert re.search(r"\nfell most: .+ \d+\.\d to \d+\.\d, \d+ test pictures", tags["verdict_rules"])
    assert moves(client) == [("promoted", "", "1", "green")]


def test_a_renamed_class_is_the_first_thing_that_is_named(client: MlflowClient, tmp_path: Path) -> None:
    scores = champion_scores(client)
    promote(client, "1")
    items = [item | {"name": item["name"].upper()} for item in scores.classes["classes"]]
    renamed = submit(
        client, replace(scores, classes=scores.classes | {"classes": items, "content_hash": BAD}), tmp_path
    )
    with pytest.raises(GateError) as caught:
        promote(client, renamed)
    assert str(caught.value).startswith("no class in common with the champion, so nothing can be compared (gone: Hund/")
    assert str(caught.value).count("no class in common") == 1
    first = client.get_model_version("capnet", renamed).tags["verdict_rules"].splitlines()
    assert first[0].startswith("no class in common with the champion")
    assert "coverage" in first[1]


def test_a_refusal_that_no_class_fell_for_says_what_helps(client: MlflowClient) -> None:
    version = client.get_model_version("capnet", "1")
    high, wide = POLICY.model_copy(update={"minimum": Minimum(mAP=0.99)}), POLICY.model_copy(update={"coverage": 0.5})
    with pytest.raises(GateError) as caught:
        promotion.promote(client, version, high, never)
    assert "fail: minimum mAP" in str(caught.value)
    assert "\n  to do: train again\n" in str(caught.value)
    promote(client, "1")
    with pytest.raises(GateError) as caught:
        promotion.promote(client, client.get_model_version("capnet", "2"), wide, never)
    todo = {problem.what.split(";")[0]: problem.todo for problem in caught.value.problems}
    assert todo["fail: policy"] == "promote by the policy that the champion passed"


def test_force_needs_a_reason_and_leaves_it_in_the_history(client: MlflowClient) -> None:
    promote(client, "1")
    for reason in ("", "  ", "\u200b", "\u3164", "\xad...", "\ufe0f\u2800"):  # most have no shape
        with pytest.raises(GateError, match="needs --reason"):
            promote(client, "2", force=True, reason=reason)
    assert promote(client, "2", force=True, reason="the tail is not sold any more").now == "2"
    last = history.events(client, "capnet")[-1]
    assert (last.kind, last.reason, last.verdict, bool(last.done)) == (
        "forced",
        "the tail is not sold any more",
        "red",
        True,
    )
    assert last.rules.startswith("fail: tail ")
    assert resolve(client, "models:/capnet@champion").version == client.get_model_version("capnet", "2").version
    promotion.rollback(client, "capnet")
    assert promote(client, "3").now == "3"
    with pytest.raises(GateError, match="capnet version 1"):
        promote(client, "1")  # green against no champion; today's is better


def test_a_red_champion_that_was_clicked_is_refused_by_readers_and_named_by_the_audit(client: MlflowClient) -> None:
    promote(client, "1")
    with pytest.raises(GateError):
        promote(client, "2")
    client.set_registered_model_alias("capnet", "champion", "2")  # what the UI does
    with pytest.raises(GateError, match=r"red verdict.*fail: tail"):
        resolve(client, "models:/capnet@champion")
    with pytest.raises(GateError, match="capnet version 2"):
        resolve(client, "models:/capnet/2")
    with pytest.raises(Exception, match=r"red verdict.*fail: tail"):
        mlflow.pyfunc.load_model("models:/capnet@champion")  # what serving does
    audited = promotion.audit(client, "capnet")
    assert (audited.champion, audited.new and audited.new.kind) == ("2", "found")
    assert audited.refused.startswith("a red verdict")
    assert moves(client)[-1] == ("found", "1", "2", "red")
    assert promotion.audit(client, "capnet").new is None, "recorded once"
    assert promotion.rollback(client, "capnet").now == "1"
    assert mlflow.pyfunc.load_model("models:/capnet@champion") is not None
    assert promotion.audit(client, "capnet").refused == ""


def test_a_champion_without_a_verdict_is_refused_until_a_reason_is_tagged(client: MlflowClient) -> None:
    for key in ("verdict", "verdict_of"):
        client.delete_model_version_tag("capnet", "3", key)
    client.set_registered_model_alias("capnet", "champion", "3")
    with pytest.raises(GateError, match="no verdict"):
        resolve(client, "models:/capnet@champion")
    client.set_model_version_tag("capnet", "3", "verdict", "green")
    with pytest.raises(GateError, match="no verdict"):
        resolve(client, "models:/capnet@champion")  # the tag alone says nothing about which version it belongs to
    client.set_model_version_tag("capnet", "3", "gate_override", "approved by the board")
    assert str(resolve(client, "models:/capnet").version) == "3"
    assert promotion.audit(client, "capnet").events[-1].reason == "approved by the board"


@pytest.mark.parametrize("address", ["models:/capnet@champion", "models:/capnet/9", "models:/other"])
def test_a_version_that_is_not_there_says_how_one_comes_there(client: MlflowClient, address: str) -> None:
    settings = Register(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    with pytest.raises(StoreError, match="not found") as caught, store(settings, "get the model") as opened:
        resolve(opened, address)
    assert "`capnet promote` makes one the champion" in str(caught.value)
    assert "writable" not in str(caught.value)


def test_a_good_version_that_was_clicked_is_followed(client: MlflowClient) -> None:
    promote(client, "1")
    third = client.get_model_version("capnet", "3")
    against = client.get_model_version("capnet", "1")
    # as if it had been registered now
    verdict = measure.verdict_on(client, measure.scores_of(client, third), against, POLICY)
    page.show_verdict(client, third, page.verdict_tags(third, against, verdict, POLICY))
    client.set_registered_model_alias("capnet", "champion", "3")
    assert str(resolve(client, "models:/capnet@champion").version) == "3"
    with pytest.raises(GateError):
        promote(client, "1")
    assert moves(client) == [("promoted", "", "1", "green"), ("found", "1", "3", "green")]
    client.delete_registered_model_alias("capnet", "champion")
    assert promotion.audit(client, "capnet").champion == ""
    assert moves(client)[-1] == ("found", "3", "", "")


def test_promoting_the_champion_again_changes_nothing(client: MlflowClient) -> None:
    promote(client, "3")
    assert promote(client, "3").event is None
    assert len(moves(client)) == 1


def test_an_inconclusive_verdict_asks(
    client: MlflowClient, three_versions: Path, caplog: pytest.LogCaptureFixture
) -> None:
    promote(client, "1")
    run = client.get_model_version("capnet", "1").run_id
    (workspace,) = three_versions.parent.glob(f"mlruns/**/{run}/artifacts/gate")
    workspace.rename(workspace.with_name("lost"))
    asked: list[Verdict] = []
    try:
        with pytest.raises(GateError, match="needs --reason"):
            promote(client, "3", lambda verdict: True)
        with pytest.raises(GateError, match="nobody confirmed"):
            promote(client, "3", lambda verdict: bool(asked.append(verdict)), reason="the old scores are lost")
        assert "capnet version 1 has no scores for the gate" in asked[0].asks[0]
        assert champion(client) == "1"
        assert promote(client, "3", lambda verdict: True, reason="the old scores are lost").now == "3"
        assert "gate are gone" not in caplog.text
        assert promotion.rollback(client, "capnet").now == "1"
        assert "the scores of capnet version 1 for the gate are gone: " in caplog.text
        assert promote(client, "3", lambda verdict: True, reason="the old scores are lost").now == "3"
    finally:
        workspace.with_name("lost").rename(workspace)
    assert moves(client)[-1] == ("promoted", "1", "3", "inconclusive")
    assert str(resolve(client, "models:/capnet@champion").version) == "3"


def test_a_verdict_without_the_champions_scores_says_which_pictures_are_left_out(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = client.get_model_version("capnet", "1")
    ours = measure.scores_of(client, client.get_model_version("capnet", "3"))
    twice = replace(ours, test=pd.concat([ours.test, ours.test[:5]], ignore_index=True))
    monkeypatch.setattr(client, "download_artifacts", lambda *_: "no folder")
    verdict = measure.verdict_on(client, twice, version, POLICY)
    assert verdict.notes == (f"5 of {len(twice.test)} test pictures are left out: they are there more than once",)
    assert "no scores for the gate" in verdict.asks[0]


def test_scores_that_cannot_be_fetched_are_not_missing(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reason opens the way for a champion that is lost, not for a full disk."""
    promote(client, "1")
    scores = measure.scores_of(client, client.get_model_version("capnet", "3"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no folder"))
    what = r"scores of capnet version 1 for the gate cannot be fetched: .*No such file.*\n.*\n.*has room"
    with pytest.raises(StoreError, match=what):
        measure.verdict_on(client, scores, client.get_model_version("capnet", "1"), POLICY)


def test_a_version_that_is_probably_worse_needs_a_reason(client: MlflowClient, tmp_path: Path) -> None:
    promote(client, "1")
    scores = champion_scores(client)
    noise = np.random.default_rng(0).normal(size=np.stack(scores.test["scores"].tolist()).shape)
    blurred = [(row + 0.12 * part).astype(np.float32) for row, part in zip(scores.test["scores"], noise, strict=True)]
    candidate = replace(
        scores, test=scores.test.assign(scores=blurred), classes={**scores.classes, "content_hash": BAD}
    )
    number = submit(client, candidate, tmp_path / "gate")
    with pytest.raises(GateError, match=r"probably worse than what is allowed, which needs --reason"):
        promote(client, number, lambda verdict: True)
    fewer = replace(candidate, test=candidate.test.iloc[20:])
    with pytest.raises(GateError, match=r"probably worse than what is allowed and too few of .+ which needs --reason"):
        promote(client, submit(client, fewer, tmp_path / "fewer"), lambda verdict: True)
    click(client, number)
    with pytest.raises(GateError, match="a verdict that needs a reason: reason needed: inconclusive: mAP"):
        resolve(client, "models:/capnet@champion")
    click(client, "1")
    assert promote(client, number, lambda verdict: True, reason="the old camera is gone").now == number
    assert str(resolve(client, "models:/capnet@champion").version) == number


@pytest.mark.parametrize(
    "uri", ["capnet", "models:/", "models:/capnet@", "models:/@champion", "models:/capnet/two", "runs:/x/model"]
)
def test_addresses_that_are_no_registered_model(database: Path, uri: str) -> None:
    with pytest.raises(ConfigError):
        resolve(MlflowClient(os.environ["MLFLOW_TRACKING_URI"]), uri)


def test_a_rollback_by_force_to_a_copy_with_tags_of_another_version_is_served(client: MlflowClient) -> None:
    """A copy made by a button of MLflow's page has the tags of what it was copied from."""
    promote(client, "1")
    client.set_model_version_tag("capnet", "2", "verdict", "green")
    client.set_model_version_tag("capnet", "2", "verdict_of", "staging version 5")
    client.set_registered_model_alias("capnet", "champion", "2")
    promotion.record_outside_move(client, "capnet")
    assert promote(client, "3", force=True, reason="try").now == "3"
    with pytest.raises(GateError, match="staging version 5"):
        promotion.rollback(client, "capnet")
    assert promotion.rollback(client, "capnet", force=True, reason="3 finds foxes everywhere").now == "2"
    assert promotion.audit(client, "capnet").refused == ""
    assert resolve(client, "models:/capnet@champion").version == client.get_model_version("capnet", "2").version


@pytest.mark.parametrize("force", [False, True])
def test_a_version_whose_files_are_gone_becomes_no_champion(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    """Everyone who reads the alias would be left without a model."""
    promote(client, "1")
    promote(client, "3")
    before = moves(client)
    monkeypatch.setattr(client, "get_model_version_download_uri", lambda *_: str(tmp_path / "gone"))
    for act in (
        lambda: promote(client, "2", force=force, reason="urgent"),
        lambda: promotion.rollback(client, "capnet", force, "urgent"),
    ):
        with pytest.raises(ContractError, match=r"no files of capnet version [12]: they were deleted") as caught:
            act()
        assert caught.value.problems[0].where == str(tmp_path / "gone")
    assert (champion(client), moves(client)) == ("3", before)


def test_files_that_are_gone_are_not_called_changed(client: MlflowClient, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no files of capnet version 1: they were deleted"):
        check_files(client.get_model_version("capnet", "1"), tmp_path / "gone")
    (tmp_path / "gone" / "artifacts").mkdir(parents=True)  # which SeaweedFS keeps
    with pytest.raises(ContractError, match="no files of capnet version 1: they were deleted"):
        check_files(client.get_model_version("capnet", "1"), tmp_path / "gone")
    (tmp_path / "other").write_text("changed")
    with pytest.raises(ContractError, match="another sha256"):
        check_files(client.get_model_version("capnet", "1"), tmp_path)
