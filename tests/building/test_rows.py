"""Rows that hold several texts answer for each as if it were alone, whoever its neighbours are."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from anyshape.archive import Index
from anyshape.building.build import build
from anyshape.building.errors import BuildError
from anyshape.building.pooling import MODES, first_tensor, takes
from anyshape.building.rows import LAST_WORD, classifier_rows, in_rows
from anyshape.building.segments import members, pool
from anyshape.cli.main import main
from anyshape.errors import ConfigError, InputTooLarge, ModelFailed, Refused
from anyshape.items import Item, padding_ratio
from anyshape.model import BucketedModel
from anyshape.packing import Call
from tests.conftest import LABELS, TextOf, assert_close, save_bert, write_recipe
from tests.tasks.same import assert_same

ROWS = [16, 32]
SEGMENTS = 6
LENGTHS = [2, 32, 3, 2, 15, 16, 17, 2, 31, 5, 2, 2, 4, 14]  # tokens; 2 is the empty text
VOCABULARY = 97


def build_rows(folder: Path, work: Path, **handler: Any) -> Path:
    section = {"layout": "rows", "segments": SEGMENTS, "buckets": ROWS, "largest_batch": 2, **handler}
    return build(write_recipe(work, model=str(folder), **section), work / "store").path


def rows_of(folder: Path, work: Path, **handler: Any) -> BucketedModel:
    return BucketedModel.load(build_rows(folder, work, **handler), warm=False)


@pytest.fixture(scope="module")
def rows_archive(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> Path:
    return build_rows(encoder_folder, tmp_path_factory.mktemp("rows"), task="sentence-embedding")


@pytest.fixture(scope="module")
def embedding_rows(rows_archive: Path) -> BucketedModel:
    return BucketedModel.load(rows_archive, warm=False)


@pytest.fixture(scope="module")
def classification_rows(tmp_path_factory: pytest.TempPathFactory, classifier_folder: Path) -> BucketedModel:
    return rows_of(classifier_folder, tmp_path_factory.mktemp("rows"), task="text-classification")


def items_of(model: BucketedModel, inputs: list[Any]) -> list[Item]:
    read = model.task.read(inputs, [{}] * len(inputs))
    assert all(isinstance(item, Item) for item in read)
    return read  # type: ignore[return-value]


def test_texts_among_neighbours_are_encoded_as_alone(
    embedding_rows: BucketedModel, plain_embedding: Callable[[str], np.ndarray], text_of: TextOf
) -> None:
    texts = [text_of(length, i) for i, length in enumerate(LENGTHS)]
    expected = dict(zip(texts, map(plain_embedding, texts)))
    draw = random.Random(0)
    for _ in range(5):
        draw.shuffle(texts)
        for text, found in zip(texts, embedding_rows(texts)):
            assert_close(found, expected[text])


def test_a_text_may_stand_anywhere_in_a_row(
    embedding_rows: BucketedModel, plain_embedding: Callable[[str], np.ndarray], text_of: TextOf
) -> None:
    """Full rows in every order, each text at every place it can have there; and rows to spare."""
    texts = [text_of(length) for length in (2, 3, 5, 22)]
    expected = [plain_embedding(text) for text in texts]
    items = items_of(embedding_rows, texts)
    for order in itertools.permutations(range(4)):
        call = Call((32,), 2, tuple(order), (4,))
        for i, output in zip(order, embedding_rows.run_call(call, [items[i] for i in order])):
            assert_close(output.row[0], expected[i])
    shared = Call((32,), 2, (3, 0, 1, 2), (1, 3))
    for i, output in zip(shared.items, embedding_rows.run_call(shared, [items[i] for i in shared.items])):
        assert_close(output.row[0], expected[i])


def test_most_segments_and_one_more(
    embedding_rows: BucketedModel, plain_embedding: Callable[[str], np.ndarray], text_of: TextOf
) -> None:
    texts = [text_of(2)] * SEGMENTS + [text_of(3)]
    results = embedding_rows.run(items_of(embedding_rows, texts))
    assert not any(isinstance(result, Refused) for result in results)
    for text, result in zip(texts, results):
        assert_close(result.row[0], plain_embedding(text))  # type: ignore[union-attr]


def test_a_text_of_one_token_too_many_is_refused_alone(
    embedding_rows: BucketedModel, text_of: TextOf
) -> None:
    inputs = [text_of(5), text_of(33), text_of(32)]
    read = embedding_rows.task.read(inputs, [{}] * 3)
    results = embedding_rows.run(read)
    assert [isinstance(result, InputTooLarge) for result in results] == [False, True, False]


def test_what_a_call_executed_is_shared_by_its_texts(embedding_rows: BucketedModel, text_of: TextOf) -> None:
    items = items_of(embedding_rows, [text_of(n) for n in (4, 8, 16)])
    outputs = embedding_rows.run_call(Call((16,), 2, (0, 1, 2), (2, 1)), items)
    assert padding_ratio(zip(items, outputs)) == pytest.approx(32 / 28)
    assert padding_ratio([(items[0], outputs[0])]) == pytest.approx(32 / 28)
    assert {(output.bucket, output.batch_size) for output in outputs} == {((16,), 2)}


def test_a_text_that_comes_out_as_no_number_spoils_no_neighbour(
    encoder_folder: Path, tokenizer: Any, tmp_path: Path, text_of: TextOf, words: list[str]
) -> None:
    """Zero times infinity is no number: attention of a weight of zero would carry it over."""
    model = transformers.AutoModel.from_pretrained(encoder_folder)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[tokenizer.convert_tokens_to_ids(words[0])] = float("inf")
    model.save_pretrained(tmp_path / "bad")
    tokenizer.save_pretrained(tmp_path / "bad")
    rows = rows_of(tmp_path / "bad", tmp_path, task="sentence-embedding")
    plain = transformers.AutoModel.from_pretrained(encoder_folder)
    texts = [t for t in (text_of(n) for n in (5, 3, 4)) if words[0] not in t.split()]
    inputs = [texts[0], words[0], *texts[1:]]
    items = items_of(rows, inputs)
    results = [
        rows.answer(item, result, {}) if i != 1 else result
        for i, (item, result) in enumerate(zip(items, rows.run(items)))
    ]
    with pytest.raises(ModelFailed, match="not a number"):
        rows.answer(items[1], results[1], {})
    for text, found in zip(texts, [results[0], *results[2:]]):
        with torch.inference_mode():
            mean = plain(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        assert_close(found, (mean / mean.norm()).numpy())


# Tasks


def test_classes_of_texts_and_of_pairs(
    classification_rows: BucketedModel, classifier_folder: Path, text_of: TextOf
) -> None:
    plain = transformers.pipeline("text-classification", str(classifier_folder), device="cpu")
    inputs: list[Any] = [text_of(n, i) for i, n in enumerate(LENGTHS)]
    inputs += [{"text": text_of(5, i), "text_pair": text_of(9, i)} for i in range(4)]
    found = classification_rows(inputs, top_k=3)
    assert classification_rows.index.segments == SEGMENTS
    assert_same(found, [plain(one, top_k=3) for one in inputs])


def test_vectors_of_tokens(tmp_path: Path, encoder_folder: Path, text_of: TextOf) -> None:
    plain = transformers.pipeline("feature-extraction", str(encoder_folder), device="cpu")
    rows = rows_of(encoder_folder, tmp_path, task="feature-extraction")
    texts = [text_of(n, i) for i, n in enumerate(LENGTHS)]
    for text, found in zip(texts, rows(texts)):
        assert_close(found, plain(text))


def test_classes_of_tokens(tmp_path: Path, tokenizer: Any, text_of: TextOf) -> None:
    folder = save_bert(
        tmp_path / "ner",
        "BertForTokenClassification",
        tokenizer,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    rows = rows_of(folder, tmp_path, task="token-classification")
    plain = transformers.pipeline("token-classification", str(folder), device="cpu")
    texts = [text_of(n, i) for i, n in enumerate(LENGTHS) if n > 2]
    for text, found in zip(texts, rows(texts)):
        expected = [{k: v.item() if hasattr(v, "item") else v for k, v in e.items()} for e in plain(text)]
        assert_same(found, expected)


@pytest.mark.parametrize("mode", MODES)
def test_every_way_of_pooling_a_segment(mode: str) -> None:
    """Against the pooling of each text alone, with prompts that are not pooled."""
    torch.manual_seed(1)
    lengths, prompts, row = [5, 1, 9, 3], [2, 0, 8, 0], 24
    tokens = torch.randn(1, row, 7)
    segments = torch.zeros(1, row, dtype=torch.int64)
    counted = torch.ones(1, row, dtype=torch.int64)
    expected, at = [], 0
    for number, (length, prompt) in enumerate(zip(lengths, prompts), 1):
        segments[0, at : at + length] = number
        counted[0, at : at + prompt] = 0
        text = slice(at, at + length)
        expected.append(MODES[mode](tokens[:, text], counted[:, text]))
        at += length
    own = members(segments, 6) & (counted > 0).unsqueeze(1)
    found = pool([mode, mode], tokens, own, segments)
    assert found.shape == (1, 6, 14)
    for i, vector in enumerate(expected):
        assert_close(found[:, i, :7], vector)
        assert_close(found[:, i, 7:], vector)
    assert torch.isfinite(found).all()


# Models


SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
TOKENS = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
T5 = {"vocab_size": VOCABULARY, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
FEW_HEADS = {**SMALL, "num_key_value_heads": 1, "sliding_window": 4}
TAKEN: dict[str, tuple[str, dict[str, Any], str]] = {  # what is peculiar: config, what its head picks
    "positions from the padding's on": ("Roberta", {**SMALL, "pad_token_id": 1}, "cls"),
    "relative buckets": ("MPNet", SMALL, "cls"),
    "a pooler that is a plain layer": ("Albert", SMALL, "cls"),
    "rotary, and windows": ("ModernBert", {**SMALL, **TOKENS, "local_attention": 8}, "cls"),
    "mean in the head": (
        "ModernBert",
        {**SMALL, **TOKENS, "local_attention": 8, "classifier_pooling": "mean"},
        "mean",
    ),
    "rotary, looking back": ("Qwen3", {**FEW_HEADS, "head_dim": 8}, LAST_WORD),
    "looking back in windows": ("Mistral", FEW_HEADS, LAST_WORD),
    "ALiBi": ("Bloom", SMALL, LAST_WORD),
    "T5's bias": ("T5", T5, ""),
}
REFUSED = {
    "DebertaV2": "makes its attention mask itself",
    "XLM": "makes its attention mask itself",
    "MobileBert": "mixes them",  # embeddings of three neighbouring tokens
    "Nystromformer": "mixes them",
}


def tiny(kind: str, config: dict[str, Any], auto: str = "AutoModel") -> Any:
    torch.manual_seed(3)
    settings = getattr(transformers, f"{kind}Config")(**config)
    if kind == "T5":
        return transformers.T5EncoderModel(settings).eval().requires_grad_(False)
    return getattr(transformers, auto).from_config(settings).eval().requires_grad_(False)


def texts_in_a_row(names: Any, lengths: list[int], room: int) -> tuple[list[Any], dict[str, torch.Tensor]]:
    """Random texts, each alone, and as one row that ends with padding."""
    draw = torch.Generator().manual_seed(4)
    texts, row = [], {n: torch.zeros(1, room, dtype=torch.int64) for n in ("segment_ids", "position_ids")}
    row.update((n, torch.zeros(1, room, dtype=torch.int64)) for n in names if n != "attention_mask")
    at = 0
    for number, length in enumerate(lengths, 1):
        ids = torch.randint(3, VOCABULARY, (1, length), generator=draw)
        values = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": ids * 0}
        texts.append({name: values[name] for name in names})
        row["input_ids"][0, at : at + length] = ids
        row["segment_ids"][0, at : at + length] = number
        row["position_ids"][0, at : at + length] = torch.arange(length)
        at += length
    return texts, row


@pytest.mark.parametrize("what", TAKEN)
def test_models_with_peculiar_positions_and_heads(what: str) -> None:
    kind, config, pick = TAKEN[what]
    lengths = [17, 1, 3, 24, 2]
    model = tiny(kind, config)
    names = takes(model)
    texts, row = texts_in_a_row(names, lengths, 50)
    with torch.no_grad():
        rows = in_rows(model, names, VOCABULARY)
        found, at = rows(row), 0
        for text, length in zip(texts, lengths):
            assert_close(found[:, at : at + length], first_tensor(model(**text)))
            at += length
    if not pick:
        return
    labels = {"id2label": {0: "a", 1: "b", 2: "c"}}
    classifier = tiny(kind, {**config, **labels}, "AutoModelForSequenceClassification")
    names = [name for name in takes(classifier) if name in (*names, "attention_mask")]
    texts, row = texts_in_a_row(names, lengths, 50)
    with torch.no_grad():
        expected = [first_tensor(classifier(**text)) for text in texts]
        made = classifier_rows(classifier, names, list(row), len(lengths), VOCABULARY)
        assert made.pick == pick
        (scores,) = made(*row.values())
        for i, wanted in enumerate(expected):
            assert_close(scores[:, i], wanted)


@pytest.mark.parametrize("kind", REFUSED)
def test_other_models_are_refused_by_name(kind: str) -> None:
    model = tiny(kind, {**SMALL, "emb_dim": 16, "n_layers": 2, "n_heads": 2} if kind == "XLM" else SMALL)
    with pytest.raises(ConfigError, match=f"{kind}Model: .*{REFUSED[kind]}"):
        in_rows(model, list(takes(model)), VOCABULARY)


def test_transformers_own_masks_are_as_before(embedding_rows: BucketedModel) -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    assert not ALL_MASK_ATTENTION_FUNCTIONS._local_mapping


# Recipes


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        ({"task": "fill-mask"}, "rows is not known to fill-mask"),
        (
            {
                "task": "feature-extraction",
                "backend": "inductor",
                "backend_options": {"shapes": "dynamic"},
            },
            "gains nothing where one program takes every length",
        ),
    ],
)
def test_what_rows_are_not_for_is_said(
    handler: dict[str, Any], said: str, encoder_folder: Path, tokenizer: Any, tmp_path: Path
) -> None:
    folder = encoder_folder
    if handler["task"] == "fill-mask":
        folder = save_bert(tmp_path / "words", "BertForMaskedLM", tokenizer)
    with pytest.raises((BuildError, ConfigError), match=said):
        rows_of(folder, tmp_path, **handler)


def test_the_archive_says_how_its_rows_are_laid_out(
    rows_archive: Path, embedding_rows: BucketedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(rows_archive)]) == 0
    assert f"rows of whole texts, at most {SEGMENTS} in a row" in capsys.readouterr().out
    index: Index = embedding_rows.index
    assert (index.layout, index.segments, [p.bucket for p in index.programs]) == ("rows", 6, [(16,), (32,)])
    assert [spec.name for spec in index.inputs] == [
        "input_ids", "token_type_ids", "segment_ids", "position_ids",
    ]  # fmt: skip
    described = embedding_rows.describe()
    assert (described["layout"], described["segments"]) == ("rows", 6)
