"""Tokenizers, models and buckets that do not fit each other: refused by name, or served where they can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from anyshape.building.build import build
from anyshape.errors import ConfigError, UnprocessableInput
from anyshape.model import BucketedModel
from tests.conftest import TextOf, assert_close, sample, save_bert, write_recipe

WORDS = ["<s>", "<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(60))]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def words_tokenizer(words: list[str] = WORDS, added: tuple[str, ...] = (), pad: str = "<pad>") -> Any:
    """One token a word, with an end token; `added` come after the words."""
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="</s>")
    fast.add_tokens(list(added))
    fast.add_special_tokens({"pad_token": pad})
    return fast


def save(folder: Path, kind: str, tokenizer: Any, **options: Any) -> Path:
    import transformers

    torch.manual_seed(5)
    config = getattr(transformers, f"{kind}Config")(vocab_size=len(WORDS), **options)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path, work: Path, **handler: Any) -> BucketedModel:
    options = {"task": "feature-extraction", "model": str(folder), "buckets": [4, 8], **handler}
    return BucketedModel.load(build(write_recipe(work, **options), work / "store").path, warm=False)


def plain(folder: Path, ids: list[int]) -> np.ndarray:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).float().eval()
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids]))[0].numpy()


# The vocabulary


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    larger = words_tokenizer([*WORDS, "more", "most"])
    folder = save(tmp_path / "m", "Bert", larger, **SIZES)
    with pytest.raises(
        ConfigError, match=r"has 2 tokens beyond the 64 .* from 'more' \(id 64\) on: .*handler\.tok"
    ):
        load(folder, tmp_path)


def test_an_added_token_without_an_embedding_costs_its_own_text_only(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", "Bert", words_tokenizer(added=("newer",)), **SIZES)
    model = load(folder, tmp_path)
    first, refused, last = model.task.read(["w1 w2", "w1 newer", "w3"], [{}] * 3)
    assert isinstance(refused, UnprocessableInput)
    assert "the token 'newer', which the model does not know" in str(refused)
    assert_close(model("w1 w2"), plain(folder, [5, 6, 2]))
    assert [item.data["input_ids"] for item in (first, last)] == [[5, 6, 2], [7, 2]]  # type: ignore[union-attr]


def test_samples_are_of_ids_that_have_an_embedding(tmp_path: Path) -> None:
    added = tuple(f"newer{i}" for i in range(300))
    folder = save(tmp_path / "m", "Bert", words_tokenizer(added=added), **SIZES)
    model = load(folder, tmp_path)
    ids = {i for seed in range(50) for i in sample(model, (8,), seed).data["input_ids"]}
    assert max(ids) < len(WORDS)
    assert len(ids) > 50


# Padding


@pytest.mark.parametrize("pad", ["</s>", "<s>", "added"])
def test_padding_is_what_the_model_takes_for_it(pad: str, tmp_path: Path) -> None:
    """RoBERTa numbers its positions by the ids that are no padding to it; the tokenizer may have another."""
    tokenizer = words_tokenizer(pad=pad)
    folder = save(tmp_path / "m", "Roberta", tokenizer, max_position_embeddings=10, pad_token_id=1, **SIZES)
    assert tokenizer.pad_token_id != 1
    model = load(folder, tmp_path)
    assert {spec.name: spec.pad for spec in model.task.inputs}["input_ids"] == 1
    for count in (1, 3, 5, 7):
        assert_close(model(" ".join(f"w{i}" for i in range(count))), plain(folder, [*range(4, 4 + count), 2]))


def test_a_classifier_that_finds_its_last_token_by_its_own_padding(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification, pipeline

    torch.manual_seed(5)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "initializer_range": 0.5}
    config = GPT2Config(vocab_size=len(WORDS), pad_token_id=1, **sizes)
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "m")
    words_tokenizer(pad="</s>").save_pretrained(tmp_path / "m")
    model = load(tmp_path / "m", tmp_path, task="text-classification")
    classify = pipeline("text-classification", str(tmp_path / "m"), device="cpu")
    for text in ("w1", "w1 w2 w3 w4", "w9 w8 w7 w6 w5 w4"):
        (wanted,) = classify([text])
        assert model(text) == {"label": wanted["label"], "score": pytest.approx(wanted["score"], rel=1e-4)}


# Positions


@pytest.mark.parametrize(
    ("kind", "options", "limit"),
    [
        ("Bert", {"max_position_embeddings": 12}, 12),
        ("Roberta", {"max_position_embeddings": 12, "pad_token_id": 1}, 10),
        ("MPNet", {"max_position_embeddings": 12, "pad_token_id": 1}, 10),
        ("GPT2", {"n_positions": 12, "n_embd": 16, "n_layer": 1, "n_head": 2}, 12),
    ],
)
def test_the_largest_bucket_has_as_many_tokens_as_the_model_has_positions(
    kind: str, options: dict[str, Any], limit: int, tmp_path: Path
) -> None:
    sizes = {} if kind == "GPT2" else SIZES
    folder = save(tmp_path / "m", kind, words_tokenizer(), **sizes, **options)
    with pytest.raises(ConfigError, match=rf"{limit + 1} is more than the {limit} positions of the model"):
        load(folder, tmp_path, buckets=[4, limit + 1])
    ids = [*range(4, 4 + limit - 1), 2]
    found = load(folder, tmp_path, buckets=[limit])(" ".join(WORDS[i] for i in ids[:-1]))
    assert_close(found, plain(folder, ids))


def test_a_model_without_a_limit_of_positions(tmp_path: Path) -> None:
    """XLNet's config says -1."""
    sizes = {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32}
    folder = save(tmp_path / "m", "XLNet", words_tokenizer(), **sizes)
    assert "max_position_embeddings" not in json.loads((folder / "config.json").read_text())
    ids = [*range(4, 34), 2]
    found = load(folder, tmp_path, buckets=[4, 40])(" ".join(WORDS[i] for i in ids[:-1]))
    assert_close(found, plain(folder, ids))


def test_the_side_that_a_text_is_cut_on_is_the_tokenizers(
    tmp_path: Path, tokenizer: Any, text_of: TextOf
) -> None:
    folder = save_bert(tmp_path / "m", "BertModel", tokenizer)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "truncation_side": "left"}))
    from transformers import AutoTokenizer

    expected = AutoTokenizer.from_pretrained(folder)(text_of(20), truncation=True, max_length=8)["input_ids"]
    (item,) = load(folder, tmp_path).task.read([text_of(20)], [{"truncation": True}])
    assert item.data["input_ids"] == expected  # type: ignore[union-attr]
