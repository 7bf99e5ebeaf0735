"""Images that were replaced after ingest, as by a copy of another data folder, are refused by train and evaluate."""

import pytest
from PIL import Image

from capnet.errors import DataError
from capnet.stages import run
from tests.unit.steps import small_training
from tests.unit.steps.small_training import run_both, write_inputs

pytestmark = pytest.mark.slow

made = small_training.made
tiny_backbone = small_training.tiny_backbone


@pytest.mark.parametrize("in_blocks", [True, False])
def test_replaced_images_are_refused_by_a_tower_that_reads_them_again(in_blocks, made, tiny_backbone):
    """Features of the old files are stored; a tower with trained adapters took its own from the new ones."""
    folder, frame = made
    write_inputs(folder, frame)
    params, _ = run_both(folder, tiny_backbone, adapter={"in_blocks": in_blocks})
    inputs = {name: folder / name for name in ("split", "validation", "graph", "model", "data")}
    stages = {
        "evaluate": (("split", "model", "data"), {"evaluation": folder / "evaluation"}),
        "train": (("split", "validation", "graph", "data"), {"model": folder / "again"}),
    }
    for name, (needed, outputs) in stages.items():
        run(name, params, {key: inputs[key] for key in needed}, outputs)
    paths = [frame.loc[frame["split"] == split, "path"].iloc[0] for split in ("test", "train")]
    for path in paths:
        Image.new("RGB", (60, 48), "orange").save(folder / "data" / path)
    for (name, (needed, outputs)), path in zip(stages.items(), paths, strict=True):
        if not in_blocks:  # nothing is read again: all features are those of the split's files
            run(name, params, {key: inputs[key] for key in needed}, outputs)
            continue
        with pytest.raises(DataError, match="another file than ingest saw") as caught:
            run(name, params, {key: inputs[key] for key in needed}, outputs)
        assert path in str(caught.value)
