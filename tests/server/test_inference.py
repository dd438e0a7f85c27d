"""Texts of any length through a real server: the answers of the unpadded model, and honest refusals."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.server.conftest import Encode
from tests.server.harness import Server

TextOf = Callable[[int], str]
TEXTS = ["", "Hi", "Zażółć gęślą jaźń 🙂", "line one\nline two", "[MASK] [SEP]", "  spaces  ", "日本語"]


def assert_same(answer: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.array(answer, dtype=np.float32), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("tokens", [2, 3, 15, 16, 17, 63, 64, 65, 127, 128, 129, 300, 511, 512])
def test_every_length_is_answered_as_by_the_unpadded_model(
    server: Server, minilm: str, encode: Encode, text_of: TextOf, tokens: int
) -> None:
    response = server.predict_text(minilm, text_of(tokens))
    assert response.status_code == 200, server.explain(response)
    assert response.headers["content-type"].startswith("application/json")
    assert_same(response.json(), encode(text_of(tokens)))


@pytest.mark.parametrize("text", TEXTS)
def test_unusual_texts_are_answered_as_by_the_unpadded_model(
    server: Server, minilm: str, encode: Encode, text: str
) -> None:
    response = server.predict(minilm, json={"inputs": text})
    assert response.status_code == 200, server.explain(response)
    assert_same(response.json(), encode(text))


@pytest.mark.parametrize(("tokens", "bucket"), [(16, 16), (17, 64), (55, 64), (112, 128), (513 - 1, 512)])
def test_the_smallest_bucket_that_contains_the_text_is_taken(
    server: Server, minilm: str, text_of: TextOf, tokens: int, bucket: int
) -> None:
    response = server.predict_text(minilm, text_of(tokens))
    assert response.headers["X-Bucket"] == str(bucket)
    assert int(response.headers["X-Batch-Size"]) >= 1
    # Positions that were run, for each one that the text has.
    assert float(response.headers["X-Padding-Ratio"]) == pytest.approx(bucket / tokens, abs=1e-3)


def test_text_plain_a_json_string_and_inputs_are_the_same_question(
    server: Server, minilm: str, encode: Encode
) -> None:
    text = "How long is a piece of string?"
    expected = encode(text)
    bodies: list[dict[str, Any]] = [
        {"content": text, "headers": {"Content-Type": "text/plain"}},
        {"content": json.dumps(text), "headers": {"Content-Type": "application/json"}},
        {"json": {"inputs": text}},
        {"json": {"inputs": text, "parameters": {}}},
    ]
    for body in bodies:
        response = server.predict(minilm, **body)
        assert response.status_code == 200, server.explain(response)
        assert_same(response.json(), expected)


def test_a_list_of_texts_is_answered_in_its_order(
    server: Server, minilm: str, encode: Encode, text_of: TextOf
) -> None:
    texts = [text_of(length) for length in (100, 5, 400, 20, 5, 64)]
    response = server.predict(minilm, json={"inputs": texts})
    assert response.status_code == 200, server.explain(response)
    answers = response.json()
    assert len(answers) == len(texts)
    for answer, text in zip(answers, texts):
        assert_same(answer, encode(text))


BAD_BODIES: list[tuple[str, dict[str, Any], int]] = [
    ("malformed JSON", {"content": b"{", "headers": {"Content-Type": "application/json"}}, 400),
    ("not UTF-8", {"content": b"\xff\xfe", "headers": {"Content-Type": "text/plain"}}, 400),
    ("a picture", {"content": b"\x89PNG", "headers": {"Content-Type": "image/png"}}, 415),
    ("no inputs", {"json": {"input": "a typing error"}}, 422),
    ("a number", {"json": {"inputs": 17}}, 422),
    ("unknown parameter", {"json": {"inputs": "x", "parameters": {"colour": 1}}}, 422),
    ("no body", {}, 400),
    ("no inputs", {"json": {"inputs": []}}, 400),
    ("too much", {"json": {"inputs": ["word " * 20_000] * 60}}, 413),
]


@pytest.mark.parametrize(("what", "body", "code"), BAD_BODIES, ids=[row[0] for row in BAD_BODIES])
def test_a_bad_body_gets_its_own_status_and_says_why(
    server: Server, minilm: str, what: str, body: dict[str, Any], code: int
) -> None:
    response = server.predict(minilm, **body)
    assert response.status_code == code, server.explain(response)
    error = response.json()
    assert error["code"] == code
    assert error["type"]
    assert error["message"]


def test_a_get_is_a_request_without_a_body(server: Server, minilm: str) -> None:
    url = f"{server.torchserve.inference}/predictions/{minilm}"
    for query in ("", "?truncation=true"):
        response = server.http.get(url + query, headers=server.token("inference"))
        assert response.status_code == 400, server.explain(response)
        assert "no body" in response.json()["message"]


def test_513_tokens_are_refused_with_the_limit_and_the_length(
    server: Server, minilm: str, text_of: TextOf
) -> None:
    response = server.predict_text(minilm, text_of(513))
    assert response.status_code == 413, server.explain(response)
    error = response.json()
    assert error["code"] == 413
    assert error["type"] == "InputTooLarge"
    assert "512" in error["message"]
    assert "513" in error["message"]


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic abc", "Bearer"])
def test_a_request_without_its_token_is_refused(
    server: Server, minilm: str, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    for url in (f"{server.torchserve.inference}/predictions/{minilm}", f"{server.torchserve.inference}/ping"):
        assert server.http.post(url, content=b"x", headers=headers).status_code == 400
    response = server.http.get(f"{server.torchserve.management}/models", headers=headers)
    assert response.status_code == 400


def test_the_management_key_opens_no_prediction(server: Server, minilm: str) -> None:
    url = f"{server.torchserve.inference}/predictions/{minilm}"
    response = server.http.post(url, content=b"x", headers=server.token("management"))
    assert response.status_code == 400


def test_base64_text_is_just_a_text(server: Server, minilm: str, encode: Encode) -> None:
    text = base64.b64encode(b"How long is a piece of string?").decode()
    response = server.predict(minilm, json={"inputs": text})
    assert_same(response.json(), encode(text))
