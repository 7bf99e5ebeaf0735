"""The report: parsed as a browser would, its numbers compared with the files that it was made from."""

from __future__ import annotations

import base64
import csv
import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from unit.evaluation.made_run import MadeRun, make_run
from unit.evaluation.report.page import Page, html_of

from capnet import contracts
from capnet.config import Report
from capnet.errors import ContractError
from capnet.evaluation.correlation import Premise, check_premise
from capnet.evaluation.report.curves import mean_precision
from capnet.evaluation.report.graph import premise_sentence
from capnet.evaluation.report.render import render


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    return make_run(tmp_path_factory.mktemp("run"), empty=(38,))


@pytest.fixture(scope="module")
def html(run: MadeRun) -> str:
    return html_of(run)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def loaded_addresses(html: str) -> list[str]:
    """Everything that a browser would fetch: src, href, srcset, url(), @import; data URIs and anchors are inside the
    file.
    """
    found = [
        value or ""
        for _, values in Page(html).tags
        for key, value in values.items()
        if key in ("src", "href", "srcset", "xlink:href", "action", "data", "poster")
    ]
    found += re.findall(r"url\(\s*['\"]?([^)'\"]*)", html) + re.findall(r"@import\s+(\S+)", html)
    return [value for value in found if not value.startswith(("#", "data:image/jpeg;base64,"))]


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


# ---------------------------------------------------------------- form


def test_page_is_well_formed_and_loads_nothing(html: str, page: Page) -> None:
    assert page.problems == []
    assert loaded_addresses(html) == []
    assert "http://" not in html
    assert "https://" not in html
    policy = next(
        values["content"]
        for tag, values in page.tags
        if tag == "meta" and values.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in (policy or "")
    script = re.search(r"<script>(.*?)</script>", html, re.S)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script.group(1).encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in (policy or ""), "only the page's own script may run"


def test_tables_are_scoped_headings_in_order_and_ids_unique(page: Page) -> None:
    assert all(values.get("scope") in ("col", "row", "rowgroup") for tag, values in page.tags if tag == "th")
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in zip(page.headings, page.headings[1:], strict=False))
    ids = [values["id"] for _, values in page.tags if "id" in values]
    assert len(ids) == len(set(ids))
    anchors = [values["href"] for tag, values in page.tags if tag == "a"]
    assert anchors
    assert {anchor for anchor in anchors if anchor} <= {f"#{name}" for name in ids}
    for tag, values in page.tags:
        if tag == "svg":
            assert values.get("aria-hidden") == "true" or (values.get("role") == "img" and values.get("aria-label"))


def test_equal_files_give_equal_bytes(run: MadeRun, html: str, tmp_path: Path) -> None:
    again = make_run(tmp_path / "elsewhere", empty=(38,))
    assert html_of(again) == html
    assert str(run.evaluation) not in html


@pytest.mark.parametrize("classes", [1, 3, 20, 80])
def test_any_number_of_classes(tmp_path: Path, classes: int) -> None:
    made = make_run(tmp_path, classes, 120)
    page = Page(html_of(made))
    assert page.problems == []
    assert set(page.rows("classes")) == set(made.names)


@pytest.mark.slow
def test_a_thousand_classes_stay_under_two_megabytes(tmp_path: Path) -> None:
    names = [f"A rather long class name of a species, number {i:04d}" for i in range(1000)]
    made = make_run(tmp_path, 1000, 400, names=names, images=True)
    html = html_of(made, thumbnails=True, worst=24)
    assert len(html.encode()) < 2_000_000
    page = Page(html)
    assert len(page.rows("classes")) == 1000
    assert sum(tag == "img" for tag, _ in page.tags) > 18


# ---------------------------------------------------------------- numbers


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
    for shown, given in zip(table, expected, strict=True):
        assert shown[2] == (percent(float(given["ap"])) if given["ap"] else "-")
        assert shown[4] == (percent(float(given["ap_zero_shot"])) if given["ap_zero_shot"] else "-")
        assert shown[5] == (percent(float(given["ap_linear_probe"])) if given["ap_linear_probe"] else "-")
        interval = (
            f"{percent(float(given['ap_low']))} to {percent(float(given['ap_high']))}" if given["ap_low"] else "-"
        )
        assert shown[3] == interval
        assert shown[8] == given["positives"]
        assert shown[9].endswith(given["bucket"])


def test_bars_are_as_long_as_the_average_precision(run: MadeRun, html: str) -> None:
    with open(run.evaluation / "per_class.csv", newline="") as file:
        expected = [100 * float(row["ap"]) for row in csv.DictReader(file) if row["ap"]]
    table = html[html.index('id="classes"') : html.index('id="zero-shot"')]
    widths = [float(width) for width in re.findall(r'<rect class="bar(?: unsure)?" y="3" width="([\d.]+)%"', table)]
    np.testing.assert_allclose(widths, expected, atol=0.006)
    tips = re.findall(r'<path class="bar (?:head|medium|tail)(?: unsure)?" d="[^"]*"><title>', table)
    assert len(tips) == len(expected)


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


def test_a_wanted_recall_says_that_a_group_counts_once(tmp_path: Path) -> None:
    made = make_run(tmp_path, 6, 40)
    path = made.evaluation / "thresholds.json"
    content = contracts.read_json(path)
    content["classes"][0]["borrowed"] = True
    contracts.write_json(path, content | {"objective": "recall>=0.9"})
    assert "All positives of one group, such as a camera site, count as one." in Page(html_of(made)).text


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
    contracts.write_json(path, contracts.read_json(path) | {"source": "none"})
    assert "every class has 0.5" in Page(html_of(made)).text


def test_left_out_classes_are_named(run: MadeRun, page: Page) -> None:
    assert f"Left out of the means: no test pictures {run.names[38]}" in page.text
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


def test_area_under_a_bucket_curve_is_its_mean_average_precision(run: MadeRun) -> None:
    metrics = contracts.read_json(run.evaluation / "evaluation.json")
    for bucket in ("head", "medium", "tail"):
        members = np.array([item == bucket for item in run.buckets])
        curve = mean_precision(run.labels, run.unknown, run.scores["capnet"], members)
        assert curve.mean() == pytest.approx(metrics["capnet"][bucket], abs=0.01)


def test_curve_does_not_see_unknown_entries() -> None:
    labels = np.array([[True], [False], [False], [True]])
    scores = np.array([[0.9], [0.8], [0.7], [0.6]], dtype=np.float32)
    unknown = np.array([[False], [True], [True], [False]])
    members = np.array([True])
    assert mean_precision(labels, unknown, scores, members).mean() == 1.0
    assert mean_precision(labels, ~labels & False, scores, members)[-1] == 0.5


def test_reliability_is_that_of_metrics_json(run: MadeRun, page: Page) -> None:
    buckets = contracts.read_json(run.evaluation / "evaluation.json")["calibration"]["buckets"]
    for bucket in ("head", "medium", "tail"):
        found = buckets[bucket]
        assert (
            f"Brier score {found['brier_raw']:.3g} before, {found['brier_calibrated']:.3g} after calibration"
            in page.text
        )
        for stage in ("raw", "calibrated"):
            for point in found[stage]:
                assert (
                    f"{percent(point['mean'])} % predicted, {percent(point['observed'])} % observed, {point['count']:,}"
                    " decisions" in page.text
                )


def test_premise_table_holds_the_correlations_with_the_test_labels(run: MadeRun, page: Page) -> None:
    nothing = np.zeros_like(run.train_labels)
    found = check_premise(run.adjacency, (run.train_labels, nothing), (run.labels, run.unknown), np.array(run.buckets))
    rows = page.rows("graph")
    for name, title in (("all", "All classes"), ("head", "Head"), ("medium", "Medium"), ("tail", "Tail")):
        item = found[name]
        assert rows[title][1] == f"{item.counts:.2f}"
        assert rows[title][3] == f"{item.graph:.2f}"
        assert rows[title][5:] == [str(item.classes), str(item.left_out)]
    assert premise_sentence(found, "text encoder") in page.text


@pytest.mark.parametrize(
    ("low", "high", "classes", "expected"),
    [
        (0.02, 0.2, 9, "the label graph (text encoder) is the better guide for the tail"),
        (-0.2, -0.02, 9, "the paper's premise does not hold on these data"),
        (-0.1, 0.3, 9, "neither is shown to be the better guide for the tail"),
        (float("nan"), float("nan"), 3, "3 classes can be compared, 5 are needed"),
    ],
)
def test_premise_in_one_sentence(low: float, high: float, classes: int, expected: str) -> None:
    sentence = premise_sentence({"tail": Premise(classes, 0, 0.4, 0.3, 0.1, low, high)}, "text encoder")
    assert expected in sentence
    assert sentence.count(". ") == 0


def test_settings_are_folded_away_in_full(page: Page) -> None:
    rows = page.rows("settings")
    assert rows["train.loss.name"][1] == "db_focal"
    assert rows["trained_parameters"][1] == "1234567"
    assert rows["backbone.centre"][1] == "yes"


# ---------------------------------------------------------------- what is missing or hostile


def test_nothing_optional_is_needed(tmp_path: Path) -> None:
    made = make_run(
        tmp_path, 12, 80, probe=False, validation=False, slices=False, backbone="ViT-B-16", unknown_share=0.0
    )
    (made.split / "split.json").unlink()
    (made.model / "history.csv").write_text("epoch,step,loss,val_mAP,val_head,val_medium,val_tail\n")
    metrics = contracts.read_json(made.evaluation / "evaluation.json")
    for variant in ("single_view", "zero_shot_single_view"):
        del metrics[variant]
    metrics["differences"] = {}
    del metrics["calibration"], metrics["bootstrap"]
    contracts.write_json(made.evaluation / "evaluation.json", metrics)
    html = html_of(made)
    page = Page(html)
    assert page.problems == []
    assert "no validation pictures" in page.text
    assert "out-of-fold" in page.text
    assert "linear probe" not in page.text.lower().split("run settings")[0]
    assert not {"slices", "ensembling", "training", "reliability", "pictures"} & {
        values.get("id") for _, values in page.tags
    }


def test_no_nan_is_ever_shown(run: MadeRun, html: str, tmp_path: Path) -> None:
    sparse = html_of(make_run(tmp_path, 6, 40, probe=False, empty=(0, 1, 2, 3, 4, 5)))
    for text in (html, sparse):
        assert not re.search(
            r"\b(nan|inf|infinity|none|null|undefined)\b",
            re.sub(r"(?s)<(style|script)>.*?</\1>", "", text).replace("'none'", "").replace('"none"', ""),
            re.IGNORECASE,
        )


def test_classes_called_nan_or_none_keep_their_names(tmp_path: Path) -> None:
    made = make_run(tmp_path, 6, 60, names=["nan", "None", "NULL", "NA", "007", "true"])
    assert {"nan", "None", "NULL", "NA", "007", "true"} == set(Page(html_of(made)).rows("classes"))


def test_hostile_names_are_text_and_never_markup(tmp_path: Path) -> None:
    hostile = [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "</title></svg><script>1</script>",
        "{{ 7*7 }}{% raw %}",
        "a&b;<b>",
        "' onmouseover='x",
        "\u202eevil",
        "日本語",
    ]
    made = make_run(tmp_path, len(hostile), 90, names=hostile, images=True)
    rows = contracts.read_split(made.split / "split.parquet")
    rows["slice"] = rows["slice"].replace("known artwork", "<script>slice</script>")
    contracts.write_split(made.split / "split.parquet", rows)
    metrics = contracts.read_json(made.evaluation / "evaluation.json")
    metrics["slices"]["<script>slice</script>"] = metrics["slices"].pop("known artwork")
    metrics["left_out"] = ["<script>left</script>"]
    contracts.write_json(made.evaluation / "evaluation.json", metrics)
    html = html_of(made, thumbnails=True)
    page = Page(html)
    assert page.problems == []
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not [key for _, values in page.tags for key in values if key.startswith("on")]
    assert all(
        (values.get("src") or "").startswith("data:image/jpeg;base64,") for tag, values in page.tags if tag == "img"
    )
    assert set(hostile) == set(page.rows("classes"))
    assert "<script>slice</script>" in page.text, "shown as text"


def test_files_of_other_classes_are_refused(tmp_path: Path) -> None:
    made = make_run(tmp_path / "one", 6, 40)
    other = make_run(tmp_path / "two", 6, 40, names=list("abcdef"))
    with pytest.raises(ContractError, match="other classes"):
        render(made.evaluation, other.model, made.split, made.data, Report())
    with pytest.raises(ContractError, match="other classes"):
        render(other.evaluation, made.model, made.split, made.data, Report())


def test_scores_that_do_not_belong_to_the_test_rows_are_refused(tmp_path: Path) -> None:
    made = make_run(tmp_path, 6, 40)
    path = made.evaluation / "predictions.parquet"
    frame = contracts.read_predictions(path)
    contracts.write_predictions(path, frame[frame["image_id"] != "test-00003"])
    with pytest.raises(ContractError, match="test-00003"):
        html_of(made)
    one = frame["image_id"] == "test-00003"
    for cut, message in ((one, "rows of column scores"), (one | True, "1 scores of a picture for 6 classes")):
        scores = [item[:1] if few else item for item, few in zip(frame["scores"], cut, strict=True)]
        contracts.write_predictions(path, frame.assign(scores=pd.Series(scores, index=frame.index)))
        with pytest.raises(ContractError, match=message):
            html_of(made)


@pytest.mark.parametrize("name", ["evaluation.json", "per_class.csv", "thresholds.json", "predictions.parquet"])
def test_missing_or_damaged_files_are_contract_errors(tmp_path: Path, name: str) -> None:
    made = make_run(tmp_path, 6, 40)
    path = made.evaluation / name
    path.write_bytes(b"\xff\xfe\x00 not a table {")
    with pytest.raises(ContractError, match=re.escape(name)):
        html_of(made)
    path.unlink()
    with pytest.raises(ContractError, match=re.escape(name)):
        html_of(made)


@pytest.mark.parametrize(
    ("backbone", "config", "expected"),
    [
        ("lit-efflite2-minilm", {}, "not CLIP"),
        ("ViT-B-16", {"validation_extra_labels": True}, "extra labels"),
        ("ViT-B-16", {"validation_rows": 0}, "the last epoch was kept"),
    ],
)
def test_notes_warn(tmp_path: Path, backbone: str, config: dict[str, object], expected: str) -> None:
    made = make_run(tmp_path, 6, 40, backbone=backbone)
    path = made.model / "config.json"
    plain = contracts.read_json(path) | {"validation_extra_labels": False}
    contracts.write_json(path, plain | config)
    assert expected in Page(html_of(made)).text
    if backbone.startswith("ViT"):
        contracts.write_json(path, plain)
        assert expected not in Page(html_of(made)).text


def test_test_pictures_of_one_group_are_said_to_have_no_intervals(tmp_path: Path) -> None:
    made = make_run(tmp_path, 6, 40)
    path = made.evaluation / "evaluation.json"
    drawn = {"draws": 1000, "seed": 0, "unit": "group"}

    def without_bounds(content: dict[str, object]) -> dict[str, object]:
        plain = {key: value for key, value in content.items() if not key.endswith(("_low", "_high"))}
        return {key: without_bounds(value) if isinstance(value, dict) else value for key, value in plain.items()}

    metrics = contracts.read_json(path)
    contracts.write_json(path, without_bounds(metrics) | {"bootstrap": {**drawn, "units": 1}})
    alone = Page(html_of(made)).text
    assert "All test pictures are of one group" in alone
    assert "excludes 0" not in alone.split("How to read")[0]
    for units, few in ((2, True), (9, True), (10, False)):
        contracts.write_json(path, metrics | {"bootstrap": {**drawn, "units": units}})
        text = Page(html_of(made)).text
        assert "of one group" not in text
        assert (f"only {units} groups" in text) == few
