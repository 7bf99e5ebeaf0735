"""The paper command: every step of a dry run, what is refused and how, results that are used again, and the table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks import paper
from benchmarks.__main__ import main
from benchmarks.paper_run import WORDS
from benchmarks.paper_table import ROWS
from benchmarks.paper_trees import make
from benchmarks.published_results import PROTOCOL, RESULTS
from capnet.data.splits.published import BENCHMARKS
from capnet.errors import ConfigError
from capnet.model.backbones.openai_weights import OPENAI_WEIGHTS

pytestmark = pytest.mark.slow


CHECKS = [
    "check weights",
    "check lists",
    "ingest",
    "split",
    "check counts",
    "validate",
    "compare with results in --out",
]
STEPS = [
    *CHECKS,
    *(
        step
        for name in paper.BACKBONES
        for step in (f"graph {name}", f"train {name} seed 0", f"evaluate {name} seed 0")
    ),
    "table",
]


def named(text: str) -> list[str]:
    """Steps that came to their end, in order, each under the words of a dry run."""
    lines = [line.split("] ", 1)[1] for line in text.splitlines() if line.startswith("[") and not line.endswith("...")]
    assert all(line.startswith(f"{WORDS}: ") for line in lines)
    return [line.removeprefix(f"{WORDS}: ").rsplit(":", 1)[0] for line in lines]


@pytest.fixture(scope="module")
def voc_lt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dry run of voc-lt with one seed: its data and its results."""
    folder = tmp_path_factory.mktemp("voc-lt")
    assert again(folder) == 0
    return folder


def again(folder: Path, *more: str) -> int:
    folders = ("--data", str(folder / "data"), "--out", str(folder / "out"))
    return status("voc-lt", "--dry-run", "--seeds", "0", *folders, *more)


def status(*words: str) -> int:
    """Exit status of the command."""
    try:
        main(["paper", *words])
    except SystemExit as ended:
        return int(str(ended.code))
    return 0


def test_a_dry_run_of_coco_lt_names_every_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("coco-lt", "--dry-run", "--seeds", "0", "--out", str(tmp_path)) == 0
    assert named(capsys.readouterr().out) == STEPS
    assert "labels of the test images were not compared with published counts" in (tmp_path / "table.md").read_text()
    counts = json.loads((tmp_path / "split/split.json").read_text())
    assert (counts["method"], counts["extra_labels"]) == ("published", False)


def test_the_checks_of_nus_wide_say_what_was_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("nus-wide", "--dry-run", "--check") == 0
    text = capsys.readouterr().out
    assert named(text) == CHECKS
    assert "only the lengths of its official lists are published" in text


def test_a_run_that_was_cut_off_trains_nothing_again(voc_lt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = {path: path.stat().st_mtime_ns for path in (voc_lt / "out").glob("*/seed0/model/model.safetensors")}
    assert len(models) == 2
    assert again(voc_lt) == 0
    text = capsys.readouterr().out
    assert named(text) == STEPS
    assert [line.split(": ")[1] for line in text.splitlines() if line.endswith("reused")] == [
        step for step in STEPS if step.split()[0] not in ("check", "compare", "table")
    ]
    assert all(path.stat().st_mtime_ns == time for path, time in models.items())


def test_results_of_other_settings_are_not_mixed_in(voc_lt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = voc_lt / "out/RN50/identity.json"
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {"settings": "others"}))
    try:
        assert again(voc_lt, "--check") == 2
    finally:
        path.write_text(before)
    assert "results of other settings are there" in capsys.readouterr().err


def test_results_of_other_words_for_classes_are_not_mixed_in(voc_lt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = voc_lt / "data/classes.csv"
    path.write_text("name,prompt_name\ntvmonitor,television\n")
    try:
        assert again(voc_lt, "--check") == 2
    finally:
        path.unlink()
    assert "results of other classes are there" in capsys.readouterr().err
    assert again(voc_lt, "--check") == 0


def test_the_table_has_our_rows_the_published_ones_and_what_differs(voc_lt: Path) -> None:
    text = (voc_lt / "out/table.md").read_text()
    content = json.loads((voc_lt / "out/results.json").read_text())
    assert "figures of our rows mean nothing" in text
    for title in ROWS.values():
        assert [row["backbone"] for row in content["ours"] if row["row"] == title] == list(paper.BACKBONES)
        assert text.count(f"| DRY RUN {title} |") == 2
    for result in RESULTS["voc-lt"]:
        assert f"| {result.method} | {result.backbone} |" in text
    for letter in "abcdefghij":
        assert f"- **{letter}**: {PROTOCOL[letter]}" in text
    assert content["settings_sha256"] in text
    assert content["settings"]["train"]["select"] == "last"
    assert "no scores out of fold, unlike the preset" in text
    assert not list((voc_lt / "out").rglob("out_of_fold.parquet"))
    ours = content["ours"][0]["figures"]["mAP"]
    metrics = json.loads((voc_lt / "out/RN50/seed0/evaluation/evaluation.json").read_text())["capnet"]
    assert ours["mean"] == pytest.approx(100 * metrics["mAP"])
    assert (ours["sd"], ours["low"]) == (None, pytest.approx(100 * metrics["mAP_low"]))
    assert "95 % bootstrap interval over test images" in text
    assert "different precisions" not in text


def test_a_table_of_runs_in_different_precisions_says_so(voc_lt: Path, tmp_path: Path) -> None:
    """As where a command that was interrupted goes on on another machine."""
    out = shutil.copytree(voc_lt / "out", tmp_path / "out")
    config = out / "RN50/seed0/model/config.json"
    content = json.loads(config.read_text())
    other = {"bf16": "fp32", "fp32": "bf16"}[content["precision"]]
    config.write_text(json.dumps(content | {"precision": other}))
    arguments = ("voc-lt", "--dry-run", "--seeds", "0", "--data", str(voc_lt / "data"), "--out", str(out))
    assert status(*arguments) == 0
    expected = f"towers ran in different precisions: RN50 seed 0 {other}, ViT-B-16 seed 0 {content['precision']}"
    assert expected in (out / "table.md").read_text()


@pytest.mark.parametrize(
    ("name", "fault", "code", "words"),
    [
        (
            "voc-lt",
            "list",
            3,
            ["the list trainval.txt has 115 image ids, published are 116", "VOC2012/ImageSets/Main/trainval.txt"],
        ),
        (
            "voc-lt",
            "count",
            3,
            ["1 of 20 training counts", "person: 109 instead of 110", "not the published list of voc-lt"],
        ),
        ("coco-lt", "list", 3, ["the list coco_lt_train.txt has 139 image ids, as published, but not the same ones"]),
        ("coco-lt", "count", 3, ["1 of 80 training counts", "person: 109 instead of 110", "coco_lt_train.txt"]),
        ("nus-wide", "list", 3, ["the list TrainImagelist.txt has 143 image ids, published are 144"]),
        ("coco-lt", "weights", 2, ["the weight file has sha256", "which OpenAI did not publish", "weights/RN50.pt"]),
    ],
)
def test_what_is_wrong_is_refused_in_three_parts(
    name: str, fault: str, code: int, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    counts, hashes = dict(BENCHMARKS), dict(OPENAI_WEIGHTS)  # before what the dry run puts in their place
    assert status(name, "--dry-run", "--damage", fault) == code
    error = capsys.readouterr().err
    for word in [*words, "  where: ", "  to do: "]:
        assert word in error
    assert (counts, hashes) == (BENCHMARKS, OPENAI_WEIGHTS)


def test_what_was_put_right_is_read_again(tmp_path: Path) -> None:
    make("voc-lt", tmp_path / "data")
    annotation = tmp_path / "data/VOCdevkit/VOC2012/Annotations/2008_000001.xml"
    right = annotation.read_text()
    assert again(tmp_path, "--check", "--damage", "count") == 3
    assert annotation.read_text() != right
    annotation.write_text(right)
    assert again(tmp_path, "--check") == 0


def test_test_labels_that_are_not_the_published_ones_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make("voc-lt", tmp_path / "data")
    annotation = tmp_path / "data/VOCdevkit/VOC2007/Annotations/000001.xml"
    right = annotation.read_text()
    annotation.write_text(right.replace("<object><name>person</name></object>", ""))
    assert annotation.read_text() != right
    assert again(tmp_path, "--check") == 3
    error = capsys.readouterr().err
    for word in ("1 of 20 test counts are not the published ones", "person: 18 instead of 19", "  to do: "):
        assert word in error
    annotation.write_text(right)
    assert again(tmp_path, "--check") == 0


@pytest.mark.parametrize("table", ["corrections.csv", "added/more.csv"])
def test_tables_that_change_published_labels_are_refused(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make("voc-lt", tmp_path / "data")
    path = tmp_path / "data" / table
    path.parent.mkdir(exist_ok=True)
    path.write_text("path,class,label\nVOCdevkit/VOC2007/JPEGImages/000001.jpg,person,no\n")  # of a test image
    assert again(tmp_path, "--check") == 3
    error = capsys.readouterr().err
    assert "it changes the published labels, or adds images to them" in error
    assert table in error
    path.unlink()
    assert again(tmp_path, "--check") == 0


def test_other_words_for_classes_are_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("voc-lt", tmp_path / "data")
    assert again(tmp_path, "--check") == 0
    (tmp_path / "data/classes.csv").write_text("name,prompt_name\ntvmonitor,television\n")
    capsys.readouterr()
    assert again(tmp_path, "--check") == 0
    assert "classes.csv gives other words to 1 classes (tvmonitor" in capsys.readouterr().out


def test_other_labels_of_nus_wide_are_read_again(tmp_path: Path) -> None:
    """No count is published that would refuse the first ones."""
    words = ["nus-wide", "--dry-run", "--check", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert status(*words) == 0
    before = (tmp_path / "out/split/split.parquet").read_bytes()
    path = tmp_path / "data/Groundtruth/TrainTestLabels/Labels_cat_Test.txt"
    path.write_text("1\n" * len(path.read_text().split()))
    assert status(*words) == 0
    assert (tmp_path / "out/split/split.parquet").read_bytes() != before


def test_a_dry_run_compares_the_hash_of_other_weights_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "RN50.pt").write_bytes(b"not the made file")
    assert status("coco-lt", "--dry-run", "--weights", f"RN50={tmp_path / 'RN50.pt'}") == 2
    assert "the weight file has sha256" in capsys.readouterr().err


def test_weights_that_no_hash_vouches_for_are_tried_before_the_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"vision_model.post_layernorm.weight": torch.zeros(4)}, tmp_path / "model.safetensors")
    command_line = ["--check", "--weights", f"RN50={tmp_path / 'model.safetensors'}"]
    assert status("coco-lt", "--dry-run", *command_line) == 2
    out, error = capsys.readouterr()
    assert "check weights: stopped" in out
    assert "Hugging Face's layout" in error
    assert "  to do: " in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--weights", "RN50={file}"], "the weight file has sha256"),
        (["--weights", "RN50=missing.pt"], "neither a file nor one of open_clip's tags"),
        (["--weights", "RN101={file}"], "cannot use --weights RN101"),
        ([], "no weights are named"),
        (["--weights", "RN50={file}", "--set", "train.epochs=3"], "the preset is fixed before any result"),
        (["--weights", "RN50={file}", "--seeds", "0", "0"], "different numbers"),
        (["--weights", "RN50={file}", "--damage", "list"], "belongs to a dry run"),
    ],
)
def test_a_wrong_weight_file_or_command_line_ends_at_once(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "RN50.pt").write_bytes(b"not the published file")
    command_line = [item.format(file=tmp_path / "RN50.pt") for item in arguments]
    assert status("voc-lt", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *command_line) == 2
    assert words in capsys.readouterr().err


def test_a_dry_run_leaves_a_folder_with_other_data_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"of somebody")
    with pytest.raises(ConfigError, match="holds something else"):
        make("voc-lt", tmp_path)
    with pytest.raises(ConfigError, match="holds something else"):
        make("voc-lt", tmp_path / "photo.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]
