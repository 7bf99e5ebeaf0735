"""One MLflow run and one registered version per content: register, or find that the store has it already."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from capnet.config import Register
from capnet.contracts import read_document
from capnet.errors import ContractError
from capnet.progress import Advance, bar
from capnet.promotion.champion import FILES, FORM, PACKED, PROVENANCE, REFERENCED, VERDICT, identity
from capnet.promotion.measure import verdict_on
from capnet.promotion.page import show_verdict, verdict_tags
from capnet.promotion.policy import Policy, read_policy
from capnet.promotion.promote import record_outside_move
from capnet.promotion.versions import has_files, same_content, version_to_beat
from capnet.registry.artifacts import complete_gate, log_artifacts, log_figures, log_model
from capnet.registry.candidate import Candidate, content_hash
from capnet.registry.cards import card_links, card_texts, description
from capnet.registry.run import (
    begun_run,
    died_here,
    dvc_location,
    end_killed,
    fail_pending_models,
    log_data_set,
    process_tag,
    put_tags,
    registering,
    run_tags,
)
from capnet.tracking.database import sqlite_file
from capnet.tracking.live import outside_run
from capnet.tracking.provenance import dvc_experiment, git_revision
from capnet.tracking.store import experiment_id, insist, may_be_gone, store, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)
MODEL_DESCRIPTION = (
    "CapNet: which of the classes are on a picture. Every version is one trained and evaluated model; its page lists"
    " the figures.\n\nLoad one with `mlflow.pyfunc.load_model('models:/{name}@{alias}')`. The alias `{alias}` is the"
    " newest registration; `champion` is set by people.\n"
)


def registered(settings: Register, registration: Path, model: Path, evaluation: Path) -> bool:
    """True when the store holds, under the alias, the version that ``registration`` (and, where present, the two
    folders) describe.
    """
    try:
        record = read_document(registration)
    except ContractError:
        return False
    if (record.get("name"), record.get("alias")) != (settings.name, settings.alias):
        return False
    expected_hash = str(record.get("content_hash"))
    try:
        if model.is_dir() and evaluation.is_dir() and content_hash(model, evaluation) != expected_hash:
            return False
    except FileNotFoundError:
        return False
    database = sqlite_file(tracking_uri(settings))
    if database and not database.is_file():
        return False  # asking would make an empty store
    with store(settings, "look up the registered model") as client:
        version = find_version(client, settings, expected_hash)
        return version is not None and settings.alias in version.aliases and VERDICT in version.tags


def register_version(settings: Register, candidate: Candidate, report: Path, data_md5: str = "") -> ModelVersion:
    """The version of this content, made where the store lacks it; the alias points to it afterwards.

    Raises StoreError, or ContractError where the candidate's files are replaced meanwhile; then no version of this call
    remains, its run is marked FAILED and the alias is where it was.
    """
    policy = read_policy(settings.policy)
    with store(settings, "register the model") as client, bar("register", 5) as advance:
        before = registering(client, settings, candidate.content_hash)
        version = find_version(client, settings, candidate.content_hash)
        if version is not None:
            _complete_twin(client, settings, candidate, version)
            complete_gate(client, str(version.run_id), candidate)
        else:
            version = _new_version(client, settings, candidate, report, data_md5, policy, advance)
        # what was at work before this call, and still seems to be after it, was killed
        still = before & registering(client, settings, candidate.content_hash)
        end_killed(client, still | died_here(client, settings))
        if settings.alias not in version.aliases:
            insist(client.set_registered_model_alias, settings.name, settings.alias, version.version)
        if VERDICT not in version.tags:
            _inform(client, settings, version, candidate, policy)
        return client.get_model_version(settings.name, version.version)


def _inform(
    client: MlflowClient, settings: Register, version: ModelVersion, candidate: Candidate, policy: Policy
) -> None:
    """Tag the version with its verdict against today's champion, and warn of a red one: at registration it informs,
    `capnet promote` asks again.
    """
    # the history must know today's champion: readers ask whom a verdict was against
    record_outside_move(client, settings.name)
    rival = version_to_beat(client, settings.name, str(version.version))
    verdict = verdict_on(client, candidate.gate, rival, policy)
    show_verdict(client, version, verdict_tags(version, rival, verdict, policy))
    if verdict.colour == "red":
        which, rules = identity(version.name, version.version), "; ".join(map(str, verdict.broken))
        against = f" against version {rival.version}" if rival else ""
        log.warning("%s is red%s, so `capnet promote` refuses it: %s", which, against, rules)


def find_version(client: MlflowClient, settings: Register, expected_hash: str) -> ModelVersion | None:
    """The lowest ready version with this content hash whose files and run are still there.

    Where settings pack the backbone, only one that has it: the same model, but not an artifact that loads everywhere.
    """
    versions = same_content(client, settings.name, expected_hash)
    if settings.pack_backbone:
        versions = [item for item in versions if item.tags.get(FORM) == PACKED]
    for item in versions:
        with may_be_gone():  # another registration takes its duplicate back, or a person tidies up
            if has_files(client, item):
                client.get_run(str(item.run_id))  # gone after `mlflow gc`, and with it the scores for the gate
                return client.get_model_version(settings.name, item.version)
    return None


# ---------------------------------------------------------------- one new version


def _new_version(
    client: MlflowClient,
    settings: Register,
    candidate: Candidate,
    report: Path,
    data_md5: str,
    policy: Policy,
    advance: Advance,
) -> ModelVersion:
    experiment, label = experiment_id(client, settings), f"{settings.name}-{candidate.content_hash[:8]}"
    advance(note="run")
    sources = {
        "class_fingerprint": candidate.classes.fingerprint,
        "weight_hash": str(candidate.config.get("weight_hash", "")),
        "data_md5": data_md5,
        "git_revision": git_revision(),
    }
    sources = {key: value for key, value in sources.items() if value}
    form = PACKED if settings.pack_backbone else REFERENCED
    tags = {"content_hash": candidate.content_hash, FORM: form, PROVENANCE: json.dumps(sources)}
    text = description(candidate)
    location = dvc_location(Path(".dvc/config"), data_md5)
    cards = card_texts(candidate, form, data_md5, location, settings.data_licence, policy)
    notes = {"content_hash": candidate.content_hash, FORM: form, **sources, **run_tags(candidate), **dvc_experiment()}
    notes |= process_tag() | {"mlflow.note.content": text, "mlflow.source.name": "capnet register"}
    with _run(client, settings, experiment, candidate, label, notes) as run_id:
        experiment = client.get_run(run_id).info.experiment_id  # another one where the run was given from outside
        logged = client.create_logged_model(
            experiment, name=label, source_run_id=run_id, tags=tags, model_type="capnet"
        )
        try:
            log_figures(client, run_id, logged.model_id, candidate)
            log_data_set(client, run_id, candidate, data_md5, location)
            with _unchanged(candidate):
                advance(note="artifacts")
                log_artifacts(client, run_id, candidate, report, cards)
                advance(note="model")
                sources[FILES] = log_model(client, run_id, logged, candidate, cards, form)
        except BaseException:
            with suppress(Exception):
                client.finalize_logged_model(logged.model_id, "FAILED")
            raise
        client.finalize_logged_model(logged.model_id, "READY")
        if not outside_run():
            # MLflow's client asks again where a server died before it answered: one model more was begun
            fail_pending_models(client, run_id)
            # before the version: what comes after it could fail and leave it behind
            client.set_terminated(run_id, "FINISHED")
        advance(note="version")
        text += card_links(experiment, run_id)
        tags[PROVENANCE] = json.dumps(sources)
        tags |= {name: f"{value:.4f}" for name, value in candidate.headline.items() if name in ("mAP", "tail")}
        created = _create_version(client, settings, run_id, logged.model_id, text, tags)
        advance()
    return _lowest(client, settings, created, candidate.content_hash)


@contextmanager
def _unchanged(candidate: Candidate) -> Iterator[None]:
    """Raise ContractError where the files that the body copies are not, or no longer, those of ``candidate``."""
    what = "the model or its evaluation was replaced while it was registered"
    todo = "let the stage that writes it end, then run `capnet register` again"
    replaced = ContractError(what, f"{candidate.model}, {candidate.evaluation}", todo)
    try:
        yield
    except (FileNotFoundError, ContractError) as error:
        if _is_there(candidate):
            raise
        raise replaced from error
    if not _is_there(candidate):
        raise replaced


def _is_there(candidate: Candidate) -> bool:
    try:
        return content_hash(candidate.model, candidate.evaluation) == candidate.content_hash
    except FileNotFoundError:
        return False


def _lowest(client: MlflowClient, settings: Register, created: ModelVersion, expected_hash: str) -> ModelVersion:
    """The version that stays when two registrations of the same content ran at once: the lower one. The other one is
    deleted.
    """
    first = find_version(client, settings, expected_hash)
    if first is None or int(first.version) >= int(created.version):
        return client.get_model_version(settings.name, created.version)
    insist(client.set_registered_model_alias, settings.name, settings.alias, first.version)
    client.delete_model_version(settings.name, created.version)
    if created.run_id != first.run_id:
        client.set_tag(str(created.run_id), "duplicate_of", f"version {first.version}")
    return client.get_model_version(settings.name, first.version)


@contextmanager
def _run(
    client: MlflowClient, settings: Register, experiment: str, candidate: Candidate, name: str, tags: dict[str, str]
) -> Iterator[str]:
    """The run that training began, else a new one; it is marked FAILED (KILLED on Ctrl-C) if the body raises. One from
    outside is left to whoever opened it.
    """
    run_id = begun_run(client, settings, candidate)
    if not run_id:
        run_id = client.create_run(experiment, run_name=name, tags=tags).info.run_id
    else:
        if not outside_run():
            client.update_run(run_id, "RUNNING", name)
        put_tags(client, run_id, tags)
    try:
        yield run_id
    except BaseException as error:
        with suppress(Exception):  # the first error is the one to tell
            if not outside_run():
                client.set_terminated(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
                fail_pending_models(client, run_id)  # Ctrl-C while one was made or finished
        raise


def _complete_twin(client: MlflowClient, settings: Register, candidate: Candidate, version: ModelVersion) -> None:
    """A run that trained what is registered already gets its figures, its end and the number of that version."""
    run_id = begun_run(client, settings, candidate)
    if not run_id or run_id == version.run_id or "content_hash" in client.get_run(run_id).data.tags:
        return
    log_figures(client, run_id, None, candidate)
    same = f"{version.name} version {version.version}"
    put_tags(client, run_id, run_tags(candidate) | {"content_hash": candidate.content_hash, "same_as": same})
    if not outside_run():
        client.set_terminated(run_id, "FINISHED")


def _create_version(
    client: MlflowClient, settings: Register, run_id: str, model_id: str, text: str, tags: dict[str, str]
) -> ModelVersion:
    """Create version and alias; on an error neither remains, nor a registered model that was made only for it."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(
            settings.name, description=MODEL_DESCRIPTION.format(name=settings.name, alias=settings.alias)
        )
        fresh = True
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
            raise
        fresh = False
    created = None
    try:
        created = client.create_model_version(
            settings.name, f"models:/{model_id}", run_id=run_id, tags=tags, description=text, model_id=model_id
        )
        insist(client.set_registered_model_alias, settings.name, settings.alias, created.version)
        return created
    except BaseException:
        with suppress(Exception):
            if created is not None:
                client.delete_model_version(settings.name, created.version)
            # nobody else registered there meanwhile
            if fresh and not client.search_model_versions(f"name = '{settings.name}'"):
                client.delete_registered_model(settings.name)
        raise
