"""Connections to TorchServe that are kept, and one question at a time on each."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Deque, List, Optional, Set, Tuple, cast
from urllib.parse import urlsplit

import httptools

Headers = List[Tuple[bytes, bytes]]
CONNECT_SECONDS = 5.0


@dataclass
class Answer:
    """What TorchServe said; header names in lower case."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> str:
        return next((value.decode("latin-1") for key, value in self.headers if key == name), "")


class HungUp(ConnectionError):
    """The connection ended before the answer was whole. begun: some of the answer had come."""

    def __init__(self, begun: bool) -> None:
        super().__init__("TorchServe hung up")
        self.begun = begun


class Upstream:
    """TorchServe at one address.

        answer = await upstream.ask(b"POST /predictions/m HTTP/1.1\\r\\n...", held=set())

    Raises OSError where nobody listens, HungUp, and TimeoutError after `seconds`.
    """

    def __init__(self, address: str, seconds: float) -> None:
        parts = urlsplit(address)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.seconds = seconds
        self._idle: Deque[UpstreamConnection] = deque()

    async def ask(self, request: bytes, held: Optional[Set[UpstreamConnection]] = None) -> Answer:
        """The answer to a request. While it is awaited its connection is in `held`, where it can be failed.

        A kept connection may have been closed by TorchServe at the moment that it was used: nothing of an
        answer has come then, and the request is sent once more on a new one.
        """
        while self._idle:
            connection = self._idle.pop()
            if connection.closed:
                continue
            try:
                return await self._ask(connection, request, held)
            except HungUp as error:
                if error.begun or not connection.stale():
                    raise
                break
        return await self._ask(await self._open(), request, held)

    async def _ask(
        self, connection: UpstreamConnection, request: bytes, held: Optional[Set[UpstreamConnection]]
    ) -> Answer:
        if held is not None:
            held.add(connection)
        timer = asyncio.get_running_loop().call_later(self.seconds, connection.fail, TimeoutError())
        try:
            answer = await connection.ask(request)
        except BaseException:
            connection.close()  # whatever else it sends answers nobody
            raise
        finally:
            timer.cancel()
            if held is not None:
                held.discard(connection)
        if not connection.closed:
            self._idle.append(connection)
        return answer

    async def _open(self) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        opening = loop.create_connection(UpstreamConnection, self.host, self.port)
        try:
            _, connection = await asyncio.wait_for(opening, CONNECT_SECONDS)
        except asyncio.TimeoutError:
            raise ConnectionError("TorchServe takes no connections") from None
        return connection

    def close(self) -> None:
        """Close what is kept."""
        while self._idle:
            self._idle.pop().close()


class UpstreamConnection(asyncio.Protocol):
    """One connection; httptools reads what comes."""

    def __init__(self) -> None:
        self._transport: Optional[asyncio.Transport] = None
        self._waiter: Optional[asyncio.Future[Answer]] = None
        self._headers: Headers = []
        self._chunks: List[bytes] = []
        self._parser = httptools.HttpResponseParser(self)
        self._asked = 0.0
        self._begun = False

    async def ask(self, request: bytes) -> Answer:
        if self._transport is None:
            raise HungUp(False)
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        self._headers, self._chunks, self._begun, self._asked = [], [], False, loop.time()
        self._transport.write(request)
        return await self._waiter

    def stale(self) -> bool:
        """Whether it ended so soon after it was asked that TorchServe cannot have read the question."""
        return asyncio.get_running_loop().time() - self._asked < 0.05

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def fail(self, error: BaseException) -> None:
        """End the wait for an answer with an error."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()
            self.fail(HungUp(True))

    def connection_lost(self, error: Optional[Exception]) -> None:
        self._transport = None
        self.fail(HungUp(self._begun))

    # What httptools calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return  # 100 Continue
        if not self._parser.should_keep_alive():
            self.close()
        self._parser = httptools.HttpResponseParser(self)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(Answer(status, self._headers, b"".join(self._chunks)))
