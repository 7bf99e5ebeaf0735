"""S3, a DVC remote and MLflow that fail in every way in which services fail: a command survives, or refuses in three
parts, shows no credential, leaves nothing half-written, and ends well when the service does.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.workplace import Workplace, draw
from faults.bad_servers import BadServer, Fault, forwarded, no_names, objects, serving
from faults.command import begin, end, said
from unit.conftest import _make as make_outputs
from unit.stores import _serving as mlflow_serving

from capnet.config import Params
from capnet.tracking.live import PATIENCE, tracked

pytestmark = pytest.mark.slow
EACH = 1 if os.environ.get("FAULTS") == "all" else 4  # the short run takes one kind of so many
SECRET, TOKEN = "geheim+dies/das1234567890abcdefghijklmno", "AQoEXAMPLEH4aoAH0gNCAPyJxz4BlCFFxWNE1OPTgk5"
OK = 0

S3_FAULTS = {
    # survived
    "500 once": (Fault(500, "InternalError", times=1), OK, ""),
    "503 once": (Fault(503, "SlowDown", times=1), OK, ""),
    "reset once": (Fault("reset", times=1), OK, ""),
    "reset in an image": (Fault("reset", on=".jpg", inside=True, times=3), OK, ""),
    "an image cut short": (Fault("short", on=".jpg", inside=True, times=3), OK, ""),
    "stalled in an image": (Fault("stall", on=".jpg", inside=True, times=1), OK, ""),
    "other bytes once": (Fault("other", on=".jpg", inside=True, times=1), OK, ""),
    # refused
    "500": (Fault(500, "InternalError"), 3, "S3 answers InternalError"),
    "503": (Fault(503, "SlowDown"), 3, "S3 answers SlowDown"),
    "503 for images": (Fault(503, "SlowDown", on=".jpg"), 3, "S3 answers SlowDown"),
    "403": (Fault(403, "AccessDenied"), 3, r"S3 does not allow it \(AccessDenied\)"),
    "403 for images": (Fault(403, "AccessDenied", on=".jpg"), 3, r"S3 does not allow it \(AccessDenied\)"),
    "expired": (Fault(400, "ExpiredToken"), 3, r"S3 refuses the credentials \(ExpiredToken\)"),
    "expired between images": (Fault(400, "ExpiredToken", on="5.jpg"), 3, r"refuses the credentials \(ExpiredToken\)"),
    "reset": (Fault("reset"), 3, "S3 does not answer"),
    "reset in the list": (Fault("reset", on="list-type", inside=True), 3, "S3 does not answer"),
    "reset in every image": (Fault("reset", on=".jpg", inside=True), 3, "could not be fetched in 5 attempts"),
    "stalled": (Fault("stall"), 3, "S3 does not answer: Read timeout"),
    "stalled in the list": (Fault("stall", on="list-type", inside=True), 3, "S3 does not answer: Read timeout"),
    "other bytes": (Fault("other", on=".jpg", inside=True), 3, "its md5 is [0-9a-f]{32}, not [0-9a-f]{32}"),
    "a page instead of the list": (Fault("page", on="list-type"), 3, "the answer is no list of objects"),
    "a page instead of an image": (Fault("page", on=".jpg"), 3, "could not be fetched in 5 attempts"),
    "a list without sizes": (Fault("drop", "<Size>.*?</Size>", "list-type", inside=True), 3, "no list of objects"),
    "no HTTP": (Fault("noise"), 3, "S3 does not answer"),
    "replaced meanwhile": (Fault(412, "PreconditionFailed", on=".jpg"), 3, "was replaced while it was fetched"),
}

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


@pytest.fixture
def images(tmp_path: Path) -> dict[str, bytes]:
    """Six images with their labels, as objects."""
    generator, rows = random.Random(2), ["path,labels"]
    for number in range(6):
        draw(tmp_path / f"drawn/images/{number}.jpg", ["lemon"], generator)
        rows.append(f"images/{number}.jpg,lemon")
    (tmp_path / "drawn/labels.csv").write_text("\n".join(rows) + "\n")
    files = {path.relative_to(tmp_path / "drawn"): path.read_bytes() for path in (tmp_path / "drawn").rglob("*.*")}
    return {f"set/{name}": content for name, content in files.items()}


@pytest.fixture
def s3(images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[BadServer]:
    import boto3  # noqa: F401  imported here, so that a child begins at once

    import capnet.steps.ingest  # noqa: F401
    from capnet.data.sources import s3

    monkeypatch.setattr(s3, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(s3, "PATIENCE", {"connect_timeout": 1, "read_timeout": 1})
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with serving(objects("pictures", images)) as server:
        usual = {
            "ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
            "ACCESS_KEY_ID": "ASIAIOSFODNN7EXAMPLE",
            "SECRET_ACCESS_KEY": SECRET,
            "SESSION_TOKEN": TOKEN,
            "DEFAULT_REGION": "us-east-1",
            "MAX_ATTEMPTS": "2",
            "CONFIG_FILE": "/dev/null",
            "SHARED_CREDENTIALS_FILE": "/dev/null",
        }
        for name, value in usual.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        yield server


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    Workplace(folder).settings({"data": {"root": "s3://pictures/set", "connections": 2}})
    monkeypatch.setenv("CAPNET_STATE", str(folder / ".capnet"))
    return folder


def check_refusal(folder: Path, code: int, expected: int, words: str) -> None:
    """Exit code, three parts, no traceback and no credential in what the last command wrote."""
    text = said(folder)
    assert code == expected, text
    assert re.search(words, text), text
    assert "Traceback" not in text
    assert "where: " in text
    assert "to do: " in text
    assert len(text) < 4000
    for secret in (SECRET, TOKEN):
        assert secret not in text + (folder.parent / "out").read_text()


@pytest.mark.parametrize("kind", list(S3_FAULTS)[::EACH])
def test_images_from_a_bad_s3(place: Path, s3: BadServer, images: dict[str, bytes], kind: str) -> None:
    s3.fault, expected, words = S3_FAULTS[kind]
    code = end(begin(place, "ingest"))
    copies = place / ".capnet/remote/s3/pictures/set"
    here = {f"set/{path.relative_to(copies)}": path.read_bytes() for path in copies.rglob("*.*")}
    if expected:
        check_refusal(place, code, expected, words)
        assert not list((place / "outputs").rglob("*")), "nothing is half-written"
        assert here.items() <= images.items(), "no half or wrong image under its name"
        s3.fault = Fault()
        code = end(begin(place, "ingest"))
    assert code == 0, said(place)
    assert (place / "outputs/manifest/manifest.parquet").is_file()
    assert {f"set/{path.relative_to(copies)}": path.read_bytes() for path in copies.rglob("*.*")} == images


@pytest.mark.parametrize(
    "endpoint",
    ["http://127.0.0.1:9", "http://s3.example.org", "no-address"],
    ids=["nobody listens", "no DNS", "no address"],
)
def test_no_s3_at_all(place: Path, s3: BadServer, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    check_refusal(place, end(begin(place, "fetch", limit=no_names)), 3, "AWS_ENDPOINT_URL")


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BadServer]:
    """A real MLflow server behind one that can fail, with a model registered as version 1 of stored."""
    import torch  # noqa: F401

    import capnet.registry.register
    import capnet.serving.predict  # noqa: F401

    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_serving(folder / "server") as address, serving(forwarded(address)) as server:
        (folder / "place").mkdir()
        make_outputs(folder / "place/outputs")
        Workplace(folder / "place").settings({"register": {"name": "stored", "tracking_uri": address}})
        assert end(begin(folder / "place", "register")) == 0, said(folder / "place")
        yield server


@pytest.fixture
def registry(mlflow: BadServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with outputs and an image, and the environment of a user of that server."""
    folder = tmp_path / "place"
    folder.mkdir()
    make_outputs(folder / "outputs")
    draw(folder / "a.jpg", ["lemon"], random.Random(1))
    name = re.sub(r"\W+", " ", tmp_path.name)
    Workplace(folder).settings({"register": {"name": name, "experiment": name}})
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
    assert end(begin(registry, *COMMANDS[command])) == 0, said(registry)
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
