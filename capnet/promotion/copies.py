"""Versions copied from one registered model to another, such as from staging to production."""

from __future__ import annotations

import contextlib
import io
import re
from typing import TYPE_CHECKING

from capnet.promotion.champion import FORM, OVERRIDE, VERDICT, VERDICT_AGAINST, VERDICT_OF, VERDICT_RULES, identity
from capnet.promotion.page import refresh
from capnet.promotion.policy_record import VERDICT_POLICY
from capnet.promotion.versions import same_content, version_or_none

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

COPIED_FROM = "copied_from"
VERDICT_TAGS = (VERDICT, VERDICT_OF, VERDICT_AGAINST, VERDICT_RULES, VERDICT_POLICY, OVERRIDE)  # a copy gets its own


def copy(client: MlflowClient, version: ModelVersion, name: str) -> ModelVersion:
    """Copy a version to another registered model, without verdict and reason, unless its content is there already.

    Returns:
        The lowest version that was there with this content and form; else the new copy.
    """
    equal = same_content(client, name, version.tags.get("content_hash", ""))
    copies = [item for item in equal if item.tags.get(FORM) == version.tags.get(FORM)]
    if copies:
        number = str(copies[0].version)
    else:
        with contextlib.redirect_stderr(io.StringIO()):  # mlflow tells every copy twice
            number = str(client.copy_model_version(f"models:/{version.name}/{version.version}", name).version)
    made = client.get_model_version(name, number)
    if made.source == f"models:/{version.name}/{version.version}":  # and not registered here
        _complete(client, made, identity(version.name, version.version))
    return client.get_model_version(name, number)


def _complete(client: MlflowClient, made: ModelVersion, home: str) -> None:
    """Tag a copy with its origin and remove the tags of the original's verdict.

    The origin comes first: if this process dies in between, nobody takes the copy for a version of its own, which was
    never refused elsewhere.
    """
    name, number = made.name, str(made.version)
    own = made.tags.get(VERDICT_OF) == identity(name, number)
    theirs = [] if own else [key for key in VERDICT_TAGS if key in made.tags]
    if COPIED_FROM in made.tags and not theirs:
        return
    client.set_model_version_tag(name, number, COPIED_FROM, home)
    for key in theirs:
        client.delete_model_version_tag(name, number, key)
    refresh(client, name, number)


def copied_from(client: MlflowClient, version: ModelVersion) -> str:
    """The identity of the version that this one is a copy of, "" where it is none.

    A copy made by the UI's button is known by the tags of another version on it; it gets the tag that ours have, before
    a verdict covers them.
    """
    of = version.tags.get(VERDICT_OF, "")
    if COPIED_FROM not in version.tags and of not in ("", identity(version.name, version.version)):
        client.set_model_version_tag(version.name, version.version, COPIED_FROM, of)
        return of
    return version.tags.get(COPIED_FROM, "")


def refused_at_home(client: MlflowClient, original: str) -> str:
    """What a person must know of a copy that has no champion to be compared with.

    Args:
        client: of the registry.
        original: identity of the version that it is a copy of; "" where it is no copy.

    Returns:
        That the gate refused the original, in words; "" where it did not.
    """
    home = re.fullmatch(r"(.+) version (\d+)", original)
    if home is None:
        return ""
    version = version_or_none(client, home[1], home[2])
    tags = version.tags if version else {}
    if tags.get(VERDICT) != "red" or tags.get(VERDICT_OF) != original:
        return ""
    return "; ".join(
        [f"{original}, which it is a copy of, has a red verdict", *tags.get(VERDICT_RULES, "").splitlines()[:1]]
    )
