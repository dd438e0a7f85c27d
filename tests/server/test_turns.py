"""What one client sends does not hold up the others by more than one call, where its share is bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from anyshape.front.errors import QueueFull
from anyshape.front.turns import Share, Turns
from tests.server.front_alone import FrontAlone
from tests.server.fronted import Fronted
from tests.server.harness import Server
from tests.server.probe import make_probe

MANY, LATE = "a-token-of-one-who-asks-a-lot", "a-token-of-one-who-asks-late"


def test_a_client_has_its_share_and_the_rest_waits_in_order() -> None:
    async def ask(turns: Turns, who: str, size: int, name: str) -> None:
        async with turns.turn((who, "model"), size, share):
            inside.append(name)
            await gates[name].wait()

    async def scenario() -> None:
        turns = Turns()
        sizes = {"a": 60, "b": 40, "c": 1, "huge": 1000, "d": 10}
        tasks = {}
        for name, size in sizes.items():
            gates[name] = asyncio.Event()
            tasks[name] = asyncio.ensure_future(ask(turns, "one", size, name))
            await asyncio.sleep(0)
        assert inside == ["a", "b"]
        assert turns.waiting == 3
        with pytest.raises(QueueFull, match="3 requests of this token wait"):
            async with turns.turn(("one", "model"), 1, share):
                pass
        for other in (("another", "model"), ("one", "of another model")):  # they are not held up
            async with turns.turn(other, 1000, share):
                pass
        tasks["c"].cancel()  # a client that is gone makes room
        await asyncio.sleep(0)
        assert turns.waiting == 2
        gates["a"].set()
        await asyncio.sleep(0.01)
        assert inside == ["a", "b"], "what is larger than the share goes alone, and nothing overtakes it"
        gates["b"].set()
        await asyncio.sleep(0.01)
        assert inside == ["a", "b", "huge"]
        gates["huge"].set()
        await asyncio.sleep(0.01)
        assert inside == ["a", "b", "huge", "d"]
        gates["d"].set()
        await asyncio.wait([tasks["d"]])
        assert turns.waiting == 0
        two, one = Share(100, requests=2), ("one", "model")
        async with turns.turn(one, 100, two), turns.turn(one, 100, two):
            assert turns.waiting == 0, "two of any size"
        async with turns.turn(("one", "model"), 1, None):  # nothing is bounded
            pass

    share = Share(100, waiting=3)
    inside: list[str] = []
    gates: dict[str, asyncio.Event] = {}
    asyncio.run(scenario())


def answered_before(front: FrontAlone | Fronted, path: str, long: str, short: str, count: int) -> int:
    """How many of one client's long texts are answered between another's short one and its answer."""

    def ask(token: str, text: str) -> None:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "text/plain"}
        response = http.post(path, content=text, headers=headers)
        assert response.status_code == 200, response.text
        if token == MANY:
            done.append(time.monotonic())

    done: list[float] = []
    any_number = httpx.Limits(max_connections=None)
    with (
        httpx.Client(base_url=front.url, timeout=120, limits=any_number, trust_env=False) as http,
        ThreadPoolExecutor(count) as pool,
    ):
        asked = [pool.submit(ask, MANY, long) for _ in range(count)]
        while not done:
            time.sleep(0.005)
        before = len(done)
        ask(LATE, short)
        between = len(done) - before
        for each in asked:
            each.result()
    return between


@pytest.mark.parametrize(("options", "most"), [(("--share", "{long}"), 2), ((), 6)], ids=["share", "usual"])
def test_a_short_text_waits_for_few_of_another_clients_long_ones(
    server: Server,
    minilm: str,
    text_of: Callable[[int], str],
    tmp_path: Path,
    options: tuple[str, ...],
    most: int,
) -> None:
    """Where one long text fits the share, for the one that runs and one that may share its batch. By default
    a worker has two at once: those that run, its neighbours, and one that was answered just now."""
    long, short = text_of(510), text_of(8)
    (tmp_path / "tokens.txt").write_text(f"{MANY} many\n{LATE} late\n")
    keys = ("--key-file", str(server.torchserve.key_file))
    given = [*keys, *(option.format(long=len(long)) for option in options)]
    with FrontAlone(tmp_path, None, *given, server=(server.ports[0], server.ports[1])) as front:
        deadline = time.monotonic() + 30
        while httpx.get(f"{front.url}/readyz/{minilm}").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert answered_before(front, f"/predictions/{minilm}", long, short, 16) <= most


@pytest.mark.faults
def test_64_long_requests_of_one_client_do_not_hold_up_those_of_another(tmp_path: Path) -> None:
    """As the server comes: two workers, hand-overs of up to 32, and tokens that are added while it runs."""
    make_probe(tmp_path, workers=2, batch=32, queue=200)
    long = "sleep 0.1 " + "long " * 500
    with Fronted(tmp_path, "probe") as front:
        tokens = front.run / "tokens.txt"
        tokens.write_text(f"{tokens.read_text()}{MANY} many\n{LATE} late\n")
        deadline = time.monotonic() + 30
        for token in (MANY, LATE):
            while front.post("/predictions/probe", "x", Authorization=f"Bearer {token}").status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert answered_before(front, "/predictions/probe", long, "x", 64) <= 9
