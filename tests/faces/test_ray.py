"""Ray Serve with the same archive, asked over HTTP, by OpenAI's words and by this project's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from anyshape.errors import ConfigError
from tests.conftest import TextOf, assert_close
from tests.faces.ray_server import ray_server

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def address(embedding_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ray_server(embedding_archive, "small", tmp_path_factory.mktemp("ray") / "log") as address:
        yield address


def test_it_answers_as_the_plain_model_does(
    address: str, text_of: TextOf, plain_embedding: Callable[[str], np.ndarray]
) -> None:
    texts = [text_of(2 + i * 11 % 31, seed=i) for i in range(40)]

    def ask(text: str) -> httpx.Response:
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        return httpx.post(f"{address}/predictions/small", content=text.encode(), headers=headers, timeout=120)

    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(ask, texts))
    for text, response in zip(texts, responses):
        assert response.status_code == 200, response.text
        assert_close(response.json(), plain_embedding(text))
        assert response.headers["x-bucket"] in ("4", "8", "16", "32")
    assert any(int(response.headers["x-batch-size"]) > 1 for response in responses)


def test_errors_and_other_words(address: str, text_of: TextOf) -> None:
    refused = httpx.post(f"{address}/v1/embeddings", json={"model": "small", "input": text_of(40)})
    assert refused.status_code == 413
    assert refused.json()["error"]["type"] == "invalid_request_error"
    fine = httpx.post(f"{address}/v1/embeddings", json={"model": "small", "input": ["a", "b"]})
    assert len(fine.json()["data"]) == 2
    assert httpx.get(f"{address}/ping").json() == {"status": "Healthy"}
    assert httpx.post(f"{address}/predictions/other", json="a").status_code == 404


@pytest.mark.filterwarnings("ignore")  # Ray's own, when it is imported
def test_what_app_does_not_know_is_named(tmp_path: Path) -> None:
    from anyshape.ray import app

    with pytest.raises(ConfigError, match="is not there"):
        app(tmp_path / "none.mar")
    with pytest.raises(ConfigError, match="unknown field `replica`"):
        app({"archive": "x.mar", "replica": 2})
