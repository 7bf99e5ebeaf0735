"""The most wrong images of each bucket as small thumbnails; only when the settings ask for it, since images must
not travel unasked.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from scipy.special import logit

from capnet.contracts import BUCKETS
from capnet.evaluation.report.charts import LONG_NAME
from capnet.evaluation.report.words import score, shorten
from capnet.evaluation.split_rows import SplitRows

SIDE = 160  # pixels
QUALITY = 70
BUDGET = 500_000  # characters of all thumbnails together, so that the report stays under 2 MB
PER_CLASS = 2  # images about the same class, so that one bad class does not fill the bucket
LABELS = 8  # names shown for an image
LONG_PATH = 80  # characters; of a longer one the end is shown, where the file's name is
SMALLEST = 1e-6  # scores are kept this far from 0 and 1 before their logit is taken


def wrongness(labels: np.ndarray, known: np.ndarray, scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How far each decision lies on the wrong side of its threshold, in logits.

    Args:
        labels, known: bool [image, class].
        scores: [image, class] in [0, 1].
        thresholds: [class]; a label is predicted from its threshold on.

    Returns:
        float64 [image, class]; negative where the decision is right, -inf where the label is not known.
    """
    clipped, cut = (
        np.clip(np.asarray(part, dtype=np.float64), SMALLEST, 1 - SMALLEST) for part in (scores, thresholds)
    )
    above = logit(clipped) - logit(cut)
    return np.where(known, np.where(labels, -above, above), -np.inf)


def worst_images(
    test: SplitRows,
    scores: np.ndarray,
    thresholds: np.ndarray,
    names: Sequence[str],
    buckets: np.ndarray,
    count: int,
    root: Path,
) -> list[dict[str, Any]]:
    """For each bucket the images with the most wrong single decision about one of its classes, few a class.

    Args:
        test: rows with ``image_id`` and ``path``, and their labels.
        scores: float32 [image, class].
        thresholds: [class].
        names: of the classes.
        buckets: head, medium or tail, str [class].
        count: images of a bucket, at most.
        root: folder of the images.

    Returns:
        ``bucket`` and ``pictures`` for the template; an image has ``source``, a data URI ("" where it cannot be
        read, or BUDGET is spent), its ``path`` and the ``parts`` of it that are shown, the decision that is wrong, and
        ``true`` and ``extra`` labels.
    """
    wrong = wrongness(test.labels, test.known, scores, thresholds)
    predicted = (scores >= thresholds.astype(scores.dtype)) & test.known
    shown, spent = [], 0
    for bucket in BUCKETS:
        columns = np.flatnonzero(buckets == bucket)
        if not len(columns) or not len(scores):
            continue
        worst = wrong[:, columns].max(axis=1)
        pictures: list[dict[str, Any]] = []
        shown_of = dict.fromkeys(columns.tolist(), 0)
        for row in np.argsort(-worst, kind="stable"):
            if not worst[row] > 0 or len(pictures) == count:
                break
            column = int(columns[np.argmax(wrong[row, columns])])
            shown_of[column] += 1
            if shown_of[column] > PER_CLASS:
                continue
            kind = "missed" if test.labels[row, column] else "false alarm"
            path = str(test.rows["path"].iloc[row])
            source = thumbnail(root / path) if spent < BUDGET else ""
            spent += len(source)
            pictures.append(
                {
                    "id": str(test.rows["image_id"].iloc[row]),
                    "source": source,
                    "path": path,
                    "parts": (path if len(path) <= LONG_PATH else f"…{path[1 - LONG_PATH :]}").split("/"),
                    "kind": kind,
                    "name": shorten(names[column], LONG_NAME),
                    "score": score(float(scores[row, column])),
                    "threshold": score(float(thresholds[column])),
                    "true": _named(test.labels[row] & test.known[row], scores[row], predicted[row], names),
                    "extra": _named(
                        predicted[row] & ~test.labels[row] & (np.arange(len(names)) != column),
                        scores[row],
                        predicted[row],
                        names,
                    ),
                }
            )
        shown.append({"bucket": bucket, "pictures": pictures})
    return shown


def _named(chosen: np.ndarray, scores: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """The chosen classes [class] of one image, highest score first, and how many more there are."""
    order = [column for column in np.argsort(-scores, kind="stable").tolist() if chosen[column]]
    labels = [
        {"name": shorten(names[column], LONG_NAME), "found": bool(predicted[column])} for column in order[:LABELS]
    ]
    return {"labels": labels, "more": max(0, len(order) - LABELS)}


def link_to(path: Path, folder: Path) -> str:
    """A relative address of a file, for a page in ``folder``: it opens where both stay where they are."""
    return quote(os.fsencode(os.path.relpath(path.resolve(), folder.resolve())))


def thumbnail(path: Path, pixels: int = SIDE) -> str:
    """A data URI of at most ``pixels`` x ``pixels`` without any metadata of the file; empty where the image cannot be
    read.
    """
    from PIL import Image

    from capnet.data.images.decode import Unusable, read_rgb

    try:
        image = read_rgb(path)
    except Unusable:
        return ""
    image.thumbnail((pixels, pixels))
    small = Image.new("RGB", image.size)  # pixels only: nothing of the file's EXIF, XMP or colour profile comes along
    small.paste(image)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
