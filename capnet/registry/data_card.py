"""Data card of a candidate, as Markdown: where its images come from, and what the data check saw in them. The page is
data_card.md; the licence of the backbone's weights is in its entry in capnet/model/backbones.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np

from capnet.contracts import BUCKETS, SPLITS, Classes, label_matrix, read_split
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.plain_files import open_plain
from capnet.errors import shown
from capnet.model.backbones.entry import UNKNOWN
from capnet.registry.candidate import Candidate
from capnet.registry.markdown import class_table, code, plain, render, table

LICENCES = re.compile(r"(ATTRIBUTION|LICEN[CS]E|COPYING)(\.(md|txt|rst))?", re.IGNORECASE)
LONGEST = 4000  # characters of a licence file that a card quotes


def data_card(candidate: Candidate, data_md5: str, location: str, licence: str) -> str:
    """Source, licence, rows of each split, classes, what the data check reported.

    Args:
        candidate, data_md5, location: as in ``card_texts``.
        licence: of the images, a sentence or the text of a file; "" where nothing says it.

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
        each = counts[split].sum() / max(1, len(part))
        rows.append([split, len(part), counts[split].sum(), f"{each:.2f}", f"{100 * share:.1f}", groups or "none"])
    train = counts["train"][counts["train"] > 0]
    slices = frame["slice"].replace("", None).dropna().value_counts().sort_index()
    unknown = np.sum(list(hidden.values()), axis=0)
    labels = [
        [code(item.name), item.bucket, *(counts[split][n] for split in SPLITS), unknown[n]]
        for n, item in enumerate(classes.items)
    ]
    skipped = [check for check in candidate.checks if check.get("why")]
    failed = [check for check in candidate.checks if not check.get("success")]
    findings = [
        [
            code(check["name"]),
            check.get("severity", ""),
            plain(str(check.get("says", ""))),
            f"{check.get('observed', '?')} of {check.get('rows', '?')}",
        ]
        for check in failed
    ]
    return render(
        "data_card.md",
        pictures=len(frame),
        classes=len(classes),
        ratio=f"{train.max() / train.min():,.1f}".removesuffix(".0") + " to 1" if len(train) else "",
        buckets=buckets_in_words(classes),
        data_md5=data_md5,
        location=location,
        licence=licence,
        unknown=UNKNOWN,
        splits=table(["split", "pictures", "labels", "each", "unknown %", "groups"], rows),
        slices=table(["slice", "pictures"], [[code(name), n] for name, n in slices.items()]) if len(slices) else [],
        checks=len(candidate.checks) - len(skipped),
        skipped=[code(check["name"]) for check in skipped],
        failed=failed,
        findings=table(["check", "severity", "finding", "how many"], findings),
        labels=class_table(["class", "bucket", *SPLITS, "unknown"], labels),
    )


def buckets_in_words(classes: Classes) -> str:
    """``3 head, 2 tail``: how many classes each bucket has; empty ones are left out."""
    counts = Counter(classes.buckets)
    return ", ".join(f"{counts[bucket]} {bucket}" for bucket in BUCKETS if counts[bucket])


def data_licence(stated: str, root: Path) -> str:
    """The licence of the images.

    Args:
        stated: ``register.data_licence``.
        root: the data folder.

    Returns:
        ``stated``, else the text of ATTRIBUTION, LICENSE or COPYING in ``root``; "" without any of them. A link out of
        ``root`` is none.
    """
    if stated.strip():
        return stated.strip()
    folder, texts = DataFolder(root), []
    try:
        for name in folder.names() or ():
            # the card is published: nothing that a link takes from elsewhere, and of a huge file its beginning
            if LICENCES.fullmatch(name) and not folder.leads_out(name) and (root / name).is_file():
                with open_plain(root / name) as file:
                    texts.append(file.read(4 * LONGEST).decode("utf-8", "replace").strip())
    except OSError:
        return ""
    text = "\n\n".join("\n".join(text.splitlines()).expandtabs(4) for text in texts if text)
    return shown(text[:LONGEST]) + (" ..." if len(text) > LONGEST else "")
