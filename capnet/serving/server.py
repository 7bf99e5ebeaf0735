"""What `mlflow models serve --env-manager local` serves, in one process: `python -m capnet.serving.server`.

MLflow's command waits for a server of its own and hands no signal on. As process 1 of a container it does not even get
SIGTERM, and a pod ends by SIGKILL, with requests under way.
"""

from __future__ import annotations

import os
import signal
import sys

import click

APP = "mlflow.pyfunc.scoring_server.app:app"
LAST_ANSWERS = 25  # seconds between SIGTERM and the end; Kubernetes kills after 30


@click.command()
@click.option("--model", required=True, help="A folder, or models:/NAME@ALIAS.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8080, show_default=True)
def main(model: str, host: str, port: int) -> None:
    """Serve a model until SIGTERM; requests that are under way get their answers."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # process 1 gets no signal that it does not handle
    import uvicorn
    from mlflow.artifacts import download_artifacts
    from mlflow.pyfunc.scoring_server import get_cmd

    _, environment = get_cmd(download_artifacts(artifact_uri=model))
    os.environ.update(environment)
    uvicorn.run(APP, host=host, port=port, timeout_graceful_shutdown=LAST_ANSWERS)


if __name__ == "__main__":
    main()
