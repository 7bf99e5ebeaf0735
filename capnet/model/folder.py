"""The model folder: trained tensors, graph, classes and config; it loads alone, given the backbone's weights or packed
with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from capnet.config import Backbone, Train, Tte
from capnet.contracts import (
    SCHEMA,
    Classes,
    LabelGraph,
    read_classes,
    read_document,
    read_graph,
    read_tensors,
    reading,
    write_classes,
    write_graph,
    write_json,
    write_tensors,
)
from capnet.contracts.forms import check
from capnet.contracts.stage_json import ModelConfig
from capnet.errors import ContractError
from capnet.model.backbones import load_towers
from capnet.model.capnet import CapNet
from capnet.model.losses import LOSSES
from capnet.model.packed import PACKED_FILE, read_backbone, write_backbone
from capnet.model.towers import Towers
from capnet.runtime import Machine


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to score images."""

    model: CapNet
    tte: Tte
    config: Mapping[str, Any]


def check_graph(graph: LabelGraph, classes: Classes, towers: Towers, where: str) -> None:
    """Compare a graph with the classes and weights of a model.

    Args:
        graph: with the template and the fingerprint that it was built from.
        classes: with the prompt names of the model.
        towers: with the model's weights.
        where: the graph's file, for errors.

    Raises:
        ContractError: the graph was built from other prompt names or other weights.
    """
    template = str(graph.metadata.get("template", ""))
    if graph.metadata.get("prompt_fingerprint") != classes.prompt_fingerprint(template, towers.weight_hash):
        raise ContractError(
            "the label graph was built from other prompt names or other weights",
            where,
            "run `capnet graph` again, or `dvc repro`",
        )


def save_model(
    folder: Path, tensors: Mapping[str, Tensor], graph: LabelGraph, classes: Classes, config: Mapping[str, Any]
) -> None:
    """Write the model folder (history and out-of-fold scores are the training step's).

    Args:
        folder: made where it is missing; its files are replaced one by one.
        tensors: trained tensors by name, as ``CapNet.trained_tensors`` gives them.
        graph: that the model was trained with.
        classes: in the order of the model's columns.
        config: what else goes into config.json, such as sections backbone, tte and train, ``weight_hash``, ``blend``.
    """
    write_tensors(folder / "model.safetensors", tensors, {"class_fingerprint": classes.fingerprint})
    write_graph(folder / "graph.safetensors", graph)
    write_classes(folder / "classes.json", classes)
    write_json(
        folder / "config.json",
        {
            "schema": SCHEMA,
            "class_fingerprint": classes.fingerprint,
            "prompt_fingerprint": graph.metadata["prompt_fingerprint"],
            "graph": dict(graph.metadata),
            **config,
        },
    )


def load_model(folder: Path, machine: Machine) -> LoadedModel:
    """Load a model folder.

    Args:
        folder: as ``save_model`` or ``pack`` leaves it.
        machine: the device that the model is moved to.

    Returns:
        The model in evaluation mode, with its test-time views and config.json.

    Raises:
        ContractError: parts do not belong together, are damaged or of another version, or the weights differ.
        ConfigError: there is no such backbone.
        DataError: the backbone's weights are missing; a packed folder needs none.
    """
    path = folder / "config.json"
    config = read_document(path)
    with reading(path):
        tte, settings, backbone, weight_hash = _settings(config, path)  # says more of another version than the form
        check(ModelConfig, config)
    classes = read_classes(folder / "classes.json", config.get("class_fingerprint", ""))
    graph = read_graph(folder / "graph.safetensors", classes)
    tensors, metadata = read_tensors(folder / "model.safetensors")
    if metadata.get("class_fingerprint") != classes.fingerprint:
        raise ContractError(
            "the weights were trained for other classes", str(folder / "model.safetensors"), "train again"
        )
    model: CapNet | None = None
    if (folder / PACKED_FILE).is_file():
        with reading(folder / PACKED_FILE):
            model = read_backbone(folder, settings)
    towers = (model.towers if model is not None else load_towers(backbone, tte.size)).to(machine.device)
    if towers.weight_hash != weight_hash:
        raise ContractError(
            "the backbone's weights differ from those the model was trained on",
            str(path),
            "use the same weight file, or train again",
        )
    check_graph(graph, classes, towers, str(folder / "graph.safetensors"))
    if model is None:
        model = CapNet(towers, classes.prompt_names, graph.adjacency, graph.text_features, settings)
    model.load_trained(tensors, str(folder / "model.safetensors"))
    model.weights = _weights(config, model, path)
    return LoadedModel(model.to(machine.device).eval(), tte, config)


def _settings(config: Mapping[str, Any], path: Path) -> tuple[Tte, Train, Backbone, str]:
    """The settings that a model was trained with, and its backbone's hash; raises ContractError where this program does
    not know them.
    """
    try:
        tte = Tte.model_validate(config["tte"])
        train = Train.model_validate(renamed(config["train"]))
        backbone = Backbone.model_validate(config["backbone"])
        # a default instead would be another backbone, to be fetched from a network
        problems = [f"no backbone.{name}" for name in ("name", "pretrained") if name not in backbone.model_fields_set]
        if "weight_hash" not in config:
            problems.append("no 'weight_hash'")
        if not problems:
            return tte, train, backbone, str(config["weight_hash"])
    except KeyError as error:
        problems = [f"no {error}"]
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
    what = f"not the settings of a model of this version: {'; '.join(problems[:5])}"
    raise ContractError(what, str(path), "train again, or use the version of this program that wrote the folder")


def renamed(train: Mapping[str, Any]) -> dict[str, Any]:
    """Section train of an older registered model in the names of this version: there one section held the settings of
    all losses, and the adapter's location was called place.
    """
    train = dict(train)
    loss, adapter = train.get("loss"), train.get("adapter")
    if isinstance(loss, Mapping) and loss.get("name") in LOSSES:
        known = {name for kind in LOSSES.values() for name in kind.model_fields}
        own = LOSSES[loss["name"]].model_fields
        train["loss"] = {name: value for name, value in loss.items() if name in own or name not in known}
    if isinstance(adapter, Mapping) and "place" in adapter:
        train["adapter"] = {"location" if name == "place" else name: value for name, value in adapter.items()}
    return train


def _weights(config: Mapping[str, Any], model: CapNet, path: Path) -> dict[str, float]:
    """The weights of what is served; raises ContractError where they are not those of this model's members."""
    weights = config.get("blend", {}).get("weights", model.weights)
    members = {"capnet", "zero_shot"} | {
        name for name in ("class_head", "linear_probe") if getattr(model, name) is not None
    }
    if not set(weights) <= members or abs(sum(weights.values()) - 1) > 1e-6:
        what = f"blend.weights are {weights}, of a model with {', '.join(sorted(members))}"
        raise ContractError(what, str(path), "train again: the weights are 0 to 1 and sum to 1")
    return {name: float(value) for name, value in weights.items()}


def pack(folder: Path, machine: Machine) -> None:
    """Make a model folder load without the backbone's files and without a network; needs them once more itself."""
    write_backbone(folder, load_model(folder, machine).model)
