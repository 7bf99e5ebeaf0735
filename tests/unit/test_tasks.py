"""What an orchestrator sees of a task: exit codes, messages, settings, the GPU check."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from capnet.config import parse
from capnet.errors import ConfigError
from capnet.tasks import located, require_accelerators, require_turns, say_outcome, task, with_seed


def in_a_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "code", "heading"),
    [
        ("CapnetError", 1, "error"),
        ("ConfigError", 2, "settings error"),
        ("DataError", 3, "data error"),
        ("ContractError", 4, "contract error"),
        ("GateError", 5, "gate error"),
    ],
)
def test_a_users_mistake_ends_the_process_with_its_code_and_no_traceback(error: str, code: int, heading: str) -> None:
    done = in_a_process(
        f"from capnet.errors import {error}\nfrom capnet.tasks import task\nwith task({{}}):\n    raise {error}('bad"
        " thing', 'labels.csv row 3', 'mend it')"
    )
    assert done.returncode == code
    assert done.stderr.startswith(f"{heading}, exit code {code}\n")
    assert "bad thing" in done.stderr
    assert "labels.csv row 3" in done.stderr
    assert "mend it" in done.stderr
    assert "Traceback" not in done.stderr


def test_our_own_mistakes_keep_their_traceback() -> None:
    done = in_a_process("from capnet.tasks import task\nwith task({}):\n    1 / 0")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_wrong_parameters_are_named_together(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended, task({"train": {"epochs": -1.0, "epoch": 3.0}}):
        pass
    assert ended.value.code == 2
    assert "train.epochs" in caplog.text
    assert "train.epoch " in caplog.text


def test_a_task_that_asked_for_a_gpu_and_sees_none_ends_before_torch_is_imported() -> None:
    """On a machine with a GPU the same call passes; then too many are asked for."""
    start = time.monotonic()
    done = in_a_process(
        "import sys\nfrom capnet.tasks import task\nwith task({}, accelerators=99.0):\n    print('went on')"
    )
    assert done.returncode == 2
    assert "the task asked for 99 GPU and sees" in done.stderr
    assert "went on" not in done.stdout
    if not any(Path("/dev").glob("nvidia*")):
        assert time.monotonic() - start < 5, "torch alone takes longer on a busy machine"


def test_no_gpu_asked_for_is_fine() -> None:
    require_accelerators(0)
    require_accelerators(0.0)
    with pytest.raises(ConfigError, match="accelerator_count"):
        require_accelerators(99)


def test_a_seed_of_several_gives_the_settings_of_that_seed_alone() -> None:
    several = parse({"runtime": {"seed": 0}, "train": {"seeds": [3.0, 4.0]}})
    assert with_seed(several, 4.0) == parse({"runtime": {"seed": 4}})
    with pytest.raises(ValueError, match="seed"):
        with_seed(several, -1)


def test_the_source_decides_which_pictures_are_read(tmp_path: Path) -> None:
    settings = parse({"data": {"root": "git+https://example.com/x.git", "revision": "main"}})
    source = {
        "schema": 1,
        "root": "git+https://example.com/x.git",
        "revision": "abc",
        "path": "data",
        "digest": "d",
        "files": 1,
    }
    (tmp_path / "source.json").write_text(json.dumps(source))
    result, root = located(settings, tmp_path)
    assert (result.data.revision, root) == ("abc", "git+https://example.com/x.git")
    (tmp_path / "source.json").write_text(json.dumps({**source, "root": ""}))
    result, root = located(settings, tmp_path)
    assert (result, root) == (settings, str(tmp_path / "files"))


@pytest.mark.parametrize(
    ("state", "level"),
    [("SUCCEEDED", "INFO"), ("COMPLETE", "INFO"), ("FAILED", "ERROR"), ("CANCELED", "ERROR"), ("RUNNING", "WARNING")],
)
def test_a_run_that_went_well_is_no_error_in_the_words_of_any_server(
    state: str, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    say_outcome(state, None)
    (record,) = caplog.records
    assert record.levelname == level
    assert ("its page shows which task failed" in record.getMessage()) == (level == "ERROR")
    assert ("no end of the run is recorded" in record.getMessage()) == (state == "RUNNING")


@pytest.mark.parametrize(
    ("values", "expected", "message"),
    [
        ([], [1, 2], "further_seeds is empty"),
        ([], [], "further_seeds is empty"),
        ([1.0], [1, 2], "further_seeds is [1], and [1, 2] belongs to this run"),
        ([2, 1], [1, 2], "further_seeds is [2, 1], and [1, 2] belongs to this run"),
    ],
)
def test_a_loop_over_a_list_that_does_not_belong_to_the_run_is_refused(
    values: list[float], expected: list[int], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        require_turns("further_seeds", values, expected)
    require_turns("further_seeds", [1.0, 2.0], [1, 2])
