"""The paper's table: our rows over seeds next to the published ones, with what differs in protocol, as Markdown and as
JSON.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from benchmarks.published_results import MARKS, PROTOCOL, RESULTS
from capnet.config import Params
from capnet.contracts import known_labels, read_classes, read_json, read_predictions, read_split, read_tensors
from capnet.contracts.stage_json import read_evaluation
from capnet.evaluation.metrics import average_precision, bucket_masks, mean_over

NAMES = ("mAP", "head", "medium", "tail")
CLIP_SCALE = 100.0  # the logit scale of OpenAI's models, which a softmax over classes needs
ROWS = {
    "capnet": "CapNet, this program",
    "single_view": "CapNet, this program, one view",
    "capnet_softmax": "CapNet, this program, ranked by softmax over classes",
    "zero_shot": "zero-shot by cosine",
    "zero_shot_single_view": "zero-shot by cosine, one view",
    "zero_shot_softmax": "zero-shot, ranked by softmax over classes",
    "linear_probe": "linear probe (logistic regression)",
}
NAMED = {  # classes that a benchmark writes in a way of its own
    "voc-lt": "tvmonitor, diningtable",
    "coco-lt": "tv, hair drier",
    "nus-wide": "nighttime, swimmers",
}
INTERVALS = (
    "Our figures are means over seeds in percent, ± is the sample standard deviation over seeds (training seeds; list,"
    " weights and test images are the same). Brackets are the 95 % bootstrap interval over test images, {draws:,}"
    " draws, of one seed's model, its bounds averaged over seeds: how far the figure would move on other test images of"
    " the same kind. It is not the interval of a difference to a published row, whose scores nobody has here."
)
Row = dict[str, Any]


def softmax_over_classes(
    probabilities: np.ndarray, scale: float = 1.0, bias: float = 0.0, to: float = 1.0
) -> np.ndarray:
    """Softmax over classes of the logits behind sigmoid scores.

    Args:
        probabilities: sigmoid scores [image, class].
        scale: scale of the logits that were made into ``probabilities``.
        bias: their shared bias.
        to: scale of the logits that the softmax sees.

    Returns:
        float64 [image, class], every row sums to 1.
    """
    p = np.clip(probabilities.astype(np.float64), 1e-12, 1 - 1e-12)
    logits = (np.log(p) - np.log1p(-p) - bias) / scale * to
    result: np.ndarray = softmax(logits, axis=1)
    return result


def measured(evaluation: Path, model: Path, split: Path) -> dict[str, dict[str, float]]:
    """Figures of one run, from the folders of three stages: what evaluate measured, and mean AP with scores ranked by a
    softmax over classes.

    Returns:
        By variant: mAP, head, medium and tail as fractions of 1, with their limits NAME_low and NAME_high where
        evaluate gave them.
    """
    metrics = read_evaluation(evaluation)
    metric_names = [f"{name}{suffix}" for name in NAMES for suffix in ("", "_low", "_high")]
    result = {
        row: {name: float(metrics[row][name]) for name in metric_names if name in metrics[row]}
        for row in ROWS
        if row in metrics
    }
    if read_json(model / "config.json")["tte"]["average"] != "logits":
        return result  # the mean of sigmoids has no logit to go back to
    classes, table = read_classes(split / "classes.json"), read_split(split / "split.parquet")
    test = table[table["split"] == "test"].reset_index(drop=True)
    labels, known = known_labels(test, len(classes))
    scores = read_predictions(evaluation / "predictions.parquet").query("split == 'test'")
    tensors, _ = read_tensors(model / "model.safetensors")
    scale, bias = (
        math.exp(float(tensors["logit_scale"])),
        float(tensors["logit_bias"]) if "logit_bias" in tensors else 0.0,
    )
    masks = bucket_masks(classes.buckets)
    for variant, to in (("capnet", scale), ("zero_shot", CLIP_SCALE)):
        rows = scores[scores["variant"] == variant].set_index("image_id").loc[test["image_id"].tolist()]
        ranked = softmax_over_classes(np.stack(rows["scores"].tolist()), scale, bias, to)
        ap = average_precision(labels, ranked, known)
        means = {name: float(mean_over(ap, mask)) for name, mask in masks.items()}
        result[f"{variant}_softmax"] = {name: value for name, value in means.items() if math.isfinite(value)}
    return result


def our_rows(runs: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row a backbone and variant: mean, deviation and limits over the seeds.

    Args:
        runs: one mapping a run with ``backbone``, ``seed`` and ``measured``, what ``measured`` returned.

    Returns:
        Rows with ``row``, ``backbone``, ``figures`` in percent; a bucket without classes has no figure.
    """
    rows = []
    for backbone in dict.fromkeys(run["backbone"] for run in runs):
        of_backbone = [run["measured"] for run in runs if run["backbone"] == backbone]
        for variant, title in ROWS.items():
            if all(variant in one for one in of_backbone):
                rows.append(
                    {
                        "row": title,
                        "variant": variant,
                        "backbone": backbone,
                        "figures": _over_seeds([one[variant] for one in of_backbone]),
                    }
                )
    return rows


def different_precisions(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A note where the towers of the ``runs`` did not all run in one ``precision``."""
    if len({run["precision"] for run in runs}) < 2:
        return []
    each = ", ".join(f"{run['backbone']} seed {run['seed']} {run['precision']}" for run in runs)
    return [f"towers ran in different precisions: {each}"]


def _over_seeds(seeds: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    figures: dict[str, dict[str, Any]] = {}
    for name in NAMES:
        if any(name not in seed for seed in seeds):
            continue
        values = [100 * seed[name] for seed in seeds]
        figures[name] = {
            "mean": statistics.fmean(values),
            "sd": statistics.stdev(values) if len(values) > 1 else None,
            "seeds": values,
        }
        for limit in ("low", "high"):
            if all(f"{name}_{limit}" in seed for seed in seeds):
                figures[name][limit] = statistics.fmean(100 * seed[f"{name}_{limit}"] for seed in seeds)
    return figures


def our_protocol(name: str, params: Params) -> list[str]:
    """What our rows are, in words, from the settings that were run: one sentence a choice."""
    tte, train = params.tte, params.train
    size = f"{tte.size} px" if tte.size else "the backbone's own size"
    resize = {"short": "shorter side", "pad": "padded square", "squash": "distorted square"}[tte.resize]
    lines = [
        (
            "average precision is that of scikit-learn on the sigmoid score of each class; head, medium and tail by"
            f" training count: {params.split.buckets[0]} and more, down to {params.split.buckets[1]}, fewer"
        ),
        f"the last of {train.epochs} epochs; there are no validation images, and nothing is chosen on test images",
        f"{tte.views} crops of {size} at test time ({resize} resized to {tte.expand} px more), {tte.average} averaged",
        "CLIP's own mean and deviation of colours; random crops and flips in training",
        (
            f"class names as the data set writes them ({NAMED[name]}), zero-shot and label graph with the template"
            f" {params.graph.template!r}"
        ),
        (
            f"frozen towers; {train.prompt.length} prompt vectors a class, AdaptFormer in the ViT, a bottleneck adapter"
            f" behind RN50, a graph network, {train.loss.name}"
        ),
        f"{'a' if train.head.bias else 'no'} trainable bias shared by all classes",
        "where the paper's text is not known, the choice is ours, made before any image of a benchmark was seen",
    ]
    if not train.out_of_fold:
        lines.append("no scores out of fold, unlike the preset: only thresholds need them, and no figure here does")
    if name == "nus-wide":
        lines.append(
            "no list of this benchmark is published for CapNet: training and test are the official lists without images"
            " that have no concept"
        )
    return lines


def document(
    name: str, rows: Sequence[Row], facts: Mapping[str, Any], params: Params, dry: bool
) -> tuple[str, dict[str, Any]]:
    """The table in both forms.

    Args:
        name, params, dry: the benchmark, its settings, and whether it was a dry run.
        rows: ``our_rows``.
        facts: what was run: settings hash, weights, seeds, seconds and notes.

    Returns:
        Markdown, and the content of the JSON file.
    """
    published = RESULTS[name]
    used = sorted({letter for result in published for letter in result.protocol})
    protocol = our_protocol(name, params)
    intervals = INTERVALS.format(draws=params.evaluate.bootstrap)
    content = {
        "benchmark": name,
        "dry_run": dry,
        **facts,
        "intervals": intervals,
        "our_protocol": protocol,
        "ours": list(rows),
        "published": [
            {
                "row": one.method,
                "backbone": one.backbone,
                "figures": dict(zip(NAMES, one.figures, strict=True)),
                "mark": one.mark,
                "source": one.source,
                "differs": [PROTOCOL[letter] for letter in one.protocol],
            }
            for one in published
        ],
    }
    warning = "**Dry run: made images of noise, random weights, one epoch. The figures of our rows mean nothing.**"
    lines = [
        f"# {name}: our rows beside the published ones",
        "",
        *([warning, ""] if dry else []),
        "| row | backbone | mAP | head | medium | tail | source | differs |",
        "|---" * 8 + "|",
        *(
            f"| {'DRY RUN ' if dry else ''}{row['row']} | {row['backbone']} |"
            f" {' | '.join(_cell(row['figures'].get(part)) for part in NAMES)} | ours | |"
            for row in rows
        ),
        *(
            f"| {one.method} | {one.backbone} |"
            f" {' | '.join('?' if figure is None else f'{figure:.2f}' for figure in one.figures)} | {one.mark}:"
            f" {one.source} | {', '.join(one.protocol)} |"
            for one in published
        ),
        "",
        intervals,
        "",
        "How sure a published figure is: " + "; ".join(f"*{mark}*, {text}" for mark, text in MARKS.items()) + ".",
        "",
        "## What differs in protocol",
        "",
        *(f"- **{letter}**: {PROTOCOL[letter]}." for letter in used),
        "",
        "Our rows:",
        "",
        *(f"- {line}." for line in protocol),
        "",
        "## What was run",
        "",
        f"- settings: preset `{name}`, sha256 `{facts['settings_sha256']}`; seeds"
        f" {', '.join(map(str, facts['seeds']))}",
        *(f"- weights of {backbone}: {identity}" for backbone, identity in facts["weights"].items()),
        *(f"- note: {note}" for note in facts["notes"]),
    ]
    return "\n".join(lines) + "\n", content


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "-"
    spread = f" ± {figure['sd']:.2f}" if figure["sd"] is not None else ""
    return f"{figure['mean']:.2f}{spread}" + (
        f" [{figure['low']:.1f}, {figure['high']:.1f}]" if "low" in figure else ""
    )
