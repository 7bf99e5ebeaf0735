"""A user's git repository with the product's Makefile and DVC, for tests of data versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILES = ("Makefile", "pyproject.toml", "constraints.txt", "params.yaml", ".dvcignore")


def make_line(target: str) -> str:
    """The shell's line for `make target` that takes the environment of this test for up to date."""
    return f"make VENV={sys.prefix} -o {sys.prefix}/.installed {target}"


@dataclass(frozen=True)
class Clone:
    """A git repository with a Makefile, as a user has it."""

    root: Path

    def run(self, command: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        plain = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
        plain |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            **(environment or {}),
        }
        return subprocess.run(
            ["bash", "-c", command], cwd=self.root, env=plain, capture_output=True, text=True, check=False, timeout=300
        )

    def do(self, command: str) -> str:
        result = self.run(command)
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def make(self, target: str) -> str:
        """`make target` with the environment that runs this test, taken for up to date."""
        return self.do(make_line(target))

    def start(self, repository: Path) -> None:
        """Make the folder a git and DVC repository with the files of ``repository`` that make needs."""
        self.root.mkdir()
        for name in FILES:
            shutil.copy(repository / name, self.root / name)
        self.do("git init -q . && git config user.email t@example.org && git config user.name T && dvc init -q")

    def write(self, files: Mapping[str, bytes]) -> None:
        shutil.rmtree(self.root / "data", ignore_errors=True)
        for name, body in files.items():
            (self.root / "data" / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / "data" / name).write_bytes(body)

    def forget_files(self) -> None:
        """As on another machine: git's files only."""
        shutil.rmtree(self.root / "data", ignore_errors=True)
        shutil.rmtree(self.root / ".dvc" / "cache", ignore_errors=True)
