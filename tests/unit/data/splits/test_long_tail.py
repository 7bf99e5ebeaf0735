"""The Pareto construction against the published VOC-LT list and the reference curves."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pareto

from capnet.data.splits.long_tail import (
    class_order,
    dragged_in,
    exponential_curve,
    long_tailed_draw,
    reference_curve,
)


def read_labels(path: Path, n_classes: int) -> tuple[list[str], np.ndarray]:
    with open(path) as file:
        rows = list(csv.DictReader(file))
    labels = np.zeros((len(rows), n_classes), dtype=bool)
    for number, row in enumerate(rows):
        labels[number, [int(index) for index in row["labels"].split()]] = True
    return [row["image"] for row in rows], labels


@pytest.fixture(scope="module")
def fixture(shared: Path) -> dict:
    return json.loads((shared / "reference" / "split_fixture.json").read_text())


@pytest.fixture(scope="module")
def voc(shared: Path) -> tuple[list[str], np.ndarray]:
    return read_labels(shared / "data/labels/voc2012_trainval.csv", 20)


def test_reference_curves_are_the_published_ones(fixture: dict) -> None:
    for name, n_classes in (("voc", 20), ("coco", 80)):
        curve = reference_curve(n_classes, fixture[name]["max"], fixture[name]["min"], fixture["pareto"]["shape_b"])
        assert curve.tolist() == fixture[name]["ref_dist"]


def test_reference_curve_starts_at_the_maximum_falls_and_stays_above_the_minimum() -> None:
    for n_classes, maximum, minimum, shape in ((1, 50, 3, 6.0), (7, 50, 50, 6.0), (1000, 500, 0, 2.0)):
        curve = reference_curve(n_classes, maximum, minimum, shape)
        assert curve[0] == maximum
        assert (np.diff(curve) <= 0).all()
        assert curve.min() >= minimum


def test_reference_curve_is_the_density_of_a_pareto_distribution() -> None:
    """As SciPy has it; the published curves lie outside the repository."""
    x = np.linspace(1.0, pareto.ppf(0.99, 6.0), 20)
    expected = np.floor((800 - 3) * pareto.pdf(x, 6.0) / 6.0 + 3)
    np.testing.assert_array_equal(reference_curve(20, 800, 3, 6.0), expected)


@pytest.mark.parametrize("seed", range(2))
def test_what_is_added_and_removed_makes_the_list_and_the_last_class_has_its_count(seed: int) -> None:
    labels = np.random.default_rng(seed).random((300, 6)) < 0.3
    draw = long_tailed_draw(labels, [80, 60, 40, 30, 20, 10], seed)
    assert min(draw.steps) < 0 < max(draw.steps)
    assert len(set(draw.rows)) == len(draw.rows) == sum(draw.steps)
    assert labels[draw.rows, draw.class_order[-1]].sum() == 10


def test_voc_lt_is_the_published_list_in_the_published_order(
    shared: Path, fixture: dict, voc: tuple[list[str], np.ndarray]
) -> None:
    ids, labels = voc
    assert ids == sorted(ids)
    draw = long_tailed_draw(labels, reference_curve(20, 800, 1, 6.0), seed=0)
    drawn = [ids[row] for row in draw.rows]
    published, published_labels = read_labels(shared / "data/labels/voc_lt_train.csv", 20)
    assert drawn == published
    assert hashlib.sha256("\n".join(drawn).encode()).hexdigest() == fixture["voc"]["sha256_ids_in_published_order"]
    assert draw.class_order == fixture["voc"]["class_rank"]
    assert draw.reference == fixture["voc"]["ref_dist"]
    assert draw.steps == fixture["voc"]["draw_steps_in_rank_order"]
    assert labels[draw.rows].sum(axis=0).tolist() == fixture["voc"]["class_counts"]
    assert (labels[draw.rows] == published_labels).all()


def test_class_score_is_the_sum_of_conditional_probabilities(fixture: dict, voc: tuple[list[str], np.ndarray]) -> None:
    np.testing.assert_allclose(dragged_in(voc[1]), fixture["voc"]["co_prob_column_sums"], rtol=1e-13)
    labels = np.random.default_rng(1).random((60, 7)) < 0.3
    expected = [sum((labels[:, i] & labels[:, j]).sum() / labels[:, i].sum() for i in range(7)) for j in range(7)]
    np.testing.assert_allclose(dragged_in(labels), expected, rtol=1e-13)
    assert class_order(labels).tolist() == sorted(range(7), key=lambda c: -expected[c])


def test_another_seed_draws_another_list_of_the_same_shape(voc: tuple[list[str], np.ndarray]) -> None:
    first, second = (long_tailed_draw(voc[1], reference_curve(20, 800, 1, 6.0), seed) for seed in (0, 1))
    assert first.rows != second.rows
    assert first.class_order == second.class_order
    assert first.steps[:1] == second.steps[:1] == [800]


def replay(
    draw_steps: Sequence[int], order: Sequence[int], reference: Sequence[int], labels: np.ndarray, rows: Sequence[int]
) -> None:
    """What must hold whatever was drawn: the first class reaches its count or all it has, no row twice."""
    assert len(set(rows)) == len(rows)
    first = order[0]
    assert draw_steps[0] == min(reference[0], labels[:, first].sum())
    assert labels[list(rows)].any(axis=1).all()  # a blank row has no class that could draw it


@pytest.mark.parametrize(("n_rows", "n_classes", "density"), [(400, 3, 0.2), (3000, 1000, 0.002), (200, 40, 0.08)])
def test_pools_that_run_short_are_used_up_and_never_overdrawn(n_rows: int, n_classes: int, density: float) -> None:
    labels = np.random.default_rng(n_classes).random((n_rows, n_classes)) < density
    labels[: int(0.7 * n_rows)] = False  # 70 % blank pictures
    draw = long_tailed_draw(labels, reference_curve(labels.shape[1], 5000, 4, 6.0), seed=3)
    replay(draw.steps, draw.class_order, draw.reference, labels, draw.rows)
    last = draw.class_order[-1]  # visited last, so nothing can change it afterwards
    assert labels[draw.rows][:, last].sum() == min(draw.reference[-1], labels[:, last].sum())


def test_the_exponential_curve_is_the_long_tailed_cifars() -> None:
    """CIFAR-10-LT with ratio 100: the ten counts that are printed in papers."""
    assert exponential_curve(10, 5000, 100).tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert exponential_curve(1, 7, 100).tolist() == [7]
    assert exponential_curve(4, 8, 8).tolist() == [8, 4, 2, 1]
    assert exponential_curve(3, 10, 1000).tolist() == [10, 1, 1]


def test_sparse_labels_give_the_same_list(voc: tuple[list[str], np.ndarray]) -> None:
    from scipy.sparse import csr_array

    reference = reference_curve(20, 800, 1, 6.0)
    assert long_tailed_draw(csr_array(voc[1]), reference, 0) == long_tailed_draw(voc[1], reference, 0)
