"""Many requests at once: each is answered in its own place, whatever its neighbours are."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.server.conftest import Encode
from tests.server.harness import Server
from tests.server.test_inference import BAD_BODIES, assert_same

TextOf = Callable[[int], str]


def text_request(text: str) -> dict[str, Any]:
    return {"content": text.encode(), "headers": {"Content-Type": "text/plain; charset=utf-8"}}


def test_64_requests_at_once_of_mixed_lengths_are_each_answered_right(
    server: Server, minilm: str, encode: Encode, text_of: TextOf
) -> None:
    draw = random.Random(64)
    texts = [f"{i} " + text_of(draw.choice([3, 9, 14, 30, 60, 61, 120, 250, 500])) for i in range(64)]
    responses = server.predict_all(minilm, [text_request(text) for text in texts])
    for text, response in zip(texts, responses):
        assert response.status_code == 200, server.explain(response)
        assert_same(response.json(), encode(text))
    # Some of them must have shared a call, or this test says nothing about batches.
    assert max(int(response.headers["X-Batch-Size"]) for response in responses) > 1


def test_bad_bodies_in_a_full_batch_get_their_own_status_and_their_neighbours_200(
    server: Server, minilm: str, encode: Encode, text_of: TextOf
) -> None:
    good = [f"neighbour {i} " + text_of(5 + 7 * i) for i in range(32 - len(BAD_BODIES) - 1)]
    requests = [(text_request(text), 200, text) for text in good]
    requests += [(body, code, "") for _, body, code in BAD_BODIES]
    requests.append((text_request(text_of(513)), 413, ""))
    for seed in range(3):
        random.Random(seed).shuffle(requests)
        responses = server.predict_all(minilm, [body for body, _, _ in requests])
        for (_, code, text), response in zip(requests, responses):
            assert response.status_code == code, server.explain(response)
            if code == 200:
                assert_same(response.json(), encode(text))
            else:
                assert response.json()["code"] == code


def test_a_text_gets_the_same_answer_alone_and_in_company(
    server: Server, minilm: str, text_of: TextOf
) -> None:
    text = text_of(40)
    alone = np.array(server.predict_text(minilm, text).json())
    company = [text_request(text_of(length)) for length in (2, 20, 63, 90, 128, 333, 512)]
    responses = server.predict_all(minilm, [text_request(text), *company, text_request(text)])
    for response in (responses[0], responses[-1]):
        np.testing.assert_allclose(np.array(response.json()), alone, atol=1e-4, rtol=0)


def test_a_client_that_asks_to_describe_does_not_spoil_a_batch(
    server: Server, minilm: str, encode: Encode, text_of: TextOf
) -> None:
    texts = [text_of(length) for length in (5, 12, 33, 70)]
    requests = [text_request(text) for text in texts]
    for request in requests[::2]:
        request["headers"]["describe"] = "True"
        request["headers"]["explain"] = "True"
    for text, response in zip(texts, server.predict_all(minilm, requests)):
        assert response.status_code == 200, server.explain(response)
        assert_same(response.json(), encode(text))
