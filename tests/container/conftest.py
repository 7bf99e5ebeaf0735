"""One Docker engine, one registry, one S3 server and one MLflow server for all tests; images built and pushed once by
make.
"""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from container.base_image import Base, base_image
from container.engine import Engine
from container.registry import Registry
from e2e.workspace import Workspace, merge
from services.mlflow_server import MlflowServer
from services.s3_server import S3Server

from capnet.commands.preset import read, render
from capnet.config import parse
from capnet.data.demo.image_set import class_rows, total, write_images
from components.images import Images, read_lock
from components.revision import git_revision

BUCKET = "demo"
NOT_STARTED = "waiting for init preliminary setup"  # of runc; seen once in some thousand starts
EVERY = 60  # of the demo's pictures, one in as many
SMALL = {
    "split": {"method": "natural", "require_positives": {"train": 0}},
    "train": {"epochs": 2, "batch_size": 32, "views": 1},
    "evaluate": {"bootstrap": 100},
}


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker engine; without one these tests fail, they are not skipped."""
    started = Engine()
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def base(engine: Engine, begun: Future[Workspace], tmp_path_factory: pytest.TempPathFactory) -> Base:
    return base_image(engine, tmp_path_factory.mktemp("base"))


@dataclass(frozen=True)
class Built:
    """The git revision of the images, their tags, the lock that `make push` wrote, and what it names."""

    engine: Engine
    revision: str
    tags: dict[str, str]
    lock: Path
    locked: Images


@pytest.fixture(scope="session")
def built(engine: Engine, base: Base, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """The shipped Dockerfile's targets after `make images push`, in a registry on loopback."""
    folder = tmp_path_factory.mktemp("registry")
    registry, lock, revision = Registry(folder), folder / "images.lock.yaml", git_revision()
    registry.start()
    try:
        options = shlex.join(["--network", "host", *base.build_options])
        command = [
            "make",
            "--no-print-directory",
            "images",
            "push",
            f"REGISTRY={registry.address}/team",
            f"OPTIONS={options}",
            f"LOCK={lock}",
        ]
        command.append(f"VENV={Path(sys.executable).parents[1]}")
        made = subprocess.run(
            command, cwd=repository, env=engine.environment, capture_output=True, text=True, check=False
        )
        assert made.returncode == 0, f"{made.stdout}\n{made.stderr[-6000:]}"
        tags = {
            tag.split("/")[-1].partition(":")[0].removeprefix("capnet-"): tag
            for tag in made.stdout.split()
            if tag.startswith("capnet-")
        }
        yield Built(engine, revision, tags, lock, read_lock(lock))
    finally:
        registry.stop()


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[Workspace]]:
    """`dvc repro` at work while images are built, which mostly waits for the network and the disk."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(reproduce, tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="session")
def workspace(begun: Future[Workspace]) -> Workspace:
    """The demo in small, in a folder, after `dvc repro evaluate`: what the containers must reproduce."""
    return begun.result()


class WithoutOpenBLAS(Workspace):
    """Containers get none of this environment's OPENBLAS_ variables. One of them, OPENBLAS_CORETYPE, chooses kernels in
    place of the processor, and other kernels round the linear probe's fit otherwise (1e-14).
    """

    def environment(self) -> dict[str, str]:
        return {key: value for key, value in super().environment().items() if not key.startswith("OPENBLAS_")}


def reproduce(root: Path) -> Workspace:
    data = root / "data"
    (data / "images").mkdir(parents=True)
    rows = write_images(data, 0, range(0, total(), EVERY))
    for name, table in (
        ("labels.csv", [["path", "labels", "split", "slice"], *rows]),
        ("classes.csv", [["name", "prompt_name", "critical"], *class_rows()]),
    ):
        with open(data / name, "w", newline="") as file:
            csv.writer(file).writerows(table)
    settings = merge(read("demo").model_dump(mode="json", by_alias=True), SMALL)
    (root / "params.yaml").write_text(render(parse(settings), "the demo in small"))
    workspace = WithoutOpenBLAS(root)
    workspace.versioned()
    done = workspace.run("dvc", "repro", "evaluate")
    assert done.returncode == 0, done.stdout + done.stderr
    return workspace


@dataclass(frozen=True)
class Servers:
    """An S3 server that holds the pictures, and an MLflow server; what a user has in the environment to reach them."""

    s3: S3Server
    mlflow: MlflowServer

    @property
    def environment(self) -> dict[str, str]:
        return self.s3.environment() | {"MLFLOW_TRACKING_URI": self.mlflow.address, "MLFLOW_DISABLE_TELEMETRY": "true"}


@pytest.fixture(scope="session")
def servers(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("servers")
    s3 = S3Server(folder)
    mlflow = MlflowServer(folder, f"sqlite:///{folder / 'mlflow.db'}", s3, "models")
    try:
        s3.start()
        client = s3.client()
        for bucket in (BUCKET, "models"):
            client.create_bucket(Bucket=bucket)
        data = workspace.root / "data"
        for path in data.rglob("*.*"):
            client.upload_file(str(path), BUCKET, f"set/{path.relative_to(data).as_posix()}")
        mlflow.start()
        yield Servers(s3, mlflow)
    finally:
        mlflow.stop()
        s3.kill()


@dataclass(frozen=True)
class Submitter:
    """Somebody who submits to containers on this machine."""

    built: Built
    servers: Servers
    workspace: Workspace
    repository: Path

    def __call__(
        self, pipeline: str, runs: Path, *options: str, lock: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`python -m pipelines.submit ... --local docker` with the pictures in S3; a second time, as the command says,
        where runc failed before a task's first instruction.
        """
        done = self.once(pipeline, runs, lock or self.built.lock, *options)
        if done.returncode == 6 and NOT_STARTED in done.stderr:
            print(f"submitted again: {done.stderr}")
            for folder in runs.glob("capnet-*"):
                shutil.rmtree(folder)
            done = self.once(pipeline, runs, lock or self.built.lock, *options)
        return done

    def once(self, pipeline: str, runs: Path, lock: Path, *options: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "pipelines.submit",
            pipeline,
            "--local",
            "docker",
            "--lock",
            str(lock),
            "--runs",
            str(runs),
        ]
        command += [
            "--params",
            str(self.workspace.root / "params.yaml"),
            "--set",
            f"data.root=s3://{BUCKET}/set",
            *options,
        ]
        return subprocess.run(
            command, cwd=self.repository, env=self.environment, capture_output=True, text=True, check=False, timeout=900
        )

    @property
    def environment(self) -> Mapping[str, str]:
        return {**os.environ, **self.built.engine.environment, **self.servers.environment}


@pytest.fixture(scope="session")
def submit(built: Built, servers: Servers, workspace: Workspace, repository: Path) -> Submitter:
    return Submitter(built, servers, workspace, repository)
