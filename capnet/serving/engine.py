"""A packed model at work: images -> scores -> a table of decisions. Serving, batch prediction and the gate use the
same code.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from capnet.config import Runtime
from capnet.contracts import read_classes, read_document, sha256_files
from capnet.errors import ContractError, DataError
from capnet.evaluation.calibration import calibrate
from capnet.evaluation.thresholds_file import other_views, read_thresholds, thresholds_and_calibration

if TYPE_CHECKING:
    from capnet.evaluation.tte import Scorer

log = logging.getLogger(__name__)

DECISIONS = ("picture", "class", "score", "probability", "threshold", "decision")


@dataclass(frozen=True)
class ScoredBatch:
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
        thresholds: the content of thresholds.json; the numbers alone are ``class_thresholds``.
        identity: sha256 of its files, and the precision; models with equal identities make equal decisions.
    """

    scorer: Scorer
    names: list[str]
    thresholds: Mapping[str, Any]
    identity: str

    @property
    def class_thresholds(self) -> np.ndarray:
        """The thresholds as float32 [class]: a label is given where score >= threshold."""
        return thresholds_and_calibration(self.thresholds)[0]

    def stream(self, names: Iterable[str], root: Path, total: int) -> Iterator[ScoredBatch]:
        """Scores of images, in order, some at a time; nothing is kept.

        An evaluation's features are stored; here the store would grow with every request.

        Args:
            names: paths below ``root``.
            root: a folder.
            total: number of images, with those that an interrupted call has scored: workers are started, and fp32 is
                rounded, by it.

        Yields:
            Batches; an image that cannot be used has a fault and no row in their scores.
        """
        from capnet.data.images.stream import fills_threads, one_thread, passes, stream
        from capnet.data.images.transform import Item

        model, scorer = self.scorer.loaded.model, self.scorer
        # the first pass is with the tower's adapters, the last one without where the model needs both
        plain = [partial(model.pooled, adapted=False)] if model.needs_plain_features else []
        fills = fills_threads(total, scorer.transform, scorer.machine, scorer.threads)
        concurrent = model.towers.image.is_convolutional and fills
        for batch in stream(
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
            if len(batch.features):
                views = batch.features.to(scorer.machine.device)  # [image, view, pass, pooled]
                average = scorer.loaded.tte.average
                with one_thread() if concurrent else nullcontext():
                    served, _ = model.ensemble(views[:, :, 0], scorer.class_features, average, views[:, :, -1])
                scores = served.numpy(force=True)
            yield ScoredBatch([item.path for item in batch.items], batch.faults, scores, batch.brightest)

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
        for batch in self.stream(names, Path("/"), len(names)):
            scores.append(batch.scores)
            pairs = zip(batch.names, batch.faults, strict=True)
            problems += [unusable(Path(name), fault) for name, fault in pairs if fault]
        if problems:
            raise DataError(problems=problems)
        return np.concatenate(scores)

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated, float64 [image, class]."""
        return calibrate(thresholds_and_calibration(self.thresholds)[1], scores)

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
                "threshold": np.tile(self.class_thresholds.astype(np.float64), images),
                "decision": (scores >= self.class_thresholds).ravel(),
            }
        )


def load_served(model: Path, thresholds: Path, runtime: Runtime | None = None) -> Served:
    """Load a model folder and its thresholds.

    Args:
        model: the folder.
        thresholds: thresholds.json.
        runtime: the section ``runtime``.

    Raises:
        ContractError: the thresholds were made for other classes or other test-time views, the folder is damaged, or a
            file was replaced meanwhile.
    """
    from capnet.evaluation.tte import Scorer

    before = _files_hash(model, thresholds)
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
    if _files_hash(model, thresholds) != before:
        what = "the model or its thresholds were replaced while they were loaded"
        raise ContractError(what, str(model), "run the same command again")
    return Served(scorer, classes.names, content, f"{before} {scorer.machine.precision}")


def _files_hash(model: Path, thresholds: Path) -> str:
    files = {path.name: path for path in (model / "model.safetensors", model / "config.json", thresholds)}
    return sha256_files({name: path for name, path in files.items() if path.is_file()})
