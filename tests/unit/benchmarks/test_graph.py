"""The benchmark of the label graph: measures against brute force, who wins on made labels, the whole command."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from benchmarks import graph
from benchmarks.differences import bounds
from benchmarks.graph_lists import read_list
from benchmarks.graph_means import Measured, mean
from benchmarks.graph_rows import (
    MEASURES,
    Curve,
    Sample,
    by_chance,
    counted,
    halved,
    measure,
    row_ndcg,
    sources,
    strict_spearman,
)
from benchmarks.graph_tables import COLOURS, difference
from benchmarks.graph_training import Set, compare, graphs
from capnet.config import Params
from capnet.contracts import make_classes
from capnet.errors import ConfigError, DataError
from tests.unit.model import tiny


def dcg(order: tuple[int, ...], gains: np.ndarray, k: int) -> float:
    return float(sum(gains[column] / np.log2(workspace + 2) for workspace, column in enumerate(order[:k])))


def orders(scores: np.ndarray) -> list[tuple[int, ...]]:
    """Every order of the columns that no score contradicts."""
    fine = []
    for order in itertools.permutations(range(len(scores))):
        ranked = scores[list(order)]
        if (np.diff(ranked) <= 0).all():
            fine.append(order)
    return fine


@pytest.mark.parametrize("seed", range(4))
def test_ndcg_is_the_mean_over_all_orders_of_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, gains = rng.integers(0, 3, (5, 6)).astype(float), rng.random((5, 6))
    for row in range(len(scores)):
        best = dcg(tuple(np.argsort(-gains[row])), gains[row], 3)
        expected = np.mean([dcg(order, gains[row], 3) for order in orders(scores[row])]) / best
        assert row_ndcg(scores[row][None], gains[row][None], 3)[0] == pytest.approx(expected)


def test_ndcg_without_any_gain_is_unknown() -> None:
    assert np.isnan(row_ndcg(np.ones((1, 4)), np.zeros((1, 4)), 2)).all()


@pytest.mark.parametrize("seed", range(4))
def test_strict_spearman_is_scipys_mean_over_all_orders_of_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, truth = rng.integers(0, 3, (4, 6)).astype(float), rng.integers(0, 4, (4, 6)).astype(float)
    for row in range(len(scores)):
        result = []
        for order in orders(scores[row]):
            untied = np.empty(6)
            untied[list(order)] = np.arange(6, 0, -1)
            result.append(spearmanr(untied, truth[row]).statistic)
        assert strict_spearman(scores[row][None], truth[row][None])[0] == pytest.approx(np.mean(result))


def test_strict_spearman_without_ties_is_scipys_and_of_equal_scores_0() -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.random((6, 9)), rng.random((6, 9))
    expected = [spearmanr(a, b).statistic for a, b in zip(scores, truth, strict=True)]
    np.testing.assert_allclose(strict_spearman(scores, truth), expected)
    np.testing.assert_allclose(strict_spearman(np.ones_like(truth), truth), 0.0, atol=1e-12)


def brute_spearman(row: np.ndarray, true: np.ndarray, i: int) -> float:
    others = [j for j in range(len(row)) if j != i]
    return float(np.nan_to_num(spearmanr(row[others], true[others]).statistic))


def scenes(rng: np.random.Generator, images: int, kinds: int, classes: int = 24, rare: int = 8) -> np.ndarray:
    """Labels that appear in scenes of six; the last ``rare`` classes seldom."""
    scene = rng.integers(0, kinds, images)
    chance = np.where(scene[:, None] == (np.arange(classes) % kinds)[None, :], 0.5, 0.03)
    chance[:, -rare:] *= 0.15
    return rng.random((images, classes)) < chance


def test_measures_are_scipys_on_the_rows_that_can_be_judged() -> None:
    rng = np.random.default_rng(1)
    train, truth = scenes(rng, 150, 4), scenes(rng, 600, 4)
    train[:, 3] = False  # nobody trained on it
    truth[:, 5] = False  # nobody can tell
    text = rng.random((24, 24))
    result = measure(text, Sample(train, truth), 20.0)
    true = np.zeros((24, 24))
    for i, j in itertools.product(range(24), repeat=2):
        true[i, j] = (truth[:, i] & truth[:, j]).sum() / max(truth[:, i].sum(), 1)
    graphs = sources(text, train, 20.0)
    for name in ("text", "counted", "blend", "frequency"):
        values = result["spearman"][name]
        assert np.isnan(values[[3, 5]]).all()
        for i in np.flatnonzero(~np.isnan(values)):
            assert values[i] == pytest.approx(brute_spearman(graphs[name][i], true[i], i))
    assert (truth.sum(axis=0)[np.isnan(result["spearman"]["text"])] < 10).sum() >= 1
    assert np.nanmax(np.abs(result["spearman"]["uniform"])) == 0
    assert abs(np.nanmean(result["strict"]["permuted"])) < 0.1


@pytest.mark.parametrize("knows", [True, False])
def test_the_text_graph_wins_in_the_tail_where_it_is_right_and_loses_where_it_is_not(knows: bool) -> None:
    rng = np.random.default_rng(2)
    kinds = 4
    text = counted(scenes(rng, 20000, kinds)) if knows else rng.random((24, 24))
    lists, images = [], []
    for seed in range(3):
        nothing = np.zeros((0, 24), dtype=bool)
        sample, half = halved(scenes(rng, 6000, kinds), nothing, Curve("exponential", 60, 20), seed)
        lists.append(measure(text, sample, 20.0, half))
        images.append(sample.train.sum(axis=0))
    result = Measured.of(lists, images)
    tail = result.bucket("tail")
    assert tail.any(axis=1).all()
    for kind in MEASURES:
        apart = difference(result, kind, "text", "counted", tail)
        low, high = apart.over_classes
        assert low > 0 if knows else high < 0
        assert mean(result.values[kind]["large sample"], tail).value > mean(result.values[kind]["counted"], tail).value


def test_mixed_up_names_are_what_a_text_graph_that_knows_nothing_reaches() -> None:
    rng = np.random.default_rng(3)
    sample = Sample(scenes(rng, 150, 4), scenes(rng, 3000, 4))
    tail = (sample.train.sum(axis=0) > 0) & (sample.train.sum(axis=0) < 20)
    for text, knows in ((counted(scenes(rng, 20000, 4)), True), (rng.random((24, 24)), False)):
        result = by_chance(text, sample, 200)
        for kind, (own, mixed) in result.items():
            measured = measure(text, sample, 20.0)[kind]["text"]
            assert own == pytest.approx(measured[tail].mean())
            low, high = np.quantile(mixed, [0.005, 0.995])
            assert own > high if knows else low <= own <= high
    assert by_chance(text, Sample(np.repeat(sample.train, 200, axis=0), sample.truth), 2) == {}


def test_halves_share_no_image_and_the_long_tail_comes_from_one() -> None:
    pool = np.eye(40, dtype=bool)  # every image has a label of its own
    extra = np.zeros((2, 40), dtype=bool)
    sample, half = halved(pool, extra, Curve("exponential", 1, 1.0), 3)
    assert len(half) == 20
    assert len(sample.truth) == 22
    assert len(sample.train) == 20
    assert not (sample.train.any(axis=0) & sample.truth.any(axis=0)).any()
    again, _ = halved(pool, extra, Curve("exponential", 1, 1.0), 3)
    np.testing.assert_array_equal(sample.train, again.train)


def test_means_leave_unknown_entries_out_and_intervals_need_classes() -> None:
    values = np.array([[1.0, 3.0, np.nan, 9.0], [2.0, np.nan, np.nan, 9.0]])
    chosen = np.array([[True, True, True, False]] * 2)
    result = mean(values, chosen)
    assert result.value == pytest.approx(np.mean([2.0, 2.0]))
    assert result.classes == pytest.approx(1.5)
    assert np.isnan(result.over_classes).all()
    many = np.random.default_rng(0).normal(0.3, 0.1, (4, 200))
    low, high = mean(many, np.ones_like(many, dtype=bool)).over_classes
    assert low < many.mean() < high
    assert (high - low) / 2 == pytest.approx(1.96 * many.mean(axis=0).std() / np.sqrt(200), rel=0.15)


def test_tables_of_a_page_are_replaced_in_place_and_new_ones_come_last() -> None:
    page = graph.put("# Title\n\n<!-- table: one -->\nold\n<!-- end -->\n\nwords\n", "one", ["| a |", "|---|"])
    assert page == "# Title\n\n<!-- table: one -->\n| a |\n|---|\n<!-- end -->\n\nwords\n"
    assert graph.put(page, "two", ["x"]).endswith("words\n\n<!-- table: two -->\nx\n<!-- end -->\n")


@pytest.fixture
def lists(shared: Path, tmp_path: Path) -> Path:
    """VOC's real lists: every third image of the large ones, the published long-tailed one whole."""
    folder = tmp_path / "lists"
    folder.mkdir()
    real, voc = shared / "data" / "labels", graph.LISTS["voc"]
    for name in (voc.classes, voc.published):
        (folder / name).write_bytes((real / name).read_bytes())
    for name in (voc.pool, voc.truth):
        first, *rows = (real / name).read_text().splitlines()
        (folder / name).write_text("\n".join([first, *rows[::3]]) + "\n")
    return folder


@pytest.mark.slow
def test_the_command_measures_real_lists_writes_the_page_and_draws(
    lists: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page, drawing = tmp_path / "page.md", tmp_path / "drawing.svg"
    page.write_text("# Page\n")
    tiny.register("tiny-clip", tmp_path / "tiny")
    words = ["--labels", str(lists), "--sets", "voc", "--parts", "rows", "--draws", "2", "--threads", "1"]
    tower = ["--backbone", "tiny-clip", "--pretrained", "random"]
    graph.main([*words, *tower, "--page", str(page), "--figure", str(drawing)])
    text = page.read_text()
    assert text.startswith("# Page\n")
    for name in ("tail nDCG@5", "tail Spearman", "controls", "chance", "buckets", "images"):
        assert f"<!-- table: {name} -->" in text
    assert "| VOC-LT's list | 8 |" in text, "VOC-LT has eight classes with fewer than 20 images"
    assert max(map(len, text.splitlines())) <= 120
    for colour in COLOURS.values():  # one line above, one below, one in the legend
        assert drawing.read_text().count(f"stroke: {colour}") == 3
    assert "tail Spearman" in capsys.readouterr().out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty small images of noise with five labels, the last one seldom."""
    rng = np.random.default_rng(0)
    root = tmp_path / "made"
    (root / "images").mkdir(parents=True)
    lines = ["path,labels"]
    for number in range(60):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(root / "images" / f"{number}.png")
        chances = (0.9, 0.5, 0.5, 0.4, 0.2)
        labels = [name for name, chance in zip("abcde", chances, strict=True) if rng.random() < chance]
        lines.append(f"images/{number}.png,{'|'.join(labels or ['a'])}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.slow
def test_the_command_trains_with_every_graph(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    tiny.register("tiny-clip", tmp_path / "tiny")
    page = tmp_path / "page.md"
    words = ["--data", f"made={folder}", "--parts", "training", "--seeds", "0", "--steps", "2", "--threads", "1"]
    graph.main([*words, "--backbone", "tiny-clip", "--pretrained", "random", "--page", str(page)])
    lines = page.read_text().splitlines()
    assert lines[0] == "<!-- table: training made -->"
    rows = [line.split(" | ")[0].removeprefix("| ") for line in lines[3:-1]]
    assert rows == ["none", "text", "permuted", "counted", "blend", "oracle", "oracle, 0.5"]


def test_only_the_oracle_sees_the_test_labels() -> None:
    rng = np.random.default_rng(0)
    text, train = torch.from_numpy(rng.random((6, 8))).float(), rng.random((50, 6)) < 0.4
    first, second = (graphs(text, train, rng.random((50, 6)) < 0.4, Params().graph) for _ in range(2))
    assert {name for name in first if not torch.equal(first[name], second[name])} == {"oracle", "oracle, 0.5"}
    assert torch.equal(first["none"], torch.eye(6))
    assert torch.diagonal(first["oracle, 0.5"]).mean() < torch.diagonal(first["oracle"]).mean()
    for matrix in first.values():
        torch.testing.assert_close(matrix.sum(dim=1), torch.ones(6))


def test_results_are_scikit_learns_and_equal_scores_differ_by_nothing() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random((120, 5)) < np.array([0.9, 0.5, 0.3, 0.15, 0.1])
    rows = pd.DataFrame({"group": [None] * 120})
    data = Set("made", Path(), rows, make_classes(list("abcde")), labels, np.arange(60), np.arange(60, 120))
    good = [labels[60:] + rng.normal(0, 0.5, (60, 5)) for _ in range(2)]
    bad = [rng.random((60, 5)) for _ in range(2)]
    result = compare(data, {"bad": bad, "good": good, "same": bad}, draws=200)
    counts = labels[:60].sum(axis=0)
    for name, classes in (("mAP", counts > 0), ("tail", counts < 20)):
        chosen = np.flatnonzero(classes)
        expected = np.mean([average_precision_score(labels[60:, c], s[:, c]) for c in chosen for s in good])
        assert result["good"][name][0] == pytest.approx(expected)
    assert bounds(result["good"]["mAP"], result["bad"]["mAP"])[1] > 0
    assert bounds(result["same"]["mAP"], result["bad"]["mAP"]) == [0.0, 0.0, 0.0]


def test_wrong_command_lines_and_missing_lists_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no labels are named"):
        graph.main([])
    with pytest.raises(ConfigError, match="--train names c, which --data lacks"):
        graph.main(["--data", "a=b", "--train", "c"])
    with pytest.raises(ConfigError, match="--data a=b a=c names a set twice"):
        graph.main(["--data", "a=b", "a=c"])
    with pytest.raises(ConfigError, match="a seed is named twice"):
        graph.main(["--data", "a=b", "--seeds", "1", "1"])
    with pytest.raises(SystemExit, match="2"):
        graph.main(["--data", "a=b", "--seeds"])
    with pytest.raises(DataError, match="list of classes is missing"):
        graph.main(["--labels", str(tmp_path), "--parts", "rows"])
    (tmp_path / "broken.csv").write_text("image,labels\n1,cat\n")
    with pytest.raises(DataError, match="not a label list"):
        read_list(tmp_path / "broken.csv", 3)
