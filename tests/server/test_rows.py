"""Rows that hold several texts, through a real server: one program for all lengths."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from anyshape.building.build import build
from tests.conftest import ROOT, assert_close
from tests.server.harness import Server

NAME, ROW = "packed-rows", 64
LENGTHS = [2, 64, 3, 17, 2, 63, 30, 5, 2, 31, 32]  # tokens; 2 is the empty text


@pytest.fixture(scope="module")
def rows(server: Server, store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    recipe = yaml.safe_load((ROOT / "recipes" / "minilm.yaml").read_text(encoding="utf-8"))
    recipe.update(minWorkers=1, maxWorkers=1, maxBatchDelay=25)
    recipe["handler"].update(layout="rows", segments=8, buckets=[ROW], largest_batch=2, largest_call=None)
    path = tmp_path_factory.mktemp("rows") / f"{NAME}.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    build(path, store)
    server.register(NAME)
    return NAME


@pytest.fixture(scope="module")
def encoder(minilm_folder: Path) -> Any:
    """Somebody else's code for the same folder."""
    transformer = pytest.importorskip("sentence_transformers").SentenceTransformer
    return transformer(str(minilm_folder), device="cpu")


def test_every_text_is_encoded_as_alone(
    server: Server, rows: str, encoder: Any, text_of: Callable[[int], str]
) -> None:
    texts = [text_of(length) for length in LENGTHS]
    expected = [np.asarray(encoder.encode(text)) for text in texts]
    response = server.predict(rows, json={"inputs": texts})
    assert response.status_code == 200, server.explain(response)
    for vector, wanted in zip(response.json(), expected):
        assert_close(vector, wanted)
    assert set(response.headers["X-Bucket"].split(",")) == {str(ROW)}
    executed = float(response.headers["X-Padding-Ratio"]) * sum(LENGTHS)
    assert executed % ROW == pytest.approx(0, abs=0.2) or executed % ROW == pytest.approx(ROW, abs=0.2)
    assert executed < ROW * len(LENGTHS)

    def alone(text: str) -> Any:
        return server.predict(rows, json=text)

    with ThreadPoolExecutor(8) as clients:
        for answer, wanted in zip(clients.map(alone, texts), expected):
            assert answer.status_code == 200, server.explain(answer)
            assert_close(answer.json(), wanted)


def test_what_fits_no_row_is_refused_alone(server: Server, rows: str, text_of: Callable[[int], str]) -> None:
    with ThreadPoolExecutor(2) as clients:
        bodies = [text_of(ROW + 1), text_of(ROW)]
        codes = [r.status_code for r in clients.map(lambda text: server.predict(rows, json=text), bodies)]
    assert codes == [413, 200]
