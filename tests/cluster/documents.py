"""What servers shall look at: `python tests/cluster/documents.py FOLDER` writes it.

Every golden pipeline with the parameters of a run, a TrainJob and an InferenceService.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
DIGEST = "sha256:" + "0" * 64
SPACE = "kubeflow"


def parameters(kind: str, several: bool) -> dict[str, Any]:
    from capnet.config import parse
    from pipelines.arguments import prediction_arguments, training_arguments
    from pipelines.checks import MOST_SHARDS

    params = parse({"data": {"root": "s3://bucket/birds"}, "train": {"seeds": [0, 1, 2] if several else []}})
    if kind == "prediction":
        return prediction_arguments(params, "", MOST_SHARDS, "today")
    return training_arguments(params, "today")


def train_job() -> dict[str, Any]:
    from capnet.cluster.trainjob_spec import Nodes, TaskPod, train_job

    nodes = Nodes(nodes=2, image=f"registry.example.com/team/capnet-train@{DIGEST}", pull_secret="registry-key")
    here = TaskPod(SPACE, "", "", "capnet-pipeline", "0b6b4c52", Path("/var/capnet"))
    return train_job("capnet-0123456789-s0", Path("/var/capnet/nodes/x"), nodes, here, threads=2)


def main(folder: Path) -> None:
    from pipelines.compiling import GOLDEN, GOLDEN_PIPELINES

    (folder / "pipelines").mkdir(parents=True, exist_ok=True)
    for name, (kind, options) in GOLDEN_PIPELINES.items():
        shutil.copyfile(GOLDEN / f"{name}.yaml", folder / "pipelines" / f"{name}.yaml")
        (folder / "pipelines" / f"{name}.json").write_text(json.dumps(parameters(kind, options.further_seeds)))
    (folder / "trainjob.yaml").write_text(yaml.safe_dump(train_job()))
    shutil.copyfile(ROOT / "deploy" / "kserve" / "capnet.yaml.example", folder / "inferenceservice.yaml")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
