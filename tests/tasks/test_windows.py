"""Texts longer than the largest bucket: the windows that the tokenizer cuts, each run by the plain model,
and merged here in the plainest way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anyshape.building.build import build
from anyshape.errors import ConfigError, InputTooLarge
from anyshape.items import Parts
from anyshape.model import BucketedModel
from anyshape.tasks.windows import spans
from tests.conftest import TextOf, assert_close, save_bert, unpacked, write_recipe
from tests.handler.frontend import Sent, Worker
from tests.quick import quick
from tests.tasks.same import assert_same

LARGEST, STRIDE, MOST = 32, 9, 10
ODD = "Émile's naïve café, unbelievable! 漢字かな said so. "
Load = Callable[..., BucketedModel]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    def load(task: str, folder: Path, **options: Any) -> BucketedModel:
        work = tmp_path_factory.mktemp(task)
        chosen = {"stride": STRIDE, "max_windows": MOST, **options}
        recipe = write_recipe(work, task=task, model=str(folder), over_max="window", task_options=chosen)
        return BucketedModel.load(build(recipe, work / "store").path)

    return load


@pytest.fixture
def long(text_of: TextOf) -> list[str]:
    """Texts of one window, of exactly that, of one token more, and of many."""
    return [*(text_of(length) for length in (3, 31, 32, 33, 53, 54, 55, 180)), ODD * 2, ODD * 7]


def windows(tokenizer: Any, text: str) -> Any:
    """As transformers cuts them; `token_numbers` of each are those of the whole text."""
    cut = tokenizer(text, truncation=True, max_length=LARGEST, stride=STRIDE, return_overflowing_tokens=True)
    cut.pop("overflow_to_sample_mapping")
    numbers, at = [], 1
    for ids in cut["input_ids"]:
        numbers.append(list(range(at, at + len(ids) - 2)))
        at += LARGEST - 2 - STRIDE
    return [{name: cut[name][i] for name in cut} for i in range(len(numbers))], numbers


def outputs(model: Any, cut: list[Any]) -> list[np.ndarray]:
    """The plain model's first output for each window."""
    with torch.inference_mode():
        return [
            model(**{name: torch.tensor([value]) for name, value in one.items()})[0][0].numpy() for one in cut
        ]


def joined(numbers: list[list[int]], found: list[np.ndarray]) -> np.ndarray:
    """Every token's vector from the window that it stands furthest inside of."""
    rows = [found[0][0]]
    for token in range(1, numbers[-1][-1] + 1):
        inside = []
        for i, own in enumerate(numbers):
            if token in own:
                left = np.inf if i == 0 else token - own[0]
                right = np.inf if i + 1 == len(numbers) else own[-1] - token
                inside.append((-min(left, right), i))
        _, i = min(inside)
        rows.append(found[i][1 + token - numbers[i][0]])
    return np.stack([*rows, found[-1][-1]])


def test_token_embeddings_are_joined_without_overlap(
    load: Load, encoder_folder: Path, tokenizer: Any, long: list[str]
) -> None:
    from transformers import AutoModel

    plain = AutoModel.from_pretrained(encoder_folder).float().eval()
    model = load("feature-extraction", encoder_folder)
    for text, found in zip(long, model(long)):
        cut, numbers = windows(tokenizer, text)
        expected = joined(numbers, outputs(plain, cut))
        assert found.shape == (1, len(tokenizer(text)["input_ids"]), 16)
        assert_close(found[0], expected)


@pytest.mark.parametrize("normalize", quick([True, False], 0))
def test_embeddings_are_means_by_length(
    normalize: bool, load: Load, encoder_folder: Path, tokenizer: Any, long: list[str]
) -> None:
    from transformers import AutoModel

    plain = AutoModel.from_pretrained(encoder_folder).float().eval()
    model = load("sentence-embedding", encoder_folder, normalize=normalize)
    for text, found in zip(long, model(long)):
        cut, _ = windows(tokenizer, text)
        vectors = [output.mean(0) for output in outputs(plain, cut)]
        vectors = [vector / np.linalg.norm(vector) for vector in vectors] if normalize else vectors
        expected = np.average(vectors, axis=0, weights=[len(one["input_ids"]) for one in cut])
        assert_close(found, expected / np.linalg.norm(expected) if normalize else expected)


@pytest.mark.parametrize("include", quick([True, False], 1))
def test_every_window_has_the_prompt(
    include: bool, load: Load, encoder_folder: Path, tokenizer: Any, text_of: TextOf
) -> None:
    prompt = "search for this: "
    options = {"prompts": {"query": prompt}, "include_prompt": include}
    model = load("sentence-embedding", encoder_folder, **options)
    (parts,) = model.task.read([text_of(60)], [{"prompt_name": "query"}])
    assert isinstance(parts, Parts)
    head = tokenizer(prompt)["input_ids"][:-1]
    assert len(parts.items) == 3
    for item in parts.items:
        assert item.data["input_ids"][: len(head)] == head
        assert item.data["input_ids"][len(head) :].count(head[1]) == 0
        assert include or item.data["pooling_mask"] == [0] * len(head) + [1] * (item.size[0] - len(head))
    (alone,) = model.task.read(["word"], [{"prompt_name": "query"}])
    assert include or alone.data["pooling_mask"] == [0] * len(head) + [1, 1]  # type: ignore[union-attr]
    model(text_of(60), prompt_name="query")


def test_classes_are_those_of_mean_scores(
    load: Load, classifier_folder: Path, tokenizer: Any, long: list[str]
) -> None:
    from transformers import AutoModelForSequenceClassification

    plain = AutoModelForSequenceClassification.from_pretrained(classifier_folder).float().eval()
    model = load("text-classification", classifier_folder)
    for text, found in zip(long, model(long, top_k=None)):
        cut, _ = windows(tokenizer, text)
        scores = outputs(plain, cut)
        mean = np.average(scores, axis=0, weights=[len(one["input_ids"]) for one in cut])
        expected = torch.tensor(mean).softmax(0)
        ranked = [
            {"label": plain.config.id2label[i], "score": float(expected[i])}
            for i in expected.argsort(descending=True).tolist()
        ]
        assert_same(found, ranked)
    assert model(long)[0] == model(long[0])
    with pytest.raises(InputTooLarge):  # a pair is not cut so
        model({"text": long[5], "text_pair": "a"})


@pytest.mark.parametrize("strategy", quick(["none", "first", "average"], 2))
def test_entities_are_those_of_tokens_far_from_edges(
    strategy: str, load: Load, tmp_path: Path, tokenizer: Any, long: list[str]
) -> None:
    """The pipeline's own steps, given the joined scores of the whole text in place of the model's."""
    from transformers import pipeline

    labels = ["O", "B-X", "I-X", "Y"]
    folder = save_bert(
        tmp_path / "m",
        "BertForTokenClassification",
        tokenizer,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    plain = pipeline("token-classification", str(folder), device="cpu", aggregation_strategy=strategy)
    model = load("token-classification", folder)
    scored = plain.model

    for text, found in zip(long, model(long, aggregation_strategy=strategy)):
        cut, numbers = windows(tokenizer, text)
        logits = torch.tensor(joined(numbers, outputs(scored, cut)))[None]
        (given,) = plain.preprocess(text, is_split_into_words=False)
        given = {"word_ids": None, "word_to_chars_map": None, **given, "logits": logits}
        expected = plain.postprocess([given], plain._postprocess_params["aggregation_strategy"])
        assert_same(found, expected)


def test_headers_and_limits(load: Load, encoder_folder: Path, tmp_path: Path, text_of: TextOf) -> None:
    recipe = write_recipe(tmp_path, task="sentence-embedding", model=str(encoder_folder), over_max="window")
    archive = build(recipe, tmp_path / "store").path
    worker = Worker(unpacked(archive, tmp_path / "files"))
    texts = [text_of(20), text_of(70), text_of(5)]
    body = b'{"inputs": ["%s", "%s", "%s"]}' % tuple(text.encode() for text in texts)
    one, many, short, far = worker.predict(
        [
            Sent(texts[1].encode()),
            Sent(body, "application/json"),
            Sent(b"a"),
            Sent(text_of(2000).encode()),
        ]
    )
    assert [one.status, many.status, short.status, far.status] == [200, 200, 200, 413]
    assert one.headers["X-Windows"] == "3"
    assert many.headers["X-Windows"] == "1,3,1"
    assert len(many.headers["X-Bucket"].split(",")) == 5
    assert "X-Truncated" not in many.headers
    assert "X-Windows" not in short.headers
    assert_close(many.json()[1], one.json())
    assert "more than the limit of 16 (handler.task_options.max_windows)" in far.json()["message"]
    cut = Sent(
        b'{"inputs": "%s", "parameters": {"truncation": true}}' % texts[1].encode(), "application/json"
    )
    (received,) = worker.predict([cut])
    assert received.headers["X-Truncated"] == "0: 70 tokens to 32"
    assert "X-Windows" not in received.headers


def test_a_window_that_fails_fails_its_text_alone(
    load: Load, classifier_folder: Path, text_of: TextOf
) -> None:
    model = load("text-classification", classifier_folder)
    texts = [text_of(20), text_of(70), text_of(5)]
    (_, parts, _) = read = model.task.read(texts, [{}] * 3)
    assert isinstance(parts, Parts)
    parts.items[1].data["input_ids"] = [10**6] * 32
    ran = model.run(read)
    with pytest.raises(Exception, match="the model failed"):
        model.answer(read[1], ran[1], {})
    for i in (0, 2):
        assert_same(model.answer(read[i], ran[i], {}), model(texts[i]))


def test_a_task_that_merges_nothing_cuts_no_windows(tmp_path: Path, tokenizer: Any) -> None:
    folder = save_bert(tmp_path / "m", "BertForMaskedLM", tokenizer)
    recipe = write_recipe(tmp_path, task="fill-mask", model=str(folder), over_max="window")
    with pytest.raises(ConfigError, match="must be one of reject, truncate for fill-mask, not 'window'"):
        build(recipe, tmp_path / "store")


def test_spans_cover_everything_once_a_step() -> None:
    assert spans(1, 11, 4, 1) == [(1, 5), (4, 8), (7, 11)]
    assert spans(0, 4, 4, 0) == [(0, 4)]
    assert spans(0, 5, 4, 3) == [(0, 4), (1, 5)]
    with pytest.raises(ValueError, match="room for 3 tokens, no more than its stride of 3"):
        spans(0, 9, 3, 3)
