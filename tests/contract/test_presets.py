"""Presets are complete, params.yaml is the demo's, and a setting keeps its hash whatever way it travels."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from capnet.cli import main
from capnet.commands.preset import heading, names, read, render, source
from capnet.config import Params, Section, load, parse, settings_hash
from capnet.errors import ConfigError
from capnet.model.losses.asymmetric import Asymmetric
from capnet.model.losses.cross_entropy import Bce
from capnet.model.losses.distribution_balanced import DbFocal

NAMES = ["capnet", "coco-lt", "coco-mini", "demo", "nus-wide", "own", "recommended", "voc-lt"]


def leaves(content: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted path of every setting."""
    if not isinstance(content, dict):
        return {prefix: content}
    return {
        path: value
        for key, item in content.items()
        for path, value in leaves(item, f"{prefix}.{key}" if prefix else key).items()
    }


def settings(params: Params) -> dict[str, Any]:
    return params.model_dump(mode="json", by_alias=True)


def test_the_presets_are_these() -> None:
    assert names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_prints_every_setting_with_its_meaning(name: str, tmp_path: Path) -> None:
    text = CliRunner().invoke(main, ["preset", name]).output
    printed = leaves(yaml.safe_load(text))
    assert printed.keys() == leaves(settings(read(name))).keys()
    assert None not in printed.values(), "a null does not survive a pipeline parameter"
    for line in text.splitlines():
        key, colon, value = line.partition("#")[0].partition(":")
        if colon and value.strip():
            assert "  # " in line, f"{key.strip()} has no help text"
    (tmp_path / "params.yaml").write_text(text)
    assert load(tmp_path / "params.yaml") == read(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_settings_file_has_no_line_beyond_120_columns_and_loses_no_word(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = CliRunner().invoke(main, ["preset", name]).output.splitlines()
    assert max(map(len, lines)) <= 120
    words = " ".join(" ".join(line.partition("# ")[2].split()) for line in lines)
    assert words.startswith(heading(name))
    assert str(type(read(name).tte).model_fields["decode"].description) in words
    monkeypatch.setenv("COLUMNS", "80")
    assert CliRunner().invoke(main, ["preset", name]).output.splitlines() == lines


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_list_of_presets_fits_the_terminal(columns: str) -> None:
    text = CliRunner().invoke(main, ["preset"], env={"COLUMNS": columns}).output
    assert max(map(len, text.splitlines())) <= int(columns)
    assert [line.split()[0] for line in text.splitlines() if not line.startswith(" ")] == list(NAMES)
    words = " ".join(text.split())
    assert all(heading(name) in words for name in NAMES)


def test_every_setting_is_read_somewhere(repository: Path) -> None:
    code = "".join(path.read_text() for path in sorted((repository / "capnet").rglob("*.py")))
    keys = {path.rpartition(".")[2] for path in leaves(settings(Params()))}
    assert [key for key in sorted(keys) if not re.search(rf"\.{key}\b", code)] == [], "no code reads this setting"


@pytest.mark.parametrize("name", NAMES)
def test_dvc_reads_the_same_values(name: str, tmp_path: Path) -> None:
    from ruamel.yaml import YAML

    (tmp_path / "params.yaml").write_text(render(read(name), name))
    assert json.loads(json.dumps(YAML(typ="safe").load(tmp_path / "params.yaml"))) == settings(read(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_file_only_says_what_differs(name: str) -> None:
    written, usual = leaves(yaml.safe_load(source(name))), leaves(settings(Params()))
    known = {"split.method", "evaluate.report.thumbnails"}  # said aloud although they are the default
    idle = {path for path, value in written.items() if value == usual.get(path)} - known
    assert not {
        path
        for path in idle
        if not path.startswith(("train.loss.", "split.buckets", "split.pareto.", "graph.", "backbone."))
    }


def test_a_preset_can_be_printed_with_other_values(tmp_path: Path) -> None:
    changes = {"backbone.name": "lit-efflite0-minilm", "backbone.pretrained": "wheels", "train.epochs": 3}
    arguments = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    result = CliRunner().invoke(main, ["preset", "own", *arguments])
    assert result.exit_code == 0, result.output
    path = tmp_path / "params.yaml"
    path.write_text(result.output)
    before, after = leaves(settings(read("own"))), leaves(settings(load(path)))
    assert {key: after[key] for key in after if after[key] != before[key]} == changes
    heading = result.output.split("\n\n")[0].splitlines()
    assert all(f"{key}={value}" in " ".join(heading) for key, value in changes.items())
    assert all(line.startswith("# ") and len(line) <= 120 for line in heading)


def test_an_offline_backbone_brings_its_weights_unless_others_are_set() -> None:
    def printed(*settings: str) -> str:
        arguments = [part for setting in settings for part in ("--set", setting)]
        result = CliRunner().invoke(main, ["preset", "own", *arguments])
        assert result.exit_code == 0, result.output
        return parse(yaml.safe_load(result.output), "printed").backbone.pretrained

    assert printed("backbone.name=lit-efflite2-minilm") == "wheels"
    assert printed("backbone.name=lit-efflite2-minilm", "backbone.pretrained=random") == "random"
    assert printed("backbone.name=RN50-quickgelu") == "openai"
    assert printed("train.epochs=3") == "openai"


def test_a_setting_that_no_preset_has_is_refused() -> None:
    assert isinstance(CliRunner().invoke(main, ["preset", "own", "--set", "train.epoch=3"]).exception, ConfigError)
    assert CliRunner().invoke(main, ["preset", "--set", "train.epochs=3"]).exit_code == 2


def test_params_yaml_is_the_demo(repository: Path) -> None:
    assert (repository / "params.yaml").read_text() == CliRunner().invoke(main, ["preset", "demo"]).output, (
        "run `capnet preset demo > params.yaml`"
    )


def test_settings_of_the_documented_experiments_are_taken(repository: Path, tmp_path: Path) -> None:
    from dvc.utils.hydra import apply_overrides

    commands = re.findall(
        r"^dvc exp run (.*-S .*)$", (repository / "docs" / "experiments.md").read_text(), re.MULTILINE
    )
    assert len(commands) == 6
    changed = {}
    for command in commands:
        words = shlex.split(command)
        path = Path(shutil.copy(repository / "params.yaml", tmp_path))
        apply_overrides(path, [value for option, value in pairwise(words) if option == "-S"])
        changed[words[-1]] = load(path)
    assert changed["bce"].train.loss == Bce()
    assert changed["recall"].evaluate.threshold.objective == "recall>=0.8"
    assert changed["faster"].train.optimiser.lr_adapter == 0.01


def test_what_each_preset_decides() -> None:
    demo, own, mini, voc, coco, nus = (
        read(name) for name in ("demo", "own", "coco-mini", "voc-lt", "coco-lt", "nus-wide")
    )
    assert (demo.backbone.name, demo.split.method, demo.split.pareto.max, demo.split.pareto.min) == (
        "lit-efflite0-minilm",
        "pareto",
        800,
        4,
    )
    assert demo.evaluate.report.thumbnails
    parts = demo.train
    assert all(part.enabled for part in (parts.prompt, parts.gcn, parts.adapter, parts.class_head)), "every part"
    assert parts.blend == "held_out"
    assert (own.backbone.name, own.backbone.pretrained, own.split.method) == ("ViT-B-16-quickgelu", "openai", "natural")
    assert not own.evaluate.report.thumbnails, "patients' pictures must not travel in a report"
    assert own.train.loss == Asymmetric(gamma_positive=0.0, gamma_negative=4.0, clip=0.05)
    assert (own.train.class_head.enabled, own.train.blend, own.train.prompt.enabled, own.train.gcn.enabled) == (
        True,
        "held_out",
        False,
        False,
    )
    assert (mini.backbone.name, mini.split.buckets, mini.split.validation.source, mini.train.select) == (
        "lit-efflite2-minilm",
        (20, 6),
        "none",
        "last",
    )
    for paper, mu, scale in ((voc, 0.3, 5.0), (coco, 0.2, 2.0), (nus, 0.2, 2.0)):
        loss = paper.train.loss
        assert loss == DbFocal(alpha=0.1, beta=10.0, mu=mu, negative_scale=scale, kappa=0.05, gamma=2.0, blank="db")
        assert paper.train.head.bias, "changes no ranking, and without it training starts where no label is rare"
        assert (paper.train.class_head.enabled, paper.train.blend) == (False, "none"), "the paper's five parts"
        assert not paper.backbone.centre
        assert paper.split.validation.source == "none", "no labels beyond the published train list"
        assert paper.train.select == "last"
        assert paper.split.buckets == (100, 20)
    assert (voc.split.pareto.max, voc.split.pareto.min, voc.graph.top_k, voc.graph.tau) == (800, 1, 20, 0.3)
    assert (coco.split.pareto.max, coco.split.pareto.min, coco.graph.top_k, coco.graph.tau) == (1200, 1, 62, 0.2)
    assert (voc.split.benchmark, coco.split.benchmark, nus.split.benchmark) == ("voc-lt", "coco-lt", "none")
    assert (nus.split.method, nus.graph.top_k, nus.graph.tau) == ("natural", 50, 0.2)


def test_an_unknown_preset_names_the_known_ones() -> None:
    from capnet.errors import ConfigError

    with pytest.raises(ConfigError, match=", ".join(NAMES)):
        source("imagenet")


def floats(content: Any) -> Any:
    """As a pipeline parameter arrives: integers as floats, keys in another order."""
    if isinstance(content, dict):
        return {key: floats(content[key]) for key in reversed(content)}
    if isinstance(content, list):
        return [floats(item) for item in content]
    return float(content) if isinstance(content, int) and not isinstance(content, bool) else content


@pytest.mark.parametrize("name", NAMES)
def test_hashes_survive_a_pipeline_parameter(name: str) -> None:
    params = read(name)
    arrived = parse(floats(json.loads(json.dumps(settings(params)))))
    assert arrived == params
    for section in Params.model_fields.values():
        key = section.alias or next(name for name, field in Params.model_fields.items() if field is section)
        assert settings_hash(arrived.section(key)) == settings_hash(params.section(key))


def test_the_hash_sees_every_setting() -> None:
    """Changing any one setting changes its section's hash, so that no cache is shared by mistake."""
    params = Params()
    for name, field in Params.model_fields.items():
        section: Section = getattr(params, name)
        for path, value in leaves(section.model_dump(mode="json")).items():
            changed = section.model_dump(mode="json")
            node = changed
            *parents, last = path.split(".")
            for parent in parents:
                node = node[parent]
            node[last] = (
                "other"
                if isinstance(value, str)
                else not value
                if isinstance(value, bool)
                else [7]
                if isinstance(value, list)
                else value + 1
            )
            assert settings_hash(changed) != settings_hash(section), f"{field.alias or name}.{path}"


def test_recommended_differs_from_the_whole_method_by_what_it_says_it_dropped() -> None:
    whole, chosen = leaves(settings(read("capnet"))), leaves(settings(read("recommended")))
    changed = {
        "backbone.stages",
        "train.prompt.enabled",
        "train.gcn.enabled",
        "train.class_head.enabled",
        "train.blend",
        "train.zero_shot_weight",
    }
    assert {key for key in whole if whole[key] != chosen[key]} == changed
    assert all(whole[f"train.{part}.enabled"] for part in ("prompt", "gcn", "adapter"))
    assert whole["train.loss.name"] == "db_focal"
    assert whole["tte.views"] > 1
    assert settings(read("coco-mini")) == settings(read("capnet"))
