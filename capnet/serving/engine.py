"""A packed model at work: images -> scores -> a table of decisions. Serving, batch prediction and the gate use the
same code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from capnet.config import Register, Runtime
from capnet.contracts import read_classes, read_document, read_split, sha256_files
from capnet.errors import ContractError, DataError
from capnet.evaluation.calibration import calibrate
from capnet.evaluation.thresholds_file import limits_of, other_views, read_thresholds

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from capnet.evaluation.tte import Scorer

log = logging.getLogger(__name__)

DECISIONS = ("picture", "class", "score", "probability", "threshold", "decision")


@dataclass(frozen=True)
class ScoredPart:
    """Some images: ``faults`` is empty for those that were scored, ``scores`` float32 [image, class] and ``brightest``
    (the largest value of a file of 16 bits, None for others) are theirs.
    """

    names: list[str]
    faults: list[str]
    scores: np.ndarray
    brightest: list[int | None]


@dataclass(frozen=True)
class Served:
    """A loaded model with its thresholds; the class embeddings are computed once, when it is loaded.

    Attributes:
        scorer: the model.
        names: of its classes.
        thresholds: the content of thresholds.json; the numbers alone are ``limits``.
        identity: sha256 of its files, and the precision; models with equal identities make equal decisions.
    """

    scorer: Scorer
    names: list[str]
    thresholds: Mapping[str, Any]
    identity: str

    @property
    def limits(self) -> np.ndarray:
        """The thresholds as float32 [class]: a label is given where score >= limit."""
        return limits_of(self.thresholds)[0]

    def stream(self, names: Iterable[str], root: Path, total: int) -> Iterator[ScoredPart]:
        """Scores of images, in order, some at a time; nothing is kept.

        An evaluation's features are stored; here the store would grow with every request.

        Args:
            names: paths below ``root``.
            root: a folder.
            total: number of images, by which workers are started or not.

        Yields:
            Parts; an image that cannot be used has a fault and no row in their scores.
        """
        from capnet.data.images.stream import fills_threads, one_thread, passes, stream
        from capnet.data.images.transform import Item

        model, scorer = self.scorer.loaded.model, self.scorer
        # the first pass is with the tower's adapters, the last one without where the model needs both
        plain = [partial(model.pooled, adapted=False)] if model.needs_plain_features else []
        fills = fills_threads(total, scorer.transform, scorer.machine, scorer.threads)
        concurrent = model.towers.image.is_convolutional and fills
        for part in stream(
            passes(model.pooled, *plain),
            map(Item, names),
            root,
            scorer.transform,
            scorer.machine,
            scorer.threads,
            total,
            concurrent,
        ):
            scores = np.empty((0, len(self.names)), dtype=np.float32)
            if len(part.features):
                views = part.features.to(scorer.machine.device)  # [image, view, pass, pooled]
                average = scorer.loaded.tte.average
                with one_thread() if concurrent else nullcontext():
                    served, _ = model.ensemble(views[:, :, 0], scorer.class_features, average, views[:, :, -1])
                scores = served.numpy(force=True)
            yield ScoredPart([item.path for item in part.items], part.faults, scores, part.brightest)

    def scores(self, paths: Sequence[Path]) -> np.ndarray:
        """Scores of images.

        Args:
            paths: of the images, absolute or relative to the working directory.

        Returns:
            float32 [image, class] in [0, 1].

        Raises:
            DataError: images cannot be used; names them.
        """
        from capnet.data.images.views import unusable

        names = [str(path.absolute()) for path in paths]  # the root adds nothing
        scores, problems = [np.empty((0, len(self.names)), dtype=np.float32)], []
        for part in self.stream(names, Path("/"), len(names)):
            scores.append(part.scores)
            pairs = zip(part.names, part.faults, strict=True)
            problems += [unusable(Path(name), fault) for name, fault in pairs if fault]
        if problems:
            raise DataError(problems=problems)
        return np.concatenate(scores)

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated, float64 [image, class]."""
        return calibrate(limits_of(self.thresholds)[1], scores)

    def decisions(self, scores: np.ndarray) -> pd.DataFrame:
        """Decide by the thresholds.

        Args:
            scores: float32 [image, class] in [0, 1].

        Returns:
            One row per image and class, classes in their order: columns DECISIONS; picture is the image's number in
            ``scores``, score and probability lie in [0, 1].
        """
        images, n = scores.shape
        return pd.DataFrame(
            {
                "picture": np.repeat(np.arange(images), n),
                "class": np.tile(np.array(self.names, dtype=object), images),
                "score": scores.ravel().astype(np.float64),
                "probability": self.probabilities(scores).ravel(),
                "threshold": np.tile(self.limits.astype(np.float64), images),
                "decision": (scores >= self.limits).ravel(),
            }
        )


def load_served(model: Path, thresholds: Path, runtime: Runtime | None = None) -> Served:
    """Load a model folder and its thresholds.

    Args:
        model: the folder.
        thresholds: thresholds.json.
        runtime: the section ``runtime``.

    Raises:
        ContractError: the thresholds were made for other classes or other test-time views, or the folder is damaged.
    """
    from capnet.evaluation.tte import Scorer

    classes, config = read_classes(model / "classes.json"), read_document(model / "config.json")
    content = read_thresholds(thresholds, classes)
    problems = other_views(content, config, thresholds)
    if problems:
        raise ContractError(problems=problems)
    scorer, chosen = Scorer(model, runtime or Runtime()), config.get("precision")
    if chosen and scorer.machine.precision != chosen:
        log.warning(
            "the model's thresholds were chosen on scores in %s, but it runs in %s here: labels with scores close to a"
            " threshold may differ. To get the same labels, set runtime.precision to %s in training, or to %s here (an"
            " exported graph knows only fp32)",
            *(chosen, scorer.machine.precision, scorer.machine.precision, chosen),
        )
    files = {path.name: path for path in (model / "model.safetensors", model / "config.json", thresholds)}
    return Served(scorer, classes.names, content, f"{sha256_files(files)} {scorer.machine.precision}")


def fetch_version(settings: Register, address: str, folder: Path) -> tuple[Path, str]:
    """Download a registered version.

    Args:
        settings: the section ``register``, which says where the registry is.
        address: models:/NAME@ALIAS, models:/NAME/VERSION or models:/NAME.
        folder: that it is written to.

    Returns:
        The folder of its own files, below ``folder``, and its name for messages.

    Raises:
        ConfigError: ``address`` is no address of a registered model.
        GateError: the gate refuses it.
        ContractError: the store has no files of it, or others.
    """
    from capnet.promotion.champion import identity, resolve
    from capnet.promotion.versions import require_files
    from capnet.tracking.faults import GET
    from capnet.tracking.store import store

    with store(settings, GET, reads=True) as client:
        version = resolve(client, address)
        require_files(client, version)
        artifacts = download(version, folder)
    return artifacts, f"{identity(version.name, version.version)} ({version.tags.get('content_hash', '')[:8]})"


def download(version: ModelVersion, folder: Path) -> Path:
    """The artifact's own files (model/, thresholds.json, reference.json) of a registered version, below ``folder``."""
    from mlflow.artifacts import download_artifacts

    from capnet.promotion.champion import check_files

    location = download_artifacts(f"models:/{version.name}/{version.version}", dst_path=str(folder))
    artifacts = Path(location) / "artifacts"
    check_files(version, artifacts)
    return artifacts


def rescorer(champion: ModelVersion, runtime: Runtime, root: Path, split: Path) -> Callable[[pd.DataFrame], np.ndarray]:
    """A function that scores rows with a registered version that was not tested on them.

    Args:
        champion: the version; downloaded when the function is called.
        runtime: the section ``runtime``.
        root: folder of the images.
        split: folder of split.parquet, which has the images' paths by sha256.

    Returns:
        The function: rows with a ``sha256`` to scores float32 [image, class]. It raises DataError where an image is not
        in the split, or its file has changed.
    """
    from capnet.data.images.decode import Unusable, check_sha256, refuse_passing
    from capnet.data.images.views import unusable

    def rescore(rows: pd.DataFrame) -> np.ndarray:
        table = read_split(split / "split.parquet")
        paths = dict(zip(table["sha256"], table["path"], strict=True))
        missing = [key for key in rows["sha256"] if key not in paths]
        if missing:
            what = f"{len(missing)} test images of the candidate are not in this split, e.g. sha256 {missing[0][:16]}"
            raise DataError(what, str(split), "give the split that the candidate was evaluated on (--split)")
        problems = []
        for key in rows["sha256"]:
            try:
                check_sha256(root / paths[key], key)
            except Unusable as error:
                refuse_passing(error, root / paths[key])
                problems.append(unusable(root / paths[key], str(error)))
        if problems:
            raise DataError(problems=problems)
        with TemporaryDirectory() as folder:
            artifacts = download(champion, Path(folder))
            served = load_served(artifacts / "model", artifacts / "thresholds.json", runtime)
            return served.scores([root / paths[key] for key in rows["sha256"]])

    return rescore
