"""A real S3 server on loopback: SeaweedFS, one process, free ports, started and stopped by its process id."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ACCESS, SECRET = "capnetkey", "capnetsecret"
STARTED_WITHIN = 60.0  # seconds
ROLES = ("master", "volume", "filer", "s3")  # each listens on a port of its own, and on one for gRPC


def free_ports(number: int) -> list[int]:
    """Ports that nothing listens on; all are held until the last is known, so that no two are equal."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()


def weed() -> str:
    """The program, from the environment that runs the tests."""
    neighbour = Path(sys.executable).parent / "weed"
    result = str(neighbour) if neighbour.is_file() else shutil.which("weed")
    assert result, "SeaweedFS is not installed: run these tests by `make test-services`"
    return result


@dataclass
class S3Server:
    """One server. ``folder`` keeps its objects, so that it can be stopped, killed and started again with them."""

    folder: Path
    ports: list[int] = field(default_factory=lambda: free_ports(2 * len(ROLES)))
    process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return self.ports[ROLES.index("s3")]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, secret: str = SECRET) -> dict[str, str]:
        """What a user sets to reach this server; nothing of the machine's own AWS settings comes through."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "2",
            "AWS_CONFIG_FILE": str(self.folder / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "no-credentials"),
            "NO_PROXY": "127.0.0.1",
        }

    def start(self) -> None:
        data = self.folder / "objects"
        data.mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        command = [
            weed(),
            "server",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-s3",
            f"-s3.config={self.folder / 's3.json'}",
        ]
        # every bucket takes volumes of its own, so there must be many; statistics are never sent
        command += [
            "-master.telemetry=false",
            "-master.electionTimeout=1s",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=500",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]
        command += [f"-{role}.localSocket={self.folder / role}.sock" for role in ("filer", "s3")]
        for number, role in enumerate(ROLES):
            command += [f"-{role}.port={self.ports[number]}", f"-{role}.port.grpc={self.ports[len(ROLES) + number]}"]
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env={**os.environ, "HOME": str(self.folder)},
            )
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + STARTED_WITHIN
        while time.monotonic() < end:
            assert self.process is not None
            assert self.process.poll() is None, f"the server ended: {self._log()}"
            with suppress(Exception):
                client = self.client()
                name = "ready"
                with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                    client.create_bucket(Bucket=name)
                client.put_object(Bucket=name, Key="probe", Body=b"x")
                assert client.get_object(Bucket=name, Key="probe")["Body"].read() == b"x"
                return
            time.sleep(0.2)
        raise AssertionError(f"the server did not answer within {STARTED_WITHIN:.0f} s: {self._log()}")

    def _log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-3000:]

    def kill(self) -> None:
        """As when the machine fails: no goodbye to anyone. (Asked to stop, the server takes 25 seconds.)"""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            for port in self.ports:  # the server puts a socket there whatever it is told
                for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                    left.unlink(missing_ok=True)

    def client(self, secret: str = SECRET) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(connect_timeout=2, read_timeout=20, retries={"total_max_attempts": 1})
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS,
            aws_secret_access_key=secret,
            region_name="us-east-1",
            config=config,
        )
