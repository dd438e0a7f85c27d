from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import LABELS, TextOf, assert_close, save_bert
from tests.handler.apis.conftest import ask, error_of, sent
from tests.handler.frontend import Worker

Plain = Callable[[str], np.ndarray]
Logits = Callable[..., np.ndarray]


def logits_of(folder: Path, tokenizer: Any) -> Logits:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).float().eval()

    def logits(*texts: str) -> np.ndarray:
        with torch.inference_mode():
            return model(**tokenizer(*texts, return_tensors="pt")).logits[0].numpy()

    return logits


@pytest.fixture(scope="module")
def plain_classes(classifier_folder: Path, tokenizer: Any) -> Logits:
    return logits_of(classifier_folder, tokenizer)


@pytest.fixture(scope="module")
def plain_score(scorer_folder: Path, tokenizer: Any) -> Logits:
    return logits_of(scorer_folder, tokenizer)


def test_embed_answers_with_a_list_always(embedder: Worker, plain_embedding: Plain) -> None:
    assert_close(ask(embedder, "embed", {"inputs": "one"}), plain_embedding("one")[None])
    answer = ask(embedder, "embed", {"inputs": ["one", "two"], "truncate": True, "normalize": True})
    assert_close(answer, [plain_embedding("one"), plain_embedding("two")])
    assert_close(
        ask(embedder, "embed", {"inputs": ["one"], "dimensions": 4})[0],
        plain_embedding("one")[:4] / np.linalg.norm(plain_embedding("one")[:4]),
    )


@pytest.mark.parametrize(("side", "name"), [("right", "Right"), ("left", "left"), ("right", None)])
def test_a_text_is_cut_at_the_side_that_is_asked(
    side: str, name: str | None, embedder: Worker, text_of: TextOf, encoder_folder: Path
) -> None:
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder_folder, truncation_side=side)
    model = AutoModel.from_pretrained(encoder_folder).float().eval()
    with torch.inference_mode():
        inputs = tokenizer(text_of(50), return_tensors="pt", truncation=True, max_length=32)
        mean = model(**inputs).last_hidden_state[0].mean(0)
    body = {"inputs": text_of(50), "truncate": True, "truncation_direction": name}
    (received,) = embedder.predict([sent("embed", {k: v for k, v in body.items() if v is not None})])
    assert_close(received.json()[0], (mean / mean.norm()).numpy())
    assert received.headers["X-Truncated"] == "0: 50 tokens to 32"


def test_a_model_that_normalizes_cannot_be_asked_not_to(embedder: Worker) -> None:
    error = ask(embedder, "embed", {"inputs": "a", "normalize": False}, 422)
    assert error["error_type"] == "Validation"
    assert "normalize" in error["error"]


def test_vectors_of_any_length_are_normalized_only_if_asked(
    built: Callable[..., Worker], encoder_folder: Path, tokenizer: Any
) -> None:
    from transformers import AutoModel

    worker = built(
        *("raw",),
        task="sentence-embedding",
        model=str(encoder_folder),
        task_options={"normalize": False, "prompts": {"query": "query: "}},
    )
    model = AutoModel.from_pretrained(encoder_folder).float().eval()

    def mean(text: str) -> np.ndarray:
        with torch.inference_mode():
            return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy()

    raw = mean("a text")
    assert abs(np.linalg.norm(raw) - 1) > 0.1
    assert_close(ask(worker, "embed", {"inputs": "a text", "normalize": False})[0], raw)
    assert_close(ask(worker, "embed", {"inputs": "a text"})[0], raw / np.linalg.norm(raw))
    cut = ask(worker, "embed", {"inputs": "a text", "normalize": False, "dimensions": 3})[0]
    assert_close(cut, raw[:3])
    prompted = ask(worker, "embed", {"inputs": "a", "normalize": False, "prompt_name": "query"})[0]
    assert_close(prompted, mean("query: a"))
    assert_close(ask(worker, "v1/embeddings", {"input": "a text"})["data"][0]["embedding"], raw)
    body = {"inputs": {"source_sentence": "x", "sentences": ["y", "z"]}}
    body["parameters"] = {"prompt_name": "query", "truncate": True}  # type: ignore[assignment]
    x, y, z = (mean(f"query: {each}") / np.linalg.norm(mean(f"query: {each}")) for each in "xyz")
    assert_close(ask(worker, "similarity", body), [x @ y, x @ z])


def test_embed_all_has_a_vector_for_each_token(
    tokens: Worker, text_of: TextOf, encoder_folder: Path, tokenizer: Any
) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(encoder_folder).float().eval()
    texts = [text_of(7), text_of(30)]
    answers = ask(tokens, "embed_all", {"inputs": texts})
    for answer, text in zip(answers, texts):
        with torch.inference_mode():
            expected = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert_close(answer, expected.numpy())
    assert np.shape(ask(tokens, "embed_all", {"inputs": texts[0]})) == (1, 7, 16)


def test_embed_sparse_has_what_the_sparse_encoder_has(
    built: Callable[..., Worker], tokenizer: Any, tmp_path: Path
) -> None:
    sparse_encoder = pytest.importorskip("sentence_transformers").SparseEncoder
    folder = save_bert(tmp_path, "BertForMaskedLM", tokenizer)
    worker = built("sparse", task="sparse-embedding", model=str(folder))
    plain = sparse_encoder(str(folder), device="cpu")
    texts = ["one", "how long is a piece of string"]
    for answer, text in zip(ask(worker, "embed_sparse", {"inputs": texts}), texts):
        expected = plain.encode(text, convert_to_sparse_tensor=True).coalesce()
        assert [each["index"] for each in answer] == expected.indices()[0].tolist()
        assert_close([each["value"] for each in answer], expected.values().numpy())


def test_embed_all_has_the_vectors_of_late_interaction(
    built: Callable[..., Worker], encoder_folder: Path, tmp_path: Path
) -> None:
    encoder = pytest.importorskip("sentence_transformers").MultiVectorEncoder
    from tests.colbert_folders import FIXED, native

    folder = native(encoder_folder, tmp_path, query_expansion=FIXED)
    worker = built("colbert", task="multi-vector-embedding", model=str(folder), buckets=[16])
    plain, texts = encoder(str(folder), device="cpu"), ["one.", "how long is a piece of string"]
    for asked, encode in (({}, plain.encode_document), ({"prompt_name": "query"}, plain.encode_query)):
        for found, text in zip(ask(worker, "embed_all", {"inputs": texts, **asked}), texts):
            assert_close(found, encode(text, convert_to_numpy=True))


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def assert_classes(found: Any, expected: np.ndarray) -> None:
    """All classes, best first."""
    order = np.argsort(-expected)
    assert [set(each) for each in found] == [{"label", "score"}] * len(expected)
    assert [each["label"] for each in found] == [LABELS[i] for i in order]
    assert_close([each["score"] for each in found], expected[order])


def test_predict_takes_two_texts_for_a_pair_and_lists_for_a_batch(
    classifier: Worker, plain_classes: Logits
) -> None:
    def answer(inputs: Any, **options: Any) -> Any:
        return ask(classifier, "predict", {"inputs": inputs, **options})

    assert_classes(answer("a"), softmax(plain_classes("a")))
    assert_classes(answer(["a"]), softmax(plain_classes("a")))
    assert_classes(answer(["a", "b"]), softmax(plain_classes("a", "b")))
    batch = answer([["a"], ["a", "b"]])
    assert len(batch) == 2
    assert_classes(batch[0], softmax(plain_classes("a")))
    assert_classes(batch[1], softmax(plain_classes("a", "b")))
    (alone,) = answer([["a"]])
    assert_classes(alone, softmax(plain_classes("a")))
    assert_classes(answer("a", raw_scores=True), plain_classes("a"))
    (best,) = answer("a", parameters={"top_k": 1, "function_to_apply": "none"})
    assert best["score"] == pytest.approx(float(plain_classes("a").max()), rel=1e-4)


@pytest.mark.parametrize(
    "inputs", [[], ["a", "b", "c"], [["a"], "b", 5], [["a", "b", "c"]], [[]], [["a"], 5]]
)
def test_predict_refuses_what_is_no_pair_and_no_batch(inputs: Any, classifier: Worker) -> None:
    error = ask(classifier, "predict", {"inputs": inputs}, 422)
    assert set(error) == {"error", "error_type"}


def test_rerank_sorts_texts_by_their_score(scorer: Worker, plain_score: Logits) -> None:
    query, texts = "how long is it", ["a piece of string", "as long as the day", "nothing"]
    logits = np.array([plain_score(query, text)[0] for text in texts])
    order = np.argsort(-logits)
    body = {"query": query, "texts": texts}
    ranks = ask(scorer, "rerank", body)
    assert [rank["index"] for rank in ranks] == list(order)
    assert_close([rank["score"] for rank in ranks], 1 / (1 + np.exp(-logits[order])))
    assert all(set(rank) == {"index", "score"} for rank in ranks)
    ranks = ask(scorer, "rerank", {**body, "raw_scores": True, "return_text": True})
    assert_close([rank["score"] for rank in ranks], logits[order])
    assert [rank["text"] for rank in ranks] == [texts[i] for i in order]
    assert ask(scorer, "info")["model_type"]["reranker"]["id2label"] == {"0": "LABEL_0"}


def test_rerank_by_a_ranking_model_is_the_same(
    built: Callable[..., Worker], scorer: Worker, scorer_folder: Path
) -> None:
    ranker = built("ranker", task="text-ranking", model=str(scorer_folder))
    body = {"query": "how long is it", "texts": ["a piece of string", "as long as the day", "nothing"]}
    for options in ({}, {"raw_scores": True}, {"return_text": True}):
        found, expected = (ask(worker, "rerank", {**body, **options}) for worker in (ranker, scorer))
        assert [rank["index"] for rank in found] == [rank["index"] for rank in expected]
        assert [rank.get("text") for rank in found] == [rank.get("text") for rank in expected]
        assert_close([rank["score"] for rank in found], [rank["score"] for rank in expected])


def test_rerank_needs_a_model_of_one_score(classifier: Worker) -> None:
    error = ask(classifier, "rerank", {"query": "a", "texts": ["b"]}, 422)
    assert "3 classes" in error["error"]
    assert set(ask(classifier, "info")["model_type"]["classifier"]["label2id"]) == set(LABELS)


BAD: dict[str, tuple[str, Any, int, str]] = {
    "ids": ("embed", {"inputs": [1, 2]}, 422, "token ids"),
    "an object": ("embed", {"inputs": {"text": "a"}}, 422, "inputs is not a text"),
    "none": ("embed", {"inputs": []}, 400, "empty list"),
    "unknown": ("embed", {"inputs": "a", "colour": 1}, 422, "colour"),
    "direction": ("embed", {"inputs": "a", "truncation_direction": "up"}, 422, "left or right"),
    "prompt": ("embed", {"inputs": "a", "prompt_name": "none"}, 422, "prompt_name"),
    "dimensions": ("embed", {"inputs": "a", "dimensions": 17}, 422, "16"),
    "no sentences": ("similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 400, "empty list"),
    "a number": (
        "similarity",
        {"inputs": {"source_sentence": "a", "sentences": ["b", 5]}},
        422,
        "inputs.sentences[1]: expected",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_in_teis_shape(name: str, embedder: Worker) -> None:
    path, body, status, says = BAD[name]
    error = ask(embedder, path, body, status)
    assert set(error) == {"error", "error_type"}
    assert error["error_type"] == ("Empty" if status == 400 else "Validation")
    assert says in error["error"]


def test_too_long_a_text_is_told_how_to_be_cut_here(embedder: Worker, text_of: TextOf) -> None:
    for path, body, where in (
        ("embed", {"inputs": text_of(40)}, ""),
        ("embed", {"inputs": ["a", text_of(40)]}, "inputs[1]: "),
        (
            "similarity",
            {"inputs": {"source_sentence": text_of(40), "sentences": ["a"]}},
            "inputs.source_sentence: ",
        ),
        (
            "similarity",
            {"inputs": {"source_sentence": "a", "sentences": [text_of(40)]}},
            "inputs.sentences[0]: ",
        ),
    ):
        (received,) = embedder.predict([sent(path, body)])
        assert received.status == 413
        assert error_of(received) == (
            f"{where}the input has 40 tokens, and the largest bucket takes 32: "
            'shorten it, or send "truncate": true'
        )
