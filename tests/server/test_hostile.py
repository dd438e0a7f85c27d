"""Hostile clients beside honest ones, through the front, before the real handler and a real model."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
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
    # Soon enough for those who stall, and not so soon that an honest client of a busy machine does, too.
    limits = ("--front-head-seconds", "10", "--front-body-seconds", "10", "--front-idle-seconds", "10")
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


@pytest.mark.faults
def test_memory_and_descriptors_stay_flat(front: Fronted, texts: list[tuple[bytes, np.ndarray]]) -> None:
    """For FAULTS_MINUTES, with hostile clients beside honest ones; `-s` shows what was measured."""
    seconds = 60 * float(os.environ.get("FAULTS_MINUTES", "2"))
    hostile: Counter[int] = Counter()
    samples = []
    with Honest(front, clients=CLIENTS, seed=SEED, path="/predictions/small", texts=texts) as honest:
        started, shown, number = time.monotonic(), 0.0, 0
        while (passed := time.monotonic() - started) < seconds:
            number += 1
            sent = Hostile(front.port, "small", front.token, count=200, seed=SEED + number).run()
            assert sent.bad == []
            assert sent.silent == []
            hostile += sent.statuses
            used = usage(front)
            samples.append(used)
            if passed >= shown:
                shown = passed + 60
                each = ", ".join(
                    f"{name} {size / 1e6:.1f} MB {files} files" for name, (size, files) in used.items()
                )
                print(
                    f"{passed:.0f} s: {each}; {honest.told.answered} honest, {hostile.total()} hostile",
                    flush=True,
                )
    told = honest.told
    print(
        f"hostile {dict(hostile)}; honest {dict(told.statuses)}, {told.wrong} wrong, {len(told.lost)} lost,"
    )
    print(f"p50 {told.percentile(50):.3f} s, p99 {told.percentile(99):.3f} s, longest {told.longest:.3f} s")
    assert told.wrong == 0
    assert told.lost == []
    assert set(told.statuses) == {200}, told
    samples = samples[len(samples) // 2 :]  # until then it warms
    for name in samples[0]:
        memory, files = zip(*(sample[name] for sample in samples))
        half = len(samples) // 2
        early, late = max(memory[:half] or memory), max(memory[half:])
        print(f"{name}: {early / 1e6:.1f} MB, then {late / 1e6:.1f} MB; files {min(files)} to {max(files)}")
        assert max(files[half:]) <= max(files[:half] or files) + 2 * CLIENTS
        if name != "java":  # its heap grows to what it was allowed, and is collected when it likes
            assert late <= early * 1.02 + 1e6


def usage(front: Fronted) -> dict[str, tuple[int, int]]:
    """{process: (resident bytes, open files)} of the front, the frontend and the workers together."""
    names = {"front": "anyshape front", "java": "org.pytorch.serve", "workers": "model_service_worker"}
    found = {name: front.family(command) for name, command in names.items()}
    return {
        name: (sum(p.memory_info().rss for p in processes), sum(p.num_fds() for p in processes))
        for name, processes in found.items()
    }
