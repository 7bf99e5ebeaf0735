"""The numbers of the report, compared with the files that it was made from."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from unit.evaluation.made_run import MadeRun, make_run
from unit.evaluation.report.page import Page, html_of, percent

from capnet import contracts
from capnet.evaluation.bootstrap import interval, unseen
from capnet.evaluation.report.curves import mean_precision


def test_summary_and_variants_are_those_of_metrics_json(run: MadeRun, page: Page) -> None:
    metrics = contracts.read_json(run.evaluation / "evaluation.json")
    for name in ("mAP", "head", "medium", "tail"):
        capnet = metrics["capnet"]
        assert f"95 % interval {percent(capnet[f'{name}_low'])} to {percent(capnet[f'{name}_high'])}" in page.text
        paired = metrics["differences"]["capnet-zero_shot"]
        span = f"+{percent(paired[f'{name}_low'])} to +{percent(paired[f'{name}_high'])}"
        assert f"+{percent(paired[name])} against zero-shot {span}: better, the interval excludes 0" in page.text
    rows = page.rows("variants-title")
    titles = {
        "capnet": "CapNet",
        "single_view": "CapNet, one view",
        "zero_shot": "Zero-shot",
        "linear_probe": "Linear probe",
    }
    for variant, title in titles.items():
        for cell, name in zip(rows[title][1:5], ("mAP", "head", "medium", "tail"), strict=True):
            assert cell.startswith(percent(metrics[variant][name]))


def test_class_table_is_per_class_csv_in_order_of_training_pictures(run: MadeRun, page: Page) -> None:
    with open(run.evaluation / "per_class.csv", newline="") as file:
        expected = list(csv.DictReader(file))
    table = page.tables["classes"][0][1:]
    assert [row[0] for row in table] == [row["class"] for row in expected]
    counts = [int(row[7]) for row in table]
    assert counts == sorted(counts, reverse=True)
    for shown, listed in zip(table, expected, strict=True):
        assert shown[2] == (percent(float(listed["ap"])) if listed["ap"] else "-")
        assert shown[4] == (percent(float(listed["ap_zero_shot"])) if listed["ap_zero_shot"] else "-")
        assert shown[5] == (percent(float(listed["ap_linear_probe"])) if listed["ap_linear_probe"] else "-")
        interval = (
            f"{percent(float(listed['ap_low']))} to {percent(float(listed['ap_high']))}" if listed["ap_low"] else "-"
        )
        assert shown[3] == interval
        assert shown[8] == listed["positives"]
        assert shown[9].endswith(listed["bucket"])


def test_bars_are_as_long_as_the_average_precision(run: MadeRun, html: str) -> None:
    with open(run.evaluation / "per_class.csv", newline="") as file:
        expected = [100 * float(row["ap"]) for row in csv.DictReader(file) if row["ap"]]
    table = html[html.index('id="classes"') : html.index('id="zero-shot"')]
    widths = [float(width) for width in re.findall(r'<rect class="bar(?: unsure)?" y="3" width="([\d.]+)%"', table)]
    np.testing.assert_allclose(widths, expected, atol=0.006)
    tips = re.findall(r'<path class="bar (?:head|medium|tail)(?: unsure)?" d="[^"]*"><title>', table)
    assert len(tips) == len(expected)


def test_the_page_explains_intervals_as_they_are_made(page: Page) -> None:
    low, high = interval(np.ones(100), 1.0, positives=5, least=unseen(5))
    assert high - low > 0.5, "five positives that are all ranked first"
    assert "the interval of a value then has the width of an exact one" in page.text
    assert interval(np.zeros(100), 0.0, (-1.0, 1.0), 5) == (0.0, 0.0)
    assert "that of a difference has no width" in page.text


def test_thresholds_table_marks_borrowed_ones(run: MadeRun, page: Page) -> None:
    stored = contracts.read_json(run.evaluation / "thresholds.json")["classes"]
    rows = page.rows("thresholds")
    assert any(item["borrowed"] for item in stored)
    for item in stored:
        row = rows[item["name"]]
        assert row[1] == f"{item['threshold']:.3f}"
        assert (row[2] == "borrowed") == item["borrowed"]
        assert row[3] == str(item["positives"])
    assert "5 views, 24 pixels beyond the crop, average of logits" in page.text
    assert "(marked): the objective is for several of them together, not for each." in page.text
    assert "count as one" not in page.text


@pytest.mark.parametrize(
    ("objective", "is_borrowed", "what"),
    [("recall>=0.9", True, "positives of one group"), ("precision>=0.8", False, "labels given in one group")],
)
def test_a_wanted_share_says_what_of_a_group_counts_once(
    tmp_path: Path, objective: str, is_borrowed: bool, what: str
) -> None:
    made = make_run(tmp_path, 6, 40)
    path = made.evaluation / "thresholds.json"
    content = contracts.read_json(path)
    for number, item in enumerate(content["classes"]):
        item["borrowed"] = is_borrowed and number == 0
    contracts.write_json(path, content | {"objective": objective})
    text = Page(html_of(made)).text
    assert f"All {what}, such as a camera site or a patient, count as one; the figures below count every pic" in text
    assert text.count("count as one") == 1
    assert ("1 of 6 classes has no threshold of its own" in text) == is_borrowed


def test_thresholds_table_marks_critical_classes_and_says_their_objective(tmp_path: Path) -> None:
    made = make_run(tmp_path, 6, 40)
    for folder in (made.split, made.model):
        content = contracts.read_json(folder / "classes.json")
        content["classes"][2]["critical"] = True
        contracts.write_json(folder / "classes.json", content)
    path = made.evaluation / "thresholds.json"
    contracts.write_json(path, contracts.read_json(path) | {"critical_objective": "recall>=0.95"})
    page = Page(html_of(made))
    name = content["classes"][2]["name"]
    assert {row for row, cells in page.rows("thresholds").items() if "critical" in cells[2]} == {name}
    assert "for critical classes recall>=0.95, chosen on" in page.text


def test_thresholds_without_pictures_to_choose_on(tmp_path: Path) -> None:
    made = make_run(tmp_path, 6, 40)
    path = made.evaluation / "thresholds.json"
    content = contracts.read_json(path)
    for item in content["classes"]:  # as `no_thresholds` marks them
        item |= {"threshold": 0.5, "borrowed": True, "reached": False}
    contracts.write_json(path, content | {"source": "none"})
    page = Page(html_of(made))
    assert "every class has 0.5" in page.text
    assert {cells[2] for cells in page.rows("thresholds").values()} == {""}


def test_one_view_and_one_class_are_not_named_in_the_plural(tmp_path: Path) -> None:
    made = make_run(tmp_path, 1, 40)
    for path in (made.evaluation / "thresholds.json", made.model / "config.json"):
        content = contracts.read_json(path)
        tte = content.get("views", content.get("tte"))
        tte["views"] = 1
        contracts.write_json(path, content)
    text = Page(html_of(made)).text
    assert "1 view, 24 pixels beyond the crop" in text
    assert "1 class as a table" in text
    assert "Thresholds of 1 class" in text
    assert "1 views" not in text
    assert "What test-time ensembling gives" not in text


def test_a_run_on_one_group_says_why_there_are_no_intervals(tmp_path: Path) -> None:
    made = make_run(tmp_path, 6, 60)
    path = made.evaluation / "per_class.csv"
    table = pd.read_csv(path).assign(ap_low=np.nan, ap_high=np.nan)
    assert table["positives"].max() >= 10
    table.to_csv(path, index=False)
    metrics = contracts.read_json(made.evaluation / "evaluation.json")
    for values in (metrics, metrics["slices"]["known artwork"], metrics["slices"]["unseen artwork"]):
        for variant in ("capnet", "single_view", "zero_shot", "zero_shot_single_view", "linear_probe"):
            values[variant] = {name: x for name, x in values[variant].items() if name[-4:] not in ("_low", "high")}
    metrics["bootstrap"] |= {"unit": "group", "units": 1}
    contracts.write_json(made.evaluation / "evaluation.json", metrics)
    text = Page(html_of(made)).text
    assert "a pale bar has no interval, because all test pictures are of one group" in text
    assert "rests on fewer than" not in text
    assert "only" not in " ".join(re.findall(r"AP [^;]*1\d test pictures[^;]*;", text))
    assert "In percent, with 95 % intervals, where a slice is not of one group." in text


def test_a_class_of_few_groups_has_no_interval_and_the_report_says_so(tmp_path: Path) -> None:
    made = make_run(tmp_path, 6, 60)
    metrics = contracts.read_json(made.evaluation / "evaluation.json")
    metrics["bootstrap"] |= {"unit": "group", "units": 30}
    contracts.write_json(made.evaluation / "evaluation.json", metrics)
    text = Page(html_of(made)).text
    assert "a pale bar has no interval, because it rests on test pictures of fewer than 10 groups" in text


def test_one_epoch_and_one_training_picture_are_not_named_in_the_plural(tmp_path: Path) -> None:
    made = make_run(tmp_path, 2, 40)
    for folder in (made.split, made.model):
        content = contracts.read_json(folder / "classes.json")
        for item, count in zip(content["classes"], (200, 1), strict=True):
            item |= {"train_count": count, "bucket": "head" if count > 1 else "tail"}
        contracts.write_json(folder / "classes.json", content)
    history = made.model / "history.csv"
    history.write_text("".join(history.read_text().splitlines(keepends=True)[:2]))
    text = Page(html_of(made)).text
    assert "1 epoch; epoch 24 was kept." in text
    assert "1 to 200 training pictures each" in text
    assert "95 % interval" in text
    assert re.search(r"1 training picture(?! each|s)", text)


@pytest.mark.parametrize("has_both", [True, False])
def test_a_refit_names_a_probe_and_a_blend_only_where_there_are_such(tmp_path: Path, has_both: bool) -> None:
    made = make_run(tmp_path, 6, 40, probe=has_both)
    path = made.model / "config.json"
    blend = {"weights": {"capnet": 1.0}, "chosen_on": "val", "gains": {}}
    contracts.write_json(path, contracts.read_json(path) | {"refit_rows": 630} | ({"blend": blend} if has_both else {}))
    text = Page(html_of(made)).text
    assert ("together, the linear probe too. Blend, thresholds and calibration come" in text) == has_both
    assert ("together. Thresholds and calibration come" in text) != has_both
    assert "After the epoch was chosen on the validation pictures, everything" in text
    contracts.write_json(path, contracts.read_json(path) | {"train": {"select": "last"}})
    assert "After the last epoch, everything was trained once more on 630" in Page(html_of(made)).text


def test_left_out_classes_are_named(run: MadeRun, page: Page) -> None:
    assert f"Without average precision: no positive or no negative test picture 1 class {run.names[38]}" in page.text
    assert page.rows("classes")[run.names[38]][2] == "-"


def test_neighbours_are_the_strongest_of_the_graph(run: MadeRun, page: Page) -> None:
    rows = page.rows("graph", 1)
    for i, name in enumerate(run.names):
        weights = run.adjacency[i].copy()
        weights[i] = -1
        best = np.argsort(-weights)[:5]
        positions = [rows[name][1].find(f"{run.names[j]}\N{NO-BREAK SPACE}{weights[j]:.3g}") for j in best]
        assert -1 not in positions
        assert positions == sorted(positions)


def test_slices_and_ensembling_are_shown(run: MadeRun, page: Page) -> None:
    metrics = contracts.read_json(run.evaluation / "evaluation.json")
    rows = page.tables["slices"][0][1:]
    first = next(index for index, row in enumerate(rows) if row[0] == "unseen artwork")
    measured, paired = (
        metrics["slices"]["unseen artwork"],
        metrics["slice_info"]["unseen artwork"]["differences"]["capnet-zero_shot"],
    )
    assert rows[first][1:4] == ["150", "40", "All classes"]
    for row, name in ((rows[first][4:], "mAP"), (rows[first + 1][1:], "tail")):
        assert row[0].startswith(percent(measured["capnet"][name]))
        assert row[2].startswith(percent(measured["zero_shot"][name]))
        assert row[4].startswith("+" + percent(paired[name]))
    views = page.rows("ensembling")
    assert views["Tail"][1] == percent(metrics["single_view"]["tail"])
    assert views["Tail"][2] == percent(metrics["capnet"]["tail"])
    assert percent(metrics["differences"]["capnet-single_view"]["tail"]) in views["Tail"][3]


def test_a_slice_without_a_positive_is_listed_with_the_reason(tmp_path: Path) -> None:
    made = make_run(tmp_path, 6, 60)
    path = made.evaluation / "evaluation.json"
    metrics = contracts.read_json(path)
    metrics["slice_info"]["empty plains"] = {"test_rows": 7, "left_out": made.names}
    contracts.write_json(path, metrics)
    page = Page(html_of(made))
    assert page.problems == []
    cells = page.rows("slices")["empty plains"]
    assert cells == ["empty plains", "7", "0", "no class with a positive and a negative", *["-"] * 5]
    assert "where a slice is not of one group" not in page.text
    metrics["bootstrap"] = {"draws": 1000, "seed": 0, "unit": "group", "units": 30}
    metrics["slice_info"]["empty plains"]["units"] = 4
    contracts.write_json(path, metrics)
    page = Page(html_of(made))
    assert page.rows("slices")["empty plains"][1] == "7 of 4 groups"
    assert "95 % intervals; those of fewer than 10 groups can be too narrow" in page.text


def test_area_under_a_bucket_curve_is_its_mean_average_precision(run: MadeRun) -> None:
    metrics = contracts.read_json(run.evaluation / "evaluation.json")
    for bucket in ("head", "medium", "tail"):
        members = np.array([item == bucket for item in run.buckets])
        curve = mean_precision(run.labels, ~run.unknown, run.scores["capnet"], members)
        assert curve.mean() == pytest.approx(metrics["capnet"][bucket], abs=0.01)


def test_curve_does_not_see_unknown_entries() -> None:
    labels = np.array([[True], [False], [False], [True]])
    scores, members = np.array([[0.9], [0.8], [0.7], [0.6]], dtype=np.float32), np.array([True])
    known = np.array([[True], [False], [True], [True]])
    assert mean_precision(labels, known, scores, members)[-1] == pytest.approx(2 / 3)
    assert mean_precision(labels, np.ones_like(labels), scores, members)[-1] == 0.5
    assert not len(mean_precision(labels, labels, scores, members)), "positives alone are no curve"


def test_reliability_is_that_of_metrics_json(run: MadeRun, page: Page) -> None:
    buckets = contracts.read_json(run.evaluation / "evaluation.json")["calibration"]["buckets"]
    for bucket in ("head", "medium", "tail"):
        result = buckets[bucket]
        assert (
            f"Brier score {result['brier_raw']:.3g} before, {result['brier_calibrated']:.3g} after calibration"
            in page.text
        )
        for stage in ("raw", "calibrated"):
            for point in result[stage]:
                assert (
                    f"{percent(point['mean'])} % predicted, {percent(point['observed'])} % observed, {point['count']:,}"
                    " decisions" in page.text
                )


def test_settings_are_folded_away_in_full(page: Page) -> None:
    rows = page.rows("settings")
    assert rows["train.loss.name"][1] == "db_focal"
    assert rows["trained_parameters"][1] == "1234567"
    assert rows["backbone.centre"][1] == "yes"
