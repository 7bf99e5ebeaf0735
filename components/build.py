"""Build the container images and push them: what `make images` and `make push` call."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import click

from capnet.errors import CapnetError, ConfigError, exits
from capnet.machine_faults import machine_faults
from components.images import LOCK, TARGETS, write_lock
from components.revision import git_revision, short

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "components" / "Dockerfile"
BUILDS = ("cpu", "cuda")  # of torch


class DockerError(CapnetError):
    """Docker is missing, does not run, or refused (exit code 8)."""

    exit_code = 8
    title = "docker"


def docker(arguments: Sequence[str], doing: str, todo: str, quiet: bool = True) -> str:
    """Run `docker` with arguments and return what it printed; progress goes to the terminal unless ``quiet``. Raises
    DockerError.
    """
    if shutil.which("docker") is None:
        raise DockerError(
            f"could not {doing}: there is no command docker",
            "PATH",
            "install Docker Engine 23 or newer with buildx (Debian: apt install docker.io docker-cli docker-buildx)",
        )
    stderr = subprocess.PIPE if quiet else None
    result = subprocess.run(["docker", *arguments], stdout=subprocess.PIPE, stderr=stderr, text=True, check=False)
    if result.returncode:
        message = " ".join((result.stderr or "its messages are above").split())[-400:]
        raise DockerError(f"could not {doing}: {message}", f"docker {shlex.join(arguments)[:200]}", todo)
    return result.stdout.strip()


def check_engine() -> None:
    """Raise DockerError where the engine does not answer."""
    docker(
        ["version", "--format", "{{.Server.Version}}"],
        doing="reach the Docker engine",
        todo="start it, or set DOCKER_HOST to the one that you want; see that you may use it",
    )


def tag_of(target: str, revision: str, torch: str = "cpu", registry: str = "") -> str:
    """capnet-train:0123456789ab, with -cuda for that build of torch, below ``registry`` where one is named."""
    suffix = "-cuda" if torch == "cuda" and target != "data" else ""
    name = f"capnet-{target}:{short(revision)}{suffix}"
    return f"{registry.rstrip('/')}/{name}" if registry else name


def build(revision: str, torch: str = "cpu", options: tuple[str, ...] = ()) -> dict[str, str]:
    """Build every target of the Dockerfile; returns their tags. ``options`` are passed on to `docker build`."""
    tags = {}
    index = ("--build-arg", "TORCH_INDEX=") if torch == "cuda" else ()
    for target in TARGETS:
        tags[target] = tag_of(target, revision, torch)
        click.echo(f"images: building {tags[target]}", err=True)
        arguments = ["--file", str(DOCKERFILE), "--target", target, "--tag", tags[target]]
        arguments += ["--build-arg", f"REVISION={revision}", *index, *options, str(ROOT)]
        docker(
            ["build", *arguments],
            doing=f"build the image {target}",
            todo="the step that failed is named above; correct it and run `make images` again",
            quiet=False,
        )
    return tags


def push(revision: str, registry: str, torch: str, lock: Path) -> dict[str, tuple[str, str]]:
    """Push the built images below ``registry`` and write ``lock`` with the digests that the registry gives."""
    pushed = {}
    for target in TARGETS:
        here, remote = tag_of(target, revision, torch), tag_of(target, revision, torch, registry)
        docker(
            ["tag", here, remote],
            doing=f"find the image {here}",
            todo="build this revision first: make images push REGISTRY=...",
        )
        click.echo(f"images: pushing {remote}", err=True)
        docker(
            ["push", "--quiet", remote],
            doing=f"push {remote}",
            todo="log in with `docker login`, and see that you may write there",
        )
        digest = docker(
            ["buildx", "imagetools", "inspect", remote, "--format", "{{json .Manifest}}"],
            doing="ask for the digest",
            todo="see that the registry answers",
        )
        pushed[target] = (remote, str(json.loads(digest)["digest"]))
    write_lock(lock, revision, pushed)
    return pushed


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110})
@click.argument("steps", type=click.Choice(["images", "push"]), nargs=-1, required=True)
@click.option("--registry", default="", help="Where to push, such as registry.example.com/team.")
@click.option(
    "--torch", type=click.Choice(BUILDS), default="cpu", help="Which build of torch the images train and serve get."
)
@click.option("--options", default="", help="More options of docker build, in one string.")
@click.option("--lock", type=click.Path(path_type=Path), default=LOCK, help="File that push writes.")
def command(steps: tuple[str, ...], registry: str, torch: str, options: str, lock: Path) -> None:
    """Build the images, or push them and lock their digests.

    \b
    Examples:
      python -m components.build images
      python -m components.build images push --registry registry.example.com/team
      python -m components.build images --torch cuda
    """
    if "push" in steps and (not registry or "://" in registry):
        raise ConfigError(
            f"REGISTRY = {registry!r}",
            "make push",
            "name it without a scheme: make push REGISTRY=registry.example.com/team",
        )
    revision = git_revision()
    check_engine()
    if "images" in steps:
        for tag in build(revision, torch, tuple(shlex.split(options))).values():
            click.echo(tag)
    if "push" in steps:
        for tag, digest in push(revision, registry, torch, lock).values():
            click.echo(f"{tag} {digest}")
        click.echo(f"images: digests are in {lock}", err=True)


if __name__ == "__main__":
    with exits("components.build"), machine_faults():
        command.main(prog_name="python -m components.build", standalone_mode=True)
