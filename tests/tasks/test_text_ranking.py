"""Scores are what sentence-transformers' CrossEncoder gives for the same folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from anyshape.building.build import build
from anyshape.building.errors import BuildError
from anyshape.errors import ConfigError, InputTooLarge, UnprocessableInput
from anyshape.model import BucketedModel
from tests.conftest import EDGES, TextOf, save_bert, write_recipe
from tests.tasks.same import assert_same

CrossEncoder = pytest.importorskip("sentence_transformers").CrossEncoder

IDENTITY = {
    "none": {},
    "sentence_transformers": {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
    "older": {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
}


def save(folder: Path, tokenizer: Any, **config: Any) -> Path:
    options = {"num_labels": 1, **config}
    return save_bert(folder, "BertForSequenceClassification", tokenizer, **options)


def load(work: Path, folder: Path, **handler: Any) -> BucketedModel:
    recipe = write_recipe(work, task="text-ranking", model=str(folder), **handler)
    return BucketedModel.load(build(recipe, work / "store").path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return save(tmp_path_factory.mktemp("ranker"), tokenizer)


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> BucketedModel:
    return load(tmp_path_factory.mktemp("text-ranking"), folder)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Any:
    return CrossEncoder(str(folder), device="cpu")


@pytest.fixture
def texts(text_of: TextOf) -> list[str]:
    found = [text_of(length, 1) for length in EDGES if length < 27]
    return [*found, "", "naïve café — 漢字", "👩‍👩‍👧 a\u0000b"]


def test_texts_are_ranked_as_the_cross_encoder_ranks_them(
    ranker: BucketedModel, plain: Any, text_of: TextOf, texts: list[str]
) -> None:
    for query in (text_of(6), text_of(4), "à"):
        ranks = plain.rank(query, texts, return_documents=True)
        expected = [
            {"index": rank["corpus_id"], "score": float(rank["score"]), "text": rank["text"]}
            for rank in ranks
        ]
        asked = {"query": query, "texts": texts}
        assert_same(ranker(asked, return_text=True), expected)
        assert_same(ranker([asked] * 2, return_text=True), [expected] * 2)
        found = ranker(asked, top_k=3)
        assert [one["index"] for one in found] == [one["index"] for one in expected[:3]]


@pytest.mark.parametrize("activation", ["Identity", "Sigmoid"])
def test_folders_as_sentence_transformers_saves_them(
    activation: str, folder: Path, tmp_path: Path, text_of: TextOf
) -> None:
    """Activation, prompts and the most tokens stand in files of their own."""
    plain = CrossEncoder(
        str(folder),
        device="cpu",
        activation_fn=getattr(torch.nn, activation)(),
        prompts={"ask": "ask this :", "so": "so"},
        default_prompt_name="ask" if activation == "Identity" else None,
        max_length=20,
    )
    plain.save(str(tmp_path / "m"))
    own = load(tmp_path, tmp_path / "m", buckets=[24])
    plain, query, texts = (
        CrossEncoder(str(tmp_path / "m"), device="cpu"),
        text_of(5),
        [text_of(4), text_of(6)],
    )
    for options in ({}, {"prompt_name": "so"}, {"prompt": ""}, {"prompt": "why"}):
        expected = [float(score) for score in plain.predict([(query, text) for text in texts], **options)]
        found = own({"query": query, "texts": texts}, **options)
        assert_same([one["score"] for one in sorted(found, key=lambda one: one["index"])], expected)
    with pytest.raises(UnprocessableInput, match="prompt_name"):
        own({"query": query, "texts": texts}, prompt_name="other")
    with pytest.raises(InputTooLarge, match="the model takes 20"):
        own({"query": text_of(12), "texts": [text_of(12)]})


def test_other_modules_are_refused(folder: Path, tmp_path: Path) -> None:
    CrossEncoder(str(folder), device="cpu").save(str(tmp_path / "m"))
    modules = tmp_path / "m" / "modules.json"
    kept = json.loads(modules.read_text(encoding="utf-8"))
    more = {**kept[0], "type": "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"}
    modules.write_text(json.dumps([*kept, more]), encoding="utf-8")
    with pytest.raises(BuildError, match="Transformer and LogitScore: it must be Transformer alone"):
        load(tmp_path, tmp_path / "m")


def test_pairs_have_scores(ranker: BucketedModel, plain: Any, text_of: TextOf, texts: list[str]) -> None:
    query = text_of(5)
    expected = plain.predict([(query, text) for text in texts])
    found = ranker([{"text": query, "text_pair": text} for text in texts])
    assert_same(found, [{"score": float(score)} for score in expected])
    raw = plain.predict([(query, text) for text in texts], activation_fn=torch.nn.Identity())
    found = ranker([{"text": query, "text_pair": text} for text in texts], raw_scores=True)
    assert_same(found, [{"score": float(score)} for score in raw])


@pytest.mark.parametrize("config", list(IDENTITY))
def test_the_activation_is_the_configs(config: str, tmp_path: Path, tokenizer: Any) -> None:
    folder = save(tmp_path / "m", tokenizer, **IDENTITY[config])
    pair = ("what is it", "a thing")
    expected = float(CrossEncoder(str(folder), device="cpu").predict([pair])[0])
    model = load(tmp_path, folder, buckets=[16])
    assert model({"text": pair[0], "text_pair": pair[1]})["score"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"num_labels": 3}, "3 classes.*text-classification"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Softmax"}}, "Softmax"),
        ({"sentence_transformers": {"activation_fn": "my.own.Sigmoid"}}, "my.own.Sigmoid"),
    ],
)
def test_models_that_are_refused(config: Any, says: str, tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=says):
        load(tmp_path, save(tmp_path / "m", tokenizer, **config))


def test_what_is_refused(ranker: BucketedModel, text_of: TextOf) -> None:
    for value in (
        *("a", {"query": "a"}, {"query": "a", "texts": []}, {"query": "a", "texts": "b"}, {"texts": ["b"]}),
        *({"query": 1, "texts": ["b"]}, {"query": "a", "texts": ["b", None]}, {"text": "a"}),
    ):
        with pytest.raises(UnprocessableInput):
            ranker(value)
    with pytest.raises(InputTooLarge, match="65 pairs"):
        ranker({"query": "a", "texts": ["b"] * 65})
    with pytest.raises(InputTooLarge, match="tokens"):
        ranker({"query": "a", "texts": ["b", text_of(40)]})


def test_a_pair_is_cut_as_the_cross_encoder_cuts_it(
    ranker: BucketedModel, folder: Path, text_of: TextOf
) -> None:
    plain = CrossEncoder(str(folder), device="cpu", max_length=32)
    query, texts = text_of(20), [text_of(40, 1), text_of(14, 1)]
    expected = plain.predict([(query, text) for text in texts])
    found = ranker([{"text": query, "text_pair": text} for text in texts], truncation=True)
    assert_same(found, [{"score": float(score)} for score in expected])
