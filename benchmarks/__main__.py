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
    "features": "memory of a training whose features are larger than that",
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


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark that the first argument names; returns its exit status, 2 for a wrong command line."""
    if not arguments or arguments[0] not in BENCHMARKS:
        wrong = f"no benchmark {arguments[0]!r}\n" if arguments and arguments[0] not in ("-h", "--help") else ""
        rows = "\n".join(f"  {name:10}{text}" for name, text in BENCHMARKS.items())
        print(f"{wrong}usage: python -m benchmarks NAME [--help]\n\n{rows}", file=sys.stderr if wrong else sys.stdout)
        return 2 if wrong else 0
    code = importlib.import_module(f"benchmarks.{FILES.get(arguments[0], arguments[0])}").main(arguments[1:])
    return int(code or 0)


if __name__ == "__main__":
    with exits("benchmarks"):
        sys.exit(main(sys.argv[1:]))
