"""Requests, good and bad, that every face must answer alike; and how they are compared."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.conftest import LARGEST_BATCH, TextOf, assert_close

JSON, TEXT = "application/json", "text/plain; charset=utf-8"
DEEP = b'{"inputs": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"


@dataclass(frozen=True)
class Case:
    """One request: what is sent, below which path of the model, and the status that it deserves."""

    name: str
    body: bytes
    content_type: str = JSON
    path: str = ""
    status: int = 200


@dataclass(frozen=True)
class Got:
    """What came back."""

    status: int
    body: Any
    headers: dict[str, str]


def sent(value: Any) -> bytes:
    return json.dumps(value).encode()


def good(text_of: TextOf, count: int = 40) -> list[Case]:
    """Texts of every length, alone and in lists, in the words of several clients."""
    texts = [text_of(2 + i * 7 % 31, seed=i) for i in range(count)]
    cases = [Case(f"text {i}", text.encode(), TEXT) for i, text in enumerate(texts)]
    cases += [
        Case("a JSON string", sent(texts[0])),
        Case("one input", sent({"inputs": texts[1]})),
        Case("a list", sent({"inputs": texts[2:9]})),
        Case("a pair", sent({"text": text_of(5), "text_pair": text_of(9)})),
        Case("cut", sent({"inputs": text_of(60), "parameters": {"truncation": True}})),
        Case("openai", sent({"model": "any", "input": texts[4:7]}), path="v1/embeddings"),
        Case("tei", sent({"inputs": texts[4:7]}), path="embed"),
        Case("tei cuts", sent({"inputs": text_of(60), "truncate": True}), path="embed"),
        Case("kserve", sent({"inputs": [tensor(texts[:3])]}), path="infer"),
    ]
    return cases


def tensor(texts: list[str], **changed: Any) -> dict[str, Any]:
    return {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts, **changed}


def bad(text_of: TextOf, largest: int = 32) -> list[Case]:
    """What is refused. `largest`: tokens of the largest bucket."""
    long = text_of(largest + 8)
    return [
        Case("no body", b"", JSON, status=400),
        Case("cut off", b'{"inputs": "a', JSON, status=400),
        Case("not UTF-8", b"\xff\xfe", TEXT, status=400),
        Case("not UTF-8 in JSON", b'{"inputs": "\xff"}', JSON, status=400),
        Case("NaN", b'{"inputs": NaN}', JSON, status=422),
        Case("nested", DEEP, JSON, status=400),
        Case("an empty list", sent({"inputs": []}), status=400),
        Case("too long", long.encode(), TEXT, status=413),
        Case("too long in a list", sent({"inputs": ["a", long, "b"]}), status=413),
        Case("too many", sent({"inputs": ["a"] * 65}), status=413),
        Case("too many characters", sent({"inputs": ["a" * 90_000] * 3}), status=413),
        Case("a form", b"inputs=a&b=c", "application/x-www-form-urlencoded", status=415),
        Case("a picture", b"\x89PNG", "image/png", status=415),
        Case("as bytes", b"a text", "application/octet-stream", status=415),
        Case("compressed", b"\x1f\x8b\x08\x00", "application/octet-stream", status=415),
        Case("a number", b"5", JSON, status=422),
        Case("null", b"null", JSON, status=422),
        Case("a bare list", sent(["a", "b"]), status=422),
        Case("no inputs", sent({"input": "a"}), status=422),
        Case("a key too many", sent({"inputs": "a", "more": 1}), status=422),
        Case("a number as a text", sent({"inputs": 5}), status=422),
        Case("half a surrogate pair", b'{"inputs": "\\ud800"}', JSON, status=422),
        Case("an unknown parameter", sent({"inputs": "a", "parameters": {"top_k": 1}}), status=422),
        Case("a wrong parameter", sent({"inputs": "a", "parameters": {"truncation": 1}}), status=422),
        Case("parameters that are a list", sent({"inputs": "a", "parameters": []}), status=422),
        Case("half a pair", sent({"inputs": [{"text_pair": "a"}]}), status=422),
        Case("no such path", sent({"inputs": "a"}), path="v1/completions", status=404),
        Case("another task's path", sent({"query": "a", "texts": ["b"]}), path="rerank", status=404),
        Case("openai without input", sent({"model": "a"}), path="v1/embeddings", status=422),
        Case("openai with ids", sent({"model": "a", "input": [[1, 2]]}), path="v1/embeddings", status=422),
        Case("openai, too long", sent({"model": "a", "input": long}), path="v1/embeddings", status=413),
        Case("tei, too long", sent({"inputs": long}), path="embed", status=413),
        Case("kserve, a float", sent({"inputs": [tensor(["a"], datatype="FP32")]}), path="infer", status=422),
        Case("kserve, no texts", sent({"inputs": [tensor(["a"], shape=[2])]}), path="infer", status=422),
    ]


def compare(case: Case, found: Got, expected: Got) -> None:
    """The same status, the same error word for word, the same numbers, and headers that say as much."""
    assert (case.name, expected.status) == (case.name, case.status), expected.body
    assert (case.name, found.status) == (case.name, case.status), found.body
    same(found.body, expected.body, case.name)
    names = {"x-bucket", "x-batch-size", "x-padding-ratio", "x-truncated", "x-windows"}
    told = [{name.lower() for name in got.headers} & names for got in (found, expected)]
    assert told[0] == told[1], case.name
    if found.status == 200 and "x-batch-size" in told[0]:
        rows = found.headers.get("x-batch-size") or found.headers["X-Batch-Size"]
        assert all(1 <= int(row) <= LARGEST_BATCH for row in rows.split(","))


def same(found: Any, expected: Any, where: str) -> None:
    """Equal, numbers within the recipes' tolerance of each vector's largest."""
    if isinstance(expected, dict):
        assert isinstance(found, dict), where
        assert set(found) == set(expected), where
        for key in expected:
            same(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list) and expected and isinstance(expected[0], float):
        assert_close(found, expected)
    elif isinstance(expected, list):
        assert isinstance(found, list), where
        assert len(found) == len(expected), where
        for i, (one, other) in enumerate(zip(found, expected)):
            same(one, other, f"{where}[{i}]")
    elif isinstance(expected, float):
        assert np.isclose(found, expected, rtol=1e-3), where
    else:
        assert found == expected, where
