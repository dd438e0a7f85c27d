"""Which API a request speaks is told by its path; many of them share a batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import anyshape
from tests.conftest import assert_close
from tests.handler.apis.conftest import ask, error_of, sent
from tests.handler.frontend import Sent, Worker

Plain = Callable[[str], np.ndarray]


def test_a_batch_speaks_many_languages_each_in_its_place(embedder: Worker, plain_embedding: Plain) -> None:
    received = embedder.predict(
        [
            sent("v1/embeddings", {"input": "one", "model": "m"}),
            sent("embed", {"inputs": "two"}),
            sent("", {"inputs": "three"}),
            sent("embed", {"inputs": 3}),
            sent("v1/embeddings", {"input": "word " * 40}),
            sent("no/such/path", {"inputs": "x"}),
            sent("info"),
            sent("similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"]}}),
        ]
    )
    assert [each.status for each in received] == [200, 200, 200, 422, 413, 404, 200, 200]
    values = [each.json() for each in received]
    assert_close(values[0]["data"][0]["embedding"], plain_embedding("one"))
    assert_close(values[1], plain_embedding("two")[None])
    assert_close(values[2], plain_embedding("three"))
    assert set(values[3]) == {"error", "error_type"}
    assert set(values[4]["error"]) == {"message", "type", "param", "code"}
    assert set(values[5]) == {"code", "type", "message"}
    assert values[6]["model_dtype"] == "float32"
    assert_close(values[7], [plain_embedding("a") @ plain_embedding("b")])


@pytest.mark.parametrize("path", ["", "/", None])
def test_without_a_path_the_contract_is_ones_own(
    path: str | None, embedder: Worker, plain_embedding: Plain
) -> None:
    assert_close(ask(embedder, path, {"inputs": ["a", "b"]})[1], plain_embedding("b"))
    assert set(ask(embedder, path, {"input": "a"}, 422)) == {"code", "type", "message"}


@pytest.mark.parametrize("path", ["embed/", "/embed"])
def test_slashes_around_a_path_do_not_count(path: str, embedder: Worker) -> None:
    assert len(ask(embedder, path, {"inputs": ["a", "b"]})) == 2


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("v1/chat/completions", {"error"}),
        ("predict", {"error", "error_type"}),
        ("tokenize", {"error", "error_type"}),
        ("v2/models/m/ready", {"error"}),
        ("EMBED", {"code", "type", "message"}),
        ("os:system", {"code", "type", "message"}),
        ("../embed", {"code", "type", "message"}),
    ],
)
def test_an_unknown_path_is_not_found_and_the_known_ones_are_named(
    path: str, keys: set[str], embedder: Worker
) -> None:
    """In the words of whose path it is: a client shows what it knows to find."""
    for body in ({"inputs": "a"}, None, b"{"):
        (received,) = embedder.predict([sent(path, body)])
        assert received.status == 404
        assert set(received.json()) == keys
        paths = "embed, embeddings, health, infer, info, ping, similarity, v1/embeddings, v1/models"
        assert paths in error_of(received)
    if path == "v1/chat/completions":
        assert received.json()["error"]["code"] == "NotFound"


def test_each_task_names_its_own_paths(classifier: Worker, tokens: Worker) -> None:
    for worker, paths in (
        (classifier, "health, infer, info, ping, predict, rerank"),
        (tokens, "embed_all, health, "),
    ):
        (received,) = worker.predict([sent("v1/embeddings", {"input": "a"})])
        assert received.status == 404
        assert paths in error_of(received)


@pytest.mark.parametrize("path", ["v1/embeddings", "embed", "similarity", "infer"])
@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "no body"),
        (b"{", 400, "not valid JSON"),
        (b'"a text"', 422, "no JSON object"),
        (b"[]", 422, "no JSON object"),
        (b"{}", 422, "required field"),
        (b"\x1f\x8b\x08", 415, "compressed"),
    ],
)
def test_a_bad_body_is_refused_in_the_words_of_its_api(
    path: str, body: bytes, status: int, says: str, embedder: Worker
) -> None:
    (received,) = embedder.predict([sent(path, body)])
    assert received.status == status, received.body
    assert says in error_of(received)
    assert "code" not in received.json()


def test_health_and_info_need_no_body(embedder: Worker) -> None:
    assert ask(embedder, "health") == {}
    (received,) = embedder.predict([sent("info")])
    assert received.status == 200
    assert "X-Bucket" not in received.headers
    info = received.json()
    assert info["max_input_length"] == 32
    assert info["max_client_batch_size"] == 64
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert info["auto_truncate"] is False
    assert info["served_model_name"] == info["model_id"] == "small"
    assert (info["max_concurrent_requests"], info["max_batch_requests"]) == (100, 4)
    assert info["version"] == anyshape.__version__
    assert ask(embedder, "ping") == {}


def test_limits_hold_in_every_api(embedder: Worker) -> None:
    for path, body in (
        ("v1/embeddings", {"input": ["a"] * 65}),
        ("embed", {"inputs": ["a"] * 65}),
        ("similarity", {"inputs": {"source_sentence": "a", "sentences": ["a"] * 65}}),
    ):
        (received,) = embedder.predict([sent(path, body)])
        assert received.status == 413, received.body
        assert "65 inputs" in error_of(received)
    similar = {"inputs": {"source_sentence": "a", "sentences": ["b"] * 64}}
    assert len(ask(embedder, "similarity", similar)) == 64


@pytest.mark.parametrize("kind", ["text/plain;charset=UTF-8", "application/octet-stream", None])
def test_a_body_is_json_whatever_its_client_calls_it(
    kind: str | None, embedder: Worker, plain_embedding: Plain
) -> None:
    """fetch calls a string plain text, and other clients call nothing anything; a form is none."""
    raw = '{"inputs": "é"}'.encode()
    found, text = embedder.predict(
        [Sent(raw, kind, headers={"url_path": "embed"}), Sent(b"a text", kind, headers={"url_path": "embed"})]
    )
    assert_close(found.json(), plain_embedding("é")[None])
    assert (text.status, set(text.json())) == (422, {"error", "error_type"})
