"""Outputs are exchanged in one step, and what killed runs left goes with the next run."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from capnet.contracts import publish as publishing
from capnet.contracts.files import remove, replace_file
from capnet.contracts.publish import all_or_nothing, check_target, prepare, publish, temporary_folder, temporary_path
from capnet.errors import CapnetError
from capnet.stages import run
from capnet.state import state_dir

NOBODY = 65534  # an account without rights
PUBLISHER = """
import sys
from pathlib import Path
from capnet.contracts.publish import prepare, publish, remove, temporary_path
target = Path(sys.argv[1])
print("ready", flush=True)
for number in range(100_000):
    new = temporary_path(target, 0)
    prepare(new)
    new.mkdir()
    for name in "ab":
        (new / name).write_text(f"{sys.argv[2]} {number}")
    publish({"x": new}, {"x": target})
    remove(new)
"""


def write(folder: Path, text: str) -> None:
    folder.mkdir()
    for name in "ab":
        (folder / name).write_text(text)


@pytest.mark.slow  # many processes
def test_two_that_publish_and_are_killed_leave_a_whole_output_at_every_moment(tmp_path: Path) -> None:
    target = tmp_path / "model"
    write(target, "first")
    publishers = [
        subprocess.Popen([sys.executable, "-c", PUBLISHER, str(target), str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(2)
    ]
    for process in publishers:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    seen, until = set(), time.monotonic() + 3
    while time.monotonic() < until:
        handle = os.open(target, os.O_RDONLY)  # missing at no moment; one folder, whatever its name stands for later
        try:
            with suppress_gone(), open(os.open("a", os.O_RDONLY, dir_fd=handle)) as file:
                seen.add(file.read().partition(" ")[0])
        finally:
            os.close(handle)
    for process in publishers:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert {"0", "1"} <= seen
    assert len({(target / name).read_text() for name in "ab"}) == 1
    prepare(temporary_path(target, 0))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("number", [0, 1])
def test_a_temporary_folder_that_a_killed_process_left_goes_with_the_next(tmp_path: Path, number: int) -> None:
    """Also where that process had the number of this one, as in a container that was started again."""
    out = tmp_path / "there" / "model.onnx"
    left = temporary_path(out, 0)
    if number:
        code = "from pathlib import Path; import os; from capnet.contracts.publish import temporary_folder\n"
        code += f"with temporary_folder(Path({str(out)!r})) as folder:\n    print(folder); (folder / 'a').touch()\n"
        process = subprocess.run(
            [sys.executable, "-c", f"{code}    import sys; sys.stdout.flush(); os._exit(1)"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        left = Path(process.stdout.strip())
    else:
        left.mkdir(parents=True)
        (left / "a").touch()
    assert (left / "a").exists()
    with temporary_folder(out) as folder:
        assert not list(folder.iterdir())
        assert [path.name for path in out.parent.iterdir()] == [folder.name]
    assert not list(out.parent.iterdir())


class suppress_gone:
    """A folder that was read while it was replaced loses its files."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, *_: object) -> bool:
        return kind is FileNotFoundError


@pytest.mark.parametrize("can_exchange", [True, False])
def test_files_and_folders_replace_each_other(
    tmp_path: Path, can_exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_exchange:
        monkeypatch.setattr(publishing, "_exchanged", lambda new, path: False)
    target = tmp_path / "out"
    for kind in ("folder", "folder", "file", "file", "folder"):
        new = temporary_path(target, 0)
        write(new, "new") if kind == "folder" else new.write_text("new")
        publish({"x": new}, {"x": target})
        remove(new)
        assert target.is_dir() == (kind == "folder")
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_only_what_dead_processes_of_this_machine_left_is_swept(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    mine = temporary_path(tmp_path / "model", 0)
    names = {
        "dead": mine.name.replace(f".{os.getpid()}.", f".{child}."),
        "alive": mine.name.replace(f".{os.getpid()}.", ".1."),
        "elsewhere": mine.name.replace(f".{os.uname().nodename}.", ".elsewhere.").replace(str(os.getpid()), str(child)),
        "another": mine.name.replace(".model.", ".models.").replace(str(os.getpid()), str(child)),
        "mine": "model.tmp",
    }
    for name in names.values():
        (tmp_path / name).mkdir()
    prepare(mine)
    assert {path.name for path in tmp_path.iterdir()} == {*names.values()} - {names["dead"]}


def test_a_file_that_is_written_takes_the_remains_of_killed_writers_with_it(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os.replace = lambda temporary, path: os.kill(os.getpid(), signal.SIGKILL)
        replace_file(tmp_path / "a.json", "{}")
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    others = {left.name.replace(f".{child}.", ".1."), left.name.replace(f"{os.uname().nodename}.", "elsewhere.")}
    for name in others:
        (tmp_path / name).touch()
    replace_file(tmp_path / "b.json", "{}")
    assert {path.name for path in tmp_path.iterdir()} == {"b.json", *others}


def as_ordinary_account(folder: Path, action: Callable[[], object]) -> str:
    """What ``action`` raises in a process that works in ``folder`` without any right of root's; "" for nothing."""
    folder.chmod(0o777)
    answer, end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chdir(folder)
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            action()
        except BaseException as error:
            os.write(end, f"{type(error).__name__} {error}".encode())
        finally:
            os._exit(0)
    os.close(end)
    os.waitpid(child, 0)
    with os.fdopen(answer) as text:
        return text.read()


@pytest.mark.parametrize("place", ["model", "model/inner"])
def test_an_output_of_another_account_is_found_before_the_work(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / "model" / "model.safetensors").touch()
    (tmp_path / place / "file").touch()
    target = Path("model")

    def check() -> None:
        check_target(target, False, {})

    for folder in (tmp_path / "model", tmp_path / place):
        folder.chmod(0o777)
    assert as_ordinary_account(tmp_path, check) == ""
    for rights in (0o555, 0o000):
        (tmp_path / place).chmod(rights)
        answer = as_ordinary_account(tmp_path, check)
        (tmp_path / place).chmod(0o777)
        assert answer.startswith("CapnetError the output would take the place of a folder that this account may not")
        assert f"where: {place}\n" in answer


def test_what_another_account_left_is_in_nobodys_way(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)  # its number is that of no process
    name = temporary_path(Path("model"), 0).name.replace(f".{os.getpid()}.", f".{child}.")
    left = [tmp_path / name, tmp_path / f".b.json.{os.uname().nodename}.{child}.tmp"]
    for folder in left:
        folder.mkdir()
        (folder / "file").touch()
        folder.chmod(0o555)

    def write() -> None:
        prepare(temporary_path(Path("model"), 0))
        replace_file(Path("b.json"), "{}")

    assert as_ordinary_account(tmp_path, write) == ""
    assert (tmp_path / "b.json").read_text() == "{}"
    for folder in left:
        folder.chmod(0o755)


def test_a_state_folder_that_is_a_file_is_named_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").write_text("mine")
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    with pytest.raises(CapnetError, match="the state folder cannot be used") as caught:
        state_dir("features")
    assert caught.value.problems[0].where == str(tmp_path / "state" / "features")
    assert "CAPNET_STATE" in caught.value.problems[0].what
    assert (tmp_path / "state").read_text() == "mine"


def test_an_output_that_cannot_be_written_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "probe"))

    monkeypatch.setattr(publishing, "check_writable", full)
    monkeypatch.setattr("capnet.steps.ingest.ingest", lambda *arguments: pytest.fail("it began"))
    with pytest.raises(CapnetError, match="no output can be written here: No space left on device"):
        run("ingest", {}, {"data": tmp_path}, {"manifest": tmp_path / "outputs" / "manifest"})


def test_a_link_to_a_folder_that_is_gone_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "outputs").symlink_to(tmp_path / "unmounted")
    with pytest.raises(CapnetError, match="the link to nothing"):
        prepare(tmp_path / "outputs" / "manifest")


def test_a_disk_that_fills_up_is_named_and_keeps_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with all_or_nothing(tmp_path / "data", "demo pictures") as folder:
            (folder / "half.jpg").write_text("half")
            Path("/dev/full").write_text("x")

    with pytest.raises(CapnetError, match="cannot be written: No space left on device") as caught:
        fill()
    assert caught.value.exit_code == 1
    assert "make room there" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
