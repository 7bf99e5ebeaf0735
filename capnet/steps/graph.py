"""Stage graph: hand-written prompts -> text features -> label-correlation graph."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from capnet.config import Graph, Params
from capnet.contracts import Classes, LabelGraph, known_labels, read_classes, read_split, tree_hash, write_graph
from capnet.errors import some
from capnet.model.backbones import load_towers
from capnet.model.graph import adjacency, blend, cooccurrence, cosine_similarity
from capnet.model.towers import TextTower
from capnet.runtime import prepare

logger = logging.getLogger(__name__)


def graph(params: Params, inputs: dict[str, Path], outputs: dict[str, Path]) -> dict[str, float]:
    """Build the graph from the text tower, from train co-occurrence, or from a count-weighted blend of both.

    Args:
        params: all settings.
        inputs: folders split and validation.
        outputs: folder graph.

    Returns:
        Figures of the graph by name.

    Raises:
        ConfigError: a text is longer than the text tower's context.
    """
    classes = read_classes(inputs["split"] / "classes.json")
    settings = params.graph
    machine = prepare(params.runtime)
    towers = load_towers(params.backbone).to(machine.device)
    texts = [settings.template.format(name) for name in classes.prompt_names]
    towers.text.refuse_cut(texts, classes.prompt_names, "graph.template")
    _warn_of_equal_texts(towers.text, texts, classes.names)
    with torch.no_grad():
        features = towers.text(texts).float().cpu()
    train = None
    if settings.source != "text":
        table = read_split(inputs["split"] / "split.parquet")
        train = table[table["split"] == "train"]
    matrix = graph_of(features, classes, train, settings)
    metadata = {
        **settings.model_dump(mode="json"),
        "backbone": params.backbone.name,
        "weight_hash": towers.weight_hash,
        "class_fingerprint": classes.fingerprint,
        "prompt_fingerprint": classes.prompt_fingerprint(settings.template, towers.weight_hash),
    }
    if train is not None:
        metadata["split_md5"] = tree_hash(inputs["split"])
    write_graph(outputs["graph"] / "graph.safetensors", LabelGraph(matrix, features, metadata))
    return {"classes": len(classes), "edges": int((matrix > 0).sum()) - len(classes)}


def _warn_of_equal_texts(text: TextTower, texts: Sequence[str], names: Sequence[str]) -> None:
    """CLIP's tokenizer makes all letters small; BERT's has one token for all that it cannot spell, such as emoji."""
    alike = defaultdict(list)
    for name, tokens in zip(names, text.tokenize(texts).tolist(), strict=True):
        alike[tuple(tokens)].append(name)
    groups = [f"({some(group)})" for group in alike.values() if len(group) > 1]
    if groups:
        logger.warning(
            "the text tower cannot tell classes apart, because their texts are the same tokens: %s. Zero-shot scores"
            " them alike; write a prompt_name of its own for each into data/classes.csv",
            some(groups),
        )


def graph_of(text_features: Tensor, classes: Classes, train: pd.DataFrame | None, settings: Graph) -> Tensor:
    """The adjacency that the GCN uses.

    Args:
        text_features: of the classes' prompts [class, embed].
        classes: with their training counts.
        train: training rows; may be None where ``settings.source`` is text.
        settings: the section ``graph``.

    Returns:
        float32 [class, class].
    """
    similarity = cosine_similarity(text_features)
    if settings.source != "text":
        assert train is not None
        counted = torch.from_numpy(cooccurrence(*known_labels(train, len(classes)))).float()
        if settings.source == "cooccurrence":
            similarity = counted
        else:
            counts = torch.from_numpy(classes.train_counts).float()
            similarity = blend(similarity, counted, counts, settings.blend_count)
    return adjacency(similarity, settings.top_k, settings.s, settings.tau, settings.normalisation)
