"""What is published, as the paper command compares with it: lists, weights, results of others, how peers rank."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from benchmarks.paper_lists import PUBLISHED, check_files, check_weights, ids_hash, list_ids
from benchmarks.paper_table import our_protocol, softmax_over_classes
from benchmarks.published_results import MARKS, PROTOCOL, RESULTS
from capnet.commands.preset import read
from capnet.data.splits.published import BENCHMARKS
from capnet.errors import ConfigError, DataError
from capnet.evaluation.metrics import average_precision
from capnet.model.backbones.openai_weights import OPENAI_WEIGHTS

pytestmark = pytest.mark.slow


def test_weights_are_known_by_hash_and_others_leave_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"stands in for the published file")
    digest = ids_hash(["stands in for the published file"])
    monkeypatch.setitem(OPENAI_WEIGHTS, digest, "ViT-B-16")
    assert check_weights("ViT-B-16", str(path), ()) == (digest, "")
    with pytest.raises(ConfigError, match="that of ViT-B-16; published for RN50 is afeb0e10"):
        check_weights("RN50", str(path), ())
    other = path.rename(tmp_path / "weights.safetensors")
    other.write_bytes(b"others")
    assert "was not checked" in check_weights("RN50", str(other), ())[1]
    assert "QuickGELU" in check_weights("RN50", str(other), ())[1]
    assert "no hash was compared" in check_weights("RN50", "openai", ("openai",))[1]


def listed(shared: Path, file: str) -> list[str]:
    with open(shared / "data/labels" / file, newline="") as rows:
        return [row["image"] for row in csv.DictReader(rows)]


def test_hashes_are_those_of_the_published_lists(shared: Path, tmp_path: Path) -> None:
    fixture = json.loads((shared / "reference/split_fixture.json").read_text())
    assert (
        PUBLISHED["voc-lt"].splits["train"]
        == fixture["voc"]["sha256_ids_sorted"]
        == ids_hash(listed(shared, "voc_lt_train.csv"))
    )
    assert PUBLISHED["coco-lt"].splits == {
        split: ids_hash(listed(shared, file))
        for split, file in (("train", "coco_lt_train.csv"), ("test", "coco2017_val.csv"))
    }
    main = "ImageSets/Main"
    for file, ids in (
        (f"VOCdevkit/VOC2012/{main}/trainval.txt", "voc2012_trainval.csv"),
        (f"VOCdevkit/VOC2007/{main}/test.txt", "voc2007_test.csv"),
    ):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("\n".join(listed(shared, ids)) + "\n")
    check_files("voc-lt", tmp_path, PUBLISHED["voc-lt"])
    ids = listed(shared, "coco_lt_train.csv")
    (tmp_path / "coco_lt_train.txt").write_text("\n".join(str(int(image)) for image in reversed(ids)))
    check_files("coco-lt", tmp_path, PUBLISHED["coco-lt"])
    (tmp_path / "coco_lt_train.txt").write_text("\n".join([*ids[:-1], "000000000001"]))
    with pytest.raises(DataError, match="1,909 image ids, as published, but not the same ones"):
        check_files("coco-lt", tmp_path, PUBLISHED["coco-lt"])


def test_test_counts_are_those_of_the_published_list(shared: Path) -> None:
    with open(shared / "data/labels/voc2007_test.csv", newline="") as rows:
        counts = Counter(int(c) for row in csv.DictReader(rows) for c in row["labels"].split())
    assert PUBLISHED["voc-lt"].test_counts == tuple(counts[c] for c in range(20))


def test_coco_lists_of_ids_and_of_paths_with_labels_name_the_same_images(tmp_path: Path) -> None:
    path = tmp_path / "coco_lt_train.txt"
    path.write_text("554625\n118113\n")  # as Wu et al. publish it
    assert list_ids(path, "coco-lt") == ["000000554625", "000000118113"]
    path.write_text("train2017/000000554625.jpg 0 62 64 66 \ntrain2017/000000118113.jpg 39 60\n")  # as LMPT does
    assert list_ids(path, "coco-lt") == ["000000554625", "000000118113"]


def test_zero_shot_rows_carry_what_lmpts_zero_shot_code_does() -> None:
    """zero_shot_clip/ of LMPT's repository: clip.load's own transform, and images without labels are passed over."""
    rows = [row for results in RESULTS.values() for row in results if row.method == "zero-shot CLIP"]
    assert [row.protocol for row in rows] == ["agkl"] * 4
    assert "centre" in PROTOCOL["k"]
    assert "without labels" in PROTOCOL["l"]


def test_rows_of_lm_clip_carry_that_its_epoch_is_chosen_on_test_images() -> None:
    """Mode valid of its dataset_loaders/ reads voc_lt_test.txt and coco_lt_test.txt, and the best mAP is kept."""
    rows = [row for results in RESULTS.values() for row in results if row.method in ("LM-CLIP", "TailCLIP")]
    assert [row.protocol for row in rows] == ["acdfh"] * 4
    assert "test images" in PROTOCOL["h"]


@pytest.mark.parametrize(
    ("name", "file"),
    [("voc-lt", "voc20_classes.txt"), ("coco-lt", "coco80_classes.txt"), ("nus-wide", "nuswide81_classes.txt")],
)
def test_the_classes_that_our_protocol_names_are_those_of_the_benchmark(name: str, file: str, shared: Path) -> None:
    (line,) = (line for line in our_protocol(name, read(name)) if line.startswith("class names"))
    named = line.partition("(")[2].partition(")")[0].split(", ")
    assert set(named) <= set((shared / "data/labels" / file).read_text().splitlines())


@pytest.mark.parametrize("name", ["voc-lt", "coco-lt"])
def test_published_totals_are_those_of_their_groups(name: str) -> None:
    counts = np.array(BENCHMARKS[name].counts)
    sizes = [int((counts >= 100).sum()), int(((counts < 100) & (counts >= 20)).sum()), int((counts < 20).sum())]
    whole = [result for result in RESULTS[name] if None not in result.figures and "do not agree" not in result.source]
    assert len(whole) > 20
    for result in whole:
        total, *groups = result.figures
        assert total == pytest.approx(np.average(np.array(groups, dtype=float), weights=sizes), abs=0.7), result.method
    for result in RESULTS[name]:
        assert result.mark in MARKS
        assert set(result.protocol) <= set(PROTOCOL)


def test_a_softmax_over_classes_ranks_as_the_peers_do(shared: Path) -> None:
    content = json.loads((shared / "reference/map_fixture.json").read_text())
    logits, labels = np.array(content["cases"][0]["logits"]), np.array(content["labels"], dtype=bool)
    ranked = softmax_over_classes(expit(3 * logits - 2).astype(np.float32), scale=3, bias=-2)
    for scores, expected in ((ranked, 0.525), (expit(logits), 0.538)):
        assert average_precision(labels, scores, np.ones_like(labels)).mean() == pytest.approx(expected, abs=5e-4)
