"""Which training goes on from the checkpoint of one that was killed, and which begins anew."""

import errno
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from capnet.contracts import read_classes, write_classes
from capnet.contracts.stage_json import read_model_config
from capnet.steps import train
from capnet.training.distributed import ProcessGroup
from tests.unit.steps import small_training
from tests.unit.steps.small_training import run_both, stop_after, write_inputs

pytestmark = pytest.mark.slow

made = small_training.made
tiny_backbone = small_training.tiny_backbone
SETTINGS = {"epochs": 3, "batch_size": 8}
STEPS, DONE = 3 * 3, 4  # 3 epochs of 20 rows


@pytest.fixture
def steps(made, tiny_backbone, monkeypatch):
    """The epoch of every step that is made, after a training that was killed behind DONE of them."""
    folder, frame = made
    write_inputs(folder, frame)
    epochs = stop_after(DONE, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run_both(folder, tiny_backbone, **SETTINGS)
    epochs.clear()
    return epochs


@pytest.mark.parametrize(
    ("runtime", "left"),
    [({"workers": 0}, STEPS - DONE), ({"feature_gigabytes": 5.0}, STEPS - DONE), ({"seed": 1}, STEPS)],
)
def test_a_training_goes_on_under_settings_that_change_no_result(runtime, left, steps, made, tiny_backbone):
    run_both(made[0], tiny_backbone, runtime, **SETTINGS)
    assert len(steps) == left


@pytest.mark.parametrize(("fast", "left"), [(False, STEPS - DONE), (True, STEPS)])
def test_a_training_does_not_go_on_where_auto_is_another_precision(fast, left, made, tiny_backbone, monkeypatch):
    folder, frame = made
    write_inputs(folder, frame)
    epochs = stop_after(DONE, monkeypatch)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    with pytest.raises(KeyboardInterrupt):
        run_both(folder, tiny_backbone, {"precision": "auto"}, **SETTINGS)
    epochs.clear()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast})
    run_both(folder, tiny_backbone, {"precision": "auto"}, **SETTINGS)
    assert len(epochs) == left


def test_a_training_ends_where_a_folder_with_an_open_lock_stays(made, tiny_backbone, monkeypatch):
    """A file that is removed while it is open, here the lock, gets another name in its folder on NFS, SMB and sshfs."""
    folder, frame = made
    write_inputs(folder, frame)
    rmdir = os.rmdir

    def refuse(path, **options):
        if len(Path(path).name) == 64:  # letters of a sha256
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))
        rmdir(path, **options)

    monkeypatch.setattr("os.rmdir", refuse)
    run_both(folder, tiny_backbone, epochs=1)
    assert (folder / "model" / "model.safetensors").is_file()
    assert [path for path in (folder / "state" / "train").rglob("*") if path.is_file()] == []


def test_processes_train_in_the_precision_of_the_main_process(made, tiny_backbone, monkeypatch):
    """A second machine without bf16 sent features in fp32 into a batch in bf16, and looked for another checkpoint."""

    class Second(ProcessGroup):
        def broadcast(self, value):
            return "bf16" if value == "fp32" else value

    folder, frame = made
    write_inputs(folder, frame)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    monkeypatch.setattr(train, "process_group", lambda device: nullcontext(Second()))
    run_both(folder, tiny_backbone, {"precision": "auto"}, epochs=1)
    assert read_model_config(folder / "model")["precision"] == "bf16"


@pytest.mark.parametrize(
    ("file", "left"),
    [("training/out_of_fold.py", STEPS), ("serving/engine.py", STEPS - DONE)],
    ids=["training", "other"],
)
def test_a_training_does_not_go_on_under_other_code(file, left, steps, made, tiny_backbone, monkeypatch, tmp_path):
    """As after a pull: the folds were drawn otherwise, and a model of an old fold had seen rows of the new one."""
    shutil.copytree(train.CODE, tmp_path / "code")
    with (tmp_path / "code" / file).open("a") as changed:
        changed.write("FOLDS = 2\n")
    monkeypatch.setattr(train, "CODE", tmp_path / "code")
    run_both(made[0], tiny_backbone, **SETTINGS)
    assert len(steps) == left


def test_means_of_other_buckets_do_not_get_into_one_history(steps, made, tiny_backbone):
    folder, _ = made
    path = folder / "split" / "classes.json"
    classes = read_classes(path)
    write_classes(path, classes.with_counts(classes.train_counts.tolist(), (1000, 1)))
    run_both(folder, tiny_backbone, **SETTINGS)
    header, *rows = (folder / "model" / "history.csv").read_text().splitlines()
    assert header == "epoch,step,loss,val_mAP,val_head,val_medium,val_tail"
    assert len(rows) == 3
    for row in rows:
        _, _, _, every, head, medium, tail = row.split(",")
        assert (head, medium, tail) == ("", every, "")
