"""What the front refuses, each with its status, and the words that a path's clients expect.

Refused                              (anyshape/errors.py; BadRequest, NotFound, … are the handler's, too)
├── Unauthorized                401  no token, or none that is known
├── MethodNotAllowed            405  nothing is at the path for this method
├── RequestTimeout              408  the request did not arrive in time
├── ExpectationFailed           417  an Expect header other than 100-continue
├── HeadersTooLarge             431  the headers have too many bytes, or are too many
├── BadGateway                  502  TorchServe answered what nobody knows
├── Unavailable                 503  … with Retry-After
│   ├── TooManyConnections           the front has as many clients as it may
│   ├── QueueFull                    every worker is busy, and as many requests wait as may
│   ├── NotReady                     no worker of the model is up
│   ├── WorkerDied                   the worker ended while it had the request in hand
│   ├── KeyRefused                   TorchServe refuses the front's own key: it was just renewed
│   └── ServerDown                   TorchServe is not there
└── TimedOut                    504  no answer in time
"""

from __future__ import annotations

from typing import Any

import orjson

from anyshape.errors import (
    BadRequest,
    InputTooLarge,
    ModelFailed,
    NotFound,
    Refused,
    UnsupportedMediaType,
)

__all__ = ["BadRequest", "InputTooLarge", "ModelFailed", "NotFound", "Refused", "UnsupportedMediaType"]

HOW = 'send "Authorization: Bearer TOKEN"'


class Unauthorized(Refused):
    code, phrase = 401, "Unauthorized"


class MethodNotAllowed(Refused):
    code, phrase = 405, "Method Not Allowed"

    def __init__(self, says: str, allowed: str) -> None:
        super().__init__(says)
        self.allowed = allowed


class RequestTimeout(Refused):
    code, phrase = 408, "Request Timeout"


class ExpectationFailed(Refused):
    code, phrase = 417, "Expectation Failed"


class HeadersTooLarge(Refused):
    code, phrase = 431, "Request Header Fields Too Large"


class BadGateway(Refused):
    code, phrase = 502, "Bad Gateway"


class Unavailable(Refused):
    """Try again after `seconds`."""

    code, phrase = 503, "Service Unavailable"

    def __init__(self, says: str, seconds: float = 1) -> None:
        super().__init__(says)
        self.seconds = max(1, round(seconds))


class TooManyConnections(Unavailable):
    pass


class QueueFull(Unavailable):
    pass


class NotReady(Unavailable):
    pass


class WorkerDied(Unavailable):
    pass


class KeyRefused(Unavailable):
    pass


class ServerDown(Unavailable):
    pass


class TimedOut(Refused):
    code, phrase = 504, "Gateway Timeout"


def headers_of(error: Refused) -> list[tuple[bytes, bytes]]:
    """The headers that an error's status asks for."""
    if isinstance(error, Unauthorized):
        return [(b"WWW-Authenticate", b'Bearer realm="anyshape"')]
    if isinstance(error, MethodNotAllowed):
        return [(b"Allow", error.allowed.encode("ascii"))]
    if isinstance(error, Unavailable):
        return [(b"Retry-After", b"%d" % error.seconds)]
    return []


def body_of(error: Refused, words: str) -> bytes:
    """An error as the clients of a path read it: `words` is "openai", "tei", "kserve", or "" for our own."""
    return orjson.dumps(_BODIES.get(words, Refused.body)(error))


def _openai(error: Refused) -> dict[str, Any]:
    return {
        "error": {
            "message": str(error),
            "type": "invalid_request_error" if error.code < 500 else "server_error",
            "param": None,
            "code": "invalid_api_key" if isinstance(error, Unauthorized) else type(error).__name__,
        }
    }


def _tei(error: Refused) -> dict[str, Any]:
    if isinstance(error, Unavailable):
        kind = "Overloaded" if isinstance(error, (QueueFull, TooManyConnections)) else "Unhealthy"
    else:
        kind = "Validation" if error.code < 500 else "Backend"
    return {"error": str(error), "error_type": kind}


_BODIES: dict[str, Any] = {
    "openai": _openai,
    "tei": _tei,
    "kserve": lambda error: {"error": str(error)},
}
