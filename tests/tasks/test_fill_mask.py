"""Words for masks are what transformers' pipeline `fill-mask` gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace

from anyshape.building.build import build
from anyshape.building.tasks.fill_mask import AtOneToken, take_head
from anyshape.errors import ConfigError, InputTooLarge, UnprocessableInput
from anyshape.model import BucketedModel
from anyshape.padding import InputSpec
from tests.conftest import EDGES, TextOf, save_bert, write_recipe
from tests.tasks.same import assert_same


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return save_bert(tmp_path_factory.mktemp("filler"), "BertForMaskedLM", tokenizer)


@pytest.fixture(scope="module")
def filler(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> BucketedModel:
    work = tmp_path_factory.mktemp("fill-mask")
    recipe = write_recipe(work, task="fill-mask", model=str(folder))
    return BucketedModel.load(build(recipe, work / "store").path)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Any:
    from transformers import pipeline

    return pipeline("fill-mask", str(folder), device="cpu")


def masked(text: str, *places: int) -> str:
    words = text.split()
    for place in places:
        words[place] = "[MASK]"
    return " ".join(words)


@pytest.mark.parametrize("options", [{}, {"top_k": 1}, {"top_k": 40}])
def test_words_are_the_pipelines_in_every_bucket(
    options: dict[str, Any], filler: BucketedModel, plain: Any, text_of: TextOf
) -> None:
    texts = [masked(text_of(length), (7 * length) % (length - 2)) for length in EDGES[1:]]
    texts += ["[MASK]", "Well, don't [MASK] it, naïve café 漢字!", "👩‍👩‍👧[MASK]\u0000x [SEP] y"]
    expected = [plain(text, **options) for text in texts]
    assert_same(filler(texts, **options), expected)
    assert_same([filler(text, **options) for text in texts], expected)


def test_several_masks_are_a_list_each(filler: BucketedModel, plain: Any, text_of: TextOf) -> None:
    texts = [masked(text_of(10), 0, 3), masked(text_of(32), 1, 2, 29), masked(text_of(5), 1)]
    assert_same(filler(texts, top_k=3), [plain(text, top_k=3) for text in texts])


@pytest.mark.parametrize("targets", ["house", ["house", "garden", "house"], ["unbelievable", "a"], ["[PAD]"]])
def test_only_some_words(targets: Any, filler: BucketedModel, plain: Any, text_of: TextOf) -> None:
    text = masked(text_of(12), 4)
    assert_same(filler(text, targets=targets), plain(text, targets=targets))
    assert_same(filler(text, targets=targets, top_k=1), plain(text, targets=targets, top_k=1))


def test_the_masks_of_a_text_are_bounded(
    filler: BucketedModel, text_of: TextOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filler.task, "settings", replace(filler.settings, max_items=2))
    assert len(filler(masked(text_of(10), 0, 3))) == 2
    with pytest.raises(InputTooLarge, match=r"3 masks in one text .* limit of 2"):
        filler(masked(text_of(10), 0, 3, 5))


def test_what_is_refused(filler: BucketedModel, text_of: TextOf) -> None:
    with pytest.raises(UnprocessableInput, match=r"no \[MASK\]"):
        filler("no mask at all")
    with pytest.raises(UnprocessableInput, match="not a pair"):
        filler({"text": "[MASK]", "text_pair": "b"})
    with pytest.raises(InputTooLarge, match=r"66 masks in one request .* limit of 64"):
        filler.task.check_request(["[MASK] a [MASK]"] * 32 + [{"text": "[MASK] [MASK]"}, 3], {})
    filler.task.check_request(["[MASK] a [MASK]"] * 32, {})
    with pytest.raises(InputTooLarge, match="40 tokens"):
        filler(masked(text_of(40), 3))
    with pytest.raises(UnprocessableInput, match=r"no \[MASK\]"):
        filler(masked(text_of(40), 37), truncation=True)
    for wrong in ({"targets": []}, {"targets": [""]}, {"targets": 3}, {"top_k": 0}, {"top_k": True}):
        with pytest.raises(UnprocessableInput, match=next(iter(wrong))):
            filler("[MASK]", **wrong)


@pytest.mark.parametrize("kind", ["DistilBert", "Roberta", "Electra", "Albert", "MobileBert", "FNet"])
def test_the_vocabulary_is_scored_at_one_token(kind: str) -> None:
    """Whether the last layer could be taken off (MobileBERT does more with it than to call it) or not."""
    import transformers

    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    if kind == "DistilBert":
        sizes = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}
    if kind == "MobileBert":
        sizes = {**sizes, "embedding_size": 16, "intra_bottleneck_size": 32}
    config = getattr(transformers, f"{kind}Config")(vocab_size=90, initializer_range=0.3, **sizes)
    model = getattr(transformers, f"{kind}ForMaskedLM")(config).eval()
    ids = torch.randint(5, 90, (3, 6))
    places = torch.tensor([0, 2, 5])
    with torch.no_grad():
        expected = model(input_ids=ids).logits[torch.arange(3), places]
        head = take_head(model, [InputSpec("input_ids", "int64")])
        (found,) = AtOneToken(model, ["input_ids"], head)(ids, torch.nn.functional.one_hot(places, 6))
    assert (head is None) == (kind == "MobileBert")
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_tokenizer_without_a_mask_stops_the_build(tmp_path: Path, tokenizer: Any) -> None:
    import copy

    without = copy.deepcopy(tokenizer)
    without.mask_token = None
    folder = save_bert(tmp_path / "m", "BertForMaskedLM", without)
    recipe = write_recipe(tmp_path, task="fill-mask", model=str(folder))
    with pytest.raises(ConfigError, match="no mask token"):
        build(recipe, tmp_path / "store")
