"""Who may read the alias `champion`: a version with a verdict of its own, against today's rival and not red, or with
the reason of a person.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capnet.contracts import sha256_files
from capnet.errors import ConfigError, ContractError, GateError
from capnet.promotion import history

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

ALIAS = "champion"
VERDICT, VERDICT_OF, VERDICT_AGAINST, VERDICT_RULES = "verdict", "verdict_of", "verdict_against", "verdict_rules"
OVERRIDE = "gate_override"
FORM, PACKED, REFERENCED = "backbone", "packed", "referenced"  # tag: does the artifact hold the backbone's weights
PROVENANCE = "provenance"  # tag: JSON with class_fingerprint, weight_hash, data_md5, git_revision and FILES
FILES = "files_sha256"  # of the version's own files, see files_hash
NOBODY = "no champion"
ASKS = "reason needed: "
NEEDS_REASON = ("inconclusive: coverage", ASKS)  # how a line in VERDICT_RULES begins that needs the reason of a person


def identity(name: str, version: str | int) -> str:
    """How a tag names one version; a copy under another name has another identity, so it does not inherit a verdict."""
    return f"{name} version {version}" if version else NOBODY


def refusal(name: str, version: str | int, tags: Mapping[str, str], events: Sequence[history.Event]) -> str:
    """Why this version must not act as champion.

    MLflow copies a version with all its tags, so neither a verdict nor an override counts beside the identity of
    another version. A verdict against an older champion says nothing about today's.

    Args:
        name: of the registered model.
        version: the version's number.
        tags: of the version.
        events: history of the registered model, which says whom it replaced.

    Returns:
        The reason in words; "" where it may.
    """
    own, of = identity(name, version), tags.get(VERDICT_OF, "")
    if says_something(tags.get(OVERRIDE, "")) and of in ("", own):
        return ""
    verdict = tags.get(VERDICT, "")
    if not verdict or of != own:
        return "no verdict of the promotion gate" + (f" (its tags are those of {of})" if of not in ("", own) else "")
    if verdict not in ("green", "inconclusive"):
        rules = [line for line in tags.get(VERDICT_RULES, "").splitlines() if line.startswith("fail")]
        return f"a {verdict} verdict of the promotion gate" + (f": {'; '.join(rules)}" if rules else "")
    asks = [line for line in tags.get(VERDICT_RULES, "").splitlines() if line.startswith(NEEDS_REASON)]
    if asks:
        return f"a verdict that needs a reason: {'; '.join(asks)}"
    rivals = [identity(name, number) for number in history.accepted_rivals(events, str(version))]
    if rivals and tags.get(VERDICT_AGAINST, "") not in rivals:
        return (
            f"no verdict against {rivals[0]}, which it replaced: its own is against"
            f" {tags.get(VERDICT_AGAINST) or 'nobody'}"
        )
    return ""


def says_something(reason: str) -> bool:
    """Whether a reason has a letter or digit that can be seen: some letters of Unicode have no shape."""
    return any(letter.isalnum() and "FILLER" not in unicodedata.name(letter, "") for letter in reason)


def override_advice(name: str, version: str | int) -> str:
    """What a person does who wants this version in spite of the gate."""
    return f"set the tags {OVERRIDE} of that version to a reason and {VERDICT_OF} to {identity(name, version)!r}"


def provenance(version: ModelVersion) -> dict[str, Any]:
    """What a version's tag PROVENANCE says; {} without the tag. Raises ContractError where it is no JSON object."""
    try:
        content = json.loads(version.tags.get(PROVENANCE, "{}"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ContractError(
            f"the tag {PROVENANCE} of {identity(version.name, version.version)} is damaged",
            str(version.source),
            "someone changed it: register the model again",
        )
    return content


def files_hash(artifacts: Path) -> str:
    """sha256 of what a version's own folder holds: names and contents of all its files."""
    files = (path for path in artifacts.rglob("*") if path.is_file())
    return sha256_files({path.relative_to(artifacts).as_posix(): path for path in files})


def missing_files_error(version: ModelVersion, where: str) -> ContractError:
    """The error of a version whose files are no longer ``where`` they were."""
    return ContractError(
        f"the store has no files of {identity(version.name, version.version)}: they were deleted",
        where,
        "put them back, or register that model again (`capnet register --check`), or promote another version",
    )


def check_files(version: ModelVersion, artifacts: Path) -> None:
    """Raise ContractError where ``artifacts`` are not the files that were registered; a version without the tag, such
    as one that a person registered in MLflow's pages, is taken as it is.
    """
    registered = provenance(version).get(FILES)
    if registered and not any(path.is_file() for path in artifacts.rglob("*")):
        raise missing_files_error(version, str(version.source))
    if registered and registered != files_hash(artifacts):
        raise ContractError(
            f"the files that arrived are not those of {identity(version.name, version.version)}: they have another"
            " sha256",
            str(version.source),
            "try again; if they stay so, the artifact store was changed: register the model again",
        )


def check_champion(version: ModelVersion, client: MlflowClient) -> None:
    """Ask whether a version may be read under the alias `champion`; any other version may be read.

    Args:
        version: the version, with its aliases and tags.
        client: of its registry.

    Raises:
        GateError: it carries the alias without being allowed to.
    """
    if ALIAS not in version.aliases:
        return
    reason = refusal(version.name, version.version, version.tags, history.events(client, version.name))
    if reason:
        raise GateError(
            f"{ALIAS} is {identity(version.name, version.version)}, which has {reason}",
            f"models:/{version.name}@{ALIAS}",
            f"run `capnet promote --version {version.version}` (`--force --reason ...` where it must be so), `capnet"
            f" promote --rollback`, or {override_advice(version.name, version.version)}",
        )


def resolve(client: MlflowClient, uri: str) -> ModelVersion:
    """The version that an address names, allowed to be read.

    Args:
        client: of the registry.
        uri: ``models:/name@alias``, ``models:/name/3`` or ``models:/name`` (its champion).

    Raises:
        ConfigError: ``uri`` is no such address.
        GateError: the gate refuses the version.
        MlflowException: there is no such version.
    """
    text = uri.removeprefix("models:/").strip("/")
    name, at, alias = text.rpartition("@") if "@" in text else (text, "", "")
    if not uri.startswith("models:/") or not text or (at and not (name and alias)):
        raise ConfigError(
            f"{uri!r} is no registered model",
            "command line",
            f"write models:/NAME@{ALIAS}, models:/NAME@challenger or models:/NAME/3",
        )
    if not at and "/" in text:
        name, _, number = text.partition("/")
        if not number.isdigit():
            raise ConfigError(f"{number!r} is no version", uri, "write a whole number, or an alias behind @")
    else:
        number = client.get_model_version_by_alias(name, alias or ALIAS).version
    version = client.get_model_version(name, number)  # with all its aliases
    check_champion(version, client)
    return version
