"""Stages whose outputs, or whose state, lie on a disk that is too small; a part of the long run, and as root."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e.test_reruns import hashes
from faults.test_stages import STAGES, fails_well, forget

pytestmark = pytest.mark.slow
ROOMS = (64, 1200, 2000, 4000)  # kB that are free


@pytest.fixture
def disk(workspace: Path) -> Iterator[Callable[[str, int], None]]:
    """Mounts a disk of some kB in the place of a folder, with its content; the place is as before at the end."""
    mounted: list[Path] = []

    def mount(name: str, kilobytes: int) -> None:
        folder = workspace / name
        shutil.move(folder, workspace / "kept")
        folder.mkdir()
        used = sum(path.stat().st_size + 4096 for path in (workspace / "kept").rglob("*")) // 1024
        size = f"size={used + kilobytes}k"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)
        mounted.append(folder)
        shutil.copytree(workspace / "kept", folder, dirs_exist_ok=True)
        shutil.rmtree(workspace / "kept")

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("folder", ["outputs", ".capnet"])
@pytest.mark.parametrize("stage", STAGES)
def test_full_disks(workspace: Path, disk: Callable[[str, int], None], stage: str, folder: str, room: int) -> None:
    before = hashes(workspace / "outputs")
    forget(workspace)
    disk(folder, room)
    fails_well(workspace, stage, None, before)
