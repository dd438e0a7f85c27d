"""Inputs beside the tokenizer's own: boxes of words, positions, constants. The words and their boxes go to
transformers' own tokenizer of documents, and what it makes of them to the plain model, alone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anyshape.building.build import build
from anyshape.errors import ConfigError, InputTooLarge, UnprocessableInput
from anyshape.model import BucketedModel
from tests.conftest import assert_close, save_bert, unpacked, write_recipe
from tests.handler.frontend import Sent, Worker
from tests.tasks.same import assert_same
from tests.tasks.test_question_answering import answers_of

BUCKETS = [8, 16, 32]
LARGEST = BUCKETS[-1]
BOX = {"values": "words", "numbers": 4, "largest": 1000, "special": {"[SEP]": [1000] * 4}}
WORDS = "total amount : 12.50 unbelievable New-York naïve 漢字 don't [SEP] café"
Saved = Callable[..., Path]
Load = Callable[..., BucketedModel]


def page(count: int, seed: int = 0) -> tuple[list[str], list[list[int]]]:
    """Words of a page, and a box for each."""
    draw = random.Random(seed)
    words = [draw.choice(WORDS.split()) for _ in range(count)]
    return words, [sorted(draw.randint(0, 1000) for _ in range(4)) for _ in words]


@pytest.fixture(scope="module")
def documents(tokenizer: Any) -> Any:
    """transformers' tokenizer of words and boxes, with the vocabulary of the tests' own."""
    from transformers import LayoutLMv2Tokenizer

    return LayoutLMv2Tokenizer(vocab=tokenizer.get_vocab())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Saved:
    """A LayoutLM with one of its heads, in Hugging Face's layout."""

    def save(kind: str, **config: Any) -> Path:
        import transformers

        folder = tmp_path_factory.mktemp("layout") / kind
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        options = {"vocab_size": len(tokenizer), "initializer_range": 0.3, **sizes, **config}
        torch.manual_seed(3)
        getattr(transformers, kind)(transformers.LayoutLMConfig(**options)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    def built(task: str, folder: Any, **handler: Any) -> Path:
        work = tmp_path_factory.mktemp(task)
        keys = {"buckets": BUCKETS, "inputs": {"bbox": BOX}, **handler}
        recipe = write_recipe(work, task=task, model=str(folder), **keys)
        return build(recipe, work / "store").path

    return built


@pytest.fixture(scope="module")
def load(packed: Saved) -> Load:
    return lambda *args, **handler: BucketedModel.load(packed(*args, **handler), warm=False)


def run(model: Any, encoded: Any) -> list[Any]:
    """The plain model's outputs for each row of an encoding, alone and unpadded."""
    names = ("input_ids", "token_type_ids", "bbox")
    rows = []
    for i in range(len(encoded["input_ids"])):
        with torch.inference_mode():
            rows.append(model(**{name: torch.tensor([encoded[name][i]]) for name in names}))
    return rows


def test_classes_of_a_page(saved: Saved, load: Load, documents: Any) -> None:
    from transformers import LayoutLMForSequenceClassification

    folder = saved("LayoutLMForSequenceClassification", num_labels=3)
    plain = LayoutLMForSequenceClassification.from_pretrained(folder).eval()
    model = load("text-classification", folder)
    inputs, expected = [], []
    for count in (0, 1, 2, 3, 5, 8, 11):
        words, boxes = page(count, count)
        (out,) = run(plain, documents([words], boxes=[boxes]))
        inputs.append({"text": words, "bbox": boxes})
        expected.append(out.logits[0].softmax(-1))
    found = model(inputs, top_k=None)
    for one, right in zip(found, expected):
        scores = {each["label"]: each["score"] for each in one}
        assert_close([scores[f"LABEL_{i}"] for i in range(3)], right)
    joined = {"text": " ".join(inputs[4]["text"]), "bbox": inputs[4]["bbox"]}
    assert_same(model(joined, top_k=None), found[4])
    other = {"text": inputs[4]["text"], "bbox": [[1, 2, 3, 4]] * 5}
    assert abs(model(other)["score"] - found[4][0]["score"]) > 1e-3


def test_entities_of_a_page(saved: Saved, load: Load, documents: Any) -> None:
    """In one window, and in several: as the tokenizer of documents cuts them."""
    from transformers import LayoutLMForTokenClassification

    folder = saved("LayoutLMForTokenClassification", num_labels=4)
    plain = LayoutLMForTokenClassification.from_pretrained(folder).eval()
    model = load("token-classification", folder, over_max="window", task_options={"stride": 8})
    for count in (1, 4, 9, 60):
        words, boxes = page(count, count)
        cut = documents(
            [words],
            boxes=[boxes],
            truncation=True,
            max_length=LARGEST,
            stride=8,
            return_overflowing_tokens=True,
        )
        scores: dict[
            int, tuple[float, Any]
        ] = {}  # of each token, from the window that it is furthest inside of
        for window, out in enumerate(run(plain, cut)):
            own = len(cut["input_ids"][window]) - 2
            for i in range(own):
                left = np.inf if window == 0 else i
                right = np.inf if window + 1 == len(cut["input_ids"]) else own - 1 - i
                inside, token = min(left, right), window * (LARGEST - 2 - 8) + i
                if token not in scores or inside > scores[token][0]:
                    scores[token] = (inside, out.logits[0, 1 + i].softmax(-1))
        text = " ".join(words)
        found = model({"text": words, "bbox": boxes}, ignore_labels=[])
        assert [one["index"] - 1 for one in found] == sorted(scores)
        for one in found:
            assert one["score"] == pytest.approx(float(scores[one["index"] - 1][1].max()), rel=1e-4)
            written = text[one["start"] : one["end"]].lower().replace("ï", "i").replace("é", "e")
            assert written == one["word"].lower().removeprefix("##")


def test_answers_on_a_page(saved: Saved, load: Load, documents: Any) -> None:
    from transformers import LayoutLMForQuestionAnswering

    folder = saved("LayoutLMForQuestionAnswering", num_labels=2)
    plain = LayoutLMForQuestionAnswering.from_pretrained(folder).eval()
    model = load("question-answering", folder, over_max="window", task_options={"stride": 6})
    for count in (2, 6, 40):
        words, boxes = page(count, count)
        question = "what is the total ?"
        cut = documents(
            [question], [words], boxes=[boxes], truncation="only_second", max_length=LARGEST, stride=6,
            return_overflowing_tokens=True,
        )  # fmt: skip
        starts = np.cumsum([0, *(len(word) + 1 for word in words)])
        windows = []
        for i, out in enumerate(run(plain, cut)):
            words_of, sequences = cut.word_ids(i), cut.sequence_ids(i)
            kept = [s == 1 or n == 0 for n, s in enumerate(sequences)]
            places = [
                (int(starts[w]), int(starts[w]) + len(words[w])) if s == 1 else (0, 0)
                for w, s in zip(words_of, sequences)
            ]
            windows.append((out.start_logits, out.end_logits, kept, places))
        expected = answers_of(windows, " ".join(words), top_k=3)
        asked = {"question": question, "context": words, "bbox": boxes}
        assert_same(model(asked, top_k=3), expected)


def test_embeddings_of_a_page(saved: Saved, load: Load, documents: Any) -> None:
    from transformers import LayoutLMModel

    folder = saved("LayoutLMModel")
    plain = LayoutLMModel.from_pretrained(folder).eval()
    tokens, sentences = load("feature-extraction", folder), load("sentence-embedding", folder)
    for count in (1, 4, 10):
        words, boxes = page(count, count)
        (out,) = run(plain, documents([words], boxes=[boxes]))
        asked = {"text": words, "bbox": boxes}
        assert_close(tokens(asked), out.last_hidden_state)
        mean = out.last_hidden_state[0].mean(0)
        assert_close(sentences(asked), mean / mean.norm())
    with pytest.raises(UnprocessableInput, match="a prompt has no bbox"):
        sentences(asked, prompt="query: ")


def test_an_empty_text_beside_a_page(reader: BucketedModel, tokenizer: Any, archive: Path) -> None:
    """The first of a pair may be empty, and is still a text of its own; an empty second one is none."""
    words, boxes = page(5)
    pair = tokenizer([[]], [words], is_split_into_words=True)
    pages = {"text": "", "text_pair": words, "bbox": boxes}
    assert reader(pages).shape[1] == len(pair["input_ids"][0])
    alone = reader({"text": words, "bbox": boxes})
    assert alone.shape[1] == reader(pages).shape[1] - 1
    assert np.array_equal(reader({"text": words, "text_pair": "", "bbox": boxes}), alone)


@pytest.fixture(scope="module")
def archive(saved: Saved, packed: Saved) -> Path:
    return packed("feature-extraction", saved("LayoutLMModel"))


@pytest.fixture(scope="module")
def reader(archive: Path) -> BucketedModel:
    return BucketedModel.load(archive, warm=False)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("a b", 'an input is {"text": ..., "bbox": ...}, with a value of bbox for each word'),
        ({"text": ["a"]}, "with a value of bbox for each word"),
        ({"text": ["a"], "bbox": [[1, 2, 3, 4]], "box": 1}, "not one with bbox, box, text"),
        (
            {"text": ["a", "b"], "bbox": [[1, 2, 3, 4]]},
            "bbox has 1 values for 2 words: send a list of 4 numbers",
        ),
        ({"text": "a b", "bbox": [[1, 2, 3, 4]]}, "bbox has 1 values for 2 words"),
        ({"text": ["a"], "bbox": [[1, 2, 3]]}, "a list of 4 numbers for each word, of whole numbers"),
        ({"text": ["a"], "bbox": [[1, 2, 3, 4.5]]}, "of whole numbers"),
        ({"text": ["a"], "bbox": [[1, 2, 3, 10**30]]}, "of whole numbers"),
        ({"text": ["a"], "bbox": [[1, 2, 3, None]]}, "of whole numbers"),
        ({"text": ["a"], "bbox": {"a": 1}}, "bbox has no list for 1 words"),
        (
            {"text": ["a", "b"], "bbox": [[1, 2, 3, 4], [1, 2, 3, 1001]]},
            "bbox of word 1 is .* from 0 to 1000",
        ),
        ({"text": ["a"], "bbox": [[-1, 2, 3, 4]]}, "bbox of word 0"),
        ({"text": [1], "bbox": [[1, 2, 3, 4]]}, "a text must be a JSON string, not a number"),
        ({"text": 5, "bbox": []}, "text must be a text or a list of words"),
    ],
)
def test_what_is_refused(wrong: Any, said: str, reader: BucketedModel) -> None:
    with pytest.raises(UnprocessableInput, match=said):
        reader(wrong)


def test_a_page_that_is_too_long(reader: BucketedModel) -> None:
    words, boxes = page(60)
    with pytest.raises(InputTooLarge, match="tokens, and the largest bucket takes 32"):
        reader({"text": words, "bbox": boxes})
    assert reader({"text": words, "bbox": boxes}, truncation=True).shape[1] == LARGEST


def test_over_the_wire(archive: Path, reader: BucketedModel, tmp_path: Path) -> None:
    """As the whole body, in `inputs`, in a list; an input that is wrong hits its own request alone."""
    words, boxes = page(5)
    own = {"text": words, "bbox": boxes}
    bodies = [own, {"inputs": own}, {"inputs": [own, own]}, {"inputs": {"text": words}}, "plain"]
    sent = [Sent(json.dumps(body).encode(), "application/json") for body in bodies]
    answers = Worker(unpacked(archive, tmp_path)).predict(sent)
    assert [answer.status for answer in answers] == [200, 200, 200, 422, 422]
    for answer in answers[:2]:
        assert_close(answer.json(), reader(own))
    assert_close(answers[2].json()[1], reader(own))


def positioned() -> torch.nn.Module:
    """A model that cannot do without positions and types."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(5)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    bert = BertModel(BertConfig(vocab_size=30522, initializer_range=0.3, **sizes), add_pooling_layer=False)

    class Positioned(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(
            self,
            input_ids: torch.Tensor,
            position_ids: torch.Tensor,
            token_type_ids: torch.Tensor,
            attention_mask: torch.Tensor | None = None,
        ) -> torch.Tensor:
            given = {"position_ids": position_ids, "token_type_ids": token_type_ids}
            hidden: torch.Tensor = self.bert(input_ids, attention_mask=attention_mask, **given)[0]
            return hidden

    return Positioned().eval()


def test_positions_are_found_in_the_signature(load: Load, minilm_folder: Path, tokenizer: Any) -> None:
    here = f"{__name__}:positioned"
    model = load("feature-extraction", here, tokenizer=str(minilm_folder), inputs=None)
    beyond = load(
        "feature-extraction", here, tokenizer=str(minilm_folder),
        inputs={
            "position_ids": {"values": "positions", "first": 2, "pad": 1},
            "token_type_ids": {"values": 1},
        },
    )  # fmt: skip
    plain = positioned()
    for text in ("a", "how long is a piece of string?", "a " * 25):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        places = torch.arange(ids.shape[1])[None]
        with torch.inference_mode():
            assert_close(model(text), plain(ids, places, torch.zeros_like(ids)))
            assert_close(beyond(text), plain(ids, places + 2, torch.ones_like(ids)))


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"boxes": BOX}, "handler.inputs.boxes: the model's forward takes .*, and no boxes"),
        ({"input_ids": {"values": 1}}, "handler.inputs.input_ids is made of the text"),
        ({"bbox": {"values": "words", "numbers": 4}}, "handler.inputs.bbox.largest is missing"),
        ({"bbox": {**BOX, "special": {"<s>": [0] * 4}}}, "the tokenizer has no token '<s>'"),
        ({"bbox": {**BOX, "special": {"[SEP]": 0}}}, "must be a list of 4 numbers, not 0"),
        ({"bbox": {**BOX, "largest": [1, 2]}}, r"largest must be a list of 4 numbers, not \[1, 2\]"),
        ({"bbox": {"values": 0, "largest": 7}}, "largest is for values of words"),
        ({"bbox": {"values": "letters"}}, "inputs.bbox.values must be words, positions or a number, not"),
        ({"bbox": {"value": 0}}, "inputs.bbox.value is not a key|inputs.bbox.values is missing"),
    ],
)  # fmt: skip
def test_what_a_recipe_may_not_say(inputs: Any, said: str, saved: Saved, load: Load) -> None:
    with pytest.raises(ConfigError, match=said):
        load("feature-extraction", saved("LayoutLMModel"), inputs=inputs)


def needy() -> torch.nn.Module:
    class Needy(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, bbox: torch.Tensor) -> torch.Tensor:
            return bbox.float()

    return Needy()


def test_what_a_model_needs_and_nobody_says(load: Load, minilm_folder: Path) -> None:
    with pytest.raises(ConfigError, match="its forward needs bbox: say"):
        load("feature-extraction", f"{__name__}:needy", tokenizer=str(minilm_folder), inputs=None)


def test_tasks_and_layouts_that_have_no_words(
    saved: Saved, load: Load, tmp_path: Path, tokenizer: Any
) -> None:
    folder = saved("LayoutLMModel")
    with pytest.raises(ConfigError, match="bbox is not known to layout: rows"):
        load("feature-extraction", folder, layout="rows")
    bert = save_bert(tmp_path / "m", "BertForSequenceClassification", tokenizer, num_labels=1)
    with pytest.raises(ConfigError, match="words have no values of their own in text-ranking"):
        load("text-ranking", bert, inputs={"token_type_ids": {"values": "words", "largest": 1}})
