"""The ablation's command line: what is wrong with it is refused before hours of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import __main__, ablation
from capnet.commands.preset import read
from capnet.errors import CapnetError


@pytest.fixture
def good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A set that is in order, of which no feature may be computed."""
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "labels.csv").write_text("path,labels\na.jpg,thing\n")
    (tmp_path / "good" / "a.jpg").touch()
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "labels.csv").write_text("path,labels\na.jpg,thing\n")
    (tmp_path / "wrong" / "settings.yaml").write_text("split:\n  sead: 1\n")
    for name, content in (
        ("text", "hello"),
        ("loss", "train:\n  loss: {kappa: 1.0}\n"),
        ("yaml", "split: ["),
        ("headless", "train:\n  class_head: {enabled: false}\n"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "labels.csv").write_text("path,labels\na.jpg,thing\n")
        (tmp_path / name / "a.jpg").touch()
        (tmp_path / name / "settings.yaml").write_text(content)
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "labels.csv").write_text("path,labels\na.jpg,thing\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ablation, "Set", lambda *_: pytest.fail("images were read"))
    return "good=good"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sets", "GOOD", "corel5k"], "cannot use --sets corel5k"),
        (["--sets", "GOOD", "corel5k="], "cannot use --sets corel5k="),
        (["--sets", "GOOD", "good=wrong"], "cannot use --sets good=wrong"),
        (["--sets", "GOOD", "other=nowhere"], "there is no data folder"),
        (["--sets", "GOOD", "other=wrong"], "sead"),
        (["--sets", "GOOD", "other=text"], "expected sections, got str"),
        (["--sets", "GOOD", "other=loss"], "kappa"),
        (["--sets", "GOOD", "other=yaml"], "not valid YAML"),
        (["--sets", "GOOD", "other=gone"], "missing: a.jpg"),
        (["--sets", "GOOD", "--seeds", "1", "1"], "a seed is named twice"),
        (["--sets", "GOOD", "--seeds=-1"], "train.seeds"),
        (["--sets", "GOOD", "--objectives", "f1", "recal>=0.9"], "recal>=0.9"),
        (["--sets", "GOOD", "--shares", "1", "1.5"], "--shares 1.0 1.5"),
        (["--sets", "GOOD", "--set", "train.class_head.enabled=false"], "trains no class head"),
        (["--sets", "GOOD", "other=headless", "--rows", "class head"], "these rows are of one: class head"),
    ],
)
def test_a_mistake_is_refused_before_the_first_set(good: str, arguments: list[str], words: str) -> None:
    with pytest.raises(CapnetError, match="(?s)" + words.replace(".", r"\.")):
        ablation.main([good if item == "GOOD" else item for item in arguments])


@pytest.mark.parametrize("option", ["--seeds", "--shares", "--against", "--objectives"])
def test_an_option_without_a_value_is_refused(good: str, option: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        ablation.main(["--sets", good, option])


def test_ctrl_c_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ablation, "main", interrupted)
    with pytest.raises(SystemExit, match="benchmarks ablation: stopped"):
        __main__.main(["ablation"])


def test_a_table_is_read_with_the_settings_of_its_set(good: str) -> None:
    Path("good/labels.csv").write_text("path,labels\na.jpg,thing;other\nb.jpg,thing\nc.jpg,other\n")
    for name in ("b.jpg", "c.jpg"):
        Path("good", name).touch()
    base = read("own").model_dump(mode="json", by_alias=True)
    with pytest.raises(CapnetError, match=r"set ingest\.separator to ';'"):
        ablation.read_sets([good], base)
    Path("good/settings.yaml").write_text("ingest:\n  separator: ;\n")
    assert ablation.read_sets([good], base) == {"good": Path("good")}
