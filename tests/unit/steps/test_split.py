"""The split stage end to end: VOC-LT from files, files written, refusals and warnings, hostile label sets."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from capnet.config import Exponential, Ingest, Params, Pareto, RequirePositives, Split, Validation
from capnet.contracts import make_classes, read_classes, read_split, write_classes, write_manifest
from capnet.data.splits.long_tail import write_id_list
from capnet.errors import ConfigError, DataError
from capnet.stages import run


def manifest(
    folder: Path,
    labels: Sequence[Sequence[int]],
    n_classes: int,
    *,
    unknown: Sequence[Sequence[int]] | None = None,
    given: Sequence[str | None] | None = None,
    ids: Sequence[str] | None = None,
    order: np.ndarray | None = None,
) -> Path:
    n = len(labels)
    ids = list(ids) if ids is not None else [f"p{number:06d}" for number in range(n)]
    frame = pd.DataFrame(
        {
            "image_id": ids,
            "path": [f"images/{image}.jpg" for image in ids],
            "labels": list(labels),
            "unknown": list(unknown) if unknown is not None else [[] for _ in range(n)],
            "width": 10,
            "height": 10,
            "sha256": [hashlib.sha256(image.encode()).hexdigest() for image in ids],
            "group": pd.Series([None] * n, dtype=object),
            "slice": pd.Series([None] * n, dtype=object),
            "given_split": pd.Series(list(given) if given is not None else [None] * n, dtype=object),
        }
    )
    folder.mkdir(parents=True)
    write_manifest(folder / "manifest.parquet", frame if order is None else frame.iloc[order])
    write_classes(folder / "classes.json", make_classes([f"class {c}" for c in range(n_classes)]))
    return folder


def split(source: Path, out: Path, **settings: Any) -> tuple[pd.DataFrame, dict]:
    metrics = run("split", Params(split=Split(**settings)), {"manifest": source}, {"split": out})
    frame = read_split(out / "split.parquet")
    counts = frame["split"].value_counts()
    assert metrics == {f"{name}_rows": float(counts.get(name, 0)) for name in ("train", "val", "test")}
    return frame, json.loads((out / "split.json").read_text())


def random_labels(n_rows: int, n_classes: int, seed: int, blank: float = 0.0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    chosen = rng.random((n_rows, n_classes)) < np.maximum(0.4 / np.arange(1, n_classes + 1), 12 / n_rows)
    chosen[rng.random(n_rows) < blank] = False
    return [row.nonzero()[0].tolist() for row in chosen]


def test_voc_lt_comes_out_of_the_stage(shared: Path, tmp_path: Path) -> None:
    ids: list[str] = []
    labels: list[list[int]] = []
    given: list[str] = []
    for name, side in (("voc2012_trainval", "train"), ("voc2007_test", "test")):
        with open(shared / f"data/labels/{name}.csv") as file:
            for row in csv.DictReader(file):
                ids.append(row["image"])
                labels.append([int(c) for c in row["labels"].split()])
                given.append(side)
    order = np.random.default_rng(0).permutation(len(ids))  # the manifest's order must not matter
    source = manifest(tmp_path / "manifest", labels, 20, given=given, ids=ids, order=order)
    frame, decisions = split(
        source,
        tmp_path / "split",
        method="pareto",
        pareto=Pareto(max=800, min=1),
        validation=Validation(source="none"),
        benchmark="voc-lt",
    )
    expected = json.loads((shared / "reference/split_fixture.json").read_text())["voc"]
    train = frame[frame["split"] == "train"]
    assert (
        hashlib.sha256("\n".join(train["image_id"]).encode()).hexdigest() == expected["sha256_ids_in_published_order"]
    )
    classes = read_classes(tmp_path / "split/classes.json")
    assert classes.train_counts.tolist() == expected["class_counts"]
    for bucket, members in expected["groups"].items():
        assert [c for c, item in enumerate(classes.items) if item.bucket == bucket] == members
    assert [len(expected["groups"][bucket]) for bucket in ("head", "medium", "tail")] == [6, 6, 8]
    assert (frame["split"] == "test").sum() == expected["test_images"]
    assert decisions["rows"] == {"train": 1142, "val": 0, "test": 4952, "left_over": 11540 - 1142}
    assert decisions["extra_labels"] is False
    assert decisions["pareto"]["reference"] == expected["ref_dist"]
    assert decisions["pareto"]["steps"] == expected["draw_steps_in_rank_order"]
    assert decisions["pareto"]["class_order"] == [f"class {c}" for c in expected["class_rank"]]


def test_the_published_list_gives_the_same_rows_as_the_draw(shared: Path, tmp_path: Path) -> None:
    with open(shared / "data/labels/voc2012_trainval.csv") as file:
        rows = list(csv.DictReader(file))
    with open(shared / "data/labels/voc_lt_train.csv") as file:
        published = [row["image"] for row in csv.DictReader(file)]
    source = manifest(
        tmp_path / "manifest",
        [[int(c) for c in row["labels"].split()] for row in rows],
        20,
        ids=[row["image"] for row in rows],
    )
    write_id_list(source, "train", published)
    frame, decisions = split(source, tmp_path / "split", method="published", validation=Validation(source="pool"))
    assert frame[frame["split"] == "train"]["image_id"].tolist() == published
    assert decisions["rows"]["val"] == int(0.2 * 1142)
    assert decisions["validation_source"] == "pool"
    assert decisions["extra_labels"] is True
    assert decisions["test_source"] == "share"
    assert not set(frame[frame["split"] != "train"]["image_id"]) & set(published)


def test_every_output_is_equal_whatever_the_manifests_row_order(tmp_path: Path) -> None:
    labels = random_labels(300, 6, 0)
    for method in ("natural", "pareto"):
        for name, order in (("one", None), ("two", np.random.default_rng(1).permutation(300))):
            source = manifest(tmp_path / f"{method}-{name}", labels, 6, order=order)
            split(source, tmp_path / f"{method}-{name}-split", method=method, pareto=Pareto(max=60, min=5))
        for file in ("split.parquet", "classes.json", "split.json"):
            assert (tmp_path / f"{method}-one-split" / file).read_bytes() == (
                tmp_path / f"{method}-two-split" / file
            ).read_bytes()


@pytest.mark.parametrize(
    ("n_rows", "n_classes", "blank", "unsure"),
    [(1000, 12, 0.7, 0.0), (600, 12, 0.0, 0.1), (60, 3, 0.2, 0.1), (5000, 1000, 0.0, 0.0)],
)
def test_blanks_unknowns_few_and_many_classes(
    tmp_path: Path, n_rows: int, n_classes: int, blank: float, unsure: float
) -> None:
    labels = random_labels(n_rows, n_classes, 1, blank)
    rng = np.random.default_rng(2)
    unknown = [[c for c in range(min(n_classes, 50)) if c not in row and rng.random() < unsure] for row in labels]
    frame, decisions = split(manifest(tmp_path / "manifest", labels, n_classes, unknown=unknown), tmp_path / "split")
    assert len(frame) == n_rows  # natural keeps every row
    assert abs((frame["split"] == "test").sum() - 0.2 * n_rows) <= 1
    counts = [0] * n_classes
    for row in frame[frame["split"] == "train"]["labels"]:
        for c in row:
            counts[c] += 1
    assert read_classes(tmp_path / "split/classes.json").train_counts.tolist() == counts
    assert min(counts) >= 1
    assert decisions["rows"]["left_over"] == 0


def test_an_unknown_label_counts_nowhere(tmp_path: Path) -> None:
    labels = [[0, 1]] * 40
    unknown = [[1]] * 30 + [[]] * 10
    frame, _ = split(manifest(tmp_path / "manifest", labels, 2, unknown=unknown), tmp_path / "split")
    known = sum(
        1
        for image, side in zip(frame["image_id"], frame["split"], strict=True)
        if side == "train" and int(image[1:]) >= 30
    )
    assert read_classes(tmp_path / "split/classes.json").train_counts.tolist() == [
        (frame["split"] == "train").sum(),
        known,
    ]
    assert 0 < known < 10


def test_classes_short_of_positives_are_refused_with_their_counts(tmp_path: Path) -> None:
    labels = [[0]] * 50 + [[1]] * 2 + [[3, 0]] * 1
    source = manifest(tmp_path / "manifest", labels, 4)
    with pytest.raises(DataError) as caught:
        split(source, tmp_path / "split", require_positives=RequirePositives(train=2, val=1, test=1))
    assert not (tmp_path / "split").exists()
    train, val, test = caught.value.problems
    assert train.what == "2 of 4 classes have fewer than 2 known positives in train"
    assert train.where == "class 2: 0 (0 in all rows), class 3: 1 (1 in all rows)"
    assert val.where.startswith("class 1: 0 (2")
    assert "class 2: 0" in test.where
    assert "split.test_share" in test.todo
    assert "require_positives.test" in test.todo
    with pytest.raises(DataError) as caught:
        split(source, tmp_path / "split", require_positives=RequirePositives(train=2), validation=Validation(share=1.0))
    assert "lower split.validation.share" in caught.value.problems[0].todo, "it took the rows that train lacks"


def test_many_short_classes_are_counted_and_some_of_them_named(tmp_path: Path) -> None:
    source = manifest(tmp_path / "manifest", [[c] for c in range(50)], 50)
    with pytest.raises(DataError) as caught:
        split(source, tmp_path / "split", require_positives=RequirePositives(train=2))
    (problem,) = caught.value.problems
    assert problem.what == "50 of 50 classes have fewer than 2 known positives in train"
    assert problem.where.count("(1 in all rows)") == 30
    assert problem.where.endswith(" and 20 more")


def test_a_class_that_is_only_unknown_can_be_taken_out_without_a_list_of_classes(tmp_path: Path) -> None:
    """The class comes from the table, so the table is named and classes.csv only where there is one."""
    rows = "".join(f"images/{row}.jpg,{'cat' if row % 2 else 'dog'},{'bird' if row < 5 else ''}\n" for row in range(40))
    (tmp_path / "data").mkdir()

    def ingest_and_split(table: str) -> list[str]:
        (tmp_path / "data/labels.csv").write_text(f"path,labels,unknown\n{table}")
        params = Params(ingest=Ingest(images="listed"))
        run("ingest", params, {"data": tmp_path / "data"}, {"manifest": tmp_path / "manifest"})
        run("split", params, {"manifest": tmp_path / "manifest"}, {"split": tmp_path / "split"})
        return read_classes(tmp_path / "split/classes.json").names

    with pytest.raises(DataError) as caught:
        ingest_and_split(rows)
    (problem,) = caught.value.problems
    assert problem.where == "bird: 0 (0 in all rows)"
    assert "take the class out of the annotations (labels and unknown)" in problem.todo
    assert "out of classes.csv where there is one" in problem.todo
    assert ingest_and_split(rows.replace("bird", "")) == ["cat", "dog"]


def test_given_and_published_sides_only_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = [[0], [1], [2]] * 20 + [[0]] * 10 + [[0, 1]] * 10
    given = ["train"] * 60 + ["val"] * 10 + ["test"] * 10
    source = manifest(tmp_path / "manifest", labels, 3, given=given)
    with caplog.at_level(logging.WARNING, logger="capnet"):
        frame, decisions = split(source, tmp_path / "split", require_positives=RequirePositives(train=5, val=1, test=2))
    assert frame["split"].tolist() == given
    assert decisions["without_positives"] == {"train": [], "val": ["class 1", "class 2"], "test": ["class 2"]}
    assert decisions["warnings"] == [
        "fewer than 1 known positives in the given val rows: class 1: 0, class 2: 0",
        "no known positive in val, so left out of its means: class 1, class 2",
        "fewer than 2 known positives in the given test rows: class 2: 0",
        "no known positive in test, so left out of its means: class 2",
    ]
    assert [record.getMessage() for record in caplog.records] == decisions["warnings"]
    with pytest.raises(DataError, match="fewer than 21 known positives in train"):  # train is never only warned about
        split(source, tmp_path / "again", require_positives=RequirePositives(train=21))


def test_the_demo_case_draws_only_from_the_pool(tmp_path: Path) -> None:
    labels = random_labels(1200, 10, 3)
    given = ["train"] * 800 + ["val"] * 100 + ["test"] * 300
    source = manifest(tmp_path / "manifest", labels, 10, given=given)
    frame, decisions = split(source, tmp_path / "split", method="pareto", pareto=Pareto(max=150, min=4))
    side = dict(zip(frame["image_id"], frame["split"], strict=True))
    for number, name in enumerate(given):
        assert side.get(f"p{number:06d}") in ((name,) if name != "train" else ("train", None))
    assert decisions["validation_source"] == "given"
    assert decisions["extra_labels"] is True
    assert decisions["rows"]["left_over"] == 800 - decisions["rows"]["train"] > 0


def test_a_validation_share_of_nothing_is_a_warning(tmp_path: Path) -> None:
    source = manifest(tmp_path / "manifest", random_labels(200, 3, 0), 3)
    frame, decisions = split(source, tmp_path / "split", validation=Validation(source="train", share=0.0))
    assert not (frame["split"] == "val").any()
    assert decisions["validation_source"] == "none"
    assert "no validation rows" in decisions["warnings"][0]


def test_published_needs_a_list_of_this_manifest(tmp_path: Path) -> None:
    source = manifest(tmp_path / "manifest", [[0]] * 30, 1)
    with pytest.raises(ConfigError, match=r"ingest\.train_list is empty"):
        split(source, tmp_path / "split", method="published")
    write_id_list(source, "train", ["p000001", "p000099"])
    write_id_list(source, "test", ["elephant"])
    with pytest.raises(DataError) as caught:
        split(source, tmp_path / "split", method="published")
    assert [(problem.what, problem.where) for problem in caught.value.problems] == [
        ("image id 'p000099' is listed and has no row", "train_list.txt"),
        ("image id 'elephant' is listed and has no row", "test_list.txt"),
    ]


def test_coco_lt_published_list_gives_its_counts_and_groups(shared: Path, tmp_path: Path) -> None:
    ids: list[str] = []
    labels: list[list[int]] = []
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for name, side in (("coco_lt_train", "train"), ("coco2017_val", "test")):
        with open(shared / f"data/labels/{name}.csv") as file:
            for row in csv.DictReader(file):
                ids.append(row["image"])
                labels.append([int(c) for c in row["labels"].split()])
                lists[side].append(row["image"])
    ids += [f"{number:012d}" for number in range(1, 100)]  # rows of train2017 that the list leaves out
    labels += [[number % 80] for number in range(1, 100)]
    source = manifest(tmp_path / "manifest", labels, 80, ids=ids)
    for side, listed in lists.items():
        write_id_list(source, side, listed)
    frame, decisions = split(
        source, tmp_path / "split", method="published", validation=Validation(source="none"), benchmark="coco-lt"
    )
    expected = json.loads((shared / "reference/split_fixture.json").read_text())["coco"]
    train = frame[frame["split"] == "train"]["image_id"].tolist()
    assert (
        hashlib.sha256("\n".join(image.lstrip("0") for image in train).encode()).hexdigest()
        == expected["sha256_ids_in_published_order"]
    )
    assert decisions["rows"] == {"train": 1909, "val": 0, "test": 5000, "left_over": 99}
    classes = read_classes(tmp_path / "split/classes.json")
    assert classes.train_counts.tolist() == expected["class_counts"]
    for bucket, members in expected["groups"].items():
        assert [c for c, item in enumerate(classes.items) if item.bucket == bucket] == members
    assert [len(expected["groups"][bucket]) for bucket in ("head", "medium", "tail")] == [22, 33, 25]
    blank = frame["labels"].map(len) == 0
    assert (blank & (frame["split"] == "test")).sum() == expected["test_images_without_label"]
    write_id_list(source, "train", [*lists["train"][:-1], ids[-1]])
    with pytest.raises(DataError) as caught:
        split(source, tmp_path / "again", method="published", validation=Validation(source="none"), benchmark="coco-lt")
    different = caught.value.problems[0]
    lost, gained = set(labels[1908]), set(labels[-1])
    assert different.what == f"{len(lost ^ gained)} of 80 training counts are not the published ones"


def test_an_exponential_draw_falls_by_one_factor(tmp_path: Path) -> None:
    labels = [[c] for c in range(5) for _ in range(200)]
    frame, decisions = split(
        manifest(tmp_path / "manifest", labels, 5),
        tmp_path / "split",
        method="exponential",
        exponential=Exponential(max=80, ratio=16),
        validation=Validation(source="none"),
    )
    assert sorted(read_classes(tmp_path / "split/classes.json").train_counts.tolist(), reverse=True) == [
        80,
        40,
        20,
        10,
        5,
    ]
    assert decisions["exponential"]["reference"] == [80, 40, 20, 10, 5]
    assert (frame["split"] == "train").sum() == 155


def test_the_benchmark_is_refused_for_other_classes_and_rows(tmp_path: Path) -> None:
    source = manifest(tmp_path / "manifest", [[0]] * 30, 1)
    with pytest.raises(DataError) as caught:
        split(source, tmp_path / "split", benchmark="voc-lt", validation=Validation(source="none"))
    assert [problem.what for problem in caught.value.problems] == [
        "24 train rows, published are 1142",
        "6 test rows, published are 4952",
        "1 classes, published are 20",
    ]
