"""Hostile clients beside honest ones, through the front, before the real handler and a real model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.server.fronted import Fronted
from tests.server.honest import Honest
from tests.server.hostile import Hostile

BODIES = int(os.environ.get("FAULTS_BODIES", "20000"))
SEED = int(os.environ.get("FAULTS_SEED", "0"))
CLIENTS = int(os.environ.get("FAULTS_CLIENTS", "8"))


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, embedding_archive: Path) -> Iterator[Fronted]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "store").mkdir()
    shutil.copy(embedding_archive, folder / "store" / "small.mar")
    limits = ("--front-head-seconds", "3", "--front-body-seconds", "3")
    with Fronted(folder, "small", *limits) as front:
        yield front


@pytest.fixture(scope="module")
def texts(
    plain_embedding: Callable[[str], np.ndarray], text_of: Callable[..., str]
) -> list[tuple[bytes, np.ndarray]]:
    """Texts of every bucket, and what the plain model says of each."""
    some = [text_of(tokens) for tokens in (3, 4, 5, 7, 8, 9, 12, 16, 17, 24, 31, 32)]
    return [(text.encode(), plain_embedding(text)) for text in some]


def beside(front: Fronted, texts: list[tuple[bytes, np.ndarray]], count: int) -> None:
    with Honest(front, clients=CLIENTS, seed=SEED, path="/predictions/small", texts=texts) as honest:
        honest.wait_for(200)
        alone = honest.told.percentile(99)
        honest.told.seconds.clear()
        sent = Hostile(front.port, "small", front.token, count=count, seed=SEED).run()
    print(
        f"{sum(sent.statuses.values())} answers to {count} hostile requests {dict(sent.statuses)}, "
        f"{honest.told.answered} to honest ones; their p99 {alone * 1e3:.0f} ms alone, "
        f"{honest.told.percentile(99) * 1e3:.0f} ms beside them"
    )
    assert sent.bad == []
    assert sent.silent == []
    assert honest.told.wrong == 0
    assert honest.told.lost == []
    assert set(honest.told.statuses) == {200}, honest.told.types
    assert front.post("/predictions/small", texts[0][0]).status_code == 200


def test_some_hostile_requests_spoil_no_honest_answer(
    front: Fronted, texts: list[tuple[bytes, np.ndarray]]
) -> None:
    beside(front, texts, 600)


@pytest.mark.faults
def test_many_hostile_requests_spoil_no_honest_answer(
    front: Fronted, texts: list[tuple[bytes, np.ndarray]]
) -> None:
    beside(front, texts, BODIES)
