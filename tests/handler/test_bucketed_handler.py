from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from anyshape.errors import ConfigError
from anyshape.model import BucketedModel
from tests.conftest import EDGES, LABELS, TextOf, assert_close, unpacked
from tests.handler.frontend import Received, Sent, Worker

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def folder(embedding_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(embedding_archive, tmp_path_factory.mktemp("worker"))


@pytest.fixture(scope="module")
def shared(folder: Path) -> Worker:
    return Worker(folder)


@pytest.fixture(scope="module")
def classifier(classification_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return Worker(unpacked(classification_archive, tmp_path_factory.mktemp("classifier")))


@pytest.fixture
def worker(shared: Worker) -> Any:
    """A worker whose model is as it was after the test."""
    handler, model = shared.handler, shared.handler.model
    settings, loaded = model.settings, model.programs.loaded
    yield shared
    handler.settings = model.settings = model.task.settings = settings
    model.programs.loaded = loaded


def sent_json(value: Any, **options: Any) -> Sent:
    return Sent(json.dumps(value).encode(), JSON, **options)


def refused(received: Received, status: int, says: str = "") -> None:
    """An error of this status, in the status line and in the body, as JSON."""
    body = received.json()
    assert (received.status, body["code"]) == (status, status), body
    assert set(body) == {"code", "type", "message"}
    assert says in body["message"]
    assert received.headers["content-type"] == JSON
    assert received.phrase


# Good requests


@pytest.mark.parametrize("length", EDGES)
def test_a_text_is_answered_with_headers_that_say_how(
    length: int, worker: Worker, text_of: TextOf, plain_embedding: Callable[..., np.ndarray]
) -> None:
    (received,) = worker.predict([Sent(text_of(length).encode())])
    assert received.status == 200
    assert_close(received.json(), plain_embedding(text_of(length)))
    bucket = int(received.headers["X-Bucket"])
    assert bucket >= length
    assert received.headers["X-Batch-Size"] == "1"
    assert received.headers["X-Padding-Ratio"] == f"{bucket / length:.3f}"
    assert received.headers["content-type"] == JSON
    assert "X-Truncated" not in received.headers


def test_a_list_is_answered_with_a_list(
    worker: Worker, text_of: TextOf, plain_embedding: Callable[..., np.ndarray]
) -> None:
    texts = [text_of(length) for length in (31, 2, 9, 5, 16)]
    (received,) = worker.predict([sent_json({"inputs": texts})])
    assert len(received.json()) == len(texts)
    for found, text in zip(received.json(), texts):
        assert_close(found, plain_embedding(text))
    assert len(received.headers["X-Bucket"].split(",")) == 5
    (one,) = worker.predict([sent_json({"inputs": texts[:1]})])
    assert np.shape(one.json()) == (1, 16)


def test_pairs_and_parameters(classifier: Worker) -> None:
    pair = {"text": "a man eats", "text_pair": "a man is eating"}
    best, of_inputs, all_of_them, listed = classifier.predict(
        [
            sent_json(pair),
            sent_json({"inputs": pair}),
            sent_json({**pair, "parameters": {"top_k": None}}),
            sent_json({"inputs": [pair], "parameters": {"top_k": 2, "function_to_apply": "none"}}),
        ]
    )
    assert best.json() == of_inputs.json()
    assert all_of_them.json()[0]["label"] == best.json()["label"]
    assert {answer["label"] for answer in all_of_them.json()} == set(LABELS)
    assert [len(answers) for answers in listed.json()] == [2]


@pytest.mark.parametrize("name", ["Content-Type", "content-type", "CONTENT-TYPE"])
def test_header_names_have_no_case(name: str, worker: Worker) -> None:
    malformed = Sent(b'{"inputs": ', None, {name: JSON}, parameters=[("body", JSON, b'{"inputs": ')])
    (received,) = worker.predict([malformed])
    refused(received, 400, "not valid JSON")


# Bad requests, each in its own place

GRPC_LIKE = Sent(b'{"inputs": "a text"}', None)
BAD = {
    "malformed JSON": (Sent(b'{"inputs": ', JSON), 400),
    "empty JSON": (Sent(b"", JSON), 400),
    "BOM": (Sent(b'\xef\xbb\xbf"a"', JSON), 400),
    "too deep": (Sent(b"[" * 100_000, JSON), 400),
    "deep": (Sent(b"[" * 900 + b"]" * 900, JSON), 422),
    "deep parameter": (
        Sent(b'{"inputs": "a", "parameters": {"truncation": ' + b"[" * 900 + b"]" * 900 + b"}}", JSON),
        422,
    ),
    "not UTF-8": (Sent(b"\xff", "text/plain"), 400),
    "no body": (Sent(parameters=[], content_type=None), 400),
    "no body and no type": (Sent(b"", None), 400),
    "no inputs": (Sent(b'{"inputs": []}', JSON), 400),
    "a description": (Sent(b"", None, {"describe": "True", "Host": "here"}), 400),
    "a reset": (Sent(b"", None, {"describe": "reset"}), 400),
    "gzip": (Sent(b"\x1f\x8b\x08", JSON), 415),
    "form": (Sent(parameters=[], content_type="application/x-www-form-urlencoded"), 415),
    "bytes": (Sent(b"\x00\x01", "application/octet-stream"), 415),
    "null": (Sent(b"null", JSON), 422),
    "number": (Sent(b"0", JSON), 422),
    "NaN": (Sent(b"NaN", JSON), 422),
    "list": (Sent(b"[]", JSON), 422),
    "object": (Sent(b"{}", JSON), 422),
    "false input": (Sent(b'{"inputs": false}', JSON), 422),
    "null input": (Sent(b'{"inputs": null}', JSON), 422),
    "one of several": (Sent(b'{"inputs": ["a", null]}', JSON), 422),
    "unknown key": (Sent(b'{"inputs": "a", "speed": 1}', JSON), 422),
    "surrogate": (Sent(b'{"inputs": "\\ud83d"}', JSON), 422),
    "surrogate key": (Sent(b'{"inputs": "a", "\\ud83d": 1}', JSON), 422),
    "surrogate parameter": (Sent(b'{"inputs": "a", "parameters": {"\\ud83d": 1}}', JSON), 422),
    "parameter": (Sent(b'{"inputs": "a", "parameters": {"truncation": 1}}', JSON), 422),
    "too long": (Sent(b"a " * 50, "text/plain"), 413),
    "too many": (Sent(json.dumps({"inputs": ["a"] * 65}).encode(), JSON), 413),
    "too many characters": (Sent(b"a" * 100_001, "text/plain"), 413),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_has_its_own_status_and_its_neighbours_are_served(
    name: str, worker: Worker, plain_embedding: Callable[..., np.ndarray]
) -> None:
    bad, status = BAD[name]
    before, between, after = worker.predict([Sent(b"one"), bad, GRPC_LIKE])
    refused(between, status)
    assert (before.status, after.status) == (200, 200)
    assert_close(before.json(), plain_embedding("one"))
    assert_close(after.json(), plain_embedding("a text"))


@settings(max_examples=25, deadline=None)
@given(kinds=st.lists(st.sampled_from(sorted(BAD)) | st.integers(2, 32), min_size=1, max_size=16))
def test_every_request_is_answered_once_and_in_its_own_place(
    kinds: list[Any], shared: Worker, text_of: TextOf, plain_embedding: Callable[..., np.ndarray]
) -> None:
    batch = [BAD[kind][0] if isinstance(kind, str) else Sent(text_of(kind).encode()) for kind in kinds]
    answers = shared.predict(batch)
    assert len(answers) == len(kinds)
    for received, kind in zip(answers, kinds):
        if isinstance(kind, str):
            refused(received, BAD[kind][1])
        else:
            assert received.status == 200
            assert_close(received.json(), plain_embedding(text_of(kind)))


keys = st.sampled_from(["inputs", "parameters", "text", "text_pair", "truncation", "top_k"]) | st.text(
    max_size=3
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
bodies = st.binary(max_size=40) | anything.map(lambda value: json.dumps(value).encode())
kinds_of_body = st.sampled_from(
    [
        None,
        JSON,
        "application/json; charset=utf-8",
        "text/plain",
        "multipart/form-data; boundary=x",
        "image/png",
    ]
)


@settings(max_examples=150, deadline=None)
@given(bodies=st.lists(st.tuples(bodies, kinds_of_body), min_size=1, max_size=4))
def test_no_body_whatever_harms_the_batch(
    bodies: list[tuple[bytes, str | None]], classifier: Worker, classification: BucketedModel
) -> None:
    batch = [Sent(b"a text"), *(Sent(body, kind) for body, kind in bodies)]
    first, *others = classifier.predict(batch)
    assert first.json() == pytest.approx(classification("a text"))
    for received in others:
        if received.status == 200:
            received.json()
        else:
            refused(received, received.status)
            assert received.status in (400, 413, 415, 422)


def test_the_limit_and_the_length_are_named(worker: Worker, text_of: TextOf) -> None:
    one, other = worker.predict(
        [Sent(text_of(33).encode()), sent_json({"inputs": ["fine", text_of(40)]})],
    )
    refused(one, 413, "33 tokens")
    refused(one, 413, "takes 32")
    refused(other, 413, "inputs[1]: the input has 40 tokens")


def test_a_text_that_was_cut_says_so(worker: Worker, text_of: TextOf) -> None:
    inputs = [text_of(5), text_of(40)]
    (received,) = worker.predict([sent_json({"inputs": inputs, "parameters": {"truncation": True}})])
    assert received.status == 200
    assert received.headers["X-Truncated"] == "1: 40 tokens to 32"


def test_an_answer_too_large_is_refused_alone(worker: Worker) -> None:
    worker.handler.settings = replace(worker.handler.settings, max_response_bytes=600)
    small, large = worker.predict([Sent(b"one"), sent_json({"inputs": ["one"] * 8})])
    assert small.status == 200
    refused(large, 413, "limit of 600")


def test_a_model_that_fails_fails_only_what_ran_in_that_call(worker: Worker, text_of: TextOf) -> None:
    def broken(*tensors: Any) -> Any:
        raise RuntimeError("secret")

    model = worker.handler.model
    model.settings = replace(model.settings, packing="one_by_one")
    model.programs.loaded = {**model.programs.loaded, "16": broken}
    batch = [Sent(text_of(length).encode()) for length in (4, 16, 32)]
    first, second, third = worker.predict([*batch])
    assert (first.status, third.status) == (200, 200)
    refused(second, 500, "bucket 16")
    assert b"secret" not in second.body


def test_a_model_that_answers_nan_fails_that_request_alone(worker: Worker, text_of: TextOf) -> None:
    model = worker.handler.model
    whole = model.programs.loaded["32"]

    def some_nan(*tensors: Any) -> Any:
        (output,) = whole(*tensors)
        output = output.clone()
        output[0] = float("nan")
        return (output,)

    model.programs.loaded = {**model.programs.loaded, "32": some_nan}
    model.settings = replace(model.settings, packing="fifo")
    first, second = worker.predict([Sent(text_of(32).encode()), Sent(text_of(31).encode())])
    refused(first, 500, "not a number")
    assert second.status == 200


def test_an_answer_that_cannot_be_made_fails_that_request_alone(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = worker.handler.model.task.answer

    def sometimes(row: Any, item: Any, parameters: Any) -> Any:
        return object() if item.size == (4,) else answer(row, item, parameters)

    monkeypatch.setattr(worker.handler.model.task, "answer", sometimes)
    first, second = worker.predict([Sent(b"two words"), Sent(b"one")])
    refused(first, 500)
    assert second.status == 200


def test_a_request_that_cannot_be_read_at_all_fails_alone(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def check(parameters: Any) -> Any:
        if "odd" in parameters:
            raise RuntimeError("nobody thought of this, and it quotes a client")
        return {}

    monkeypatch.setattr(worker.handler.model.task, "check_parameters", check)
    first, second = worker.predict([sent_json({"inputs": "a", "parameters": {"odd": 1}}), Sent(b"one")])
    refused(first, 400)
    assert second.status == 200
    (line,) = [line for line in caplog.text.splitlines() if line]
    assert "RuntimeError at test_bucketed_handler.py" in line
    assert "quotes a client" not in line


# describe and explain


# As the management API asks: with an empty row, and whatever headers its client sent.
ASKED = Sent(parameters=[], content_type=None, headers={"describe": "True", "Host": "here"})


def test_describe(worker: Worker, text_of: TextOf) -> None:
    before = Counter({tuple(size): n for size, n in worker.predict([ASKED])[0].json()["seen"]})
    worker.predict([Sent(text_of(length).encode()) for length in (5, 9, 5)])
    (received,) = worker.predict([ASKED])
    described = received.json()
    assert received.status == 200
    assert described["buckets"] == [[4], [8], [16], [32]]
    after = Counter({tuple(size): n for size, n in described["seen"]})
    assert after - before == {(5,): 2, (9,): 1}
    assert datetime.fromisoformat(described["seen_since"].replace("Z", "+00:00")) < datetime.now(timezone.utc)
    assert worker.predict([ASKED])[0].json()["seen"] == described["seen"]


@pytest.mark.parametrize("value", ["True", "reset"])
@pytest.mark.parametrize("content_type", [None, JSON])
def test_a_client_gets_no_description_and_erases_nothing(
    value: str, content_type: str | None, worker: Worker
) -> None:
    worker.predict([Sent(b"one")])
    before = worker.predict([ASKED])[0].json()["seen"]
    headers = {"describe": value, "Host": "here", "Authorization": "Bearer inference"}
    refused(worker.predict([Sent(b"", content_type, headers)])[0], 400)
    refused(worker.predict([Sent(parameters=[], content_type=FORM, headers=headers)])[0], 415)
    (empty,) = worker.predict([Sent(parameters=[], content_type="text/plain", headers=headers)])
    assert np.shape(empty.json()) == (16,)  # the empty text, as it says
    assert before
    after = worker.predict([ASKED])[0].json()["seen"]
    assert {tuple(size) for size, _ in before} <= {tuple(size) for size, _ in after}


def test_an_empty_file_of_counts_leaves_the_description_whole(worker: Worker) -> None:
    empty = worker.handler.traffic.folder / "seen-1-1.i64"
    empty.touch()
    worker.predict([Sent(b"one")])
    described = worker.predict([ASKED])[0].json()
    empty.unlink()
    assert described["seen"]


@pytest.mark.parametrize("header", ["describe", "explain"])
@pytest.mark.parametrize("body", [b"a text", b"5", b"false"])
def test_a_header_on_a_prediction_changes_nothing(header: str, body: bytes, worker: Worker) -> None:
    kind = "text/plain" if body == b"a text" else JSON
    plain, marked = Sent(body, kind), Sent(body, kind, {header: "True"})
    (alone,) = worker.predict([marked])
    assert alone.body == worker.predict([plain])[0].body
    first, second = worker.predict([marked, plain])
    assert first.body == second.body


def test_explain_of_nothing_is_a_request_without_a_body(worker: Worker) -> None:
    (received,) = worker.predict([Sent(parameters=[], content_type=None, headers={"explain": "True"})])
    refused(received, 400)


# Loading


def test_a_worker_serves_what_the_engine_serves(worker: Worker, embedding: BucketedModel) -> None:
    (received,) = worker.predict([Sent(b"a text")])
    assert_close(received.json(), embedding("a text"))


def test_a_worker_warms_every_shape_before_it_is_ready(shared: Worker) -> None:
    assert shared.handler.initialized
    assert len(shared.handler.model.costs.rows()) == 12
    assert {row.seconds for row in shared.handler.model.costs.rows()}.isdisjoint({0})


def test_a_worker_that_had_to_measure_keeps_the_costs_for_the_next(
    embedding_archive: Path, tmp_path: Path
) -> None:
    folder = unpacked(embedding_archive, tmp_path)
    index = json.loads((folder / "buckets.json").read_text())
    index["measured_on"]["cpu"] = "another"
    (folder / "buckets.json").write_text(json.dumps(index))
    first = Worker(folder).handler.model
    assert first.describe()["costs_from"] == "this start"
    kept = json.loads((folder / "costs.json").read_text())
    assert kept["measured_on"] == first.conditions
    assert {row["seconds"] for row in kept["costs"]} == {row.seconds for row in first.costs.rows()}


def test_an_archive_that_does_not_fit_never_becomes_ready(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "models" / "buckets.pt").write_bytes(b"something else")
    with pytest.raises(ConfigError, match=r"buckets\.pt is damaged"):
        Worker(copy)


def test_a_recipe_without_our_section_is_refused(folder: Path) -> None:
    recipe = yaml.safe_load((folder / "model-config.yaml").read_text(encoding="utf-8"))
    del recipe["handler"]
    with pytest.raises(ConfigError, match="handler:"):
        Worker(folder, recipe)
