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
from anyshape.front.turns import Turns
from tests.server.front_alone import FrontAlone
from tests.server.harness import Server

MANY, LATE = "a-token-of-one-who-asks-a-lot", "a-token-of-one-who-asks-late"


def test_a_client_has_its_share_and_the_rest_waits_in_order() -> None:
    async def ask(turns: Turns, who: str, size: int, name: str) -> None:
        async with turns.turn(who, size):
            inside.append(name)
            await gates[name].wait()

    async def scenario() -> None:
        turns = Turns(share=100, most=3)
        sizes = {"a": 60, "b": 40, "c": 1, "huge": 1000, "d": 10}
        tasks = {}
        for name, size in sizes.items():
            gates[name] = asyncio.Event()
            tasks[name] = asyncio.ensure_future(ask(turns, "one", size, name))
            await asyncio.sleep(0)
        assert inside == ["a", "b"]
        assert turns.waiting == 3
        with pytest.raises(QueueFull, match="3 requests of this token wait"):
            async with turns.turn("one", 1):
                pass
        async with turns.turn("another", 1000):  # it is not held up
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
        async with turns.turn("one", 100):
            pass

    inside: list[str] = []
    gates: dict[str, asyncio.Event] = {}
    asyncio.run(scenario())


def answered_before(front: FrontAlone, long: str, short: str) -> int:
    """How many of one client's 10 long texts are answered between another's short one and its answer."""

    def ask(token: str, text: str) -> None:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "text/plain"}
        response = httpx.post(
            f"{front.url}/predictions/minilm", content=text, headers=headers, timeout=120, trust_env=False
        )
        assert response.status_code == 200, response.text
        if token == MANY:
            done.append(time.monotonic())

    done: list[float] = []
    with ThreadPoolExecutor(10) as pool:
        asked = [pool.submit(ask, MANY, long) for _ in range(10)]
        while not done:
            time.sleep(0.005)
        before = len(done)
        ask(LATE, short)
        between = len(done) - before
        for each in asked:
            each.result()
    return between


def test_a_short_text_waits_for_one_call_of_another_clients_long_ones(
    server: Server, minilm: str, text_of: Callable[[int], str], tmp_path: Path
) -> None:
    """One long text fits the share. The one that runs is answered first, and the next may share its batch."""
    long, short = text_of(510), text_of(8)
    (tmp_path / "tokens.txt").write_text(f"{MANY} many\n{LATE} late\n")
    options = ("--key-file", str(server.torchserve.key_file), "--share", str(len(long)))
    with FrontAlone(tmp_path, None, *options, server=(server.ports[0], server.ports[1])) as front:
        deadline = time.monotonic() + 30
        while httpx.get(f"{front.url}/readyz/{minilm}").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert answered_before(front, long, short) <= 2
