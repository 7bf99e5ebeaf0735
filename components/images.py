"""Which container images the components run in: names at rest, digests from images.lock.yaml when a pipeline is
compiled.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from capnet.errors import ConfigError, ContractError, Problem

LOCK = Path(__file__).with_name("images.lock.yaml")
SCHEMA = 1
TARGETS = ("data", "train", "serve")  # of components/Dockerfile
DATA, TRAIN = "capnet-data:python", "capnet-train:python"  # replaced when a pipeline is compiled for a cluster
TODO = "run `make images push REGISTRY=registry.example.com/team`, which builds, pushes and writes the file"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Images:
    """References of the images that tasks run in, such as registry/capnet-data@sha256:..."""

    data: str
    train: str

    def of(self, name: str) -> str:
        """The reference for an image as the components name it."""
        return {DATA: self.data, TRAIN: self.train}[name]


def read_lock(path: Path, allow_tags: bool = False) -> Images:
    """The images of a lock file, by digest; by tag where ``allow_tags``.

    Raises ConfigError without the file, ContractError where it holds no digest: a tag can move, and then KFP's cache
    returns results of other code.
    """
    if not path.is_file():
        raise ConfigError(
            "there is no lock of the container images",
            str(path),
            f"{TODO}; or run here, without images: --local subprocess",
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise ContractError(f"not valid YAML: {' '.join(str(error).split())}", str(path), TODO) from None
    entries = content.get("images") if isinstance(content, Mapping) and content.get("schema") == SCHEMA else None
    if not isinstance(entries, Mapping):
        raise ContractError(f"not a lock of schema {SCHEMA}", str(path), TODO)
    references, problems = {}, []
    for target in ("data", "train"):
        entry: Mapping[str, Any] = entries[target] if isinstance(entries.get(target), Mapping) else {}
        tag, digest = str(entry.get("tag", "")), str(entry.get("digest", ""))
        if not tag:
            problems.append(Problem(f"no image {target}", str(path), TODO))
        elif not DIGEST.fullmatch(digest) and not allow_tags:
            problems.append(
                Problem(
                    f"image {target} has no digest, only the tag {tag}",
                    str(path),
                    f"{TODO}; or compile with --allow-tags",
                )
            )
        references[target] = f"{repository(tag)}@{digest}" if DIGEST.fullmatch(digest) else tag
    if problems:
        raise ContractError(problems=problems)
    return Images(**references)


def write_lock(path: Path, revision: str, images: Mapping[str, tuple[str, str]]) -> None:
    """Write tag and digest of every image; ``images`` maps a target to both."""
    wrong = [f"{target}: {digest!r}" for target, (_, digest) in images.items() if not DIGEST.fullmatch(digest)]
    if wrong:
        raise ContractError(
            f"no digest of {', '.join(wrong)}", str(path), "push the image first: only a registry gives a digest"
        )
    content = {
        "schema": SCHEMA,
        "revision": revision,
        "images": {target: {"tag": tag, "digest": digest} for target, (tag, digest) in images.items()},
    }
    text = "# Written by `make push`: the images that pipelines are compiled with.\n" + yaml.safe_dump(
        content, sort_keys=False
    )
    path.write_text(text)


def repository(tag: str) -> str:
    """registry:5000/team/name of registry:5000/team/name:tag."""
    head, slash, last = tag.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"
