from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from anyshape.bodies import IMAGE, TEXT, Body
from anyshape.errors import (
    BadRequest,
    InputTooLarge,
    Refused,
    UnprocessableInput,
    UnsupportedMediaType,
)
from anyshape.settings import Settings
from handler.apis.base import Request
from handler.requests import read_request
from tests.conftest import settings_of

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=x"


def limits(max_items: int = 8, max_characters: int = 200_000) -> Settings:
    """Settings with these limits."""
    section = {"task": "sentence-embedding", "model": "m:f", "buckets": [16]}
    return settings_of(**section, max_items=max_items, max_request_characters=max_characters)


LIMITS, FEW = limits(), limits(max_characters=100)


def read(value: Any, content_type: str | None = JSON, body: Body = TEXT, key: str = "body") -> Request:
    return read_request({key: value}, content_type, body, FEW)


# What the frontend could decode arrives as a value; everything else as bytes.


@pytest.mark.parametrize(
    ("value", "content_type", "request_"),
    [
        ("a text", JSON, Request(["a text"])),
        ("", JSON, Request([""])),
        ({"inputs": "a"}, JSON, Request(["a"])),
        ({"inputs": ""}, JSON, Request([""])),
        ({"inputs": ["a", "b"]}, JSON, Request(["a", "b"], many=True)),
        ({"inputs": ["a"]}, JSON, Request(["a"], many=True)),
        ({"inputs": "a", "parameters": {"top_k": 2}}, JSON, Request(["a"], False, {"top_k": 2})),
        ({"inputs": "a", "parameters": None}, JSON, Request(["a"])),
        ({"inputs": "a", "parameters": {}}, JSON, Request(["a"])),
        ({"text": "a", "text_pair": "b"}, JSON, Request([{"text": "a", "text_pair": "b"}])),
        (
            {"text": "a", "text_pair": "b", "parameters": {"top_k": 2}},
            JSON,
            Request([{"text": "a", "text_pair": "b"}], False, {"top_k": 2}),
        ),
        ({"inputs": {"text": "a"}}, JSON, Request([{"text": "a"}])),
        ({"inputs": [{"text": "a"}, "b"]}, JSON, Request([{"text": "a"}, "b"], many=True)),
        # Falsy and odd inputs are the task's to judge: they must reach it as they are.
        *(({"inputs": value}, JSON, Request([value])) for value in (None, 0, False, {}, 1.5)),
        ({"inputs": [None, 0, ""]}, JSON, Request([None, 0, ""], many=True)),
        ("a text", "text/plain", Request(["a text"])),
        ("", "text/plain", Request([""])),
        ('{"inputs": "not JSON here"}', "text/plain", Request(['{"inputs": "not JSON here"}'])),
        ("\ufeffa", "text/plain; charset=utf-8", Request(["\ufeffa"])),
        # bytes
        (bytearray(b'{"inputs": ["a"]}'), "application/json; charset=utf-8", Request(["a"], many=True)),
        (bytearray(b'"a"'), "application/vnd.api+json", Request(["a"])),
        (bytearray("ä".encode()), "text/plain", Request(["ä"])),
        (bytearray(b'"quoted"'), "text/plain", Request(['"quoted"'])),
        (bytearray(b"a text"), MULTIPART, Request(["a text"])),
        (bytearray(b'{"inputs": "a"}'), MULTIPART, Request(["a"])),
        # gRPC: bytes, no headers
        (bytearray(b'{"inputs": ["a"]}'), None, Request(["a"], many=True)),
        (bytearray(b'{"text": "a", "text_pair": "b"}'), None, Request([{"text": "a", "text_pair": "b"}])),
        (bytearray(b'"a"'), None, Request(["a"])),
        (bytearray(b"a plain text"), None, Request(["a plain text"])),
        (bytearray(b"5 apples"), None, Request(["5 apples"])),
        (bytearray(b"{not JSON}"), None, Request(["{not JSON}"])),
        (bytearray(b'""'), None, Request([""])),
        (bytearray(b""), "text/plain", Request([""])),
        (bytearray(b""), MULTIPART, Request([""])),
    ],
)
def test_text_bodies(value: Any, content_type: str | None, request_: Request) -> None:
    assert read(value, content_type) == request_


@pytest.mark.parametrize(
    ("value", "content_type", "error", "says"),
    [
        # Malformed JSON arrives as bytes
        (bytearray(b'{"inputs": '), JSON, BadRequest, "not valid JSON"),
        (bytearray(b""), JSON, BadRequest, "not valid JSON"),
        (bytearray(b'\xef\xbb\xbf{"inputs": "a"}'), JSON, BadRequest, "BOM"),
        (bytearray(b"\x1f\x8b\x08\x00"), JSON, UnsupportedMediaType, "compressed"),
        (bytearray(b"\x1f\x8b\x08\x00"), None, UnsupportedMediaType, "compressed"),
        (bytearray(b"[" * 100_000), JSON, BadRequest, "too deeply"),
        (bytearray(b'{"inputs": "\xff"}'), JSON, BadRequest, "UTF-8"),
        (bytearray(b"\xe4"), "text/plain; charset=latin-1", BadRequest, "UTF-8"),
        (bytearray(b"\xff\xfe"), None, BadRequest, "UTF-8"),
        (bytearray(b'{"inputs": NaN}'), JSON, BadRequest, "NaN"),
        (bytearray(b'{"inputs": "a"} x'), JSON, BadRequest, "not valid JSON"),
        (bytearray(b"1" * 5000), JSON, BadRequest, "not valid JSON"),
        # Another kind of body
        (bytearray(b"a"), FORM, UnsupportedMediaType, "x-www-form-urlencoded"),
        (bytearray(b"a"), "application/octet-stream", UnsupportedMediaType, "octet-stream"),
        (bytearray(b"\x89PNG"), "image/png", UnsupportedMediaType, "image/png"),
        (bytearray(b"a"), "application/xml", UnsupportedMediaType, "application/xml"),
        # Readable, but wrong
        (None, JSON, UnprocessableInput, "null"),
        *((number, JSON, UnprocessableInput, "a number") for number in (0, 5, 1.5, float("nan"))),
        *((value, JSON, UnprocessableInput, "true or false") for value in (True, False)),
        (["a", "b"], JSON, UnprocessableInput, "a list"),
        ([], JSON, UnprocessableInput, "a list"),
        ({}, JSON, UnprocessableInput, 'no "inputs"'),
        ({"input": "a"}, JSON, UnprocessableInput, 'no "inputs"'),
        ({"inputs": "a", "top_k": 3}, JSON, UnprocessableInput, "'top_k' is not known"),
        ({"inputs": "a", "text": "b"}, JSON, UnprocessableInput, "'text' is not known"),
        ({"inputs": "a", "\ud800": 1}, JSON, UnprocessableInput, "not known"),
        ({"inputs": "a", "parameters": [1]}, JSON, UnprocessableInput, "must be an object"),
        ({"inputs": "a", "parameters": "b"}, JSON, UnprocessableInput, "must be an object"),
        ({"text": "a", "parameters": 3}, JSON, UnprocessableInput, "must be an object"),
        ({"inputs": ["a"] * 9}, JSON, InputTooLarge, "9 inputs .* limit of 8"),
        ({"inputs": ["a" * 60] * 2}, JSON, InputTooLarge, "120 characters .* limit of 100: send fewer"),
        ({"text": "a" * 60, "text_pair": "b" * 41}, JSON, InputTooLarge, "101 characters"),
        # A prompt will stand before every input.
        ({"inputs": ["a"] * 5, "parameters": {"prompt": "b" * 20}}, JSON, InputTooLarge, "105 characters"),
        ({"inputs": [None, "a" * 60, {"text": "b" * 41}]}, JSON, InputTooLarge, "101 characters"),
        # Nothing at all
        (bytearray(b""), None, BadRequest, "no body"),
        ({"inputs": []}, JSON, BadRequest, "empty list"),
    ],
)
def test_text_bodies_that_are_refused(
    value: Any, content_type: str | None, error: type[Refused], says: str
) -> None:
    with pytest.raises(error, match=says) as refused:
        read(value, content_type)
    assert type(refused.value) is error


@pytest.mark.parametrize("key", ["x" * 5_000_000, "\u200b" * 1_000_000])
def test_a_long_key_is_not_sent_back_whole(key: str) -> None:
    with pytest.raises(UnprocessableInput) as refused:
        read({"inputs": "a", key: 1})
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("row", "content_type", "error"),
    [({}, None, BadRequest), ({}, JSON, BadRequest), ({}, FORM, UnsupportedMediaType)],
)
def test_a_row_without_a_body(row: dict[str, Any], content_type: str | None, error: type[Refused]) -> None:
    with pytest.raises(error):
        read_request(row, content_type, TEXT, LIMITS)


def test_an_empty_plain_text_may_arrive_without_a_row() -> None:
    assert read_request({}, "text/plain", TEXT, LIMITS) == Request([""])


@pytest.mark.parametrize("key", ["body", "data", "inputs", "anything"])
def test_a_form_field_of_any_name(key: str) -> None:
    assert read(bytearray(b"a"), MULTIPART, key=key) == Request(["a"])


@pytest.mark.parametrize("key", ["x", "a=b&c", ""])
def test_a_form_encoded_body_is_refused_under_any_name(key: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        read("", FORM, key=key)


PNG = b"\x89PNG and so on"
ENCODED = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    ("value", "content_type", "request_"),
    [
        (bytearray(PNG), "image/png", Request([PNG])),
        (bytearray(PNG), "application/octet-stream", Request([PNG])),
        (bytearray(PNG), MULTIPART, Request([PNG])),
        (bytearray(PNG), None, Request([PNG])),
        (bytearray(PNG), FORM, Request([PNG])),  # what curl --data-binary says unless told otherwise
        ({"inputs": ENCODED}, JSON, Request([PNG])),
        ({"inputs": f"data:image/png;base64,{ENCODED}"}, JSON, Request([PNG])),
        ({"inputs": [ENCODED, ENCODED]}, JSON, Request([PNG, PNG], many=True)),
        (bytearray(json.dumps({"inputs": ENCODED}).encode()), None, Request([PNG])),
    ],
)
def test_picture_bodies(value: Any, content_type: str | None, request_: Request) -> None:
    assert read(value, content_type, IMAGE) == request_


@pytest.mark.parametrize(
    ("value", "content_type", "error"),
    [
        ("a text", "text/plain", UnsupportedMediaType),
        ({"inputs": "not base64!"}, JSON, UnprocessableInput),
        ({"inputs": "ä"}, JSON, UnprocessableInput),
        ({"inputs": 5}, JSON, UnprocessableInput),
        ({"inputs": None}, JSON, UnprocessableInput),
        (bytearray(b"{"), JSON, BadRequest),
        (bytearray(b""), None, BadRequest),
        (bytearray(b""), "image/png", BadRequest),
        ({"inputs": []}, JSON, BadRequest),
    ],
)
def test_picture_bodies_that_are_refused(value: Any, content_type: str | None, error: type[Refused]) -> None:
    with pytest.raises(error):
        read(value, content_type, IMAGE)


@pytest.mark.parametrize("kind", ["application/pdf", "video/mp4", "text/html"])
def test_what_says_that_it_is_no_picture_is_refused_as_such(kind: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=kind):
        read_request({"body": bytearray(b"%PDF")}, kind, IMAGE, LIMITS)


def test_base64_with_broken_lines() -> None:
    lines = base64.encodebytes(PNG * 40).decode()
    assert "\n" in lines.strip()
    assert read_request({"body": {"inputs": lines}}, "application/json", IMAGE, LIMITS) == Request([PNG * 40])


# Fields beside a picture


@pytest.mark.parametrize("field", ["data", "body", "inputs"])
@pytest.mark.parametrize(
    ("beside", "parameters"),
    [
        ({"top_k": bytearray(b"3")}, {"top_k": 3}),
        ({"top_k": "3", "function_to_apply": "sigmoid"}, {"top_k": 3, "function_to_apply": "sigmoid"}),
        ({"parameters": bytearray(b'{"threshold": 0.25}')}, {"threshold": 0.25}),
        ({"pool": bytearray(b"true"), "speed": bytearray("ä{".encode())}, {"pool": True, "speed": "ä{"}),
    ],
)
def test_form_fields_beside_a_picture_are_parameters(
    field: str, beside: dict[str, Any], parameters: dict[str, Any]
) -> None:
    row = {**beside, field: bytearray(b"\x89PNG")}
    assert read_request(row, MULTIPART, IMAGE, LIMITS) == Request([b"\x89PNG"], False, parameters)


@pytest.mark.parametrize(
    ("row", "error", "says"),
    [
        ({"data": bytearray(b"a"), "parameters": bytearray(b"[1]")}, UnprocessableInput, "must be an object"),
        ({"data": bytearray(b"a"), "other": bytearray(b"\x89PNG")}, UnprocessableInput, "field 'other'"),
        (
            {"file": bytearray(b"a"), "top_k": bytearray(b"3")},
            BadRequest,
            r"\['file', 'top_k'\] is called data",
        ),
    ],
)
def test_form_fields_that_cannot_be_parameters(row: dict[str, Any], error: type[Refused], says: str) -> None:
    with pytest.raises(error, match=says):
        read_request(row, MULTIPART, IMAGE, LIMITS)
