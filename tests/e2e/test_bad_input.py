"""A user's mistake: exit code, a message of three parts, no traceback, nothing half-written."""

from __future__ import annotations

import shutil

from e2e.workspace import QUICK, Workspace, merge, refuse, small_rows


def test_unknown_settings_are_all_named_at_once(workspace: Workspace) -> None:
    path = workspace.root / "params.yaml"
    path.write_text(path.read_text().replace("  epochs: 3 ", "  epoch: 3 ").replace("  views: 5 ", "  views: 7 "))
    refuse(workspace, "ingest", code=2, words=("train.epoch", "tte.views = 7", "params.yaml"))


def test_an_unknown_override_is_refused(workspace: Workspace) -> None:
    refuse(workspace, "ingest", "--set", "train.lr=1", code=2, words=("train.lr",))


def test_settings_that_are_no_yaml_or_no_text(workspace: Workspace) -> None:
    refuse(workspace, "ingest", "--set", "train.epochs=[", code=2, words=("train.epochs=[", "command line"))
    path = workspace.root / "params.yaml"
    text = path.read_text()
    path.write_text(text + "backbone:\n  name: RN50\n")
    refuse(workspace, "ingest", code=2, words=("'backbone'", f"line {text.count(chr(10)) + 1}", "params.yaml"))
    for encoding in ("utf-16", "cp1252"):
        path.write_bytes(f"# \u00fcber\n{text}".encode(encoding, "replace"))
        refuse(workspace, "ingest", code=2, words=("not UTF-8", "params.yaml"))


def test_a_list_is_called_a_list(workspace: Workspace) -> None:
    refuse(
        workspace,
        "ingest",
        "--set",
        "ingest.camera_traps.unsure=unidentified",
        code=2,
        words=("a valid list", "[unidentified]"),
    )


def test_no_settings_file(workspace: Workspace) -> None:
    (workspace.root / "params.yaml").unlink()
    refuse(workspace, "ingest", code=2, words=("params.yaml", "capnet preset own"))


def test_a_missing_picture_is_named(workspace: Workspace) -> None:
    (workspace.root / "data" / "images" / "007.jpg").unlink()
    refuse(workspace, "ingest", code=3, words=("images/007.jpg",))


def test_truncated_pictures_are_all_named(workspace: Workspace) -> None:
    for number in (3, 11):
        path = workspace.root / "data" / "images" / f"{number:03}.jpg"
        path.write_bytes(path.read_bytes()[:400])
    refuse(workspace, "ingest", code=3, words=("images/003.jpg", "images/011.jpg"))


def test_a_label_outside_the_classes_is_named(workspace: Workspace) -> None:
    (workspace.root / "data" / "classes.csv").write_text("name\nlemon\nstrawberry\nbroccoli\n")
    refuse(workspace, "ingest", code=3, words=("blueberry", "labels.csv"))


def test_a_class_without_positives_is_named(workspace: Workspace) -> None:
    (workspace.root / "data" / "classes.csv").write_text("name\nlemon\nstrawberry\nbroccoli\nblueberry\nunicorn\n")
    workspace.capnet("ingest")
    refuse(workspace, "split", code=3, words=("unicorn",))


def test_an_empty_data_folder(workspace: Workspace) -> None:
    shutil.rmtree(workspace.root / "data")
    (workspace.root / "data").mkdir()
    refuse(workspace, "ingest", code=3, words=("labels.csv",))


def test_a_stage_before_its_input(workspace: Workspace) -> None:
    refuse(workspace, "split", code=4, words=("manifest", "dvc repro"))


def test_a_gate_that_refuses_publishes_what_it_found(workspace: Workspace) -> None:
    """The same picture on two sides of the split, where the user asked for that to be critical."""
    rows = small_rows(workspace.root / "data")
    copy = workspace.root / "data" / "images" / "copy.jpg"
    copy.write_bytes((workspace.root / "data" / "images" / "000.jpg").read_bytes())
    rows = [{**row, "split": "train"} for row in rows[:20]] + [{**row, "split": "test"} for row in rows[20:]]
    workspace.labels([*rows, {**rows[0], "path": "images/copy.jpg", "split": "test"}])
    workspace.settings(merge(QUICK, {"validate": {"near_duplicates": "critical"}}))
    workspace.stages(last="split")
    result = workspace.run("capnet", "validate")
    assert result.returncode == 5, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert "images/copy.jpg" in result.stderr + result.stdout
    assert (workspace.root / "outputs" / "validation" / "validation.json").is_file()


def test_traceback_on_request(workspace: Workspace) -> None:
    result = workspace.run("capnet", "--traceback", "split")
    assert result.returncode != 0
    assert "Traceback" in result.stderr
