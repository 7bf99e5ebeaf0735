"""What network file systems refuse: to exchange folders, to close a file, to remove a folder with an open one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from capnet.contracts import publish as publishing
from capnet.contracts.files import named_faults, replacing
from capnet.contracts.publish import check_target, prepare, publish, temporary_path
from capnet.errors import CapnetError
from capnet.machine_faults import machine_faults
from capnet.stages import run

TRIES = 5  # after which a test takes a stage for one that tries forever


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The new output and the old one, where folders cannot be exchanged."""
    monkeypatch.setattr(publishing, "_exchanged", lambda new, path: False)
    path = tmp_path / "model"
    new = temporary_path(path, 0)
    for folder in (new, path):
        folder.mkdir()
        (folder / "a").write_text("new" if folder == new else "old")
    return new, path


def no_removal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A removed file that is open gets another name in its folder, as on NFS, so the folder is never empty."""
    tries = []

    def refuse(path: Path) -> None:
        tries.append(path)
        assert len(tries) < TRIES
        for file in path.iterdir():
            if not file.name.startswith(".nfs"):
                file.rename(path / ".nfs0001")
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))

    monkeypatch.setattr("shutil.rmtree", refuse)


def refuse_renames(
    monkeypatch: pytest.MonkeyPatch, number: int, of: Path | None = None, to: Path | None = None
) -> None:
    """A file system that answers with an error where one path is renamed, or another gets a name."""
    for name in ("replace", "rename"):
        original = getattr(os, name)

        def refuse(source: Path, target: Path, original: Callable[..., None] = original) -> None:
            if source == of or target == to:
                raise OSError(number, os.strerror(number), str(source))
            original(source, target)

        monkeypatch.setattr(f"os.{name}", refuse)


def test_an_output_that_a_reader_has_open_is_replaced(
    outputs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    new, path = outputs
    with monkeypatch.context() as patched:
        no_removal(patched)
        publish({"model": new}, {"model": path})
    assert [(file.name, file.read_text()) for file in path.iterdir()] == [("a", "new")]
    (left,) = {*path.parent.iterdir()} - {path}
    left.rename(left.with_name(left.name.replace(f".{os.getpid()}.", f".{dead_process()}.")))
    prepare(temporary_path(path, 0))  # the next run removes what the reader has closed
    assert [*path.parent.iterdir()] == [path]


def test_an_output_that_cannot_be_replaced_stays(outputs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Mounted buckets rename no folder, or none with many files."""
    new, path = outputs
    refuse_renames(monkeypatch, errno.EMFILE, of=new)
    with pytest.raises(OSError, match="Too many open files"):
        publish({"model": new}, {"model": path})
    assert (path / "a").read_text() == "old"
    assert {*path.parent.iterdir()} == {new, path}


def test_an_output_that_can_be_neither_replaced_nor_put_back_is_kept(
    outputs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the file system fails after the first of three renames."""
    new, path = outputs
    refuse_renames(monkeypatch, errno.EIO, to=path)
    with pytest.raises(CapnetError, match="Input/output error") as caught:
        publish({"model": new}, {"model": path})
    (problem,) = caught.value.problems
    assert (Path(problem.where) / "a").read_text() == "old"
    assert "rename it to model" in problem.todo


def test_an_output_of_a_containers_image_is_replaced(
    outputs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overlayfs renames and exchanges no folder of a lower layer, unless its option redirect_dir is on."""
    new, path = outputs
    refuse_renames(monkeypatch, errno.EXDEV, of=path)
    publish({"model": new}, {"model": path})
    assert [(file.name, file.read_text()) for file in path.iterdir()] == [("a", "new")]
    assert [*path.parent.iterdir()] == [path]


def test_where_no_file_can_be_put_in_anothers_place_the_stage_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "registration.json"
    new = temporary_path(path, 0)
    for file in (new, path):
        file.write_text(file.name)
    tries = []

    def refuse(source: Path, target: Path) -> None:
        tries.append(source)
        assert len(tries) < TRIES
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(FileExistsError):
        publish({"registration": new}, {"registration": path})
    assert path.read_text() == path.name


def test_a_stage_whose_old_output_cannot_be_removed_has_succeeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "outputs" / "manifest"
    target.mkdir(parents=True)
    (target / "manifest.parquet").write_text("old")

    def step(settings: object, inputs: object, outputs: dict[str, Path]) -> dict[str, float]:
        outputs["manifest"].mkdir()
        (outputs["manifest"] / "manifest.parquet").write_text("new")
        no_removal(monkeypatch)
        return {"pictures": 1.0}

    monkeypatch.setattr("capnet.steps.ingest.ingest", step)
    assert run("ingest", {}, {"data": tmp_path / "data"}, {"manifest": target}) == {"pictures": 1.0}
    assert (target / "manifest.parquet").read_text() == "new"


def test_a_file_system_that_can_only_be_read_is_no_matter_of_accounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "manifest"
    path.mkdir()
    (path / "manifest.parquet").touch()
    monkeypatch.setattr("os.access", lambda folder, mode: not mode & os.W_OK)
    with pytest.raises(CapnetError, match="may not remove"):
        check_target(path, False, {})
    monkeypatch.setattr("os.statvfs", lambda folder: SimpleNamespace(f_flag=os.ST_RDONLY))
    check_target(path, False, {})  # where it is written, the system's own words are shown


def test_a_volume_is_not_trained_for_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is mounted at an output itself, as by docker run -v, keeps its name: "busy", after hours of work."""
    with pytest.raises(CapnetError, match=r"a volume that is mounted here[\s\S]*mount the folder above it"):
        check_target(Path("/proc"), False, {})
    (tmp_path / "a b").mkdir()
    (tmp_path / "mountinfo").write_text(f"36 35 98:0 /src {tmp_path}/a\\040b rw - ext4 /dev/sda rw\n")
    monkeypatch.setattr(publishing, "MOUNTS", tmp_path / "mountinfo")
    with pytest.raises(CapnetError, match="a volume that is mounted here"):
        check_target(tmp_path / "a b", False, {})
    (tmp_path / "link").symlink_to(tmp_path / "a b")
    check_target(tmp_path / "link", False, {})  # of a link the name alone is replaced


def test_what_cannot_be_removed_yet_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = temporary_path(tmp_path / "model", 0).name.replace(f".{os.getpid()}.", f".{dead_process()}.")
    (tmp_path / left).mkdir()
    (tmp_path / left / "a").touch()
    no_removal(monkeypatch)
    prepare(temporary_path(tmp_path / "model", 0))
    assert (tmp_path / left).is_dir()


def test_a_file_that_cannot_be_closed_is_named(tmp_path: Path) -> None:
    """A full network file system says so only then, and pyarrow gives no number."""

    def write() -> None:
        with machine_faults(), named_faults(tmp_path / "manifest.parquet"):
            raise OSError("error closing file")

    with pytest.raises(CapnetError) as caught:
        write()
    (problem,) = caught.value.problems
    assert (problem.what, problem.where) == ("error closing file", str(tmp_path / "manifest.parquet"))
    assert "has room" in problem.todo


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_container_of_the_machines_name_leaves_what_another_is_writing(tmp_path: Path) -> None:
    """As `docker run --network host` gives it, with a state folder that both have: it sees no process of the other."""
    apart = ["unshare", "--fork", "--pid", "--mount-proc"]
    apart += [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    if subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
        pytest.skip("unshare may not make a process namespace here: run as root")
    write = f"replace_file(Path({str(tmp_path / 'b')!r}), '')"
    code = f"from pathlib import Path; from capnet.contracts.files import replace_file; {write}"
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("half")
        subprocess.run([*apart, sys.executable, "-c", code], check=True)
        assert temporary.read_text() == "half"
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
