"""One TorchServe for all tests of this folder, with the sentence encoder that ships."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.conftest import ROOT, write_recipe
from tests.server.harness import ECHO, Server, make_archive

BUCKETS = [16, 64, 128, 512]

Encode = Callable[[str], np.ndarray]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with echo.mar (version 1.0), echo2.mar (answers differently) and minilm.mar."""
    from anyshape.building.build import build

    store = tmp_path_factory.mktemp("store")
    work = tmp_path_factory.mktemp("work")
    make_archive(store, "echo", ECHO, work=work)
    make_archive(store, "echo2", ECHO.replace('"echo"', '"second echo"'), version="2.0", work=work)
    # The recipe that ships, with fewer buckets to compile, and a batch delay long enough that
    # requests sent at once share a batch.
    recipe = yaml.safe_load((ROOT / "recipes" / "minilm.yaml").read_text(encoding="utf-8"))
    recipe.update(minWorkers=1, maxWorkers=2, batchSize=32, maxBatchDelay=25)
    recipe["handler"].update(buckets=BUCKETS)
    path = work / "minilm.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    build(path, store, "1.0")
    return store


@pytest.fixture(scope="session")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), store) as server:
        yield server


@pytest.fixture(scope="session")
def minilm(server: Server) -> str:
    """The name of the sentence encoder, registered and ready."""
    server.register("minilm")
    return "minilm"


@pytest.fixture(scope="session")
def tokenize(minilm_folder: Path) -> Callable[[str], dict[str, torch.Tensor]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm_folder)
    return lambda text: tokenizer(text, return_tensors="pt", truncation=False, padding=False)


@pytest.fixture(scope="session")
def encode(minilm_folder: Path, tokenize: Callable[[str], dict[str, torch.Tensor]]) -> Encode:
    """The plain model, one unpadded text at a time: mean of the token vectors, at length 1."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(minilm_folder, dtype=torch.float32).eval()

    def encode(text: str) -> np.ndarray:
        with torch.inference_mode():
            mean = model(**tokenize(text)).last_hidden_state[0].mean(0)
        return (mean / mean.norm()).numpy()

    return encode


@pytest.fixture(scope="session")
def text_of(tokenize: Callable[[str], dict[str, torch.Tensor]]) -> Callable[[int], str]:
    """text_of(n): a text of exactly n tokens, [CLS] and [SEP] included."""
    words = ["a", "piece", "of", "string", "is", "as", "long", "as", "the", "day"]

    def text_of(tokens: int) -> str:
        text = " ".join(words[i % len(words)] for i in range(tokens - 2))
        assert tokenize(text)["input_ids"].shape[1] == tokens
        return text

    return text_of


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> Callable[..., Path]:
    """versions("2.0"): an archive `tiny` of that version, with a plan, in a folder of its own."""
    from anyshape.building.build import build

    folder = tmp_path_factory.mktemp("versions")
    (folder / "sizes.json").write_text("[8, 8, 16, 30]", encoding="utf-8")

    @functools.cache
    def version(number: str) -> Path:
        plan = {"plan": "sizes.json", "count": 3}
        path = write_recipe(
            folder, "tiny", task="sentence-embedding", model=str(encoder_folder), buckets=plan
        )
        return build(path, folder / number, number).path

    return version


@pytest.fixture(scope="session")
def operated(versions: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose one model, tiny 1.0, is exchanged by tests."""
    store = tmp_path_factory.mktemp("operated-store")
    shutil.copy(versions("1.0"), store / "tiny.mar")
    with Server(tmp_path_factory.mktemp("operated"), store) as server:
        server.register("tiny")
        yield server


def options(server: Server) -> list[str]:
    """What tells a command of `anyshape` where a server of the tests is."""
    served = server.torchserve
    urls = {"--server": served.management, "--inference": served.inference, "--metrics": served.metrics}
    return [word for pair in {**urls, "--key-file": str(served.key_file)}.items() for word in pair]
