"""``python -m benchmarks NAME ...``: run one benchmark; each has a --help of its own.

python -m benchmarks ablation --sets corel5k=path/to/folder
python -m benchmarks graph --help
python -m benchmarks paper voc-lt --help
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from capnet.errors import exits

BENCHMARKS = {
    "ablation": "what each part of the method is worth, over several data sets and seeds",
    "data": "how fast image files become views",
    "features": "memory of a training on more features than fit into it",
    "graph": "the text graph against true co-occurrence",
    "paper": "the paper's table: VOC-LT, COCO-LT, NUS-WIDE with CLIP's weights",
    "predict": "how fast a model labels images",
    "scale": "time and memory of the data stages on made data sets",
    "step": "a training step of a CLIP backbone, against the plain path and the rate of a matrix product",
    "text": "prompts of many classes: memory and time",
    "train": "epochs and evaluations of a trained tower",
    "tracking": "what tracking costs a training",
}

FILES = {name: f"speed_{name}" for name in ("data", "predict", "step", "text", "train")}  # of those with another name


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark that the first argument names; ends with status 2 for a wrong command line, 1 after Ctrl-C."""
    name, *rest = arguments or ["--help"]
    if name not in BENCHMARKS:
        wrong = "" if name in ("-h", "--help") else f"no benchmark {name!r}\n"
        rows = "\n".join(f"  {item:10}{text}" for item, text in BENCHMARKS.items())
        print(f"{wrong}usage: python -m benchmarks NAME [--help]\n\n{rows}", file=sys.stderr if wrong else sys.stdout)
        sys.exit(2 if wrong else 0)
    try:
        with exits(f"benchmarks {name}"):
            importlib.import_module(f"benchmarks.{FILES.get(name, name)}").main(rest)
    except KeyboardInterrupt:
        sys.exit(f"\nbenchmarks {name}: stopped")


if __name__ == "__main__":
    main(sys.argv[1:])
