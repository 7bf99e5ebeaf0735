"""Bodies that are never handed on to MLflow's server: it would parse each as a whole before the model is asked."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Semaphore

import pytest
from unit.serving.asgi_request import GOOD, JSON, LIMITS, Server

from capnet.serving.bodies import CheckedBodies, Message, Receive, Send
from capnet.serving.request import Clock, TooSlow


@pytest.mark.parametrize("chunks", [[GOOD], [GOOD[:5], GOOD[5:]], [bytes([letter]) for letter in GOOD]])
@pytest.mark.parametrize("kind", [JSON, "application/json; charset=utf-8", "Application/JSON"])
def test_a_good_body_arrives_as_it_was_sent(chunks: list[bytes], kind: str) -> None:
    server = Server(chunks, kind)
    assert server.run() == 200
    assert server.got == [GOOD]


@pytest.mark.parametrize(
    ("size", "status"), [(20_000, 200), (20_001, 413), (1_000_000, 413)], ids=["at most", "one more", "far more"]
)
def test_a_body_has_at_most_twice_the_bytes_of_its_images(size: int, status: int) -> None:
    body = b'{"a":"' + b"x" * (size - 8) + b'"}'
    server = Server([body[start : start + 1000] for start in range(0, size, 1000)])
    assert server.run() == status
    assert server.read == -(-size // 1000), "what is refused is read to its end, so that the client gets the answer"
    assert len(server.got) == (status == 200)
    assert status == 200 or "more than 0.02 million bytes" in server.message


@pytest.mark.parametrize("part", [b"{},", b"[],", b"1,", b'{"a":[]},', b'"",'])
def test_a_body_of_very_many_parts_is_refused(part: bytes) -> None:
    marks = sum(part.count(mark) for mark in (b"{", b"[", b","))
    most = (2000 - 1) // marks  # the outer list is a part, too
    server = Server([b"[" + part * most + b"0]"])
    assert server.run() == 200, "2,000 parts are allowed"
    server = Server([b"[" + part * (most + 1) + b"0]"])
    assert server.run() == 413
    assert "more than 2000 lists, objects and commas" in server.message


@pytest.mark.parametrize("kind", [None, "", "text/csv", "application/vnd.apache.parquet", "application/jsonx", "\xff"])
def test_what_is_no_json_is_refused(kind: str | None, caplog: pytest.LogCaptureFixture) -> None:
    server = Server([GOOD], kind)
    assert server.run() == 415
    assert not server.got
    assert "Content-Type: application/json" in server.message
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("capnet")]
    assert line.startswith("answered with 415: a body of type ")
    assert "\n" not in line


@pytest.mark.parametrize("other", ["application/vnd.apache.parquet", "text/csv", "text/html"])
@pytest.mark.parametrize("is_first", [False, True])
def test_a_second_content_type_hides_no_other(other: str, is_first: bool) -> None:
    """MLflow reads the first of two headers."""
    server = Server([b"PAR1"])
    server.scope["headers"].insert(0 if is_first else 1, (b"content-type", other.encode()))
    assert server.run() == 415
    assert not server.got
    assert other in server.message


@pytest.mark.parametrize(("encoding", "status"), [("identity", 200), ("gzip", 415), ("br", 415), ("\xff", 415)])
def test_a_compressed_body_is_refused_as_such(encoding: str, status: int) -> None:
    """The answer was that it is not in UTF-8."""
    server = Server([GOOD])
    server.scope["headers"].append((b"content-encoding", encoding.encode("latin-1")))
    assert server.run() == status
    assert bool(server.got) == (status == 200)
    assert status == 200 or ("Content-Encoding" in server.message and encoding in server.message)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"\xff" * 5000, "can't decode byte 0xff"),
        ("é".encode() * 2500, "Expecting value"),
        (GOOD[:-1], "Expecting ',' delimiter"),
        (b"", "Expecting value"),
        (b"[" * 1990, ""),
        (b"9" * 5000, "5000 digits"),
    ],
    ids=["no text", "text", "cut", "empty", "deep", "digits"],
)
def test_what_does_not_parse_is_refused_in_a_few_words(body: bytes, words: str) -> None:
    """MLflow's server repeats such a body, ten bytes for each, or answers with status 500."""
    server = Server([body])
    assert server.run() == 400
    assert not server.got
    assert words in server.message
    assert len(server.message) < 300


@pytest.mark.parametrize(
    "content",
    [
        {"inputs": "a" * 1001},
        {"instances": "ü" * 600},
        "a" * 1001,
        {"inputs": ["ü" * 300, "ü" * 300, "ü" * 500]},
        {"instances": [{"image": {"b64": "ü" * 1001}}]},
        {"dataframe_records": [{"a" * 1001: "a"}]},
        {"dataframe_split": {"columns": ["ü" * 1001], "data": [["a"]]}},
        {"messages": [{"role": "user", "content": "\ud800" * 1001}]},
    ],
)
def test_long_texts_that_are_no_images_are_refused(monkeypatch: pytest.MonkeyPatch, content: object) -> None:
    """MLflow's answer repeats them, up to ten bytes for each of theirs."""
    monkeypatch.setattr("capnet.serving.bodies.LONGEST", 1000)
    server = Server([json.dumps(content).encode()])
    assert server.run() == 400
    assert not server.got
    assert "of more than 1,000 letters" in server.message
    for good in ({"dataframe_records": [{"image": "a" * 5000}] * 2}, {"inputs": {"image": ["ü" * 900]}}):
        assert Server([json.dumps(good).encode()]).run() == 200


@pytest.mark.parametrize(
    "table",
    [
        {"dataframe_records": [{f"column {number}": 1} for number in range(101)]},
        {"dataframe_records": [{f"column {number}": 1 for number in range(101)}]},
        {"instances": [{"image": {f"key {number}": 1 for number in range(99)}}]},
        {"dataframe_split": {"columns": [*range(101)], "index": [0] * 100, "data": {}}},
        {"dataframe_split": {"columns": [[*range(101)], [*range(101)]], "data": [{}] * 100}},
        {"dataframe_split": {"data": [[*range(101)], *[[]] * 100]}},
        {"dataframe_records": [[], [*range(101)], []]},
        {"dataframe_split": {"data": [{"a": [[*range(101)]]}]}},
    ],
    ids=["a name a row", "a row", "within a value", "an index", "two levels", "a long row", "a list", "a cell"],
)
def test_a_table_of_many_columns_is_refused(table: object) -> None:
    """MLflow's table has a cell for every row and every name: 196 kB of records took 6.8 GB."""
    server = Server([json.dumps(table).encode()])
    assert server.run() == 400
    assert not server.got
    assert "more than 100 columns" in server.message


def test_a_table_of_a_hundred_names_is_handed_on() -> None:
    names = {"image": "abc"} | {f"column {number}": 1 for number in range(98)}
    assert Server([json.dumps({"dataframe_records": [names, names]}).encode()]).run() == 200
    columns = {"columns": [*range(100)], "data": [[*range(100)]] * 2}
    assert Server([json.dumps({"dataframe_split": columns}).encode()]).run() == 200


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ({"instances": [{"image": "a" * 2000}] + [{"image": "a"}] * 9}, 200),
        ({"instances": [{"image": "a" * 2000}] + [{"image": "a"}] * 10}, 413),
        ({"instances": [{"image": {"b64": "a" * 2000}}] + [{"image": {"b64": "a"}}] * 10}, 413),
        ({"instances": ["a" * 2000] + ["a"] * 10}, 413),
        ({"instances": ["a" * 2000] + [1] * 10}, 413),
        ({"inputs": {"image": ["a"] * 11, "other": [["a" * 2000], ["a"] * 10]}}, 413),
        ({"inputs": {"image": ["a"] * 11, "other": "a" * 2000}}, 200),
        ({"inputs": {f"column {number}": ["a" * 1000, "a", "a"] for number in range(7)}}, 413),
        ({"dataframe_records": [{"image": "a" * 2000}] + [{"image": "a"}] * 50}, 200),
    ],
)
def test_one_long_text_of_many_makes_no_large_array(content: object, status: int) -> None:
    """Each text of a NumPy array takes as much as the longest: 4 MB of instances took 3 GB."""
    server = Server([json.dumps(content).encode()])
    assert server.run() == status
    assert len(server.got) == (status == 200)
    assert status == 200 or "more than 0.02 million letters" in server.message


def test_a_body_that_does_not_end_is_refused_in_time() -> None:
    server = Server([GOOD], ends=False)
    assert server.run() == 408
    assert "within 0.5 seconds" in server.message
    assert (b"connection", b"close") in server.answers[0]["headers"]


def test_a_whole_body_that_waits_for_a_thread_too_long_is_to_come_again_later() -> None:
    """All threads score for others: the answer was that the body is not whole, and to send a smaller one."""

    async def ask(server: Server) -> None:
        loop, free = asyncio.get_running_loop(), Event()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, free.wait)
        await CheckedBodies(server.app, LIMITS, "models:/käfer/7")(server.scope, server.receive, server.send)
        free.set()
        await busy

    server = Server([GOOD])
    asyncio.run(ask(server))
    assert server.answers[0]["status"] == 503
    assert "no turn within 0.5 seconds" in server.message
    assert not server.got


def test_the_seconds_of_a_request_begin_once_its_body_is_there() -> None:
    """They began once a thread was free: with a limit of 6 seconds and 20 clients the last answer took 26."""

    def score() -> None:
        with pytest.raises(TooSlow, match="no turn within"), Clock(LIMITS).turn(Semaphore(1)):
            raise AssertionError("its time was over")

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await asyncio.sleep(LIMITS.seconds)
        await asyncio.to_thread(score)
        await server.app(scope, receive, send)

    server = Server([GOOD])
    asyncio.run(CheckedBodies(app, LIMITS, "models:/käfer/7")(server.scope, server.receive, server.send))
    assert server.got == [GOOD]


def test_of_a_client_that_leaves_nothing_is_left() -> None:
    server = Server([GOOD, GOOD], ends=False, leaves=True)
    assert server.run() == 0
    assert not server.got


def test_what_has_no_body_is_handed_on() -> None:
    for method, kind in (("GET", "http"), ("POST", "lifespan")):
        server = Server([b"whatever"], None)
        server.scope |= {"method": method, "type": kind}
        assert server.run() == 200
        assert server.got == [b"whatever"]


@pytest.mark.parametrize(("kind", "status"), [(JSON, 200), ("text/csv", 415)])
def test_every_answer_names_the_model(kind: str, status: int) -> None:
    server = Server([GOOD], kind)
    assert server.run() == status
    assert (b"capnet-model", b"models:/k%C3%A4fer/7") in server.answers[0]["headers"]
