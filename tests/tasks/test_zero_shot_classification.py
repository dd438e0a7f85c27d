"""Labels are what transformers' pipeline `zero-shot-classification` gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from anyshape.building.build import build
from anyshape.errors import ConfigError, InputTooLarge, UnprocessableInput
from anyshape.items import Parts
from anyshape.model import BucketedModel
from tests.conftest import EDGES, TextOf, save_bert, write_recipe
from tests.tasks.same import assert_same

LABELS = ["urgent", "not urgent", "a phone", "unbelievable café"]


def save(folder: Path, tokenizer: Any, *classes: str) -> Path:
    return save_bert(
        folder,
        "BertForSequenceClassification",
        tokenizer,
        id2label=dict(enumerate(classes)),
        label2id={label: i for i, label in enumerate(classes)},
    )


def load(work: Path, folder: Path, **handler: Any) -> BucketedModel:
    recipe = write_recipe(work, task="zero-shot-classification", model=str(folder), **handler)
    return BucketedModel.load(build(recipe, work / "store").path)


def pipeline_of(folder: Path) -> Any:
    from transformers import pipeline

    return pipeline("zero-shot-classification", str(folder), device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return save(tmp_path_factory.mktemp("nli"), tokenizer, "CONTRADICTION", "neutral", "Entailment")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> BucketedModel:
    return load(tmp_path_factory.mktemp("zero-shot"), folder)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Any:
    return pipeline_of(folder)


@pytest.mark.parametrize(
    "options",
    [
        {"candidate_labels": LABELS},
        {"candidate_labels": LABELS, "multi_label": True},
        {"candidate_labels": "urgent , phone,, tablet"},
        {"candidate_labels": ["urgent"]},
        {"candidate_labels": LABELS[:2], "hypothesis_template": "Is it {}?"},
    ],
)
def test_labels_are_the_pipelines(
    options: dict[str, Any], model: BucketedModel, plain: Any, text_of: TextOf
) -> None:
    texts = [text_of(length) for length in EDGES if 2 < length < 23]
    texts += ["a", "naïve café — 漢字", "👩‍👩‍👧 a\u0000b"]
    expected = [plain(text, **options) for text in texts]
    assert_same(model(texts, **options), expected)
    assert_same([model(text, **options) for text in texts], expected)


@pytest.mark.parametrize("multi", [False, True])
def test_entailment_is_found_by_its_name(multi: bool, tmp_path: Path, tokenizer: Any) -> None:
    folder = save(tmp_path / "m", tokenizer, "entailment", "neutral", "contradiction")
    options = {"candidate_labels": LABELS, "multi_label": multi}
    found = load(tmp_path, folder, buckets=[16])("so it is", **options)
    assert_same(found, pipeline_of(folder)("so it is", **options))


def test_a_model_without_entailment_stops_the_build(tmp_path: Path, tokenizer: Any) -> None:
    folder = save(tmp_path / "m", tokenizer, "no", "yes")
    with pytest.raises(ConfigError, match=r"no class .* entail, but no, yes: .*handler.labels"):
        load(tmp_path, folder, buckets=[16])
    assert load(tmp_path, folder, buckets=[16], labels=["contra", "entails"])("a", candidate_labels=["b"])


def test_each_label_is_an_item_and_all_share_calls(model: BucketedModel) -> None:
    read = model.task.read(["one", "and two"], [{"candidate_labels": LABELS}] * 2)
    assert [len(parts.items) for parts in read if isinstance(parts, Parts)] == [4, 4]
    ran = model.run(read)
    assert {output.batch_size for outputs in ran for output in outputs} == {4}  # type: ignore[union-attr]


def test_a_text_is_cut_before_its_hypothesis(model: BucketedModel, tokenizer: Any, text_of: TextOf) -> None:
    text, options = text_of(60), {"candidate_labels": LABELS, "truncation": True}
    (parts,) = model.task.read([text], [options])
    assert isinstance(parts, Parts)
    for item, label in zip(parts.items, LABELS):
        cut = tokenizer(text, f"This example is {label}.", truncation="only_first", max_length=32)
        assert item.data["input_ids"] == cut["input_ids"]
    assert parts.changed
    with pytest.raises(InputTooLarge):
        model("a", candidate_labels=["word " * 40], truncation=True)


def test_what_is_refused(model: BucketedModel, text_of: TextOf) -> None:
    for value in ("", 3, {"text": "a"}):
        with pytest.raises(UnprocessableInput):
            model(value, candidate_labels=LABELS)
    with pytest.raises(UnprocessableInput, match="candidate_labels"):
        model("a")
    for wrong in (
        *({"candidate_labels": value} for value in ([], "", " , ", [1], 3)),
        *(
            {"hypothesis_template": value}
            for value in ("no place", "{} {}", "{0}", "{:>9999999}", "{x} {}", 3)
        ),
        {"multi_label": 1},
    ):
        with pytest.raises(UnprocessableInput, match=next(iter(wrong))):
            model("a", **{"candidate_labels": LABELS, **wrong})
    with pytest.raises(InputTooLarge, match=r"65 pairs .* limit of 64"):
        model("a", candidate_labels=["label"] * 65)
    with pytest.raises(InputTooLarge, match=r"68 pairs in one request .* limit of 64"):
        model.task.check_request(["a"] * 17, {"candidate_labels": LABELS})
    model.task.check_request(["a"] * 16, {"candidate_labels": LABELS})
    with pytest.raises(InputTooLarge, match="characters together"):
        model("word " * 19_000, candidate_labels=LABELS)
    with pytest.raises(InputTooLarge, match="tokens"):
        model(text_of(40), candidate_labels=LABELS)


def test_one_bad_input_leaves_its_neighbours_alone(model: BucketedModel, text_of: TextOf) -> None:
    options = {"candidate_labels": LABELS}
    texts = ["a", text_of(60), "b"]
    read = model.task.read(texts, [options] * 3)
    ran = model.run(read)
    assert isinstance(ran[1], InputTooLarge)
    for i in (0, 2):
        assert_same(model.answer(read[i], ran[i], options), model(texts[i], **options))
