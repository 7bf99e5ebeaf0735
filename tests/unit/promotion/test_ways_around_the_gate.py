"""Ways to make a model champion without the gate's consent: each is refused by whoever reads it, or is on the
record.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from sklearn.metrics import average_precision_score
from unit.promotion.promoting import POLICY, champion_scores, click, promote, submit
from unit.promotion.worse_tables import BAD
from unit.stores import Make

from capnet.config import Register
from capnet.contracts import label_matrix, read_classes
from capnet.errors import ContractError, GateError
from capnet.promotion import history, page
from capnet.promotion import promote as promotion
from capnet.promotion.champion import resolve
from capnet.promotion.gate import gate_verdict
from capnet.promotion.scores import gate_scores
from capnet.registry.candidate import read_candidate
from capnet.registry.register import register_version

CHAMPION = "models:/capnet@champion"


def test_a_green_verdict_against_an_older_champion_says_nothing_about_todays(client: MlflowClient) -> None:
    assert client.get_model_version("capnet", "1").tags["verdict"] == "green", (
        "there was no champion when it was registered"
    )
    promote(client, "3")
    click(client, "1")
    with pytest.raises(
        GateError, match="no verdict against capnet version 3, which it replaced: its own is against no champion"
    ):
        resolve(client, CHAMPION)
    assert promotion.audit(client, "capnet").refused.startswith("no verdict against capnet version 3")
    with pytest.raises(GateError, match="no verdict against"):
        resolve(client, CHAMPION)  # that it stands in the history now makes it no better
    with pytest.raises(GateError, match="fail: mAP"):
        promote(client, "1")  # measured against the version that it replaced
    click(client, "3")
    assert str(resolve(client, CHAMPION).version) == "3", "back to one that went through the gate"


def test_a_reason_does_not_outlive_a_later_refusal(client: MlflowClient) -> None:
    promote(client, "3")
    promote(client, "2", force=True, reason="for a day")
    promotion.rollback(client, "capnet")
    with pytest.raises(GateError, match="fail: mAP"):
        promote(client, "2")
    click(client, "2")
    with pytest.raises(GateError, match="a red verdict"):
        resolve(client, CHAMPION)


def test_what_is_registered_is_measured_against_the_champion_of_the_day(
    client: MlflowClient, make_outputs: Make
) -> None:
    promote(client, "1")
    click(client, "3")
    paths = make_outputs(mAP=0.9, skill=2.5)
    registered = register_version(Register(), read_candidate(**paths), paths["evaluation"] / "report.html")
    assert registered.tags["verdict_against"] == "capnet version 1", (
        "readers refuse version 3, so version 1 is the last champion that served"
    )
    assert [event.after for event in history.events(client, "capnet")] == ["1", "3"]
    click(client, str(registered.version))
    assert resolve(client, CHAMPION).version == registered.version


def test_a_bad_model_that_was_clicked_is_no_measure_for_the_next(client: MlflowClient) -> None:
    promote(client, "3")
    with pytest.raises(GateError):
        promote(client, "2")
    click(client, "2")
    with pytest.raises(GateError, match="fail: mAP"):
        promote(client, "1")
    assert client.get_model_version("capnet", "1").tags["verdict_against"] == "capnet version 3"
    click(client, "1")
    assert promotion.audit(client, "capnet").refused.startswith("a red verdict")


def test_taking_the_alias_away_first_helps_no_bad_model(client: MlflowClient) -> None:
    promote(client, "3")
    client.delete_registered_model_alias("capnet", "champion")
    with pytest.raises(GateError, match="fail: tail"):
        promote(client, "2")
    assert client.get_model_version("capnet", "2").tags["verdict_against"] == "capnet version 3"
    click(client, "1")  # green on the day of its registration, when there was no champion
    with pytest.raises(GateError, match="no verdict against capnet version 3"):
        resolve(client, CHAMPION)
    with pytest.raises(GateError, match="fail: mAP"):
        promote(client, "1")
    client.delete_registered_model_alias("capnet", "champion")
    assert promote(client, "3").now == "3"


@pytest.mark.parametrize("way", ["one champion", "two", "the alias first", "one that was clicked"])
def test_deleting_all_champions_helps_no_bad_model(client: MlflowClient, way: str) -> None:
    promote(client, "3")
    if way == "two":
        promote(client, "1", force=True, reason="an experiment")
        client.delete_model_version("capnet", "1")
    if way == "the alias first":
        client.delete_registered_model_alias("capnet", "champion")
        promotion.audit(client, "capnet")
    if way == "one that was clicked":
        click(client, "1")
        promotion.audit(client, "capnet")
        client.delete_model_version("capnet", "1")
    client.delete_model_version("capnet", "3")
    with pytest.raises(GateError, match=r"champions of capnet were deleted(.*\n)*.*which needs --reason"):
        promote(client, "2")
    click(client, "2")
    with pytest.raises(GateError, match="champion is capnet version 2, which has a verdict that needs a reason"):
        resolve(client, CHAMPION)
    assert promote(client, "2", reason="the others had a licence that ended").now == "2"
    assert resolve(client, CHAMPION).tags["gate_override"] == "the others had a licence that ended"


def test_a_champion_from_before_a_gap_is_a_measure(client: MlflowClient) -> None:
    """The alias was taken away, another version had it, and that one was deleted."""
    promote(client, "3")
    client.delete_registered_model_alias("capnet", "champion")
    promotion.audit(client, "capnet")
    promote(client, "1", force=True, reason="an experiment")
    client.delete_model_version("capnet", "1")
    with pytest.raises(GateError, match="fail: tail"):
        promote(client, "2")
    assert client.get_model_version("capnet", "2").tags["verdict_against"] == "capnet version 3"


@pytest.mark.parametrize("way", ["nothing else", "the alias first", "one that readers refuse was clicked"])
def test_deleting_the_champion_makes_no_earlier_one_the_measure(client: MlflowClient, tmp_path: Path, way: str) -> None:
    """What is as good as an earlier champion may be worse than the one that was deleted."""
    promote(client, "1")
    scores = champion_scores(client)
    number = submit(client, replace(scores, classes={**scores.classes, "content_hash": BAD}), tmp_path)
    promote(client, "3")
    if way == "the alias first":
        client.delete_registered_model_alias("capnet", "champion")
    client.delete_model_version("capnet", "3")
    if way == "one that readers refuse was clicked":
        click(client, "2")
    with pytest.raises(GateError, match=r"champions of capnet were deleted, the last was version 3: .* version 1"):
        promote(client, number)
    assert promote(client, number, reason="3 had no licence").now == number


def test_renaming_the_registered_model_helps_no_bad_model(client: MlflowClient) -> None:
    promote(client, "3")
    client.rename_registered_model("capnet", "renamed")  # verdicts name the old one, so none of them counts
    click(client, "2", "renamed")
    with pytest.raises(GateError, match="fail: tail"):
        promotion.promote(client, client.get_model_version("renamed", "2"), POLICY, lambda verdict: False)
    with pytest.raises(GateError, match="red verdict"):
        resolve(client, "models:/renamed@champion")
    assert promotion.promote(client, client.get_model_version("renamed", "3"), POLICY, lambda verdict: False).now == "3"


def test_all_tags_of_a_good_version_copied_by_hand(client: MlflowClient) -> None:
    promote(client, "1")
    with pytest.raises(GateError):
        promote(client, "2")
    good = client.get_model_version("capnet", "1").tags
    page.show_verdict(client, client.get_model_version("capnet", "2"), good)
    click(client, "2")
    with pytest.raises(GateError, match=r"no verdict.*those of capnet version 1"):
        resolve(client, CHAMPION)
    client.set_model_version_tag("capnet", "2", "gate_override", "a reason beside the identity of another version")
    with pytest.raises(GateError, match="those of capnet version 1"):
        resolve(client, CHAMPION)


def test_a_red_champion_is_not_loaded_by_its_run_or_its_place_either(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(client, "1")
    with pytest.raises(GateError):
        promote(client, "2")
    version = client.get_model_version("capnet", "2")
    model_id = str(version.source).removeprefix("models:/")
    ways = [f"models:/{model_id}", client.get_logged_model(model_id).artifact_location, "models:/capnet/2"]
    for way in ways:
        assert mlflow.pyfunc.load_model(way) is not None, "a red version may be looked at"
    click(client, "2")
    # for where no registry answers: this one does
    monkeypatch.setenv("CAPNET_UNCHECKED_CHAMPION", "baked into an image")
    for way in (*ways, CHAMPION):
        with pytest.raises(Exception, match=r"champion is capnet version 2, which has a red verdict"):
            mlflow.pyfunc.load_model(way)


def test_a_red_champion_is_not_loaded_by_its_place_from_the_usual_store_either(
    client: MlflowClient, no_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(client, "1")
    with pytest.raises(GateError):
        promote(client, "2")
    click(client, "2")
    workspace = str(
        shutil.copytree(
            str(client.get_model_version_download_uri("capnet", "2")).removeprefix("file://"), tmp_path / "copied"
        )
    )
    (Path(workspace) / "registered_model_meta").unlink(missing_ok=True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    usual = tmp_path / "usual"
    usual.mkdir()
    monkeypatch.chdir(usual)
    assert mlflow.pyfunc.load_model(workspace) is not None
    assert not list(usual.iterdir()), "asking makes no store"
    shutil.copy(no_database, usual / "mlflow.db")
    with pytest.raises(Exception, match="champion is capnet version 2, which has a red verdict"):
        mlflow.pyfunc.load_model(workspace)
    # loaded by its path, with a reason for a place without a registry
    (Path(workspace) / "registered_model_meta").write_text("model_name: capnet\nmodel_version: '2'\n")
    monkeypatch.setenv("CAPNET_UNCHECKED_CHAMPION", "baked into an image")
    with pytest.raises(Exception, match="champion is capnet version 2, which has a red verdict"):
        mlflow.pyfunc.load_model(workspace)


def test_scores_of_another_version_of_the_same_run_are_not_believed(
    database: Path, make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    workspace = (database.parent / "there").as_uri()
    monkeypatch.setenv(
        "MLFLOW_RUN_ID",
        client.create_run(client.create_experiment("pipeline", artifact_location=workspace)).info.run_id,
    )
    for number, skill in enumerate((1.0, 3.0)):
        paths = make_outputs(tmp_path / str(number), mAP=0.5 + number / 10, skill=skill)
        register_version(Register(), read_candidate(**paths), paths["evaluation"] / "report.html")
    with pytest.raises(ContractError, match="another version of the same run"):
        promote(client, "1")
    assert promote(client, "2").now == "2"


def test_a_class_that_is_not_critical_any_more_needs_a_person(make_outputs: Make, tmp_path: Path) -> None:
    before, after = make_outputs(tmp_path / "before", critical=("cat",)), make_outputs(tmp_path / "after", skill=9.0)
    champion, candidate = (
        gate_scores(paths["split"], paths["evaluation"], read_classes(paths["split"] / "classes.json"), "")
        for paths in (before, after)
    )
    verdict = gate_verdict(candidate, champion, POLICY)
    assert (verdict.colour, verdict.notes) == (
        "inconclusive",
        ("classes that the champion marks as critical are not marked any more: cat",),
    )
    assert gate_verdict(champion, candidate, POLICY).notes == ()


@pytest.mark.parametrize("bucket", ["head", "tail"])  # what split.buckets: [0, 0] gives, and [9999, 9999]
def test_settings_of_a_candidate_do_not_choose_the_tail_that_it_is_asked_about(
    make_outputs: Make, tmp_path: Path, bucket: str
) -> None:
    paths = make_outputs(tmp_path / "outputs")
    champion = gate_scores(paths["split"], paths["evaluation"], read_classes(paths["split"] / "classes.json"), "")
    classes = {**champion.classes, "classes": [item | {"bucket": bucket} for item in champion.classes["classes"]]}
    tail = np.array([name in champion.tail for name in champion.names])
    assert 0 < tail.sum() < len(tail)
    scores = np.stack(champion.test["scores"].tolist())
    noise = np.random.default_rng(0).random(scores.shape).astype(np.float32)
    worse = replace(champion, classes=classes, test=champion.test.assign(scores=list(np.where(tail, noise, scores))))
    verdict = gate_verdict(worse, champion, POLICY)
    rules = {rule.name: rule for rule in verdict.rules}
    labels = label_matrix(champion.test["labels"], len(tail))
    expected = np.mean([average_precision_score(labels[:, c], noise[:, c]) for c in np.flatnonzero(tail)])
    assert (verdict.colour, rules["tail of the champion"].outcome) == ("red", "fail")
    assert rules["tail of the champion"].value == pytest.approx(expected, abs=1e-6)
    assert ("tail" in rules) == (bucket == "tail")
    same = gate_verdict(replace(champion, classes=classes), champion, POLICY)
    assert same.colour == "inconclusive", "the version after it would be asked about that tail"
    names = [rule.name for rule in gate_verdict(champion, champion, POLICY).rules]
    assert names == ["coverage", "coverage of the tail", "mAP", "tail"], "one rule where both have the same tail"


def test_a_refused_champion_does_not_hide_behind_a_missing_registry(
    client: MlflowClient, three_versions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = str(client.get_model_version_download_uri("capnet", "1"))
    copied = Path(shutil.copytree(workspace.removeprefix("file://"), tmp_path / "copied"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (copied / "registered_model_meta").unlink(missing_ok=True)
    assert mlflow.pyfunc.load_model(str(copied)) is not None, "plain files: there is nobody to ask"
    (copied / "registered_model_meta").write_text("model_name: capnet\nmodel_version: '1'\n")
    with pytest.raises(Exception, match="cannot ask the registry"):
        mlflow.pyfunc.load_model(str(copied))
