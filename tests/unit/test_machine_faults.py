"""What the machine refuses, as messages."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from capnet.contracts.files import named_faults
from capnet.errors import CapnetError
from capnet.machine_faults import UNNAMED, machine_fault, machine_faults


def test_what_may_not_be_read_needs_no_folder_that_may_be_written_to() -> None:
    with pytest.raises(CapnetError) as caught, machine_faults():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "data/labels.csv")
    assert caught.value.problems[0].todo.startswith("let this account read it")


@pytest.mark.parametrize("module", ["capnet", "pipelines.submit", "components.build"])
def test_an_output_that_is_full_is_named(module: str) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", module, "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:3] == ["No space left on device", f"  where: {UNNAMED}"]


@pytest.mark.parametrize(
    "error",
    [
        BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)),
        RuntimeError("can't start new thread"),
        RuntimeError("Caught RuntimeError in pin memory thread: can't start new thread"),
    ],
)
def test_a_limit_of_processes_blames_no_file_and_no_memory(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(CapnetError) as caught, machine_faults(), named_faults(tmp_path / "predictions.csv"):
        raise error
    (problem,) = caught.value.problems
    assert problem.what.startswith("no more processes and threads can be started")
    assert (problem.where, "ulimit -u" in problem.todo) == ("this process", True)


def test_a_stream_that_does_not_wait_is_no_limit_of_processes() -> None:
    fault = machine_fault(BlockingIOError(errno.EAGAIN, "write could not complete without blocking"))
    assert "could not complete" in str(fault)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EIO])
def test_what_the_machine_refuses_has_three_parts(number: int) -> None:
    with pytest.raises(CapnetError) as caught, machine_faults():
        raise OSError(number, os.strerror(number), "/some/file")
    (problem,) = caught.value.problems
    assert (problem.what, problem.where) == (os.strerror(number), "/some/file")
    assert problem.todo
    with pytest.raises(CapnetError, match="there is not enough memory"), machine_faults():
        raise MemoryError
    with pytest.raises(ZeroDivisionError), machine_faults():
        raise ZeroDivisionError
    assert machine_fault(RuntimeError("no kernel")) is None
    with pytest.raises(CapnetError, match="give the task more memory"), machine_faults():
        raise ImportError("libtorch_cpu.so: failed to map segment from shared object")
    with pytest.raises(ImportError), machine_faults():
        raise ImportError("cannot import name 'x'")
    for words in ("DefaultCPUAllocator: can't allocate memory: you tried", "could not create a primitive"):
        assert "not enough memory" in str(machine_fault(RuntimeError(words)))


@pytest.mark.parametrize(
    ("text", "what", "todo"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0", "Tried to allocate 2.00 GiB", "train.prompt.chunk"),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "GPU has not enough", "larger"),
        ("CUDA error: no kernel image is available for execution on the device", "no kernels", "runtime.device: cpu"),
    ],
)
def test_what_a_gpu_says_is_told_with_what_helps_there(text: str, what: str, todo: str) -> None:
    fault = str(machine_fault(RuntimeError(text)))
    assert what in fault
    assert todo in fault.partition("to do: ")[2]
    assert "runtime.workers" not in fault
