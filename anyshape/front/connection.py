"""One client's connection: requests read strictly and within bounds, answered one by one, in their order.

httptools (Node's parser, without its lenient flags) refuses what two readers could take differently: a
Content-Length beside a Transfer-Encoding, two lengths, folded headers, a line feed without its carriage
return, chunk sizes that are no numbers. What it would let pass and TorchServe need not see is refused here:
other codings than chunked, trailers, HTTP/1.0 chunks, absolute URLs, two Hosts, Upgrade.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Deque, Dict, List, Optional, Tuple, Union, cast

import httptools

from anyshape.front.errors import (
    BadRequest,
    ExpectationFailed,
    HeadersTooLarge,
    InputTooLarge,
    Refused,
    RequestTimeout,
)

if TYPE_CHECKING:
    from anyshape.front.metrics import MetricsPage
    from anyshape.front.proxy import Front

ONCE = {
    b"host", b"authorization", b"content-type", b"content-length", b"transfer-encoding", b"content-encoding",
    b"x-request-id", b"expect", b"traceparent",
}  # fmt: skip
CHUNK_BYTES = 16  # of each chunk's frame: a length in hexadecimal and two ends of lines
CHUNKED = re.compile(rb"[ \t]*chunked[ \t]*", re.IGNORECASE)
LINGER_SECONDS = (
    2.0  # what a client still sends after its answer is read that long, so that it sees the answer
)
LINGER_BYTES = 16 * 1024 * 1024


@dataclass
class Request:
    """A request that has come whole, or as far as it will. Header names are in lower case."""

    method: str = ""
    path: str = ""
    headers: Dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    client: str = ""
    id: str = ""
    begun: float = 0.0  # time.perf_counter() when its headers were there
    who: str = ""  # the name of its token
    keep_alive: bool = True
    refused: Optional[Refused] = None

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def brings_body(self) -> bool:
        """Whether its headers announce a body."""
        return b"transfer-encoding" in self.headers or self.headers.get(b"content-length", b"0") != b"0"


class Connection(asyncio.Protocol):
    """See above. `deadline` (the loop's time) is when `expire` ends it; infinity while it works."""

    def __init__(self, front: Union[Front, MetricsPage]) -> None:
        self._front, self._limits = front, front.settings
        self._transport: Optional[asyncio.Transport] = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: Deque[Request] = deque()
        self._task: Optional[asyncio.Task[None]] = None
        self._request: Optional[Request] = None  # the one that is being read
        self._url = b""
        self._chunks: List[bytes] = []
        self._size = self._head = self._read = self._count = self._framed = 0
        self._in_body = self._closing = False
        self._lingered = 0
        self._known = False  # whether a request with a token that is known has come
        self._client = ""
        self._written: Optional[asyncio.Future[None]] = None  # until the client has taken what was written
        self.deadline = float("inf")

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if peer else ""
        self._wait(self._limits.head_seconds)  # a connection is opened to say something
        refused = self._front.connected(self)
        if refused is not None:
            self._refuse(refused)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            self._linger(len(data))
            return
        if self._request is None:
            self._begin()
        if not self._in_body:
            self._head += len(data)  # may count the beginning of a body, too; see on_headers_complete
        else:
            self._framed += len(data)  # less the body itself and its chunks' usual frames
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(
                BadRequest("this server speaks HTTP/1.1 alone, and tunnels nothing: leave Upgrade out")
            )
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, Refused) else BadRequest("the request cannot be read"))
        except httptools.HttpParserError as error:
            self._refuse(BadRequest(f"this is no plain HTTP/1.1: {str(error)[:200]}"))
        else:
            if not self._in_body and self._head > self._limits.max_head:
                self._refuse(self._long_head())
            elif self._in_body and self._framed > self._limits.max_head:
                self._refuse(BadRequest("the chunks bring too much beside the body: leave extensions out"))
        if self._waiting or self._task:
            self._pause()

    def eof_received(self) -> bool:
        return bool(self._task or self._waiting)  # who has said all may still want the answer

    def pause_writing(self) -> None:
        self._written = asyncio.get_running_loop().create_future()
        self._wait(self._limits.write_seconds)

    def resume_writing(self) -> None:
        if self._written is not None and not self._written.done():
            self._written.set_result(None)
        self._written = None
        self._wait(float("inf"))

    def connection_lost(self, error: Optional[Exception]) -> None:
        self._transport = None
        self._front.disconnected(self)
        if self._task is not None:
            self._task.cancel()

    # What httptools calls.

    def on_message_begin(self) -> None:
        self._begin()

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self._limits.max_head:
            raise self._long_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._request is not None
        if self._in_body:
            raise BadRequest("headers behind a chunked body are not taken: send them before it")
        self._count += 1
        self._read += len(name) + len(value)
        if self._read > self._limits.max_head:
            raise self._long_head()
        if self._count > self._limits.max_headers:
            raise HeadersTooLarge(f"there are more than {self._limits.max_headers} headers")
        name = name.lower()
        if name in self._request.headers and name in ONCE:
            raise BadRequest(f"there are two headers {name.decode('latin-1')}: send one")
        self._request.headers[name] = value

    def on_headers_complete(self) -> None:
        request = self._request
        assert request is not None
        self._in_body = True
        self._head = 0
        request.begun = time.perf_counter()
        request.method = self._parser.get_method().decode("latin-1")
        request.keep_alive = self._parser.should_keep_alive()
        version = self._parser.get_http_version()
        headers = request.headers
        if not self._url.startswith(b"/"):
            raise BadRequest("the URL is no path: send what stands behind the host")
        request.path = self._url.partition(b"?")[0].decode("latin-1")
        if version not in ("1.1", "1.0") or (version == "1.1" and b"host" not in headers):
            raise BadRequest("this is no HTTP/1.1 with a Host header")
        if b"transfer-encoding" in headers:
            if version != "1.1" or not CHUNKED.fullmatch(headers[b"transfer-encoding"]):
                raise BadRequest("the one transfer coding that is taken is chunked, in HTTP/1.1")
        elif int(headers.get(b"content-length", 0)) > self._limits.max_body:
            self._too_large()
        if b"upgrade" in headers:
            raise BadRequest("this server speaks HTTP/1.1 alone: leave Upgrade out")
        refused = self._front.refuse_head(request)
        if refused is not None:
            raise refused
        self._known = self._known or bool(request.who)
        self._expect(headers.get(b"expect", b""))
        self._wait(self._limits.body_seconds)

    def on_chunk_header(self) -> None:
        self._framed -= CHUNK_BYTES

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        self._framed -= len(body)
        if self._size > self._limits.max_body:
            self._too_large()
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        request = self._request
        assert request is not None
        request.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._waiting.append(request)
        self._request, self._chunks, self._in_body = None, [], False
        self._wait(float("inf"))
        if self._task is None:
            self._task = asyncio.ensure_future(self._answer_all())

    # What the front calls.

    @property
    def idle(self) -> bool:
        """Whether it only waits for a next request."""
        return self._task is None and self._request is None and not self._closing

    @property
    def claim(self) -> Tuple[bool, float]:
        """Where connections are short the least is closed: the oldest of those that have shown no token yet,
        or have got their last answer; then the oldest of the others.
        """
        return (self._known and not self._closing, self.deadline)

    @property
    def at_work(self) -> bool:
        """Whether a request of somebody who is known is in hand, or under way."""
        if self._task is not None or self._closing:
            return self._task is not None
        return self._in_body or (self._known and self._request is not None)

    def expire(self) -> None:
        """The deadline is over."""
        self.deadline = float("inf")
        if self._transport is None:
            return
        if self._closing or self.idle or self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            what = "body" if self._in_body else "headers"
            self._refuse(RequestTimeout(f"the request's {what} did not arrive in time"))

    def drain(self) -> None:
        """Close when what is in hand is answered."""
        if self.idle and self._transport is not None:
            self._transport.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # Its own.

    def _begin(self) -> None:
        if self._request is None:
            self._request = Request(client=self._client)
            self._url, self._chunks, self._in_body = b"", [], False
            self._size = self._head = self._read = self._count = self._framed = 0
            self._wait(self._limits.head_seconds)

    def _expect(self, value: bytes) -> None:
        if not value:
            return
        if value.strip().lower() != b"100-continue":
            raise ExpectationFailed("the one expectation that is met is 100-continue: leave Expect out")
        if self._task is None and not self._waiting and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _long_head(self) -> HeadersTooLarge:
        return HeadersTooLarge(f"URL and headers have more than {self._limits.max_head} bytes: send fewer")

    def _too_large(self) -> None:
        raise InputTooLarge(
            f"the request has more than the {self._limits.max_body} bytes that are taken: send less at once"
        )

    def _refuse(self, error: Refused) -> None:
        """Answer an error behind what is in hand, and close: what follows cannot be told apart any more."""
        request = self._request or Request(client=self._client, begun=time.perf_counter())
        request.refused, request.keep_alive = error, False
        if not request.begun:
            request.begun = time.perf_counter()
        self._request, self._closing, self._chunks = None, True, []
        self._waiting.append(request)
        self._wait(float("inf"))
        if self._task is None:
            self._task = asyncio.ensure_future(self._answer_all())

    async def _answer_all(self) -> None:
        while self._waiting:
            request = self._waiting.popleft()
            reply = await self._front.answer(request)
            if self._transport is None:
                return
            last = not request.keep_alive or self._front.draining
            self._transport.write(reply.encode(request, last))
            if self._written is not None:
                await self._written
            if last:
                self._task = None
                self._end(lingers=request.refused is not None)
                return
        self._task = None
        if self._transport is not None and not self._closing:
            self._wait(self._limits.head_seconds if self._request else self._limits.idle_seconds)
            self._transport.resume_reading()

    def _end(self, lingers: bool) -> None:
        """The last answer is written. A client that is still sending is read for a moment: it would be reset
        otherwise, and not see the answer."""
        assert self._transport is not None
        self._closing = True
        self._waiting.clear()
        if not lingers:
            self._transport.close()
            return
        self._wait(LINGER_SECONDS)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()

    def _linger(self, count: int) -> None:
        self._lingered += count
        if self._lingered > LINGER_BYTES and self._transport is not None and self._task is None:
            self._transport.abort()

    def _pause(self) -> None:
        if self._transport is not None and not self._closing:
            self._transport.pause_reading()

    def _wait(self, seconds: float) -> None:
        self.deadline = asyncio.get_running_loop().time() + seconds
