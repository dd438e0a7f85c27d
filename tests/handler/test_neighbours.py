"""One request must not hurt another: what goes wrong stays with the request that it goes wrong for."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from anyshape.building.build import build
from anyshape.model import BucketedModel
from tests.conftest import TextOf, assert_close, mean_embedding, save_bert, unpacked, write_recipe
from tests.handler.frontend import Sent, Worker
from tests.handler.test_bucketed_handler import JSON, refused, sent_json

OURS = ("handler", "anyshape")  # who logs


@pytest.fixture(scope="module")
def shared(embedding_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return Worker(unpacked(embedding_archive, tmp_path_factory.mktemp("worker")))


@pytest.fixture
def worker(shared: Worker) -> Any:
    """A worker that is as it was after the test."""
    model = shared.handler.model
    parts = (shared.handler, model, model.task, model.programs, shared.service.context)
    kept = [(each, dict(vars(each))) for each in parts]
    yield shared
    for each, values in kept:
        vars(each).clear()
        vars(each).update(values)


@pytest.fixture(scope="module")
def without_unk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model whose tokenizer raises for every word that it does not know, and its archive."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "one": 1, "two": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]")
    folder = save_bert(tmp_path_factory.mktemp("model"), "BertModel", fast)
    recipe = write_recipe(folder, task="sentence-embedding", model=str(folder), buckets=[4])
    return folder, build(recipe, folder / "store").path


def test_a_text_that_the_tokenizer_cannot_read_fails_alone(
    without_unk: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, archive = without_unk
    from transformers import AutoTokenizer

    plain = mean_embedding(folder, AutoTokenizer.from_pretrained(folder))
    texts = ["one two", "one secret", "two", "two secret " * 1000, "two two"]
    answers = Worker(unpacked(archive, tmp_path)).predict([Sent(text.encode()) for text in texts])
    for answer, text in zip(answers, texts):
        if "secret" in text:
            refused(answer, 422, "the tokenizer cannot read the text: WordLevel error: Missing [UNK]")
        else:
            assert answer.status == 200
            assert_close(answer.json(), plain(text))
    assert "secret" not in caplog.text


def broken_for(model: BucketedModel, name: str, word: str) -> None:
    """Let the program of a bucket raise when a text of its call holds `word`."""
    whole = model.programs.loaded[name]
    token = model.task.tokenizer.token_to_id(word)  # type: ignore[attr-defined]

    def program(*tensors: Any) -> Any:
        if bool((tensors[0] == token).any()):
            raise RuntimeError(f"cannot compute\nwith {tensors[0].shape}")
        return whole(*tensors)

    model.programs.loaded = {**model.programs.loaded, name: program}


def test_one_bad_item_of_a_call_fails_alone(
    worker: Worker, plain_embedding: Callable[..., np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    worker.handler.model.costs = worker.handler.model.costs.by_volume([((4,), 4)], dynamic_batch=False)
    broken_for(worker.handler.model, "4", "spoon")
    texts = ["fork", "spoon", "knife", "plate"]
    answers = worker.predict([Sent(text.encode()) for text in texts])
    refused(answers[1], 500, "the model failed in bucket 4")
    for answer, text in zip(answers, texts):
        if text != "spoon":
            assert_close(answer.json(), plain_embedding(text))
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 2  # the call, and the item alone
    assert "cannot compute with" in caplog.messages[0]
    assert "spoon" not in caplog.text


def test_one_bad_item_of_a_request_is_named(worker: Worker) -> None:
    broken_for(worker.handler.model, "4", "spoon")
    listed, other = worker.predict([sent_json({"inputs": ["fork", "spoon"]}), Sent(b"knife")])
    refused(listed, 500, "inputs[1]: the model failed")
    assert other.status == 200


@pytest.mark.parametrize("method", ["record", "observe"])
def test_what_only_counts_fails_no_answer(
    method: str,
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    plain_embedding: Callable[..., np.ndarray],
) -> None:
    def broken(*values: Any, **options: Any) -> None:
        raise RuntimeError("secret")

    counts = worker.handler.traffic if method == "record" else worker.handler.metrics.counts
    monkeypatch.setattr(counts, method, broken)
    good, bad = worker.predict([Sent(b"secret"), Sent(b"[", JSON)])
    assert_close(good.json(), plain_embedding("secret"))
    refused(bad, 400)
    records = [record for record in caplog.records if record.name.startswith(OURS)]
    assert records
    assert all("not counted: RuntimeError at" in record.message for record in records)
    assert "secret" not in caplog.text


@pytest.mark.parametrize("panics", [False, True])
@pytest.mark.parametrize("step", ["check_parameters", "read", "unpad", "answer"])
def test_whatever_is_raised_anywhere_fails_one_request(
    step: str, panics: bool, worker: Worker, caplog: pytest.LogCaptureFixture, text_of: TextOf
) -> None:
    """The third text of five is of a size that `step` cannot stand; the others are answered as before."""

    class PanicException(BaseException):
        """As Rust raises it: no Exception."""

    sent = [Sent(text_of(length, 5).encode()) for length in (5, 5, 6, 5, 32)]
    sent[2] = sent_json({"inputs": text_of(6, 5), "parameters": {"truncation": True}})
    expected = worker.predict(sent)
    task, whole = worker.handler.model.task, getattr(worker.handler.model.task, step)

    def sometimes(*values: Any) -> Any:
        found = {
            "check_parameters": lambda parameters: bool(parameters),
            "read": lambda inputs, parameters: text_of(6, 5) in inputs,
            "unpad": lambda row, item: item.size == (6,),
            "answer": lambda row, item, parameters: item.size == (6,),
        }[step](*values)
        if found:
            raise PanicException(text_of(6, 5)) if panics else RuntimeError(text_of(6, 5))
        return whole(*values)

    setattr(task, step, sometimes)
    answers = worker.predict(sent)
    assert answers[2].status in (400, 500)
    for i in (0, 1, 3, 4):
        assert answers[i].status == 200
        assert_close(answers[i].json(), expected[i].json())
    if step != "unpad":  # there a call was run, which has no texts
        assert text_of(6, 5) not in caplog.text


def test_a_description_beside_a_prediction_is_no_description(worker: Worker) -> None:
    asked = Sent(parameters=[], content_type=None, headers={"describe": "True"})
    answer, other = worker.predict([asked, Sent(b"one")])
    refused(answer, 400, "no body")
    assert other.status == 200


def test_only_a_text_that_says_so_may_be_empty(
    worker: Worker, plain_embedding: Callable[..., np.ndarray]
) -> None:
    typed, quoted, bare, listed = worker.predict(
        [Sent(b"", "text/plain"), Sent(b'""', None), Sent(b"", None), sent_json({"inputs": []})]
    )
    for answer in (typed, quoted):
        assert_close(answer.json(), plain_embedding(""))
    refused(bare, 400, "the request has no body: send text/plain")
    refused(listed, 400, "empty list: send at least one")


class Counting:
    """A tokenizer that counts the characters that it is given."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.characters = tokenizer, 0

    def encode_batch(self, texts: list[str], **options: Any) -> Any:
        self.characters += sum(map(len, texts))
        return self.tokenizer.encode_batch(texts, **options)

    encode_batch_fast = encode_batch


@pytest.fixture
def counting(worker: Worker) -> Any:
    task = worker.handler.model.task
    tokenizer = Counting(task.tokenizer)
    task.tokenizer = tokenizer
    vars(task._beginnings)["tokenizer"] = tokenizer
    yield tokenizer
    vars(task._beginnings)["tokenizer"] = tokenizer.tokenizer


def test_many_long_texts_are_refused_before_any_is_tokenised(worker: Worker, counting: Counting) -> None:
    giant, other = worker.predict([sent_json({"inputs": ["word " * 20_000] * 64}), Sent(b"one")])
    refused(giant, 413, "6400000 characters together, more than the limit of 200000")
    assert other.status == 200
    assert counting.characters == len("one")


@pytest.mark.parametrize("text", ["word " * 20_000, {"text": "short", "text_pair": "word " * 20_000}])
def test_one_long_text_is_refused_by_its_beginning(text: Any, worker: Worker, counting: Counting) -> None:
    giant, other = worker.predict([sent_json({"inputs": text}), Sent(b"one")])
    refused(giant, 413, "more than 32 tokens, and the largest bucket takes 32")
    assert other.status == 200
    assert counting.characters < 2000


def test_a_long_text_that_fits_or_is_to_be_cut_is_answered(
    worker: Worker, plain_embedding: Callable[..., np.ndarray]
) -> None:
    fits = "one" + " " * 50_000 + "two"
    cut = {"inputs": "word " * 20_000, "parameters": {"truncation": True}}
    first, second = worker.predict([Sent(fits.encode()), sent_json(cut)])
    assert_close(first.json(), plain_embedding(fits))
    assert_close(second.json(), plain_embedding("word " * 30))
    assert second.headers["X-Truncated"] == "0: 20002 tokens to 32"


def test_malformed_json_is_one_line_of_our_log_at_most(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        (answer,) = worker.predict([Sent(b'{"inputs": "secret', JSON)])
    refused(answer, 400, "not valid JSON")
    assert [record for record in caplog.records if record.name.startswith(OURS)] == []
    assert "secret" not in json.dumps(answer.json())
