"""Entities are what transformers' pipeline `token-classification` gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anyshape.building.build import build
from anyshape.errors import InputTooLarge, ModelFailed, UnprocessableInput
from anyshape.items import Item
from anyshape.model import BucketedModel
from tests.conftest import EDGES, TextOf, save_bert, write_recipe
from tests.tasks.same import assert_same

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC"]
STRATEGIES = ["none", "simple", "first", "average", "max"]
TEXTS = [
    "",
    "a",
    "Hubert Blaine Wolfeschlegelsteinhausen lives in Llanfairpwllgwyngyll, doesn't he?",
    "naïve café — 漢字かな",
    "👩‍👩‍👧 and a\u0000b\u200d\n\t x",
    "[MASK] [SEP] unbelievable! ☃☃ snowmen",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return save_bert(
        tmp_path_factory.mktemp("tagger"),
        "BertForTokenClassification",
        tokenizer,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> BucketedModel:
    work = tmp_path_factory.mktemp("token-classification")
    recipe = write_recipe(work, task="token-classification", model=str(folder))
    return BucketedModel.load(build(recipe, work / "store").path)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Callable[..., Any]:
    from transformers import pipeline

    found: Callable[..., Any] = pipeline("token-classification", str(folder), device="cpu")
    return found


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_entities_are_the_pipelines_in_every_bucket(
    strategy: str, tagger: BucketedModel, plain: Any, text_of: TextOf
) -> None:
    texts = [text_of(length) for length in EDGES] + TEXTS
    expected = [plain(text, aggregation_strategy=strategy) for text in texts]
    assert any(expected)
    assert_same(tagger(texts, aggregation_strategy=strategy), expected)
    assert_same([tagger(text, aggregation_strategy=strategy) for text in texts], expected)


@pytest.mark.parametrize("ignored", [[], ["O"], ["O", "MISC", "I-PER"], ["PER"]])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_labels_that_are_left_out(
    ignored: list[str], strategy: str, tagger: BucketedModel, plain: Any
) -> None:
    options = {"aggregation_strategy": strategy, "ignore_labels": ignored}
    assert_same(tagger(TEXTS[2], **options), plain(TEXTS[2], **options))


def test_places_are_characters_of_the_text_that_was_sent(tagger: BucketedModel) -> None:
    text = "  Émile\u00a0Zola, 漢字!"
    found = [text[e["start"] : e["end"]] for e in tagger(text, ignore_labels=[])]
    assert found[-3:] == ["漢", "字", "!"]
    assert "Zola"[:2] in "".join(found)


def byte_level() -> Any:
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer(add_prefix_space=True)
    tokenizer.train_from_iterator(TEXTS * 3, vocab_size=330, special_tokens=["<pad>", "<unk>"])
    return tokenizer._tokenizer


def unigram() -> Any:
    """As SentencePiece makes them: pieces with a mark for the space before a word."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=["<pad>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


@pytest.mark.parametrize("made", [byte_level, unigram])
def test_tokenizers_that_know_no_words(
    made: Callable[[], Any], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """No prefix marks the later parts of a word."""
    from transformers import PreTrainedTokenizerFast, pipeline

    own = PreTrainedTokenizerFast(tokenizer_object=made(), pad_token="<pad>", unk_token="<unk>")
    folder = save_bert(tmp_path / "m", "BertForTokenClassification", own, num_labels=4)
    recipe = write_recipe(tmp_path, task="token-classification", model=str(folder), buckets=[8, 128])
    model = BucketedModel.load(build(recipe, tmp_path / "store").path, warm=False)
    plain = pipeline("token-classification", str(folder), device="cpu")
    for strategy in STRATEGIES:
        for text in TEXTS[1:]:
            expected = plain(text, aggregation_strategy=strategy)
            assert_same(model(text, aggregation_strategy=strategy), expected)
    assert model("") == []


def test_what_is_refused(tagger: BucketedModel, text_of: TextOf) -> None:
    with pytest.raises(UnprocessableInput, match="not a pair"):
        tagger({"text": "a", "text_pair": "b"})
    with pytest.raises(InputTooLarge, match="33 tokens"):
        tagger(text_of(33))
    for wrong in ({"aggregation_strategy": "most"}, {"ignore_labels": "O"}, {"ignore_labels": [1]}):
        with pytest.raises(UnprocessableInput, match=next(iter(wrong))):
            tagger("a", **wrong)


def test_a_cut_text_is_answered_as_far_as_it_goes(tagger: BucketedModel, plain: Any, text_of: TextOf) -> None:
    text = text_of(50)
    kept = " ".join(text.split()[:30])
    assert_same(tagger(text, truncation=True), plain(kept))


def test_an_output_that_is_no_number_is_refused(tagger: BucketedModel) -> None:
    import numpy as np

    item = tagger.task.read(["a b"], [{}])[0]
    assert isinstance(item, Item)
    with pytest.raises(ModelFailed, match="not a number"):
        tagger.task.answer((np.full((4, len(LABELS)), np.nan, np.float32),), item, {})
