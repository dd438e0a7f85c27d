"""How much of TorchServe one client may have at once, so that the others need not wait for what it has sent.

TorchServe answers in the order of arrival, and all of a batch together: whoever sends 64 long texts at once
has them all before everybody else's. What is held back here is behind the others' again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import AsyncIterator, Deque, Dict, Tuple

from anyshape.front.errors import QueueFull


@dataclass
class _Client:
    bytes: int = 0  # of its requests that TorchServe has
    requests: int = 0
    waiting: Deque[Tuple[asyncio.Future[None], int]] = field(default_factory=deque)


class Turns:
    """share: bytes of one client's bodies that TorchServe may have at once, or one request of any size; 0: as
    many as come. most: how many more of its requests may wait; QueueFull is raised beyond."""

    def __init__(self, share: int, most: int) -> None:
        self.share, self.most = share, most
        self.waiting = 0
        self._clients: Dict[str, _Client] = {}

    @asynccontextmanager
    async def turn(self, who: str, size: int) -> AsyncIterator[None]:
        """TorchServe may be asked inside, in a client's name, with a body of `size` bytes."""
        if not self.share:
            yield
            return
        client = self._clients.setdefault(who, _Client())
        await self._enter(client, size)
        try:
            yield
        finally:
            self._leave(client, size)

    async def _enter(self, client: _Client, size: int) -> None:
        if not client.waiting and self._fits(client, size):
            self._count(client, size)
            return
        if len(client.waiting) >= self.most:
            raise QueueFull(f"{self.most} requests of this token wait already: try again")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        client.waiting.append((turn, size))
        self.waiting += 1
        try:
            await turn
        except asyncio.CancelledError:  # the client is gone
            if turn.done() and not turn.cancelled():
                self._leave(client, size)  # its turn had just come
            else:
                client.waiting.remove((turn, size))
                self.waiting -= 1
            raise

    def _fits(self, client: _Client, size: int) -> bool:
        return not client.requests or client.bytes + size <= self.share

    def _count(self, client: _Client, size: int) -> None:
        client.bytes += size
        client.requests += 1

    def _leave(self, client: _Client, size: int) -> None:
        client.bytes -= size
        client.requests -= 1
        while client.waiting and self._fits(client, client.waiting[0][1]):
            turn, its = client.waiting.popleft()
            self.waiting -= 1
            self._count(client, its)
            turn.set_result(None)
