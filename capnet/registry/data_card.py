"""Data card of a candidate, as Markdown: where its images come from, and what the data check saw in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from capnet.contracts import SPLITS, label_matrix, read_split
from capnet.model.backbones.entry import UNKNOWN
from capnet.registry.candidate import Candidate, buckets_in_words
from capnet.registry.markdown import class_table, code, plain, table


def data_card(candidate: Candidate, data_md5: str, place: str, licence: str) -> str:
    """Source, licence, rows of each split, classes, what the data check reported.

    Args:
        candidate, data_md5, place: as in ``card_texts``.
        licence: of the pictures, a sentence or the text of a file; "" where nothing says it.

    Returns:
        Markdown.
    """
    frame, classes = read_split(candidate.split / "split.parquet"), candidate.classes
    counts, hidden, rows = {}, {}, []
    for split in SPLITS:
        part = frame[frame["split"] == split]
        counts[split], hidden[split] = (
            label_matrix(part[column], len(classes)).sum(axis=0) for column in ("labels", "unknown")
        )
        groups = part["group"].replace("", None).nunique()
        share = hidden[split].sum() / max(1, len(part) * len(classes))
        rows.append(
            [
                split,
                len(part),
                int(counts[split].sum()),
                f"{counts[split].sum() / max(1, len(part)):.2f}",
                f"{100 * share:.1f}",
                groups or "none",
            ]
        )
    train = counts["train"][counts["train"] > 0]
    ratio = f"{train.max() / train.min():.0f} to 1" if len(train) else "none"
    slices = frame["slice"].replace("", None).dropna().value_counts().sort_index()
    parts = [[code(str(name)), count] for name, count in slices.items()]
    unknown = np.sum(list(hidden.values()), axis=0)
    labels = [
        [code(item.name), item.bucket, *(int(counts[split][n]) for split in SPLITS), int(unknown[n])]
        for n, item in enumerate(classes.items)
    ]
    version = "not under DVC: only the sha256 of each picture is known, in the split table"
    if data_md5:
        version = f"{code(data_md5)} (md5 of DVC)"
    lines = [
        "# Data card",
        "",
        (
            f"{len(frame)} pictures, {len(classes)} classes, several on one picture. The common classes have most of"
            f" the labels: the most common to the rarest is {ratio} in training"
            f" ({buckets_in_words(classes)})."
        ),
        "",
        "## Source",
        "",
        f"- Version: {version}.",
        f"- Stored at: {code(place) if place else 'no DVC remote is set'}.",
        *_licence(licence),
        "",
        "## Pictures",
        "",
        *table(["split", "pictures", "labels", "each", "unknown %", "groups"], rows),
        "",
        (
            "Each: labels a picture on average. Unknown labels (findings that nobody checked) count neither for nor"
            " against a class, in training and in all figures. Groups (patients, camera sites) stay in one split"
            " wherever the split was drawn and not given."
        ),
        *(["", *table(["slice", "pictures"], parts)] if parts else []),
        "",
        "## What the data check found",
        "",
        *_findings(candidate.checks),
        "",
        "## Labels of every class",
        "",
        *class_table(["class", "bucket", *SPLITS, "unknown"], labels),
    ]
    return "\n".join(lines) + "\n"


def _licence(text: str) -> list[str]:
    if not text:
        return [
            f"- Licence of the pictures: {UNKNOWN} (`register.data_licence`, or a file ATTRIBUTION or LICENSE beside"
            " them, says it)."
        ]
    if "\n" not in text:
        return [f"- Licence of the pictures: {plain(text)}."]
    return [
        "- Licence of the pictures, as their folder says:",
        "",
        *(f"      {line}".rstrip() for line in text.splitlines()),
    ]


def _findings(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    failed = [check for check in checks if not check.get("success")]
    text = f"{len(checks)} checks, {len(failed)} with findings."
    rows = [
        [
            code(str(check["name"])),
            check.get("severity", ""),
            plain(str(check.get("says", ""))),
            f"{check.get('observed', '?')} of {check.get('rows', '?')}",
        ]
        for check in failed
    ]
    return [text, "", *table(["check", "severity", "finding", "rows"], rows)] if failed else [text]
