"""A pipeline server on loopback, and `python -m pipelines.submit` that talks to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from contract.kfp_server import State, serving

from pipelines import compiling, submit

ON_VOLUME = ("--data-volume", "--set", "data.root=/mnt/data/birds")


@dataclass
class SubmitCommand:
    """A server, and the command that talks to it."""

    state: State
    host: str
    repository: Path

    def run(
        self,
        *arguments: str,
        pipeline: str = "training",
        pictures: tuple[str, ...] = ON_VOLUME,
        lock: Path = compiling.GOLDEN_LOCK,
    ) -> Result:
        options = [
            "--host",
            self.host,
            "--lock",
            str(lock),
            "--params",
            str(self.repository / "params.yaml"),
            *pictures,
        ]
        return CliRunner().invoke(submit.command, [pipeline, *options, *arguments])

    def good(self, *arguments: str, pipeline: str = "training", pictures: tuple[str, ...] = ON_VOLUME) -> str:
        result = self.run(*arguments, pipeline=pipeline, pictures=pictures)
        assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
        return result.output


@pytest.fixture
def server(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SubmitCommand]:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KF_PIPELINES_TOKEN", "KF_PIPELINES_ENDPOINT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    state = State()
    with serving(state) as host:
        yield SubmitCommand(state, host, repository)
