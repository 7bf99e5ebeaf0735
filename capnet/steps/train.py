"""Stage train: fit CapNet on the training rows, choose on validation rows, refit on both, write the model folder."""

from __future__ import annotations

import logging
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from capnet.config import Params, settings_hash
from capnet.contracts import (
    SCHEMA,
    code_hash,
    fitted_rows_hash,
    read_classes,
    read_graph,
    read_json,
    read_split,
    replace_file,
    sampling_units,
    sha256_file,
    write_json,
    write_predictions,
)
from capnet.data.sources.root import local_root
from capnet.errors import ConfigError, ContractError, DataError, counted
from capnet.evaluation.baselines import FittedProbe, write_probe
from capnet.evaluation.belonging import require_split
from capnet.evaluation.blend import Blend
from capnet.model.backbones import load_towers
from capnet.model.capnet import CapNet
from capnet.model.folder import check_graph, save_model
from capnet.runtime import Machine, prepare, resolved
from capnet.state import state_dir
from capnet.steps.held_out import HeldOut, load_probe, train_probe, validator
from capnet.steps.train_features import train_features, views_of_tokens
from capnet.training.checkpoint import lock
from capnet.training.distributed import ProcessGroup, process_group
from capnet.training.out_of_fold import folds_of, out_of_fold_logits, scores_out_of_fold
from capnet.training.scoring import member_logits
from capnet.training.trainer import Fit, Log, Trainer

CODE = Path(__file__).parents[1]
ROOMS = ("contracts", "data", "evaluation", "model", "steps", "training")  # whose code the trained tensors depend on
MANY_ON_A_CPU = 3_000  # images times epochs
HISTORY = ("epoch", "step", "loss", "val_mAP", "val_head", "val_medium", "val_tail")

logger = logging.getLogger(__name__)


def train(
    params: Params, inputs: dict[str, Path], outputs: dict[str, Path], log: Log | None = None
) -> dict[str, float]:
    """Fit CapNet; without validation rows also score every training row out of fold, for thresholds. With
    ``train.refit`` fit it again on training and validation rows; scores of these by models that had not seen them are
    kept: out of fold where that takes seconds (``scores_out_of_fold``), else the validation rows' of before the refit.

    Started by torchrun, all processes train one model, and the main process writes it.

    Args:
        params: all settings.
        inputs: folders split, validation, graph and data.
        outputs: folder model.
        log: gets the values of every epoch of the model that is kept, while it is trained.

    Returns:
        Selected epoch, its validation mAP, and the last loss.

    Raises:
        ConfigError: a blend has no rows to be chosen on, or adapters are asked for in blocks that the tower lacks.
        ContractError: graph and classes do not belong together, or the graph is of another backbone or has counts of
            another split.
        DataError: there are no training rows, or no class has a positive validation row.
    """
    machine, seeds = prepare(params.runtime), params.train.seeds
    params = params.model_copy(update={"train": params.train.model_copy(update={"seeds": ()})})  # as in a pipeline
    with process_group(machine.device) as group:
        precision = group.broadcast(machine.precision)  # auto may be another one on another machine
        machine = replace(machine, bf16=precision == "bf16")
        runtime = params.runtime.model_copy(update={"precision": precision})
        params = params.model_copy(update={"runtime": runtime})
        if len(seeds) > 1 and group.is_main_process:
            what = "one model is trained, with runtime.seed = %s: train.seeds = %s is for a pipeline, docs/pipelines.md"
            logger.warning(what, params.runtime.seed, list(seeds))
        table = read_split(inputs["split"] / "split.parquet")
        rows, val = (table[table["split"] == split].reset_index(drop=True) for split in ("train", "val"))
        _check_rows(rows, val, params, inputs["split"] / "split.parquet")
        trainer = _trainer(params, inputs, table, machine, group)
        folder = _state_folder(trainer, inputs)
        with lock(folder) if group.is_main_process else nullcontext():  # until the folder goes
            return _fit(trainer, rows, val, folder, inputs["split"], outputs["model"], log)


def _fit(
    trainer: Trainer, rows: pd.DataFrame, val: pd.DataFrame, folder: Path, split: Path, out: Path, log: Log | None
) -> dict[str, float]:
    is_main, refits = trainer.process_group.is_main_process, trainer.params.train.refit and len(val) > 0
    fitted = pd.concat([rows, val], ignore_index=True) if refits else rows
    model = trainer.new_model()
    _warn_of_hours(trainer, model, len(rows))
    if model.blocks_behind_tokens:  # of all rows that will be fitted, before hours of towers and of a first training
        trainer.features.refuse_tokens(fitted, views_of_tokens(trainer), model.blocks_behind_tokens, "training")
    features = train_features(trainer, model, rows, val)
    validate = validator(trainer, val, features.validation)
    result = trainer.fit(model, rows, features.views, folder / "main", features.plain, validate=validate, log=log)
    last_epoch = result.selected_epoch if refits else None

    folds = folds_of(trainer, fitted) if scores_out_of_fold(trainer, model, val) else None
    held_out = HeldOut(val if folds is None else fitted, folds)
    probe, probe_tensors = None, {}
    if is_main and trainer.params.train.blend == "held_out":
        assert features.plain is not None
        probe = train_probe(trainer, rows, features.plain, val, features.validation, folds)
        probe_tensors = load_probe(model, probe)
    if is_main and folds is None and len(val) and (refits or probe is not None):
        held_out.logits = member_logits(trainer, model, val, features.validation, "validation")
    model.release_towers()

    tensors = result.tensors
    if refits:
        features = train_features(trainer, model, fitted, val.iloc[:0])
    views, plain = features.views, features.plain
    if folds is not None:
        held_out.logits = out_of_fold_logits(trainer, fitted, folds, views, plain, folder, last_epoch)
    if refits:
        model, what = trainer.new_model(), f"refit on {len(fitted):,} rows"
        tensors = trainer.fit(model, fitted, views, folder / "refit", plain, what=what, last_epoch=last_epoch).tensors
        model.release_towers()

    if is_main:
        blend = None
        if probe is not None:
            held_out.add_probe(probe)
            blend = held_out.choose_blend(trainer)
        if refits or folds is not None:
            scores = held_out.scores(blend.weights if blend else model.weights, trainer.params.tte.average)
            write_predictions(out / "out_of_fold.parquet", scores)
        config = _config(trainer, result, val, split) | {"refit_rows": len(fitted) if refits else 0}
        config["fitted_rows"] = fitted_rows_hash(pd.concat([rows, val]))
        _write(out, trainer, result, tensors | probe_tensors, probe, blend, config)
        shutil.rmtree(folder, ignore_errors=True)  # NFS keeps a folder in which a file, here its lock, is open
    selected = result.history[result.selected_epoch - 1]
    metrics = {"epoch": float(result.selected_epoch), "loss": result.history[-1]["loss"]}
    if "val_mAP" in selected:
        metrics["val_mAP"] = selected["val_mAP"]
    return metrics


def _warn_of_hours(trainer: Trainer, model: CapNet, images: int) -> None:
    epochs = trainer.params.train.epochs
    slow = trainer.machine.device.type == "cpu" and not model.tower_is_frozen and not model.blocks_behind_tokens
    if slow and images * epochs >= MANY_ON_A_CPU and trainer.process_group.is_main_process:
        logger.warning(
            "%s of %s through all of a ViT and back: on a CPU about 0.3 s an image with ViT-B/16, so"
            " hours for a thousand; train.adapter.in_blocks: false keeps the tower frozen and takes minutes"
            " (docs/your-own-data.md, Time)",
            counted(epochs, "epoch"),
            counted(images, "image"),
        )


def _check_rows(rows: pd.DataFrame, val: pd.DataFrame, params: Params, path: Path) -> None:
    if rows.empty:
        raise DataError("no training rows", str(path), "check the settings in section split")
    if len(val) or params.train.blend != "held_out":
        return
    without = todo = ""
    if not params.train.out_of_fold:
        without = "train.out_of_fold is false"
        todo = "set train.out_of_fold: true, train.blend: none, or split.validation.source: train"
    if len(np.unique(sampling_units(rows))) == 1:
        without = "all training rows are one group, which folds do not tear apart"
        todo = "set train.blend: none, or give training images that do not belong together groups of their own"
        todo += "" if params.train.out_of_fold else " and set train.out_of_fold: true"
    if without:
        what = f"train.blend = held_out has no rows to be chosen on: there are no validation rows, and {without}"
        raise ConfigError(what, str(path), todo)


def _trainer(
    params: Params, inputs: dict[str, Path], table: pd.DataFrame, machine: Machine, group: ProcessGroup
) -> Trainer:
    path = inputs["graph"] / "graph.safetensors"
    classes = read_classes(inputs["split"] / "classes.json")
    graph = read_graph(path, classes)
    require_split(graph.metadata, inputs["split"], path, "run `capnet graph` again, or `dvc repro`")
    if (built := graph.metadata.get("backbone", params.backbone.name)) != params.backbone.name:
        what = f"built with backbone.name = {built}, and it is {params.backbone.name}: its texts have other features"
        raise ContractError(f"the label graph was {what}", str(path), "run `capnet graph` again, or `dvc repro`")
    towers = load_towers(params.backbone, params.tte.size).to(machine.device)
    check_graph(graph, classes, towers, str(path))
    adapter = params.train.adapter
    if adapter.enabled and adapter.blocks and not towers.image.blocks:  # not in the model: older ones are to load
        what = f"train.adapter.blocks = {adapter.blocks}, and the image tower of {params.backbone.name} has no blocks"
        raise ConfigError(what, "train.adapter.blocks", "set it to 0, or choose a ViT in backbone.name")
    if towers.resize not in ("", params.tte.resize) and group.is_main_process:
        what = "the weights of %s were trained on images resized as tte.resize: %s does, and tte.resize is %s"
        logger.warning(what, params.backbone.name, towers.resize, params.tte.resize)
    root = local_root(params.data, inputs["data"], table[table["split"] != "test"])
    return Trainer(params, classes, graph, towers, machine, root, group)


def _state_folder(trainer: Trainer, inputs: dict[str, Path]) -> Path:
    """The folder of this training's checkpoints. Other settings, data, weights or code lead to another one, and so does
    another device or precision where these are ``auto``. Settings that change no result do not count, so that a
    training can go on with fewer workers.
    """
    contents = {
        "split": sha256_file(inputs["split"] / "split.parquet"),
        "buckets": trainer.classes.buckets,
        "graph": sha256_file(inputs["graph"] / "graph.safetensors"),
        "weights": trainer.towers.weight_hash,
        "code": code_hash(CODE, ROOMS),
    }
    settings = trainer.params.subset(("backbone", "train", "tte"))
    settings["runtime"] = resolved(trainer.params.runtime).with_effect()
    return state_dir("train") / settings_hash(settings, contents)


def _write(
    out: Path,
    trainer: Trainer,
    result: Fit,
    tensors: dict[str, Tensor],
    probe: FittedProbe | None,
    blend: Blend | None,
    config: dict[str, Any],
) -> None:
    """The model folder, except for out-of-fold scores."""
    if probe is not None and blend is not None:
        write_probe(out / "probe.safetensors", probe)
        write_json(out / "blend.json", {"schema": SCHEMA, **blend.document(), "candidates": blend.candidates})
        config = config | {"blend": blend.document()}
    save_model(out, tensors, trainer.label_graph, trainer.classes, config)
    history = pd.DataFrame(result.history, columns=list(HISTORY)).astype({"epoch": int, "step": int})
    # one line an epoch; empty where a value was not measured
    replace_file(out / "history.csv", history.to_csv(index=False, lineterminator="\n", float_format="%.6f"))


def _config(trainer: Trainer, result: Fit, val: pd.DataFrame, split_dir: Path) -> dict[str, Any]:
    """config.json: everything needed to load the model, and how its epoch was chosen."""
    note = split_dir / "split.json"
    return {
        **trainer.params.subset(("backbone", "tte", "train")),
        "runtime": {"seed": trainer.params.runtime.seed},
        "weight_hash": trainer.towers.weight_hash,
        "precision": trainer.machine.precision,
        "selected_epoch": result.selected_epoch,
        "validation_rows": len(val),
        "validation_extra_labels": bool(read_json(note).get("extra_labels", False)) if note.is_file() else False,
        "trained_parameters": sum(tensor.numel() for tensor in result.tensors.values()),
    }
