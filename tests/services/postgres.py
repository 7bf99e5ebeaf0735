"""A real PostgreSQL on loopback, from Debian's package: a cluster of its own in a temporary folder, on a free port."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from services.s3_server import free_ports

USER, PASSWORD, DATABASE = "mlflow", "secret of the tests", "mlflow"


def programs() -> Path:
    """The newest installed version's folder."""
    result = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    assert result, "PostgreSQL is not installed: apt-get install postgresql"
    return result[-1].parent


@dataclass
class Postgres:
    """One cluster. PostgreSQL does not run as root, so root starts it as the package's user."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="capnet-postgres-")))
    port: int = field(default_factory=lambda: free_ports(1)[0])

    @property
    def uri(self) -> str:
        return f"postgresql+psycopg2://{USER}:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{self.port}/{DATABASE}"

    def start(self) -> None:
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres")
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        cluster = self.folder / "cluster"
        self._run(
            "initdb",
            "-D",
            str(cluster),
            "-U",
            USER,
            f"--pwfile={secret}",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        )
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "-D", str(cluster), "-o", options, "-l", str(self.folder / "log"), "-w", "start")
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, DATABASE)

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "cluster"), "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(programs() / program), *arguments]
        if os.getuid() == 0:
            command = ["runuser", "-u", "postgres", "-w", "PGPASSWORD", "--", *command]
        with open(os.devnull, "rb") as nothing, tempfile.TemporaryFile() as output:
            environment = {**os.environ, "PGPASSWORD": PASSWORD}
            done = subprocess.run(
                command, cwd="/", env=environment, stdin=nothing, stdout=output, stderr=output, check=False
            )
            output.seek(0)
            assert done.returncode == 0, f"{program}: {output.read().decode(errors='replace')}"
