"""The same model over gRPC. TorchServe drops the handler's status there, so errors carry it in the body."""

from __future__ import annotations

import json
from collections.abc import Callable

import grpc
import pytest

from tests.server import grpc_client
from tests.server.conftest import Encode
from tests.server.harness import Server
from tests.server.test_inference import assert_same


@pytest.mark.parametrize("field", ["data", "body"])
def test_a_text_is_answered_as_over_http(server: Server, minilm: str, encode: Encode, field: str) -> None:
    text = "How long is a piece of string?"
    token = server.token("inference")
    answer = grpc_client.predict(server.ports[3], minilm, {field: text.encode()}, token=token)
    assert_same(json.loads(answer), encode(text))


def test_json_is_answered_as_over_http(server: Server, minilm: str, encode: Encode) -> None:
    texts = ["one", "two and a half"]
    body = json.dumps({"inputs": texts}).encode()
    token = server.token("inference")
    answers = json.loads(grpc_client.predict(server.ports[3], minilm, {"data": body}, token=token))
    for answer, text in zip(answers, texts):
        assert_same(answer, encode(text))


def test_an_error_carries_its_code_in_the_body(
    server: Server, minilm: str, text_of: Callable[[int], str]
) -> None:
    token = server.token("inference")
    body = text_of(513).encode()
    error = json.loads(grpc_client.predict(server.ports[3], minilm, {"data": body}, token=token))
    assert error["code"] == 413
    assert error["type"] == "InputTooLarge"


def test_a_call_without_its_token_is_refused(server: Server, minilm: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        grpc_client.predict(server.ports[3], minilm, {"data": b"x"}, token={})
    assert "Token Authorization failed" in str(caught.value)


def test_ping_answers(server: Server) -> None:
    assert "Healthy" in grpc_client.ping(server.ports[3], token=server.token("inference"))
