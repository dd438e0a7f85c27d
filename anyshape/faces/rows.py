"""Bodies of HTTP requests as the rows that TorchServe's worker makes of them, so that both read the same."""

from __future__ import annotations

import json
from typing import Any, AsyncGenerator, Dict, Optional
from urllib.parse import parse_qsl

from starlette.datastructures import UploadFile
from starlette.requests import Request as HttpRequest

from anyshape.errors import BadRequest, InputTooLarge
from anyshape.items import Input

FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"


async def row_of(request: HttpRequest, most: int) -> Dict[str, Input]:
    """The fields of a form, or the one field `body`.

    Raises InputTooLarge for a body of more than `most` bytes, before the rest is read, and BadRequest for a
    form that cannot be read.
    """
    body = await _read(request, most)
    kind = mime_type(request.headers.get("content-type"))
    if kind == FORM:
        return {name: value.encode() for name, value in parse_qsl(body.decode("utf-8", "replace"), True)}
    if kind == MULTIPART:
        return await _fields(request, body)
    return {"body": decoded(body, kind)}


def mime_type(content_type: Optional[str]) -> str:
    """`text/plain; charset=utf-8` is text/plain."""
    return (content_type or "").split(";")[0].strip().lower()


def decoded(body: bytes, kind: str) -> Input:
    """JSON where it can be read, text where it says so, and bytes otherwise."""
    try:
        if kind == "application/json":
            value: Input = json.loads(body.decode("utf-8"))
            return value
        if kind.startswith("text"):
            return body.decode("utf-8")
    except (ValueError, RecursionError):
        pass
    return body


async def _read(request: HttpRequest, most: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise InputTooLarge(f"the request has more than {most} bytes: send less at once")
        parts.append(part)
    return b"".join(parts)


async def _fields(request: HttpRequest, body: bytes) -> Dict[str, Input]:
    """The fields of a multipart form; files and texts alike."""
    from starlette.formparsers import MultiPartException, MultiPartParser

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    bounds: Any = {"max_files": 100, "max_fields": 100, "max_part_size": len(body)}
    parser = MultiPartParser(request.headers, stream(), **bounds)
    found: Dict[str, Input] = {}
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, AssertionError) as error:
        raise BadRequest(f"the form cannot be read: {error}") from None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            content = await value.read()
            found[name] = decoded(content, mime_type(value.content_type))
        else:
            found[name] = value.encode()
    await form.close()
    return found
