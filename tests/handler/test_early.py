"""Answers that leave before their batch ends, as the bytes that the frontend reads."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from anyshape.costs import CostTable
from anyshape.errors import ConfigError
from anyshape.recipe import Recipe
from handler.early import SentIds
from tests.conftest import TextOf, assert_close, unpacked
from tests.handler.frontend import Received, Sent, Worker, read_message

LONG, SHORT, MIDDLE = 30, 3, 12  # tokens; each runs in a bucket of its own


class Socket:
    """The worker's connection to the frontend: what was sent by it before a batch ended."""

    def __init__(self) -> None:
        self.sent: list[list[tuple[str, Received]]] = []

    def sendall(self, message: bytes) -> None:
        self.sent.append(read_message(message))


@pytest.fixture(scope="module")
def shared(embedding_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    folder = unpacked(embedding_archive, tmp_path_factory.mktemp("early"))
    recipe = yaml.safe_load((folder / "model-config.yaml").read_text(encoding="utf-8"))
    recipe["handler"].update(early_answers=True, packing="one_by_one")
    worker = Worker(folder, recipe)
    index = worker.handler.model.index  # longer texts cost more, whatever disturbs the machine
    worker.handler.model.costs = CostTable.by_volume(index.shapes, dynamic_batch=index.dynamic_batch)
    return worker


@pytest.fixture
def socket(shared: Worker, monkeypatch: pytest.MonkeyPatch) -> Socket:
    monkeypatch.setattr("handler.early.WORTH", 0.0)  # the tests' models take microseconds
    socket = Socket()
    shared.service.set_cl_socket(socket)
    return socket


@pytest.fixture
def worker(shared: Worker, socket: Socket) -> Worker:
    return shared


@pytest.fixture
def sent(text_of: TextOf) -> Callable[..., Sent]:
    def sent(tokens: int, host: str | None = "here", **headers: str) -> Sent:
        said = {**({"Host": host} if host else {}), **headers}
        return Sent(text_of(tokens).encode(), headers=said, id=str(uuid.uuid4()))

    return sent


def test_each_answer_leaves_as_its_call_ends_and_the_last_with_the_batch(
    worker: Worker,
    socket: Socket,
    sent: Callable[..., Sent],
    text_of: TextOf,
    plain_embedding: Callable[..., np.ndarray],
) -> None:
    batch = [sent(LONG), sent(SHORT), sent(MIDDLE)]
    ended = read_message(worker.predict_bytes(batch))
    left = []
    for message in socket.sent:
        (first, answer), (second, end) = message
        assert first == second
        assert (answer.status, answer.headers["ts_stream_next"]) == (200, "true")
        assert (end.body, end.headers["ts_stream_next"]) == (b"", "false")
        assert "\r\nConnection: close" in answer.headers["X-Early-Answer"]
        left.append((first, answer))
    assert [each for each, _ in left] == [batch[1].id, batch[2].id]
    assert [each for each, _ in ended] == [batch[0].id]
    assert not {"ts_stream_next", "X-Early-Answer"} & set(ended[0][1].headers)
    for (_, answer), tokens in zip(left + ended, (SHORT, MIDDLE, LONG)):
        assert_close(answer.json(), plain_embedding(text_of(tokens)))
        assert answer.headers["content-type"] == "application/json"
        assert int(answer.headers["X-Bucket"]) >= tokens


def test_a_request_of_several_inputs_leaves_when_all_have_run(
    worker: Worker, socket: Socket, sent: Callable[..., Sent], text_of: TextOf
) -> None:
    both = sent(SHORT)
    both.body = json.dumps({"inputs": [text_of(SHORT), text_of(LONG)]}).encode()
    both.content_type = "application/json"
    short, longest = sent(MIDDLE), sent(LONG + 2)
    worker.predict_bytes([both, short, longest])
    assert [message[0][0] for message in socket.sent] == [short.id, both.id]
    assert len(socket.sent[1][0][1].json()) == 2


def test_errors_and_grpc_wait_for_the_end(
    worker: Worker, socket: Socket, sent: Callable[..., Sent], text_of: TextOf
) -> None:
    too_long, grpc, short, longest = sent(40), sent(SHORT, host=None), sent(SHORT), sent(LONG)
    ended = read_message(worker.predict_bytes([too_long, grpc, short, longest]))
    assert [message[0][0] for message in socket.sent] == [short.id]
    assert [(each, answer.status) for each, answer in ended] == [
        (too_long.id, 413),
        (grpc.id, 200),
        (longest.id, 200),
    ]


def test_raw_numbers_leave_early_too(worker: Worker, socket: Socket, sent: Callable[..., Sent]) -> None:
    worker.predict_bytes([sent(LONG), sent(SHORT, Accept="application/octet-stream")])
    ((_, answer), _), *others = socket.sent
    assert not others
    assert answer.headers["content-type"] == "application/octet-stream"
    assert len(answer.body) == 4 * int(answer.headers["X-Shape"])


def test_a_request_that_was_answered_early_is_not_streamed_again(
    worker: Worker, socket: Socket, sent: Callable[..., Sent]
) -> None:
    """TorchServe hands it to another worker where the first one is stopped."""
    short, longest = sent(SHORT), sent(LONG)
    worker.predict_bytes([short, longest])
    assert len(socket.sent) == 1
    socket.sent.clear()
    ended = read_message(worker.predict_bytes([short, longest]))
    assert socket.sent == []
    assert [each for each, _ in ended] == [short.id, longest.id]


def test_what_has_left_is_known_to_other_workers(tmp_path: Path) -> None:
    first, second = SentIds(tmp_path / "ids"), SentIds(tmp_path / "ids")
    assert first.add("one")
    assert not second.add("one")
    assert second.add("two")
    assert not first.add("two")


def test_what_fails_afterwards_answers_nobody_twice(
    worker: Worker, socket: Socket, sent: Callable[..., Sent], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("after the first answers left")

    monkeypatch.setattr(worker.handler, "postprocess", fail)
    short, longest = sent(SHORT), sent(LONG)
    ended = read_message(worker.predict_bytes([short, longest]))
    assert [message[0][0] for message in socket.sent] == [short.id]
    assert [(each, answer.status) for each, answer in ended] == [(longest.id, 500)]


def test_nothing_leaves_early_where_little_is_left(
    worker: Worker, socket: Socket, sent: Callable[..., Sent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handler.early.WORTH", 3600.0)
    assert len(worker.predict([sent(SHORT), sent(LONG)])) == 2
    assert socket.sent == []


def test_nothing_leaves_early_where_nobody_asked_for_it(
    embedding_archive_folder: Path, sent: Callable[..., Sent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handler.early.WORTH", 0.0)
    plain, socket = Worker(embedding_archive_folder), Socket()
    plain.service.set_cl_socket(socket)
    assert len(plain.predict([sent(SHORT), sent(LONG)])) == 2
    assert socket.sent == []


def test_a_client_timeout_excludes_early_answers() -> None:
    section = {"task": "text-classification", "model": "m", "buckets": [8], "early_answers": True}
    with pytest.raises(ConfigError, match="early_answers and clientTimeoutInMills"):
        Recipe.from_mapping({"clientTimeoutInMills": 100, "handler": section})
