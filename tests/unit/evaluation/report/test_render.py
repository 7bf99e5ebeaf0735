"""The report as a page: parsed as a browser would, its form, what may be missing, and what is hostile."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pandas as pd
import pytest
from unit.evaluation.made_run import MadeRun, make_run
from unit.evaluation.report.page import Page, html_of

from capnet import contracts
from capnet.config import Report
from capnet.errors import ContractError
from capnet.evaluation.report.render import render


def loaded_addresses(html: str) -> list[str]:
    """Everything that a browser would fetch: src, href, srcset, url(), @import; data URIs and anchors are inside the
    file.
    """
    result = [
        value or ""
        for _, values in Page(html).tags
        for key, value in values.items()
        if key in ("src", "href", "srcset", "xlink:href", "action", "data", "poster")
    ]
    result += re.findall(r"url\(\s*['\"]?([^)'\"]*)", html) + re.findall(r"@import\s+(\S+)", html)
    return [value for value in result if not value.startswith(("#", "data:image/jpeg;base64,"))]


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
    for key in ("slices", "slice_info"):
        metrics[key]["<script>slice</script>"] = metrics[key].pop("known artwork")
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
