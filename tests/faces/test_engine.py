"""The engine that runs one call at a time: every request its own answer, short ones before long ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from anyshape.faces.engine import Engine
from anyshape.faces.load import load_answering
from handler.answering import Answering
from handler.apis.base import Request
from tests.conftest import TextOf, assert_close
from tests.faces.cases import Case, Got, bad, compare, good
from tests.handler.frontend import Sent, Worker

Plain = Callable[[str], np.ndarray]


@pytest.fixture(scope="module")
def answering(embedding_archive: Path) -> Answering:
    return load_answering(embedding_archive, 1)


@pytest.fixture
def engine(answering: Answering) -> Iterator[Engine]:
    engine = Engine(answering)
    yield engine
    engine.close()


def asked(answering: Answering, text: str) -> Request:
    return answering.read({"body": text}, "text/plain", "")


def test_every_request_gets_its_own_answer(
    engine: Engine, answering: Answering, text_of: TextOf, plain_embedding: Plain
) -> None:
    texts = [text_of(2 + i * 11 % 31, seed=i) for i in range(80)] + [text_of(40)]
    futures = [engine.submit(asked(answering, text)) for text in texts]
    responses = [future.result(60) for future in futures]
    assert responses[-1].code == 413
    for text, response in zip(texts[:-1], responses):
        assert response.code == 200
        assert_close(orjson.loads(response.body), plain_embedding(text))


def test_lists_with_a_bad_input_are_refused_whole_and_alone(
    engine: Engine, answering: Answering, text_of: TextOf
) -> None:
    row = {"body": {"inputs": ["a", text_of(40)]}}
    refused = engine.submit(answering.read(row, "application/json", ""))
    fine = engine.submit(answering.read({"body": {"inputs": ["a", "b"]}}, "application/json", ""))
    assert refused.result(60).code == 413
    assert b"inputs[1]" in refused.result().body
    assert len(orjson.loads(fine.result(60).body)) == 2


def test_an_answer_leaves_as_its_call_ends(
    answering: Answering, text_of: TextOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls are held back; a short text that comes while a long one runs goes before other long ones."""
    ran: list[tuple[int, ...]] = []
    started, go = threading.Event(), threading.Semaphore(0)
    run_call = answering.model.run_call

    def held(call: Any, items: Any) -> Any:
        ran.append(tuple(item.size[0] for item in items))
        started.set()
        assert go.acquire(timeout=60)
        return run_call(call, items)

    monkeypatch.setattr(answering.model, "run_call", held)
    engine = Engine(answering)
    long = [engine.submit(asked(answering, text_of(32, seed=i))) for i in range(9)]
    assert started.wait(60)
    time.sleep(0.05)
    short = engine.submit(asked(answering, text_of(3)))
    go.release()  # the call that was under way
    go.release()  # and one more
    deadline = time.monotonic() + 60
    while len(ran) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    done = [future for future in [*long, short] if future.done()]
    assert 0 < len(done) < 10, "some answers have left, and some have not"
    for _ in range(20):
        go.release()
    assert all(future.result(60).code == 200 for future in [*long, short])
    engine.close()
    assert sum(map(len, ran)) == 10


def test_a_call_that_fails_fails_its_own_requests(
    answering: Answering, text_of: TextOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_call = answering.model.run_call

    def fails(call: Any, items: Any) -> Any:
        if any(item.size == (31,) for item in items):
            raise RuntimeError("out of memory")
        return run_call(call, items)

    monkeypatch.setattr(answering.model, "run_call", fails)
    engine = Engine(answering)
    futures = [engine.submit(asked(answering, text_of(n))) for n in (30, 31, 32, 5)]
    assert [future.result(60).code for future in futures] == [200, 500, 200, 200]
    engine.close()


def test_a_panic_ends_no_thread(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        pass

    def panics(*_: Any) -> Any:
        raise Panic

    engine = Engine(answering)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answering.model.task, "read", panics)
        assert engine.submit(asked(answering, "a")).result(60).code == 500
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answering.model, "run_call", panics)
        assert engine.submit(asked(answering, "a")).result(60).code == 500
    assert engine.alive
    assert engine.submit(asked(answering, "a")).result(60).code == 200
    engine.close()


def test_more_than_may_wait_are_refused_at_once(
    answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    run_call = answering.model.run_call
    monkeypatch.setattr(answering.model, "run_call", lambda *a: go.wait(60) and run_call(*a))
    engine = Engine(answering, waiting=2)
    held = [engine.submit(asked(answering, "a")) for _ in range(2)]
    full = engine.submit(asked(answering, "a")).result(60)
    assert full.code == 503
    assert full.headers["Retry-After"] == "1"
    assert orjson.loads(full.body)["type"] == "Unavailable"
    go.set()
    assert [future.result(60).code for future in held] == [200, 200]
    assert engine.submit(asked(answering, "a")).result(60).code == 200
    engine.close()


@pytest.mark.cluster
def test_it_says_what_torchserves_worker_says(
    engine: Engine, answering: Answering, embedding_archive_folder: Path, text_of: TextOf, tmp_path: Path
) -> None:
    """Every good and bad case through TorchServe's own worker code, and through the engine."""
    worker = Worker(embedding_archive_folder)
    answering.served.name = "small"
    for case in [*good(text_of, 10), *bad(text_of)]:
        compare(case, through_engine(engine, case), through_worker(worker, case))


def through_worker(worker: Worker, case: Case) -> Got:
    request = Sent(case.body, case.content_type, {"url_path": case.path})
    if case.content_type.endswith("urlencoded"):
        request.parameters = [("inputs", "", b"a"), ("b", "", b"c")]
    (received,) = worker.predict([request])
    return Got(received.status, received.json(), received.headers)


def through_engine(engine: Engine, case: Case) -> Got:
    from anyshape.faces.rows import decoded, mime_type

    kind = mime_type(case.content_type)
    row: Any = {"body": decoded(case.body, kind)}
    if case.content_type.endswith("urlencoded"):
        row = {"inputs": b"a", "b": b"c"}
    response = engine.submit(engine.answering.read(row, case.content_type, case.path)).result(60)
    return Got(response.code, orjson.loads(response.body), response.headers)
