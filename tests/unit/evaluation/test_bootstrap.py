"""Bootstrap draws and intervals against a plain loop over scikit-learn, and their coverage in simulation."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from scipy.stats import norm, t
from sklearn.metrics import average_precision_score, f1_score
from unit.evaluation.made_scores import Made, make

from capnet.contracts import unit_codes
from capnet.evaluation.bootstrap import MIN_POSITIVES, draw_weights, interval
from capnet.evaluation.rates import proportion_interval
from capnet.evaluation.report.words import difference
from capnet.evaluation.variants import Variant, compare_variants

BUCKETS = ["head", "medium", "tail", "tail"]


def _units(pictures: int) -> np.ndarray:
    return unit_codes([None] * pictures)


def test_draws_keep_the_number_of_pictures_and_do_not_depend_on_blocks() -> None:
    whole = np.concatenate(list(draw_weights(_units(50), 30, 30)), axis=1)
    blocks = np.concatenate(list(draw_weights(_units(50), 30, 7)), axis=1)
    np.testing.assert_array_equal(whole, blocks)
    assert whole.shape == (50, 30)
    assert (whole.sum(axis=0) == 50).all()
    assert whole.std() > 0.5


def test_pictures_of_a_group_are_drawn_together() -> None:
    units = unit_codes(["a", None, "a", "b", "", float("nan"), "b"])
    assert units[0] == units[2]
    assert units[3] == units[6]
    assert len(set(units)) == 5
    weights = next(draw_weights(units, 40, 40))
    np.testing.assert_array_equal(weights[0], weights[2])
    np.testing.assert_array_equal(weights[3], weights[6])


def _plain_loop(made: Made, thresholds: np.ndarray, draws: int) -> dict[str, np.ndarray]:
    """Every mean of every draw, one scikit-learn call at a time."""
    rng, n = np.random.default_rng(0), len(made.labels)
    result: dict[str, list[float]] = {
        name: [] for name in ("mAP", "head", "medium", "tail", "CF1", "OF1", "CF1_chosen", "OF1_chosen", "class0")
    }
    for _ in range(draws):
        rows = rng.integers(0, n, n)
        ap, f1 = np.full(4, np.nan), np.full((2, 4), np.nan)
        pairs: list[list[np.ndarray]] = [[], []]
        for c in range(4):
            kept = rows[made.known[rows, c]]
            y, s = made.labels[kept, c], made.scores[kept, c]
            for k, cut in enumerate((0.5, thresholds[c])):
                pairs[k].append(np.stack([y, s >= cut]))
            if y.any():
                ap[c] = average_precision_score(y, s)
                f1[0, c], f1[1, c] = f1_score(y, s >= 0.5), f1_score(y, s >= thresholds[c])
        result["mAP"].append(np.nanmean(ap))
        result["head"].append(ap[0])
        result["medium"].append(ap[1])
        result["tail"].append(np.nanmean(ap[2:]) if not np.isnan(ap[2:]).all() else np.nan)
        for k, suffix in enumerate(("", "_chosen")):
            result[f"CF1{suffix}"].append(np.nanmean(f1[k]))
            y, decided = np.concatenate(pairs[k], axis=1)
            result[f"OF1{suffix}"].append(f1_score(y, decided))
        result["class0"].append(ap[0])
    return {name: np.array(values) for name, values in result.items()}


def _moved(sample: np.ndarray, point: float, positives: int) -> tuple[float, float]:
    """``positives``: images with one. Student's t is as much wider than the normal distribution as few of them ask."""
    kept = sample[~np.isnan(sample)]
    share = 100 * norm.cdf(t(df=positives - 1).ppf(0.025) * (positives / (positives - 1)) ** 0.5)
    low, high = np.percentile(kept, [share, 100 - share])
    return low + point - kept.mean(), high + point - kept.mean()


@pytest.mark.slow
def test_compare_is_the_plain_loop() -> None:
    one, other = make(45, 4, seed=1, unknown=0.1, levels=9, rarest=0.06), make(45, 4, seed=9, levels=9, gain=0.5)
    other = Made(one.labels, one.known, other.scores)
    assert one.labels[:, 3].sum() in (1, 2, 3), "the rarest class must lose its positives in some draws"
    cuts = np.array([0.4, 0.3, 0.5, 0.2], dtype=np.float32)
    variants = {"capnet": Variant(one.scores, cuts), "zero_shot": Variant(other.scores, cuts)}
    compared = compare_variants(one.labels, one.known, variants, BUCKETS, _units(45), 60)
    first, second = _plain_loop(one, cuts, 60), _plain_loop(other, cuts, 60)
    columns = {"head": [0], "medium": [1], "tail": [2, 3]}
    for name in ("mAP", "head", "medium", "tail", "CF1", "OF1", "CF1_chosen", "OF1_chosen"):
        positives = sum(map(any, one.labels[:, columns.get(name, [0, 1, 2, 3])]))
        values, difference = compared.values["capnet"], compared.differences["capnet-zero_shot"]
        assert (values[f"{name}_low"], values[f"{name}_high"]) == pytest.approx(
            _moved(first[name], values[name], positives), abs=1e-5
        )
        expected = _moved(first[name] - second[name], values[name] - compared.values["zero_shot"][name], positives)
        assert (difference[f"{name}_low"], difference[f"{name}_high"]) == pytest.approx(expected, abs=1e-5)
        assert difference[name] == pytest.approx(values[name] - compared.values["zero_shot"][name], abs=1e-12)
    assert (compared.ap_low[0], compared.ap_high[0]) == pytest.approx(
        _moved(first["class0"], compared.ap["capnet"][0], one.labels[:, 0].sum()), abs=1e-5
    )
    assert compared.values["capnet"]["mAP"] == pytest.approx(np.mean(compared.ap["capnet"]), abs=1e-12)


def test_a_class_interval_needs_ten_positives() -> None:
    made = make(60, 4, seed=2)
    labels = made.labels.copy()
    labels[:, 0], labels[:, 1] = np.arange(60) < MIN_POSITIVES, np.arange(60) < MIN_POSITIVES - 1
    compared = compare_variants(labels, made.known, {"capnet": Variant(made.scores)}, BUCKETS, _units(60), 100)
    assert compared.ap_low[0] < compared.ap["capnet"][0] < compared.ap_high[0]
    assert np.isnan(compared.ap_low[1])
    assert np.isnan(compared.ap_high[1])


@pytest.mark.parametrize(("patients", "has_interval"), [(MIN_POSITIVES, True), (MIN_POSITIVES - 1, False)])
def test_positives_of_one_group_count_once_for_a_class_interval(patients: int, has_interval: bool) -> None:
    made = make(80, 4, seed=2)
    labels = made.labels.copy()
    labels[:, 0] = np.arange(80) < 4 * patients  # of each patient four images
    groups = unit_codes([f"patient {row // 4}" for row in range(80)])
    compared = compare_variants(labels, made.known, {"capnet": Variant(made.scores)}, BUCKETS, groups, 100)
    assert np.isfinite(compared.ap_low[0]) == np.isfinite(compared.ap_high[0]) == has_interval


def test_equal_variants_differ_by_nothing() -> None:
    made = make(60, 4, seed=3)
    same = Variant(made.scores, np.full(4, 0.3, dtype=np.float32))
    compared = compare_variants(made.labels, made.known, {"capnet": same, "zero_shot": same}, BUCKETS, _units(60), 100)
    assert set(compared.differences["capnet-zero_shot"].values()) == {0.0}
    assert compared.values["capnet"] == compared.values["zero_shot"]


def test_groups_of_copies_give_the_interval_of_the_originals() -> None:
    made = make(40, 4, seed=4, rarest=0.1)
    once = compare_variants(made.labels, made.known, {"capnet": Variant(made.scores)}, BUCKETS, _units(40), 150)
    four = [np.repeat(part, 4, axis=0) for part in (made.labels, made.known, made.scores)]
    groups = unit_codes([f"patient {row // 4}" for row in range(160)])
    together = compare_variants(four[0], four[1], {"capnet": Variant(four[2])}, BUCKETS, groups, 150)
    for name, value in once.values["capnet"].items():
        assert together.values["capnet"][name] == pytest.approx(value, abs=1e-5)
    apart = compare_variants(four[0], four[1], {"capnet": Variant(four[2])}, BUCKETS, _units(160), 150).values["capnet"]
    assert apart["mAP_high"] - apart["mAP_low"] < 0.7 * (
        together.values["capnet"]["mAP_high"] - together.values["capnet"]["mAP_low"]
    )


def test_pictures_of_one_group_have_figures_and_no_intervals() -> None:
    """Every draw would be the data itself: an interval without width would call any difference certain."""
    made = make(60, 4, seed=3)
    variants = {"capnet": Variant(made.scores), "zero_shot": Variant(1 - made.scores)}
    apart = compare_variants(made.labels, made.known, variants, BUCKETS, _units(60), 100)
    compared = compare_variants(made.labels, made.known, variants, BUCKETS, unit_codes(["site"] * 60), 100)
    assert compared.values["capnet"] == {
        name: value for name, value in apart.values["capnet"].items() if not name.endswith(("_low", "_high"))
    }
    assert compared.differences["capnet-zero_shot"].keys() == compared.values["capnet"].keys()
    assert np.isnan(compared.ap_low).all()
    assert np.isfinite(apart.ap_low).any()


def test_what_cannot_be_measured_is_left_out_and_never_nan() -> None:
    made = make(50, 3, seed=5)
    labels = made.labels.copy()
    labels[:, 2] = False
    compared = compare_variants(
        labels, made.known, {"capnet": Variant(made.scores)}, ["medium", "medium", "tail"], _units(50), 100
    )
    assert not {"head", "tail", "tail_low", "CF1_chosen"} & set(compared.values["capnet"])
    assert np.isfinite(list(compared.values["capnet"].values())).all()
    assert np.isnan(compared.ap["capnet"][2])


@pytest.mark.parametrize("grouped", [False, True])
def test_what_is_left_without_one_picture_is_the_least_of_all(grouped: bool) -> None:
    one, other = make(60, 4, seed=1, rarest=0.03), make(60, 4, seed=2, gain=0.2)
    units = np.arange(60) // 3 if grouped else _units(60)
    variants = {"capnet": Variant(one.scores), "zero_shot": Variant(other.scores)}
    compared = compare_variants(one.labels, one.known, variants, BUCKETS, units, 20).differences["capnet-zero_shot"]
    expected = []
    for unit in np.unique(units):
        rows, gaps = units != unit, []
        for c in range(4):
            kept = rows & one.known[:, c]
            if one.labels[kept, c].any():
                y = one.labels[kept, c]
                gaps.append(
                    average_precision_score(y, one.scores[kept, c]) - average_precision_score(y, other.scores[kept, c])
                )
        expected.append(np.mean(gaps))
    assert compared["mAP"] > 0
    assert compared["mAP_without_one"] == pytest.approx(min(expected), abs=1e-6)


def test_a_difference_that_one_negative_picture_makes_hangs_on_it() -> None:
    labels = np.zeros((1200, 1), dtype=bool)
    labels[[7, 11]] = True
    scores = {name: np.linspace(0.5, 0.4, 1200, dtype=np.float32)[:, None] for name in ("capnet", "linear_probe")}
    for item in scores.values():
        item[[7, 11], 0] = 0.8, 0.7
    scores["capnet"][1150] = 0.9  # one of more pictures than are left out in turn
    variants = {name: Variant(item) for name, item in scores.items()}
    result = compare_variants(labels, np.ones_like(labels), variants, ["tail"], np.arange(1200), 200)
    paired = result.differences["capnet-linear_probe"]
    assert paired["tail"] == pytest.approx(-5 / 12)
    assert paired["tail_without_one"] == pytest.approx(0, abs=1e-6)
    assert "hangs on one picture" in difference(paired, "tail")["sentence"]


def test_a_picture_that_is_all_positives_of_a_tail_leaves_nothing() -> None:
    """As a user met it: two classes with one test picture, the same one, which the model ranks first and the other
    second.
    """
    labels, rng = np.zeros((40, 4), dtype=bool), np.random.default_rng(0)
    labels[:20, 0], labels[10:30, 1], labels[39, 2:] = True, True, True
    scores = rng.random((40, 4)).astype(np.float32) * 0.5
    first, second = scores.copy(), scores.copy()
    first[39, 2:], second[39, 2:] = 0.9, np.sort(scores[:39, 2:], axis=0)[-2:].mean(axis=0)
    variants = {"capnet": Variant(first), "zero_shot": Variant(second)}
    compared = compare_variants(labels, np.ones_like(labels), variants, BUCKETS, _units(40), 200).differences[
        "capnet-zero_shot"
    ]
    assert compared["tail"] == 0.5
    assert compared["tail_low"] > 0, "no bootstrap knows what that picture may have hidden"
    assert compared["tail_without_one"] == 0
    assert compared["mAP_without_one"] == pytest.approx(0, abs=1e-6)
    assert difference(compared, "tail")["kind"] == "same"
    assert "hangs on one picture or group, without which it is 0.0" in difference(compared, "tail")["sentence"]


def test_one_positive_alone_still_has_finite_means() -> None:
    labels = np.zeros((30, 2), dtype=bool)
    labels[4, 1] = True
    scores = np.random.default_rng(0).random((30, 2)).astype(np.float32)
    compared = compare_variants(
        labels, np.ones_like(labels), {"capnet": Variant(scores)}, ["head", "tail"], _units(30), 100
    )
    assert np.isfinite(list(compared.values["capnet"].values())).all()
    assert "head" not in compared.values["capnet"]


def test_an_interval_stays_inside_its_bounds() -> None:
    assert interval(np.array([0.9, 1.0, 1.0]), 1.0) == (pytest.approx(0.9383, abs=1e-3), 1.0)
    assert interval(np.array([-0.9, 0.0, -1.0]), -0.95, (-1.0, 1.0))[0] == -1.0
    assert all(np.isnan(interval(np.array([np.nan, np.nan]), 0.5)))


def _five(made: Made) -> dict[str, Variant]:
    cuts = np.full(made.labels.shape[1], 0.4, dtype=np.float32)
    return {
        name: Variant(made.scores, cuts)
        for name in ("capnet", "single_view", "zero_shot", "zero_shot_single_view", "linear_probe")
    }


def test_a_demo_of_700_pictures_is_measured_in_seconds() -> None:
    made = make(700, 40, unknown=0.02)
    start = time.process_time()
    compare_variants(
        made.labels, made.known, _five(made), ["head"] * 10 + ["medium"] * 10 + ["tail"] * 20, _units(700), 1000
    )
    assert time.process_time() - start < 4


@pytest.mark.slow
def test_5000_pictures_of_80_classes_stay_far_under_two_gigabytes() -> None:
    made = make(5000, 80)
    tracemalloc.start()
    compare_variants(
        made.labels, made.known, _five(made), ["head"] * 20 + ["medium"] * 30 + ["tail"] * 30, _units(5000), 600
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500e6, f"{peak / 1e6:.0f} MB"


def test_draws_that_all_agree_leave_what_so_few_positives_cannot_show() -> None:
    """As a user met it: nine positives of a tail, all ranked first, and an interval from 100.0 to 100.0."""
    labels, rng = np.zeros((60, 4), dtype=bool), np.random.default_rng(0)
    labels[:12, 0] = True
    for c in (1, 2, 3):
        labels[20 * c - 5 : 20 * c - 2, c] = True
    scores = (0.5 * rng.random((60, 4)) + 0.5 * labels).astype(np.float32)
    variants = {"capnet": Variant(scores), "zero_shot": Variant(scores)}
    compared = compare_variants(
        labels, np.ones_like(labels), variants, ["head", "tail", "tail", "tail"], _units(60), 100
    )
    values = compared.values["capnet"]
    for name, positives in (("tail", 9), ("head", 12), ("mAP", 21)):
        low, high = proportion_interval(1.0, positives)
        assert values[name] == 1
        assert (values[f"{name}_low"], values[f"{name}_high"]) == (pytest.approx(low), high)
    assert (compared.ap_low[0], compared.ap_high[0]) == (pytest.approx(proportion_interval(1.0, 12)[0]), 1)
    assert compared.differences["capnet-zero_shot"]["tail_low"] == 0, "equal models differ by nothing"
