"""The feature store gives back what was put in, whatever happened to its files and whoever else writes to it."""

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from capnet.data.images import store, stored_features
from capnet.data.images.store import FeatureStore, trim
from capnet.data.images.stored_features import join_views, last_stage
from capnet.state import state_dir

SHAPE = (5, 16)


@pytest.fixture(autouse=True)
def _state(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))


def name(number):
    return f"{number:064x}"


def names(*numbers):
    return [name(number) for number in numbers]


def row(number):
    """float16 [view, pooled], another one for each image."""
    return np.random.default_rng(number).normal(size=SHAPE).astype(np.float16)


def fill(numbers, key="key"):
    FeatureStore(key, 5).fill(names(*numbers), (row(number) for number in numbers))


def expected(numbers):
    return torch.from_numpy(np.stack([row(number) for number in numbers])).float()


def holds(numbers, key="key"):
    """Whether the store has exactly what was put in."""
    stored = FeatureStore(key, 5)
    assert stored.missing(names(*numbers)) == []
    return torch.equal(stored.read(names(*numbers))[:], expected(numbers))


def segments(key="key"):
    return sorted((state_dir("features") / key).glob("*.arrow"))


def test_rows_come_back_by_content_in_any_order_and_as_often_as_asked():
    fill(range(7))
    fill(range(7, 12))
    assert len(segments()) == 2
    assert holds([11, 3, 3, 0, 8, 6])
    assert FeatureStore("key", 5).missing(names(3, 20, 4, 21, 20)) == [1, 3]
    assert FeatureStore("other", 5).missing(names(0, 1)) == [0, 1]


def test_it_is_indexed_like_a_tensor(monkeypatch):
    monkeypatch.setattr(store, "SEGMENT_BYTES", 4 * row(0).nbytes)
    fill(range(11))
    fill(range(100, 111), "random views")
    assert len(segments()) == 3
    first, second = (
        FeatureStore(key, 5).read(names(*numbers))
        for key, numbers in (("key", range(11)), ("random views", range(100, 111)))
    )
    tensor = torch.cat([expected(range(11)), expected(range(100, 111))], dim=1)
    joined = join_views([first, second])
    rows, views = torch.tensor([9, 2, 2, 10, 0]), torch.tensor([9, 0, 5, 4, 7])
    assert joined.shape == tensor.shape
    assert len(joined) == 11
    assert torch.equal(joined[:], tensor)
    assert torch.equal(joined[3:9], tensor[3:9])
    assert torch.equal(joined[rows], tensor[rows])
    assert torch.equal(joined[rows, views], tensor[rows, views])
    chosen = joined.index_select(0, rows)
    assert chosen.shape == (5, *tensor.shape[1:])
    assert torch.equal(chosen[1:4], tensor[rows][1:4])
    assert torch.equal(chosen[torch.tensor([4, 1]), torch.tensor([8, 3])], tensor[rows][[4, 1], [8, 3]])
    for features in (joined, tensor):
        some = last_stage(features, 2)
        assert some.shape == (11, *tensor.shape[1:-1], 2)
        assert torch.equal(some[3:9], tensor[3:9, :, :2])
        assert torch.equal(some[rows, views], tensor[rows, views][:, :2])
        assert torch.equal(some.index_select(0, rows)[:], tensor[rows][..., :2])


def test_no_images_have_no_features():
    empty = FeatureStore("key", 5).read([])
    assert empty[:].shape[0] == len(empty) == 0
    assert FeatureStore("key", 5).missing([]) == []


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "zeros", "other version"])
def test_a_damaged_file_is_removed_and_only_its_rows_are_missing(damage, monkeypatch):
    fill(range(4))
    with monkeypatch.context() as changed:
        if damage == "other version":
            changed.setattr(store, "SCHEMA", 0)
        store.write_segment(segments()[0].with_name("torn.arrow"), names(4, 5), np.stack([row(4), row(5)]))
    path = segments()[-1]
    data = path.read_bytes()
    replacements = {"cut": data[: len(data) // 2], "empty": b"", "text": b"ARROW1" * 99, "zeros": bytes(len(data))}
    path.write_bytes(replacements.get(damage, data))
    assert FeatureStore("key", 5).missing(names(*range(6))) == [4, 5]
    assert not path.exists()
    assert holds(range(4))


@pytest.mark.parametrize("where", ["features", "hash", "checksum"])
def test_a_row_with_another_bit_is_missing_and_made_again(where):
    fill(range(6))
    path = segments()[0]
    data = bytearray(path.read_bytes())
    needle = {"features": row(3).tobytes(), "hash": name(3).encode(), "checksum": None}[where]
    if needle is None:
        needle = np.uint32(store._checksum(name(3), row(3))).tobytes()
    assert data.count(needle) == 1
    data[data.index(needle) + len(needle) - 1] ^= 1
    path.write_bytes(data)
    stored = FeatureStore("key", 5)
    assert stored.missing(names(*range(6))) == [3]
    stored.fill(names(3), [row(3)])
    assert torch.equal(stored.read(names(*range(6)))[:], expected(range(6)))
    assert holds([5, 3, 1])  # a new process passes over the damaged row as well


def _fill_in_process(numbers, started, stop_after):
    store.SEGMENT_BYTES = 3 * row(0).nbytes
    started.wait()

    def rows():
        for count, number in enumerate(numbers):
            if count == stop_after:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.005)
            yield row(number)

    fill_store = FeatureStore("key", 5)
    missing = fill_store.missing(names(*numbers))
    numbers = [numbers[position] for position in missing]
    fill_store.fill(names(*numbers), rows())


def _run(*arguments):
    context = multiprocessing.get_context("fork")
    started = context.Barrier(len(arguments))
    processes = [context.Process(target=_fill_in_process, args=(item, started, end)) for item, end in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def test_two_processes_fill_one_folder_at_once():
    assert _run((list(range(20)), None), (list(range(10, 30)), None), (list(range(20)), None)) == [0, 0, 0]
    assert holds(range(30))


def test_a_killed_process_loses_no_more_than_its_last_segment():
    assert _run((list(range(20)), 11)) == [-signal.SIGKILL]
    assert FeatureStore("key", 5).missing(names(*range(20))) == list(range(9, 20))
    assert holds(range(9))
    assert _run((list(range(20)), None)) == [0]
    assert holds(range(20))


def _kill_in_the_middle_of_a_file():
    os.replace = lambda temporary, path: os.kill(os.getpid(), signal.SIGKILL)
    fill(range(3, 6))


def test_a_process_killed_in_the_middle_of_a_file_leaves_no_row():
    fill(range(3))
    process = multiprocessing.get_context("fork").Process(target=_kill_in_the_middle_of_a_file)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert FeatureStore("key", 5).missing(names(*range(6))) == [3, 4, 5]
    left = next((state_dir("features") / "key").glob(".*.tmp"))
    trim(10**9)
    assert left.exists()  # its writer may still be at work
    os.utime(left, (0, 0))
    trim(10**9)
    assert not left.exists()


def test_the_longest_unused_files_go_first_and_none_that_is_in_use():
    for number, key in enumerate("abcde"):
        fill([number], key)
        os.utime(segments(key)[0], (number, number))
    size = segments("a")[0].stat().st_size
    in_use = FeatureStore("b", 5).read(names(1))
    read_again = FeatureStore("a", 5).read(names(0))  # the longest unused one, but for this
    del read_again
    trim(3 * size)
    assert [key for key in "abcde" if segments(key)] == ["a", "b", "e"]
    trim(0)
    assert [key for key in "abcde" if segments(key)] == ["b"]
    assert torch.equal(in_use[:], expected([1]))
    del in_use
    trim(0)
    assert not [key for key in "abcde" if segments(key)]


def test_what_an_older_version_left_counts_and_goes():
    fill([0])
    old = state_dir("features") / f"{16 * '0123'}.safetensors"
    old.write_bytes(bytes(10_000))
    os.utime(old, (0, 0))
    trim(9_999)
    assert not old.exists()
    assert holds([0])


def test_reading_goes_on_when_somebody_empties_the_state_folder(tmp_path):
    fill(range(4))
    stored = FeatureStore("key", 5).read(names(*range(4)))
    shutil.rmtree(tmp_path / "state")
    assert torch.equal(stored[:], expected(range(4)))
    fill(range(4))
    assert holds(range(4))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux counts mapped pages there")
def test_a_process_holds_few_of_the_pages_it_has_read(monkeypatch):
    def resident():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile")) * 1024

    monkeypatch.setattr(stored_features, "RESIDENT_BYTES", 4 * 2**20)
    large = np.ones((64, 1, 2**19), dtype=np.float16)  # a megabyte an image
    FeatureStore("key", 1).fill(names(*range(64)), large)
    before = resident()
    stored = FeatureStore("key", 1)
    assert stored.missing(names(*range(64))) == []
    features = stored.read(names(*range(64)))
    most = 0
    for image in np.random.default_rng(0).permutation(64):
        features[int(image) : int(image) + 1]
        most = max(most, resident() - before)
    assert most < 32 * 2**20


def test_more_files_than_a_process_may_open_by_default():
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    folder = FeatureStore("key", 5).folder
    opened = len(os.listdir("/proc/self/fd"))
    for number in range(40):
        store.write_segment(folder / f"{number:02}.arrow", names(number), row(number)[None])
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 30, hard))
        assert holds(range(40))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_came_before_an_error_is_kept():
    def rows():
        yield from (row(0), row(1))
        raise ValueError("the third image is broken")

    with pytest.raises(ValueError, match="third"):
        FeatureStore("key", 5).fill(names(0, 1, 2), rows())
    assert FeatureStore("key", 5).missing(names(0, 1, 2)) == [2]
    assert holds([0, 1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux counts mapped pages there")
def test_a_process_holds_few_pages_of_many_small_rows_read_at_random(monkeypatch):
    """A page that is read brings its neighbours along, up to two megabytes of them."""

    def resident():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile")) * 1024

    monkeypatch.setattr(stored_features, "RESIDENT_BYTES", 8 * 2**20)
    FeatureStore("key", 1).fill(names(*range(40_000)), np.ones((40_000, 1, 1280), dtype=np.float16))
    features, most = FeatureStore("key", 1).read(names(*range(40_000))), 0
    before = resident()
    for rows in np.random.default_rng(0).permutation(40_000).reshape(-1, 16)[:200]:
        features[torch.from_numpy(rows), torch.zeros(16, dtype=torch.long)]
        most = max(most, resident() - before)
    assert most < 32 * 2**20
