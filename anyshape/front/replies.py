"""An answer to a client, as data and as bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Dict, Tuple

from anyshape.errors import Refused
from anyshape.front.connection import Request
from anyshape.front.errors import body_of, headers_of
from anyshape.front.upstream import Headers

PHRASES = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}
JSON: Tuple[bytes, bytes] = (b"Content-Type", b"application/json")


@dataclass
class Reply:
    """An answer to a client, and what the log says of it."""

    status: int
    headers: Headers
    body: bytes
    type: str = ""
    said: Dict[str, Any] = field(default_factory=dict)

    def encode(self, request: Request, last: bool) -> bytes:
        """As bytes; `last` on its connection."""
        lines = [b"HTTP/1.1 %d %s" % (self.status, PHRASES.get(self.status, b"Unknown"))]
        lines += [b"%s: %s" % header for header in self.headers]
        lines.append(b"Content-Length: %d" % len(self.body))
        lines.append(b"X-Request-ID: " + request.id.encode("ascii"))
        if last:
            lines.append(b"Connection: close")
        lines.append(b"\r\n" if request.method == "HEAD" else b"\r\n" + self.body)
        return b"\r\n".join(lines)


def refusal(error: Refused, words: str) -> Reply:
    """An error as an answer, in a path's words."""
    return Reply(error.code, [JSON, *headers_of(error)], body_of(error, words), type(error).__name__)


def new_id() -> str:
    return os.urandom(16).hex()
