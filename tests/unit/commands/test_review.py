"""What `capnet review` reads: scores of the split's own rows, by models that have not seen them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from unit.measured import measured

from capnet.commands.review import command, doubts, page
from capnet.config import parse
from capnet.contracts import fitted_rows_hash, read_predictions, read_split, write_predictions, write_split
from capnet.errors import ContractError, DataError

pytestmark = pytest.mark.slow
Make = Callable[..., dict[str, Path]]


def begin_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command run in a project that has settings and an empty data folder."""
    (folder / "data").mkdir()
    monkeypatch.chdir(folder)
    Path("params.yaml").write_text("data: {root: data}\n")


def test_scores_of_other_rows_are_refused(make_outputs: Make) -> None:
    outputs = make_outputs()["model"].parent
    rows = read_split(outputs / "split" / "split.parquet").query("split == 'train'")
    one = read_predictions(outputs / "evaluation" / "predictions.parquet")["scores"].iloc[0]
    frame = rows[["image_id", "slice", "split"]].assign(variant="capnet", scores=[one] * len(rows))
    path = outputs / "model" / "out_of_fold.parquet"
    write_predictions(path, frame)
    measured(outputs)
    doubts(outputs, {}, 10, test=False)
    write_predictions(path, frame.iloc[1:])
    measured(outputs)
    with pytest.raises(ContractError, match=r"run `capnet train` again after `capnet split`"):
        doubts(outputs, {}, 10, test=False)
    write_predictions(path, frame.assign(scores=[one[:-1]] * len(frame)))
    measured(outputs)
    with pytest.raises(ContractError, match="scores of shape"):
        doubts(outputs, {}, 10, test=False)


def test_thresholds_of_another_model_are_refused(make_outputs: Make) -> None:
    """After `capnet train` without `capnet evaluate` the calibration is that of the model before."""
    outputs = make_outputs()["model"].parent
    path = outputs / "evaluation" / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_md5": "another.dir"}))
    with pytest.raises(ContractError, match=r"measured with another model[\s\S]*capnet evaluate"):
        doubts(outputs, {}, 10, test=False)


def test_scores_of_images_that_had_the_names_of_these_are_refused(make_outputs: Make) -> None:
    outputs = make_outputs()["model"].parent
    path, split = outputs / "model" / "config.json", outputs / "split" / "split.parquet"
    table = read_split(split)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fitted_rows": fitted_rows_hash(table)}))
    measured(outputs)
    doubts(outputs, {}, 10, test=False)
    write_split(split, table.assign(sha256=table["sha256"].to_numpy()[::-1]))
    with pytest.raises(ContractError, match=r"chosen on other rows[\s\S]*capnet train[^\n]*earlier version"):
        doubts(outputs, {}, 10, test=False)


def test_no_image_that_a_link_takes_from_elsewhere_is_on_the_page(tmp_path: Path) -> None:
    """As a folder that was replaced since the images were validated."""
    (tmp_path / "data").mkdir()
    for name in ("private.png", "data/own.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    (tmp_path / "data" / "link.png").symlink_to("../private.png")
    asked = [(name, "fox", "", "no", "0.900", "train") for name in ("own.png", "link.png")]
    for links, images in (("inside", 1), ("anywhere", 2)):
        settings = parse({"data": {"root": str(tmp_path / "data"), "links": links}})
        assert page(asked, {}, settings, tmp_path).count("<img") == images


def test_one_label_is_one_label(make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = make_outputs()["model"].parent
    begin_project(tmp_path, monkeypatch)
    result = CliRunner().invoke(command, ["--outputs", str(outputs), "--most", "1"], catch_exceptions=False)
    assert result.output.startswith("review: 1 label to look at, 0 corrected before\n")


def test_labels_that_people_filled_in_are_not_lost(
    make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They fill in the table in a spreadsheet, and run the command again before they put it into the data folder."""
    arguments = ["--outputs", str(make_outputs()["model"].parent)]
    begin_project(tmp_path, monkeypatch)
    table = Path("review/corrections.csv")
    for _ in range(2):
        CliRunner().invoke(command, arguments, catch_exceptions=False)
    filled_in = table.read_text().replace(",,", ",yes,", 1)
    table.write_text(filled_in)
    for most in ("5", "6"):
        with pytest.raises(DataError, match=r"1 label filled in here would be lost: not in corrections\.csv"):
            CliRunner().invoke(command, [*arguments, "--most", most], catch_exceptions=False)
    assert table.read_text() == filled_in
    Path("data/corrections.csv").write_text(filled_in.replace(",yes,", ",no,"))  # they thought better of it
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert "1 corrected before" in result.output
    assert table.read_text().splitlines()[1].split(",")[2] == "no"
    earlier = table.read_text().replace(",no,", ",unknown,", 1)  # an earlier answer, changed in the table
    table.write_text(earlier)
    os.utime("data/corrections.csv", (1, 1))
    with pytest.raises(DataError, match=r"1 label filled in here would be lost: not in corrections\.csv"):
        CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert table.read_text() == earlier
    os.utime("data/corrections.csv", (2**32, 2**32))  # as a checkout of the data does, which changes no label
    with pytest.raises(DataError, match=r"1 label filled in here would be lost: not in corrections\.csv"):
        CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert table.read_text() == earlier
    table.write_text(earlier.replace(",unknown,", ",no,", 1))  # as it was written, and the data has another answer
    Path("data/corrections.csv").write_text(filled_in.replace(",yes,", ",unknown,"))
    os.utime("data/corrections.csv", (1, 1))
    assert "1 corrected before" in CliRunner().invoke(command, arguments, catch_exceptions=False).output
    assert table.read_text() == earlier, "nobody had changed it here"


def test_test_images_are_to_be_recorded_before_labels_are_corrected(
    make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve corrected labels of 360 gave another test set: the gate then compares too little."""
    outputs = make_outputs()["model"].parent
    begin_project(tmp_path, monkeypatch)
    lines = CliRunner().invoke(command, ["--outputs", str(outputs)], catch_exceptions=False).output.splitlines()
    assert not any(line.startswith("First:") for line in lines), "the test set is given"
    (outputs / "split" / "split.json").write_text('{"test_source": "share"}')
    lines = CliRunner().invoke(command, ["--outputs", str(outputs)], catch_exceptions=False).output.splitlines()
    assert lines[-2].startswith("First: capnet split --save-reference; ")


def test_answers_are_not_lost_where_a_restore_made_all_times_equal(
    make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--outputs", str(make_outputs()["model"].parent)]
    begin_project(tmp_path, monkeypatch)
    table, corrections = Path("review/corrections.csv"), Path("data/corrections.csv")
    CliRunner().invoke(command, arguments, catch_exceptions=False)
    unanswered = table.read_text()
    corrections.write_text(unanswered.replace(",,", ",no,", 1))
    CliRunner().invoke(command, arguments, catch_exceptions=False)
    ours = unanswered.replace(",,", ",yes,", 1)
    table.write_text(ours)
    corrections.write_text(unanswered.replace(",,", ",unknown,", 1))  # and a colleague another one
    for path in (table, corrections):
        os.utime(path, (0, 0))
    with pytest.raises(DataError, match=r"1 label filled in here would be lost"):
        CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert table.read_text() == ours


def test_test_images_are_reviewed_only_where_they_are_asked_for(make_outputs: Make) -> None:
    outputs = make_outputs()["model"].parent
    assert not (outputs / "model" / "out_of_fold.parquet").exists()
    assert {row[-1] for row in doubts(outputs, {}, 1000, test=False)} == {"val"}
    assert "test" in {row[-1] for row in doubts(outputs, {}, 1000, test=True)}
