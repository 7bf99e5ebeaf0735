"""Answers of errors: MLflow's repeat their request, and stay in memory while a client does not read them."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server
from unit.serving.asgi_request import GOOD, JSON, LIMITS, Server

from capnet.serving.bodies import CheckedBodies, Message, Receive, Send
from capnet.serving.request import Limits


def test_an_error_of_mlflows_server_does_not_repeat_a_megabyte() -> None:
    class Model:
        metadata: Any = SimpleNamespace(get_input_schema=lambda: None, get_params_schema=lambda: None)
        _model_meta = None

        def predict(self, *arguments: object, **options: object) -> None:
            raise MlflowException.invalid_parameter_value("no image")

    server = Server([json.dumps({"inputs": {"image": "A" * 1_000_000}}).encode()])
    server.scope |= {"query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1"}
    app = CheckedBodies(scoring_server.init(Model()), Limits(), "model")
    asyncio.run(app(server.scope, server.receive, server.send))
    start, *sent = server.answers
    body = b"".join(item.get("body", b"") for item in sent)
    assert start["status"] == 400
    assert int(dict(start["headers"])[b"content-length"]) == len(body) < 20_000
    assert "no image" in json.loads(body)["message"]


@pytest.mark.parametrize("letter", ["A", '"', "ü"])
def test_an_error_does_not_repeat_the_images_of_its_request(letter: str) -> None:
    """It kept 30 MB in memory for each client that sent so much as "inputs" and never read the answer."""
    reason = "neither an image in base64 nor a file below CAPNET_SERVE_ROOT"
    message = f"Failed to predict data '{letter * 1_000_000}'. \nError: {reason}"

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        body = json.dumps({"error_code": "INVALID_PARAMETER_VALUE", "message": message}).encode()
        headers = [(b"content-length", str(len(body)).encode()), (b"content-type", JSON.encode())]
        await send({"type": "http.response.start", "status": 400, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})  # as MLflow's server sends it
        await send({"type": "http.response.body", "body": b""})

    server = Server([GOOD])
    asyncio.run(CheckedBodies(app, LIMITS, "models:/käfer/7")(server.scope, server.receive, server.send))
    start, body, end = server.answers
    assert end["body"] == b""
    headers = dict(start["headers"])
    assert (start["status"], headers[b"content-type"]) == (400, JSON.encode())
    assert int(headers[b"content-length"]) == len(body["body"]) < 100_000
    assert server.message.startswith("Failed to predict data '")
    assert server.message.endswith(f"Error: {reason}")
    assert json.loads(body["body"])["error_code"] == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize(
    "content", [b"A" * 1_000_000, b'{"detail": [{"input": "' + b"A" * 1_000_000 + b'"}]}', b"[1]" + b" " * 30_000]
)
def test_a_long_error_that_is_none_of_mlflows_is_cut_too(content: bytes) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", str(len(content)).encode()), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 422, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    server = Server([GOOD])
    asyncio.run(CheckedBodies(app, LIMITS, "model")(server.scope, server.receive, server.send))
    start, body = server.answers
    headers = dict(start["headers"])
    assert (start["status"], headers[b"content-type"]) == (422, JSON.encode())
    assert int(headers[b"content-length"]) == len(body["body"]) < 100_000
    assert server.message.startswith(content[:20].decode())


def test_an_error_in_several_parts_comes_as_it_is() -> None:
    """The length that was announced must hold."""
    parts = [b"A" * 30_000, b"B"]

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", str(sum(map(len, parts))).encode())]
        await send({"type": "http.response.start", "status": 500, "headers": headers})
        for number, part in enumerate(parts):
            await send({"type": "http.response.body", "body": part, "more_body": number == 0})

    server = Server([GOOD])
    asyncio.run(CheckedBodies(app, LIMITS, "model")(server.scope, server.receive, server.send))
    start, *sent = server.answers
    assert [item["body"] for item in sent] == parts
    assert dict(start["headers"])[b"content-length"] == b"30001"
