"""Files of the repository travel to pods as settings: the same checks there as here."""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from capnet.config import parse
from capnet.contracts import make_classes, write_classes, write_json, write_split
from capnet.contracts.tables import MANIFEST_COLUMNS
from capnet.data.checks.drift import drift_counts, read_reference
from capnet.data.splits.reference import read_split_reference
from capnet.errors import CapnetError, ConfigError
from capnet.inline import MOST, content_of, inlined, text_and_path
from capnet.promotion.policy import Policy, read_policy
from capnet.stages import run
from pipelines.arguments import stage_arguments

COLUMNS = [*MANIFEST_COLUMNS, "split"]
CLASSES = make_classes(["cat", "dog"]).with_counts([100, 50], (100, 20))


def table(labels: list[list[int]]) -> pd.DataFrame:
    rows = [
        (
            f"p{n}",
            f"{n}.jpg",
            labels[n % len(labels)],
            [],
            64,
            64,
            f"{n:064x}",
            None,
            None,
            None,
            "test" if n % 4 else "train",
        )
        for n in range(200)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def arrived(arguments: dict[str, Any]) -> dict[str, Any]:
    """As KFP hands a dict over: through JSON, numbers as floats."""
    result: dict[str, Any] = json.loads(json.dumps(arguments), parse_int=float)
    return result


def test_a_pod_compares_with_the_reference_that_lies_in_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone, pod = tmp_path / "clone", tmp_path / "pod"
    for folder in (clone, pod):
        write_split(folder / "outputs/split/split.parquet", table([[0, 1]]))
        write_classes(folder / "outputs/split/classes.json", CLASSES)
    monkeypatch.chdir(clone)
    write_json(Path("reference/validation.json"), drift_counts(table([[0], [0, 1]]), CLASSES))
    settings = parse({"validate": {"images": "off", "min_positives": 0}})
    sent = stage_arguments(settings)["validate"]
    for folder, params in ((clone, settings), (pod, parse(arrived(sent)))):
        monkeypatch.chdir(folder)
        run("validate", params, {"split": "outputs/split", "data": "data"}, {"validation": "outputs/validation"})
    here, elsewhere = (
        {path.name: path.read_bytes() for path in (folder / "outputs/validation").rglob("*.*")}
        for folder in (clone, pod)
    )
    assert here == elsewhere
    (drift,) = (check for check in json.loads(elsewhere["validation.json"])["checks"] if check["name"] == "no_drift")
    assert not drift["success"]


def test_a_pod_judges_by_the_policy_that_lies_in_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("mlflow/promotion.yaml", "strict.yaml"):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text("# ours\nminimum: {mAP: 0.5}\ndraws: 300\n")
        sent = parse(arrived(stage_arguments(parse({"register": {"policy": path}}))["register"])).register_.policy
        Path(path).unlink()
        assert (read_policy(sent).minimum.mAP, read_policy(sent).draws) == (0.5, 300)
    assert parse(stage_arguments(parse({}))["register"]).register_.policy == "mlflow/promotion.yaml", (
        "absent here, absent there: the usual policy"
    )
    with pytest.raises(ConfigError, match=r"wrong = 1(.|\n)*register\.policy"):
        read_policy("text:wrong: 1\n")


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("mlflow/promotion.yaml", "minimum: {mAP: 5}", "minimum.mAP = 5"),
        ("reference/validation.json", '{"schema": 1}', "not a reference"),
        ("reference/validation.json", "{", "not valid JSON"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_before_anything_is_submitted(
    path: str, content: str, message: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(path).parent.mkdir()
    Path(path).write_text(content)
    with pytest.raises(CapnetError, match=message):
        stage_arguments(parse({}))


def test_a_reference_of_a_thousand_classes_fits_into_an_argument(tmp_path: Path) -> None:
    names = [f"a class with a name of some length {number}" for number in range(1000)]
    frame = table([[n % 997, (7 * n) % 991 + 1, (31 * n) % 983 + 2] for n in range(199)])
    write_json(tmp_path / "reference.json", drift_counts(frame, make_classes(names)))
    setting = inlined(str(tmp_path / "reference.json"))
    assert (tmp_path / "reference.json").stat().st_size > MOST > len(setting)
    assert read_reference(setting) == read_reference(str(tmp_path / "reference.json"))


def test_a_file_in_another_encoding_is_the_same_text_in_a_pipeline(tmp_path: Path) -> None:
    path = tmp_path / "promotion.yaml"
    path.write_bytes(b"coverage: 0.5  # gepr\xfcft\n")
    assert content_of(inlined(str(path))) == text_and_path(path, "register.policy")[0]
    assert read_policy(inlined(str(path))) == read_policy(path) != Policy()


def test_damaged_and_endless_content_is_refused(tmp_path: Path) -> None:
    import random

    with pytest.raises(ConfigError, match="does not unpack"):
        content_of("zlib:AAAA")
    (tmp_path / "long").write_text(random.Random(0).randbytes(200_000).hex())
    with pytest.raises(ConfigError, match="too long for a pipeline"):
        inlined(str(tmp_path / "long"))
    assert content_of("C:/a/path.yaml") is None
    bomb = "zlib:" + base64.b64encode(zlib.compress(bytes(2**26 + 1), 9)).decode()
    with pytest.raises(ConfigError, match="more than 67,108,864 bytes"):
        content_of(bomb)


@pytest.mark.parametrize("read", [read_policy, read_reference, read_split_reference])
def test_a_file_of_a_terabyte_is_refused_at_once(read: Callable[[str], object], tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(ConfigError, match="1,099,511,627,776 bytes"):
        read(str(tmp_path / "file"))


def test_a_reference_nested_deeply_is_refused() -> None:
    with pytest.raises(CapnetError, match="not valid JSON"):
        read_reference("text:" + "[" * 100_000)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("nowhere")])
@pytest.mark.parametrize("read", [read_split_reference, read_reference, read_policy])
def test_what_is_there_and_no_plain_file_is_not_taken_for_none(
    make: Callable[[Path], object], read: Callable[[str], object], tmp_path: Path
) -> None:
    make(tmp_path / "one.csv")
    with pytest.raises(ConfigError, match=r"no plain file, or a broken link\n.*one\.csv"):
        read(str(tmp_path / "one.csv"))
