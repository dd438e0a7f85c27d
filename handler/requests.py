"""Rows of a TorchServe batch in, requests out: bodies of every kind, checked.

What the frontend hands over depends on the Content-Type: a decoded value for well-formed JSON, text for
`text/*`, and bytes for everything else, malformed JSON among it. gRPC brings bytes and no headers.
"""

from __future__ import annotations

import base64
import binascii
import json
import reprlib
from collections.abc import Mapping as AnyMapping  # isinstance takes typing's a microsecond
from contextlib import suppress
from typing import Any, Dict, Mapping, Optional

from anyshape.bodies import TEXT, Body
from anyshape.errors import BadRequest, InputTooLarge, UnprocessableInput, UnsupportedMediaType
from anyshape.items import Input, Json
from anyshape.settings import Settings
from handler.apis.base import OWN, Api, OtherApi, Request

_ANY = ("text/plain", "application/octet-stream")  # what a client says that was not told to say JSON
Sent = Mapping[str, Input]  # one row of a batch: form fields, or the one field `body`


def read_request(
    row: Sent, content_type: Optional[str], body: Body, settings: Settings, api: Api = OWN
) -> Request:
    """One row of the batch as a request. `body` is what the task takes.

    An input is bytes where the body is, otherwise whatever JSON held: the task checks it. An empty body is
    the empty text only where the content type says that it is text.
    Raises BadRequest, InputTooLarge, UnsupportedMediaType or UnprocessableInput.
    """
    kind = (content_type or "").split(";")[0].strip().lower()
    if isinstance(api, OtherApi):
        request = _read_other(row, kind, api)
        return request if api.bodyless else _within_limits(request, body, settings)
    value = _value(row, kind, body.how)
    if isinstance(value, (bytes, bytearray)):
        if not value and (not kind or body.is_bytes):
            raise BadRequest(f"the request has no body: {body.how}")
        if body.is_bytes and not (kind.endswith("json") or (not kind and value[:1] in (b"{", b'"'))):
            if kind and not body.takes(kind):
                raise UnsupportedMediaType(f"{kind} is not {body.noun}: {body.how}")
            return Request([bytes(value)], False, _fields(row, value))
        value = _decoded(bytes(value), kind, body.how)
    elif body.is_bytes and kind.startswith("text/"):
        raise UnsupportedMediaType(f"{kind} is not {body.noun}: {body.how}")
    request = _within_limits(_from_json(value, body), body, settings)
    if body.is_bytes:
        request.inputs = [_from_base64(item, body) for item in request.inputs]
    return request


def _read_other(row: Sent, kind: str, api: OtherApi) -> Request:
    """A row that asks through somebody else's API: a JSON object, or nothing where nothing is asked."""
    if api.bodyless:
        return api.read(None)
    value = _value(row, kind, api.how)
    if isinstance(value, str) and kind.startswith("text/"):  # what fetch and the like say of a string
        value = value.encode("utf-8", "surrogatepass")
    if isinstance(value, (bytes, bytearray)):
        if not value:
            raise BadRequest(f"the request has no body: {api.how}")
        value = _decoded(bytes(value), "" if kind in _ANY else kind, api.how)
    if not isinstance(value, AnyMapping):
        raise UnprocessableInput(f"the body is no JSON object: {api.how}")
    return api.read(value)


def one_input(value: Input, parameters: Dict[str, Any], body: Body, settings: Settings) -> Request:
    """The request for one input that came along no server: a file's bytes, or what JSON held.

    Raises InputTooLarge or UnprocessableInput.
    """
    request = Request([value], False, dict(parameters))
    if body.is_bytes and not isinstance(value, bytes):
        request.inputs = [_from_base64(value, body)]
    return _within_limits(request, body, settings)


def _within_limits(request: Request, body: Body, settings: Settings) -> Request:
    """The same request. Raises BadRequest or InputTooLarge, which names the limit."""
    if not request.inputs:
        raise BadRequest("the inputs are an empty list: send at least one input")
    count = len(request.inputs) - request.api.uncounted
    if count > settings.max_items:
        raise InputTooLarge(f"{count} inputs in one request are more than the limit of {settings.max_items}")
    characters = 0 if body.is_bytes else sum(map(_characters, request.inputs))
    prompt = request.parameters.get("prompt")
    if isinstance(prompt, str):  # it will stand before every input
        characters += len(prompt) * len(request.inputs)
    if characters > settings.max_request_characters:
        raise InputTooLarge(
            f"the texts of one request have {characters} characters together, more than the limit of "
            f"{settings.max_request_characters}: send fewer at once"
        )
    return request


def _characters(value: Input) -> int:
    """Of a text, of both texts of a pair, or of a query and all its texts."""
    if isinstance(value, str):
        return len(value)
    fields = value.values() if isinstance(value, AnyMapping) else [value]
    lists = (field if isinstance(field, list) else [field] for field in fields)
    return sum(len(text) for texts in lists for text in texts if isinstance(text, str))


def _value(row: Sent, kind: str, how: str) -> Input:
    """The body, or the form field that holds it."""
    for key in ("body", "data", "inputs"):
        if key in row:
            return row[key]
    if len(row) > 1 and kind.startswith("multipart/"):
        named = reprlib.repr(sorted(row))
        raise BadRequest(f"none of the fields {named} is called data: {how}")
    if len(row) == 1 and kind != "application/x-www-form-urlencoded":
        return next(iter(row.values()))
    if not row and kind.startswith("text/"):
        return ""
    if kind == "application/x-www-form-urlencoded":
        raise UnsupportedMediaType(f"{kind} is not supported: {how}")
    raise BadRequest(f"the request has no body: {how}")


def _decoded(raw: bytes, kind: str, how: str) -> Json:
    """Bytes that hold JSON or text. The frontend leaves JSON as bytes only where it could not read it."""
    if raw[:2] == b"\x1f\x8b":
        raise UnsupportedMediaType("a compressed body is not supported: send it as it is")
    is_json = kind.endswith("json")
    if not (is_json or kind == "" or kind.startswith(("text/", "multipart/"))):
        raise UnsupportedMediaType(f"{kind} is not supported: {how}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    if not is_json and (kind.startswith("text/") or text[:1] not in ("{", "[", '"')):
        return text
    try:
        decoded: Json = json.loads(text, parse_constant=_no_constant)
        return decoded
    except (ValueError, RecursionError) as error:
        if not is_json:
            return text
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadRequest(f"the body is not valid JSON: {detail}") from None


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def _from_json(value: Input, body: Body) -> Request:
    """`"text"`, `{"text", "text_pair"}` or `{"inputs", "parameters"}`."""
    if isinstance(value, str):
        return Request([value])
    if not isinstance(value, AnyMapping):
        kinds = {type(None): "null", list: "a list", bool: "true or false"}
        kind = kinds.get(type(value), "a number")
        raise UnprocessableInput(f"the body is {kind}: {body.how}")
    if body is TEXT and "text" in value and "inputs" not in value:
        parameters = _parameters(value)
        return Request([{k: v for k, v in value.items() if k != "parameters"}], False, parameters)
    if "inputs" not in value:
        raise UnprocessableInput(f'the body has no "inputs": {body.how}')
    for key in value:
        if key not in ("inputs", "parameters"):
            raise UnprocessableInput(
                f'{reprlib.repr(key)} is not known; the body has "inputs" and "parameters"'
            )
    parameters = _parameters(value)
    inputs = value["inputs"]
    if isinstance(inputs, list):
        return Request(list(inputs), True, parameters)
    return Request([inputs], False, parameters)


def _parameters(value: Mapping[str, Json]) -> Dict[str, Json]:
    parameters = value.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, AnyMapping):
        raise UnprocessableInput('"parameters" must be an object')
    return dict(parameters)


def _fields(row: Sent, file: Input) -> Dict[str, Json]:
    """What stands beside a file, as parameters: `top_k=3`, or `parameters={"top_k": 3}`."""
    found: Dict[str, Json] = {}
    for key, raw in row.items():
        if raw is file:
            continue
        value = raw
        if isinstance(raw, (bytes, bytearray)):
            try:
                value = raw.decode("utf-8")
            except UnicodeDecodeError:
                raise UnprocessableInput(f"the field {reprlib.repr(key)} is neither text nor JSON") from None
        if isinstance(value, str):
            with suppress(ValueError, RecursionError):  # a word, as in function_to_apply=sigmoid
                value = json.loads(value, parse_constant=_no_constant)
        found.update(_parameters({"parameters": value}) if key == "parameters" else {key: value})
    return found


def _from_base64(value: Input, body: Body) -> Input:
    """A file's bytes in JSON; a data URL is understood too."""
    if body.values and not isinstance(value, str):
        return value
    if not isinstance(value, str):
        raise UnprocessableInput(f"{body.noun} in JSON must be a base64 string")
    if value.startswith("data:"):
        value = value.partition(",")[2]
    try:
        return base64.b64decode("".join(value.split()), validate=True)  # some tools break its lines
    except (binascii.Error, ValueError) as error:
        raise UnprocessableInput(f"{body.noun} is not valid base64: {error}") from None
