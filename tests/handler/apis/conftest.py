"""Workers of small archives, asked by path as the frontend passes it on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import save_bert, unpacked, write_recipe
from tests.handler.frontend import Received, Sent, Worker

JSON = "application/json"


def sent(path: str | None, body: Any = None, **options: Any) -> Sent:
    """A request as it comes in at a path behind the model's version; None: along a route without one."""
    headers = {} if path is None else {"url_path": path}
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return Sent(raw, JSON if body is not None else None, headers=headers, **options)


def ask(worker: Worker, path: str | None, body: Any = None, status: int = 200) -> Any:
    """The JSON that one request is answered with, once its status is as expected."""
    (received,) = worker.predict([sent(path, body)])
    assert received.status == status, received.body
    return received.json()


def error_of(received: Received) -> str:
    """What an error says, in whichever words."""
    value = received.json()
    error = value.get("error", value)
    return str(error["message"] if isinstance(error, dict) else error)


@pytest.fixture(scope="session")
def embedder(embedding_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return Worker(unpacked(embedding_archive, tmp_path_factory.mktemp("embedder")))


@pytest.fixture(scope="session")
def classifier(classification_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return Worker(unpacked(classification_archive, tmp_path_factory.mktemp("classifier")))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Worker]:
    """built(name, **handler): a worker of a model that is built by a recipe with these keys."""
    from anyshape.building.build import build

    def built(name: str, **handler: Any) -> Worker:
        folder = tmp_path_factory.mktemp(name)
        archive = build(write_recipe(folder, name, **handler), folder / "store").path
        return Worker(unpacked(archive, tmp_path_factory.mktemp(f"{name}-unpacked")))

    return built


@pytest.fixture(scope="session")
def scorer_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A cross-encoder: a classifier of one class, as those are."""
    folder = tmp_path_factory.mktemp("scorer")
    return save_bert(folder, "BertForSequenceClassification", tokenizer, num_labels=1)


@pytest.fixture(scope="session")
def scorer(built: Callable[..., Worker], scorer_folder: Path) -> Worker:
    return built("scorer", task="text-classification", model=str(scorer_folder))


@pytest.fixture(scope="session")
def tokens(built: Callable[..., Worker], encoder_folder: Path) -> Worker:
    return built("tokens", task="feature-extraction", model=str(encoder_folder))
