"""Takes each part of CapNet away and compares, with paired bootstrap intervals, on the outputs of a finished run.

    dvc repro                                                     # or the stages ingest, split, validate, graph
    python benchmarks/ablation.py --seeds 0 1 2 --out docs/ablation.md
    python benchmarks/ablation.py --folds 3 --out choice.md       # on held-out training pictures, for choosing settings

Rows are overrides of the settings file without its share of the zero-shot score, which has rows of its own. Every row sees the same
pictures, the same test-time views and the same draws.
Differences are means over seeds; each bootstrap draw measures all seeds and both sides on the same pictures.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from capnet.config import Params, load, parse
from capnet.contracts import label_matrix, read_classes, read_split
from capnet.data.images import centre_index
from capnet.data.sides import group_codes
from capnet.evaluation.baselines import choose_probe, probe_scores
from capnet.evaluation.bootstrap import draw_weights, interval, unit_codes
from capnet.evaluation.metrics import average_precision, bucket_masks, mean_over, rank, weighted_average_precision
from capnet.model.graph import adjacency, blend, cooccurrence, cosine_similarity
from capnet.model.towers import load_towers
from capnet.runtime import prepare
from capnet.steps.train import Job, stratified_folds

OFF = {"enabled": False}
SINGLE = ("full", "adapter alone, BCE")  # rows that are also given with a single view
BCE = {"loss": {"name": "bce"}, "head": {"bias_init": -4.5}}
ROWS: dict[str, dict[str, Any]] = {
    "full": {},
    "without prompts": {"train": {"prompt": OFF}},
    "without graph": {"train": {"gcn": OFF}},
    "without adapter": {"train": {"adapter": OFF}},
    "without logit bias": {"train": {"head": {"bias": False}}},
    "without centring": {"backbone": {"centre": False}},
    "adapter alone, DB-focal": {"train": {"prompt": OFF, "gcn": OFF}},
    "adapter alone, BCE": {"train": {"prompt": OFF, "gcn": OFF, **BCE}},
    "prompts alone, BCE": {"train": {"gcn": OFF, "adapter": OFF, **BCE}},
    "loss: BCE": {"train": BCE},
    "loss: focal": {"train": {"loss": {"name": "focal"}}},
    "loss: ASL": {"train": {"loss": {"name": "asl"}}},
    "loss: DB without focal": {"train": {"loss": {"name": "db"}}},
    "loss: DB-focal as in LMPT": {"train": {"loss": {"name": "db_focal_lmpt"}}},
    "class-aware sampler": {"train": {"sampler": "class_aware"}},
    "graph: softmax normalisation": {"graph": {"normalisation": "softmax"}},
    "graph: train co-occurrence": {"graph": {"source": "cooccurrence"}},
    "graph: blend of both": {"graph": {"source": "blend"}},
    "0.7 trained + 0.3 zero-shot": {"train": {"zero_shot_weight": 0.3}},
    "without prompts, 0.3 zero-shot": {"train": {"prompt": OFF, "zero_shot_weight": 0.3}},
}


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``change`` put over it, section by section."""
    result = dict(base)
    for key, value in change.items():
        result[key] = merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    return result


class Bench:
    """Split, towers and cached features, made once; ``scores`` trains one row with one seed."""

    def __init__(self, params: Params, split_dir: Path, root: Path, folds: int) -> None:
        self.params, self.root, self.folds = params, root, folds
        self.judged = "train" if folds else "test"
        self.classes = read_classes(split_dir / "classes.json")
        table = read_split(split_dir / "split.parquet")
        self.sides = {side: table[table["split"] == side].reset_index(drop=True) for side in ("train", "val", "test")}
        self.machine = prepare(params.runtime)
        self.towers = {centre: load_towers(params.backbone.model_copy(update={"centre": centre}), params.tte.size) for centre in (True, False)}
        with torch.no_grad():
            self.text = self.towers[True].text([params.graph.template.format(name) for name in self.classes.prompt_names])
        self.views = {side: self.job(params).features(rows, self.job(params).look(), side) for side, rows in self.sides.items() if len(rows)}

    def job(self, params: Params) -> Job:
        return Job(params, self.classes, self.graph(params), self.towers[params.backbone.centre], self.machine, self.root)

    def graph(self, params: Params) -> Any:
        from capnet.contracts import LabelGraph

        settings, similarity = params.graph, cosine_similarity(self.text)
        if settings.source != "text":
            labels, unknown = (label_matrix(self.sides["train"][column], len(self.classes)) for column in ("labels", "unknown"))
            counted = torch.from_numpy(cooccurrence(labels, unknown)).float()
            counts = torch.from_numpy(self.classes.train_counts).float()
            similarity = counted if settings.source == "cooccurrence" else blend(similarity, counted, counts, settings.blend_count)
        matrix = adjacency(similarity, settings.top_k, settings.s, settings.tau, settings.normalisation)
        return LabelGraph(matrix, self.text, {})

    def scores(self, change: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
        """Test-time ensembled, single-view and both zero-shot scores [judged picture, class] of one row and seed.

        On folds each training picture is judged by a model that never saw its fold.
        """
        base = {name: self.params.section(name).model_dump() for name in ("backbone", "graph", "train", "tte", "runtime", "data")}
        plain = merged(base, {"train": {"zero_shot_weight": 0.0}, "runtime": {"seed": seed}})
        params = parse(merged(plain, change))
        job, rows = self.job(params), self.sides["train"]
        random = job.features(rows, job.look(params.train.views), "training")
        views = torch.cat([self.views["train"], random], dim=1)
        if not self.folds:
            return self.fitted(job, rows, views, self.views["test"])
        fold = stratified_folds(job.labels(rows).targets.numpy(), group_codes(rows["group"]), self.folds, 0)
        found: dict[str, np.ndarray] = {}
        for number in range(self.folds):
            inside, outside = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            part = self.fitted(job, rows.iloc[inside].reset_index(drop=True), views[torch.from_numpy(inside)], self.views["train"][torch.from_numpy(outside)])
            for name, scores in part.items():
                found.setdefault(name, np.zeros((len(rows), scores.shape[1]), dtype=scores.dtype))[outside] = scores
        return found

    def fitted(self, job: Job, rows: pd.DataFrame, views: torch.Tensor, crops: torch.Tensor) -> dict[str, np.ndarray]:
        """Train on ``rows`` with cached ``views`` and score pictures by their test-time ``crops`` [picture, view, pooled]."""
        model = job.model()
        folder = Path(tempfile.mkdtemp())
        validate = None
        if "val" in self.views and not self.folds:
            labels = job.labels(self.sides["val"])

            def validate(model: Any) -> dict[str, float]:
                ap = average_precision(labels.targets.numpy(), job.served(model, self.sides["val"], self.views["val"], "val"), labels.known.numpy())
                return {"val_mAP": float(mean_over(ap))}

        job.fit(model, rows, views, folder, validate)
        shutil.rmtree(folder)
        found: dict[str, np.ndarray] = {}
        with torch.no_grad():
            classes = model.class_features()
            for suffix, some in (("", crops), (", single view", self.single(crops))):
                served, zero_shot = model.ensemble(some, classes, job.params.tte.average)
                # without the trained scale and bias, which differ between folds
                cosine = (torch.logit(zero_shot.double()) - (0 if model.logit_bias is None else model.logit_bias)) / model.logit_scale.exp()
                found |= {f"served{suffix}": served.numpy(), f"zero-shot{suffix}": cosine.numpy()}
        return found

    def single(self, crops: torch.Tensor) -> torch.Tensor:
        """The centre [picture, 1, pooled] among the test-time views."""
        centre = centre_index(self.params.tte.views)
        return crops[:, centre : centre + 1]

    def probe(self) -> dict[str, np.ndarray]:
        """Scores [test picture, class] of the linear probe, test-time ensembled and of the single view."""
        job = self.job(self.params)
        train, means = job.labels(self.sides["train"]), {side: views.mean(dim=1).numpy() for side, views in self.views.items()}
        held = None
        if "val" in means:
            val = job.labels(self.sides["val"])
            held = (means["val"], val.targets.numpy(), val.known.numpy())
        chosen = choose_probe(means["train"], train.targets.numpy(), train.known.numpy(), self.params.evaluate.probe.c, held)
        return {
            "linear probe": probe_scores(chosen.probe, means["test"]),
            "linear probe, single view": probe_scores(chosen.probe, self.single(self.views["test"]).mean(dim=1).numpy()),
        }


class Compare:
    """Means and paired intervals on the judged pictures of one slice."""

    def __init__(self, bench: Bench, rows: np.ndarray, draws: int) -> None:
        labels = bench.job(bench.params).labels(bench.sides[bench.judged])
        self.rows, self.targets, self.known = rows, labels.targets.numpy()[rows], labels.known.numpy()[rows]
        self.masks = bucket_masks([item.bucket for item in bench.classes.items])
        units = unit_codes(bench.sides[bench.judged]["group"].to_numpy()[rows])
        self.weights = list(draw_weights(units, draws, 100))

    def means(self, seeds: list[np.ndarray]) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Mean over seeds: points, and one value per draw."""
        rankings = [rank(self.targets, scores[self.rows], self.known) for scores in seeds]
        ones = np.ones((len(self.rows), 1), dtype=np.float32)
        points = [weighted_average_precision(ranking, ones) for ranking in rankings]
        drawn = [np.concatenate([weighted_average_precision(ranking, block) for block in self.weights], axis=1) for ranking in rankings]
        point = {name: float(np.mean([mean_over(ap, mask)[0] for ap in points])) for name, mask in self.masks.items()}
        return point, {name: np.mean([mean_over(ap, mask) for ap in drawn], axis=0) for name, mask in self.masks.items()}


def difference(one: Any, other: Any, name: str) -> str:
    """``+1.2 [0.3, 2.1]`` in points."""
    point = one[0][name] - other[0][name]
    low, high = interval(one[1][name] - other[1][name], point, (-1.0, 1.0))
    return f"{100 * point:+.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def table(measured: dict[str, Any], order: list[str]) -> list[str]:
    names = [name for name in ("mAP", "head", "medium", "tail") if name in measured["zero-shot"][0]]
    against = [(other, name) for other in ("zero-shot", "full") if other in measured for name in ("mAP", names[-1])]
    lines = ["| row | " + " / ".join(names) + " | " + " | ".join(f"{name} minus {other}" for other, name in against) + " |", "|---" * (2 + len(against)) + "|"]
    for row in order:
        values = " / ".join(f"{100 * measured[row][0][name]:.1f}" for name in names)
        cells = [difference(measured[row], measured[other], name) if row != other else "" for other, name in against]
        lines.append(f"| {row} | {values} | " + " | ".join(cells) + " |")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--split", type=Path, default=Path("outputs/split"))
    parser.add_argument("--rows", nargs="*", default=list(ROWS), help="names of rows; default all")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--folds", type=int, default=0, help="judge the training pictures out of that many folds, and not the test pictures: for choosing settings"
    )
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("ablation.md"))
    arguments = parser.parse_args(argv)
    params = load(arguments.params, arguments.set)
    bench = Bench(params, arguments.split, Path(params.data.root), arguments.folds)
    scores: dict[str, list[np.ndarray]] = {}
    seconds: dict[str, float] = {}
    probes = {} if arguments.folds else {name: [scores] for name, scores in bench.probe().items()}
    for row in arguments.rows:
        started = time.monotonic()
        for seed in arguments.seeds:
            found = bench.scores(ROWS[row], seed)
            scores.setdefault(row, []).append(found["served"])
            if row in SINGLE:
                scores.setdefault(f"{row}, single view", []).append(found["served, single view"])
            scores.setdefault("zero-shot", [found["zero-shot"]])
            scores.setdefault("zero-shot, single view", [found["zero-shot, single view"]])
        seconds[row] = (time.monotonic() - started) / len(arguments.seeds)
        text = document(bench, {**scores, **probes}, len(arguments.seeds), arguments.draws)
        arguments.out.write_text(text)  # after each row: a run of hours that is cut off keeps what it has
        print(f"{row}: {seconds[row]:.0f} s a seed", flush=True)
    print(text)


def document(bench: Bench, scores: dict[str, list[np.ndarray]], seeds: int, draws: int) -> str:
    """One Markdown table for all test pictures and one for each slice."""
    first = [row for row in ("zero-shot", "zero-shot, single view", "linear probe", "linear probe, single view") if row in scores]
    order = [*first, *[row for row in scores if row not in first]]
    slices: pd.Series = bench.sides[bench.judged]["slice"].fillna("")
    lines: list[str] = []
    for name in ["", *sorted(set(slices))] if slices.nunique() > 1 else [""]:
        rows = np.flatnonzero(slices == name) if name else np.arange(len(slices))
        compare = Compare(bench, rows, draws)
        lines += [
            f"**{name or f'all {bench.judged} pictures'}** ({len(rows)} pictures, {seeds} seeds)",
            "",
            *table({row: compare.means(scores[row]) for row in order}, order),
            "",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
