"""MLflow that fails in every way in which services fail, from the start or in the middle: `register` and `predict`
refuse in three parts and end well when it does, training does not notice.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.workspace import Workspace, draw
from faults.bad_servers import BadServer, Fault, forwarded, no_names, serving
from faults.command import begin, end, output_of
from faults.test_service_faults import EACH, SECRET, TOKEN, check_refusal
from unit.conftest import _make as make_outputs
from unit.stores import _serving as mlflow_serving
from unit.stores import empty_database as empty_database

from capnet.config import Params
from capnet.tracking.live import PATIENCE, tracked

pytestmark = pytest.mark.slow

FAILS, GONE, OTHER = "the server answers, but fails", "see that the MLflow server runs", "have another sha256"
MLFLOW_FAULTS = {
    "500": (Fault(500), FAILS),
    "503": (Fault(503), FAILS),
    "401": (Fault(401), "MLFLOW_TRACKING_USERNAME"),
    "403": (Fault(403), "MLFLOW_TRACKING_USERNAME"),
    "reset": (Fault("reset"), GONE),
    "stalled": (Fault("stall"), GONE),
    "a page": (Fault("page"), GONE),
    "no HTTP": (Fault("noise"), GONE),
}
LATER_FAULTS = {  # after the first contact, by command
    ("register", "500 for artifacts"): (Fault(500, on="PUT /api/2.0/mlflow-artifacts"), 1, FAILS),
    ("register", "reset in an artifact"): (Fault("reset", on="PUT /api/2.0/mlflow-artifacts"), 1, GONE),
    ("register", "stalled in an artifact"): (Fault("stall", on="PUT /api/2.0/mlflow-artifacts"), 1, "timed out"),
    ("register", "a page for the version"): (Fault("page", on="model-versions/create"), 1, "not in a valid JSON"),
    ("predict", "500 for artifacts"): (Fault(500, on="GET /api/2.0/mlflow-artifacts/artifacts/"), 1, FAILS),
    ("predict", "reset in the model"): (Fault("reset", on="model.safetensors", inside=True), 1, GONE),
    ("predict", "stalled in the model"): (Fault("stall", on="model.safetensors", inside=True), 1, "timed out"),
    ("predict", "the model cut short"): (Fault("short", on="model.safetensors", inside=True), 1, "IncompleteRead"),
    ("predict", "a page for the thresholds"): (Fault("page", on="thresholds.json"), 4, OTHER),
    ("predict", "other bytes in the model"): (Fault("other", on="model.safetensors", inside=True), 4, OTHER),
}


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[BadServer]:
    """A real MLflow server behind one that can fail, with a model registered as version 1 of stored."""
    import torch  # noqa: F401

    import capnet.registry.register
    import capnet.serving.predict  # noqa: F401

    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_serving(folder / "server", empty_database) as address, serving(forwarded(address)) as server:
        (folder / "workspace").mkdir()
        make_outputs(folder / "workspace/outputs")
        Workspace(folder / "workspace").settings({"register": {"name": "stored", "tracking_uri": address}})
        assert end(begin(folder / "workspace", "register")) == 0, output_of(folder / "workspace")
        yield server


@pytest.fixture
def registry(mlflow: BadServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with outputs and an image, and the environment of a user of that server."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    make_outputs(folder / "outputs")
    draw(folder / "a.jpg", ["lemon"], random.Random(1))
    name = re.sub(r"\W+", " ", tmp_path.name)
    Workspace(folder).settings({"register": {"name": name, "experiment": name}})
    usual = {"TRACKING_URI": f"http://me:{TOKEN}@127.0.0.1:{mlflow.port}", "TRACKING_PASSWORD": SECRET}
    usual |= {"TRACKING_USERNAME": "me", "HTTP_REQUEST_TIMEOUT": "1", "HTTP_REQUEST_MAX_RETRIES": "1"}
    for key, value in usual.items():
        monkeypatch.setenv(f"MLFLOW_{key}", value)
    monkeypatch.setenv("CAPNET_STATE", str(folder / ".capnet"))
    yield folder
    mlflow.fault = Fault()


COMMANDS = {
    "register": ("register",),
    "predict": ("predict", "--model", "models:/stored/1", "--input", "a.jpg", "--out", "p.csv"),
}
RESULTS = {"register": "outputs/registration.json", "predict": "p.csv"}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", list(MLFLOW_FAULTS)[::EACH])
def test_a_registry_that_is_bad_from_the_start(registry: Path, mlflow: BadServer, kind: str, command: str) -> None:
    mlflow.fault, words = MLFLOW_FAULTS[kind]
    code = end(begin(registry, *COMMANDS[command]))
    check_refusal(registry, code, 1, words)
    assert not (registry / RESULTS[command]).exists()


@pytest.mark.parametrize(("command", "kind"), list(LATER_FAULTS)[::-EACH])
def test_a_registry_that_fails_later(registry: Path, mlflow: BadServer, command: str, kind: str) -> None:
    mlflow.fault, expected, words = LATER_FAULTS[command, kind]
    check_refusal(registry, end(begin(registry, *COMMANDS[command])), expected, words)
    assert not (registry / RESULTS[command]).exists()
    mlflow.fault = Fault()
    assert end(begin(registry, *COMMANDS[command])) == 0, output_of(registry)
    assert (registry / RESULTS[command]).is_file()
    if command == "register":
        assert "register: version 1 " in (registry.parent / "out").read_text(), "the failed call left no version"


@pytest.mark.parametrize("kind", list(MLFLOW_FAULTS)[::EACH])
def test_live_values_to_a_bad_server(registry: Path, mlflow: BadServer, kind: str) -> None:
    mlflow.fault, _ = MLFLOW_FAULTS[kind]
    outputs, started = registry / "outputs", time.monotonic()
    config = json.loads((outputs / "model/config.json").read_text())
    settings = Params.model_validate({name: config[name] for name in ("backbone", "tte", "train")})
    inputs = {"split": outputs / "split", "graph": outputs / "model"}
    with tracked("train", settings, inputs, {"model": outputs / "model"}) as log:
        for epoch in range(3):
            log({"train/loss": 1.0}, epoch)
    assert time.monotonic() - started < PATIENCE + 1.5, "the stage does not wait for the server"


def test_no_name_for_the_registry(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{TOKEN}@mlflow.example.org")
    for command in COMMANDS:
        check_refusal(registry, end(begin(registry, *COMMANDS[command], limit=no_names)), 1, "name resolution")
