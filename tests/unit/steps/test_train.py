"""Stages graph and train on a few drawn pictures: what they write, what they refuse, and odd sets of labels."""

import json
from dataclasses import replace

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from capnet.config import parse
from capnet.contracts import make_classes, read_graph, write_classes, write_manifest
from capnet.errors import CapnetError, ConfigError, ContractError, DataError
from capnet.evaluation.tte import Scorer
from capnet.registry.figures import flat_params
from capnet.stages import run
from capnet.steps import train as train_stage
from tests.unit.model import tiny
from tests.unit.steps import small_training
from tests.unit.steps.small_training import NAMES, run_both, write_inputs

pytestmark = pytest.mark.slow

made = small_training.made
tiny_backbone = small_training.tiny_backbone


@pytest.mark.parametrize("of_val", [[], [*range(len(NAMES))]])
def test_validation_rows_of_one_kind_are_refused_before_an_epoch(of_val, made, tiny_backbone, monkeypatch):
    folder, frame = made
    frame["unknown"] = [[] for _ in range(len(frame))]
    frame["labels"] = [
        of_val if part == "val" else labels for part, labels in zip(frame["split"], frame["labels"], strict=True)
    ]
    write_inputs(folder, frame)
    steps = []
    monkeypatch.setattr("capnet.training.trainer.multilabel_loss", lambda *arguments: steps.append(1))
    with pytest.raises(DataError, match="no class has a positive validation row"):
        run_both(folder, tiny_backbone)
    assert not steps


def test_a_number_of_blocks_is_refused_where_the_tower_has_none(made):
    folder, frame = made
    write_inputs(folder, frame)
    tiny.register("tiny-resnet", folder / "configs")
    with pytest.raises(ConfigError, match="blocks = 2, and the image tower of tiny-resnet has no blocks"):
        run_both(folder, "tiny-resnet", adapter={"blocks": 2})
    assert not (folder / "model").exists()
    run_both(folder, "tiny-resnet", adapter={"blocks": 2, "enabled": False})


@pytest.mark.parametrize("mended", ["a positive", "empty"])
def test_given_validation_rows_without_a_positive_are_refused_with_advice_that_works(mended, made, tiny_backbone):
    folder, frame = made
    frame["given_split"], is_val = frame["split"], frame["split"] == "val"
    frame["labels"] = [[] if val else labels for val, labels in zip(is_val, frame["labels"], strict=True)]
    frame["unknown"] = [[] for _ in range(len(frame))]
    (folder / "manifest").mkdir()
    write_classes(folder / "manifest" / "classes.json", make_classes(NAMES))

    def split_and_train(source="train"):
        write_manifest(folder / "manifest" / "manifest.parquet", frame.drop(columns="split"))
        params = parse({"split": {"validation": {"source": source}}})
        run("split", params, {"manifest": folder / "manifest"}, {"split": folder / "split"})
        (folder / "validation").mkdir(exist_ok=True)
        run_both(folder, tiny_backbone)

    for source in ("train", "none"):  # rows that are given stay
        with pytest.raises(DataError, match="no class has a positive validation row") as caught:
            split_and_train(source)
    assert "give rows with a positive the split 'val' (column split)" in caught.value.problems[0].todo
    if mended == "empty":
        frame.loc[is_val, "given_split"] = None
        split_and_train("none")
    else:
        frame.at[25, "labels"] = [1]
        split_and_train()
    assert (folder / "model" / "model.safetensors").exists()


def test_the_model_folder_is_complete_and_equal_runs_give_equal_bytes(made, tiny_backbone):
    folder, frame = made
    write_inputs(folder, frame)
    run_both(folder, tiny_backbone)
    first = {path.name: path.read_bytes() for path in (folder / "model").iterdir()}
    assert sorted(first) == ["classes.json", "config.json", "graph.safetensors", "history.csv", "model.safetensors"]
    config = json.loads(first["config.json"])
    assert config["validation_rows"] == 6
    assert config["selected_epoch"] == 1
    views = {"views": 5, "size": 0, "expand": 8, "average": "logits", "resize": "short", "decode": "full"}
    assert config["tte"] == views
    assert flat_params(config)["runtime.seed"] == "0", "a parameter of the run"
    assert str(folder).encode() not in b"".join(first.values())
    run_both(folder, tiny_backbone)
    assert {path.name: path.read_bytes() for path in (folder / "model").iterdir()} == first
    assert not any((folder / "state" / "train").iterdir())


@pytest.mark.parametrize(("in_blocks", "many", "warned"), [(True, 20, True), (True, 21, False), (False, 20, False)])
def test_hours_on_a_cpu_are_warned_of(in_blocks, many, warned, made, tiny_backbone, monkeypatch, caplog):
    """20 training images, one epoch."""
    folder, frame = made
    write_inputs(folder, frame)
    monkeypatch.setattr(train_stage, "MANY_ON_A_CPU", many)
    run_both(folder, tiny_backbone, adapter={"in_blocks": in_blocks})
    assert ("train.adapter.in_blocks: false keeps the tower frozen" in caplog.text) == warned


def test_the_served_scores_are_the_mean_logit_over_crops_of_each_picture(made, tiny_backbone):
    folder, frame = made
    write_inputs(folder, frame)
    params, _ = run_both(folder, tiny_backbone)
    rows = frame[frame["split"] == "test"]
    scorer = Scorer(folder / "model", params.runtime)
    scored = scorer.score(rows, folder / "data", "test")
    model = scorer.loaded.model
    for number, (path, sha256) in enumerate(zip(rows["path"], rows["sha256"], strict=True)):
        views = scorer.transform.tensor(folder / "data", path, sha256)
        with torch.no_grad():
            logits = model(views)
        np.testing.assert_allclose(scored.scores["capnet"][number], logits.mean(dim=0).sigmoid(), atol=1e-5)
        np.testing.assert_allclose(scored.scores["single_view"][number], logits[4].sigmoid(), atol=1e-5)
    model.release_towers()
    features = Scorer(folder / "model", params.runtime).frozen(rows, folder / "data", "train").numpy()
    np.testing.assert_array_equal(features, scored.features)
    assert features.shape[:2] == (6, 5)
    assert set(scored.scores) == {"capnet", "single_view", "zero_shot", "zero_shot_single_view"}


def test_train_refuses_a_graph_of_other_prompt_names_or_other_classes(made, tiny_backbone):
    folder, frame = made
    write_inputs(folder, frame)
    params, _ = run_both(folder, tiny_backbone)
    train = {
        "split": folder / "split",
        "validation": folder / "validation",
        "graph": folder / "graph",
        "data": folder / "data",
    }
    write_classes(
        folder / "split" / "classes.json",
        make_classes(NAMES, {"red square": "crimson box"}).with_counts([9, 9, 9], (10, 5)),
    )
    with pytest.raises(ContractError, match="other prompt names"):
        run("train", params, train, {"model": folder / "other"})
    write_classes(folder / "split" / "classes.json", make_classes(NAMES[::-1]).with_counts([9, 9, 9], (10, 5)))
    with pytest.raises(ContractError, match="made for other classes"):
        run("train", params, train, {"model": folder / "other"})
    assert not (folder / "other").exists()


def test_train_refuses_a_graph_with_counts_of_another_split(made, tiny_backbone):
    """The counts may be those of images that are test images now."""
    folder, frame = made
    write_inputs(folder, frame)
    params = parse({"backbone": {"name": tiny_backbone, "pretrained": "random"}, "graph": {"source": "cooccurrence"}})
    inputs = {name: folder / name for name in ("split", "validation", "graph", "data")}
    run("graph", params, {name: inputs[name] for name in ("split", "validation")}, {"graph": folder / "graph"})
    write_inputs(folder, frame[frame.index != frame.index[frame["split"] == "train"][0]])
    with pytest.raises(ContractError, match=r"made from another split than[\s\S]*graph.safetensors[\s\S]*capnet graph"):
        run("train", params, inputs, {"model": folder / "model"})


def test_train_refuses_a_graph_of_another_backbone_with_the_same_weight_file(made):
    """ViT-B-16 and ViT-B-16-quickgelu read the same files, and make other features of the same text."""
    folder, frame = made
    write_inputs(folder, frame)
    for name, quick in (("tiny-act", False), ("tiny-act-quickgelu", True)):
        (folder / f"{name}.json").write_text(json.dumps({**tiny.CONFIGS["tiny-clip"], "quick_gelu": quick}))
        open_clip.add_model_config(folder / f"{name}.json")
    torch.save(open_clip.create_model("tiny-act", pretrained=None).state_dict(), folder / "weights.pt")
    inputs = {name: folder / name for name in ("split", "validation", "graph", "data")}
    plain, quick = (
        parse({"backbone": {"name": name, "pretrained": str(folder / "weights.pt")}})
        for name in ("tiny-act", "tiny-act-quickgelu")
    )
    run("graph", plain, {name: inputs[name] for name in ("split", "validation")}, {"graph": folder / "graph"})
    with pytest.raises(ContractError, match=r"= tiny-act, and it is tiny-act-quickgelu[\s\S]*graph.safetensors"):
        run("train", quick, inputs, {"model": folder / "model"})


@pytest.mark.parametrize("source", ["text", "cooccurrence", "blend"])
def test_every_graph_source_writes_a_stochastic_matrix_with_its_settings(source, made, tiny_backbone):
    folder, frame = made
    write_inputs(folder, frame)
    params = parse(
        {"backbone": {"name": tiny_backbone, "pretrained": "random"}, "graph": {"source": source, "top_k": 2}}
    )
    run("graph", params, {"split": folder / "split", "validation": folder / "validation"}, {"graph": folder / "graph"})
    graph = read_graph(folder / "graph" / "graph.safetensors", make_classes(NAMES))
    assert torch.allclose(graph.adjacency.sum(dim=1), torch.ones(3))
    assert ((graph.adjacency > 0).sum(dim=1) <= 2).all()
    assert graph.metadata["source"] == source
    with safe_open(folder / "graph" / "graph.safetensors", framework="pt") as file:
        assert set(file.keys()) == {"adjacency", "text_features"}


@pytest.mark.parametrize("case", ["70 % blank pictures", "10 % unknown labels", "1,000 classes"])
def test_odd_label_sets_train_to_finite_scores(case, made, tiny_backbone):
    folder, frame = made
    rng = np.random.default_rng(3)
    names = NAMES
    if case == "70 % blank pictures":
        blank = rng.permutation(32) < 22
        frame["labels"] = [
            np.array([], dtype=int) if empty else labels for empty, labels in zip(blank, frame["labels"], strict=True)
        ]
        frame.at[25, "labels"] = np.array([0, 1, 2])  # the validation rows keep positives
        frame["unknown"] = [[] for _ in range(32)]
    elif case == "10 % unknown labels":
        frame["unknown"] = [
            [c for c in range(3) if c not in labels and rng.random() < 0.2] for labels in frame["labels"]
        ]
    else:
        names = [f"kind {number}" for number in range(1000)]
        frame["labels"] = [np.sort(rng.choice(1000, 5, replace=False)) for _ in range(32)]
        frame["unknown"] = [[] for _ in range(32)]
    write_inputs(folder, frame, names)
    params, metrics = run_both(folder, tiny_backbone, epochs=4)
    assert np.isfinite(metrics["loss"])
    losses = pd.read_csv(folder / "model" / "history.csv")["loss"]
    assert losses.iloc[-1] < losses.iloc[0]
    scored = Scorer(folder / "model", params.runtime).score(frame[frame["split"] == "test"], folder / "data", "test")
    assert all(
        scores.shape == (6, len(names)) and np.isfinite(scores).all() and (scores > 0).all() and (scores < 1).all()
        for scores in scored.scores.values()
    )


def test_the_same_training_is_refused_until_the_first_one_has_ended(made, tiny_backbone, monkeypatch):
    folder, frame = made
    write_inputs(folder, frame)
    features, tried = train_stage.train_features, []

    def meanwhile(*arguments):
        if not tried:
            tried.append(1)
            with pytest.raises(CapnetError, match="already running"):
                run_both(folder, tiny_backbone)
        return features(*arguments)

    monkeypatch.setattr(train_stage, "train_features", meanwhile)
    run_both(folder, tiny_backbone)
    assert (folder / "model" / "model.safetensors").is_file()
    run_both(folder, tiny_backbone)


def test_a_model_is_not_measured_on_rows_that_it_was_trained_on(made, tiny_backbone):
    folder, frame = made
    write_inputs(folder, frame)
    params, _ = run_both(folder, tiny_backbone, out_of_fold=False)
    inputs = {name: folder / name for name in ("split", "model", "data")}
    run("evaluate", params, inputs, {"evaluation": folder / "evaluation"})
    seen, other = next(
        (one, two)
        for one in frame.index[frame["split"] == "train"]
        for two in frame.index[frame["split"] == "test"]
        if list(frame["labels"][one]) == list(frame["labels"][two])
    )
    write_inputs(folder, frame.assign(split=frame["split"].rename({seen: other, other: seen}).sort_index()))
    with pytest.raises(ContractError, match="trained or chosen on other rows than those of this split"):
        run("evaluate", params, inputs, {"evaluation": folder / "evaluation"})
    renamed = frame.copy()  # both files get the name of the other one
    renamed.loc[[seen, other], "sha256"] = frame.loc[[other, seen], "sha256"].to_numpy()
    write_inputs(folder, renamed)
    with pytest.raises(ContractError, match="trained or chosen on other rows than those of this split"):
        run("evaluate", params, inputs, {"evaluation": folder / "evaluation"})
    write_inputs(folder, frame[frame.index != other])  # other test rows are no reason
    run("evaluate", params, inputs, {"evaluation": folder / "evaluation"})


def test_images_resized_otherwise_than_for_the_weights_are_warned_of(made, tiny_backbone, monkeypatch, caplog):
    folder, frame = made
    write_inputs(folder, frame)
    load, warned = train_stage.load_towers, []
    for resize in ("squash", ""):
        monkeypatch.setattr(train_stage, "load_towers", lambda *settings, r=resize: replace(load(*settings), resize=r))
        caplog.clear()
        run_both(folder, tiny_backbone)
        warned.append(["resize: squash does, and tte.resize is short" in text for text in caplog.messages].count(True))
    assert warned == [1, 0]


def test_a_list_of_seeds_is_for_a_pipeline_and_changes_nothing_here(made, tiny_backbone, caplog):
    folder, frame = made
    write_inputs(folder, frame)
    written = []
    for seeds, expected in (((1, 2), 1), ((), 0)):
        caplog.clear()
        run_both(folder, tiny_backbone, {"seed": 5}, seeds=seeds)
        lines = [text for text in caplog.messages if "train.seeds" in text]
        assert len(lines) == expected
        assert all("runtime.seed = 5" in line and "[1, 2]" in line for line in lines)
        written.append({path.name: path.read_bytes() for path in (folder / "model").iterdir()})
    assert written[0] == written[1]  # the model of a pipeline, which hands the stage no list, has these bytes, too
