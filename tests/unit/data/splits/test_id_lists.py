"""Published id lists: kept in their order, every mistake reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from capnet.data.splits.id_lists import read_id_list, read_kept_list, write_id_list
from capnet.errors import ContractError


def test_id_list_keeps_its_order_and_reports_every_mistake(tmp_path: Path) -> None:
    known = ["images/a1", "images/b2", "c3", "deer_0004"]
    path = tmp_path / "train.txt"
    path.write_text("\ufeffc3\n\n  images/a1 \n")
    assert read_id_list(path, known, "ingest.train_list") == (["c3", "images/a1"], [])
    path.write_text("c3\nc3\nb2\ndeer_0005\nzzz\n")
    ids, problems = read_id_list(path, known, "ingest.train_list")
    assert ids == ["c3"]
    assert [problem.where.split(",")[0] for problem in problems] == [f"{path} line {n}" for n in (2, 3, 4, 5)]
    assert "images/b2" in problems[1].todo
    assert "deer_0004" in problems[2].todo
    assert f"ids there are such as {known[0]!r}" in problems[3].todo
    path.write_text("images/a1.jpg\nval\\c3.png\n")
    first, second = read_id_list(path, known, "ingest.train_list")[1]
    assert "did you mean 'images/a1'" in first.todo
    assert "did you mean 'c3'" in second.todo


@pytest.mark.slow
def test_of_large_data_few_unknown_ids_are_compared_with_all_others(tmp_path: Path) -> None:
    """Each comparison with 100,000 ids takes most of a second."""
    known = [f"images/site{number % 97}/IMG_{number:07d}" for number in range(100_000)]
    path = tmp_path / "train.txt"
    path.write_text("".join(f"{image}x\n" for image in known[:10]))
    problems = read_id_list(path, known, "ingest.train_list")[1]
    assert len(problems) == 10
    assert ["did you mean" in problem.todo for problem in problems] == [True, True, *[False] * 8]
    assert f"did you mean {known[0]!r}" in problems[0].todo


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
def test_letters_that_unicode_ends_lines_at_may_be_in_an_id(tmp_path: Path, letter: str) -> None:
    known = [f"field{letter}fox", f"images/owl{letter}"]
    write_id_list(tmp_path, "train", known)
    assert read_kept_list(tmp_path, "train") == known
    assert read_id_list(tmp_path / "train_list.txt", known, "ingest.train_list") == (known, [])


def test_a_damaged_list_beside_the_manifest_is_an_error_of_its_stage(tmp_path: Path) -> None:
    (tmp_path / "train_list.txt").write_bytes(b"a1\xff\n")
    with pytest.raises(ContractError, match=r"damaged.*byte 0xff in position 2[^$]*train_list\.txt"):
        read_kept_list(tmp_path, "train")


@pytest.mark.parametrize(
    ("content", "part"), [(b"", "empty"), (b"\n \n", "empty"), (b"\xff\xfe\x00", "UTF-8"), (None, "cannot read")]
)
def test_broken_id_lists_are_problems(tmp_path: Path, content: bytes | None, part: str) -> None:
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    ids, problems = read_id_list(path, ["a"], "ingest.train_list")
    assert ids == []
    assert len(problems) == 1
    assert part in problems[0].what


def test_lists_of_numbers_stand_for_padded_ids_where_that_is_clear(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("25\n000000000009\n9\n")
    ids, problems = read_id_list(path, ["000000000009", "000000000025"], "ingest.train_list")
    assert ids == ["000000000025", "000000000009"]
    assert [problem.what for problem in problems] == ["image id '9' is listed twice"]
    # 9 is a picture of its own, 000000000009 is none
    assert len(read_id_list(path, ["9", "09", "25"], "ingest.train_list")[1]) == 1


def test_a_list_of_paths_and_labels_is_read_as_lmpt_publishes_it(tmp_path: Path) -> None:
    """LMPT's coco_lt_train.txt: the path of an image and the numbers of its labels, a space behind them."""
    path = tmp_path / "train.txt"
    path.write_text("train2017/000000000025.jpg 0 62 64 \ntrain2017\\000000000009.jpg 3\n9\n")
    ids, problems = read_id_list(path, ["000000000009", "000000000025"], "ingest.train_list")
    assert ids == ["000000000025", "000000000009"]
    assert [problem.what for problem in problems] == ["image id '9' is listed twice"]
    path.write_text("images/a1.jpg 0 3\nb2.png 4\nc3.jpg cat\nzoo/d4.jpg 1\n")
    ids, problems = read_id_list(path, ["images/a1", "b2", "c3"], "ingest.train_list")
    assert ids == ["images/a1", "b2"]
    assert [problem.what for problem in problems] == [
        "image id 'c3.jpg cat' is not in the data",
        "image id 'zoo/d4.jpg 1' is not in the data",
    ]
