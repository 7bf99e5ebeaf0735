"""Every command line and every setting that the documents print exists."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest
import yaml
from dvc.cli.parser import DvcParserError, get_main_parser

from benchmarks import graph, paper
from benchmarks.__main__ import BENCHMARKS
from capnet.cli import main
from capnet.commands.preset import names
from capnet.config import Params, override, parse
from capnet.errors import CapnetError
from pipelines import submit

SHELL = {"cd", "cp", "grep", "ls", "mkdir", "mv", "open", "rm", "xdg-open", "export"}
KUBECTL = {
    *("apply", "cp", "create", "delete", "describe", "get", "kustomize", "patch", "port-forward", "rollout", "wait"),
}
TOOLS = {
    "git": {"clone", "add", "checkout", "commit", "diff", "tag"},
    "docker": {"compose", "run"},
    "mlflow": {"ui"},
    "pip": {"install", "download"},
}
WRITERS = {"-m pipelines.dvc_file", "-m pipelines.compiling", "-m components.readme"}  # of generated files
ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "mlflow/README.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
]


def blocks(text: str, language: str) -> Iterator[str]:
    yield from re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def check_command(line: str, repository: Path) -> None:
    """Fail unless every command of one printed line exists with its options."""
    for part in re.split(r"&&|\|(?!\|)", re.sub(r"\s+#\s.*$", "", line)):
        words = shlex.split(part.split(" > ")[0])
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words.pop(0)
        program, *arguments = words
        program = program.removeprefix(".venv/bin/")
        if program == "capnet":
            check_capnet(arguments)
        elif program == "make":
            targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), flags=re.MULTILINE))
            named = {item for item in arguments if "=" not in item} or {"help"}
            assert named <= targets, f"no target {named - targets} in the Makefile"
        elif program == "dvc":
            get_main_parser().parse_args(arguments)
        elif program == "kubectl":
            check_kubectl(arguments, repository)
        elif program == "torchrun":
            check_capnet(arguments[arguments.index("capnet.cli") + 1 :])
        elif program == "python" and arguments[:3] == ["-m", "benchmarks", "graph"]:
            graph.parser().parse_args(arguments[3:])
        elif program == "python" and " ".join(arguments) in WRITERS:
            assert (repository / arguments[1].replace(".", "/")).with_suffix(".py").is_file()
        elif program == "python" and arguments[:2] == ["-m", "pipelines.submit"]:
            with submit.command.make_context("submit", arguments[2:]) as parsed:
                parse(override({}, parsed.params["settings"]), "a document")
        elif program == "python" and arguments[:2] == ["-m", "benchmarks"]:
            assert arguments[2] in BENCHMARKS, f"no benchmark {arguments[2]}"
            if arguments[2] == "paper":
                paper.parser().parse_args(arguments[3:])
        else:
            assert program in SHELL or arguments[0] in TOOLS.get(program, ()), f"{program} is not checked: {line}"


def check_kubectl(arguments: list[str], repository: Path) -> None:
    """The subcommand is one that tests/services checks with the real program, and folders of this repository are
    there.
    """
    words = arguments[2:] if arguments[0] == "-n" else arguments
    assert words[0] in KUBECTL, f"kubectl {words[0]} is not checked"
    for flag, argument in pairwise(words):
        if flag in ("-k", "-f") and "?ref=" not in argument:
            assert (repository / argument).exists(), argument
        if flag == "-n":
            raise AssertionError("the namespace stands before the subcommand")
    if words[0] == "kustomize" and len(words) > 1 and "?ref=" not in words[1]:
        assert (repository / words[1] / "kustomization.yaml").is_file(), words[1]


def check_capnet(arguments: list[str]) -> None:
    context = click.Context(main)
    if not arguments or arguments[0].startswith("-"):
        main.make_context("capnet", arguments or ["--help"], resilient_parsing=True)
        return
    command = main.get_command(context, arguments[0])
    assert command is not None, f"no command capnet {arguments[0]}"
    with command.make_context(arguments[0], arguments[1:], parent=context) as parsed:
        settings = parsed.params.get("settings", ())
        parse(override({}, settings), "a document")
        if arguments[0] == "preset" and parsed.params["name"]:
            assert parsed.params["name"] in names()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_printed_commands_exist(document: str, repository: Path) -> None:
    text = (repository / document).read_text()
    for block in blocks(text, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                check_command(line.strip(), repository)


@pytest.mark.parametrize(
    "line",
    [
        "make dmeo",
        "capnet tarin",
        "capnet train --epochs 3",
        "capnet train --set train.epoch=3",
        "dvc repor",
        "capnet preset nothing",
        "sudo reboot",
        "python -m benchmarks papers",
        "python -m pipelines.submit training --gpus 1",
        "python -m pipelines.submit training --set train.epoch=3",
        "python -m benchmarks graph --label LISTS --page",
        "kubectl aply -k deploy/secrets",
        "kubectl apply -k deploy/secret",
    ],
)
def test_the_check_sees_a_wrong_command(line: str, repository: Path) -> None:
    with pytest.raises((AssertionError, CapnetError, click.UsageError, DvcParserError, SystemExit)):
        check_command(line, repository)


@pytest.mark.parametrize("document", ["mlflow/README.md", "docs/promotion.md"])
def test_the_printed_request_sends_a_picture_of_2_megabytes(document: str, repository: Path, tmp_path: Path) -> None:
    paragraphs = re.split(r"\n\n|^```\n", (repository / document).read_text(), flags=re.MULTILINE)
    request = next(text for text in paragraphs if "curl http" in text)
    picture = os.urandom(2_000_000)
    (tmp_path / "a.jpg").write_bytes(picture)
    curl = tmp_path / "curl"
    curl.write_text('#!/bin/sh\ncase "$*" in *"-d @-"*) exec cat > body ;; esac\n')
    curl.chmod(0o700)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", request], cwd=tmp_path, env=environment, check=True)
    body = json.loads((tmp_path / "body").read_text())
    assert body["params"] == {"decided_only": True}
    assert base64.b64decode(body["dataframe_records"][0]["image"]) == picture


@pytest.mark.parametrize("document", DOCUMENTS)
def test_printed_settings_are_accepted(document: str, repository: Path) -> None:
    for block in blocks((repository / document).read_text(), "yaml"):
        parse(yaml.safe_load(block), document)


def inline(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_settings_commands_and_files_exist(document: str, repository: Path) -> None:
    text = (repository / document).read_text()
    sections = {field.alias or name for name, field in Params.model_fields.items()}
    for words in inline(text):
        if (
            words.startswith(("make ", "capnet ", "dvc ", "kubectl ", "python -m pipelines.", "python -m benchmarks "))
            and words.split()[1].lstrip("-").islower()
        ):
            check_command(words, repository)
        if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", words) and words.split(".")[0] in sections and words != "data.dvc":
            node: object = Params().model_dump(mode="json", by_alias=True)
            for key in words.split("."):
                assert isinstance(node, dict), f"{document}: no setting {words}"
                assert key in node, f"{document}: no setting {words}"
                node = node[key]
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (repository / document).parent.joinpath(target).exists(), f"{document} links to {target}"


def test_links_lead_to_headings(repository: Path) -> None:
    for document in DOCUMENTS:
        for target, anchor in re.findall(r"\]\(([^)#:]*\.md)?#([^)]+)\)", (repository / document).read_text()):
            page = (repository / document).parent / (target or Path(document).name)
            headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, f"{document}: no heading {target}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_python_files_exist(document: str, repository: Path) -> None:
    text = (repository / document).read_text()
    names = re.findall(r"`((?:capnet|components|pipelines|benchmarks|tests)/[\w/]+\.py)`", text)
    assert len(names) > 10 or document != "docs/architecture.md"
    assert [name for name in names if not (repository / name).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_methods_exist(document: str, repository: Path) -> None:
    """``Name.method``, of a class of the library or of the tests."""
    names = set(re.findall(r"`([A-Z][a-z]\w*)\.([a-z]\w*)(?:\(\.*\))?`", (repository / document).read_text()))
    files = [path.read_text() for folder in ("capnet", "tests") for path in (repository / folder).rglob("*.py")]
    for name, method in names:
        defined = re.compile(rf"^class {name}\b.*?^    def {method}\b", flags=re.MULTILINE | re.DOTALL)
        assert any(defined.search(file) for file in files), f"{document}: no {name}.{method}"


def test_what_is_named_in_a_file_is_defined_in_it(repository: Path) -> None:
    """Of ``name`` in ``file``, as the table of decisions writes it."""
    text = (repository / "docs" / "architecture.md").read_text()
    pairs = re.findall(r"`(\w+)` in `(capnet/[\w/]+\.py)`", text)
    assert len(pairs) > 10
    for name, path in pairs:
        program = (repository / path).read_text()
        assert re.search(rf"^ *(?:def|class) {name}\b", program, flags=re.MULTILINE), f"no {name} in {path}"


def test_the_rooms_of_the_architecture_are_the_folders_of_the_library(repository: Path) -> None:
    folders = {path.name for path in (repository / "capnet").iterdir() if path.is_dir() and path.name[0] not in "._"}
    text = (repository / "docs" / "architecture.md").read_text()
    assert set(re.findall(r"^\| `capnet/(\w+)/` \|", text, flags=re.MULTILINE)) == folders
    picture = (repository / "docs" / "images" / "rooms.svg").read_text()
    assert folders - {"presets"} <= set(re.findall(r"\w+", " ".join(re.findall(r">([^<]+)</text>", picture))))


def test_the_way_of_an_image_passes_every_stage(repository: Path) -> None:
    from capnet.stages import STAGES

    text = (repository / "docs" / "architecture.md").read_text()
    rows = re.findall(
        r"^\| `(\w+)` \| .* \| `(capnet/steps/\w+\.py)`.* \| `(outputs/[\w/.]+)`", text, flags=re.MULTILINE
    )
    assert [(name, step) for name, step, _ in rows] == [(name, f"capnet/steps/{name}.py") for name in STAGES]
    for name, _, output in rows:
        assert any(output.startswith(path) for path in STAGES[name].outputs.values())


def test_the_table_of_secrets_names_every_key_and_who_reads_it(repository: Path) -> None:
    from capnet.cluster import names as cluster
    from pipelines import compiling

    text = (repository / "docs" / "on-kubernetes.md").read_text()
    rows = {
        cells[0].strip("`"): cells
        for cells in (re.split(r" *\| *", line)[1:-1] for line in text.splitlines() if line.startswith("| `capnet-"))
    }
    keys = {
        cluster.S3_SECRET: cluster.S3_KEYS,
        cluster.MLFLOW_SECRET: cluster.MLFLOW_KEYS,
        cluster.GIT_SECRET: cluster.GIT_KEYS,
    }
    readers: dict[str, set[str]] = {name: set() for name in keys}
    for name in ("training", "prediction"):
        _, platform = yaml.safe_load_all((compiling.GOLDEN / f"{name}.yaml").read_text())
        for task, settings in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].items():
            for item in settings.get("secretAsEnv", ()):
                parameter = item["secretNameParameter"]["componentInputParameter"].removeprefix("pipelinechannel--")
                readers["capnet-" + parameter.removesuffix("_secret")].add(task.removeprefix("exec-"))
    for name, expected in keys.items():
        assert re.findall(r"`(\w+)`", rows[name][1]) == list(expected)
        assert set(rows[name][2].split(", ")) == readers[name]


def test_the_readme_lists_every_stage_exit_code_and_preset(repository: Path) -> None:
    from capnet import errors
    from capnet.stages import STAGES

    text = (repository / "README.md").read_text()
    for stage in STAGES.values():
        assert f"| `{stage.name}` | {stage.summary} |" in text
    for error in (errors.ConfigError, errors.DataError, errors.ContractError, errors.GateError):
        assert re.search(rf"^\| {error.exit_code} \|", text, flags=re.MULTILINE)
    for name in names():
        assert f"`{name}`" in text


def test_the_readme_runs_within_a_screen(repository: Path) -> None:
    first = (repository / "README.md").read_text().splitlines()[:30]
    assert any("make demo" in line for line in first)
    assert any("make test" in line for line in first)
    assert any(line.startswith("![") for line in first)
