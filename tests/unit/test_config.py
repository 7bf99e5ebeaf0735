"""Settings files and overrides that cannot be meant: each is refused with what, where and what to do."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from capnet.config import Section, load, parse
from capnet.config.params import RENAMED, setting_names
from capnet.data.annotations.readers import coco
from capnet.errors import ConfigError
from capnet.model.losses import LOSSES
from capnet.section import InsidePath

WITH_GAMMA = [name for name, kind in LOSSES.items() if "gamma" in kind.model_fields]


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    assert all(problem.what and problem.where and problem.todo for problem in caught.value.problems)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfet\x00r\x00", "UTF-8"),
        (
            b"train:\n  epochs: 3\nruntime:\n  threads: 1\ntrain:\n  batch_size: 4\n",
            "'train' in line 5 is there already in line 1",
        ),
        (b"train:\n  epochs: 3\n  epochs: 4\n", "'epochs' in line 3"),
        (b"train:\n  epochs: 2024-13-45\n", "YAML"),
        (b"", "the settings file is empty"),
        (b"# train:\n", "the settings file is empty"),
        (b"train:\n  epochs: 2024-01-05\n", "train.epochs"),
        (b"train: {epochs: true}\n", "not true or false"),
        (b"train: {loss: {alpha: .nan}}\n", "train.loss.alpha"),
        (b"graph: {top_k: .inf}\n", "graph.top_k"),
        (b"graph: {top_k: 1.5}\n", "shares up to 1.0 and whole numbers above"),
        (b"split: {pareto: {max: 3, min: 9}}\n", "min = 9 is above max = 3"),
    ],
)
def test_a_settings_file_that_cannot_be_meant_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    assert words in refused(path)


@pytest.mark.parametrize(
    ("content", "overrides", "what"),
    [
        ("ingest:\n", [], "section ingest is empty"),
        ("ingest:\n", ["ingest.bad_images=1"], "section ingest is empty"),
        ("split:\n  validation:\n", [], "section split.validation is empty"),
        ("ingest: 5\n", [], "ingest = 5 is a value, not a section"),
        ("split: {pareto: [1, 2]}\n", [], "split.pareto = [1, 2] is a value, not a section"),
        ("train: {}\n", ["train.adapter=true"], "train.adapter = True is a value, not a section"),
    ],
)
def test_a_section_that_holds_no_settings_is_named(
    tmp_path: Path, content: str, overrides: list[str], what: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    message = refused(path, *overrides)
    assert message.splitlines()[0] == what
    assert "dictionary" not in message


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        ("split: {test_share: '0,2'}", "write 0.2"),
        ("split:\n  test_share: 20 %", "write 0.2"),
        ("split:\n  seed: 1,000", "write 1000"),
        ("split: {buckets: '[100, 20]'}", "write the list without quotes: [100, 20]"),
        ("split:\n  buckets: 100, 20", "write a list: [100, 20]"),
        ("split:\n  seed: 3,5", "`capnet preset own`"),
        ("split:\n  test_share: 1,000", "`capnet preset own`"),
    ],
)
def test_a_value_that_people_write_in_another_way_is_answered_with_the_right_one(
    tmp_path: Path, content: str, advice: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert [advice in problem.todo for problem in caught.value.problems] == [True]


@pytest.mark.parametrize("value", ["[100]", "[]", "[100, 20, 5]", "100", "null", "{head: 100}"])
def test_buckets_that_are_not_two_counts_are_answered_with_what_to_write(tmp_path: Path, value: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"split: {{buckets: {value}}}")
    message = refused(path)
    assert message.startswith("split.buckets")
    assert "write two counts, such as [100, 20]: head from the first on, tail below the second" in message
    assert "Field required" not in message
    assert "Tuple" not in message


def test_a_folder_in_the_place_of_the_settings_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").mkdir()
    message = refused(tmp_path / "params.yaml")
    assert "params.yaml is a folder" in message
    assert "make one with" in message
    assert "no settings file" not in message
    assert "no settings file" in refused(tmp_path / "other.yaml")


@pytest.mark.parametrize("item", ["train.epochs={", "train.epochs=[1", "train.epochs='", "train.epochs=2024-13-45"])
def test_an_override_that_is_no_yaml_is_named(tmp_path: Path, item: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("train:\n  epochs: 3\n")
    message = refused(path, item)
    assert repr(item) in message
    assert "command line" in message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["train.loss.name=asl", "train.loss.gamma=2"],
            ["unknown setting train.loss.gamma = 2", f"a setting of {', '.join(WITH_GAMMA)}", "gamma_negative"],
        ),
        (["train.loss.nothing=2"], ["unknown setting train.loss.nothing = 2", "settings of db_focal: alpha"]),
        (["train.loss.name=no_loss"], ["train.loss.name = 'no_loss'", ", ".join(map(repr, LOSSES))]),
        (["train.loss.name=asl", "train.loss.clip=3"], ["train.loss.clip = 3: Input should be less"]),
        (["train.loss=asl"], ["train.loss = 'asl': a loss is a section"]),
        (["train.adapter.place=joint"], ["unknown setting train.adapter.place", "write train.adapter.location:"]),
        (["split.published_train=a.txt"], ["unknown setting split.published_train", "write ingest.train_list:"]),
        (["ingest.probe=1"], ["unknown setting ingest.probe", "look up the name"]),
        (["train.epoch=3"], ["unknown setting train.epoch = 3", "did you mean train.epochs?"]),
        (["split.pareto.maximum=3"], ["did you mean split.pareto.max?"]),
        (["vallidate.images=full"], ["unknown setting vallidate", "did you mean validate?"]),
    ],
)
def test_a_setting_of_another_loss_or_another_time_is_refused_by_name(
    tmp_path: Path, overrides: list[str], words: list[str]
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("train:\n  loss: {gamma: 0.5}\n")
    message = refused(path, *overrides)
    assert [word for word in words if word not in message] == []


def test_every_renamed_setting_has_its_new_name() -> None:
    names = set(setting_names())
    assert not names & RENAMED.keys()
    assert names >= set(RENAMED.values())


def test_gamma_is_a_setting_of_the_focal_losses() -> None:
    assert set(WITH_GAMMA) >= {"db_focal", "db_focal_lmpt", "focal"}
    assert not {"asl", "bce", "db"} & set(WITH_GAMMA)


def test_another_loss_by_its_name_starts_from_its_own_defaults(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("train:\n  loss: {alpha: 0.3, gamma: 0.5}\n")  # of db_focal, the default
    assert load(path, ["train.loss.name=bce"]).train.loss.model_dump() == {"name": "bce"}
    assert load(path, ["train.loss.name=focal"]).train.loss.model_dump() == {"name": "focal", "gamma": 2.0}
    assert load(path, ["train.loss.gamma=1", "train.loss.name=focal"]).train.loss.model_dump()["gamma"] == 1.0
    same = load(path, ["train.loss.name=db_focal", "train.loss.alpha=0.2"]).train.loss.model_dump()
    assert (same["alpha"], same["gamma"]) == (0.2, 0.5)


def test_an_empty_override_of_a_text_setting_is_the_empty_text(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("ingest:\n  coco: {test: a.json}\n  train_list: b.txt\nvalidate:\n  reference: c.json\n")
    params = load(path, ["ingest.coco.test=", "ingest.train_list= ", "validate.reference="])
    assert (params.ingest.of(coco.Settings).test, params.ingest.train_list, params.validate_.reference) == ("", "", "")
    assert "ingest.separator = ''" in refused(path, "ingest.separator=")
    assert "ingest.corrections = ''" in refused(path, "ingest.corrections="), "a review writes it"
    assert "train.epochs = None" in refused(path, "train.epochs=")
    assert "unknown setting ingest.nothing = None" in refused(path, "ingest.nothing=")
    assert "an empty one is ''" in refused(path, "ingest.train_list=null")


def test_overrides_leave_the_settings_they_start_from_alone(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("train: &same\n  epochs: 3\n")
    assert load(path, ["train.epochs=4", "train.loss.gamma=1.5"]).train.epochs == 4
    assert load(path).train.epochs == 3
    assert parse({"train": {"epochs": 3.0}}).train.epochs == 3


def test_off_is_the_word_that_settings_name_and_still_switches_parts_off(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("validate:\n  images: off\ntrain:\n  gcn: {enabled: off}\n  prompt: {enabled: False}\n")
    params = load(path, ["validate.near_duplicates=off", "validate.drift.severity=off", "train.adapter.enabled=no"])
    assert params.validate_.images == params.validate_.near_duplicates == params.validate_.drift.severity == "off"
    assert not params.train.gcn.enabled
    assert not params.train.prompt.enabled
    assert not params.train.adapter.enabled


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "a/../../x", "C:\\x.csv", "C:x.csv", "c:/x", "a\\b", "a\0b", "s3://b/x", "."]
)
def test_a_path_setting_stays_inside_the_data_folder(path: str) -> None:
    class Files(Section):
        table: InsidePath = "labels.csv"

    with pytest.raises(ValidationError, match="write it relative to the data folder"):
        Files(table=path)
    for good in ("", "labels.csv", "a folder/labels.csv.gz", "..a/b..", "images/"):
        assert Files(table=good).table == good


def test_a_section_with_a_plain_int_cannot_be_defined() -> None:
    """It took true for 1."""
    with pytest.raises(TypeError, match="setting seed is an int: make it an Int"):
        type("Settings", (Section,), {"__annotations__": {"seed": int}, "seed": 0, "__module__": "section"})


def test_adapters_in_some_blocks_and_in_none_contradict_each_other() -> None:
    for blocks, in_blocks in ((0, False), (2, True)):
        parse({"train": {"adapter": {"blocks": blocks, "in_blocks": in_blocks}}})
    with pytest.raises(ConfigError, match="blocks = 2 with in_blocks = false, which puts adapters into no block"):
        parse({"train": {"adapter": {"blocks": 2, "in_blocks": False}}})


@pytest.mark.parametrize("objective", ["recall", "precision>=2", "f2"])
def test_an_objective_of_critical_classes_is_checked_as_that_of_the_others(objective: str) -> None:
    assert parse({}).evaluate.threshold.critical_objective == ""
    for name in ("objective", "critical_objective"):
        with pytest.raises(ConfigError, match="allowed are f1, recall>=R and precision>=P"):
            parse({"evaluate": {"threshold": {name: objective}}})
    with pytest.raises(ConfigError):
        parse({"evaluate": {"threshold": {"objective": ""}}})


def test_adapters_in_a_text_tower_that_is_not_run_are_refused() -> None:
    parse({"train": {"adapter": {"towers": "image+text"}}})
    with pytest.raises(ConfigError, match=r"image\+text with prompt.enabled = false"):
        parse({"train": {"adapter": {"towers": "image+text"}, "prompt": {"enabled": False}}})


def test_a_setting_that_was_renamed_is_answered_with_its_new_name() -> None:
    with pytest.raises(ConfigError, match=r"write ingest\.images: it was renamed"):
        parse({"ingest": {"pictures": "header"}})
    with pytest.raises(ConfigError, match=r"CHANGELOG\.md says which are gone"):
        parse({"evaluate": {"probe": {"c": 1}}})
