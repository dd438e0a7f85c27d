"""Honest clients: they ask without a pause while something else goes wrong, and check every answer."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Optional

import httpx
import numpy as np

from tests.server.fronted import Fronted
from tests.server.probe import right


@dataclass
class Told:
    """What the clients saw. wrong: answers that belong to another request; lost: connections without one."""

    statuses: Counter[int] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    lost: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of answers with status 200
    longest: float = 0.0  # of any answer
    unsaid: int = 0  # 503 without Retry-After

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    def percentile(self, percent: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


def close(response: httpx.Response, vector: np.ndarray) -> bool:
    """Whether an answer is the vector, as exactly as the recipes have it."""
    found = np.asarray(response.json())
    return bool(found.shape == vector.shape and np.abs(found - vector).max() <= 1e-4 * np.abs(vector).max())


class Honest:
    """Clients in threads, from entry to exit. Each waits as long as a 503 says, as far as `patience` seconds.

    They ask a probe, or send `texts`, each with the vector that is right for it.
    Every connection that ends without an answer while it had a question counts as lost; one that a server
    closes between two questions does not: clients open another, as httpx does by itself.
    """

    def __init__(
        self,
        front: Fronted,
        *,
        clients: int = 32,
        seed: int = 0,
        path: str = "/predictions/probe",
        patience: float = 0.1,
        texts: Optional[list[tuple[bytes, np.ndarray]]] = None,
    ) -> None:
        self.front, self.path, self.patience, self.texts = front, path, patience, texts
        self.told = Told()
        self._token = front.token
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask_all, args=(random.Random(seed * 1000 + i),))
            for i in range(clients)
        ]

    def __enter__(self) -> Honest:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)

    def wait_for(self, answers: int, seconds: float = 60) -> None:
        """Return when so many answers with status 200 have come since now."""
        before = self.told.statuses[200]
        deadline = time.monotonic() + seconds
        while self.told.statuses[200] < before + answers:
            assert time.monotonic() < deadline, self.told
            time.sleep(0.02)

    def _ask_all(self, draw: random.Random) -> None:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "text/plain"}
        with httpx.Client(base_url=self.front.url, headers=headers, timeout=90, trust_env=False) as http:
            while not self._stop.is_set():
                if self.texts is not None:
                    self._ask(http, *draw.choice(self.texts))
                    continue
                body = draw.randbytes(draw.choice((1, 40, 4000))).hex().encode()
                if draw.random() < 0.1:
                    body = b"sleep 0.02 " + body
                self._ask(http, body)

    def _ask(self, http: httpx.Client, body: bytes, vector: Optional[np.ndarray] = None) -> None:
        started = time.monotonic()
        try:
            response = http.post(self.path, content=body)
        except httpx.ConnectError:
            return  # nobody listens, and nothing was asked
        except httpx.HTTPError as error:
            with self._lock:
                self.told.lost.append(f"{type(error).__name__}: {error}")
            return
        taken = time.monotonic() - started
        told = self.told
        with self._lock:
            told.statuses[response.status_code] += 1
            told.longest = max(told.longest, taken)
            if response.status_code == 200:
                told.seconds.append(taken)
                told.wrong += not (
                    right(body, response.content) if vector is None else close(response, vector)
                )
            else:
                said = response.json()
                told.types[str(said.get("type") or said.get("error_type") or said)] += 1
                told.unsaid += response.status_code == 503 and "retry-after" not in response.headers
        if response.status_code == 503:
            time.sleep(min(self.patience, float(response.headers.get("retry-after", 1))))
