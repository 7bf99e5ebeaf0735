"""The registered model, loaded back by MLflow: the same scores as capnet's own scorer, from paths and from base64."""

from __future__ import annotations

import base64
import io
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any
from unittest.mock import Mock

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModelContext
from PIL import Image

from capnet.config import Register, Runtime
from capnet.contracts import read_json, sha256_file
from capnet.errors import CapnetError, ContractError, DataError, GateError
from capnet.evaluation.tte import Scorer
from capnet.model.capnet import CapNet
from capnet.registry.candidate import read_candidate
from capnet.registry.register import register_version
from capnet.serving.engine import load_served
from capnet.serving.pyfunc import CapnetModel, check_gate, input_example
from capnet.serving.request import Clock, Limits, read_limits, request_files

pytestmark = pytest.mark.slow

Make = Callable[..., dict[str, Path]]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Three pictures of noise, one of them PNG with a name that says nothing."""
    random = np.random.default_rng(0)
    paths = [tmp_path / name for name in ("a.jpg", "b b.jpg", "c")]
    for path, size in zip(paths, ((50, 40), (64, 64), (33, 90)), strict=True):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(
            path, format="PNG" if path.suffix == "" else "JPEG"
        )
    return paths


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.mark.parametrize(
    "weighted",
    [
        {},
        {"capnet": 0.7, "zero_shot": 0.3},
        {"capnet": 0.4, "class_head": 0.3, "linear_probe": 0.2, "zero_shot": 0.1},
        {"class_head": 1.0},
    ],
)
def test_the_registered_model_gives_the_scores_of_the_evaluation(
    database: Path,
    make_outputs: Make,
    pictures: list[Path],
    tmp_path: Path,
    weighted: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CAPNET_SERVE_ROOT", str(tmp_path))
    paths = make_outputs(weighted=weighted)
    register_version(Register(), read_candidate(**paths), paths["evaluation"] / "report.html")
    rows = pd.DataFrame({"path": [str(path) for path in pictures], "sha256": [sha256_file(path) for path in pictures]})
    scored = Scorer(paths["model"], Runtime()).score(rows, Path("/"), "test")
    expected = scored.scores["capnet"]
    assert np.abs(expected - scored.scores["zero_shot"]).max() > 0.01

    loaded: Any = mlflow.pyfunc.load_model("models:/capnet@challenger")
    result = loaded.predict(pd.DataFrame({"image": [str(path) for path in pictures]}))

    thresholds = read_json(paths["evaluation"] / "thresholds.json")
    names = [item["name"] for item in thresholds["classes"]]
    assert list(result.columns) == ["picture", "class", "score", "probability", "threshold", "decision"]
    assert result["picture"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert result["class"].tolist() == names * 3
    # the evaluation sends other batches through the tower
    np.testing.assert_allclose(result["score"], expected.ravel(), atol=1e-6)
    limits = [item["threshold"] for item in thresholds["classes"]] * 3
    assert result["threshold"].tolist() == limits
    assert result["decision"].tolist() == [score >= limit for score, limit in zip(result["score"], limits, strict=True)]
    logits = np.log(result["score"] / (1 - result["score"]))
    temperature, shift = (np.tile(thresholds["calibration"][name], 3) for name in ("temperature", "shift"))
    shifted = logits / temperature + shift
    np.testing.assert_allclose(result["probability"], 1 / (1 + np.exp(-shifted)), atol=1e-6)

    state = tmp_path / "state"
    kept = sorted(state.rglob("*"))
    mixed = pd.DataFrame(
        {"image": [_base64(pictures[0]), f"data:image/jpeg;base64,{_base64(pictures[1])}", pictures[2].read_bytes()]}
    )
    pd.testing.assert_frame_equal(loaded.predict(mixed), result)
    decided = loaded.predict(mixed, params={"decided_only": True})
    pd.testing.assert_frame_equal(decided, result[result["decision"]].reset_index(drop=True))
    assert sorted(state.rglob("*")) == kept, "nothing of a served picture is kept"
    pd.testing.assert_frame_equal(
        loaded.predict({"image": [base64.encodebytes(path.read_bytes()).decode() for path in pictures]}), result
    )
    assert loaded.predict(mixed.iloc[:0]).empty
    assert loaded.predict(loaded.input_example)["class"].tolist() == names
    with pytest.raises(MlflowException, match="image"):
        loaded.predict(pd.DataFrame({"picture": ["a.jpg"]}))
    with pytest.raises(MlflowException, match=r"row 1") as caught:
        loaded.predict(pd.DataFrame({"image": [str(pictures[0]), pictures[1].read_bytes()[:200]]}))
    assert caught.value.get_http_status_code() == 400
    assert "does not decode" in str(caught.value)


def test_class_embeddings_are_computed_once(
    make_outputs: Make, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    paths = make_outputs()
    calls = []
    original = CapNet.class_features
    monkeypatch.setattr(CapNet, "class_features", lambda model: calls.append(1) or original(model))
    served = load_served(paths["model"], paths["evaluation"] / "thresholds.json")
    for _ in range(3):
        served.scores(pictures)
    assert len(calls) == 1


def test_thresholds_of_other_views_are_refused(
    make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    paths = make_outputs()
    path = paths["evaluation"] / "thresholds.json"
    path.write_text(json.dumps(read_json(path) | {"views": {"views": 1, "expand": 8, "average": "logits"}}))
    with pytest.raises(ContractError, match="thresholds hold for the test-time views"):
        load_served(paths["model"], path)


def test_every_row_that_is_no_picture_is_named(
    tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPNET_SERVE_ROOT", str(tmp_path))
    postscript = base64.b64encode(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    ).decode()  # Pillow would start another program
    text = tmp_path / "secret.txt"
    text.write_text("not for you")
    values: list[object] = [
        str(pictures[0]),
        "missing.jpg",
        "%%%",
        "",
        None,
        base64.b64encode(b"no picture").decode(),
        "x" * 5000,
        str(tmp_path),
        postscript,
    ]
    values += [b"", b"no picture", pictures[0].read_bytes()[:100], 3.5, str(text), "data:image/png;base64,", "a\0b"]
    folder = tmp_path / "rows"
    folder.mkdir()
    with pytest.raises(DataError) as caught:
        request_files(pd.DataFrame({"image": values}), folder, Clock(read_limits()))
    assert [problem.where for problem in caught.value.problems] == [f"row {number}" for number in range(1, 16)]
    assert max(len(problem.what) for problem in caught.value.problems) < 160
    assert "not for you" not in str(caught.value)


def test_a_table_without_pictures_or_without_the_column(tmp_path: Path) -> None:
    assert request_files(pd.DataFrame({"image": []}), tmp_path, Clock(Limits())) == []
    with pytest.raises(DataError, match="no column 'image'"):
        request_files(pd.DataFrame({"picture": ["a.jpg"]}), tmp_path, Clock(Limits()))


@pytest.mark.parametrize("copies", [0, 2])
def test_a_list_in_one_of_several_rows_is_refused(tmp_path: Path, copies: int) -> None:
    """Later rows had other numbers in the answer than in the request."""
    grey = input_example()["image"][0]
    with pytest.raises(DataError, match=r": a list\s+where: row 1\s"):
        request_files(pd.DataFrame({"image": [grey, [grey] * copies, grey]}), tmp_path, Clock(Limits()))


def test_content_reaches_the_decoder_byte_by_byte(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), (1, 2, 3)).save(buffer, format="PNG")
    values = [base64.b64encode(buffer.getvalue()).decode(), buffer.getvalue()]
    files = request_files(pd.DataFrame({"image": values}), tmp_path, Clock(Limits()))
    assert [path.read_bytes() for path in files] == [buffer.getvalue()] * 2


def test_a_model_of_the_registry_does_not_serve_where_nobody_can_be_asked(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_gate(tmp_path)  # not from a registry: nothing to ask
    (tmp_path / "registered_model_meta").write_text("model_name: capnet\nmodel_version: '1'\n")
    with pytest.raises(GateError, match="cannot ask the registry whether capnet version 1 may serve"):
        check_gate(tmp_path)
    monkeypatch.setenv("CAPNET_UNCHECKED_CHAMPION", "an image without a registry")
    check_gate(tmp_path)


def test_asking_a_registry_that_is_not_there_makes_none(
    tmp_path: Path, no_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "registered_model_meta").write_text("model_name: capnet\nmodel_version: '1'\n")
    with pytest.raises(GateError, match=r"cannot ask the registry .*: there is no .*mlflow\.db"):
        check_gate(tmp_path)
    monkeypatch.setenv("CAPNET_UNCHECKED_CHAMPION", "an image without a registry")
    check_gate(tmp_path)
    assert not no_database.exists()


def test_a_model_whose_files_changed_in_the_store_is_not_loaded(database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    version = register_version(Register(), read_candidate(**paths), paths["evaluation"] / "report.html")
    (stored,) = database.parent.rglob("artifacts/model/model.safetensors")
    content, folder = stored.read_bytes(), stored.parents[2]
    copied = shutil.copytree(folder, database.parent / "copied")  # without what MLflow before 3.18 notes on loading
    ways = (version.source, str(copied), f"models:/{version.name}/{version.version}")
    for way in ways:
        assert mlflow.pyfunc.load_model(way)
    for file in (stored, copied / "artifacts" / "model" / stored.name):
        file.write_bytes(content[:-4] + bytes(4))
    (folder / "registered_model_meta").unlink(missing_ok=True)
    for way in ways:
        with pytest.raises(ContractError, match="the files that arrived are not those of capnet version 1"):
            mlflow.pyfunc.load_model(way)


def test_no_answer_has_the_traceback_of_an_error_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPNET_SERVE_SECONDS", "0.000001")
    model = CapnetModel()
    model._turns = BoundedSemaphore(1)
    for fault, words, status in (
        (MemoryError(), "not enough memory", 500),
        (OSError("/home/secret is full"), "the model failed", 500),
        (CapnetError("too many open files", "/home/secret"), "the model failed", 500),
    ):
        model._limits = Limits()
        model._served = Mock(**{"scores.side_effect": fault})
        with pytest.raises(MlflowException, match=words) as caught:
            model.predict(Mock(), input_example())
        assert caught.value.get_http_status_code() == status
        assert "secret" not in caught.value.serialize_as_json()
    model._limits = read_limits()
    with pytest.raises(MlflowException, match="1e-06 seconds") as caught:
        model.predict(Mock(), input_example())
    assert caught.value.get_http_status_code() == 503


def test_the_log_has_the_reason_of_a_refusal_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever runs the server saw a status 400 or 503 and nothing else."""
    model = CapnetModel()
    model._turns, model._served = BoundedSemaphore(1), Mock()
    for limits, image, words in (
        (Limits(), "no\nimage", "refused: not a picture (JPEG, "),
        (Limits(seconds=1e-6), input_example()["image"][0], "had too little time: "),
    ):
        model._limits = limits
        with pytest.raises(MlflowException):
            model.predict(Mock(), pd.DataFrame({"image": [image]}))
        assert words in caplog.records[-1].getMessage()
        assert "\n" not in caplog.records[-1].getMessage()
        assert caplog.records[-1].levelname == "WARNING"


def test_so_many_requests_are_scored_at_once_and_no_more(
    make_outputs: Make, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("CAPNET_SERVE_AT_ONCE", "2")
    paths = make_outputs()
    artifacts = {"model": str(paths["model"]), "thresholds": str(paths["evaluation"] / "thresholds.json")}
    model, now, most = CapnetModel(), [], []
    model.load_context(PythonModelContext(artifacts, {}))
    served = model._served

    def counted(files: list[Path]) -> np.ndarray:
        now.append(1)
        most.append(len(now))
        time.sleep(0.1)
        try:
            return served.scores(files)
        finally:
            now.pop()

    model._served = Mock(scores=counted, decisions=served.decisions)
    table = pd.DataFrame({"image": [pictures[0].read_bytes()]})
    with ThreadPoolExecutor(8) as pool:
        result = list(pool.map(lambda _: model.predict(Mock(), table), range(8)))
    assert len(result) == 8
    assert max(most) == 2
