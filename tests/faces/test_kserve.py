"""KServe's own server with the same archive, in an environment of its own: `make test-kserve`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.conftest import TextOf, assert_close
from tests.faces.cases import bad, tensor
from tests.faces.kserve_server import kserve_server
from tests.handler.frontend import Worker

pytestmark = pytest.mark.kserve
Plain = Callable[[str], np.ndarray]


@pytest.fixture(scope="module")
def address(embedding_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with kserve_server(embedding_archive, "small", tmp_path_factory.mktemp("kserve") / "log") as address:
        yield address


def test_version_1(address: str, text_of: TextOf, plain_embedding: Plain) -> None:
    texts = [text_of(n) for n in (2, 9, 31)]
    answer = httpx.post(f"{address}/v1/models/small:predict", json={"instances": texts})
    assert answer.status_code == 200, answer.text
    for text, found in zip(texts, answer.json()["predictions"]):
        assert_close(found, plain_embedding(text))


def test_version_2(address: str, text_of: TextOf, plain_embedding: Plain) -> None:
    texts = [text_of(n) for n in (4, 17)]
    body = {"id": "mine", "inputs": [tensor(texts)]}
    answer = httpx.post(f"{address}/v2/models/small/infer", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == "mine"
    (output,) = answer.json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("FP32", [2, 16])
    for text, found in zip(texts, np.reshape(output["data"], (2, 16))):
        assert_close(found, plain_embedding(text))


def test_openais_words(address: str, text_of: TextOf, plain_embedding: Plain) -> None:
    body = {"model": "small", "input": ["a", text_of(20)]}
    answer = httpx.post(f"{address}/openai/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    assert_close(answer.json()["data"][1]["embedding"], plain_embedding(text_of(20)))


def test_refusals_have_their_status_and_their_words(
    address: str, text_of: TextOf, embedding_archive_folder: Path
) -> None:
    """Those of version 2 as TorchServe's worker says them; of version 1 in the words of the wire."""
    from tests.faces.test_engine import through_worker

    long = text_of(40)
    refused = httpx.post(f"{address}/v1/models/small:predict", json={"instances": ["a", long]})
    assert refused.status_code == 413
    assert refused.json()["error"].startswith("inputs[1]: the input has 40 tokens")
    assert httpx.post(f"{address}/v1/models/small:predict", json={"instance": "a"}).status_code == 422
    worker = Worker(embedding_archive_folder)
    for case in bad(text_of):
        if case.path == "infer":
            expected = through_worker(worker, case)
            headers = {"Content-Type": case.content_type}
            found = httpx.post(f"{address}/v2/models/small/infer", content=case.body, headers=headers)
            assert (found.status_code, found.json()) == (expected.status, expected.body), case.name
