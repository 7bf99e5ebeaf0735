"""S3 and a DVC remote that fail in every way in which services fail: a command survives, or refuses in three
parts, shows no credential, leaves nothing half-written, and ends well when the service does.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.workspace import Workspace, draw
from faults.bad_servers import BadServer, Fault, no_names, objects, serving
from faults.command import begin, end, output_of

from capnet.data.sources.s3_source import S3Source

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
AN_IMAGE = "GET .*/[0-9a-f]{30}(?![.]dir)"
DVC_FAULTS = {
    "500 once": (Fault(500, "InternalError", times=1), OK, ""),
    "reset once": (Fault("reset", on="GET", times=1), OK, ""),
    "other bytes once": (Fault("other", on=AN_IMAGE, inside=True, times=1), OK, ""),
    "503": (Fault(503, "SlowDown"), 3, "does the remote answer"),
    "403": (Fault(403, "AccessDenied"), 3, "correct the credentials of the DVC remote"),
    "expired": (Fault(400, "ExpiredToken"), 3, "correct the credentials of the DVC remote"),
    "reset": (Fault("reset"), 3, "does the remote answer"),
    "stalled": (Fault("stall"), 3, "does the remote answer"),
    "cut short": (Fault("short", on="GET", inside=True), 3, "does the remote answer"),
    "other bytes in the list": (Fault("other", on="[.]dir", inside=True), 3, "does the remote answer"),
    "other bytes": (Fault("other", on=AN_IMAGE, inside=True), 3, "the file has another md5"),
    "no HTTP": (Fault("noise"), 3, "does the remote answer"),
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
def s3(images: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BadServer]:
    import boto3  # noqa: F401  imported here, so that a child begins at once

    import capnet.steps.ingest  # noqa: F401
    from capnet.data.sources import s3, s3_source

    monkeypatch.setattr(s3_source, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(s3, "PATIENCE", {"connect_timeout": 1, "read_timeout": 1})
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "aws").touch()
    with serving(objects("pictures", images)) as server:
        usual = {
            "ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
            "ACCESS_KEY_ID": "ASIAIOSFODNN7EXAMPLE",
            "SECRET_ACCESS_KEY": SECRET,
            "SESSION_TOKEN": TOKEN,
            "DEFAULT_REGION": "us-east-1",
            "MAX_ATTEMPTS": "2",
            "CONFIG_FILE": str(tmp_path / "aws"),
            "SHARED_CREDENTIALS_FILE": str(tmp_path / "aws"),
        }
        for name, value in usual.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        yield server


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    Workspace(folder).settings({"data": {"root": "s3://pictures/set", "connections": 2}})
    monkeypatch.setenv("CAPNET_STATE", str(folder / ".capnet"))
    return folder


def check_refusal(folder: Path, code: int, expected: int, words: str) -> None:
    """Exit code, three parts, no traceback and no credential in what the last command wrote."""
    text = output_of(folder)
    assert code == expected, text
    assert re.search(words, text), text
    assert "Traceback" not in text
    assert "where: " in text
    assert "to do: " in text
    assert len(text) < 4000
    for secret in (SECRET, TOKEN):
        assert secret not in text + (folder.parent / "out").read_text()


@pytest.mark.parametrize("kind", list(S3_FAULTS)[::EACH])
def test_images_from_a_bad_s3(workspace: Path, s3: BadServer, images: dict[str, bytes], kind: str) -> None:
    s3.fault, expected, words = S3_FAULTS[kind]
    code = end(begin(workspace, "ingest"))
    copies = workspace / ".capnet/remote" / S3Source("s3://pictures/set", 1).folder
    here = {f"set/{path.relative_to(copies)}": path.read_bytes() for path in copies.rglob("*.*")}
    if expected:
        check_refusal(workspace, code, expected, words)
        assert not list((workspace / "outputs").rglob("*")), "nothing is half-written"
        assert here.items() <= images.items(), "no half or wrong image under its name"
        s3.fault = Fault()
        code = end(begin(workspace, "ingest"))
    assert code == 0, output_of(workspace)
    assert (workspace / "outputs/manifest/manifest.parquet").is_file()
    assert {f"set/{path.relative_to(copies)}": path.read_bytes() for path in copies.rglob("*.*")} == images


@pytest.mark.parametrize(
    "endpoint",
    ["http://127.0.0.1:9", "http://s3.example.org", "no-address"],
    ids=["nobody listens", "no DNS", "no address"],
)
def test_no_s3_at_all(workspace: Path, s3: BadServer, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    check_refusal(workspace, end(begin(workspace, "fetch", limit=no_names)), 3, "AWS_ENDPOINT_URL")


@pytest.fixture
def dvc(s3: BadServer, images: dict[str, bytes], workspace: Path, monkeypatch: pytest.MonkeyPatch) -> BadServer:
    """The images in a git repository with DVC, their content in its remote on S3; the settings name the repository."""
    import dvc_s3  # noqa: F401

    origin, program = workspace.parent / "origin", f"{Path(sys.executable).parent}/dvc"
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(workspace.parent / "site"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    for name, content in images.items():
        path = origin / "data" / name.removeprefix("set/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (origin / ".dvc").mkdir()
    bucket = "expired-403"  # an address does not decide what is wrong
    settings = {"url": f"s3://{bucket}/dvc", "connect_timeout": 1, "read_timeout": 1}
    lines = [f"    {key} = {value}" for key, value in settings.items()]
    (origin / ".dvc/config").write_text("\n".join(["[core]", "    remote = s3", "['remote \"s3\"']", *lines]) + "\n")
    for command in (
        ["git", "init", "-q"],
        [program, "add", "-q", "data"],
        ["git", "add", "data.dvc", ".dvc/config"],
        ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "-qm", "one version"],
    ):
        subprocess.run(command, cwd=origin, check=True, capture_output=True)
    cache = origin / ".dvc/cache/files/md5"
    result = [path for path in cache.rglob("*") if path.is_file()]
    stored = {f"dvc/files/md5/{path.relative_to(cache)}": path.read_bytes() for path in result}
    s3.origin = objects(bucket, stored)
    for folder in (cache.parents[1], origin / "data"):
        shutil.rmtree(folder)
    Workspace(workspace).settings({"data": {"root": f"git+file://{origin}", "connections": 2}})
    return s3


@pytest.mark.parametrize("kind", list(DVC_FAULTS)[::EACH])
def test_images_from_a_bad_dvc_remote(workspace: Path, dvc: BadServer, images: dict[str, bytes], kind: str) -> None:
    dvc.fault, expected, words = DVC_FAULTS[kind]
    code = end(begin(workspace, "ingest"))
    if expected:
        check_refusal(workspace, code, expected, words)
        assert not list((workspace / "outputs").rglob("*")), "nothing is half-written"
        dvc.fault = Fault()
        code = end(begin(workspace, "ingest"))
    assert code == 0, output_of(workspace)
    here = {path.read_bytes() for path in (workspace / ".capnet/remote").rglob("*.jpg")}
    assert here == {content for name, content in images.items() if name.endswith(".jpg")}
