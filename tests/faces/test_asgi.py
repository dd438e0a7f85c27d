"""The HTTP face without a server around it: paths, forms, limits, and the words of the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import TextOf
from tests.faces.cases import Case, Got, bad, compare, good
from tests.handler.frontend import Worker

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def face(embedding_archive: Path) -> Iterator[Any]:
    from anyshape.faces.asgi import Face
    from anyshape.faces.load import load_answering

    face = Face(load_answering(embedding_archive, 1, "small"), max_body=1_000_000)
    yield face
    face.engine.close()


def send(face: Any, method: str, path: str, **options: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=face)
        async with httpx.AsyncClient(transport=transport, base_url="http://face") as client:
            return await client.request(method, path, **options)

    return asyncio.run(ask())


def test_every_case_is_answered_as_by_torchserves_worker(
    face: Any, embedding_archive_folder: Path, text_of: TextOf
) -> None:
    from tests.faces.test_engine import through_worker

    worker = Worker(embedding_archive_folder)
    for case in [*good(text_of, 5), *bad(text_of)]:
        compare(case, got(face, case), through_worker(worker, case))


def got(face: Any, case: Case) -> Got:
    path = f"/predictions/small/1.0/{case.path}" if case.path else "/predictions/small"
    response = send(face, "POST", path, content=case.body, headers={"Content-Type": case.content_type})
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    return Got(response.status_code, response.json(), dict(response.headers))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/ping", 200),
        ("GET", "/v2/health/ready", 200),
        ("GET", "/v1/models", 200),
        ("GET", "/info", 200),
        ("GET", "/models/small", 200),
        ("GET", "/", 404),
        ("POST", "/predictions/other", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("PUT", "/predictions/small", 404),
        ("GET", "/predictions/small", 400),
    ],
)
def test_paths(face: Any, method: str, path: str, status: int) -> None:
    response = send(face, method, path)
    assert response.status_code == status, response.text
    if status == 404:
        assert response.json()["type"] == "NotFound"


def test_clients_paths_are_at_the_root_too(face: Any) -> None:
    """OpenAI's client takes http://face/v1 for its base, and text-embeddings-inference's http://face."""
    openai = send(face, "POST", "/v1/embeddings", json={"model": "small", "input": "a"}).json()
    (tei,) = send(face, "POST", "/embed", json={"inputs": "a"}).json()
    body = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}
    kserve = send(face, "POST", "/v2/models/small/infer", json=body).json()
    own = send(face, "POST", "/predictions/small", json="a").json()
    assert openai["data"][0]["embedding"] == pytest.approx(own, abs=1e-6)
    assert tei == pytest.approx(own, abs=1e-6)
    assert kserve["outputs"][0]["data"] == pytest.approx(own, abs=1e-6)


def test_forms(face: Any) -> None:
    path = "/predictions/small"
    own = send(face, "POST", path, json="a text").json()
    assert send(face, "POST", path, files={"data": (None, b"a text")}).json() == pytest.approx(own, abs=1e-6)
    named = {"data": ("a.txt", b"a text", "text/plain")}
    assert send(face, "POST", path, files=named).json() == pytest.approx(own, abs=1e-6)
    two = send(face, "POST", path, files={"one": (None, b"a"), "two": (None, b"b")})
    assert two.status_code == 400
    assert "none of the fields ['one', 'two'] is called data" in two.json()["message"]
    broken = send(face, "POST", path, content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert broken.status_code == 400


def test_a_body_that_is_too_large_is_refused_in_the_clients_words(face: Any) -> None:
    body = b'{"input": "' + b"a" * 1_000_001 + b'"}'
    own = send(face, "POST", "/predictions/small", content=body, headers={"Content-Type": "application/json"})
    assert (own.status_code, own.json()["type"]) == (413, "InputTooLarge")
    other = send(face, "POST", "/v1/embeddings", content=body, headers={"Content-Type": "application/json"})
    assert other.status_code == 413
    assert "more than 1000000 bytes" in other.json()["error"]["message"]


def test_a_clients_request_id_comes_back(face: Any) -> None:
    response = send(face, "POST", "/predictions/small", json="a", headers={"X-Request-Id": "mine"})
    assert response.headers["x-request-id"] == "mine"
