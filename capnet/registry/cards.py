"""Model card and data card of a candidate, as Markdown: what it is for, what it can and where it is weak, and what it
learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from capnet.contracts import VARIANTS, number
from capnet.errors import counted
from capnet.evaluation.headline import HEADLINE
from capnet.evaluation.report.words import (
    VARIANT_NAMES,
    blend_in_words,
    chosen_on,
    objectives_in_words,
    percent,
    with_interval,
)
from capnet.model.backbones import find_backbone
from capnet.promotion.champion import PACKED
from capnet.promotion.policy import Policy
from capnet.promotion.standard import in_words
from capnet.registry.candidate import Candidate, flat_params, views_in_words
from capnet.registry.data_card import data_card
from capnet.registry.licences import data_licence
from capnet.registry.markdown import LONGEST_TABLE, class_table, code, table

MODEL_CARD, DATA_CARD = "model_card.md", "data_card.md"
FEW = 10  # test positives below which an average precision says little; the evaluation gives no interval then


def card_texts(
    candidate: Candidate, form: str, data_md5: str, place: str, stated_licence: str, policy: Policy
) -> dict[str, str]:
    """Both cards.

    Args:
        candidate: what is registered.
        form: packed or referenced: whether the artifact holds the backbone's weights.
        data_md5: of the data's version in DVC; "" where it is not under DVC.
        place: where the pictures are stored; "" if only here.
        stated_licence: ``register.data_licence``; "" takes what the folder data says.
        policy: what the version is asked for at its registration.

    Returns:
        Markdown by file name.
    """
    licence = data_licence(stated_licence, Path("data"))
    return {
        MODEL_CARD: model_card(candidate, form, policy),
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


def model_card(candidate: Candidate, form: str, policy: Policy) -> str:
    """Use, limits, figures with intervals, weak classes, thresholds, promotion policy, every class, settings.

    Args:
        candidate, form, policy: as in ``card_texts``.

    Returns:
        Markdown.
    """
    config, metrics, thresholds, classes = candidate.config, candidate.metrics, candidate.thresholds, candidate.classes
    shown = [name for name in HEADLINE if name in metrics["capnet"]]
    weak = weak_classes(candidate)
    warning = f"- {len(weak)} of {len(classes)} classes have a known weakness; they are listed below."
    rows_of_weak = [[code(name), percent(ap), "; ".join(why)] for name, ap, why in weak[:LONGEST_TABLE]]
    borrowed = sum(bool(item.get("borrowed")) for item in thresholds["classes"])
    lines = [
        "# Model card",
        "",
        (
            f"Says which of {len(classes)} classes are on a picture. mAP {with_interval(metrics['capnet'], 'mAP')} % on"
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
        *([warning] if weak else []),
        "",
        "## How good it is",
        "",
        "In %, with the 95 % interval of a bootstrap over the test pictures. Buckets are by training count.",
        "",
        *table(
            ["", *shown],
            [
                [VARIANT_NAMES[name], *(with_interval(metrics[name], key) for key in shown)]
                for name in VARIANTS
                if name in metrics
            ],
        ),
        *_slices(candidate, shown),
        "",
        *(f"{sentence}\n" for sentence in blend_in_words(config.get("blend", {}))),
        "## Known weak classes",
        "",
        *(table(["class", "AP %", "why"], rows_of_weak) if weak else ["None found."]),
        "",
        "## Thresholds",
        "",
        (
            f"Objective {code(objectives_in_words(thresholds))}, chosen on {chosen_on(thresholds.get('source'))}."
            f" They hold only for {views_in_words(config['tte'])}; loading refuses other views."
            f" {borrowed} of {len(thresholds['classes'])} classes borrow the pooled threshold"
            + (": the objective is for several together, not for each of them." if borrowed else ".")
        ),
        "",
        "## Promotion policy",
        "",
        f"Registered under {in_words(policy)}. Shares are in %; the version's page has the verdict.",
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
    """(class, average precision, reasons), the lowest first: never learned, not measured, below half of the mean, few
    test pictures, borrowed threshold, objective not reached.
    """
    chosen, objective = candidate.thresholds["classes"], str(candidate.thresholds.get("objective", "f1"))
    critical = {item.name for item in candidate.classes.items if item.critical}
    objectives = {name: str(candidate.thresholds.get("critical_objective", objective)) for name in critical}
    borrowed = {item["name"] for item in chosen if item.get("borrowed")}
    unreached = {item["name"] for item in chosen if item.get("reached") is False}
    left_out, mean = set(candidate.metrics.get("left_out", ())), float(candidate.metrics["capnet"]["mAP"])
    found = []
    for row in candidate.per_class:
        name, ap, positives, reasons = row["class"], number(row.get("ap")), number(row.get("positives")), []
        if number(row.get("train_count")) == 0:
            reasons.append("never learned: no positive training picture")
        if ap is None or name in left_out:
            reasons.append("not measured: no positive test picture")
        elif ap < mean / 2:
            reasons.append(f"below half of the mean of {percent(mean)} %")
        if ap is not None and positives is not None and positives < FEW:
            reasons.append(f"{counted(round(positives), 'positive test picture')}: the figure is uncertain")
        if name in borrowed:
            reasons.append("no threshold of its own, most often for want of positives")
        wanted = objectives.get(name, objective)
        if name in unreached and wanted != "f1":
            reasons.append(f"{wanted} is not reached")
        if reasons:
            found.append((name, ap, reasons))
    return sorted(found, key=lambda item: (item[1] is not None, item[1] or 0.0))


def _slices(candidate: Candidate, shown: Sequence[str]) -> list[str]:
    slices = candidate.metrics.get("slices", {})
    if not slices:
        return []
    rows = [
        [code(name), *(with_interval(values["capnet"], key) for key in shown)]
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
            percent(number(row.get("ap"))),
            f"{limits[row['class']]:.4f}",
        ]
        for row in candidate.per_class
    ]
    return class_table(["class", "bucket", "train", "test", "AP %", "threshold"], rows)


def _made_of(candidate: Candidate, form: str) -> list[str]:
    config = candidate.config
    backbone, digest = config.get("backbone", {}), str(config.get("weight_hash", ""))
    rows = config.get("refit_rows", 0)
    refitted = f", then trained once more on {rows:,} training and validation pictures together" if rows else ""
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
            f" kept{refitted}."
        ),
        f"- Content: {code(candidate.content_hash)}.",
    ]
