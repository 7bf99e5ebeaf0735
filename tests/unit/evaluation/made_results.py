"""What the evaluate stage writes of a made-up run: metrics, calibration, thresholds, the table of classes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import brier_score_loss

from capnet import contracts

TEMPERATURE, SHIFT = 0.8, -1.2


def average_precisions(labels: np.ndarray, unknown: np.ndarray, scores: np.ndarray) -> np.ndarray:
    known = ~unknown
    return np.array(
        [_average_precision(labels[known[:, c], c], scores[known[:, c], c]) for c in range(labels.shape[1])]
    )


def _average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """scikit-learn's sum of precision times the gain in recall, without a millisecond of checks; NaN without a
    positive.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of those with equal scores
    hits, taken = np.cumsum(labels[order])[last], np.flatnonzero(last) + 1
    return float((np.diff(hits, prepend=0) * hits / taken).sum() / hits[-1]) if labels.any() else np.nan


def _means(ap: np.ndarray, buckets: list[str], spread: float) -> dict[str, float]:
    result: dict[str, float] = {}
    for name in ("mAP", "head", "medium", "tail"):
        members = np.array([name in ("mAP", bucket) for bucket in buckets]) & np.isfinite(ap)
        if members.any():
            value = float(ap[members].mean())
            result |= {name: value, f"{name}_low": value - spread, f"{name}_high": value + spread}
    return result


def reliability(labels: np.ndarray, unknown: np.ndarray, scores: np.ndarray, buckets: list[str]) -> dict:
    """Reliability per bucket: raw scores, and calibrated ones with the temperature and shift of thresholds.json."""
    logits = np.log(scores.astype(np.float64) / (1 - scores.astype(np.float64)))
    stages = {"raw": scores.astype(np.float64), "calibrated": 1 / (1 + np.exp(-(logits / TEMPERATURE + SHIFT)))}
    content: dict = {"temperature": TEMPERATURE, "buckets": {}}
    for bucket in ("all", "head", "medium", "tail"):
        known = ~unknown & np.array([bucket in ("all", item) for item in buckets])
        if not known.any():
            continue
        entry: dict = {"entries": int(known.sum())}
        for stage, values in stages.items():
            truth, guess = labels[known], values[known]
            entry[f"brier_{stage}"] = float(brier_score_loss(truth, guess))
            inside = [(low, (guess >= low) & (guess < low + 0.1)) for low in np.arange(10) / 10]
            entry[stage] = [
                {"mean": float(guess[m].mean()), "observed": float(truth[m].mean()), "count": int(m.sum())}
                for _, m in inside
                if m.any()
            ]
        content["buckets"][bucket] = entry
    return content


def measures(ap: dict[str, np.ndarray], buckets: list[str], names: list[str], slices: pd.Series | None) -> dict:
    content: dict = {name: _means(values, buckets, 0.025) for name, values in ap.items()}
    for values in content.values():
        for name in ("CF1", "OF1", "CF1_chosen", "OF1_chosen"):
            values |= {name: 0.41, f"{name}_low": 0.39, f"{name}_high": 0.43}
    pairs = (
        ("capnet", "zero_shot"),
        ("capnet", "linear_probe"),
        ("capnet", "single_view"),
        ("zero_shot", "zero_shot_single_view"),
    )
    content["differences"] = {
        f"{one}-{other}": _means(ap[one] - ap[other], buckets, 0.02 if other == "zero_shot" else 0.013)
        for one, other in pairs
        if other in ap
    }
    if slices is not None:
        content["slices"] = {
            name: {variant: _means(values - shift, buckets, 0.03) for variant, values in ap.items()}
            for shift, name in ((0.0, "known artwork"), (0.1, "unseen artwork"))
        }
        content["slice_info"] = {
            name: {"test_rows": int((slices == name).sum()), "left_out": [], "differences": content["differences"]}
            for name in content["slices"]
        }
    content["bootstrap"] = {"draws": 1000, "seed": 0, "unit": "picture", "units": 300}
    content["left_out"] = [name for name, value in zip(names, ap["capnet"], strict=True) if np.isnan(value)]
    return content


def write_thresholds(
    path: Path, made: contracts.Classes, thresholds: np.ndarray, counts: np.ndarray, validation: bool
) -> None:
    entries = []
    for index, name in enumerate(made.names):
        positives = int(counts[index] // 5)
        seen = positives > 0
        entries.append(
            {
                "name": name,
                "threshold": float(thresholds[index]),
                "borrowed": positives < 5,
                "reached": True,
                "positives": positives,
                "precision": 0.61 if seen else None,
                "recall": 0.57 if seen else None,
            }
        )
    contracts.write_json(
        path,
        {
            "schema": 1,
            "class_fingerprint": made.fingerprint,
            "variant": "capnet",
            "objective": "f1",
            "views": {"views": 5, "expand": 24, "average": "logits"},
            "source": "val" if validation else "out_of_fold",
            "classes": entries,
            "calibration": {"temperature": [TEMPERATURE] * len(made), "shift": [SHIFT] * len(made)},
        },
    )


def write_per_class(
    path: Path,
    made: contracts.Classes,
    labels: np.ndarray,
    ap: dict[str, np.ndarray],
    thresholds: np.ndarray,
    rng: np.random.Generator,
) -> None:
    def text(value: float) -> str:
        return "" if np.isnan(value) else repr(float(value))

    order = np.argsort(-made.train_counts, kind="stable")
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "class",
                "train_count",
                "bucket",
                "positives",
                "ap",
                "ap_low",
                "ap_high",
                "ap_single_view",
                "ap_zero_shot",
                "ap_linear_probe",
                "threshold",
                "borrowed",
                "precision",
                "precision_low",
                "precision_high",
                "recall",
                "recall_low",
                "recall_high",
                "f1",
            ]
        )
        for c in order:
            item, positives = made.items[c], int(labels[:, c].sum())
            value = ap["capnet"][c]
            spread = 0.3 / np.sqrt(positives) if positives >= 10 else np.nan
            row = [
                item.name,
                item.train_count,
                item.bucket,
                positives,
                text(value),
                text(float(np.clip(value - spread, 0, 1))),
                text(float(np.clip(value + spread, 0, 1))),
            ]
            row += [text(ap[name][c]) if name in ap else "" for name in ("single_view", "zero_shot", "linear_probe")]
            row += [
                text(thresholds[c]),
                str(bool(item.train_count < 25)),
                "0.5",
                "0.31",
                "0.69",
                "0.6",
                "0.4",
                "0.78",
                "0.5454",
            ]
            writer.writerow(row)
