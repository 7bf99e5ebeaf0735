"""python:3.11-slim for the builds: the real image where a registry can be reached, else a stand-in from Debian's
packages.

The stand-in carries what this machine's pip knows (index, wheels, constraints, certificates), so that builds find the
same packages as the environment that the tests run in. Nothing of it is in the project's Dockerfile.
"""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from container.engine import Engine

REAL = "python:3.11-slim"
STAND_IN = "capnet-tests/python:3.11-slim"
SUITE = "trixie"  # of the real image
LIBRARIES = (
    "ca-certificates,libssl3t64,libffi8,zlib1g,libbz2-1.0,liblzma5,libsqlite3-0,libreadline8t64,libuuid1,libexpat1"
)
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
PASSED_ON = ("index-url", "extra-index-url", "trusted-host", "default-timeout")


@dataclass(frozen=True)
class Base:
    """The image, and what a build needs to use it."""

    image: str
    build_options: tuple[str, ...]


def base_image(engine: Engine, folder: Path) -> Base:
    """The real image, or the stand-in built in ``folder``; with the latter torch comes from where this machine's pip
    has it.
    """
    if engine.try_docker("pull", "--quiet", REAL, limit=300).returncode == 0:
        return Base(REAL, ())
    stand_in(engine, folder)
    return Base(STAND_IN, ("--build-context", f"{REAL}=docker-image://{STAND_IN}", "--build-arg", "TORCH_INDEX="))


def pip_settings() -> dict[str, str]:
    """Option -> value of this machine's pip, whether from a file or from the environment."""
    text = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key.rpartition(".")[2]: value.strip("'\"") for key, value in pairs}


def stand_in(engine: Engine, folder: Path) -> None:
    """Debian's base system with this machine's Python in /usr/local, as the real image has it."""
    assert sys.version_info[:2] == (3, 11), (
        f"the stand-in takes this Python, which must be 3.11 and is {sys.version.split()[0]}"
    )
    assert shutil.which("mmdebstrap"), "mmdebstrap is not installed: apt-get install mmdebstrap"
    rootfs, context = folder / "rootfs.tar", folder / "context"
    context.mkdir()
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        "--dpkgopt=force-unsafe-io",
        f"--include={LIBRARIES}",
        SUITE,
        str(rootfs),
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    engine.docker("import", rootfs, "capnet-tests/debian")
    rootfs.unlink()

    with tarfile.open(context / "python.tar", "w") as archive:
        for name in ("bin", "lib", "include"):
            archive.add(Path(sys.base_prefix, name), name, filter=without_packages)
    shutil.copy(ssl.get_default_verify_paths().cafile or CERTIFICATES, context / "certificates.crt")
    lines = [
        "FROM capnet-tests/debian",
        "ADD python.tar /usr/local/",
        f"COPY certificates.crt {CERTIFICATES}",
        f"ENV PIP_CERT={CERTIFICATES}",
    ]
    settings = pip_settings()
    for option, location in (("find-links", "/opt/wheels"), ("constraint", "/opt/constraints.txt")):
        if option in settings:
            source = Path(settings[option])
            if source.exists():
                (shutil.copytree if source.is_dir() else shutil.copy)(source, context / option)
                lines.append(f"COPY {option} {location}")
            lines.append(
                f"ENV PIP_{option.upper().replace('-', '_')}={location if source.exists() else settings[option]}"
            )
    lines += [
        f"ENV PIP_{option.upper().replace('-', '_')}={settings[option]}" for option in PASSED_ON if option in settings
    ]
    lines.append(
        "RUN ldconfig && python3 -m ensurepip && ln -sf pip3 /usr/local/bin/pip && ln -sf python3 /usr/local/bin/python"
    )
    lines.append('ENV LANG=C.UTF-8\nCMD ["python3"]')
    (context / "Dockerfile").write_text("\n".join(lines) + "\n")
    engine.docker("build", "--network", "host", "--tag", STAND_IN, context)
    shutil.rmtree(context)


def without_packages(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what is installed beside Python, its tests and caches."""
    parts = Path(member.name).parts
    left_out = "__pycache__" in parts or parts[2:3] == ("test",) or (len(parts) > 3 and parts[2] == "site-packages")
    member.uid = member.gid = 0
    return None if left_out else member
