"""What neighbours in a row can do to a text: nothing to its bits where it stands at the same place, nothing
but rounding elsewhere, on models of many families, each against its own library's answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from anyshape.building.build import build
from anyshape.errors import InputTooLarge, ModelFailed
from anyshape.items import Output
from anyshape.model import BucketedModel
from anyshape.packing import Call
from tests.conftest import TextOf, assert_close, mean_embedding, save_bert, write_recipe
from tests.quick import quick
from tests.tasks.same import assert_same

ROW, SEGMENTS = 32, 5
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
FAMILIES: dict[str, dict[str, Any]] = {
    "Electra": {**SIZES, "embedding_size": 8},
    "DistilBert": {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2},
    "Camembert": {**SIZES, "pad_token_id": 0, "max_position_embeddings": 64},
    "GPT2": {"n_embd": 16, "n_layer": 2, "n_head": 2},
    "Gemma3Text": {**SIZES, "head_dim": 8, "num_key_value_heads": 1, "sliding_window": 4},
}


@pytest.fixture(autouse=True)
def threads(one_thread: Iterator[None]) -> None:
    """Models are small."""


def rows_of(folder: Path, work: Path, **handler: Any) -> BucketedModel:
    section = {"layout": "rows", "segments": SEGMENTS, "buckets": [ROW], "largest_batch": 2, **handler}
    section.setdefault("task", "sentence-embedding")
    path = build(write_recipe(work, model=str(folder), **section), work / "store").path
    return BucketedModel.load(path, warm=False)


def save(kind: str, folder: Path, tokenizer: Any, auto: str = "AutoModel", **more: Any) -> Path:
    torch.manual_seed(5)
    config = getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer), **FAMILIES[kind], **more)
    model = getattr(transformers, auto).from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run(model: BucketedModel, texts: list[str], *held: int) -> list[np.ndarray]:
    """The vectors of these texts in rows of so many, in one call."""
    items = model.task.read(list(texts), [{}] * len(texts))
    call = Call((ROW,), len(held), tuple(range(len(texts))), held)
    return [output.row[0] for output in model.run_call(call, items)]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def embedding_rows(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> BucketedModel:
    return rows_of(encoder_folder, tmp_path_factory.mktemp("rows"))


def test_at_the_same_place_of_a_row_no_bit_depends_on_the_neighbours(
    embedding_rows: BucketedModel, text_of: TextOf
) -> None:
    """Neither on what they say, nor on where they end, nor on whether they are there."""
    text = text_of(9)
    (alone,) = run(embedding_rows, [text], 1)
    behind = text_of(11)
    for seed in range(6):
        others = [text_of(n, seed) for n in ([23], [2, 2, 2, 2], [5, 18], [3])[seed % 4]]
        assert np.array_equal(run(embedding_rows, [text, *others], 1 + len(others))[0], alone)
        before = text_of(12, seed)
        last = run(embedding_rows, [before, text, *others[:1]][:2], 2)[1]
        assert np.array_equal(last, run(embedding_rows, [text_of(12, 9), text, behind], 3)[1])


def test_at_other_places_it_is_the_same_but_for_rounding(
    embedding_rows: BucketedModel, text_of: TextOf
) -> None:
    text = text_of(9)
    (alone,) = run(embedding_rows, [text], 1)
    for length in (2, 3, 7, 16, 23):
        moved = run(embedding_rows, [text_of(length), text], 2)[1]
        assert np.abs(moved - alone).max() <= 1e-6 * np.abs(alone).max()


@pytest.mark.parametrize("kind", quick(FAMILIES, 0, 1))
def test_families_of_models_answer_among_hostile_neighbours_as_their_own_library_does(
    kind: str, tmp_path: Path, tokenizer: Any, text_of: TextOf
) -> None:
    """Full rows, as many texts as a row takes and more, empty ones, one token too many, and words that are
    the token of padding: some models do not count it, wherever it stands."""
    folder = save(kind, tmp_path / "model", tokenizer)
    rows, plain = rows_of(folder, tmp_path), mean_embedding(folder, tokenizer)
    lengths = [ROW, 9, 3, 2, 3, 2, 3, ROW - 9, ROW - 1, 3, 16, 16, 2, ROW + 1]
    texts = [text_of(n, i) for i, n in enumerate(lengths)]
    texts += ["[PAD] " + text_of(5), "[PAD] [PAD]", text_of(4) + " [PAD] " + text_of(6) + " [PAD]"]
    lengths += [6, 4, 10]
    order = list(range(len(texts)))
    for seed in range(3):
        random.Random(seed).shuffle(order)
        read = rows.task.read([texts[i] for i in order], [{}] * len(order))
        for i, one, ran in zip(order, read, rows.run(read)):
            if lengths[i] > ROW:
                assert isinstance(ran, InputTooLarge)
            else:
                assert_close(rows.answer(one, ran, {}), plain(texts[i]))


def test_a_decoders_head_finds_the_last_word_of_each_text(
    tmp_path: Path, tokenizer: Any, text_of: TextOf
) -> None:
    """Which is no padding, though a client wrote it and this tokenizer ends no text."""
    names = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    names.update(pad_token_id=0)
    folder = save("Gemma3Text", tmp_path / "m", tokenizer, "AutoModelForSequenceClassification", **names)
    tokenizer_file = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer_file.post_processor = tokenizers.processors.TemplateProcessing(single="$A", pair="$A $B")
    tokenizer_file.save(str(folder / "tokenizer.json"))
    rows = rows_of(folder, tmp_path, task="text-classification")
    plain = transformers.pipeline("text-classification", str(folder), device="cpu")
    texts = [text_of(n, n) for n in (3, 9, 17)]
    texts += [
        f"{text_of(4)} [PAD]",
        f"{text_of(7)} [PAD] [PAD] [PAD]",
        "[PAD] " + text_of(3),
        "[PAD]",
        "[PAD] [PAD]",
    ]
    for text, found in zip(texts, rows(texts, top_k=3)):
        assert_same(found, plain(text, top_k=3))


def test_a_length_that_gives_no_number_spoils_no_neighbour(
    tmp_path: Path, encoder_folder: Path, tokenizer: Any, text_of: TextOf
) -> None:
    """From its 12th token on every text of this model is no number, in whatever row it stands."""
    model = transformers.AutoModel.from_pretrained(encoder_folder)
    with torch.no_grad():
        model.embeddings.position_embeddings.weight[11] = float("nan")
    model.save_pretrained(tmp_path / "bad")
    tokenizer.save_pretrained(tmp_path / "bad")
    rows = rows_of(tmp_path / "bad", tmp_path, allow_inexact=True)
    plain = mean_embedding(tmp_path / "bad", tokenizer)
    texts = [text_of(n, i) for i, n in enumerate([5, 12, 11, 2, 20, 3, 32, 2, 9, 11])]
    read = rows.task.read(list(texts), [{}] * len(texts))
    for text, one, ran in zip(texts, read, rows.run(read)):
        assert isinstance(ran, Output)
        expected = plain(text)
        if np.isfinite(expected).all():
            assert_close(rows.answer(one, ran, {}), expected)
        else:
            with pytest.raises(ModelFailed, match="not a number"):
                rows.answer(one, ran, {})


# Tasks whose inputs are made of several texts


def test_texts_are_ranked_by_the_scores_of_a_cross_encoder(
    tmp_path: Path, tokenizer: Any, text_of: TextOf
) -> None:
    cross_encoder = pytest.importorskip("sentence_transformers").CrossEncoder
    folder = save_bert(tmp_path / "ranker", "BertForSequenceClassification", tokenizer, num_labels=1)
    rows = rows_of(folder, tmp_path, task="text-ranking")
    texts = [text_of(n, n) for n in (2, 3, 20, 7, 4, 12, 3, 5)]
    found = {one["index"]: one["score"] for one in rows({"query": text_of(8), "texts": texts})}
    wanted = cross_encoder(str(folder), device="cpu").predict([(text_of(8), text) for text in texts])
    assert_close([found[i] for i in range(len(texts))], wanted)


@pytest.mark.parametrize("multi_label", [False, True])
def test_labels_without_examples_are_the_pipelines(
    tmp_path: Path, tokenizer: Any, text_of: TextOf, multi_label: bool
) -> None:
    names = ["contradiction", "neutral", "entailment"]
    folder = save_bert(
        tmp_path / "nli",
        "BertForSequenceClassification",
        tokenizer,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    rows = rows_of(folder, tmp_path, task="zero-shot-classification")
    plain = transformers.pipeline("zero-shot-classification", str(folder), device="cpu")
    asked = {"candidate_labels": ["urgent", "a phone", "not urgent"], "multi_label": multi_label}
    for length in (3, 5, 12):
        assert_same(rows(text_of(length), **asked), plain(text_of(length), **asked))


# Backends


@pytest.mark.slow
def test_inductors_rows_are_exact_and_no_bit_depends_on_the_neighbours(
    tmp_path: Path, encoder_folder: Path, plain_embedding: Callable[[str], np.ndarray], text_of: TextOf
) -> None:
    rows = rows_of(encoder_folder, tmp_path, backend="inductor")
    text = text_of(9)
    (alone,) = run(rows, [text], 1)
    assert_close(alone / np.linalg.norm(alone), plain_embedding(text))
    for seed in range(4):
        others = [text_of(n, seed) for n in ([23], [2, 2, 2, 2], [5, 18], [3])[seed]]
        assert np.array_equal(run(rows, [text, *others], 1 + len(others))[0], alone)
    texts = [text_of(n, i) for i, n in enumerate([2, 32, 3, 2, 15, 16, 17, 2, 31, 5, 2, 2, 4, 14])]
    for text, found in zip(texts, rows(texts)):
        assert_close(found, plain_embedding(text))
