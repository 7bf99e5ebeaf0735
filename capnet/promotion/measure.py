"""The gate's verdict on a version in a store: its scores and the champion's, from the artifacts of their runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from capnet.errors import ContractError
from capnet.promotion import history
from capnet.promotion.champion import identity
from capnet.promotion.copies import copied_from, refused_at_home
from capnet.promotion.gate import NO_CHAMPION, gate_verdict
from capnet.promotion.policy import Policy
from capnet.promotion.policy_record import loosened, policy_in_words
from capnet.promotion.scores import FOLDER, GateScores, read_gate
from capnet.promotion.shared_classes import Rescore
from capnet.promotion.verdict import Verdict
from capnet.promotion.versions import deleted_champions, refuse_moved, version_or_none
from capnet.tracking.faults import StoreError
from capnet.tracking.store import may_be_gone

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

MakeRescore = Callable[["ModelVersion"], Rescore | None]


def scores_of(client: MlflowClient, version: ModelVersion) -> GateScores:
    """The gate's scores among the artifacts of the version's run.

    Raises ContractError where they are not there, StoreError where they are and cannot be fetched: a full disk, or a
    store that fails, is no reason to compare with nobody.
    """
    from mlflow.exceptions import MlflowException

    try:
        with TemporaryDirectory() as folder:
            scores = read_gate(Path(client.download_artifacts(str(version.run_id), FOLDER, folder)))
        theirs = scores.classes.get("content_hash")
        if not theirs:
            raise ContractError("they have no content hash, so nothing says whose they are", FOLDER)
        if theirs != version.tags.get("content_hash"):  # two versions of one run that was given from outside
            raise ContractError("they are those of another version of the same run", FOLDER)
        return scores
    except (MlflowException, OSError, ContractError) as error:
        refuse_moved(client, version)
        whose, where = identity(version.name, version.version), f"run {version.run_id}, artifacts {FOLDER}/"
        if not isinstance(error, ContractError) and has_scores(client, version):
            todo = "see that the artifact store answers and that the temporary folder has room, then try again"
            why = " ".join(str(error.__cause__ or error).split())[:200]
            raise StoreError(f"the scores of {whose} for the gate cannot be fetched: {why}", where, todo) from error
        what = f"{whose} has no scores for the gate: {' '.join(str(error).split())[:200]}"
        raise ContractError(what, where, "register that model again with this version of capnet") from error


def has_scores(client: MlflowClient, version: ModelVersion) -> bool:
    """Whether the run of a version has scores for the gate. Only a store that says so counts as no."""
    try:
        with may_be_gone():
            return bool(client.list_artifacts(str(version.run_id), FOLDER))
    except Exception:  # what it raises depends on the kind of the artifact store
        return True
    return False


def verdict_on(
    client: MlflowClient,
    candidate: GateScores,
    champion: ModelVersion | None,
    policy: Policy,
    rescore: Rescore | None = None,
) -> Verdict:
    """The verdict on a candidate against ``champion``, with a rule that fails where ``policy`` asks for less than the
    one that the champion passed. Where the champion's scores are gone, a person must give a reason.
    """
    if champion is None:
        return gate_verdict(candidate, None, policy)
    try:
        theirs = scores_of(client, champion)
    except ContractError as error:
        verdict, why = gate_verdict(candidate, None, policy), f"not comparable: {error.problems[0].what}"
        notes = tuple(note for note in verdict.notes if note != NO_CHAMPION)
        verdict = replace(verdict, notes=notes, asks=(why,), doubtful=True)
    else:
        verdict = gate_verdict(candidate, theirs, policy, rescore, _earlier_tests(client, champion, theirs))
    passed = history.passed_policy(history.events(client, champion.name), str(champion.version))
    return replace(verdict, rules=(*loosened(policy, champion.tags, passed), *verdict.rules))


def _earlier_tests(client: MlflowClient, champion: ModelVersion, theirs: GateScores) -> list[frozenset[str]]:
    """Parts of a champion's test images that champions before it were tested on. Each is at most half of the one
    before, and the first half of all: a fall on it weighs little in the whole.

    Args:
        client: of the registry.
        champion: the version; of champions that were deleted, or have no scores, nothing is known.
        theirs: its scores.

    Returns:
        sha256 of the images of each part, the largest first.
    """
    images, name = set(theirs.test["sha256"]), champion.name
    known = [event for event in history.events(client, name) if event.accepted and event.after]
    rows = {event.after: int(event.rows[:9]) for event in known if event.rows[:9].isdecimal()}
    former = [number for number in dict.fromkeys(event.after for event in known) if number != str(champion.version)]
    earlier = list[frozenset[str]]()
    for number in former:
        if 2 * rows.get(number, 0) <= len(images):  # what is too large is not fetched
            version = version_or_none(client, name, number)
            with suppress(ContractError):
                if version:
                    earlier.append(frozenset(images.intersection(scores_of(client, version).test["sha256"])))
    return halves(earlier, len(images))


def halves(parts: Iterable[frozenset[str]], size: int) -> list[frozenset[str]]:
    """Those parts of ``size`` images of which each is at most half of the one before, the largest first."""
    kept = list[frozenset[str]]()
    for part in sorted(parts, key=len, reverse=True):
        if 0 < 2 * len(part) <= size:
            kept.append(part)
            size = len(part)
    return kept


def measure(
    client: MlflowClient,
    version: ModelVersion,
    rival: ModelVersion | None,
    policy: Policy,
    make_rescore: MakeRescore | None,
) -> Verdict:
    """The gate's verdict on ``version``; without a ``rival`` also what speaks against a first champion."""
    rescore = make_rescore(rival) if make_rescore and rival else None
    verdict = verdict_on(client, scores_of(client, version), rival, policy, rescore)
    name, gone = version.name, deleted_champions(client, version.name, str(version.version), rival)
    asks = (*verdict.asks, *_other_policy(client, version, policy), *filter(None, [gone]))
    if rival is not None:
        return replace(verdict, asks=asks)
    original = copied_from(client, version)
    copied = [f"a copy of {original}, and {name} has no champion to compare it with"] if original else []
    doubt = refused_at_home(client, original)
    notes = (*verdict.notes, doubt) if doubt else verdict.notes
    return replace(verdict, asks=(*asks, *copied), notes=notes, doubtful=verdict.doubtful or bool(doubt))


def _other_policy(client: MlflowClient, version: ModelVersion, policy: Policy) -> list[str]:
    """Why a reason is needed where ``version`` was accepted last and lost its alias, and ``policy`` is not the one that
    it passed then: later versions are compared with the policy of the champion.
    """
    accepted = [event for event in history.events(client, version.name) if event.accepted]
    if not accepted or accepted[-1].after != str(version.version):
        return []
    passed = history.passed_policy(accepted, str(version.version))
    return [] if passed in ("", policy_in_words(policy)) else [f"as champion it passed another policy: {passed}"]
