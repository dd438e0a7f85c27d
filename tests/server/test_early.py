"""Answers that leave as their calls end, through a real TorchServe: in order, once each, and right."""

from __future__ import annotations

import os
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import numpy as np
import pytest
import yaml

from tests.server import grpc_client
from tests.server.conftest import Encode
from tests.server.fronted import Fronted, raw
from tests.server.harness import Server
from tests.server.honest import Honest
from tests.server.test_batches import text_request
from tests.server.test_inference import assert_same

NAME = "early"
HAND_OVER = 6
TextOf = Callable[[int], str]


def write_early(store: Path, folder: Path, **recipe: Any) -> None:
    """`folder/early.mar`: the sentence encoder of the tests, with early answers."""
    with zipfile.ZipFile(store / "minilm.mar") as old, zipfile.ZipFile(folder / f"{NAME}.mar", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "model-config.yaml":
                changed = yaml.safe_load(content)
                changed.update(minWorkers=1, maxWorkers=1, batchSize=HAND_OVER, maxBatchDelay=2000, **recipe)
                changed["handler"]["early_answers"] = True
                content = yaml.safe_dump(changed).encode()
            new.writestr(name, content)


@pytest.fixture(scope="module")
def early(server: Server, store: Path) -> Iterator[str]:
    write_early(store, store)
    server.register(NAME)
    yield NAME
    server.manage("DELETE", f"/models/{NAME}")


@pytest.fixture(scope="module")
def slow(text_of: TextOf) -> dict[str, Any]:
    """A request whose calls take longer than all others of a hand-over together."""
    return {"json": {"inputs": [text_of(500)] * 12}}


def in_order(server: Server, requests: list[dict[str, Any]]) -> list[tuple[int, httpx.Response]]:
    """Send all requests as one hand-over: their places and answers, as they come."""
    assert len(requests) == HAND_OVER
    with ThreadPoolExecutor(HAND_OVER) as pool:
        futures = {pool.submit(server.predict, NAME, **each): i for i, each in enumerate(requests)}
        return [(futures[done], done.result()) for done in as_completed(futures)]


def test_short_texts_do_not_wait_for_their_long_neighbour(
    server: Server, early: str, slow: dict[str, Any], encode: Encode, text_of: TextOf
) -> None:
    texts = [text_of(tokens) for tokens in (5, 9, 40, 90, 7)]
    came = in_order(server, [slow, *map(text_request, texts)])
    assert came[-1][0] == 0, "the slow one was not the last"
    for i, answer in came:
        assert answer.status_code == 200, server.explain(answer)
        assert answer.headers["content-type"] == "application/json"
        assert int(answer.headers["X-Batch-Size"].split(",")[0]) >= 1
        if i:
            assert_same(answer.json(), encode(texts[i - 1]))
            assert answer.headers["X-Early-Answer"] == "true"
            assert "close" in answer.headers["Connection"]
        else:
            assert len(answer.json()) == 12
            assert "X-Early-Answer" not in answer.headers


def test_errors_raw_numbers_and_grpc_in_one_hand_over(
    server: Server, early: str, slow: dict[str, Any], encode: Encode, text_of: TextOf
) -> None:
    short = text_of(8)
    requests = [
        slow,
        text_request(text_of(513)),
        {"content": b"{", "headers": {"Content-Type": "application/json"}},
        {
            **text_request(short),
            "headers": {"Content-Type": "text/plain", "Accept": "application/octet-stream"},
        },
        text_request(short),
    ]
    token = server.token("inference")
    with ThreadPoolExecutor(HAND_OVER) as pool:
        called = pool.submit(
            grpc_client.predict, server.ports[3], NAME, {"data": short.encode()}, token=token
        )
        answers = list(pool.map(lambda each: server.predict(NAME, **each), requests))
    assert [answer.status_code for answer in answers] == [200, 413, 400, 200, 200]
    assert ["X-Early-Answer" in answer.headers for answer in answers] == [False, False, False, True, True]
    assert answers[3].headers["X-Shape"] == str(len(encode(short)))
    assert_same(np.frombuffer(answers[3].content, "<f4").tolist(), encode(short))
    assert_same(answers[4].json(), encode(short))
    assert_same(yaml.safe_load(called.result()), encode(short))


def test_an_answer_is_whole_for_whoever_reads_to_the_end(
    server: Server, early: str, slow: dict[str, Any], text_of: TextOf
) -> None:
    """As bytes: one head, chunks and their end; and the same connection is not used for anything else."""
    body = text_of(5).encode()
    head = (
        f"POST /predictions/{NAME} HTTP/1.1\r\nHost: here\r\nContent-Type: text/plain\r\n"
        f"Authorization: {server.token('inference')['Authorization']}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    port = server.ports[0]
    with ThreadPoolExecutor(HAND_OVER) as pool:
        others = [pool.submit(server.predict, NAME, **slow)]
        others += [pool.submit(server.predict_text, NAME, text_of(6)) for _ in range(HAND_OVER - 2)]
        received = pool.submit(raw, port, head.encode() + body, seconds=4).result()
        assert [other.result().status_code for other in others] == [200] * (HAND_OVER - 1)
    assert received.count(b"HTTP/1.1") == 1
    assert received.endswith(b"\r\n0\r\n\r\n")
    said, _, _ = received.partition(b"\r\n\r\n")
    lines = said.decode().lower().split("\r\n")
    assert lines.index("connection: close") < lines.index("connection: keep-alive")
    assert "transfer-encoding: chunked" in lines


def worker_pids(server: Server) -> list[int]:
    (described,) = server.manage("GET", f"/models/{NAME}").json()
    return [worker["pid"] for worker in described["workers"]]


@pytest.mark.faults
def test_a_worker_that_dies_after_answers_left_answers_nobody_twice(
    server: Server, early: str, slow: dict[str, Any], encode: Encode, text_of: TextOf
) -> None:
    """Each client asks again on the connection that it has, if it may keep it."""
    (pid,) = worker_pids(server)
    texts = [text_of(tokens) for tokens in (5, 9, 40, 90, 7)]
    headers = {**server.token("inference"), "Content-Type": "text/plain"}
    url = f"{server.torchserve.inference}/predictions/{NAME}"
    clients = [httpx.Client(headers=headers, timeout=120) for _ in texts]
    with ThreadPoolExecutor(HAND_OVER) as pool:
        last = pool.submit(server.predict, NAME, **slow)
        firsts = [pool.submit(c.post, url, content=text.encode()) for c, text in zip(clients, texts)]
        for text, first in zip(texts, firsts):
            assert_same(first.result().json(), encode(text))
        assert not last.done()
        seconds = [pool.submit(c.post, url, content=text.encode()) for c, text in zip(clients, texts)]
        time.sleep(0.05)
        assert not last.done(), "the slow one is too quick for this test"
        os.kill(pid, signal.SIGKILL)
        assert last.result().status_code in (500, 507)
        for text, second in zip(texts, seconds):
            answer = second.result()
            assert answer.status_code == 200, server.explain(answer)
            assert_same(answer.json(), encode(text))
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def texts(encode: Encode, text_of: TextOf) -> list[tuple[bytes, np.ndarray]]:
    made = [f"{i} {text_of(tokens)}" for i, tokens in enumerate((4, 8, 30, 60, 100, 400, 450) * 3)]
    return [(text.encode(), encode(text)) for text in made]


@pytest.mark.faults
def test_workers_that_are_killed_lose_only_the_hand_over_that_they_had(
    server: Server, early: str, texts: list[tuple[bytes, np.ndarray]]
) -> None:
    front = SimpleNamespace(url=server.torchserve.inference, token=server.torchserve.key("inference"))
    kills = 3
    with Honest(cast(Fronted, front), clients=12, path=f"/predictions/{NAME}", texts=texts) as honest:
        for _ in range(kills):
            honest.wait_for(60, seconds=120)
            os.kill(worker_pids(server)[0], signal.SIGKILL)
            time.sleep(1)
            server.wait_ready(NAME)
        honest.wait_for(60, seconds=120)
    told = honest.told
    assert told.wrong == 0
    assert told.lost == []
    assert set(told.statuses) <= {200, 500, 507}
    assert told.answered - told.statuses[200] <= kills * HAND_OVER


@pytest.mark.faults
def test_workers_come_and_go_under_early_answers(
    server: Server, early: str, texts: list[tuple[bytes, np.ndarray]]
) -> None:
    """TorchServe hands the requests of a worker that it stops to the others, those too that were answered."""
    front = SimpleNamespace(url=server.torchserve.inference, token=server.torchserve.key("inference"))
    scale = {"synchronous": "true"}
    short = [(text, vector) for text, vector in texts if len(text) < 600]
    with Honest(cast(Fronted, front), clients=8, path=f"/predictions/{NAME}", texts=short) as honest:
        for workers in (2, 1, 2, 1, 2, 1):
            scaled = server.manage("PUT", f"/models/{NAME}", min_worker=workers, max_worker=workers, **scale)
            assert scaled.status_code == 200, scaled.text
            honest.wait_for(40, seconds=120)
        pids = worker_pids(server)
        honest.wait_for(40, seconds=120)
    told = honest.told
    assert worker_pids(server) == pids, "a worker was started again"
    assert told.wrong == 0
    assert told.lost == []
    assert told.answered - told.statuses[200] <= 3 * HAND_OVER, told
