"""How much of TorchServe one client may have at once, so that the others need not wait for what it has sent.

TorchServe answers in the order of arrival, and all of a batch together: whoever sends 64 long texts at once
has them all before everybody else's. What is held back here is behind the others' again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import AsyncIterator, Deque, Dict, Optional, Tuple

from anyshape.front.errors import QueueFull

# The answers of a hand-over come together, and what takes their places would all go to the worker that waits,
# while the others have nothing. So one goes at once, and the rest when the hand-over of that worker is
# closed: later than the maxBatchDelay of recipes.
PAUSE_SECONDS = 0.005

Who = Tuple[str, str]  # a client's name, and the model that it asks: each model has a queue of its own


@dataclass(frozen=True)
class Share:
    """What a model may have of one client at once: bodies of so many bytes together, or so many of any size.
    waiting: how many more of its requests may wait; QueueFull is raised beyond."""

    bytes: int
    requests: int = 1
    waiting: int = 100


@dataclass
class _Client:
    share: Share
    bytes: int = 0  # of its requests that TorchServe has
    requests: int = 0
    waiting: Deque[Tuple[asyncio.Future[None], int]] = field(default_factory=deque)
    pause: Optional[asyncio.TimerHandle] = None


class Turns:
    """waiting: how many requests wait, of all clients."""

    def __init__(self) -> None:
        self.waiting = 0
        self._clients: Dict[Who, _Client] = {}

    @asynccontextmanager
    async def turn(self, who: Who, size: int, share: Optional[Share]) -> AsyncIterator[None]:
        """TorchServe may be asked inside, with a body of `size` bytes. share: None: as many as come."""
        if share is None:
            yield
            return
        client = self._clients.setdefault(who, _Client(share))
        client.share = share  # workers come and go
        try:
            await self._enter(client, size)
            try:
                yield
            finally:
                self._leave(client, size)
        finally:
            if not client.requests and not client.waiting:
                self._clients.pop(who, None)

    async def _enter(self, client: _Client, size: int) -> None:
        if not client.waiting and self._fits(client, size):
            self._count(client, size)
            return
        if len(client.waiting) >= client.share.waiting:
            raise QueueFull(f"{client.share.waiting} requests of this token wait already: try again")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        client.waiting.append((turn, size))
        self.waiting += 1
        try:
            await turn
        except asyncio.CancelledError:  # the client is gone
            if turn.done() and not turn.cancelled():
                self._leave(client, size)  # its turn had just come
            elif (turn, size) in client.waiting:
                client.waiting.remove((turn, size))
                self.waiting -= 1
            raise

    def _fits(self, client: _Client, size: int) -> bool:
        return client.requests < client.share.requests or client.bytes + size <= client.share.bytes

    def _count(self, client: _Client, size: int) -> None:
        client.bytes += size
        client.requests += 1

    def _leave(self, client: _Client, size: int) -> None:
        client.bytes -= size
        client.requests -= 1
        if client.pause is None and client.waiting:
            self._next(client)
            client.pause = asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._rest, client)

    def _next(self, client: _Client) -> bool:
        """Let the first that waits in, if it fits."""
        if not client.waiting or not self._fits(client, client.waiting[0][1]):
            return False
        turn, size = client.waiting.popleft()
        self.waiting -= 1
        if not turn.cancelled():  # a client that is just going
            self._count(client, size)
            turn.set_result(None)
        return True

    def _rest(self, client: _Client) -> None:
        client.pause = None
        while self._next(client):
            pass
