"""The benchmarks of a step and of texts: the plain path computes the same, and the numbers are what they say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import speed_step, speed_text
from benchmarks.matrix_rate import about, in_turns, ratios
from capnet.runtime import Machine
from tests.unit.model import tiny

CPU = Machine(torch.device("cpu"), bf16=False)


@pytest.fixture
def backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path))
    tiny.register("tiny-clip", tmp_path / "configs")
    return "tiny-clip"


def test_the_plain_path_computes_the_same_step_with_more_operations(backbone: str) -> None:
    ours, plain = (speed_step.make_step(backbone, parts, CPU, 3, 2) for parts in ("prompts only", speed_step.PLAIN))
    for _ in range(3):  # the second and third step see what the first ones learned
        (loss, logits), (plain_loss, plain_logits) = ours(), plain()
        torch.testing.assert_close(loss, plain_loss, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logits, plain_logits, rtol=1e-4, atol=1e-4)
    text = 3 * 2 * 2 * 2 * 12 * 32 * 32  # of a token: classes, forward and backward, multiply and add, layers, matrices
    counted = {name: speed_step.operations(step) for name, step in (("ours", ours), ("plain", plain))}
    assert 45 * text < counted["plain"] - counted["ours"] < 70 * text, "77 tokens instead of 23"


def test_a_step_with_stored_features_runs_no_image_tower(backbone: str) -> None:
    steps = [speed_step.make_step(backbone, parts, CPU, 3, 2) for parts in speed_step.PARTS]
    prompts, stored, full = (speed_step.operations(step) for step in steps)
    images = 2 * (2 * 2 * 12 * 32 * 32 * 17)  # images; layers, multiply and add, matrices of a block, 17 tokens
    assert images < prompts - stored < 2 * images
    assert full > prompts + images, "adapters send a gradient through the image tower"


@pytest.mark.slow  # takes training steps
def test_the_command_writes_shares_and_ratios(
    backbone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "step.json"
    sizes = ["--classes", "3", "--batch", "2", "--threads", "1", "--rounds", "2", "--clock", "processor"]
    speed_step.main(["--backbone", backbone, *sizes, "--out", str(out)])
    result = json.loads(out.read_text())
    assert result["about"]["threads"] == 1
    assert result["about"]["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    step = result["steps"]["full CapNet, bf16"]
    rate = result["matrix rate"]["matrix product, bf16"]["median"]
    assert step["operations"] / step["seconds"]["median"] / rate == pytest.approx(
        step["share of the matrix rate"]["median"], rel=0.5
    )
    plain = result["steps"][speed_step.PLAIN]
    assert plain["plain path took times"] == {"median": 1.0, "least": 1.0, "most": 1.0}
    assert "| full CapNet, fp32 |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        speed_step.main(["--clock", "processor", "--threads", "2"])


def test_prompts_are_measured_in_processes_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []

    class Done:
        def __init__(self, command: list[str]) -> None:
            ran.append(command)
            classes = int(command[command.index("--classes") + 1])
            row = {"classes": classes, "chunk": 4, "seconds": {"median": classes / 100}, "bytes": 2_000_000_000}
            self.stdout = f"a warning\n{json.dumps(row)}\n"

    monkeypatch.setattr(speed_text.subprocess, "run", lambda command, **_: Done(command))
    speed_text.main(["--classes", "4", "1000", "--chunk", "4", "--out", str(tmp_path / "text.json")])
    assert [command[command.index("--classes") + 1] for command in ran] == ["4", "1000"]
    shown = capsys.readouterr().out
    assert "| 4 | all | 0.04 | 10.0 | 2.00 GB |" in shown
    assert "| 1,000 | 4 | 10.00 | 10.0 | 2.00 GB |" in shown


def test_one_process_measures_its_own_peak(backbone: str) -> None:
    row = speed_text.measure(backbone, 6, 2, 1, "processor", 1)
    assert row["bytes"] >= row["bytes before the first step"] > 10**8
    assert row["seconds"]["median"] > 0


def test_turns_change_the_order_and_leave_the_first_round_out() -> None:
    order: list[str] = []
    ticks: Iterator[float] = iter(range(1000))
    works = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    taken = in_turns(works, lambda: float(next(ticks)), rounds=2)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert taken == {"a": [1.0, 1.0], "b": [1.0, 1.0]}
    assert ratios([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == {"median": 2.0, "least": 1.0, "most": 3.0}


@pytest.mark.parametrize(("device", "is_gpu"), [("cpu", False), ("cuda", True)])
def test_the_device_of_a_result_is_the_one_that_computed_it(
    device: str, is_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images are decoded, and texts measured, on the CPU of a machine with a GPU, too."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert (about(2, "wall", device)["device"] == "a GPU") == is_gpu
