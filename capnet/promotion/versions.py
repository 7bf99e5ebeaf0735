"""Finding versions of a registered model: the champion, and whom a version is measured against; and their files."""

from __future__ import annotations

import logging
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from capnet.errors import ContractError
from capnet.promotion import history
from capnet.promotion.champion import ALIAS, identity, missing_files_error, refusal
from capnet.redaction import redact
from capnet.tracking.database import of_another_store, sqlite_file
from capnet.tracking.store import local_path, may_be_gone

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)


def champion_of(client: MlflowClient, name: str) -> ModelVersion | None:
    """The version under the alias, None where there is none."""
    number = None
    with may_be_gone():
        number = client.get_registered_model(name).aliases.get(ALIAS)
    return None if number is None else client.get_model_version(name, str(number))


def version_to_beat(client: MlflowClient, name: str, number: str) -> ModelVersion | None:
    """Whom a version is measured against: the champion, or the latest champion before it that can be used.

    An earlier one is used where there is no champion, where the version is the champion itself, and where readers
    refuse the champion. So nobody gets past the gate by setting the alias on a bad model first, or by taking it away.
    An earlier one counts where it was accepted when it became champion: a request that was refused since then is no
    way to another rival.

    Args:
        client, name: the registry, and the registered model.
        number: of the version.

    Returns:
        The latest of them where readers refuse all; None where no other version was ever champion, or all that were
        champion have been deleted.
    """
    known, latest = history.events(client, name), None
    earlier = [(event.after, event.accepted) for event in reversed(known) if event.counts]
    for rival, is_accepted in dict.fromkeys([(current_number(client, name), False), *earlier]):
        version = version_or_none(client, name, rival) if rival not in ("", number) else None
        if version is not None and (is_accepted or not refusal(name, rival, version.tags, known)):
            return version
        latest = latest or version
    return latest


def deleted_champions(client: MlflowClient, name: str, number: str, rival: ModelVersion | None) -> str:
    """What a person must know where the champion that a version should be measured against was deleted; "" where it
    was not.

    Args:
        client, name: the registry, and the registered model.
        number: of the version.
        rival: whom it is measured against instead; None for nobody.
    """
    known = history.events(client, name)
    if rival is None:
        others = [other for other in history.champions(known) if other not in ("", number)]
        return f"not comparable: champions of {name} were deleted, the last was version {others[0]}" if others else ""
    accepted = [event.after for event in known if event.accepted and event.after]
    is_read = ALIAS in rival.aliases and not refusal(name, rival.version, rival.tags, known)
    # whoever was champion comes back, as by a rollback
    if is_read or not accepted or number in accepted or version_or_none(client, name, accepted[-1]):
        return ""
    last = f"champions of {name} were deleted, the last was version {accepted[-1]}"
    return f"{last}: compared with version {rival.version}"


def version_or_none(client: MlflowClient, name: str, number: str) -> ModelVersion | None:
    """A version of a registered model.

    Args:
        client, name: the registry, and the registered model.
        number: of the version.

    Returns:
        The version; None where it was deleted.
    """
    with may_be_gone():
        return client.get_model_version(name, number)
    return None


def current_number(client: MlflowClient, name: str) -> str:
    """The champion's number as text, "" where there is none."""
    champion = champion_of(client, name)
    return str(champion.version) if champion else ""


def same_content(client: MlflowClient, name: str, content_hash: str) -> list[ModelVersion]:
    """The versions of a registered model with this content, ready to be loaded, the lowest first.

    Args:
        client, name: the registry, and the registered model.
        content_hash: in the versions' tags.
    """
    listed = client.search_model_versions(f"name = '{name}' and tags.content_hash = '{content_hash}'")
    return sorted((item for item in listed if item.status == "READY"), key=lambda item: int(item.version))


def has_files(client: MlflowClient, version: ModelVersion) -> bool:
    """Whether a version's files are there. Only a store that says so counts as no, not one that fails or refuses.

    Args:
        client: of the registry, which holds the files itself (SQLite), hands them through (a server), or names where
            they are in S3.
        version: of a registered model.
    """
    from mlflow.artifacts import list_artifacts

    location = client.get_model_version_download_uri(version.name, version.version)
    if sqlite_file(client.tracking_uri):
        folder = local_path(location)
        return folder is None or (folder / "MLmodel").is_file()
    if urlsplit(location).scheme not in ("mlflow-artifacts", "s3"):  # another may be empty for this machine alone
        return True
    try:
        # SeaweedFS still lists the folders of files that were deleted
        listed = list_artifacts(artifact_uri=location, tracking_uri=client.tracking_uri)
        return any(Path(item.path).name == "MLmodel" for item in listed)
    except Exception as error:  # what it raises depends on the kind of the artifact store
        whose, why = identity(version.name, version.version), redact(" ".join(str(error).split())[:200])
        log.warning("nobody could say whether the files of %s are there: the artifact store fails: %s", whose, why)
        return True


def require_files(client: MlflowClient, version: ModelVersion) -> None:
    """Raise ContractError where a version that will be champion, or will be loaded, has no files.

    A SQLite store keeps absolute paths: where it is a copy, a warning says that the files are read from the original.
    """
    location = client.get_model_version_download_uri(version.name, version.version)
    if not has_files(client, version):
        refuse_moved(client, version)
        raise missing_files_error(version, location)
    database, (old, new, _) = sqlite_file(client.tracking_uri), _folders(client, location)
    if old is not None and database is not None and of_another_store(old, database):
        log.warning(
            "the files of %s are read from %s: this store is a copy, and its earlier versions are those of the other."
            " Keep that folder; what is trained and registered here is kept in %s",
            identity(version.name, version.version),
            old,
            new,
        )


def _folders(client: MlflowClient, location: str) -> tuple[Path | None, Path, Path]:
    """Where files of a SQLite store are: ``mlruns/`` as the store names it, ``mlruns/`` next to the database, and the
    path below it. The first is None for other stores and locations.
    """
    database, folder = sqlite_file(client.tracking_uri), local_path(location)
    if database is None or folder is None or "mlruns" not in folder.parts:
        return None, Path(), Path()
    depth = len(folder.parts) - folder.parts[::-1].index("mlruns")
    return Path(*folder.parts[:depth]), database.resolve().parent / "mlruns", Path(*folder.parts[depth:])


def refuse_moved(client: MlflowClient, version: ModelVersion) -> None:
    """Raise ContractError where a SQLite store was moved, and the files of a version with it."""
    location = client.get_model_version_download_uri(version.name, version.version)
    old, new, rest = _folders(client, location)
    if old is not None and not (old / rest / "MLmodel").is_file() and (new / rest / "MLmodel").is_file():
        link = f"mkdir -p {quote(str(old.parent))} && ln -s {quote(str(new))} {quote(str(old))}"
        raise ContractError(
            f"the files of {identity(version.name, version.version)} are in {new}, but the store names {old}: the"
            " folder was moved or copied",
            location,
            f"move it back, let the old path lead to the new one (`{link}`), or register that model again (`capnet"
            " register --check`) and promote the new version",
        )
