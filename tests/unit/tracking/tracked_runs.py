"""A stage with tracking on a real server behind a proxy, and the runs that it leaves there."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient
from unit.registry.unreliable import Unreliable, unreliable

from capnet.config import Params
from capnet.registry.candidate import read_candidate
from capnet.registry.register import register_version
from capnet.tracking.live import tracked

EPOCHS, FAULT = 20, 8
SLACK = 1.5  # seconds that a busy machine takes for what takes none


@pytest.fixture
def proxy(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Unreliable]:
    """A real server behind a proxy, which is the tracking server of the test; time-outs are short."""
    with unreliable(server) as between:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", between.address)
        monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.chdir(tmp_path)
        yield between


def settings_of(paths: dict[str, Path], name: str = "") -> Params:
    """The settings of the made model; an experiment and a registered model of the test's own."""
    config = json.loads((paths["model"] / "config.json").read_text())
    name = name or f"capnet {uuid.uuid4()}"
    sections = {section: config[section] for section in ("backbone", "tte", "train")}
    return Params.model_validate({**sections, "register": {"name": name, "experiment": name}})


def inputs_of(paths: dict[str, Path]) -> dict[str, Path]:
    return {"split": paths["split"], "graph": paths["model"]}


def values(epoch: int) -> dict[str, float]:
    """What the made history.csv says, with all digits."""
    return {"train/loss": 1 / epoch} | ({"val/mAP": 0.1 * epoch} if epoch > 1 else {})


def train(
    paths: dict[str, Path], settings: Params, first: int = 1, at: dict[int, Callable[[], object]] | None = None
) -> float:
    """What stages.run does around the train step; ``at`` happens before an epoch. Seconds that tracking took."""
    begin, idle = time.monotonic(), 0.0
    with tracked("train", settings, inputs_of(paths), {"model": paths["model"]}) as log:
        for epoch in range(first, EPOCHS + 1):
            before = time.monotonic()
            (at or {}).get(epoch, lambda: None)()
            time.sleep(0.02)
            idle += time.monotonic() - before
            log(values(epoch), epoch)
    return time.monotonic() - begin - idle


def register(paths: dict[str, Path], settings: Params, data_md5: str = "") -> ModelVersion:
    return register_version(settings.register_, read_candidate(**paths), paths["evaluation"] / "report.html", data_md5)


def runs_of(address: str, settings: Params) -> list[Run]:
    """Newest first."""
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name(settings.register_.experiment)
    return client.search_runs([experiment.experiment_id]) if experiment else []


def wait_for(condition: Callable[[], object], patience: float = 30.0) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def wait_for_points(address: str, settings: Params) -> None:
    """Until the only run has a point."""
    wait_for(lambda: any("train/loss" in run.data.metrics for run in runs_of(address, settings)))


def check_complete(address: str, run_id: str) -> None:
    """Every epoch once, and the run is finished."""
    client = MlflowClient(address)
    loss, mAP = (client.get_metric_history(run_id, name) for name in ("train/loss", "val/mAP"))
    assert sorted((point.step, round(point.value, 5)) for point in loss) == [
        (epoch, round(1 / epoch, 5)) for epoch in range(1, EPOCHS + 1)
    ]
    assert sorted(point.step for point in mAP) == list(range(2, EPOCHS + 1))
    assert client.get_run(run_id).info.status == "FINISHED"
