"""Rows of a TorchServe batch in, requests out: bodies of every kind, checked.

What the frontend hands over depends on the Content-Type: a decoded value for well-formed JSON, text for
`text/*`, and bytes for everything else, malformed JSON among it. gRPC brings bytes and no headers.
"""

from __future__ import annotations

import base64
import binascii
import json
import reprlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional

from anyshape.errors import BadRequest, InputTooLarge, Refused, UnprocessableInput, UnsupportedMediaType
from anyshape.settings import Settings
from handler.apis.base import OWN, Api, OtherApi

TEXT, IMAGE = "text", "image"
_EXPECTED = {
    TEXT: 'send text/plain, or application/json such as "a text" or {"inputs": "a text"}',
    IMAGE: 'send a picture as the body, as a form field, or in JSON as {"inputs": "<base64>"}',
}
# What a picture's bytes may be called; the last is what curl calls any body that it is given no type for.
_PICTURES = (
    *("image/", "multipart/", "application/octet-stream", "binary/octet-stream"),
    "application/x-www-form-urlencoded",
)


@dataclass
class Request:
    """What one request asks for.

    many: it sent a list and gets a list back. api: who words the answer. refused: the error that it deserves;
    then it has no inputs.
    """

    inputs: List[Any]
    many: bool = False
    parameters: Dict[str, Any] = field(default_factory=dict)
    api: Api = field(default=OWN, compare=False)
    refused: Optional[Refused] = None


def read_request(
    row: Mapping[str, Any], content_type: Optional[str], body: str, settings: Settings, api: Api = OWN
) -> Request:
    """One row of the batch as a request. `body` is what the task takes: text or image.

    An image input is bytes, a text input whatever JSON held: the task checks it. An empty body is the empty
    text only where the content type says that it is text.
    Raises BadRequest, InputTooLarge, UnsupportedMediaType or UnprocessableInput.
    """
    kind = (content_type or "").split(";")[0].strip().lower()
    if isinstance(api, OtherApi):
        request = _read_other(row, kind, api)
        return request if api.bodyless else _within_limits(request, body, settings)
    expected = _EXPECTED[body]
    value = _value(row, kind, expected)
    if isinstance(value, (bytes, bytearray)):
        if not value and (not kind or body == IMAGE):
            raise BadRequest(f"the request has no body: {expected}")
        if body == IMAGE and not (kind.endswith("json") or (not kind and value[:1] in (b"{", b'"'))):
            if kind and not kind.startswith(_PICTURES):
                raise UnsupportedMediaType(f"{kind} is not a picture: {expected}")
            return Request([bytes(value)], False, _fields(row, value))
        value = _decoded(bytes(value), kind, expected)
    elif body == IMAGE and kind.startswith("text/"):
        raise UnsupportedMediaType(f"{kind} is not a picture: {expected}")
    request = _within_limits(_from_json(value, body), body, settings)
    if body == IMAGE:
        request.inputs = [_from_base64(item) for item in request.inputs]
    return request


def _read_other(row: Mapping[str, Any], kind: str, api: OtherApi) -> Request:
    """A row that asks through somebody else's API: JSON, or nothing where nothing is asked."""
    if api.bodyless:
        return api.read(None)
    value = _value(row, kind, api.expected)
    if isinstance(value, (bytes, bytearray)):
        if not value:
            raise BadRequest(f"the request has no body: {api.expected}")
        value = _decoded(bytes(value), kind, api.expected)
    if not isinstance(value, Mapping):
        raise UnprocessableInput(f"the body is no JSON object: {api.expected}")
    return api.read(value)


def _within_limits(request: Request, body: str, settings: Settings) -> Request:
    """The same request. Raises BadRequest or InputTooLarge, which names the limit."""
    if not request.inputs:
        raise BadRequest("the inputs are an empty list: send at least one input")
    if len(request.inputs) > settings.max_items:
        raise InputTooLarge(
            f"{len(request.inputs)} inputs in one request are more than the limit of {settings.max_items}"
        )
    characters = sum(map(_characters, request.inputs)) if body == TEXT else 0
    if characters > settings.max_request_characters:
        raise InputTooLarge(
            f"the texts of one request have {characters} characters together, more than the limit of "
            f"{settings.max_request_characters}: send fewer at once"
        )
    return request


def _characters(value: Any) -> int:
    """Of a text, or of both texts of a pair."""
    if isinstance(value, Mapping):
        return sum(len(text) for text in value.values() if isinstance(text, str))
    return len(value) if isinstance(value, str) else 0


def _value(row: Mapping[str, Any], kind: str, expected: str) -> Any:
    """The body, or the form field that holds it."""
    for key in ("body", "data", "inputs"):
        if key in row:
            return row[key]
    if len(row) > 1 and kind.startswith("multipart/"):
        named = reprlib.repr(sorted(row))
        raise BadRequest(f"none of the fields {named} is called data: {expected}")
    if len(row) == 1 and kind != "application/x-www-form-urlencoded":
        return next(iter(row.values()))
    if not row and kind.startswith("text/"):
        return ""
    if kind == "application/x-www-form-urlencoded":
        raise UnsupportedMediaType(f"{kind} is not supported: {expected}")
    raise BadRequest(f"the request has no body: {expected}")


def _decoded(raw: bytes, kind: str, expected: str) -> Any:
    """Bytes that hold JSON or text. The frontend leaves JSON as bytes only where it could not read it."""
    if raw[:2] == b"\x1f\x8b":
        raise UnsupportedMediaType("a compressed body is not supported: send it as it is")
    is_json = kind.endswith("json")
    if not (is_json or kind == "" or kind.startswith(("text/", "multipart/"))):
        raise UnsupportedMediaType(f"{kind} is not supported: {expected}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    if not is_json and (kind.startswith("text/") or text[:1] not in ("{", "[", '"')):
        return text
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        if not is_json:
            return text
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadRequest(f"the body is not valid JSON: {detail}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _from_json(value: Any, body: str) -> Request:
    """`"text"`, `{"text", "text_pair"}` or `{"inputs", "parameters"}`."""
    if isinstance(value, str):
        return Request([value])
    if not isinstance(value, Mapping):
        kinds = {type(None): "null", list: "a list", bool: "true or false"}
        kind = kinds.get(type(value), "a number")
        raise UnprocessableInput(f"the body is {kind}: {_EXPECTED[body]}")
    if body == TEXT and "text" in value and "inputs" not in value:
        parameters = _parameters(value)
        return Request([{k: v for k, v in value.items() if k != "parameters"}], False, parameters)
    if "inputs" not in value:
        raise UnprocessableInput(f'the body has no "inputs": {_EXPECTED[body]}')
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


def _parameters(value: Mapping[str, Any]) -> Dict[str, Any]:
    parameters = value.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, Mapping):
        raise UnprocessableInput('"parameters" must be an object')
    return dict(parameters)


def _fields(row: Mapping[str, Any], picture: Any) -> Dict[str, Any]:
    """What stands beside a picture, as parameters: `top_k=3`, or `parameters={"top_k": 3}`."""
    found: Dict[str, Any] = {}
    for key, raw in row.items():
        if raw is picture:
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


def _from_base64(value: Any) -> bytes:
    """A picture in JSON; a data URL is understood too."""
    if not isinstance(value, str):
        raise UnprocessableInput("a picture in JSON must be a base64 string")
    if value.startswith("data:"):
        value = value.partition(",")[2]
    try:
        return base64.b64decode("".join(value.split()), validate=True)  # some tools break its lines
    except (binascii.Error, ValueError) as error:
        raise UnprocessableInput(f"a picture is not valid base64: {error}") from None
