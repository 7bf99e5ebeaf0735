"""The figures in a folder of outputs as those of the model there, which a test has changed."""

from __future__ import annotations

import json
from pathlib import Path

from capnet.contracts.files import tree_hash


def measured(outputs: Path, file: str = "model/") -> None:
    """Write into evaluation.json that the model was measured as it is now.

    Args:
        outputs: the folder.
        file: what the test changed; where it is no file of the model, nothing is written.
    """
    if file.startswith("model/"):
        path = outputs / "evaluation" / "evaluation.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_md5": tree_hash(outputs / "model")}))
