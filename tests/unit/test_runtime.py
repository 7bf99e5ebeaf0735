"""What `precision: auto` means follows from the kind of hardware, never from a timing."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from capnet.config import Runtime
from capnet.runtime import prepare


@pytest.mark.parametrize(
    ("abilities", "bf16"),
    [
        ({"avx512_bf16": True, "avx512_f": True}, True),
        ({"avx512_bf16": True, "amx_bf16": True}, True),
        ({"avx512_bf16": False, "avx512_f": True, "avx2": True}, False),  # emulated: bf16 is slower there
        ({}, False),
    ],
)
def test_auto_is_bf16_only_where_a_cpu_multiplies_it_in_hardware(abilities, bf16, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
    assert prepare(Runtime(device="cpu", threads=1)).bf16 is bf16
    assert prepare(Runtime(device="cpu", threads=1, precision="fp32")).bf16 is False
    assert prepare(Runtime(device="cpu", threads=1, precision="bf16")).bf16 is True


def test_a_version_of_torch_that_does_not_name_abilities_runs_fp32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert prepare(Runtime(device="cpu", threads=1)).bf16 is False


def test_fp32_is_fp32_and_a_slow_precision_is_said(monkeypatch, caplog) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")  # as an image whose environment allows TF32 in cuBLAS leaves it
    assert not prepare(Runtime(device="cpu", threads=1)).bf16
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert caplog.text == ""
    assert prepare(Runtime(device="cpu", threads=1, precision="bf16")).bf16
    assert "bf16 is slow on this cpu" in caplog.text


def test_python_without_docstrings_is_named() -> None:
    """Stages graph and validate ended with a traceback of a library."""
    command = [sys.executable, "-OO", "-m", "capnet", "split"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "PYTHONOPTIMIZE unset or 1" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("program", [["capnet", "split"], ["capnet.serving.server", "--model", "model"]])
def test_names_of_files_that_are_not_utf8_are_refused_with_the_way_out(program: list[str], tmp_path: Path) -> None:
    """Images with other letters in their names were called damaged, and left out of predictions."""
    locale = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", *program]
    env = {**os.environ, **locale, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "names of files for ascii, not for UTF-8" in done.stderr
    assert "set PYTHONUTF8=1" in done.stderr


PAGES = """
import resource
from capnet.config import Runtime
from capnet.runtime import prepare
prepare(Runtime())
import torch
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def tensors():
    for _ in range(20):
        torch.ones(12 << 20)
tensors()
before = faults()
tensors()
print((faults() - before) * resource.getpagesize() / (20 * 48 * 2**20))
"""


@pytest.mark.slow
def test_memory_of_tensors_is_used_again_unless_glibcs_variables_say_otherwise() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("memory is kept by glibc alone")

    def share_of_new_pages(**more: str) -> float:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
        command = [sys.executable, "-c", PAGES]
        done = subprocess.run(
            command, env={**environment, **more}, stdout=subprocess.PIPE, text=True, timeout=300, check=True
        )
        return float(done.stdout)

    assert share_of_new_pages() < 0.05
    with_huge_pages = "[always]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    assert with_huge_pages or share_of_new_pages(MALLOC_TRIM_THRESHOLD_="131072") > 0.9
