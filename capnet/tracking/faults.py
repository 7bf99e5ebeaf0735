"""What went wrong with an MLflow store, in words, and what to do."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from urllib.parse import urlsplit

from capnet.errors import CapnetError

GET = "get the model"  # what a reader does that can do without a store
SHORTEST_PASSWORD = 4  # letters of one that is replaced anywhere: a shorter one is in ordinary words
FULL = "make room where the store is and in the temporary folder, or set TMPDIR to another one; then try again"
# what a server or a proxy answers, and what to do. The status alone says nothing: mlflow gives 500 to any connection
# that failed
ANSWERS = {
    "CERTIFICATE_VERIFY_FAILED|CA certificate bundle": (
        "set MLFLOW_TRACKING_SERVER_CERT_PATH to a file (PEM) with the certificate of the server or of who signed it;"
        " where that has expired, renew it"
    ),
    "WRONG_VERSION_NUMBER": "write http:// instead of https://: what listens there speaks no TLS",
    "experiments/search failed with error code 404": (
        "add the path below which the MLflow server answers, as in https://HOST/mlflow; a proxy may take it away"
    ),
    "^INTERNAL_ERROR: Response: ": (
        "a proxy answered in place of MLflow: where it asks for a login, renew MLFLOW_TRACKING_TOKEN, or"
        " MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    ),
    r"\b40[13] Client Error\b.*/mlflow-artifacts/": (
        "the server answers, but refuses the files: see its log, whether its keys of the artifact store are right and"
        " have not expired, and whether your account may read there; then try again"
    ),
    r"\b5\d\d error|error code 5\d\d": (
        "the server answers, but fails: see its log, and whether its disk, its database or its artifact store is full,"
        " or that store does not answer or refuses the server's keys; then try again"
    ),
}
S3 = ("boto3", "botocore")  # their errors come through MLflow, which reads artifacts with keys of this machine
OWN_KEYS = (
    "the artifact store is read with keys of this machine: see that it answers at MLFLOW_S3_ENDPOINT_URL or"
    " AWS_ENDPOINT_URL, and that AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or AWS_PROFILE, are"
    " set, may read there and have not expired; then try again"
)


class StoreError(CapnetError):
    """The MLflow store cannot be reached, refuses, or lost its files."""

    title = "MLflow"


def explain(error: Exception, uri: str, doing: str) -> StoreError:
    """The three-part message for an error of mlflow, of the network or of the database.

    Args:
        error: as it was raised.
        uri: of the store; a message hides its password.
        doing: what did not work, such as register the model.
    """
    password, causes = urlsplit(uri).password, list(_causes(error))
    own_keys = any(map(is_of_s3, causes)) or "artifacts from s3://" in str(error)
    # 'Connection refused', where mlflow's own message is ten lines about retries
    tells_more = isinstance(causes[-1], OSError | sqlite3.Error) and not own_keys
    reason = " ".join(str(causes[-1] if tells_more else error).split())
    if password:
        reason = reason.replace(password if len(password) >= SHORTEST_PASSWORD else f":{password}@", "***")
    status = int(getattr(error, "get_http_status_code", lambda: 0)() or 0)
    todo = OWN_KEYS if own_keys else _todo(reason, status, uri, doing)
    return StoreError(f"could not {doing}: {reason[:400]}", uri, todo)


def is_of_s3(error: BaseException) -> bool:
    """Whether an error is one of S3's client, which MLflow hands on as it is.

    Args:
        error: of any kind.
    """
    return type(error).__module__.partition(".")[0] in S3


def _todo(reason: str, status: int, uri: str, doing: str) -> str:
    if re.search(r"(?i)registered model.* not found|model version .*not found|alias \S+ not found", reason):
        return (
            "correct the name, version or alias (`capnet register` makes versions, `capnet promote` makes one the"
            f" champion), or {elsewhere(doing)}"
        )
    if os.strerror(errno.ENOSPC) in reason:  # mlflow copies a model to the temporary folder first
        return FULL
    if not uri.startswith(("http://", "https://")):
        if found := re.search(r"Detected out-of-date database schema \(found version (\w+)", reason):
            return _of_another_mlflow(found[1], uri)
        return (
            "see that the folder exists, is writable and has room, and that no other machine uses the file, or set"
            " MLFLOW_TRACKING_URI (or register.tracking_uri) to another store"
        )
    if status in (401, 403):
        return (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN) to an account that"
            " may write there"
        )
    for answer, todo in ANSWERS.items():
        if re.search(answer, reason):
            return todo
    return (
        "see that the MLflow server runs at this address and can be reached from here, or set MLFLOW_TRACKING_URI"
        " (or register.tracking_uri) to another; then try again"
    )


def _of_another_mlflow(revision: str, uri: str) -> str:
    import mlflow

    steps = Path(mlflow.__file__).parent / "store/db_migrations/versions"
    if any(steps.glob(f"{revision}_*.py")):
        return f"bring the store up to date with `mlflow db upgrade {quote(uri)}` after a backup"
    return (
        "install a newer MLflow here: one has used this store, and MLflow brings a local store up to date without a"
        " question, after which older ones cannot read it"
    )


def elsewhere(doing: str) -> str:
    """What to do where a store lacks the version.

    Args:
        doing: what did not work.
    """
    return "set MLFLOW_TRACKING_URI (or register.tracking_uri) to the store that has it" + (
        "; `--model outputs` takes what was trained last" if doing == GET else ""
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it, the first cause last."""
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__ or following.__context__
