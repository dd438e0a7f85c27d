"""docs/openapi.yaml against a live server: every path that it names, and no answer that it does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml

from anyshape.front.routes import LIVE, READY, WITHOUT_MODEL
from tests.conftest import ROOT
from tests.server.fronted import Fronted

DOCUMENT = ROOT / "docs" / "openapi.yaml"
SPEC: dict[str, Any] = yaml.safe_load(DOCUMENT.read_text(encoding="utf-8"))
TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a text"]}
# (method, path, body, the status that is right for a sentence encoder)
ASKED: list[tuple[str, str, Any, int]] = [
    ("get", "/livez", None, 200),
    ("get", "/readyz", None, 200),
    ("get", "/readyz/{model}", None, 200),
    ("post", "/predictions/{model}", {"inputs": ["a text", "and another"]}, 200),
    ("post", "/predictions/{model}/{version}", {"inputs": "a text"}, 200),
    ("post", "/v1/embeddings", {"input": ["a text"], "encoding_format": "float"}, 200),
    ("get", "/v1/models", None, 200),
    ("post", "/embed", {"inputs": "a text"}, 200),
    ("post", "/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}}, 200),
    ("get", "/info", None, 200),
    ("post", "/v2/models/{model}/infer", {"inputs": [TENSOR]}, 200),
    ("post", "/embed_all", {"inputs": "a text"}, 404),
    ("post", "/embed_sparse", {"inputs": "a text"}, 404),
    ("post", "/predict", {"inputs": "a text"}, 404),
    ("post", "/rerank", {"query": "a", "texts": ["b"]}, 404),
]


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, embedding_archive: Path) -> Iterator[Fronted]:
    folder = tmp_path_factory.mktemp("openapi")
    (folder / "store").mkdir()
    shutil.copy(embedding_archive, folder / "store" / "small.mar")
    with Fronted(folder, "small") as front:
        yield front


def resolved(part: Any) -> Any:
    return (
        SPEC["components"][part["$ref"].split("/")[2]][part["$ref"].split("/")[3]] if "$ref" in part else part
    )


def check(method: str, path: str, response: httpx.Response) -> None:
    """The status is documented, its headers are there, and the body is what its schema says."""
    documented = SPEC["paths"][path][method]["responses"]
    said = resolved(documented.get(str(response.status_code), documented.get("default")))
    for name, header in said.get("headers", {}).items():
        assert not resolved(header).get("required") or name in response.headers, (path, name)
    schema = said["content"][response.headers["content-type"].partition(";")[0]]["schema"]
    whole = {**schema, "components": SPEC["components"]}
    jsonschema.Draft202012Validator(whole).validate(response.json())


def test_every_path_that_is_served_is_documented() -> None:
    named = set(SPEC["paths"])
    assert {path for _, path, _, _ in ASKED} == named
    assert set(WITHOUT_MODEL) - {"/embeddings"} <= named
    assert LIVE[0] in named
    assert READY[0] in named


@pytest.mark.parametrize(("method", "path", "body", "status"), ASKED, ids=[path for _, path, _, _ in ASKED])
def test_what_is_answered_is_documented(
    front: Fronted, method: str, path: str, body: Any, status: int
) -> None:
    url = front.url + path.replace("{model}", "small").replace("{version}", "1.0")
    asked = {"content": json.dumps(body).encode()} if body is not None else {}
    headers = {**front.bearer, "Content-Type": "application/json"}
    response = front.http.request(method, url, headers=headers, **asked)
    assert response.status_code == status, response.text
    check(method, path, response)
    if method == "post":
        for wrong in (b"{", b"[]", b'{"inputs": 5, "input": 5}', b""):
            refused = front.http.post(url, headers=headers, content=wrong)
            assert 400 <= refused.status_code < 500, (wrong, refused.text)
            check("post", path, refused)
        form = front.http.post(url, headers={**front.bearer, "Content-Type": "multipart/form-data"})
        assert form.status_code == 415
        check("post", path, form)
    if SPEC["paths"][path][method].get("security") is None:
        unknown = httpx.request(method, url, headers={"Authorization": "Bearer nobody's token"}, **asked)
        assert unknown.status_code == 401
        check(method, path, unknown)


@pytest.mark.faults
def test_schemathesis_finds_nothing(front: Fronted, tmp_path: Path) -> None:
    """With its own requests from the document; it is installed apart (make test-faults does it)."""
    program = Path(os.environ.get("SCHEMATHESIS", ROOT / ".venv" / "fuzz" / "bin" / "schemathesis"))
    if not program.exists():
        pytest.skip("schemathesis is not installed: make test-faults")
    command = [str(program), "run", str(DOCUMENT), "--url", front.url, "--no-color"]
    command += [
        "-H",
        f"Authorization: {front.bearer['Authorization']}",
        "--seed",
        os.environ.get("FAULTS_SEED", "0"),
    ]
    command += ["--max-examples", os.environ.get("FAULTS_EXAMPLES", "20")]
    command += ["--checks", "not_a_server_error,status_code_conformance,content_type_conformance,"]
    command[-1] += "response_schema_conformance,response_headers_conformance"
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1200, check=False)
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
