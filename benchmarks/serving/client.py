"""A small HTTP/1.1 client for load: one keep-alive connection, one request at a time.

General clients (httpx, requests) cost a quarter to a whole millisecond of CPU per request, which on a
machine of few cores is taken from the server under test. Here a request is bytes rendered beforehand
and httptools (node's parser, the one in uvicorn) reads the answer: about 0.05 ms.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

import httptools


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def render(path: str, body: bytes, content_type: str, host: str = "127.0.0.1") -> bytes:
    """The bytes of one POST request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


class Connection(asyncio.Protocol):
    """One keep-alive connection.

        connection = await Connection.open("127.0.0.1", 8080)
        answer = await connection.ask(render("/predictions/m", b"text", "text/plain"))

    `ask` raises ConnectionError if the server hangs up before it has answered.
    """

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.waiter: asyncio.Future[Answer] | None = None
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.parser = httptools.HttpResponseParser(self)

    @classmethod
    async def open(cls, host: str, port: int) -> Connection:
        _, protocol = await asyncio.get_running_loop().create_connection(cls, host, port)
        return protocol

    async def ask(self, request: bytes) -> Answer:
        if self.closed:
            raise ConnectionError("the server closed the connection")
        assert self.transport is not None
        self.waiter = asyncio.get_running_loop().create_future()
        self.headers, self.chunks = {}, []
        self.transport.write(request)
        return await self.waiter

    @property
    def closed(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.fail(ConnectionError(f"not HTTP: {error}"))
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.fail(ConnectionError("the server closed the connection"))

    def fail(self, error: Exception) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(error)

    # What httptools calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self.chunks.append(body)

    def on_message_complete(self) -> None:
        answer = Answer(self.parser.get_status_code(), self.headers, b"".join(self.chunks))
        keep_alive = self.parser.should_keep_alive()
        self.parser = httptools.HttpResponseParser(self)
        if not keep_alive:
            self.close()
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(answer)
