"""What `capnet label` refuses before people label: images that ingest would not read, classes that none may give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from capnet.commands.label import command
from capnet.commands.label_images import Labelled, labelled_before, prefix_of, unlabelled
from capnet.commands.label_page import common_classes, folder_group, row_of, stem_of
from capnet.config import parse
from capnet.data.annotations.paths import DataFolder
from capnet.errors import ConfigError, DataError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Images of July, and those of a card that the data folder links to."""
    for name in ("data/july/1.jpg", "card/DCIM 7/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "data" / "labels.csv").write_text("path,labels\n1.jpg,fox\n")
    (tmp_path / "data" / "august").symlink_to(tmp_path / "card" / "DCIM 7")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("folder", "prefix", "is_inside"),
    [
        ("data", "", True),
        ("data/july", "july/", True),
        ("data/august", "august/", True),
        ("elsewhere/july", "july/", True),
        ("card/DCIM 7", "DCIM 7/", False),
    ],
)
def test_paths_begin_as_the_folder_is_called(data: Path, folder: str, prefix: str, is_inside: bool) -> None:
    assert prefix_of(str(data.parent / folder), str(data)) == (prefix, is_inside)


@pytest.mark.parametrize(
    ("name", "prefix", "group"),
    [
        ("site 4/1.jpg", "july/", "site 4"),
        ("site 4/2024-07/100RECNX/1.jpg", "july/", "site 4"),
        ("site 4/2024-07/1.jpg", "", "site 4"),
        ("1.jpg", "july/site 4/", "site 4"),
        ("1.jpg", "", ""),
    ],
)
def test_all_images_of_a_camera_s_folder_are_one_group(name: str, prefix: str, group: str) -> None:
    assert folder_group(name, prefix) == group


def test_an_image_that_the_annotations_locate_keeps_its_camera() -> None:
    """The name of its folder was a second group of one camera, which then could be in two splits."""
    assert row_of("cam07/1.jpg", "cam07", "", True) == {"path": "cam07/1.jpg", "group": "", "split": ""}
    assert row_of("cam07/1.jpg", "", "lynx", True) == {"path": "cam07/1.jpg", "group": "", "split": ""}
    assert row_of("july/1.jpg", "cam07", "lynx", False) == {"path": "july/1.jpg", "group": "cam07", "split": ""}
    assert row_of("july/1.jpg", "", "lynx", False) == {"path": "july/1.jpg", "group": "", "split": "train"}


@pytest.mark.parametrize(
    ("prefix", "stem"),
    [
        ("july/Site 12/", "site-12"),
        ("Kamera Süd_1/", "kamera-süd-1"),
        ("Kamera Su\N{COMBINING DIAERESIS}d/", "kamera-süd"),
        ("Камера/", "камера"),
        ("(!)/", "images"),
        ("", "images"),
    ],
)
def test_the_table_is_called_as_the_folder(prefix: str, stem: str) -> None:
    assert stem_of(prefix) == stem


@pytest.mark.parametrize(
    ("address", "root", "expected"),
    [
        ("s3://b/data/site 1/july/", "s3://b/data", ("site 1/july/", True)),
        ("s3://b/data", "s3://b/data/", ("", True)),
        ("s3://b/data2/july", "s3://b/data", ("july/", False)),
        ("s3://cards", "s3://b/data", ("cards/", False)),
        ("s3://b/data/july", "data", ("july/", False)),
        ("july", "s3://b/data", ("july/", False)),
    ],
)
def test_paths_of_a_bucket(address: str, root: str, expected: tuple[str, bool]) -> None:
    assert prefix_of(address, root) == expected


def test_images_that_ingest_would_refuse_are_refused_at_once(data: Path, tmp_path: Path) -> None:
    (tmp_path / "card" / "DCIM 7" / "3.heic").touch()
    (tmp_path / "params.yaml").write_text(f"data:\n  root: {data}\n")
    words = ["--input", f"{data}/august", "--params", f"{tmp_path}/params.yaml", "--out", f"{tmp_path}/label"]
    done = CliRunner().invoke(command, words)
    assert isinstance(done.exception, DataError)
    assert "'august/2.jpg' is reached through a link that leaves the data folder" in str(done.exception)
    assert done.stderr.startswith("label: 1 file passed over: 1 .heic; images end in .jpg")


def test_a_class_that_nobody_may_give_is_refused() -> None:
    assert common_classes(["fox", "owl"], ["owl", "deer"], "owl", "model") == {"owl"}
    for suspect in ("fox", "deer", "lynx"):
        with pytest.raises(ConfigError, match=rf"no class '{suspect}' in both .*(?s:.)*--class(?s:.)*in both are owl"):
            common_classes(["fox", "owl"], ["owl", "deer"], suspect, "model")
    with pytest.raises(ConfigError, match="the model knows no class of the annotations"):
        common_classes(["fox"], ["deer"], "", "model")


@pytest.mark.parametrize(
    ("suspect", "what", "todo"),
    [
        ("owls", "no class 'owls' in the annotations", "did you mean 'owl'?"),
        ("lynx", "no class 'lynx' in the annotations", "the classes are: deer, fox, owl"),
        ("", "the model was loaded", ""),
        ("fox", "the model was loaded", ""),
    ],
)
def test_a_class_that_the_annotations_lack_is_refused_before_the_model_is_loaded(
    data: Path, tmp_path: Path, suspect: str, what: str, todo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading takes up to minutes, and copies of a bucket's images were made, too."""

    def load(*of_model: object) -> None:
        raise ConfigError("the model was loaded", "here", "")

    monkeypatch.setattr("capnet.serving.engine.load_served", load)
    (data / "labels.csv").write_text("path,labels\n1.jpg,fox|owl\n2.jpg,deer\n")
    (tmp_path / "outputs" / "model").mkdir(parents=True)
    (tmp_path / "outputs" / "model" / "config.json").write_text("{}")
    (tmp_path / "params.yaml").write_text(f"data:\n  root: {data}\n")
    words = ["--input", f"{data}/july", "--params", f"{tmp_path}/params.yaml", "--out", f"{tmp_path}/label"]
    done = CliRunner().invoke(command, [*words, "--model", f"{tmp_path}/outputs", "--class", suspect])
    assert isinstance(done.exception, ConfigError)
    (problem,) = done.exception.problems
    assert (problem.what, problem.todo) == (what, todo)
    assert not (tmp_path / "label").exists()


@pytest.mark.parametrize("group", ["", "site 4"])
def test_what_there_is_says_whether_images_have_groups(data: Path, group: str) -> None:
    (data / "labels.csv").write_text(f"path,labels,group\n1.jpg,fox,{group}\n")
    before = labelled_before(DataFolder(data), parse({"data": {"format": "csv"}}))
    assert before == Labelled({"1.jpg"}, 0, ["fox"], {group} - {""}, set(), set())


def test_a_burst_without_a_location_may_get_the_group_of_its_site(tmp_path: Path) -> None:
    """The burst was its group also with --group, so images of one site could be in two splits. Other frames of the
    burst stay with it (``sampling_units``).
    """
    images = [
        {"id": "1", "file_name": "1.jpg", "location": "7"},
        {"id": "2", "file_name": "2.jpg", "location": "7", "seq_id": "a"},
        {"id": "3", "file_name": "3.jpg", "seq_id": "b"},
        {"id": "4", "file_name": "4.jpg", "seq_id": "c"},
        {"id": "5", "file_name": "5.jpg", "seq_id": "c"},
        {"id": "6", "file_name": "6.jpg"},
    ]
    seen = [{"id": name, "image_id": name, "category_id": 1} for name in ("1", "4")]
    content = {"images": images, "annotations": seen, "categories": [{"id": 1, "name": "fox"}]}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    before = labelled_before(DataFolder(tmp_path), parse({"data": {"format": "camera_traps"}}))
    kept = [name for name in before.grouped if before.keeps_group(name, "site 12")]
    assert kept == ["2.jpg"]
    assert [name for name in before.grouped if before.keeps_group(name, "")] == ["2.jpg", "3.jpg", "5.jpg"]


def test_the_page_needs_a_folder_for_its_tables(data: Path) -> None:
    (data / "later.csv").write_text("path,labels\n2.jpg,fox\n")
    for name in ("later.csv", ""):
        with pytest.raises(ConfigError, match=f"ingest.added = '{name}' is no folder"):
            labelled_before(DataFolder(data), parse({"data": {"format": "csv"}, "ingest": {"added": name}}))


def test_names_that_ingest_refuses_are_passed_over(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["a.jpg", "b\\c.jpg", "d.jpg"]
    assert unlabelled(names, "july/", DataFolder(data), {"july/d.jpg"}) == ["a.jpg"]
    assert "1 image passed over: ingest would refuse path 'july/b\\\\c.jpg' has back" in capsys.readouterr().err
    with pytest.raises(DataError, match="no image without labels among 1 image"):
        unlabelled(names[1:], "july/", DataFolder(data), {"july/d.jpg"})
