"""Model card and data card of a candidate, as Markdown: what it is for, what it can and where it is weak, and what it
learned from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capnet.contracts import BUCKETS, SPLITS, VARIANTS, read_split
from capnet.evaluation.headline import HEADLINE
from capnet.evaluation.report.words import blend_in_words
from capnet.model.backbones import find_backbone
from capnet.model.backbones.entry import UNKNOWN
from capnet.promotion.champion import PACKED
from capnet.registry.candidate import (
    TITLES,
    Candidate,
    code,
    flat_params,
    percent,
    source_of_thresholds,
    views_in_words,
)
from capnet.registry.licences import data_licence

MODEL_CARD, DATA_CARD = "model_card.md", "data_card.md"
FEW = 10  # test positives below which an average precision says little; the evaluation gives no interval then
LONGEST_TABLE = 300  # classes


def card_texts(candidate: Candidate, form: str, data_md5: str, place: str, stated_licence: str) -> dict[str, str]:
    """Both cards by file name. ``place``: where the pictures are stored, "" if only here; ``form``: packed or
    referenced.
    """
    licence = data_licence(stated_licence, Path("data"))
    return {
        MODEL_CARD: model_card(candidate, form),
        DATA_CARD: data_card(candidate, data_md5, place, licence),
    }


def card_links(experiment: str, run_id: str) -> str:
    """A line of Markdown for the version's page: links to both cards among the run's artifacts, within MLflow's
    pages.
    """
    place = f"#/experiments/{experiment}/runs/{run_id}/artifacts"
    return (
        f"\n[Model card]({place}/{MODEL_CARD}) and [data card]({place}/{DATA_CARD}): use and limits, weak classes,"
        " every class, pictures, licences.\n"
    )


# ---------------------------------------------------------------- model


def model_card(candidate: Candidate, form: str) -> str:
    """Use, limits, figures with intervals, weak classes, thresholds, every class, settings."""
    config, metrics, thresholds = candidate.config, candidate.metrics, candidate.thresholds
    classes = candidate.classes
    shown = [name for name in HEADLINE if name in metrics["capnet"]]
    weak = weak_classes(candidate)
    lines = [
        "# Model card",
        "",
        (
            f"Says which of {len(classes)} classes are on a picture. mAP {percent(metrics['capnet'], 'mAP')} % on"
            f" {metrics.get('test_rows', '?')} test pictures."
        ),
        "",
        "## Use",
        "",
        (
            f"Meant for: labelling whole pictures like those it was trained on with any number of {len(classes)}"
            " classes, and finding pictures of them."
        ),
        "",
        "Limits:",
        "",
        "- It names no class outside its list, and neither counts things nor says where they are.",
        (
            "- Scores rank pictures of one class. They are no probabilities: the answer has a calibrated probability"
            " beside each score."
        ),
        (
            "- Pictures from elsewhere (other cameras, seasons, styles) can be worse than these figures. `capnet"
            " predict` reports drift."
        ),
        "- No decision about a person should follow from it without someone who looks at the picture.",
    ]
    if weak:
        lines.append(f"- {len(weak)} of {len(classes)} classes have a known weakness; they are listed below.")
    lines += [
        "",
        "## How good it is",
        "",
        "In %, with the 95 % interval of a bootstrap over the test pictures. Buckets are by training count.",
        "",
        *table(
            ["", *shown],
            [[TITLES[name], *(percent(metrics[name], key) for key in shown)] for name in VARIANTS if name in metrics],
        ),
        *_slices(candidate, shown),
        *blend_in_words(config.get("blend", {})),
        "",
        "## Known weak classes",
        "",
    ]
    lines += (
        table(
            ["class", "AP %", "why"],
            [[code(name), _share(ap), "; ".join(why)] for name, ap, why in weak[:LONGEST_TABLE]],
        )
        if weak
        else ["None found."]
    )
    chosen = thresholds["classes"]
    lines += [
        "",
        "## Thresholds",
        "",
        (
            f"Objective {code(str(thresholds.get('objective', '?')))}, chosen on {source_of_thresholds(thresholds)}."
            f" They hold only for {views_in_words(config['tte'])}; loading refuses other views."
            f" {sum(bool(item.get('borrowed')) for item in chosen)} of {len(chosen)} classes borrow the pooled"
            " threshold."
        ),
        "",
        "## Every class",
        "",
        "Train and test: pictures that have it.",
        "",
        *_every_class(candidate),
        "",
        "## What it is made of",
        "",
        *_made_of(candidate, form),
        "",
        "## Training settings",
        "",
        *table(
            ["setting", "value"],
            [
                [code(name), code(value)]
                for name, value in sorted(flat_params(config).items())
                if name.startswith(("train.", "tte."))
            ],
        ),
    ]
    return "\n".join(lines) + "\n"


def weak_classes(candidate: Candidate) -> list[tuple[str, float | None, list[str]]]:
    """(class, average precision, reasons), the lowest first: not measured, below half of the mean, few test pictures,
    borrowed threshold.
    """
    borrowed = {item["name"] for item in candidate.thresholds["classes"] if item.get("borrowed")}
    unreached = {item["name"] for item in candidate.thresholds["classes"] if item.get("reached") is False}
    left_out, mean = set(candidate.metrics.get("left_out", ())), float(candidate.metrics["capnet"]["mAP"])
    found = []
    for row in candidate.per_class:
        name, ap, positives, reasons = row["class"], _number(row.get("ap")), _number(row.get("positives")), []
        if ap is None or name in left_out:
            reasons.append("not measured: no positive test picture")
        elif ap < mean / 2:
            reasons.append(f"below half of the mean of {_share(mean)} %")
        if ap is not None and positives is not None and positives < FEW:
            reasons.append(
                f"{positives:.0f} positive test picture{'s' if positives > 1 else ''}: the figure is uncertain"
            )
        if name in borrowed:
            reasons.append("too few positives for a threshold of its own")
        elif name in unreached:
            reasons.append("no threshold reaches the objective")
        if reasons:
            found.append((name, ap, reasons))
    return sorted(found, key=lambda item: (item[1] is not None, item[1] or 0.0))


def _slices(candidate: Candidate, shown: Sequence[str]) -> list[str]:
    slices = candidate.metrics.get("slices", {})
    if not slices:
        return []
    rows = [
        [code(name), *(percent(values["capnet"], key) for key in shown)]
        for name, values in slices.items()
        if "capnet" in values
    ]
    return ["", "On parts of the test pictures:", "", *table(["slice", *shown], rows)]


def _every_class(candidate: Candidate) -> list[str]:
    limits = {item["name"]: item["threshold"] for item in candidate.thresholds["classes"]}
    critical = {item.name for item in candidate.classes.items if item.critical}
    rows = [
        [
            code(row["class"]) + (" (critical)" if row["class"] in critical else ""),
            row.get("bucket", ""),
            row.get("train_count", ""),
            row.get("positives", ""),
            _share(_number(row.get("ap"))),
            f"{limits[row['class']]:.4f}",
        ]
        for row in candidate.per_class
    ]
    more = (
        []
        if len(rows) <= LONGEST_TABLE
        else ["", f"And {len(rows) - LONGEST_TABLE} more in per_class.csv, an artifact of the run."]
    )
    return table(["class", "bucket", "train", "test", "AP %", "threshold"], rows[:LONGEST_TABLE]) + more


def _made_of(candidate: Candidate, form: str) -> list[str]:
    config = candidate.config
    backbone, digest = config.get("backbone", {}), str(config.get("weight_hash", ""))
    entry = find_backbone(str(backbone.get("name", "")))
    licence = entry.licence(str(backbone.get("pretrained", "")), digest)
    holding = (
        "in the artifact (image tower and class features)"
        if form == PACKED
        else "not in the artifact: looked up by name when the model is loaded, and checked"
    )
    return [
        (
            "- Method: CapNet, [arXiv:2511.20641](https://arxiv.org/abs/2511.20641): frozen CLIP-like towers, soft"
            " prompts, a label graph, adapters."
        ),
        (
            f"- Backbone: {code(str(backbone.get('name', '?')))} / {code(str(backbone.get('pretrained', '?')))}, sha256"
            f" {code(digest or '?')}: {entry.description}."
        ),
        f"- Licence of the backbone: {licence}.",
        f"- Backbone weights: {holding}.",
        (
            f"- Trained parameters: {config.get('trained_parameters', 0):,}; epoch {config.get('selected_epoch', '?')}"
            " kept."
        ),
        f"- Content: {code(candidate.content_hash)}.",
    ]


# ---------------------------------------------------------------- data


def data_card(candidate: Candidate, data_md5: str, place: str, licence: str) -> str:
    """Source, licence, rows of each side, classes, what the data check found."""
    frame, classes = read_split(candidate.split / "split.parquet"), candidate.classes
    counts, hidden, rows = {}, {}, []
    for side in SPLITS:
        part = frame[frame["split"] == side]
        counts[side], hidden[side] = _counts(part["labels"], len(classes)), _counts(part["unknown"], len(classes))
        groups = part["group"].replace("", None).nunique()
        share = hidden[side].sum() / max(1, len(part) * len(classes))
        rows.append(
            [
                side,
                len(part),
                int(counts[side].sum()),
                f"{counts[side].sum() / max(1, len(part)):.2f}",
                f"{100 * share:.1f}",
                groups or "none",
            ]
        )
    train = counts["train"][counts["train"] > 0]
    ratio = f"{train.max() / train.min():.0f} to 1" if len(train) else "none"
    buckets = {bucket: sum(item.bucket == bucket for item in classes.items) for bucket in BUCKETS}
    slices = frame["slice"].replace("", None).dropna().value_counts().sort_index()
    version = "not under DVC: only the sha256 of each picture is known, in the split table"
    if data_md5:
        version = f"{code(data_md5)} (md5 of DVC)"
    lines = [
        "# Data card",
        "",
        (
            f"{len(frame)} pictures, {len(classes)} classes, several on one picture. The common classes have most of"
            f" the labels: the most common to the rarest is {ratio} in training"
            f" ({', '.join(f'{count} {name}' for name, count in buckets.items() if count)})."
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
        *table(["side", "pictures", "labels", "each", "unknown %", "groups"], rows),
        "",
        (
            "Each: labels a picture on average. Unknown labels (findings that nobody checked) count neither for nor"
            " against a class, in training and in all figures. Groups (patients, camera sites) stay on one side"
            " wherever the sides were drawn and not given."
        ),
    ]
    if len(slices):
        lines += ["", *table(["slice", "pictures"], [[code(str(name)), count] for name, count in slices.items()])]
    lines += ["", "## What the data check found", "", *_findings(candidate.checks), "", "## Labels of every class", ""]
    columns = [
        [
            code(item.name),
            item.bucket,
            *(int(counts[side][n]) for side in SPLITS),
            int(sum(hidden[side][n] for side in SPLITS)),
        ]
        for n, item in enumerate(classes.items)
    ]
    lines += table(["class", "bucket", *SPLITS, "unknown"], columns[:LONGEST_TABLE])
    if len(columns) > LONGEST_TABLE:
        lines += ["", f"And {len(columns) - LONGEST_TABLE} more in per_class.csv, an artifact of the run."]
    return "\n".join(lines) + "\n"


def _counts(lists: Iterable[Sequence[int]], n_classes: int) -> np.ndarray:
    """int64 [class]: how often each class is in the lists."""
    parts = [np.asarray(item, dtype=np.int64) for item in lists]
    return np.bincount(np.concatenate(parts) if parts else np.empty(0, np.int64), minlength=n_classes)


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


# ---------------------------------------------------------------- Markdown


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table's lines; cells must be escaped already."""
    return [f"| {' | '.join(map(str, cells))} |" for cells in (head, ["---"] * len(head), *rows)]


def plain(text: str) -> str:
    """Text that Markdown and HTML leave as it is, on one line."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()#|~!" else sign for sign in line)


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _number(value: str | None) -> float | None:
    try:
        return None if value in (None, "") else float(value)
    except ValueError:
        return None
