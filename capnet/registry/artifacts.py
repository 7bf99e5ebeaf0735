"""What a run and its model hold in the store: figures, report, cards, gate scores, and the model's own files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from capnet.config import Runtime
from capnet.contracts import replace_file, write_json
from capnet.errors import ContractError
from capnet.model.backbones import find_backbone
from capnet.promotion.champion import FORM, PACKED, files_hash
from capnet.promotion.scores import FOLDER, read_gate, write_gate
from capnet.redaction import redact
from capnet.registry.candidate import EVALUATION_FILES, MODEL_FILES, Candidate
from capnet.registry.figures import curves, figures, flat_params, reference
from capnet.registry.run import logged_points
from capnet.tracking.faults import StoreError
from capnet.tracking.provenance import requirements

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def log_figures(client: MlflowClient, run_id: str, model_id: str | None, candidate: Candidate) -> None:
    """All params and metrics in one call, without the points that the run has.

    Args:
        client: of the store.
        run_id: of the run.
        model_id: of the logged model, whose page shows the headline; None for none.
        candidate: what is registered.
    """
    from mlflow.entities import LoggedModelOutput, Metric, Param

    now = int(time.time() * 1000)
    headline = set(candidate.headline)
    points = list(curves(candidate))
    logged = logged_points(client, run_id, {name for name, *_ in points} | headline)
    recorded = client.get_run(run_id).data.metrics  # a run that is registered a second time, packed, has its figures
    # what was logged with the same time is the same point: it is not there twice, and the model gets it, too
    metrics = [
        Metric(name, value, logged.get((name, 0), now), 0, model_id=model_id if name in headline else None)
        for name, value in figures(candidate).items()
        if name in headline or recorded.get(name) != value
    ]
    metrics += [Metric(name, value, now, epoch) for name, value, epoch in points if (name, epoch) not in logged]
    params = [Param(name, redact(value)) for name, value in flat_params(candidate.config).items()]
    client.log_batch(run_id, metrics=metrics, params=params)
    if model_id:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])


def log_artifacts(
    client: MlflowClient, run_id: str, candidate: Candidate, report: Path, cards: Mapping[str, str]
) -> None:
    """Report, evaluation files, both cards, and the scores that later versions are compared with.

    Args:
        client, run_id, candidate: as in ``log_figures``.
        report: of stage evaluate; passed over where it is not there.
        cards: Markdown by file name, from ``card_texts``.

    Raises:
        StoreError: something could not be stored.
    """
    with TemporaryDirectory() as folder, _storing("report, evaluation files, cards and scores for the promotion gate"):
        for path in (report, *(candidate.evaluation / name for name in EVALUATION_FILES)):
            if path.is_file():
                shutil.copyfile(path, Path(folder, path.name))
        for name, text in cards.items():
            replace_file(Path(folder, name), text)
        write_gate(Path(folder, FOLDER), candidate.gate)
        # as one folder: file by file, MLflow leaves a hidden part of a file where this process is killed
        client.log_artifacts(run_id, folder)


def complete_gate(client: MlflowClient, run_id: str, candidate: Candidate) -> None:
    """Write the gate's scores again where a run has none that say whose they are, as from before they did.

    Args:
        client, run_id, candidate: as in ``log_figures``.

    Raises:
        StoreError: they could not be stored.
    """
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException, OSError, ContractError), TemporaryDirectory() as folder:
        if read_gate(Path(client.download_artifacts(run_id, FOLDER, folder))).classes.get("content_hash"):
            return
    with TemporaryDirectory() as folder, _storing("the scores for the promotion gate"):
        write_gate(Path(folder), candidate.gate)
        client.log_artifacts(run_id, folder, FOLDER)


def log_model(
    client: MlflowClient, run_id: str, logged: Any, candidate: Candidate, cards: Mapping[str, str], form: str
) -> str:
    """Models-from-code: the artifact is pyfunc.py and capnet's own files, no pickle.

    Args:
        client, run_id, candidate, cards: as in ``log_artifacts``.
        logged: the logged model that MLflow created for it.
        form: packed puts the backbone's weights in, too; referenced does not.

    Returns:
        The hash of capnet's own files.

    Raises:
        StoreError: it could not be stored.
    """
    import mlflow.pyfunc
    from mlflow.models import Model

    from capnet.serving import pyfunc as serving

    example, signature = serving.input_example(), serving.signature()
    with TemporaryDirectory() as folder:
        target, model = Path(folder, "packed"), Path(folder, "model")  # mlflow keeps the name of the latter
        model.mkdir()
        backbone = find_backbone(str(candidate.config.get("backbone", {}).get("name", "")))
        for name in MODEL_FILES:  # not out-of-fold scores: only what loads
            shutil.copyfile(candidate.model / name, model / name)
        if form == PACKED:
            _pack(model)
        # MLflow names it after the resolved path, and a link of DVC resolves to a hash in its cache
        shutil.copyfile(candidate.evaluation / "thresholds.json", Path(folder, "thresholds.json"))
        write_json(Path(folder, "reference.json"), reference(candidate))
        mlflow.pyfunc.save_model(
            path=str(target),
            python_model=serving.__file__,
            artifacts={  # as addresses: in a plain path MLflow takes %41 for A
                "model": model.as_uri(),
                "thresholds": Path(folder, "thresholds.json").as_uri(),
                "reference": Path(folder, "reference.json").as_uri(),
            },
            signature=signature,
            input_example=example,
            pip_requirements=requirements(() if form == PACKED else backbone.requirements),
            metadata={
                FORM: form,
                "content_hash": candidate.content_hash,
                "classes": candidate.classes.names,
                "tte": dict(candidate.config["tte"]),
            },
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                run_id=run_id,
                model_id=logged.model_id,
                model_uuid=logged.model_id,
            ),
        )
        for name, text in cards.items():
            replace_file(target / name, text)
        with _storing("the model"):
            client.log_model_artifacts(logged.model_id, str(target))
        return files_hash(target / "artifacts")


def _pack(model: Path) -> None:
    """In the process and not on a GPU: class features are encoded in full precision, so that machines agree."""
    from capnet.model.folder import pack
    from capnet.runtime import prepare

    pack(model, prepare(Runtime(device="cpu", precision="fp32")))


@contextmanager
def _storing(what: str) -> Iterator[None]:
    """Which library stores artifacts (and which errors it raises) is the user's choice of store, so every error is
    reported.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError, ContractError):
        raise  # explained where the store is opened, or already
    except Exception as error:
        message = " ".join(str(error).split())[:400]
        todo = (
            "see that the artifact store can be reached from here with your credentials, then run `capnet register`"
            " again"
        )
        raise StoreError(
            f"could not store {what}: {type(error).__name__}: {message}", "the run's artifacts", todo
        ) from error
