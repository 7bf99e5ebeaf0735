"""What processes keep for a moment, and what those that were killed left."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from capnet.cluster.names import STATE
from capnet.cluster.trainjob_spec import TaskPod
from capnet.commands.doctor.machine import check_state
from capnet.errors import CapnetError
from capnet.machine_faults import check_writable
from capnet.state import state_dir, state_folder, use_own_temporary_folder
from capnet.tracking.database import goes_with_the_pod

KEEPER = """
import signal, sys, tempfile
from capnet.state import use_own_temporary_folder
use_own_temporary_folder()
print(tempfile.mkdtemp(), flush=True)
sys.stdin.readline()
"""


def keeper(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process with something in its temporary folder, until it reads a line."""
    environment = os.environ | {"TMPDIR": str(folder)}
    process = subprocess.Popen(
        [sys.executable, "-c", KEEPER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_process_removes_its_temporary_folder_and_those_of_killed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "capnet-data").mkdir()
    first, kept = keeper(tmp_path)
    link = tmp_path / f"{kept.parent.name[:-8]}abcdefgh"
    link.symlink_to(tmp_path / "capnet-data")
    assert kept.parent.parent == tmp_path
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert kept.is_dir()
    second, own = keeper(tmp_path)
    assert not kept.parent.exists()
    third, another = keeper(tmp_path)
    assert own.is_dir()  # its process is at work
    for process in (second, third):
        process.communicate("\n")
    assert not own.exists()
    assert not another.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"capnet-data", link.name}


def test_a_temporary_folder_of_another_machine_stays(tmp_path: Path) -> None:
    """On a network file system a lock of a folder is seen by its own machine only."""
    first, kept = keeper(tmp_path)
    first.send_signal(signal.SIGKILL)
    first.wait()
    machine = f".{kept.parent.name.split('.')[1]}."
    others = {kept.parent.name.replace(machine, name) for name in (".elsewhere.", f"{machine}domain.", ".")}
    for name in others:
        (tmp_path / name).mkdir()
    second, _ = keeper(tmp_path)
    second.communicate("\n")
    assert {path.name for path in tmp_path.iterdir()} == others


def test_sockets_have_room_below_a_temporary_folder_of_a_machine_with_a_long_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pods of pipelines have names of 60 letters; multiprocessing adds 35 to the folder's path, and 107 are allowed."""
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(nodename="a" * 63))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for _ in range(2):
        use_own_temporary_folder()
        own = Path(tempfile.gettempdir())
        assert own.parent == tmp_path, "one folder a process"
        assert len(own.name) < 40


def test_without_a_temporary_folder_of_its_own_a_process_uses_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    use_own_temporary_folder()
    assert tempfile.gettempdir() == str(tmp_path / "gone")


def test_what_is_written_to_try_a_folder_has_no_name(tmp_path: Path) -> None:
    """A kill at that moment would leave it for good."""
    code = (
        "import os, sys; from capnet import machine_faults; from pathlib import Path; folder = sys.argv[1];"
        "sys.setprofile(lambda frame, event, item: print(os.listdir(folder)));"
        "machine_faults.check_writable(Path(folder)); sys.setprofile(None)"
    )
    seen = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert set(seen.stdout.split("\n")) == {"[]", ""}
    with pytest.raises(FileNotFoundError):
        check_writable(tmp_path / "missing")


def test_an_empty_variable_names_no_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compose file leaves one where nobody gives it a value: the working folder is no place for state."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAPNET_STATE", "")
    assert state_dir("train") == state_folder() / "train" == Path(".capnet", "train")
    assert [path.name for path in tmp_path.iterdir()] == [".capnet"]
    (finding,) = check_state()
    assert str(tmp_path / ".capnet") in finding.message
    monkeypatch.setenv("KFP_POD_NAME", "capnet-training-x-123")
    assert goes_with_the_pod(tmp_path / "mlflow.db")
    monkeypatch.setenv("CAPNET_NAMESPACE", "team")
    assert TaskPod.from_environment().state == Path(STATE)


@pytest.mark.parametrize(
    ("call", "number", "what"),
    [
        ("fcntl.flock", errno.ENOSYS, "lock files: Function not implemented"),  # Lustre without its option flock
        ("fcntl.flock", errno.ENOLCK, "lock files: No locks available"),
        ("mmap.mmap", errno.ENODEV, "map files into memory: No such device"),  # FUSE with direct_io
    ],
)
def test_a_file_system_that_lacks_what_the_state_needs_is_named_before_the_work(
    tmp_path: Path, call: str, number: int, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(call, refuse)
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path))
    for check in (lambda: state_dir("train"), lambda: list(check_state())):
        with pytest.raises(CapnetError, match=f"the file system of the state folder cannot {what}") as caught:
            check()
        assert "CAPNET_STATE" in caught.value.problems[0].todo
        assert caught.value.problems[0].where.startswith(str(tmp_path))
