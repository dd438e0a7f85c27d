"""Answers to questions. transformers 5 has no such pipeline: the plain model is asked, and its spans are
found by what the pipeline for documents still has of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anyshape.building.build import build
from anyshape.errors import ConfigError, InputTooLarge, UnprocessableInput
from anyshape.items import Parts
from anyshape.model import BucketedModel
from tests.conftest import BUCKETS, TextOf, save_bert, write_recipe
from tests.tasks.same import assert_same

LARGEST = BUCKETS[-1]
STRIDE = 6
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return save_bert(tmp_path_factory.mktemp("reader"), "BertForQuestionAnswering", tokenizer)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> BucketedModel:
    work = tmp_path_factory.mktemp("question-answering")
    options = {"stride": STRIDE, "max_windows": 12}
    recipe = write_recipe(
        work, task="question-answering", model=str(folder), over_max="window", task_options=options
    )
    return BucketedModel.load(build(recipe, work / "store").path)


@pytest.fixture(scope="module")
def plain(folder: Path, tokenizer: Any) -> Ask:
    """The steps of transformers 4's pipeline, around the plain model."""
    from transformers import AutoModelForQuestionAnswering

    model = AutoModelForQuestionAnswering.from_pretrained(folder).float().eval()

    def ask(
        question: str,
        context: str,
        top_k: int = 1,
        doc_stride: int = STRIDE,
        handle_impossible_answer: bool = False,
        max_answer_len: int = 15,
        align_to_words: bool = True,
    ) -> Any:
        encoded = tokenizer(
            question,
            context,
            truncation="only_second",
            max_length=LARGEST,
            stride=doc_stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        windows = []
        for i, ids in enumerate(encoded["input_ids"]):
            with torch.inference_mode():
                given = {"input_ids": [ids], "token_type_ids": [encoded["token_type_ids"][i]]}
                out = model(**{key: torch.tensor(value) for key, value in given.items()})
            encoding, sequences = encoded.encodings[i], encoded.sequence_ids(i)
            kept = [s == 1 or ids[n] == tokenizer.cls_token_id for n, s in enumerate(sequences)]
            places = []
            for n, offsets in enumerate(encoding.offsets):
                word = encoding.token_to_word(n)
                whole = align_to_words and word is not None and sequences[n] == 1
                places.append(encoding.word_to_chars(word, 1) if whole else offsets)
            windows.append((out.start_logits, out.end_logits, kept, places))
        return answers_of(
            windows, context, top_k, handle_impossible_answer, max_answer_len,
            align_to_words,
        )  # fmt: skip

    return ask


def answers_of(
    windows: list[Any],
    context: str,
    top_k: int = 1,
    handle_impossible_answer: bool = False,
    max_answer_len: int = 15,
    align_to_words: bool = True,
) -> Any:
    """What the pipeline makes of the scores of windows, ``(starts, ends, kept, places)`` each: which tokens
    may answer, and the place in the context that each would give."""
    from transformers.pipelines.document_question_answering import select_starts_ends

    answers: list[dict[str, Any]] = []
    null = 1_000_000.0
    for start_scores, end_scores, kept, places in windows:
        starts, ends, scores, null = select_starts_ends(
            start_scores.numpy(),
            end_scores.numpy(),
            1 - np.asarray(kept).astype(int),
            np.ones((1, len(kept)), int),
            null,
            top_k * 2 + 10 if align_to_words else top_k,
            handle_impossible_answer,
            max_answer_len,
        )
        for s, e, score in zip(starts, ends, scores):
            if s > e:
                continue  # of no likelihood at all: listed where there are fewer spans than asked for
            start, end = places[s][0], places[e][1]
            same = [a for a in answers if a["answer"].lower() == context[start:end].lower()]
            if same:
                same[0]["score"] += float(score)
            else:
                answer = context[start:end]
                answers.append({"score": float(score), "start": start, "end": end, "answer": answer})
    if handle_impossible_answer:
        answers.append({"score": null, "start": 0, "end": 0, "answer": ""})
    answers = sorted(answers, key=lambda answer: answer["score"], reverse=True)[:top_k]
    return answers[0] if len(answers) == 1 else answers


def asked(question: str, context: str) -> dict[str, str]:
    return {"question": question, "context": context}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 3},
        {"top_k": 4, "max_answer_len": 2},
        {"top_k": 4, "align_to_words": False},
        {"handle_impossible_answer": True},
        {"handle_impossible_answer": True, "top_k": 5},
        {"doc_stride": 0, "top_k": 2},
        {"doc_stride": 12, "top_k": 2},
    ],
)
def test_answers_in_every_bucket_and_in_windows(
    options: dict[str, Any], reader: BucketedModel, plain: Ask, text_of: TextOf
) -> None:
    pairs = [(text_of(3 + n % 5), text_of(n, 1)) for n in (3, 4, 6, 12, 20, 25, 28, 29, 30, 31, 60, 100)]
    pairs += [
        ("Who was it?", "Llanfairpwllgwyngyll's unbelievable naïve café, Émile Zola! 漢字かな said so."),
        ("Où?", "👩‍👩‍👧 and a\u200bb at [SEP] the [CLS] end [MASK]"),
        ("who?", "a"),
    ]
    expected = [plain(*pair, **options) for pair in pairs]
    assert_same(reader([asked(*pair) for pair in pairs], **options), expected)
    assert_same([reader(asked(*pair), **options) for pair in pairs], expected)


def test_a_question_never_answers_itself(reader: BucketedModel, text_of: TextOf) -> None:
    for length in (5, 20, 40):
        context = text_of(length, 1)
        for answer in reader(asked(text_of(12), context), top_k=20):
            assert context[answer["start"] : answer["end"]] == answer["answer"]


def test_the_windows_are_those_of_the_tokenizer(
    reader: BucketedModel, tokenizer: Any, text_of: TextOf
) -> None:
    question, context = text_of(7), text_of(90, 1)
    (parts,) = reader.task.read([asked(question, context)], [{}])
    assert isinstance(parts, Parts)
    options = {"truncation": "only_second", "max_length": LARGEST, "stride": STRIDE}
    expected = tokenizer(question, context, return_overflowing_tokens=True, **options)
    assert [item.data["input_ids"] for item in parts.items] == expected["input_ids"]
    assert [item.data["token_type_ids"] for item in parts.items] == expected["token_type_ids"]
    assert parts.windows
    assert parts.changed is None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("a text", '"question"'),
        ({"question": "a"}, '"context"'),
        ({"question": "a", "context": "b", "more": 1}, '"context"'),
        ({"question": "", "context": "b"}, "question is empty"),
        ({"question": "a", "context": ""}, "context is empty"),
        ({"question": "a", "context": 3}, "a number"),
    ],
)
def test_what_is_no_question_is_refused(value: Any, says: str, reader: BucketedModel) -> None:
    with pytest.raises(UnprocessableInput, match=says):
        reader(value)


def test_limits(reader: BucketedModel, text_of: TextOf) -> None:
    with pytest.raises(InputTooLarge, match=r"windows, more than the limit of 12 .*max_windows"):
        reader(asked("who?", text_of(500)))
    with pytest.raises(InputTooLarge, match="tokens"):
        reader(asked("who?", "word " * 19_000))
    with pytest.raises(InputTooLarge, match="room for 4 tokens, no more than its stride of 6"):
        reader(asked(text_of(27), text_of(40)))
    with pytest.raises(UnprocessableInput, match="top_k"):
        reader(asked("a", "b"), top_k=0)


def test_a_context_is_cut_where_the_request_asks_for_it(
    reader: BucketedModel, tokenizer: Any, plain: Ask, text_of: TextOf
) -> None:
    question, context = text_of(6), text_of(60, 1)
    (item,) = reader.task.read([asked(question, context)], [{"truncation": True}])
    cut = tokenizer(question, context, truncation="only_second", max_length=LARGEST)
    assert item.data["input_ids"] == cut["input_ids"]  # type: ignore[union-attr]
    with pytest.raises(InputTooLarge):
        reader(asked(text_of(50), "short"), truncation=True)


@pytest.mark.parametrize(
    "options", [{"stride": -1}, {"stride": "2"}, {"max_windows": 0}, {"max_windows": None}]
)
def test_options_that_make_no_sense(options: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, task="question-answering", model=str(folder), task_options=options)
    with pytest.raises(ConfigError, match=f"handler.task_options.{next(iter(options))} must be"):
        build(recipe, tmp_path / "store")
