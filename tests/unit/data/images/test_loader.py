"""The loader: workers change no pixel and no order, broken files and dead workers have names, memory is bounded."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from capnet import runtime
from capnet.config import Runtime, Tte
from capnet.data.images.loader import Batch, chunked, load_batches
from capnet.data.images.stream import stream, without_faults
from capnet.data.images.transform import Item, Transform
from capnet.data.images.views import Canvas
from capnet.errors import CapnetError, DataError
from capnet.runtime import Machine

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
TEN = Transform(32, MEAN, STD, "bicubic", tte=Tte(views=10, expand=6))
RANDOM = Transform(32, MEAN, STD, "bicubic", random_views=3, seed=4)
HERE = Machine(torch.device("cpu"), bf16=False)
APART = replace(HERE, workers=2)
BROKEN = {"gone.png": "missing", "text.png": "not a picture", "cut.jpg": "does not decode"}


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, list[Item]]:
    """Sixty images of all shapes, three of them broken, each with a draw of its own."""
    rng = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(57)]
    for number, name in enumerate(names):
        size = (20 + number, 77 - number, 3)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:900])
    names[5:5] = list(BROKEN)
    return tmp_path, [Item(name, (7, number)) for number, name in enumerate(names)]


def batches(folder: tuple[Path, list[Item]], transform: Transform, machine: Machine) -> list[Batch]:
    root, items = folder
    return list(load_batches(chunked(items, 7), root, transform, machine, 2, len(items)))


@pytest.mark.parametrize("transform", [TEN, RANDOM], ids=["ten views", "random views"])
def test_processes_give_the_pixels_of_threads_in_the_same_order(
    folder: tuple[Path, list[Item]], transform: Transform
) -> None:
    here, apart = batches(folder, transform, HERE), batches(folder, transform, APART)
    assert [item for batch in apart for item in batch.items] == folder[1]
    for one, other in zip(here, apart, strict=True):
        assert one.faults == other.faults
        pairs = list(zip(one.views(HERE.device), other.views(HERE.device), strict=True))
        assert len(pairs) == transform.views * one.faults.count("")
        assert all(torch.equal(a, b) for a, b in pairs)
    faults = {item.path: fault for batch in apart for item, fault in zip(batch.items, batch.faults, strict=True)}
    assert {name for name, fault in faults.items() if fault} == set(BROKEN)
    assert all(faults[name].startswith(text) for name, text in BROKEN.items())


def test_views_are_those_that_pillow_and_numpy_make(folder: tuple[Path, list[Item]]) -> None:
    """Resized, cropped, mirrored and normalised one image at a time."""
    root, items = folder
    for item in items[:5]:
        image = Image.open(root / item.path)
        scale = 38 / min(image.size)
        image = image.resize(tuple(round(side * scale) for side in image.size), Image.Resampling.BICUBIC)
        right, bottom = image.width - 32, image.height - 32
        places = [(0, 0), (right, 0), (0, bottom), (right, bottom), (right // 2, bottom // 2)]
        crops = [np.asarray(image.crop((x, y, x + 32, y + 32))) for x, y in places]
        pixels = np.stack([*crops, *(crop[:, ::-1] for crop in crops)]).transpose(0, 3, 1, 2)
        deviation = np.float32(STD).reshape(3, 1, 1)
        expected = (
            pixels * (np.float32(1) / (np.float32(255) * deviation)) - np.float32(MEAN).reshape(3, 1, 1) / deviation
        )
        np.testing.assert_array_equal(TEN.tensor(root, item.path, "").numpy(), expected)


def test_a_panorama_crosses_the_pipe_as_its_crops(tmp_path: Path) -> None:
    Image.new("RGB", (3900, 40), (9, 9, 9)).save(tmp_path / "wide.png")
    five = replace(TEN, tte=Tte(views=5, expand=6))
    (batch,) = load_batches([[Item("wide.png")]], tmp_path, five, HERE, 1, 1)
    assert len(pickle.dumps(batch)) < 5 * 32 * 32 * 3 + 2000
    assert [view.shape for view in batch.views(HERE.device)] == [(32, 32, 3)] * 5


def test_training_draws_the_same_numbers_with_and_without_workers(folder: tuple[Path, list[Item]]) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    batches(folder, RANDOM, APART)
    assert torch.equal(torch.rand(3), expected)


def test_a_killed_worker_ends_with_an_error_that_says_so(
    folder: tuple[Path, list[Item]], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, original = os.getpid(), Transform.canvas

    def dies(transform: Transform, root: Path, item: Item) -> object:
        if item.path == "30.png" and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(transform, root, item)

    monkeypatch.setattr(Transform, "canvas", dies)
    with pytest.raises(CapnetError, match=r"(?s)decodes images was ended.*runtime\.workers"):
        batches(folder, TEN, APART)


@pytest.mark.parametrize("concurrent", [False, True])
@pytest.mark.parametrize("machine", [HERE, APART], ids=["threads", "processes"])
def test_features_follow_the_images_whatever_is_broken(
    folder: tuple[Path, list[Item]], machine: Machine, concurrent: bool
) -> None:
    root, items = folder
    items = [*items, *(Item(name) for name in BROKEN for _ in range(6))]  # the last batches have no image at all
    parts = list(stream(lambda x: x.mean(dim=(2, 3)), items, root, TEN, machine, 2, len(items), concurrent))
    assert [item for part in parts for item in part.items] == items
    start = 0
    for part in parts:
        good = [item for item, fault in zip(part.items, part.faults, strict=True) if not fault]
        assert len(part.features) == len(good)
        for item, features in zip(good, part.features, strict=True):
            expected = TEN.tensor(root, item.path, "").mean(dim=(2, 3))
            torch.testing.assert_close(features, expected, rtol=0, atol=1e-6)
        start += len(part.items)
    with pytest.raises(DataError) as caught:
        list(without_faults(parts, root))
    assert sorted(Path(problem.where).name for problem in caught.value.problems) == sorted(BROKEN)


@pytest.mark.parametrize(
    ("cores", "limit", "processes", "workers"),
    [
        (1, "max 100000", "1", 0),
        (2, "max 100000", "1", 2),
        (64, "max 100000", "1", 16),
        (64, "250000 100000", "1", 2),
        (64, "50000 100000", "1", 0),
        (8, "max 100000", "4", 2),
        (8, None, "8", 0),
    ],
)
def test_there_are_as_many_workers_as_cores_that_the_process_may_use(
    cores: int, limit: str | None, processes: str, workers: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(runtime, "CPU_LIMIT", tmp_path / "cpu.max")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    if limit:
        (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert runtime.workers(Runtime()) == workers
    assert runtime.workers(Runtime(workers=3)) == 3


SLOW = """
import sys, time
from pathlib import Path
from tests.unit.data.images.test_loader import APART, TEN, Item
from capnet.data.images.stream import stream
def encode(views):
    print("working", flush=True)
    time.sleep(0.1)
    return views.mean(dim=(2, 3))
items = [Item(f"{number % 57}.png") for number in range(5000)]
list(stream(encode, items, Path(sys.argv[1]), TEN, APART, 1, len(items)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent(folder: tuple[Path, list[Item]], repository: Path, how: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(folder[0])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=repository,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job's children ignore it
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    if how == signal.SIGKILL:
        process.kill()
        process.wait()
    else:
        os.killpg(process.pid, how)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode != 0
        assert stderr.count("Traceback") == 1, stderr
        assert stderr.rstrip().endswith("KeyboardInterrupt")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a worker outlives its parent")


ORPHAN = """
import os, time
from multiprocessing import get_context
from capnet.data.images.loader import _begin
def work():
    while os.getppid() == parent:
        time.sleep(0.01)
    _begin(0)
    time.sleep(60)
parent = os.getpid()
get_context("fork").Process(target=work).start()
os._exit(0)
"""


def test_a_worker_whose_parent_ended_before_it_began_ends(repository: Path) -> None:
    """It waited for ever for the end of the process that had adopted it."""
    command = [sys.executable, "-c", ORPHAN]
    # the worker has the pipe, too: it is read to its end once both processes are gone
    subprocess.run(command, stdout=subprocess.PIPE, cwd=repository, check=True, timeout=30)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("way", ["signal missed", "error swallowed"])
def test_a_worker_killed_within_a_batch_is_noticed(
    folder: tuple[Path, list[Item]], monkeypatch: pytest.MonkeyPatch, way: str, device: str
) -> None:
    """The main process reads a batch whose rest never comes; torch raises that once, in whatever it was at. For a GPU
    pixels are pinned, which no thread of torch's may do: that would wait for the rest.
    """
    root, items = folder
    gpu = {"is_available": True, "current_accelerator": torch.device("cuda"), "set_device_index": None}
    for name, value in (gpu | {"current_device_index": 0}).items():
        monkeypatch.setattr(torch.accelerator, name, lambda *_, value=value: value)
    (pins := threading.Event()).set()
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda pixels: pixels if pins.wait(20) else None)
    machine = Machine(torch.device(device), bf16=False, workers=1)
    wide = Canvas(np.zeros((1000, 3000, 3), np.uint8), (), 32)
    monkeypatch.setattr(Transform, "canvas", lambda transform, root, item: wide)  # more than a pipe holds
    loaded = load_batches(chunked(items, 7), root, TEN, machine, 2, len(items))
    assert (next(loaded).pixels is not None) == (device == "cuda")
    pins.clear()
    (worker,) = multiprocessing.active_children()
    before = signal.getsignal(signal.SIGCHLD)
    if way == "signal missed":
        signal.signal(signal.SIGCHLD, lambda *_: None)
    swallowed = []
    try:
        time.sleep(2)  # the next batch has begun to fill the pipe
        try:
            pins.set()
            os.kill(worker.pid or 0, signal.SIGKILL)
            time.sleep(0.5)
        except CapnetError as error:  # as a library's import does, of any error
            swallowed.append(error)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert len(swallowed) == (way == "error swallowed")
    waits = threading.Event()
    late = signal.signal(signal.SIGALRM, lambda *_: waits.set() or pytest.fail("it waits for a worker that is dead"))
    signal.alarm(20)
    try:
        with pytest.raises(CapnetError, match="a process that decodes images was ended"):
            list(loaded)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, late)
    assert not waits.is_set()  # nothing raised in torch's __del__ comes here


def test_a_worker_that_dies_while_its_batch_is_used_is_named(folder: tuple[Path, list[Item]]) -> None:
    """The main process is computing: the fault is raised there, outside of everything that reads batches."""
    root, items = folder
    loaded = load_batches(chunked(items, 7), root, TEN, replace(HERE, workers=1), 2, len(items))
    next(loaded)
    (worker,) = multiprocessing.active_children()

    def use() -> None:
        os.kill(worker.pid or 0, signal.SIGKILL)
        time.sleep(5)

    with pytest.raises(CapnetError, match="a process that decodes images was ended"):
        use()
    loaded.close()
