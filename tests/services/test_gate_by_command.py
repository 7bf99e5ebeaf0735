"""A candidate better in the mean and worse in the tail, on a real server, through the commands that people type."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from services.mlflow_server import MlflowServer
from services.s3_server import free_ports
from unit.conftest import _make as make_outputs

from capnet.cli import entry
from capnet.config import Register
from capnet.registry.candidate import read_candidate
from capnet.registry.register import register_version

NAME = "gated"
SKILLS = ((2.0, 2.0, 2.0, 2.0), (9.0, 9.0, 2.0, 1.4))  # of the classes; the last two are the tail
Capnet = Callable[..., tuple[int, str]]


@pytest.fixture
def capnet(
    tracking: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Capnet:
    """The console script, in this process: its exit code and all that it prints."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.address)
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(f"register:\n  name: {NAME}\n  experiment: {NAME}\n")

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["capnet", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            entry()
        output = capfd.readouterr()
        return int(caught.value.code or 0), output.out + output.err

    return run


def serve(address: str, folder: Path) -> tuple[int, str]:
    """`mlflow models serve` of the champion, until it gives up."""
    command = [
        "mlflow",
        "models",
        "serve",
        "-m",
        f"models:/{NAME}@champion",
        "--env-manager",
        "local",
        "--port",
        str(free_ports(1)[0]),
        "--workers",
        "1",
    ]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": address,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    log = folder / "serve.log"
    with (
        open(log, "wb") as file,
        subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True) as process,
    ):
        try:
            return process.wait(timeout=180), log.read_text()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_refused_forced_clicked_and_audited(capnet: Capnet, tracking: MlflowServer, tmp_path: Path) -> None:
    for number, skill in enumerate(SKILLS):
        paths = make_outputs(tmp_path / str(number), mAP=0.5 + number / 10, skill=skill)
        register_version(
            Register(name=NAME, experiment=NAME), read_candidate(**paths), paths["evaluation"] / "report.html"
        )
    client = MlflowClient(tracking.address)
    assert capnet("promote", "--version", "1")[0] == 0

    code, output = capnet("promote")  # the challenger
    assert code == 5
    assert f"champion of {NAME}: not moved" in output
    (rule,) = [line for line in output.splitlines() if line.startswith("fail: ")]
    assert rule.startswith("fail: tail ")
    assert rule.endswith(", may be 3.0 lower")
    value, against = (float(word) for word in rule.removeprefix("fail: tail ").split(": ")[0].split(" against "))
    assert against - value > 3.0
    assert "`--force --reason ...` promotes it all the same, on the record" in output

    client.set_registered_model_alias(NAME, "champion", "2")  # what a click in the UI sends
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"never opened")
    code, output = capnet("predict", "--input", "pictures", "--out", "labels.csv")
    assert (code, Path("labels.csv").exists()) == (5, False)
    assert f"champion is {NAME} version 2, which has a red verdict of the promotion gate: {rule}" in output
    code, output = serve(tracking.address, tmp_path)
    assert code != 0
    assert f"champion is {NAME} version 2, which has a red verdict of the promotion gate: {rule}" in output
    code, output = capnet("promote", "--audit")
    assert code == 5
    assert "new: the alias was moved outside capnet promote, to version 2" in output
    assert (
        f"the champion is refused by its readers: {NAME} version 2 has a red verdict of the promotion gate: {rule}"
        in output
    )

    assert capnet("promote", "--rollback") == (0, f"champion of {NAME}: version 1 again, was version 2\n")
    assert capnet("promote", "--audit")[0] == 0
    code, output = capnet("promote", "--version", "2", "--force")
    assert (code, "--force needs --reason" in output) == (5, True)
    assert capnet("promote", "--version", "2", "--force", "--reason", "the tail is not sold any more")[0] == 0
    code, output = capnet("promote", "--audit")
    assert code == 0
    lines = output.splitlines()
    assert [line.split()[1] for line in lines if not line.startswith(" ")] == ["promoted", "found", "rolled", "forced"]
    (forced,) = [number for number, line in enumerate(lines) if "forced" in line]
    assert "version 1 -> version 2  verdict red" in lines[forced]
    assert lines[forced + 1].startswith("  policy ")
    assert lines[forced + 2 : forced + 4] == [f"  not passed: {rule}", "  reason: the tail is not sold any more"]
