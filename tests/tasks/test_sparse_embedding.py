"""Sparse embeddings are what sentence-transformers' SparseEncoder gives for the same folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anyshape.building.build import build
from anyshape.building.errors import BuildError
from anyshape.errors import ConfigError, InputTooLarge, UnprocessableInput
from anyshape.model import BucketedModel
from tests.conftest import EDGES, TextOf, assert_close, save_bert, write_recipe
from tests.quick import quick

SparseEncoder = pytest.importorskip("sentence_transformers").SparseEncoder
from sentence_transformers.sparse_encoder import modules as parts  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A masked language model alone."""
    return save_bert(tmp_path_factory.mktemp("splade"), "BertForMaskedLM", tokenizer)


def saved(folder: Path, to: Path, **settings: Any) -> Path:
    """As sentence-transformers saves such a model."""
    plain = SparseEncoder(str(folder), device="cpu")
    pooling = {
        key: settings.pop(key) for key in ("pooling_strategy", "activation_function") if key in settings
    }
    SparseEncoder(modules=[plain[0], parts.SpladePooling(**pooling)], device="cpu", **settings).save(str(to))
    return to


def load(work: Path, folder: Path, **handler: Any) -> BucketedModel:
    recipe = write_recipe(work, task="sparse-embedding", model=str(folder), **handler)
    return BucketedModel.load(build(recipe, work / "store").path, warm=False)


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> BucketedModel:
    return load(tmp_path_factory.mktemp("sparse"), folder)


def assert_encodes(model: BucketedModel, folder: Path, texts: list[str], **options: Any) -> None:
    plain = SparseEncoder(str(folder), device="cpu")
    for text, found, alone in zip(texts, model(texts, **options), [model(t, **options) for t in texts]):
        expected = plain.encode(text, convert_to_sparse_tensor=True, **options).coalesce()
        for one in (found, alone):
            assert one["indices"].tolist() == expected.indices()[0].tolist()
            assert_close(one["values"], expected.values())


@pytest.mark.slow
def test_weights_are_the_sparse_encoders(sparse: BucketedModel, folder: Path, text_of: TextOf) -> None:
    texts = [text_of(length) for length in EDGES] + ["", "a", "naïve café — 漢字", "👩‍👩‍👧 a\u0000b [MASK]"]
    assert_encodes(sparse, folder, texts)
    assert_encodes(sparse, folder, texts[:4], max_active_dims=7)


@pytest.mark.parametrize(("strategy", "activation"), quick([("max", "log1p_relu"), ("sum", "relu")], 0))
def test_folders_as_sentence_transformers_saves_them(
    strategy: str, activation: str, folder: Path, tmp_path: Path, text_of: TextOf
) -> None:
    settings = {"pooling_strategy": strategy, "activation_function": activation}
    prompts = {"query": "search for this : ", "document": ""}
    own = saved(folder, tmp_path / "m", max_active_dims=50, prompts=prompts, **settings)
    model = load(tmp_path, own, buckets=[8, 24])
    texts = [text_of(3), text_of(8), text_of(14)]
    assert_encodes(model, own, texts)
    assert_encodes(model, own, texts, prompt_name="query")
    if strategy == "sum":
        with pytest.raises(ConfigError, match="count twice"):
            load(tmp_path, own, over_max="window")


@pytest.mark.slow
def test_long_texts_weigh_what_their_windows_do(
    folder: Path, tmp_path: Path, tokenizer: Any, text_of: TextOf
) -> None:
    model = load(tmp_path, folder, over_max="window", task_options={"stride": 5})
    text = text_of(90)
    words, step = text.split(), 30 - 5
    windows = [" ".join(words[at : at + 30]) for at in range(0, 88 - 5, step)]
    plain = SparseEncoder(str(folder), device="cpu")
    expected = plain.encode(windows, convert_to_sparse_tensor=False).amax(0).numpy()
    found = model(text)
    assert found["indices"].tolist() == np.nonzero(expected)[0].tolist()
    assert_close(found["values"], expected[found["indices"]])


def test_what_is_refused(sparse: BucketedModel, folder: Path, tmp_path: Path, text_of: TextOf) -> None:
    with pytest.raises(InputTooLarge):
        sparse(text_of(33))
    with pytest.raises(UnprocessableInput, match="max_active_dims"):
        sparse("a", max_active_dims=0)
    with pytest.raises(ConfigError, match="max_active_dims must be"):
        load(tmp_path, folder, task_options={"max_active_dims": "few"})
    own = saved(folder, tmp_path / "m")
    config = own / "1_SpladePooling" / "config.json"
    config.write_text(json.dumps({"pooling_strategy": "mean"}), encoding="utf-8")
    with pytest.raises(BuildError, match="'mean'"):
        load(tmp_path, own)
    modules = json.loads((own / "modules.json").read_text(encoding="utf-8"))
    (own / "modules.json").write_text(json.dumps(modules[:1]), encoding="utf-8")
    with pytest.raises(BuildError, match="must be Transformer and SpladePooling"):
        load(tmp_path, own)
    recipe = write_recipe(tmp_path, task="sentence-embedding", model=str(saved(folder, tmp_path / "n")))
    with pytest.raises(BuildError, match="Transformer and SpladePooling: it must be Transformer and Pooling"):
        build(recipe, tmp_path / "store")
