"""Sending through MLflow's own client: to any kind of store, with any kind of login."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capnet.config import Register
from capnet.tracking.sender import KEY_TAG, SOURCE, Point
from capnet.tracking.store import experiment_id, tracking_uri

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


@dataclass(frozen=True)
class ClientStore:
    """A Store behind a client that `store` opened."""

    client: MlflowClient
    settings: Register

    @property
    def address(self) -> str:
        return tracking_uri(self.settings)

    def _experiment(self, name: str) -> str:
        return experiment_id(self.client, self.settings.model_copy(update={"experiment": name}))

    def find_run(self, experiment: str, key: str) -> str:
        found = self.client.search_runs([self._experiment(experiment)], f"tags.{KEY_TAG} = '{key}'")
        return str(found[0].info.run_id) if found else ""

    def make_run(self, experiment: str, key: str, name: str, started: int) -> str:
        made = self.client.create_run(
            self._experiment(experiment), start_time=started, run_name=name, tags={KEY_TAG: key, **SOURCE}
        )
        return str(made.info.run_id)

    def log_points(self, run_id: str, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        self.client.log_batch(run_id, metrics=[Metric(*point) for point in points])

    def end_run(self, run_id: str, status: str, at: int) -> None:
        self.client.set_terminated(run_id, status, at)
