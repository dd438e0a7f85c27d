"""Clients that never stop asking while something else goes on, and compare every answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Asked:
    """A body, its kind, and what raises AssertionError where the decoded answer to it is wrong."""

    body: bytes
    kind: str
    check: Callable[[Any], None]


@contextmanager
def asking(url: str, token: str, asked: list[Asked], clients: int = 4) -> Iterator[list[str]]:
    """Ask all the time, from entry to exit; what was not the right answer is in the list."""
    wrong: list[str] = []
    counts, stop = [0] * clients, threading.Event()

    def ask(client: int) -> None:
        with httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=90, trust_env=False) as http:
            while not stop.is_set():
                one = asked[(client + counts[client]) % len(asked)]
                try:
                    response = http.post(url, content=one.body, headers={"Content-Type": one.kind})
                    if response.status_code != 200:
                        wrong.append(f"{response.status_code} {response.text}")
                    else:
                        one.check(response.json())
                except (httpx.HTTPError, AssertionError) as error:
                    wrong.append(repr(error))
                counts[client] += 1
                time.sleep(0.005)  # the cores are not theirs alone

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield wrong
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert min(counts) > 0, "somebody was never answered"
