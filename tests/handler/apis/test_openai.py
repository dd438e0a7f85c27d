from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import TextOf, assert_close
from tests.handler.apis.conftest import ask, sent
from tests.handler.frontend import Worker

Plain = Callable[[str], np.ndarray]
PATH = "v1/embeddings"


@pytest.mark.parametrize("path", [PATH, "embeddings"])
def test_a_text_or_a_list_is_answered_with_a_list(
    path: str, embedder: Worker, text_of: TextOf, plain_embedding: Plain
) -> None:
    texts = [text_of(20), text_of(5), text_of(32)]
    for given, expected in ((texts[0], texts[:1]), (texts[:1], texts[:1]), (texts, texts)):
        answer = ask(embedder, path, {"input": given, "model": "some-name", "user": "somebody"})
        assert set(answer) == {"object", "data", "model", "usage"}
        assert (answer["object"], answer["model"]) == ("list", "some-name")
        assert [row["index"] for row in answer["data"]] == list(range(len(expected)))
        assert {row["object"] for row in answer["data"]} == {"embedding"}
        for row, text in zip(answer["data"], expected):
            assert_close(row["embedding"], plain_embedding(text))
    assert answer["usage"] == {"prompt_tokens": 57, "total_tokens": 57}


def test_usage_counts_each_token_of_a_text_once(
    built: Callable[..., Worker], encoder_folder: Path, text_of: TextOf
) -> None:
    """Not its padding, and not again where windows overlap; of a text that is cut, what is left."""
    options = {"over_max": "window", "task_options": {"stride": 6}, "buckets": [16, 32]}
    worker = built("windows", task="sentence-embedding", model=str(encoder_folder), **options)
    (received,) = worker.predict([sent(PATH, {"input": [text_of(90), text_of(5)]})])
    assert received.headers["X-Windows"] == "4,1"
    assert received.json()["usage"] == {"prompt_tokens": 95, "total_tokens": 95}


def test_the_model_can_be_listed(embedder: Worker) -> None:
    (model,) = ask(embedder, "v1/models")["data"]
    assert (model["id"], model["object"]) == ("small", "model")


def test_base64_holds_the_same_numbers(embedder: Worker, plain_embedding: Plain) -> None:
    body = {"input": ["one", "and another"], "model": "m"}
    plain = ask(embedder, PATH, {**body, "encoding_format": "float"})["data"]
    coded = ask(embedder, PATH, {**body, "encoding_format": "base64"})["data"]
    for row, code in zip(plain, coded):
        vector = np.frombuffer(base64.b64decode(code["embedding"]), "<f4")
        np.testing.assert_array_equal(vector, np.asarray(row["embedding"], np.float32))
    assert_close(plain[1]["embedding"], plain_embedding("and another"))


@pytest.mark.parametrize("dimensions", [1, 5, 16])
def test_a_vector_that_is_cut_has_length_one_again(
    dimensions: int, embedder: Worker, plain_embedding: Plain
) -> None:
    answer = ask(embedder, PATH, {"input": "a text", "dimensions": dimensions})
    cut = plain_embedding("a text")[:dimensions]
    assert_close(answer["data"][0]["embedding"], cut / np.linalg.norm(cut))


def test_the_model_is_named_where_the_request_does_not(embedder: Worker) -> None:
    assert ask(embedder, PATH, {"input": "a"})["model"] == "small"


BAD: dict[str, tuple[dict[str, Any], int, str | None, str]] = {
    "ids": ({"input": [101, 2023]}, 422, "input", "check_embedding_ctx_length=False"),
    "lists of ids": ({"input": [[101], [102, 7]]}, 422, "input", "token ids"),
    "an empty list of ids": ({"input": [[]]}, 422, "input", "token ids"),
    "a number": ({"input": 5}, 422, "input", "token ids"),
    "null": ({"input": None}, 422, "input", "not a text"),
    "null in a list": ({"input": ["a", None]}, 422, "input", "input[1] is not a text"),
    "an object": ({"input": {"text": "a"}}, 422, "input", "not a text"),
    "none": ({"input": []}, 400, None, "empty list"),
    "no input": ({"inputs": "a"}, 422, None, "input"),
    "unknown": ({"input": "a", "colour": 1}, 422, None, "colour"),
    "format": ({"input": "a", "encoding_format": "hex"}, 422, "encoding_format", "hex"),
    "too many dimensions": ({"input": "a", "dimensions": 17}, 422, "dimensions", "16"),
    "no dimensions": ({"input": "a", "dimensions": 0}, 422, "dimensions", ">= 1"),
    "half a dimension": ({"input": "a", "dimensions": 1.5}, 422, "dimensions", "int"),
    "user": ({"input": "a", "user": 5}, 422, "user", "str"),
    "surrogate": ({"input": ["a", "\ud800"]}, 422, None, "input[1]: the text has half"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_in_openais_shape(name: str, embedder: Worker) -> None:
    body, status, param, says = BAD[name]
    error = ask(embedder, PATH, body, status)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["code"] == (
        "BadRequest" if status == 400 else "WrongField" if name != "surrogate" else "UnprocessableInput"
    )
    assert says in error["message"]


def test_too_long_a_text_is_refused_without_words_of_another_api(embedder: Worker, text_of: TextOf) -> None:
    error = ask(embedder, PATH, {"input": ["a", text_of(40)]}, 413)["error"]
    assert error["message"] == (
        "input[1]: the input has 40 tokens, and the largest bucket takes 32: shorten it"
    )


def test_a_model_that_fails_is_a_server_error(embedder: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("no answer")

    monkeypatch.setattr(embedder.handler.model, "run_call", fail)
    (received,) = embedder.predict([sent(PATH, {"input": "a"})])
    assert received.status == 500
    assert received.json()["error"]["type"] == "server_error"
