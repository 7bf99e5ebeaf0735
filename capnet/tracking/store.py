"""One MLflow store: where it is, and how to talk to it quietly and with patience."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from capnet.config import Register
from capnet.errors import ConfigError
from capnet.progress import waiting
from capnet.streams import quiet
from capnet.tracking.database import (
    POD_NAME,
    goes_with_the_pod,
    new_store,
    of_another_store,
    sqlite_file,
    whole_database,
)
from capnet.tracking.faults import StoreError, elsewhere, explain, is_of_s3

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# mlflow waits 120 s and asks 7 times: minutes until a wrong address is noticed. What the user has set wins.
FIRST_CONTACT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
# in a pod of Kubeflow Pipelines nobody waits, and hours of training lie behind: two minutes for a server that restarts
IN_A_POD = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "6"}
TRANSFER = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "120", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}
# nothing waits for live values; a request to make a run that MLflow repeats by itself may make two
LIVE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",  # a uv.lock in the working directory is not the model's environment
    "GIT_PYTHON_REFRESH": "quiet",
    **({"HOME": "/"} if os.path.expanduser("~") == "~" else {}),  # MLflow cannot be imported without a home
}
# the last one logs with a traceback what it raises as well
VOICES = {"mlflow": logging.ERROR, "alembic": logging.ERROR, "mlflow.store.db.utils": logging.CRITICAL}
FORGETFUL = ("sqlite://", "sqlite:///", "sqlite:///:memory:")  # databases in memory
WRONG_FORMS = {  # of an address, and what to write: MLflow takes all of these for folders
    r"\s.*|.*\s|[\"'].*": "take away the quotes and blanks around it",
    r"[\w.-]+:\d+(/.*)?": "write http:// or https:// in front of it",
    r"https?(/.*|:/?[^/].*)": "write http://HOST:PORT",
    r"sqlite:/{0,2}[^/].*": "write sqlite:///FILE, with three slashes",
    r"postgres://.*": "write postgresql:// instead of postgres://",
}
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # not "genai_development"


def tracking_uri(settings: Register) -> str:
    """MLFLOW_TRACKING_URI where set, else the setting."""
    return os.environ.get("MLFLOW_TRACKING_URI") or settings.tracking_uri


def preload() -> None:
    """Import MLflow's client, which takes seconds, before a clock runs; what prevents that is an error of ``store``."""
    with _environment(QUIET), suppress(ImportError, ValueError), waiting("loading MLflow"):
        import mlflow.tracking  # noqa: F401


@contextmanager
def store(settings: Register, doing: str, reads: bool = False) -> Iterator[MlflowClient]:
    """A client of the store that answered once; inside, mlflow is quiet and its errors become a StoreError.

    ``doing`` completes "could not ..." in the message. The environment and log levels are put back afterwards. With
    ``reads`` no database file is made.
    """
    uri = tracking_uri(settings)
    if uri.partition("?")[0] in FORGETFUL:
        raise StoreError(f"could not {doing}: this database is kept nowhere", uri, "name a file: sqlite:///mlflow.db")
    for form, todo in WRONG_FORMS.items():
        if re.fullmatch(form, uri):
            raise StoreError(f"could not {doing}: this is no address of an MLflow store", uri, todo)
    database = sqlite_file(uri)
    if database is not None and goes_with_the_pod(database):
        todo = (
            "write MLFLOW_TRACKING_URI, the address of a server, into the secret capnet-mlflow or your own for MLflow"
        )
        raise StoreError(f"could not {doing}: this database goes with the pod of the task", uri, todo)
    if reads and database is not None and not os.path.lexists(database):
        raise StoreError(
            f"could not {doing}: nothing is registered yet", uri, f"run `capnet register`, or {elsewhere(doing)}"
        )
    with _environment({"MLFLOW_TRACKING_URI": uri}, replace=True), _environment(QUIET):
        try:
            with waiting("loading MLflow"):
                from mlflow.exceptions import MlflowException
                from mlflow.tracking import MlflowClient
                from requests import RequestException
                from sqlalchemy.exc import SQLAlchemyError
        except ModuleNotFoundError as error:
            raise StoreError(f"could not {doing}: {error}", uri, "pip install 'capnet[registry]'") from error
        except ValueError as error:
            raise _wrong_variable(error, doing) from error
        with quiet({} if "MLFLOW_LOGGING_LEVEL" in os.environ else VOICES):
            try:
                with first_contact(), whole_database(database, lambda address: _ask(new_store, address, doing)):
                    client = _ask(MlflowClient, uri, doing)
                with _environment(TRANSFER):
                    yield client
            except Exception as error:
                explained = (MlflowException, RequestException, SQLAlchemyError, sqlite3.Error, OSError)
                if isinstance(error, explained) or is_of_s3(error):
                    raise explain(error, uri, doing) from error
                raise


def _ask(make: Callable[[str], Any], uri: str, doing: str) -> Any:
    try:
        client = make(uri)
    except ImportError as error:  # a database driver that mlflow does not bring along
        raise StoreError(
            f"could not {doing}: {error}",
            uri,
            "install the driver of this kind of store in the same environment",
        ) from error
    try:
        client.search_experiments(max_results=1)
    except ValueError as error:
        if not str(error).startswith("Failed to convert"):  # an answer that cannot be read is a ValueError, too
            raise
        raise _wrong_variable(error, doing) from error
    return client


def _wrong_variable(error: ValueError, doing: str) -> ConfigError:
    """MLflow reads its variables when it is imported and at every request, and checks none."""
    names = ", ".join(sorted(name for name in os.environ if name.startswith("MLFLOW_")))
    todo = "correct or unset the one that holds another kind of value than MLflow's documents name"
    return ConfigError(f"could not {doing}: {error.__cause__ or error}", f"the variables {names}", todo)


def experiment_id(client: MlflowClient, settings: Register) -> str:
    """Id of the experiment, made where missing; with a sqlite file its artifacts go to ``mlruns/`` next to the file.

    A sqlite store keeps absolute paths. If its folder was moved, the old artifacts are out of reach; if it was copied,
    they belong to the other store. Then the experiment is set aside under another name, so that nothing is written to
    the old folder.
    """
    from mlflow.exceptions import MlflowException

    database = sqlite_file(tracking_uri(settings))
    home = database.resolve().parent / "mlruns" if database else None
    experiment = client.get_experiment_by_name(settings.experiment)
    if experiment and experiment.lifecycle_stage != "active":
        raise StoreError(
            f"the experiment {settings.experiment!r} was deleted",
            tracking_uri(settings),
            "restore it (`mlflow experiments restore`), or set register.experiment to another name",
        )
    if experiment and home and database:
        artifacts = local_path(experiment.artifact_location)
        foreign = artifacts and not artifacts.is_relative_to(home)
        if artifacts and foreign and (not artifacts.exists() or of_another_store(artifacts.parent, database)):
            client.rename_experiment(experiment.experiment_id, f"{settings.experiment} (artifacts were in {artifacts})")
            experiment = None
    if experiment:
        return experiment.experiment_id
    # The location is given because mlflow would take the working directory, which is not where the database is.
    location = (home / settings.experiment.replace("/", "-")).as_uri() if home else None
    try:
        return client.create_experiment(settings.experiment, artifact_location=location, tags=EXPERIMENT_TAGS)
    except MlflowException as error:
        experiment = client.get_experiment_by_name(settings.experiment)  # made by another process in the meantime
        if experiment is None or error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return experiment.experiment_id


def insist(write: Callable[..., Any], *arguments: Any) -> None:
    """Write a tag, an alias or a data set, if need be twice: MLflow inserts a row where it saw none, and of two writers
    at once one fails.
    """
    from mlflow.exceptions import MlflowException

    try:
        write(*arguments)
    except MlflowException:
        write(*arguments)


@contextmanager
def may_be_gone() -> Iterator[None]:
    """Passes over the error of something that the store does not have, or no longer has."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def local_path(location: str) -> Path | None:
    """The folder behind a plain path or a file URI; None for any other address."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if parts.scheme else Path(location)


@contextmanager
def _environment(values: Mapping[str, str], replace: bool = False) -> Iterator[None]:
    """Set variables that are unset (or all, with ``replace``) for a while: mlflow reads them at every request.

    Variables that were set already are not touched at the end either: another thread may have set them, and removed
    them meanwhile.
    """
    before = {name: os.environ.get(name) for name in values if replace or name not in os.environ}
    os.environ.update({name: values[name] for name in before})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def quiet_environment() -> AbstractContextManager[None]:
    """No telemetry, no log lines below errors, and patience with a slow server, for live values."""
    return _environment({**QUIET, **LIVE})


def ask_artifacts(folder: str, uri: str, seconds: int) -> None:
    """List a folder of the artifact store that a server hands through, with one try.

    Args:
        folder: mlflow-artifacts:/ and a path, which need not exist.
        uri: of the server.
        seconds: for the answer.

    Raises:
        StoreError: there is none in time, or a refusal.
    """
    from mlflow.artifacts import list_artifacts
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    limits = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    try:
        with _environment(limits, replace=True):
            list_artifacts(artifact_uri=folder, tracking_uri=uri)
    except (MlflowException, RequestException) as error:
        raise explain(error, uri, "list files in the artifact store of the server") from error


def first_contact() -> AbstractContextManager[None]:
    """Time-outs with which a wrong address is noticed in seconds, and a server that restarts is waited for in a pod."""
    return _environment(IN_A_POD if POD_NAME in os.environ else FIRST_CONTACT)
