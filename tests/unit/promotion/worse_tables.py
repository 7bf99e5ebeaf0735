"""A model that is worse all over than a champion, and what it may bring to the gate instead of its own tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from capnet.promotion.scores import GateScores

BAD = "b" * 64  # its content hash
Rows = pd.DataFrame


def worse(champion: GateScores, **columns: Any) -> GateScores:
    """The champion's rows with scores that are mostly noise; ``columns`` are its tables' instead."""
    scores = np.stack(champion.test["scores"].tolist())
    noise = np.random.default_rng(0).random(scores.shape)
    return replace(
        champion, test=champion.test.assign(scores=list((0.2 * scores + noise).astype(np.float32)), **columns)
    )


def hits(bad: GateScores) -> np.ndarray:
    """bool [picture]: those on which the worse model ranks its labels above the rest."""
    rows = zip(bad.test["scores"], bad.test["labels"], strict=True)
    return np.array([len(labels) > 0 and min(scores[labels]) > 0.6 for scores, labels in rows])


def kept(bad: GateScores, chosen: np.ndarray | list[int]) -> GateScores:
    return replace(bad, test=bad.test.iloc[np.asarray(chosen)].reset_index(drop=True))


def classes(bad: GateScores, **changes: Any) -> GateScores:
    return replace(bad, classes={**bad.classes, "classes": [item | changes for item in bad.classes["classes"]]})


def seen(bad: GateScores, rows: Rows) -> GateScores:
    return replace(bad, seen=pd.concat([bad.seen, rows[["sha256", "group"]]], ignore_index=True))


def column(bad: GateScores, **changes: Any) -> GateScores:
    return replace(bad, test=bad.test.assign(**changes))


def flattering(bad: GateScores) -> list[np.ndarray]:
    return [np.flatnonzero(scores > 0.6) for scores in bad.test["scores"]]


def grown(bad: GateScores) -> GateScores:
    new = bad.test.assign(
        sha256=[f"{n:064}" for n in range(len(bad.test))],
        scores=[np.eye(4)[labels].sum(0) for labels in bad.test["labels"]],
    )
    return replace(bad, test=pd.concat([bad.test, new.assign(scores=list(np.stack(new["scores"]).astype(np.float32)))]))


def with_nan(bad: GateScores) -> GateScores:
    fine = hits(bad)
    nothing = np.full(4, np.nan, dtype=np.float32)
    return column(bad, scores=[scores if ok else nothing for scores, ok in zip(bad.test["scores"], fine, strict=True)])


ROWS: dict[str, tuple[str, Callable[[GateScores], GateScores]]] = {
    "as it is": ("red", lambda bad: bad),
    "only pictures that it does well on": ("reason", lambda bad: kept(bad, np.flatnonzero(hits(bad)))),
    "all but the worst tenth": ("red", lambda bad: kept(bad, np.argsort(~hits(bad), kind="stable")[:360])),
    "one picture": ("reason", lambda bad: kept(bad, [7])),
    "no picture": ("reason", lambda bad: kept(bad, [])),
    "one picture, five hundred times": ("reason", lambda bad: kept(bad, [7] * 500)),
    "without the positives of the tail": (
        "red",
        lambda bad: kept(bad, np.flatnonzero([not {2, 3} & set(labels) for labels in bad.test["labels"]])),
    ),
    "labels that flatter": ("reason", lambda bad: column(bad, labels=flattering(bad))),
    "no labels": ("reason", lambda bad: column(bad, labels=[np.array([], dtype=int)] * len(bad.test))),
    "labels that it misses are unknown": (
        "red",
        lambda bad: column(
            bad, unknown=[np.setdiff1d(y, f) for y, f in zip(bad.test["labels"], flattering(bad), strict=True)]
        ),
    ),
    "new pictures that are easy": ("red", grown),
    "another test set": ("reason", lambda bad: column(bad, sha256=[f"{n:064}" for n in range(len(bad.test))])),
    "hashes in capitals": ("reason", lambda bad: column(bad, sha256=bad.test["sha256"].str.upper())),
    "hashes that are missing": ("scores", lambda bad: column(bad, sha256=None)),
    "other names of classes": (
        "reason",
        lambda bad: replace(
            bad,
            classes={**bad.classes, "classes": [i | {"name": f"new {i['name']}"} for i in bad.classes["classes"]]},
        ),
    ),
    "classes in another order": (
        "reason",
        lambda bad: replace(bad, classes={**bad.classes, "classes": bad.classes["classes"][::-1]}),
    ),
    "no tail": ("red", lambda bad: classes(bad, bucket="head")),
    "everything is tail": ("red", lambda bad: classes(bad, bucket="tail")),
    "nothing is critical": ("red", lambda bad: classes(bad, critical=False)),
    "every picture a group of its own": (
        "red",
        lambda bad: column(bad, group=[f"own {n}" for n in range(len(bad.test))]),
    ),
    "all pictures one group": ("reason", lambda bad: column(bad, group="all")),
    "all pictures that it does badly on are one group": (
        "reason",
        lambda bad: column(bad, group=np.where(hits(bad), "", "bad").tolist()),
    ),
    "all pictures that it does badly on are a few groups": (
        "red",
        lambda bad: column(bad, group=[("" if good else f"bad {n % 3}") for n, good in enumerate(hits(bad))]),
    ),
    "bad pictures in a group of the champion's training": (
        "reason",
        lambda bad: seen(
            column(bad, group=np.where(hits(bad), "", "trained").tolist()),
            pd.DataFrame({"sha256": bad.seen["sha256"][:1], "group": ["trained"]}),
        ),
    ),
    "bad pictures were trained on": ("reason", lambda bad: seen(bad, bad.test[~hits(bad)])),
    "scores that are no numbers": ("scores", with_nan),
    "scores of too few classes": ("scores", lambda bad: column(bad, scores=[row[:2] for row in bad.test["scores"]])),
    "labels beyond the last class": ("scores", lambda bad: column(bad, labels=[np.array([9])] * len(bad.test))),
    "labels before the first class": ("scores", lambda bad: column(bad, labels=[np.array([-1])] * len(bad.test))),
    "no content hash": (
        "scores",
        lambda bad: replace(bad, classes={k: v for k, v in bad.classes.items() if k != "content_hash"}),
    ),
    "content hash of the champion": ("scores", lambda bad: bad),
    "content hash of nobody": ("scores", lambda bad: replace(bad, classes={**bad.classes, "content_hash": "c" * 64})),
    "content hash in capitals": (
        "scores",
        lambda bad: replace(bad, classes={**bad.classes, "content_hash": BAD.upper()}),
    ),
    "schema of another time": ("scores", lambda bad: replace(bad, classes={**bad.classes, "schema": 99})),
    "no classes": ("scores", lambda bad: replace(bad, classes={**bad.classes, "classes": []})),
}
