"""`python -m pipelines.submit --schedule` with the real kfp.Client: which schedule replaces which."""

from __future__ import annotations

import pytest
from contract import submit_command
from contract.submit_command import SubmitCommand

from pipelines.arguments import model_and_images

server = submit_command.server


def test_a_schedule_of_which_a_run_is_under_way_is_switched_off_and_deleted_later(server: SubmitCommand) -> None:
    server.good("--schedule", "0 3 * * 1")
    (first,) = server.state.schedules
    run = {"run_id": "run-of-it", "recurring_run_id": first, "state": "RUNNING", "experiment_id": "experiments-1"}
    server.state.runs[run["run_id"]] = run
    assert "switched off, not deleted" in server.good("--schedule", "0 3 * * 1")
    assert not run.get("killed")
    assert [item.get("status") for item in server.state.schedules.values()] == ["DISABLED", None]
    run["state"] = "SUCCEEDED"
    assert "switched off" not in server.good("--schedule", "0 3 * * 1")
    (left,) = server.state.schedules.values()
    assert left.get("status") is None


def test_a_schedule_of_another_pipeline_is_not_offered_for_deletion(server: SubmitCommand) -> None:
    server.good("--schedule", "0 3 * * 1")
    assert "stays as well" not in server.good("--schedule", "0 4 * * 1", pipeline="prediction")
    assert len(server.state.schedules) == 2


def test_another_folder_of_a_repository_has_other_images_and_another_revision_has_not() -> None:
    data = {"root": "https://git.example.com/birds.git", "revision": "", "path": "site1"}
    first, second, later = (
        model_and_images({"model": "m", "fetch": {"data": data | changes}})
        for changes in ({}, {"path": "site2"}, {"revision": "v2"})
    )
    assert first == later == ("m", "https://git.example.com/birds.git:site1")
    assert second == ("m", "https://git.example.com/birds.git:site2")
    assert model_and_images({"model": "m", "fetch": {"data": {"root": "ftp://birds"}}}) is None


@pytest.mark.parametrize(
    ("pipeline", "other", "named"),
    [
        ("training", ("--set", "register.name=fish"), "model fish, images /mnt/data/birds"),
        ("training", ("--set", "data.root=s3://birds/new"), "images s3://birds/new"),
        ("prediction", ("--pictures", "s3://birds/site1"), "images s3://birds/site1"),
        ("prediction", ("--model", "models:/fish@champion"), "model models:/fish@champion, images"),
    ],
)
def test_a_schedule_of_another_model_or_other_images_stays(
    server: SubmitCommand, pipeline: str, other: tuple[str, ...], named: str
) -> None:
    when = ("--schedule", "0 3 * * 1")
    server.good(*when, *other, pipeline=pipeline)
    (first,) = server.state.schedules
    output = server.good(*when, pipeline=pipeline)
    assert f"stays as well: schedule 'capnet-{pipeline} 0 0 3 * * 1' (" in output
    assert named in output
    server.good(*when, pipeline=pipeline)
    assert first in server.state.schedules
    assert len(server.state.schedules) == 2


def test_a_schedule_that_has_no_uploaded_pipeline_is_left_alone(server: SubmitCommand) -> None:
    server.good("--schedule", "0 3 * * 1")
    (made,) = server.state.schedules.values()
    made["pipeline_spec"] = made.pop("pipeline_version_reference")
    assert "stays as well" not in server.good("--schedule", "0 3 * * 1")
    assert len(server.state.schedules) == 2


def test_a_schedule_replaces_the_one_of_the_same_name_and_caches_nothing(server: SubmitCommand) -> None:
    for _ in range(2):
        assert "stays as well" not in server.good("--schedule", "0 3 * * 1")
    assert "stays as well: schedule 'capnet-training 0 0 3 * * 1'" in server.good("--schedule", "0 0 4 * * *")
    assert sorted(item["trigger"]["cron_schedule"]["cron"] for item in server.state.schedules.values()) == [
        "0 0 3 * * 1",
        "0 0 4 * * *",
    ]
    assert server.state.runs == {}
    (version,) = server.state.versions.values()
    dag = version["spec"]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    assert not any(task["cachingOptions"].get("enableCache") for task in dag.values())
    assert "fields" in server.run("--schedule", "monday").output
