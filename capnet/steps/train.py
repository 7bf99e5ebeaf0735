"""Stage train: fit CapNet on the training rows, choose an epoch on validation rows, write the model folder."""

from __future__ import annotations

import csv
import io
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from capnet.config import Params, settings_hash
from capnet.contracts import (
    SCHEMA,
    read_classes,
    read_graph,
    read_json,
    read_split,
    replace_file,
    sha256_file,
    write_json,
    write_predictions,
)
from capnet.data.sources.root import local_root
from capnet.data.splits.assign import group_codes
from capnet.data.splits.stratify import stratified_holdout
from capnet.errors import DataError
from capnet.evaluation.baselines import STRENGTHS, Chosen, choose_probe, write_probe
from capnet.evaluation.blend import Blend, choose_blend
from capnet.evaluation.bootstrap import unit_codes
from capnet.evaluation.metrics import average_precision, bucket_masks, mean_over
from capnet.model.backbones import load_towers
from capnet.model.capnet import CapNet
from capnet.model.folder import check_graph, save_model
from capnet.runtime import Machine, prepare
from capnet.state import state_dir
from capnet.steps.job import Job, Log, Validate
from capnet.training.distributed import ProcessGroup, process_group
from capnet.training.loop import Fit

HISTORY = ("epoch", "step", "loss", "val_mAP", "val_head", "val_medium", "val_tail")


def train(
    params: Params, inputs: dict[str, Path], outputs: dict[str, Path], log: Log | None = None
) -> dict[str, float]:
    """Fit CapNet; without validation rows also score every training row out of fold, for thresholds.

    ``log`` gets the values of every epoch of the model that is kept, while it is trained. Started by torchrun, all
    processes train one model, and the first one writes it.
    """
    machine = prepare(params.runtime)
    with process_group(machine.device) as group:
        return _train(params, inputs, outputs, machine, group, log)


def _train(
    params: Params,
    inputs: dict[str, Path],
    outputs: dict[str, Path],
    machine: Machine,
    group: ProcessGroup,
    log: Log | None,
) -> dict[str, float]:
    classes = read_classes(inputs["split"] / "classes.json")
    table = read_split(inputs["split"] / "split.parquet")
    graph = read_graph(inputs["graph"] / "graph.safetensors", classes)
    rows, val = (table[table["split"] == side].reset_index(drop=True) for side in ("train", "val"))
    if rows.empty:
        raise DataError(
            "no training rows", str(inputs["split"] / "split.parquet"), "look at the settings in section split"
        )
    towers = load_towers(params.backbone, params.tte.size).to(machine.device)
    check_graph(graph, classes, towers, str(inputs["graph"] / "graph.safetensors"))
    root = local_root(params.data, inputs["data"], table[table["split"] != "test"])
    job = Job(params, classes, graph, towers, machine, root, group)
    folder = state_dir("train") / settings_hash(
        params.subset(("backbone", "runtime", "train", "tte")),
        {
            "split": sha256_file(inputs["split"] / "split.parquet"),
            "graph": sha256_file(inputs["graph"] / "graph.safetensors"),
            "weights": towers.weight_hash,
        },
    )
    model = job.model()
    frozen, blended = model.tower_is_frozen, params.train.blend == "held_out"
    wanted = frozen or blended or params.train.class_head.enabled or params.train.head.start == "data"
    # the test-time views, which the probe needs too
    plain = job.features(rows, job.transform(), "training") if wanted else None
    views = (
        torch.cat([plain, job.features(rows, job.transform(params.train.views), "training (random views of)")], dim=1)
        if frozen and plain is not None
        else None
    )
    val_plain = job.features(val, job.transform(), "validation") if len(val) and (frozen or blended) else None
    result = job.fit(model, rows, views, folder / "main", plain, validate=validator(job, val, val_plain), log=log)
    metrics = {"epoch": float(result.selected_epoch), "loss": result.history[-1]["loss"]}
    metrics |= {name: value for name, value in result.history[result.selected_epoch - 1].items() if name == "val_mAP"}
    out, tensors, chosen = outputs["model"], dict(result.tensors), None
    if len(val):
        if group.is_main_process and blended:
            assert plain is not None
            assert val_plain is not None
            probe = fitted_probe(job, rows, plain, val, val_plain)
            tensors |= probe_tensors(model, probe)
            members = job.member_logits(model, val, val_plain, "validation")
            chosen = chosen_blend(job, val, members, "val")
        model.release_towers()
    else:
        model.release_towers()
        members = out_of_fold(job, rows, views, plain, folder)
        if group.is_main_process:
            weights = model.weights
            if blended:
                assert plain is not None
                probe = fitted_probe(job, rows, plain, val, None)
                tensors |= probe_tensors(model, probe)
                members["linear_probe"] = held_out_logits(probe, len(next(iter(members.values()))[0]))
                chosen = chosen_blend(job, rows, members, "out_of_fold", probe.held_out_known)
                weights = chosen.weights
            write_predictions(
                out / "out_of_fold.parquet",
                rows[["image_id", "slice"]].assign(
                    split="train", variant="capnet", scores=list(job.combine(members, weights))
                ),
            )
    if group.is_main_process:
        if chosen:
            write_probe(out / "probe.safetensors", probe)
            write_json(out / "blend.json", {"schema": SCHEMA, **chosen.document(), "candidates": chosen.candidates})
        save_model(
            out,
            tensors,
            graph,
            classes,
            config(job, result, val, inputs["split"]) | ({"blend": chosen.document()} if chosen else {}),
        )
        replace_file(out / "history.csv", history_csv(result))
    group.wait()  # nobody removes what another one still reads
    if group.is_main_process:
        shutil.rmtree(folder)
    group.wait()
    shutil.rmtree(folder, ignore_errors=True)  # of a process with a state folder of its own
    return metrics


def fitted_probe(job: Job, rows: pd.DataFrame, plain: Tensor, val: pd.DataFrame, val_plain: Tensor | None) -> Chosen:
    """The linear probe on the mean feature of the test-time views, chosen on the validation rows, else in folds of the
    training rows.
    """
    labels = job.labels(rows)
    held = None
    if val_plain is not None:
        val_labels = job.labels(val)
        held = (val_plain.mean(dim=1).numpy(), val_labels.targets.numpy(), val_labels.known.numpy())
    return choose_probe(plain.mean(dim=1).numpy(), labels.targets.numpy(), labels.known.numpy(), STRENGTHS, held)


def probe_tensors(model: CapNet, chosen: Chosen) -> dict[str, Tensor]:
    """Put the probe into ``model``; returns its tensors by their names there."""
    assert model.linear_probe is not None
    found = {
        "weight": torch.from_numpy(chosen.probe.weight.T.copy()).float(),
        "bias": torch.from_numpy(chosen.probe.bias).float(),
    }
    model.linear_probe.load_state_dict(found)
    return {f"linear_probe.{name}": tensor for name, tensor in found.items()}


def held_out_logits(chosen: Chosen, views: int) -> Tensor:
    """The probe's logits [row, view, class] of training rows that it was not fitted on: the same in every view, as it
    saw their mean.
    """
    assert chosen.held_out is not None
    return torch.logit(torch.from_numpy(chosen.held_out).double(), eps=1e-7).float().unsqueeze(1).expand(-1, views, -1)


def chosen_blend(
    job: Job, rows: pd.DataFrame, members: Mapping[str, Tensor], where: str, measured: np.ndarray | None = None
) -> Blend:
    """The blend of ``members`` [row, view, class] that ranks the held-out ``rows`` best; ``measured`` bool [row, class]
    leaves entries out.
    """
    labels = job.labels(rows)
    known = labels.known.numpy() if measured is None else labels.known.numpy() & measured
    means = {name: logits.double().mean(dim=1).numpy() for name, logits in members.items()}
    # whose features a tower with adapters gives in one pass; the probe would take another, for every image
    trained = ("capnet", "class_head")
    preferred = trained if job.towers.image.blocks and job.params.train.adapter.enabled else (*trained, "linear_probe")
    return choose_blend(
        means, labels.targets.numpy() & known, known, unit_codes(rows["group"].tolist()), where, preferred
    )


def validator(job: Job, val: pd.DataFrame, plain: Tensor | None) -> Validate | None:
    """Mean AP of the served scores on the validation rows, in all and per bucket; None without such rows.

    ``plain`` [row, view, pooled] are their features in the tower without adapters.
    """
    if val.empty:
        return None
    labels = job.labels(val)
    masks = bucket_masks([item.bucket for item in job.classes.items])

    def validate(model: CapNet) -> dict[str, float]:
        ap = average_precision(
            labels.targets.numpy(), job.served(model, val, plain, "validation"), labels.known.numpy()
        )
        found = {"val_mAP": float(mean_over(ap))} | {
            f"val_{name}": float(mean_over(ap, mask)) for name, mask in masks.items()
        }
        if not math.isfinite(found["val_mAP"]):
            raise DataError(
                "no class has a positive validation row",
                "split.parquet",
                "set split.validation.source: none, or give more validation rows",
            )
        return {name: value for name, value in found.items() if math.isfinite(value)}

    return validate


def out_of_fold(
    job: Job, rows: pd.DataFrame, views: Tensor | None, plain: Tensor | None, folder: Path
) -> dict[str, Tensor]:
    """Logits of each member [row, view, class] by a model that never saw the row's fold (groups stay together); empty
    but for the first process.
    """
    folds = stratified_folds(
        job.labels(rows).targets.numpy(), group_codes(rows["group"]), job.params.train.folds, job.params.runtime.seed
    )
    found: dict[str, Tensor] = {}
    for fold in range(job.params.train.folds):
        inside, outside = (torch.from_numpy(np.flatnonzero(chosen)) for chosen in (folds != fold, folds == fold))
        if not len(inside) or not len(outside):
            continue
        part, held = (rows.iloc[chosen.numpy()].reset_index(drop=True) for chosen in (inside, outside))
        part_views, part_plain = (None if item is None else item[inside] for item in (views, plain))
        model = job.model()
        job.fit(
            model,
            part,
            part_views,
            folder / f"fold{fold}",
            part_plain,
            what=f"fold {fold + 1} of {job.params.train.folds}",
        )
        if job.group.is_main_process:
            for name, logits in job.member_logits(
                model, held, None if plain is None else plain[outside], "held-out"
            ).items():
                found.setdefault(name, torch.zeros(len(rows), *logits.shape[1:]))[outside] = logits
        model.release_towers()
    found.pop("linear_probe", None)  # of a fold it was never fitted
    return found


def stratified_folds(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold of every row, int64 [row]: labels spread evenly, groups kept together."""
    fold = np.zeros(len(labels), dtype=np.int64)
    left = np.arange(len(labels))
    for number in range(folds - 1, 0, -1):
        chosen = stratified_holdout(labels[left], len(left) // (number + 1), seed, groups[left])
        fold[left[chosen]] = number
        left = left[~chosen]
    return fold


def config(job: Job, result: Fit, val: pd.DataFrame, split_dir: Path) -> dict[str, Any]:
    """config.json: everything needed to load the model, and how its epoch was chosen."""
    note = split_dir / "split.json"
    return {
        **job.params.subset(("backbone", "tte", "train")),
        "weight_hash": job.towers.weight_hash,
        "precision": "bf16" if job.machine.bf16 else "fp32",
        "selected_epoch": result.selected_epoch,
        "validation_rows": len(val),
        "validation_extra_labels": bool(read_json(note).get("extra_labels", False)) if note.is_file() else False,
        "trained_parameters": sum(tensor.numel() for tensor in result.tensors.values()),
    }


def history_csv(result: Fit) -> str:
    """One line an epoch; empty where a value was not measured."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY, lineterminator="\n")
    writer.writeheader()
    for row in result.history:
        writer.writerow(
            {
                name: int(row[name]) if name in ("epoch", "step") else f"{row[name]:.6f}"
                for name in HISTORY
                if name in row
            }
        )
    return text.getvalue()
