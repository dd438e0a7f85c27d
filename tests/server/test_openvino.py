"""An archive of the backend openvino, and raw answers, through a real TorchServe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anyshape.building.build import build
from tests.backends.test_backends import TEXTS, TOLERANCES, expected, recipe  # noqa: F401  # a fixture
from tests.server.harness import Server

pytest.importorskip("openvino", reason="the extra `openvino` is not installed: make openvino")
NAME = "with-openvino"


@pytest.fixture(scope="module")
def served(server: Server, store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = recipe(tmp_path_factory.mktemp("openvino"), NAME, backend="openvino")
    build(path, store)
    server.register(NAME)
    return NAME


def test_openvino_answers_as_the_plain_model(
    server: Server,
    served: str,
    expected: list[Any],  # noqa: F811
) -> None:
    requests = [{"content": text.encode(), "headers": {"Content-Type": "text/plain"}} for text in TEXTS]
    for answer, wanted in zip(server.predict_all(served, requests), expected):
        assert answer.status_code == 200, server.explain(answer)
        found = np.asarray(answer.json())
        assert np.abs(found - wanted).max() <= TOLERANCES["float32"] * np.abs(wanted).max()
    (described,) = server.manage("GET", f"/models/{served}", customized=True).json()
    metadata = described["customizedMetadata"]
    assert (metadata["backend"], metadata["dtype"]) == ("openvino", "float32")
    assert metadata["costs_from"] in ("the build", "this start")


def test_raw_numbers_arrive_whole_and_their_errors_as_json(server: Server, served: str) -> None:
    raw = {"Accept": "application/octet-stream"}
    plain = server.predict_text(served, TEXTS[1])
    answer = server.predict(served, json={"inputs": TEXTS}, headers=raw)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["X-Shape"] == f"{len(TEXTS)},{len(plain.json())}"
    vectors = np.frombuffer(answer.content, "<f4").reshape(len(TEXTS), -1)
    np.testing.assert_allclose(vectors[1], plain.json(), rtol=0, atol=1e-5)
    refused = server.predict(served, json={"inputs": [" ".join(TEXTS)]}, headers=raw)
    assert refused.status_code == 413
    assert refused.json()["type"] == "InputTooLarge"
