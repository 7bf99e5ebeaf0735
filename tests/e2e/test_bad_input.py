"""A user's mistake: exit code, a message of three parts, no traceback, nothing half-written."""

from __future__ import annotations

import shutil

from e2e.workplace import QUICK, Workplace, merge, refuse, small_rows


def test_unknown_settings_are_all_named_at_once(workplace: Workplace) -> None:
    path = workplace.root / "params.yaml"
    path.write_text(path.read_text().replace("  epochs: 3 ", "  epoch: 3 ").replace("  views: 5 ", "  views: 7 "))
    refuse(workplace, "ingest", code=2, words=("train.epoch", "tte.views = 7", "params.yaml"))


def test_an_unknown_override_is_refused(workplace: Workplace) -> None:
    refuse(workplace, "ingest", "--set", "train.lr=1", code=2, words=("train.lr",))


def test_settings_that_are_no_yaml_or_no_text(workplace: Workplace) -> None:
    refuse(workplace, "ingest", "--set", "train.epochs=[", code=2, words=("train.epochs=[", "command line"))
    path = workplace.root / "params.yaml"
    text = path.read_text()
    path.write_text(text + "backbone:\n  name: RN50\n")
    refuse(workplace, "ingest", code=2, words=("'backbone'", f"line {text.count(chr(10)) + 1}", "params.yaml"))
    for encoding in ("utf-16", "cp1252"):
        path.write_bytes(f"# \u00fcber\n{text}".encode(encoding, "replace"))
        refuse(workplace, "ingest", code=2, words=("not UTF-8", "params.yaml"))


def test_a_list_is_called_a_list(workplace: Workplace) -> None:
    refuse(
        workplace,
        "ingest",
        "--set",
        "ingest.camera_traps.unsure=unidentified",
        code=2,
        words=("a valid list", "[unidentified]"),
    )


def test_no_settings_file(workplace: Workplace) -> None:
    (workplace.root / "params.yaml").unlink()
    refuse(workplace, "ingest", code=2, words=("params.yaml", "capnet preset own"))


def test_a_missing_picture_is_named(workplace: Workplace) -> None:
    (workplace.root / "data" / "images" / "007.jpg").unlink()
    refuse(workplace, "ingest", code=3, words=("images/007.jpg",))


def test_truncated_pictures_are_all_named(workplace: Workplace) -> None:
    for number in (3, 11):
        path = workplace.root / "data" / "images" / f"{number:03}.jpg"
        path.write_bytes(path.read_bytes()[:400])
    refuse(workplace, "ingest", code=3, words=("images/003.jpg", "images/011.jpg"))


def test_a_label_outside_the_classes_is_named(workplace: Workplace) -> None:
    (workplace.root / "data" / "classes.csv").write_text("name\nlemon\nstrawberry\nbroccoli\n")
    refuse(workplace, "ingest", code=3, words=("blueberry", "labels.csv"))


def test_a_class_without_positives_is_named(workplace: Workplace) -> None:
    (workplace.root / "data" / "classes.csv").write_text("name\nlemon\nstrawberry\nbroccoli\nblueberry\nunicorn\n")
    workplace.capnet("ingest")
    refuse(workplace, "split", code=3, words=("unicorn",))


def test_an_empty_data_folder(workplace: Workplace) -> None:
    shutil.rmtree(workplace.root / "data")
    (workplace.root / "data").mkdir()
    refuse(workplace, "ingest", code=3, words=("labels.csv",))


def test_a_stage_before_its_input(workplace: Workplace) -> None:
    refuse(workplace, "split", code=4, words=("manifest", "dvc repro"))


def test_a_gate_that_refuses_publishes_what_it_found(workplace: Workplace) -> None:
    """The same picture on two sides of the split, where the user asked for that to be critical."""
    rows = small_rows(workplace.root / "data")
    copy = workplace.root / "data" / "images" / "copy.jpg"
    copy.write_bytes((workplace.root / "data" / "images" / "000.jpg").read_bytes())
    rows = [{**row, "split": "train"} for row in rows[:20]] + [{**row, "split": "test"} for row in rows[20:]]
    workplace.labels([*rows, {**rows[0], "path": "images/copy.jpg", "split": "test"}])
    workplace.settings(merge(QUICK, {"validate": {"near_duplicates": "critical"}}))
    workplace.stages(last="split")
    result = workplace.run("capnet", "validate")
    assert result.returncode == 5, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert "images/copy.jpg" in result.stderr + result.stdout
    assert (workplace.root / "outputs" / "validation" / "validation.json").is_file()


def test_traceback_on_request(workplace: Workplace) -> None:
    result = workplace.run("capnet", "--traceback", "split")
    assert result.returncode != 0
    assert "Traceback" in result.stderr
