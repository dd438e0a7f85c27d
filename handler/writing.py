"""Writes a batch's answers as one message, and not field by field.

TorchServe's worker packs and encodes every length, name and value of every header anew. Most of them were in
the batch before: what they look like on the wire is remembered.
"""

from __future__ import annotations

import os
import struct
from functools import lru_cache, partial
from typing import Any, Callable, List, Mapping, Optional, Sequence

from handler.context import Context

_int = struct.Struct("!i").pack
END = _int(-1)


@lru_cache(4096)
def _field(text: str) -> bytes:
    """A text with its length before it."""
    encoded = text.encode()
    return _int(len(encoded)) + encoded


def answers_message(
    usual: Callable[..., Any],
    bodies: Optional[Sequence[Any]],
    ids: Mapping[int, str],
    message: str,
    code: int,
    context: Optional[Context] = None,
) -> Any:
    """Takes the place of `usual`, TorchServe's `create_predict_response`, where all bodies are bytes.

    ids: of the requests, by their places. Everything else, such as the failure of a whole batch, is `usual`.
    """
    plain = context is not None and bodies is not None and all(type(body) is bytes for body in bodies)
    if not plain or context.stopping_criteria:  # type: ignore[union-attr]
        return usual(bodies, ids, message, code, context=context)
    parts: List[bytes] = [_int(code), _field(message)]
    for i, request_id in ids.items():
        answer, body = context.request_processor[i], bodies[i]  # type: ignore[union-attr,index]
        headers = answer.get_response_headers()
        parts += (
            _field.__wrapped__(request_id),  # never comes again
            _field(headers.get("content-type") or ""),
            _int(answer.get_response_status_code() or 200),
            _field(answer.get_response_status_phrase() or ""),
            _int(len(headers)),
            *[_field(part) for pair in headers.items() for part in pair],
            _int(len(body)),
            body,
        )
    return b"".join((*parts, END))


def write_at_once() -> None:
    """Let this worker write so from now on. A TorchServe that writes otherwise goes on as it does."""
    from ts import service  # TorchServe's own, only in workers

    usual = getattr(service, "create_predict_response", None)
    if usual is not None and not isinstance(usual, partial) and os.environ.get("LOCAL_RANK", "0") == "0":
        service.create_predict_response = partial(answers_message, usual)
