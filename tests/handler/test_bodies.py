from __future__ import annotations

import base64
from typing import Any

import pytest

from anyshape.bodies import Body
from anyshape.errors import BadRequest, UnprocessableInput, UnsupportedMediaType
from handler.apis.base import Request
from handler.requests import read_request
from tests.conftest import settings_of

JSON = "application/json"
BYTES = b"RIFF and so on"
ENCODED = base64.b64encode(BYTES).decode()
FILE = Body("a recording", "send a WAV file", kinds=("audio/", "application/ogg"))
NUMBERS = Body("a recording", "send a WAV file", kinds=("audio/",), values=True)
SETTINGS = settings_of(task="x", model="m", buckets=[8])


def read(value: Any, kind: str | None, body: Body) -> Request:
    return read_request(
        {"body": bytearray(value) if isinstance(value, bytes) else value}, kind, body, SETTINGS
    )


@pytest.mark.parametrize(
    "kind",
    [
        *("audio/wav", "AUDIO/X-WAV", "audio/wav; codecs=1", "application/ogg"),
        *("application/octet-stream", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"),
        None,
    ],
)
def test_bytes_come_as_what_the_task_names_or_as_any_bytes(kind: str | None) -> None:
    assert read(BYTES, kind, FILE) == Request([BYTES])


@pytest.mark.parametrize("kind", ["image/png", "application/pdf", "video/mp4", "text/csv"])
def test_bytes_of_another_kind_are_refused_in_the_words_of_the_task(kind: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=f"^{kind} is not a recording: send a WAV file$"):
        read("a,b" if kind.startswith("text/") else BYTES, kind, FILE)


@pytest.mark.parametrize("body", [FILE, NUMBERS])
def test_json_holds_bytes_in_base64(body: Body) -> None:
    assert read({"inputs": ENCODED}, JSON, body) == Request([BYTES])
    assert read({"inputs": [ENCODED, ENCODED]}, JSON, body) == Request([BYTES, BYTES], many=True)
    with pytest.raises(UnprocessableInput, match="a recording is not valid base64"):
        read({"inputs": "*"}, JSON, body)


@pytest.mark.parametrize("value", [[0.5, 1], {"samples": [0.5]}, 7, None])
def test_other_values_in_json_reach_only_a_task_that_takes_them(value: Any) -> None:
    assert read({"inputs": [value]}, JSON, NUMBERS) == Request([value], many=True)
    with pytest.raises(UnprocessableInput, match="a recording in JSON must be a base64 string"):
        read({"inputs": [value]}, JSON, FILE)


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [(b"", "audio/wav", "no body: send a WAV file"), (b"{", JSON, "not valid JSON")],
)
def test_a_body_that_is_none(value: bytes, kind: str, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        read(value, kind, FILE)
