"""Inputs that become several items, among requests of one: through TorchServe's own code."""

from __future__ import annotations

import json
from typing import Any

import pytest

from anyshape.building.build import build
from tests.conftest import TextOf, save_bert, unpacked, write_recipe
from tests.handler.frontend import Sent, Worker
from tests.tasks.same import assert_same


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Worker:
    work = tmp_path_factory.mktemp("ranking")
    folder = save_bert(work / "model", "BertForSequenceClassification", tokenizer, num_labels=1)
    recipe = write_recipe(work, task="text-ranking", model=str(folder), max_request_characters=1000)
    return Worker(unpacked(build(recipe, work / "store").path, work / "files"))


def sent(inputs: Any, **parameters: Any) -> Sent:
    return Sent(json.dumps({"inputs": inputs, "parameters": parameters}).encode(), "application/json")


def test_each_request_gets_the_answer_to_all_of_its_parts(worker: Worker, text_of: TextOf) -> None:
    one = {"query": text_of(4), "texts": [text_of(3, 1), text_of(12, 1), text_of(20, 1)]}
    other = {"query": text_of(5), "texts": [text_of(7, 1)]}
    pair = {"text": text_of(4), "text_pair": text_of(12, 1)}
    requests = [sent(one), sent(other), sent({"query": "a"}), sent([pair, one, other]), sent(pair)]
    received = worker.predict(requests)
    assert [answer.status for answer in received] == [200, 200, 422, 200, 200]
    assert len(received[0].headers["X-Bucket"].split(",")) == 3
    assert len(received[3].headers["X-Bucket"].split(",")) == 5
    assert "X-Windows" not in received[3].headers
    alone = [worker.predict([request])[0].json() for request in requests]
    assert_same([answer.json() for answer in received], alone)
    assert_same(received[3].json(), [alone[4], alone[0], alone[1]])
    assert {entry["index"] for entry in alone[0]} == {0, 1, 2}


def test_a_part_that_is_refused_refuses_its_request_alone(worker: Worker, text_of: TextOf) -> None:
    bad = {"query": text_of(4), "texts": ["fits", text_of(40, 1)]}
    good = {"query": text_of(4), "texts": ["fits"]}
    received = worker.predict([sent(bad), sent(good), sent([good, bad])])
    assert [answer.status for answer in received] == [413, 200, 413]
    assert received[2].json()["message"].startswith("inputs[1]: the input has 43 tokens")


def test_the_pairs_of_a_request_count_together(worker: Worker) -> None:
    """Before any of them is made: 64 inputs of 64 texts would be 4096 items."""
    half, pair = {"query": "a", "texts": ["b"] * 32}, {"text": "a", "text_pair": "b"}
    requests = [[half, half, pair], [half, half], [pair] * 64, [3, pair]]
    received = worker.predict([sent(inputs) for inputs in requests])
    assert [answer.status for answer in received] == [413, 200, 200, 422]
    assert received[0].json()["message"].startswith("65 pairs in one request are more than the limit of 64")


def test_the_characters_of_all_pairs_count_together_and_with_their_prompts(worker: Worker) -> None:
    some = {"query": "word " * 30, "texts": ["a"] * 4}
    pairs = [{"text": "a", "text_pair": "b"}] * 60
    received = worker.predict([sent([some, some]), sent(pairs, prompt="word " * 4)])
    assert [answer.status for answer in received] == [413, 413]
    assert "1208 characters together" in received[0].json()["message"]
    assert "1320 characters together" in received[1].json()["message"]


def test_the_characters_of_all_texts_count(worker: Worker) -> None:
    (far, many) = worker.predict(
        [
            sent({"query": "a", "texts": ["word " * 101] * 2}),
            sent({"query": "word " * 50, "texts": ["a"] * 4}),
        ]
    )
    assert (far.status, many.status) == (413, 413)
    assert "1011 characters together" in far.json()["message"]  # as they are sent
    assert "1004 characters together" in many.json()["message"]  # the query counts in each pair
