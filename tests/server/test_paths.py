"""The paths below a model's version, and KServe's own, as TorchServe hands them on."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from tests.server.conftest import Encode
from tests.server.harness import Server

TENSORS = {"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["one", "two"]}]}


def post(server: Server, path: str, body: Any, **headers: str) -> httpx.Response:
    url = f"{server.torchserve.inference}{path}"
    return server.http.post(url, json=body, headers={**server.token("inference"), **headers})


def get(server: Server, path: str) -> httpx.Response:
    return server.http.get(f"{server.torchserve.inference}{path}", headers=server.token("inference"))


def assert_same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found, np.float32), np.asarray(expected), atol=1e-4, rtol=0)


def test_the_rest_of_the_path_says_whose_words_are_spoken(
    server: Server, minilm: str, encode: Encode
) -> None:
    below = f"/predictions/{minilm}/1.0"
    answer = post(server, f"{below}/v1/embeddings", {"input": ["one", "two"], "model": "m"})
    assert answer.status_code == 200, server.explain(answer)
    assert answer.headers["X-Bucket"] == "16,16"
    assert_same([row["embedding"] for row in answer.json()["data"]], [encode("one"), encode("two")])
    assert_same(post(server, f"{below}/embed", {"inputs": "one"}).json(), [encode("one")])
    assert_same(post(server, f"{below}/", {"inputs": "one"}).json(), encode("one"))
    assert_same(post(server, below, {"inputs": "one"}).json(), encode("one"))


def test_info_and_health_are_asked_by_get(server: Server, minilm: str) -> None:
    info = get(server, f"/predictions/{minilm}/1.0/info")
    assert info.status_code == 200, server.explain(info)
    assert info.json()["model_id"] == minilm
    assert info.json()["max_input_length"] == 512
    assert get(server, f"/predictions/{minilm}/1.0/health").status_code == 200
    assert post(server, f"/predictions/{minilm}/1.0/info", {}).json() == info.json()


@pytest.mark.parametrize("path", ["v1/chat/completions", "predict", "v2/models/minilm"])
def test_a_path_that_the_task_lacks_is_404(path: str, server: Server, minilm: str) -> None:
    response = post(server, f"/predictions/{minilm}/1.0/{path}", {"inputs": "x"})
    assert response.status_code == 404, server.explain(response)
    assert "v1/embeddings" in response.text  # in the words of the API whose path it is


def test_a_clients_own_header_is_no_path(server: Server, minilm: str, encode: Encode) -> None:
    response = post(server, f"/predictions/{minilm}", {"inputs": "one"}, url_path="v1/embeddings")
    assert_same(response.json(), encode("one"))
    response = post(server, f"/predictions/{minilm}", {"inputs": "one"}, URL_PATH="v1/embeddings")
    assert_same(response.json(), encode("one"))


@pytest.mark.parametrize("path", ["/v2/models/{}/infer", "/predictions/{}/1.0/v2/models/any/infer"])
def test_kserves_tensors_are_answered(path: str, server: Server, minilm: str, encode: Encode) -> None:
    response = post(server, path.format(minilm), TENSORS)
    assert response.status_code == 200, server.explain(response)
    (output,) = response.json()["outputs"]
    assert output["shape"] == [2, 384]
    assert_same(np.reshape(output["data"], (2, 384)), [encode("one"), encode("two")])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/models/{}/versions/1.0/infer"),
        ("GET", "/v2/models/{}"),
        ("GET", "/v2/health/ready"),
        ("POST", "/v1/embeddings"),
    ],
)
def test_what_torchserve_does_not_hand_on(method: str, path: str, server: Server, minilm: str) -> None:
    url = f"{server.torchserve.inference}{path.format(minilm)}"
    response = server.http.request(method, url, json=TENSORS, headers=server.token("inference"))
    assert response.status_code in (404, 405), server.explain(response)
