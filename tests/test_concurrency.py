"""Several threads on one model get the answers that one thread gets."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anyshape.model import BucketedModel
from tests.conftest import TextOf, assert_close

THREADS = 6


@pytest.fixture(autouse=True)
def hasty() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(work: Callable[[int], Any]) -> list[Any]:
    """What `work(i)` gives in THREADS threads that start together."""
    start = threading.Barrier(THREADS)

    def wait_and_work(i: int) -> Any:
        start.wait()
        return work(i)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(wait_and_work, range(THREADS)))


def test_mixed_texts(embedding: BucketedModel, text_of: TextOf) -> None:
    draw = np.random.default_rng(8)
    batches = [
        [[text_of(int(n), i) for n in draw.integers(2, 33, draw.integers(1, 7))] for _ in range(30)]
        for i in range(THREADS)
    ]
    alone = [[embedding(batch) for batch in mine] for mine in batches]
    together = at_once(lambda i: [embedding(batch) for batch in batches[i]])
    for mine, expected in zip(together, alone):
        for found, wanted in zip(mine, expected):
            assert_close(found, wanted)


def test_calls_of_one_bucket_keep_to_themselves(embedding: BucketedModel, text_of: TextOf) -> None:
    texts = [text_of(32, seed) for seed in range(THREADS)]
    alone = [embedding(text) for text in texts]
    together = at_once(lambda i: [embedding(texts[i]) for _ in range(60)])
    for found, wanted in zip(together, alone):
        for each in found:
            assert_close(each, wanted)


def test_the_first_use(embedding_archive_folder: Path, text_of: TextOf) -> None:
    """What a model makes when it is first asked for, it makes whole before another thread sees it."""
    model = BucketedModel.load(embedding_archive_folder)
    expected = model(text_of(40), truncation=True)
    for _ in range(5):
        model.task._truncating = {}  # type: ignore[attr-defined]
        model.costs = type(model.costs).of(model.costs.rows(), model.costs.dynamic_batch)
        for found in at_once(lambda i: model(text_of(40), truncation=True)):
            assert_close(found, expected)
