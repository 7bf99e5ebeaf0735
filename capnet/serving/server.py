"""What `mlflow models serve --env-manager local` serves, in one process: `python -m capnet.serving.server`.

MLflow's command waits for a server of its own and hands no signal on. As process 1 of a container it does not even get
SIGTERM, and a pod ends by SIGKILL, with requests under way. Nor does it check a body before it parses it.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, cast

import click

from capnet.errors import CapnetError

if TYPE_CHECKING:
    from capnet.serving.bodies import App

STILL_ACCEPTS = 5  # seconds after SIGTERM: a router hears later than the pod that it is to send nothing more
LAST_ANSWERS = 20  # seconds between these and the end; Kubernetes kills after 30
NO_MODEL = (
    "give the folder of a registered version's files, or models:/NAME@ALIAS; KServe puts them there, but not in a"
    " namespace with the label control-plane"
)


@click.command()
@click.option("--model", required=True, help="A folder, or models:/NAME@ALIAS.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
def main(model: str, host: str, port: int) -> None:
    """Serve a model until SIGTERM; requests that are under way, or come soon after, get their answers."""
    # process 1 gets no signal that it does not handle; uvicorn hands it on after the last answers, and threads that
    # score for nobody are not waited for
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    from capnet.errors import exits
    from capnet.machine_faults import machine_faults
    from capnet.runtime import need_docstrings, need_utf8
    from capnet.serving.bodies import CheckedBodies
    from capnet.serving.request import read_limits
    from capnet.state import use_own_temporary_folder
    from capnet.streams import name_sudden_end, open_closed_streams

    open_closed_streams()
    name_sudden_end()
    use_own_temporary_folder()  # of a model and of requests; what SIGTERM leaves in it goes with the next command
    with exits("server"), machine_faults():
        need_docstrings()
        need_utf8()
        limits = read_limits()
        _check_free(host, port)
        app, served = _application(model)
        click.echo(f"server: serves {served} until it ends, started as {model}", err=True)
        app = CheckedBodies(app, limits, served)

    _run(app, host, port)


def _run(app: App, host: str, port: int) -> None:
    """Serve until a signal. A pod gets SIGTERM at the moment when it is taken out of its Service, and whoever sends it
    requests hears of that later: a connection refused meanwhile is a request lost in every rolling update.
    """
    import asyncio

    import uvicorn

    class Server(uvicorn.Server):
        got = signal.SIGINT  # Ctrl-C, after which nobody is sent more requests

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            self.got = signal.Signals(sig)
            super().handle_exit(sig, frame)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            end = time.monotonic() + STILL_ACCEPTS
            while self.got == signal.SIGTERM and time.monotonic() < end:  # until Ctrl-C
                await asyncio.sleep(0.1)
            await super().shutdown(sockets)

    with suppress(KeyboardInterrupt):
        Server(uvicorn.Config(app, host=host, port=port, timeout_graceful_shutdown=LAST_ANSWERS)).run()


def _check_free(host: str, port: int) -> None:
    """Raise CapnetError where nothing can listen, before the model is loaded: uvicorn ends with code 3."""
    failed = []
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in addresses:
            try:
                with socket.socket(family, kind, protocol) as listener:
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:  # as asyncio's, which leaves IPv4 to others
                        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    listener.bind(address)
            except OSError as error:
                failed.append(error)  # the machine may lack one family of addresses
        for failure in failed:
            if failure.errno == errno.EADDRINUSE or len(failed) == len(addresses):
                raise failure
    except OSError as error:
        todo = "choose another --host or --port"
        if error.errno == errno.EADDRINUSE:
            todo = f"end the server that has it, or {todo}"
        raise CapnetError(f"cannot listen: {error.strerror}", f"{host}:{port}", todo) from None


def _application(model: str) -> tuple[App, str]:
    """MLflow's server with the model in it, and the address of what it loaded; raises StoreError where MLflow cannot
    load it.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc.scoring_server import get_cmd

    from capnet.config import Register
    from capnet.tracking.faults import StoreError, explain
    from capnet.tracking.store import store

    doing, in_a_store = f"serve {model}", model.startswith(("models:", "runs:"))
    try:
        with store(Register(), doing, reads=True) if in_a_store else nullcontext():
            folder = download_artifacts(artifact_uri=model)
            _, environment = get_cmd(folder)
            os.environ.update(environment)
            from mlflow.pyfunc.scoring_server.app import app  # loads the model that the environment names
    except MlflowException as error:
        if "://" not in model and not in_a_store and not Path(model, "MLmodel").is_file():
            raise StoreError(f"could not {doing}: {error.message}", model, NO_MODEL) from error
        raise explain(error, model, doing) from error
    return cast("App", app), _address(Path(folder))


def _address(folder: Path) -> str:
    """models:/NAME/VERSION of a model that came from the registry, or models:/MODEL_ID; no answer shows a path."""
    from capnet.serving.pyfunc import META, read_yaml

    meta = read_yaml(folder / META)
    if meta.get("model_name"):
        return f"models:/{meta['model_name']}/{meta['model_version']}"
    return f"models:/{read_yaml(folder / 'MLmodel').get('model_id')}"


if __name__ == "__main__":
    main()
