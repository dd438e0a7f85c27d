"""A model whose file lacks weights is not built with random ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from anyshape.building.build import build
from anyshape.building.errors import BuildError
from anyshape.model import BucketedModel
from tests.conftest import assert_close, mean_embedding, save_bert, write_recipe
from tests.quick import quick

Weights = dict[str, torch.Tensor]
KEY = "encoder.layer.0.attention.self.key.weight"


def change(folder: Path, edit: Callable[[Weights], Weights]) -> None:
    path = folder / "model.safetensors"
    save_file(edit(load_file(path)), path, metadata={"format": "pt"})


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {key: value for key, value in weights.items() if part not in key}


def answers(folder: Path, work: Path, texts: list[str]) -> Any:
    recipe = write_recipe(work, task="sentence-embedding", model=str(folder), buckets=[8])
    return np.stack(BucketedModel.load(build(recipe, work / "store").path, warm=False)(texts))


@pytest.mark.parametrize("task", ["sentence-embedding", "feature-extraction"])
@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (without("self.key.weight"), f"has no weights for {KEY}, encoder.layer.1.attention.self.key.weight:"),
        (without("encoder.layer"), "has no weights for encoder.layer.0.attention.output.LayerNorm.bias, "),
        (without("encoder.layer"), " and 29 more: it was saved for another task"),
        (without("word_embeddings"), "has no weights for embeddings.word_embeddings.weight: it was saved"),
        (
            lambda weights: {f"module.{key}": value for key, value in weights.items()},
            ", but for module.embeddings.LayerNorm.bias, ",
        ),
        (
            lambda weights: {**weights, KEY: torch.zeros(4, 16)},
            f"weights of another shape than its config.json says: {KEY} is (4, 16) and not (16, 16)",
        ),
    ],
)
def test_missing_weights_are_named(
    task: str, edit: Callable[[Weights], Weights], says: str, tmp_path: Path, tokenizer: Any
) -> None:
    folder = save_bert(tmp_path / "m", "BertModel", tokenizer)
    change(folder, edit)
    with pytest.raises(BuildError) as refused:
        build(write_recipe(tmp_path, task=task, model=str(folder), buckets=[8]), tmp_path / "store")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("edit", quick([without("nothing"), without("pooler")], 1))
def test_two_builds_of_a_folder_give_the_same_answers(
    edit: Callable[[Weights], Weights], tmp_path: Path, tokenizer: Any
) -> None:
    folder, texts = save_bert(tmp_path / "m", "BertModel", tokenizer), ["", "one", "one two three"]
    change(folder, edit)
    first, second = (answers(folder, tmp_path, texts) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    plain = mean_embedding(folder, tokenizer)
    for found, text in zip(first, texts):
        assert_close(found, plain(text))


def test_a_head_that_the_task_does_not_ask_may_be_in_the_file(tmp_path: Path, tokenizer: Any) -> None:
    folder = save_bert(tmp_path / "m", "BertForMaskedLM", tokenizer)
    plain = mean_embedding(folder, tokenizer)
    assert_close(answers(folder, tmp_path, ["one two"])[0], plain("one two"))


def test_a_pooler_that_the_task_asks_must_be_there(tmp_path: Path, tokenizer: Any) -> None:
    folder = save_bert(tmp_path / "m", "BertForSequenceClassification", tokenizer)
    change(folder, without("pooler"))
    recipe = write_recipe(tmp_path, task="text-classification", model=str(folder), buckets=[8])
    with pytest.raises(
        BuildError, match=r"no weights for bert\.pooler\.dense\.bias, bert\.pooler\.dense\.weight"
    ):
        build(recipe, tmp_path / "store")
