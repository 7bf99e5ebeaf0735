"""Checkpoints: a training goes on to the same bits, and one that is damaged is made again."""

import threading

import pytest
import torch

from capnet.contracts import read_tensors, write_tensors
from capnet.errors import CapnetError
from capnet.training import checkpoint, trainer
from capnet.training.images import CachedFeatures
from tests.unit.training import small_problem
from tests.unit.training.small_problem import SOME_CLASSES, run, same, trainer_of

problem = small_problem.problem


@pytest.mark.parametrize(("stop_at", "settings"), [*((step, {}) for step in (1, 4, 5, 11)), (5, SOME_CLASSES)])
def test_an_interrupted_run_goes_on_at_the_next_step_and_ends_with_the_same_weights(
    stop_at, settings, lit, problem, tmp_path, monkeypatch, caplog
):
    logged = {"whole": [], "resumed": []}
    whole = trainer_of(lit, tmp_path, **settings)
    whole = whole.fit(
        whole.new_model(), *problem, tmp_path / "whole", log=lambda values, epoch: logged["whole"].append(values)
    )
    monkeypatch.setattr(checkpoint, "SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SAVE_PAUSE", 0.0)
    caplog.set_level("INFO")

    class Counted(CachedFeatures):
        steps = 0
        last = stop_at

        def pooled(self, rows, epoch):
            Counted.steps += 1
            if Counted.steps == Counted.last:
                raise KeyboardInterrupt
            return super().pooled(rows, epoch)

    monkeypatch.setattr(trainer, "CachedFeatures", Counted)
    with pytest.raises(KeyboardInterrupt):
        run(lit, problem, tmp_path / "cut", **settings)
    Counted.steps, Counted.last = 0, -1
    again = trainer_of(lit, tmp_path, **settings)
    resumed = again.fit(
        again.new_model(), *problem, tmp_path / "cut", log=lambda values, epoch: logged["resumed"].append(values)
    )
    assert Counted.steps == whole.history[-1]["step"] - (stop_at - 1), "steps were done twice"
    assert (f"goes on after step {stop_at - 1} of" in caplog.text) == (stop_at > 1)
    assert resumed.history == whole.history
    assert same(whole.tensors, resumed.tensors)
    assert logged["resumed"] == logged["whole"][-len(logged["resumed"]) :]
    assert [values["train/loss"] for values in logged["whole"]] == [row["loss"] for row in whole.history]


def test_a_damaged_checkpoint_is_made_again(lit, problem, tmp_path, caplog):
    whole = run(lit, problem, tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert same(run(lit, problem, tmp_path).tensors, whole.tensors)
    assert "is damaged" in caplog.text


def test_a_checkpoint_that_the_disk_does_not_give_stays(lit, problem, tmp_path):
    """Training began anew after hours, and wrote over them."""
    run(lit, problem, tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.unlink()
    path.symlink_to("/proc/self/mem")  # whose first byte is never there
    with pytest.raises(CapnetError, match="cannot be read"):
        run(lit, problem, tmp_path)
    assert path.is_symlink()


@pytest.mark.parametrize("damage", ["no tensors", "NaN", "no metadata", "strange metadata"])
def test_a_checkpoint_that_no_run_writes_is_made_again(lit, problem, tmp_path, caplog, damage):
    whole = run(lit, problem, tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    tensors, metadata = read_tensors(path)
    tensors = {} if damage == "no tensors" else tensors
    tensors = {name: tensor * torch.nan for name, tensor in tensors.items()} if damage == "NaN" else tensors
    write_tensors(path, tensors, {"no metadata": {}, "strange metadata": {**metadata, "x": 1}}.get(damage, metadata))
    assert same(run(lit, problem, tmp_path).tensors, whole.tensors)
    assert "is damaged" in caplog.text


def test_two_runs_of_one_training_do_not_write_over_each_other(tmp_path):
    with checkpoint.lock(tmp_path), pytest.raises(CapnetError, match="already running"), checkpoint.lock(tmp_path):
        pass
    with checkpoint.lock(tmp_path):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 60.0])
def test_a_process_of_another_machine_is_waited_for_while_it_ends(seconds, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(checkpoint, "ENDING", 3.0)
    held = threading.Event()

    def other_machine():
        with checkpoint.lock(tmp_path):
            (tmp_path / "lock").write_text("9 birds-train-0")
            held.set()
            ended.wait(seconds)

    ended = threading.Event()
    pod = threading.Thread(target=other_machine)
    pod.start()
    held.wait()
    try:
        if seconds < 3:
            with checkpoint.lock(tmp_path):
                pass
        else:
            with pytest.raises(CapnetError, match="process 9 on birds-train-0"), checkpoint.lock(tmp_path):
                pass
    finally:
        ended.set()
        pod.join()
    assert "still running (process 9 on birds-train-0): waiting" in caplog.text
