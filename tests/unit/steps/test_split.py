"""The split stage on made-up manifests: files written, refusals and warnings, hostile label sets."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from capnet.config import Exponential, Ingest, Params, Pareto, RequirePositives, Validation
from capnet.contracts import read_classes
from capnet.errors import DataError
from capnet.stages import run
from tests.unit.steps.manifests import manifest, random_labels, split


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
        for image, part in zip(frame["image_id"], frame["split"], strict=True)
        if part == "train" and int(image[1:]) >= 30
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


def test_a_class_that_only_test_rows_have_is_not_said_to_be_held_out_for_validation(tmp_path: Path) -> None:
    splits = ["test"] * 4 + [None] * 40
    source = manifest(tmp_path / "manifest", [[1]] * 4 + [[0]] * 40, 2, splits=splits)
    with pytest.raises(DataError) as caught:
        split(source, tmp_path / "split")
    (problem,) = caught.value.problems
    assert problem.where == "class 1: 0 (4 in all rows)"
    assert problem.todo.startswith("their other images are test rows: add images of these classes; or set split.requ")


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
    given_split = ["train"] * 60 + ["val"] * 10 + ["test"] * 10
    source = manifest(tmp_path / "manifest", labels, 3, splits=given_split)
    with caplog.at_level(logging.WARNING, logger="capnet"):
        frame, decisions = split(source, tmp_path / "split", require_positives=RequirePositives(train=5, val=1, test=2))
    assert frame["split"].tolist() == given_split
    assert decisions["without_positives"] == {"train": [], "val": ["class 1", "class 2"], "test": ["class 2"]}
    assert decisions["warnings"] == [
        "fewer than 1 known positives in the given val rows: class 1: 0, class 2: 0",
        "no known positive in val, so left out of its means: class 1, class 2",
        "fewer than 2 known positives in the given test rows: class 2: 0",
        "no known positive in test, so left out of its means: class 2",
        "no known negative in val, so without average precision: class 0",
        "no known negative in test, so without average precision: class 0, class 1",
    ]
    assert [record.getMessage() for record in caplog.records] == decisions["warnings"]
    with pytest.raises(DataError, match="fewer than 21 known positives in train"):  # train is never only warned about
        split(source, tmp_path / "again", require_positives=RequirePositives(train=21))


def test_the_demo_case_draws_only_from_the_pool(tmp_path: Path) -> None:
    labels = random_labels(1200, 10, 3)
    given_split = ["train"] * 800 + ["val"] * 100 + ["test"] * 300
    source = manifest(tmp_path / "manifest", labels, 10, splits=given_split)
    frame, decisions = split(source, tmp_path / "split", method="pareto", pareto=Pareto(max=150, min=4))
    part = dict(zip(frame["image_id"], frame["split"], strict=True))
    for number, name in enumerate(given_split):
        assert part.get(f"p{number:06d}") in ((name,) if name != "train" else ("train", None))
    assert decisions["validation_source"] == "given"
    assert decisions["extra_labels"] is True
    assert decisions["rows"]["left_over"] == 800 - decisions["rows"]["train"] > 0


def test_a_validation_share_of_nothing_is_a_warning(tmp_path: Path) -> None:
    source = manifest(tmp_path / "manifest", random_labels(200, 3, 0), 3)
    frame, decisions = split(source, tmp_path / "split", validation=Validation(source="train", share=0.0))
    assert not (frame["split"] == "val").any()
    assert decisions["validation_source"] == "none"
    assert "no validation rows" in decisions["warnings"][0]


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
