"""The stage table, the command line and dvc.yaml say the same."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from capnet.cli import COMMANDS, main
from capnet.config import Params, Validate
from capnet.errors import ContractError
from capnet.stages import STAGES, run
from pipelines.dvc_file import rewritten

HEAVY = {
    "torch",
    "pandas",
    "numpy",
    "pydantic",
    "pyarrow",
    "mlflow",
    "transformers",
    "open_clip",
    "great_expectations",
    "sklearn",
    "PIL",
}


@pytest.fixture(scope="module")
def dvc(repository: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((repository / "dvc.yaml").read_text())
    return content


def test_the_command_line_names_the_stages_in_order() -> None:
    assert list(main.list_commands(None)) == [*STAGES, *COMMANDS]


def test_help_lists_every_stage_with_its_summary() -> None:
    output = CliRunner().invoke(main, ["--help"], terminal_width=200).output
    lines = [" ".join(line.split()) for line in output.splitlines()]
    for name, summary in [*((stage.name, stage.summary) for stage in STAGES.values()), *COMMANDS.items()]:
        assert f"{name} {summary}" in lines


def test_dvc_names_the_stages_in_order(dvc: dict[str, Any]) -> None:
    assert list(dvc["stages"]) == list(STAGES)


@pytest.mark.parametrize("name", STAGES)
def test_dvc_says_what_the_table_says(dvc: dict[str, Any], name: str) -> None:
    written, stage = dvc["stages"][name], STAGES[name]
    assert written["cmd"] == f"capnet {name}"
    assert written["desc"] == stage.summary
    inputs = ["data" if item == "${data.root}" else item for item in written["deps"] if not item.startswith("capnet/")]
    # watched as a folder: DVC refuses a dependency on a missing file
    in_git = [str(Path(Validate().reference).parent)] if name in ("split", "validate") else []
    assert inputs == [*stage.inputs.values(), *in_git]
    assert written["params"] == list(stage.sections)
    outputs = [next(iter(item)) if isinstance(item, dict) else item for item in written["outs"]]
    assert outputs == list(stage.outputs.values())


def test_registration_is_never_taken_from_the_run_cache(dvc: dict[str, Any]) -> None:
    assert dvc["stages"]["register"]["outs"] == [{"outputs/registration.json": {"persist": True}}]


@pytest.mark.parametrize(
    ("name", "missing", "command"),
    [
        ("split", "manifest", "capnet ingest"),
        ("graph", "validation", "capnet validate"),
        ("evaluate", "model", "capnet train"),
        ("register", "evaluation", "capnet evaluate"),
    ],
)
def test_a_missing_input_names_the_command_that_writes_it(
    name: str, missing: str, command: str, tmp_path: Path
) -> None:
    inputs = {key: tmp_path / key for key in STAGES[name].inputs}
    for key, path in inputs.items():
        if key != missing:
            path.mkdir()
    with pytest.raises(ContractError, match=f"run `{command}` first"):
        run(name, Params(), inputs, {key: tmp_path / "out" / key for key in STAGES[name].outputs})


def test_every_section_belongs_to_a_stage() -> None:
    sections = {field.alias or name for name, field in Params.model_fields.items()}
    assert sections == {section for stage in STAGES.values() for section in stage.sections}


def test_every_input_is_data_or_an_earlier_output() -> None:
    written = {"data": "data"}
    for stage in STAGES.values():
        for name, path in stage.inputs.items():
            assert written.get(name) == path, f"{stage.name} reads {name} before any stage writes it"
        written |= stage.outputs


def test_dvc_depends_on_the_code_that_the_stages_run(repository: Path) -> None:
    text = (repository / "dvc.yaml").read_text()
    assert text == rewritten(text, repository), "run `python -m pipelines.dvc_file`"


def test_dvc_depends_on_what_the_report_includes(dvc: dict[str, Any], repository: Path) -> None:
    """A change of the style sheet alone did not run evaluate again."""
    folder = Path("capnet/evaluation/report")
    included = re.findall(r'{% include "(.+?)" %}', (repository / folder / "report.html").read_text())
    assert included, "no include was found"
    assert {str(folder / name) for name in ("report.html", *included)} <= set(dvc["stages"]["evaluate"]["deps"])


def test_a_dependency_that_is_missing_or_too_much_is_seen(repository: Path) -> None:
    text = (repository / "dvc.yaml").read_text()
    for wrong in (
        text.replace("      - capnet/steps/split.py\n", ""),
        text.replace(
            "      - capnet/steps/split.py\n", "      - capnet/steps/split.py\n      - capnet/training/gone.py\n"
        ),
    ):
        assert wrong != text
        assert rewritten(wrong, repository) == text


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_has_its_function(name: str) -> None:
    assert callable(getattr(import_module(STAGES[name].module), name))


@pytest.mark.parametrize("name", [*STAGES, *COMMANDS])
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Example" in result.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("trian", "No such command 'trian'. Did you mean 'train'?"),
        ("x", "No such command 'x'."),
        ("train --epochs 3", "No such option '--epochs'. Settings are changed with --set train.epochs=VALUE."),
        ("train --batch-size 3", "Settings are changed with --set train.batch_size=VALUE."),
        ("train --enabled", "Settings are changed with --set SECTION.KEY=VALUE."),
        ("train --parms x", "--params"),
        ("summary --epochs 3", "No such option '--epochs'."),
    ],
)
def test_what_is_misspelt_or_a_setting_is_named(arguments: str, expected: str) -> None:
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 2
    assert expected in result.output
    assert expected.count("--set") == result.output.count("--set")


def test_a_command_that_is_gone_names_what_replaced_it() -> None:
    done = subprocess.run([sys.executable, "-m", "capnet.cli", "sync"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the command `capnet sync` is gone\n" in done.stderr
    assert "  where: command line\n" in done.stderr
    assert "  to do: run `capnet register`: it completes the run" in done.stderr


def test_help_imports_nothing_heavy() -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "capnet.cli", "--help"], capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert "click" in imported, "the list of imports was not read"
    assert imported & HEAVY == set()
