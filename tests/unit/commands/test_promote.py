"""`capnet promote` as people type it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from e2e import warm
from mlflow.tracking import MlflowClient
from unit.stores import clean_environment

from capnet.cli import entry
from capnet.commands.promote import ask, check_names, show_move
from capnet.config import parse
from capnet.promotion.promote import Outcome
from capnet.promotion.verdict import LIKELY, Rule, Verdict

pytestmark = pytest.mark.slow

Make = Callable[..., dict[str, Path]]


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory: pytest.TempPathFactory, outputs_maker: Make) -> Path:
    """A repository after two trainings, the second worse in the tail; both registered."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text("register:\n  name: capnet\n")
    for number, skill in enumerate(((2.0, 2.0, 2.0, 2.0), (9.0, 9.0, 2.0, 1.4))):
        outputs_maker(folder / "outputs", mAP=0.5 + number / 10, skill=skill)
        assert warm.run(["register"], folder, clean_environment()).returncode == 0
        (folder / "outputs").rename(folder / f"outputs of version {number + 1}")
    return folder


@pytest.fixture
def project(two_versions: Path, tmp_path: Path) -> Path:
    """A copy of it; the artifacts are shared."""
    return shutil.copytree(two_versions, tmp_path / "project", ignore=shutil.ignore_patterns("mlruns", "outputs*"))


def capnet(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own."""
    command = [sys.executable, "-m", "capnet.cli", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        stdin=subprocess.DEVNULL,
    )


Promote = Callable[..., tuple[int, str, str]]


@pytest.fixture
def promote(project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Promote:
    """`capnet promote` of the project by the command's own entry, in this process, which has what is slow to import:
    code, stdout, stderr.
    """
    monkeypatch.chdir(project)
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "CAPNET_"))]:
        monkeypatch.delenv(name)
    # mlflow keeps a connection to each address
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlflow.db'}")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["capnet", "promote", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            entry()
        code, text = end.value.code, capfd.readouterr()
        assert isinstance(code, int)
        return code, text.out, text.err

    return run


def test_a_refusal_is_the_exit_code_of_the_process(project: Path) -> None:
    assert capnet(project, "promote", "--version", "1").returncode == 0
    refused = capnet(project, "promote")
    assert (refused.returncode, refused.stdout) == (5, "")
    assert "the files of capnet version 2 are read from" in refused.stderr  # the project is a copy
    assert "champion of capnet: not moved\ncapnet: gate error\nfail: tail " in refused.stderr


def test_the_story_of_a_champion(project: Path, promote: Promote) -> None:
    first = promote("--version", "1")
    assert first == (
        0,
        "there is no champion to compare with\nverdict: green, on 400 test pictures\nchampion of capnet: version 1\n",
        "",
    )
    assert promote("--version", "1") == (0, "champion of capnet: version 1 already\n", "")

    code, out, errors = promote()  # the challenger is version 2
    assert (code, out) == (5, "")
    assert "capnet: gate error\nfail: tail " in errors
    assert "may be 3.0 lower\n  where: capnet version 2\n" in errors
    assert "Traceback" not in errors
    code, _, errors = promote("--force")
    assert (code, "--force needs --reason" in errors) == (5, True)
    code, out, errors = promote("--force", "--reason", "the new\ncamera\udce9" + "a" * 100_000)  # and Latin-1
    assert (code, errors) == (0, "")
    assert out.endswith("verdict: red, on 400 test pictures\nchampion of capnet: version 2, was version 1\n")

    assert promote("--rollback") == (0, "champion of capnet: version 1 again, was version 2\n", "")
    code, out, _ = promote("--audit")
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[1] for line in lines if not line.startswith(" ")] == ["promoted", "forced", "rolled"]
    forced = next(number for number, line in enumerate(lines) if "  forced  " in line)
    assert lines[forced + 1].startswith("  policy ")
    assert lines[forced + 2].startswith("  not passed: fail: tail ")
    assert lines[forced + 3].startswith("  reason: the new camera\\udce9aaaa")

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    client.delete_model_version_tag("capnet", "2", "gate_override")
    client.set_registered_model_alias("capnet", "champion", "2")
    client.set_registered_model_tag("capnet", "promotion.1.x", "\a\n\u202e2026  promoted  version 1 -> version 2")
    code, out, errors = promote("--audit")
    assert code == 5
    assert out.splitlines()[0].endswith("(not finished)")
    assert out.splitlines()[1] == r"  reason: \x07 \u202e2026  promoted  version 1 -> version 2"
    assert "new: the alias was moved outside capnet promote, to version 2" in out
    assert (
        "the champion is refused by its readers: capnet version 2 has a red verdict of the promotion gate: fail: tail"
        in errors
    )


def test_a_rollback_names_no_champion_that_was_none_and_says_who_was_faster(
    project: Path, promote: Promote, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert promote("--version", "1")[0] == 0
    assert promote("--force", "--reason", "the new camera")[0] == 0
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    client.delete_registered_model_alias("capnet", "champion")
    assert promote("--rollback") == (0, "champion of capnet: version 2 again\n", "")

    def and_another(call: Callable[..., None], name: str, alias: str, number: str) -> None:
        call(name, alias, number)
        call(name, alias, "2")

    monkeypatch.setattr("capnet.promotion.promote.insist", and_another)
    assert promote("--rollback") == (
        0,
        "champion of capnet: version 1 again, was version 2\n",
        "but another promotion moved it to version 2 at the same time\n",
    )


def test_a_champion_that_is_deleted_at_once_was_not_moved_by_another_promotion(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_move(Outcome("capnet", "", "1", "", None, None))
    assert capsys.readouterr().err == "but it or its alias was deleted at the same time\n"


@pytest.mark.parametrize("arguments", [(), ("--yes",)])
def test_the_verdict_is_printed_once_whoever_answers(
    promote: Promote, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    doubt = Verdict(notes=("a \x1b[2Jdoubt",), doubtful=True, rows=400)
    monkeypatch.setattr("capnet.promotion.measure.gate_verdict", lambda *_: doubt)
    monkeypatch.setattr("capnet.commands.promote.click.confirm", lambda *_, **__: True)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert promote("--version", "1", *arguments) == (
        0,
        "a \\x1b[2Jdoubt\nverdict: inconclusive, on 400 test pictures\nchampion of capnet: version 1\n",
        "",
    )


def test_the_question_names_what_probably_got_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    questions: list[str] = []
    monkeypatch.setattr("capnet.commands.promote.click.confirm", lambda text, default: questions.append(text))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    rules = tuple(Rule(name, "inconclusive", 0.6, 0.9, -0.3, -0.4, -0.2, 0.02, LIKELY) for name in ("mAP", "tail"))
    ask(Verdict(rules=(*rules, replace(rules[0], name="critical class a", note=""))))
    ask(Verdict(notes=("a doubt",), doubtful=True))
    assert questions == [
        "Probably below what is allowed: mAP, tail. Promote all the same?",
        "The gate cannot decide. Promote?",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--version", "9"), 1, "correct the name, version or alias"),
        (("--rollback",), 5, "no champion before now is known"),
        (("--rollback", "--audit"), 2, "exclude each other"),
        (("--set", "register.policy=missing.yaml"), 2, "there is no promotion policy"),
        (("--set", "register.name=nobody"), 1, "correct the name, version or alias"),
        (("--version", "1", "--data", "s3://bucket/birds"), 3, "where: --data s3://bucket/birds\n"),
    ],
)
def test_what_cannot_be_done_is_said(promote: Promote, arguments: tuple[str, ...], code: int, text: str) -> None:
    result, out, errors = promote(*arguments)
    assert (result, out) == (code, "")
    assert text in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "options",
    [
        ("--version", ""),
        ("--version", "abc"),
        ("--version", "1.0"),
        ("--version", "9" * 23),
        ("--to", ""),
        ("--to", "bob's"),
        ("--to", "caf\udce9"),
        ("--to", " "),
        ("--to", "capnet "),
        ("--to", "birds²"),
        ("--to", "birds+cats"),  # register.name may not be so: there would be no way back
    ],
)
def test_a_version_or_a_name_that_cannot_be_is_refused_and_nothing_moves(
    options: tuple[str, str], promote: Promote, project: Path
) -> None:
    code, _, text = promote(*options)
    assert code == 2
    assert f"where: {options[0]}" in text
    assert "to do: give" in text
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    assert "champion" not in client.get_registered_model("capnet").aliases


@pytest.mark.parametrize("name", ["ไก่", "cafe\u0301"])
def test_a_name_that_can_be_set_can_be_the_other_model(name: str) -> None:
    assert parse({"register": {"name": name}}).register_.name == name
    check_names(None, name)
