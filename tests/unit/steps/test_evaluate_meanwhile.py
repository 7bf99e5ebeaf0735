"""A model that another training replaces while it is evaluated."""

from __future__ import annotations

import pytest

from capnet.errors import ContractError
from capnet.stages import run
from capnet.steps import evaluate as evaluate_stage
from tests.unit.steps import small_training
from tests.unit.steps.small_training import run_both, write_inputs

pytestmark = pytest.mark.slow
made = small_training.made
tiny_backbone = small_training.tiny_backbone


@pytest.mark.parametrize("replaced", ["model/history.csv", "split/classes.json"])
def test_what_is_replaced_meanwhile_gets_no_figures(replaced, made, tiny_backbone, monkeypatch):
    folder, frame = made
    write_inputs(folder, frame)
    params, _ = run_both(folder, tiny_backbone)
    inputs = {name: folder / name for name in ("split", "model", "data")}
    write = evaluate_stage.write_results

    def meanwhile(*arguments):
        with open(folder / replaced, "a") as file:
            file.write("\n")
        return write(*arguments)

    monkeypatch.setattr(evaluate_stage, "write_results", meanwhile)
    with pytest.raises(ContractError, match="replaced while it was evaluated"):
        run("evaluate", params, inputs, {"evaluation": folder / "evaluation"})
    assert not (folder / "evaluation").exists()
    monkeypatch.setattr(evaluate_stage, "write_results", write)
    run("evaluate", params, inputs, {"evaluation": folder / "evaluation"})
