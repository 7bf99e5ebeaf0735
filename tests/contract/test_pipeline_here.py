"""Runs on this machine with KFP's own runner: what the terminal shows, what fails how, what is tried again."""

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from kfp import dsl
from kfp.dsl import Metrics, Output

from capnet.contracts import write_json
from pipelines import submit
from pipelines.errors import RunFailed
from pipelines.local import run_here, subprocess_runner
from pipelines.options import Options
from pipelines.summary import summary

pytestmark = pytest.mark.slow


@dsl.component(base_image="python", install_kfp_package=False)
def ends(how: str, folder: str, metrics: Output[Metrics]) -> None:
    """Ends as told, once; afterwards with success."""
    import os
    import signal
    from pathlib import Path

    from capnet.errors import DataError
    from capnet.tasks import task

    with task({}):
        metrics.log_metric("rows", 30)
        metrics.log_metric("share", 0.25)
        print("a line of a task")
        marker = Path(folder, how)
        if how == "well" or marker.exists():
            return
        marker.touch()
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "refused":
            raise DataError("row 3 is empty", "labels.csv", "fill it")
        raise ZeroDivisionError("our own mistake")


@dsl.component(base_image="python", install_kfp_package=False)
def after(folder: str) -> None:
    """Leaves a trace."""
    from pathlib import Path

    Path(folder, "went on").touch()


def pipeline(retries: int = 0) -> Any:
    @dsl.pipeline(name="endings")
    def endings(how: str, folder: str) -> None:
        first = ends(how=how, folder=folder)
        if retries:
            first.set_retry(retries, backoff_duration="0s")
        after(folder=folder).after(first)

    return endings


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    factory = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)  # that of capnet, set by an earlier test, changes colours

    def start(how: str, retries: int = 0) -> Path:
        return run_here(
            pipeline(retries), {"how": how, "folder": str(tmp_path)}, subprocess_runner(), tmp_path / "runs"
        )

    yield start
    logging.setLogRecordFactory(factory)


def test_a_run_is_a_line_a_task_and_the_log_has_the_rest(
    run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run("well")
    first, second, third, last = capsys.readouterr().out.splitlines()
    assert (first.strip(), second) == ("ends", "  a line of a task")
    assert third.split() == ["ends", third.split()[1], "s", "rows", "30", "share", "0.25"]
    assert last.startswith("after ")
    assert folder.parent == tmp_path / "runs"
    log = (folder / "log.txt").read_text()
    assert "Got executor_input" in log
    assert "\x1b" not in log
    assert "finished with status SUCCESS" in log


@pytest.mark.parametrize(
    ("how", "what", "shown"),
    [
        (
            "refused",
            "the task ends failed: data error, exit code 3",
            "  row 3 is empty\n    where: labels.csv\n    to do: fill it\n",
        ),
        ("broken", "the task ends failed\n", "ZeroDivisionError: our own mistake"),
        ("killed", "the task ends ended without a message: it was killed, or memory ran out", "a line of a task"),
    ],
)
def test_a_failure_names_the_task_and_what_it_said(
    how: str, what: str, shown: str, run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunFailed) as failed:
        run(how)
    assert str(failed.value).startswith(what)
    assert "log.txt" in str(failed.value)
    assert shown in capsys.readouterr().out
    assert not (tmp_path / "went on").exists()


def test_a_killed_task_is_tried_again(
    run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("killed", retries=1)
    assert "tried again in 0 s (1 of 1)" in capsys.readouterr().out
    assert (tmp_path / "went on").exists()


SLEEPER = """
import sys
from pathlib import Path

from kfp import dsl
from pipelines.errors import RunFailed
from pipelines.local import run_here, subprocess_runner


@dsl.component(base_image="python", install_kfp_package=False)
def sleeps():
    import os
    import time

    print("asleep", os.getpid(), "", flush=True)
    time.sleep(300)


@dsl.pipeline(name="interrupted")
def interrupted():
    sleeps()


try:
    run_here(interrupted, {}, subprocess_runner(), Path("runs").resolve())
except RunFailed as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_no_traceback_and_leaves_no_task(
    number: signal.Signals, tmp_path: Path, repository: Path
) -> None:
    """Ctrl-C reaches all processes of a terminal, SIGTERM that of `submit` alone."""
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    process = subprocess.Popen(
        [sys.executable, "sleeper.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # a shell's background job hands down an ignored SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    lines = []
    while not (task := re.search(r"asleep (\d+) ", "".join(lines))):
        lines.append(process.stdout.readline())
        assert lines[-1], "".join(lines)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(task[1])).wait(10)
    assert process.returncode == 1
    assert "the run was interrupted in sleeps\n  where: runs/interrupted-" in output
    assert "Traceback" not in output


def test_the_next_command_is_about_the_model_that_was_registered(tmp_path: Path) -> None:
    for name in ("report", "register/registration"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "report" / "report").write_text("a page")
    write_json(tmp_path / "register" / "registration" / "registration.json", {"name": "birds", "alias": "challenger"})
    figures = {"artifacts": {"metrics": {"artifacts": [{"metadata": {"version": 3.0}}]}}}
    write_json(tmp_path / "register" / "executor_output.json", figures)
    options = {"params": "birds.yaml", "settings": ("train.epochs=2", "register.name=birds")}
    lines = summary(tmp_path, submit.named_settings(options))
    assert "capnet promote --version 3 --params birds.yaml --set register.name=birds " in "\n".join(lines)
    usual = summary(tmp_path, submit.named_settings({"params": "params.yaml", "settings": ("train.epochs=2",)}))
    assert "capnet promote --version 3    makes it the champion" in "\n".join(usual)


def test_here_loops_take_turns_and_pictures_stay_where_they_are() -> None:
    here = Options(cluster=False)
    assert (here.at_a_time(8), here.volume) == (1, "/")
    assert (Options().at_a_time(8), Options().volume) == (8, "")
    assert Options(cluster=False, data_volume=True).volume == Options(data_volume=True).volume == "/mnt/data"
