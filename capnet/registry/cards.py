"""What people read of a candidate, as Markdown: its version's page and its model card, what it is for, what it can and
where it is weak. The pages are model_card.md and version_page.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capnet.contracts import VARIANTS, number
from capnet.errors import counted, some
from capnet.evaluation.bootstrap import MIN_POSITIVES
from capnet.evaluation.headline import HEADLINE
from capnet.evaluation.report.choices import blend_in_words, borrowers, chosen_on, objectives_in_words, were_chosen
from capnet.evaluation.report.intervals import intervals_in_words, is_grouped, is_of_one_group
from capnet.evaluation.report.promises import promises
from capnet.evaluation.report.words import VARIANT_NAMES, percent, score, with_interval
from capnet.model.backbones import find_backbone
from capnet.promotion.champion import PACKED
from capnet.promotion.policy import Policy
from capnet.promotion.policy_record import policy_in_words
from capnet.registry.candidate import Candidate
from capnet.registry.data_card import buckets_in_words, data_card
from capnet.registry.figures import flat_params
from capnet.registry.markdown import class_table, code, render, table

MODEL_CARD, DATA_CARD = "model_card.md", "data_card.md"
RATES = ("recall", "precision")
# section of the settings: the part of the method that it switches on
PARTS = {
    "prompt": "class-specific soft prompts",
    "gcn": "a graph convolutional network over the label graph",
    "adapter": "adapters",
    "class_head": "a class-specific head",
}
HALF = 0.5  # precision and recall below which a critical class is called weak


def card_texts(
    candidate: Candidate, form: str, data_md5: str, location: str, licence: str, policy: Policy
) -> dict[str, str]:
    """Both cards.

    Args:
        candidate: what is registered.
        form: packed or referenced: whether the artifact holds the backbone's weights.
        data_md5: of the data's version in DVC; "" where it is not under DVC.
        location: where the images are stored; "" if only here.
        licence: of the images, as in ``data_card``.
        policy: what the version is asked for at its registration.

    Returns:
        Markdown by file name.
    """
    return {
        MODEL_CARD: model_card(candidate, form, policy),
        DATA_CARD: data_card(candidate, data_md5, location, licence),
    }


def card_links(experiment: str, run_id: str) -> str:
    """A line of Markdown for the version's page: links to both cards among the run's artifacts, within MLflow's
    pages.
    """
    address = f"#/experiments/{experiment}/runs/{run_id}/artifacts"
    return (
        f"\n[Model card]({address}/{MODEL_CARD}) and [data card]({address}/{DATA_CARD}): use and limits, weak classes,"
        " every class, pictures, licences.\n"
    )


def description(candidate: Candidate) -> str:
    """The version's page: figures of every variant, classes, thresholds and the views they hold for. Its first line is
    plain: lists of versions show it as it is.
    """
    return render(
        "version_page.md",
        **_shared(candidate),
        classes=candidate.classes,
        variants=[variant for variant in VARIANTS if variant in candidate.metrics],
        titles=VARIANT_NAMES,
        one_group=is_of_one_group(candidate.metrics),
        left_out=[code(name[:80]) for name in candidate.metrics.get("left_out", ())],
        borrowed=[code(name[:80]) for name in borrowers(candidate.thresholds)],
        buckets_in_words=buckets_in_words,
        some=some,
    )


def model_card(candidate: Candidate, form: str, policy: Policy) -> str:
    """Use, limits, figures with intervals, weak classes, thresholds, promotion policy, every class, settings.

    Args:
        candidate, form, policy: as in ``card_texts``.

    Returns:
        Markdown.
    """
    config, metrics, thresholds = candidate.config, candidate.metrics, candidate.thresholds
    shared, weak = _shared(candidate), weak_classes(candidate)
    limits = {item["name"]: item["threshold"] for item in thresholds["classes"]}
    critical = candidate.classes.critical

    def figures(title: str, named: Mapping[str, Mapping[str, Any]]) -> list[str]:
        rows = [[name, *(with_interval(values, key) for key in shared["shown"])] for name, values in named.items()]
        return table([title, *shared["shown"]], rows)

    measured = metrics.get("slices", {})
    slices = {code(name): measured.get(name, {}).get("capnet", {}) for name in metrics.get("slice_info", {})}
    settings = [
        item for item in sorted(flat_params(config).items()) if item[0].startswith(("runtime.", "train.", "tte."))
    ]
    every_class = [
        [
            code(row["class"]) + (" (critical)" if row["class"] in critical else ""),
            row.get("bucket", ""),
            row.get("train_count", ""),
            row.get("positives", ""),
            percent(number(row.get("ap"))),
            score(limits[row["class"]], 4),
        ]
        for row in candidate.per_class
    ]
    rates = [
        [
            code(row["class"]),
            row.get("positives", ""),
            *(with_interval({key: number(value) for key, value in row.items()}, name) for name in RATES),
        ]
        for row in candidate.per_class
        if row["class"] in critical
    ]
    return render(
        MODEL_CARD,
        **shared,
        classes=len(candidate.classes),
        weak=weak,
        weak_table=class_table(
            ["class", "AP %", "why"], [[code(name), percent(ap), "; ".join(why)] for name, ap, why in weak]
        ),
        figures=figures("", {VARIANT_NAMES[name]: metrics[name] for name in VARIANTS if name in metrics}),
        slices=figures("slice", slices) if slices else [],
        intervals=intervals_in_words(metrics),
        borrowed=len(borrowers(thresholds)),
        promises=promises(metrics),
        notes=metrics.get("threshold", {}).get("notes", []),
        critical=class_table(["class", "test", *(f"{name} %" for name in RATES)], rates) if rates else [],
        policy=policy_in_words(policy),
        parts=_switched_on(config.get("train")),
        every_class=class_table(["class", "bucket", "train", "test", "AP %", "threshold"], every_class),
        entry=find_backbone(str(shared["backbone"].get("name", ""))),
        digest=str(config.get("weight_hash", "")),
        packed=form == PACKED,
        settings=table(["setting", "value"], [[code(name), code(value)] for name, value in settings]),
        blend_in_words=blend_in_words,
    )


def _switched_on(train: object) -> list[str]:
    """The parts of the method in the section train of a config.json, which somebody may have edited."""
    sections = {name: train.get(name) for name in PARTS} if isinstance(train, Mapping) else {}
    return [PARTS[name] for name, part in sections.items() if isinstance(part, Mapping) and part.get("enabled")]


def _shared(candidate: Candidate) -> dict[str, Any]:
    """What both pages read."""
    return {
        "config": candidate.config,
        "metrics": candidate.metrics,
        "thresholds": candidate.thresholds,
        "content_hash": candidate.content_hash,
        "backbone": candidate.config.get("backbone", {}),
        "shown": [name for name in HEADLINE if name in candidate.metrics["capnet"]],
        "chosen_on": chosen_on,
        "objectives_in_words": objectives_in_words,
        "views_in_words": views_in_words,
        "with_interval": with_interval,
    }


def views_in_words(views: Mapping[str, Any]) -> str:
    """5 test-time views of 160 px (expand 24 px, average of logits); without a size it is the backbone's own."""
    size = f" of {views['size']} px" if views.get("size") else ""
    return (
        f"{counted(views['views'], 'test-time view')}{size} (expand {views['expand']} px,"
        f" average of {views['average']})"
    )


def weak_classes(candidate: Candidate) -> list[tuple[str, float | None, list[str]]]:
    """(class, average precision, reasons), the lowest first: never learned, not measured, below half of the mean, few
    test images, borrowed threshold, objective not reached; of critical classes, low precision and recall.
    """
    chosen, objective = candidate.thresholds["classes"], str(candidate.thresholds.get("objective", "f1"))
    critical = candidate.classes.critical
    of_critical = str(candidate.thresholds.get("critical_objective", objective))
    borrowed = set(borrowers(candidate.thresholds))
    any_chosen = were_chosen(candidate.thresholds)
    unreached = {item["name"] for item in chosen if any_chosen and item.get("reached") is False}
    # a refit also learns from the held-out images, which positives are counted on
    refitted = {item["name"] for item in chosen if candidate.config.get("refit_rows") and item.get("positives")}
    left_out, mean = set(candidate.metrics.get("left_out", ())), float(candidate.metrics["capnet"]["mAP"])
    weak = []
    for row in candidate.per_class:
        name, ap, positives, reasons = row["class"], number(row.get("ap")), number(row.get("positives")), []
        if number(row.get("train_count")) == 0 and name not in refitted:
            reasons.append("never learned: no positive training picture")
        if ap is None or name in left_out:
            reasons.append("not measured: no positive or no negative test picture")
        elif ap < mean / 2:
            reasons.append(f"below half of the mean of {percent(mean)} %")
        if ap is not None and positives is not None and positives < MIN_POSITIVES:
            reasons.append(f"{counted(round(positives), 'positive test picture')}: the figure is uncertain")
        elif ap is not None and is_grouped(candidate.metrics) and number(row.get("ap_low")) is None:
            reasons.append(f"positive test pictures of fewer than {MIN_POSITIVES} groups: the figure is uncertain")
        if name in borrowed:
            reasons.append("no threshold of its own: its held-out pictures alone do not show the objective")
        own = of_critical if name in critical else objective
        if name in unreached and own != "f1":
            reasons.append(f"{own} is not reached")
        if name in critical:
            precision, recall = number(row.get("precision")), number(row.get("recall"))
            if precision is not None and precision < HALF and recall != 0:  # without recall it may never be given
                reasons.append(f"critical, and most labels that it gives are wrong: precision {percent(precision)} %")
            if recall is not None and recall < HALF:
                reasons.append(f"critical, and most of its pictures are missed: recall {percent(recall)} %")
        if reasons:
            weak.append((name, ap, reasons))
    return sorted(weak, key=lambda item: (item[1] is not None, item[1] or 0.0))
