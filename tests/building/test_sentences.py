"""Sentence embeddings are what sentence-transformers' own `encode` gives for the same folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anyshape.building.build import build
from anyshape.errors import InputTooLarge, Refused, UnprocessableInput
from anyshape.items import Item
from anyshape.model import BucketedModel
from tests.conftest import TextOf, save_bert, write_recipe
from tests.quick import quick

SentenceTransformer = pytest.importorskip("sentence_transformers").SentenceTransformer
from sentence_transformers.sentence_transformer import modules as parts  # noqa: E402

BUCKETS = [9, 24]
LENGTHS = [2, 3, 4, 5, 8, 9, 10, 17, 24]  # tokens, special ones included
ALL_MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
CLOSE = 1e-5  # relative to the largest magnitude
PROMPTS = {"query": "search for this : ", "passage": "of "}

Save = Callable[..., Path]


@pytest.fixture(scope="session")
def save(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> Save:
    """save(*modules after the pooling, pooling=..., transformer=folder, **settings): such a folder."""

    def save(
        *after: Any,
        pooling: Any = "mean",
        include_prompt: bool = True,
        transformer: Any = None,
        **settings: Any,
    ) -> Path:
        first = parts.Transformer(str(transformer or encoder_folder))
        pool = parts.Pooling(16, pooling_mode=pooling, include_prompt=include_prompt)
        folder = tmp_path_factory.mktemp("sentences") / "model"
        SentenceTransformer(modules=[first, pool, *after], device="cpu", **settings).save(str(folder))
        return folder

    return save


def load(folder: Path, work: Path, **handler: Any) -> BucketedModel:
    options = {"task": "sentence-embedding", "model": str(folder), "buckets": BUCKETS, "largest_batch": 3}
    return BucketedModel.load(
        build(write_recipe(work, **{**options, **handler}), work / "store").path, warm=False
    )


def assert_encodes(model: BucketedModel, folder: Path, texts: list[str], **options: Any) -> None:
    """Every text alone and all in one batch, against the folder loaded afresh and each text encoded alone."""
    plain = SentenceTransformer(str(folder), device="cpu")
    expected = [plain.encode(text, **options) for text in texts]
    for found, wanted in zip([*model(texts, **options), *(model(t, **options) for t in texts)], expected * 2):
        assert np.shape(found) == wanted.shape
        assert np.abs(found - wanted).max() <= CLOSE * np.abs(wanted).max()


@pytest.fixture
def texts(text_of: TextOf) -> list[str]:
    return [text_of(length) for length in LENGTHS]


def dense(inputs: int, outputs: int, activation: Any = None, **options: Any) -> Any:
    torch.manual_seed(inputs)
    return parts.Dense(inputs, outputs, activation_function=activation or torch.nn.Tanh(), **options)


def layer_norm(width: int) -> Any:
    norm = parts.LayerNorm(width)
    torch.nn.init.uniform_(norm.norm.weight, 0.5, 2)
    return norm


# Folders as sentence-transformers writes them


# Below all ways at once; one by one are read in much the same way: the quick tests take two.
@pytest.mark.parametrize(
    "mode", [pytest.param(m, marks=[] if m in ("mean", "lasttoken") else pytest.mark.slow) for m in ALL_MODES]
)
def test_every_way_of_pooling(mode: str, save: Save, tmp_path: Path, texts: list[str]) -> None:
    folder = save(pooling=mode)
    assert_encodes(load(folder, tmp_path, buckets=[4, 9]), folder, texts[:6])


def test_rows_of_whole_texts_pool_each_by_itself(save: Save, tmp_path: Path, texts: list[str]) -> None:
    """Every way of pooling at once, what follows it, and a prompt that is not pooled."""
    folder = save(
        dense(96, 8),
        parts.Normalize(),
        pooling=ALL_MODES,
        include_prompt=False,
        prompts=PROMPTS,
        default_prompt_name="query",
    )
    model = load(folder, tmp_path, buckets=[48], layout="rows", segments=5)
    assert_encodes(model, folder, texts)


AFTER = {
    "all modes joined": list,
    "normalised": lambda: [parts.Normalize()],
    "dense": lambda: [dense(96, 20)],
    "dense, normalised": lambda: [dense(96, 8, torch.nn.GELU(), bias=False), parts.Normalize()],
    "dense twice, added to what came": lambda: [
        dense(96, 96, torch.nn.SiLU(), use_residual=True),
        dense(96, 12, torch.nn.Identity(), use_residual=True),
    ],
    "layer norm and dropout": lambda: [parts.Dropout(0.5), layer_norm(96), parts.Normalize()],
}


# The quick tests take those that hold what is in the others.
SLOW = ("all modes joined", "normalised", "dense", "layer norm and dropout")


@pytest.mark.parametrize(
    ("after", "include_prompt"),
    [
        pytest.param(after, prompt, marks=pytest.mark.slow if after in SLOW else [])
        for after, prompt in zip(AFTER, [True, False] * 3)
    ],
)
def test_all_ways_joined_and_what_follows(
    after: str, include_prompt: bool, save: Save, tmp_path: Path, texts: list[str], text_of: TextOf
) -> None:
    folder = save(
        *AFTER[after](),
        pooling=ALL_MODES,
        include_prompt=include_prompt,
        prompts=PROMPTS,
        default_prompt_name="passage",
        truncate_dim=None if after == "dense" else 7,
    )
    model, short = load(folder, tmp_path), [text for text in texts if len(text.split()) < 18]
    assert_encodes(model, folder, short)
    assert_encodes(model, folder, short, prompt_name="query")
    assert_encodes(model, folder, short, prompt="that ")
    assert_encodes(model, folder, texts, prompt="")


def test_a_batch_of_many_prompts(save: Save, tmp_path: Path, texts: list[str]) -> None:
    folder = save(pooling=["mean", "cls"], include_prompt=False, prompts=PROMPTS)
    model, plain = load(folder, tmp_path), SentenceTransformer(str(folder), device="cpu")
    asked: list[dict[str, Any]] = [{}, {"prompt_name": "query"}, {"prompt": "one "}, {"prompt_name": None}]
    items = model.task.read(texts[:4], asked)
    for text, options, item, output in zip(texts, asked, items, model.run(items)):
        assert not isinstance(output, Refused)
        assert isinstance(item, Item)
        wanted = plain.encode(text, **options)
        assert np.abs(model.task.answer(output.row, item, {}) - wanted).max() <= CLOSE * np.abs(wanted).max()


def test_a_decoder_that_pads_on_the_left(
    save: Save, tmp_path: Path, tokenizer: Any, texts: list[str]
) -> None:
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2Model

    torch.manual_seed(3)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = Qwen2Config(vocab_size=len(tokenizer), intermediate_size=32, initializer_range=0.2, **sizes)
    Qwen2Model(config).save_pretrained(tmp_path / "qwen")
    made = tokenizer.backend_tokenizer
    left = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", padding_side="left")
    left.save_pretrained(tmp_path / "qwen")
    folder = save(parts.Normalize(), pooling="lasttoken", transformer=tmp_path / "qwen")
    assert SentenceTransformer(str(folder), device="cpu").tokenizer.padding_side == "left"
    assert_encodes(load(folder, tmp_path, buckets=[8, 24, 64]), folder, texts[1:7])


def test_the_older_layout(save: Save, tmp_path: Path, texts: list[str]) -> None:
    """Flags for the pooling, the transformer in its own folder, pickled weights, no files for Normalize."""
    new = save(dense(32, 12), parts.Normalize(), pooling=["mean", "cls"], prompts={"query": "find "})
    folder = tmp_path / "older"
    (folder / "0_Transformer").mkdir(parents=True)
    for path in new.iterdir():
        if path.is_file() and path.name not in ("modules.json", "config_sentence_transformers.json"):
            shutil.copy(path, folder / "0_Transformer")
    (folder / "0_Transformer" / "sentence_bert_config.json").write_text('{"max_seq_length": 24}')
    kinds = {
        "Transformer": "0_Transformer",
        "Pooling": "1_Pooling",
        "Dense": "2_Dense",
        "Normalize": "3_Normalize",
    }
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds.items()]
    modules = [{"idx": i, "name": str(i), **module} for i, module in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    flags = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    pooling = {f"pooling_mode_{flag}": flag in ("mean_tokens", "cls_token") for flag in flags}
    (folder / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 16, **pooling}))
    (folder / "2_Dense").mkdir()
    config = {"in_features": 32, "out_features": 12, "bias": True}
    config["activation_function"] = "torch.nn.modules.activation.Tanh"  # type: ignore[assignment]
    (folder / "2_Dense/config.json").write_text(json.dumps(config))
    from safetensors.torch import load_file

    torch.save(load_file(new / "2_Dense/model.safetensors"), folder / "2_Dense/pytorch_model.bin")
    assert_encodes(load(folder, tmp_path), folder, texts)


@pytest.mark.slow
def test_minilms_own_files(minilm_folder: Path, tmp_path: Path, texts: list[str]) -> None:
    model = load(minilm_folder, tmp_path, buckets=[24, 258], largest_batch=1)
    assert_encodes(model, minilm_folder, texts)
    with pytest.raises(InputTooLarge, match=r"the model takes 256 \(handler\.task_options\.max_length"):
        model("one " * 255)


# The most tokens


@pytest.mark.parametrize("where", quick(["sentence_bert_config.json", "tokenizer_config.json", "recipe"], 0))
def test_the_most_tokens_of_a_model_are_not_exceeded_silently(
    where: str, save: Save, tmp_path: Path, text_of: TextOf
) -> None:
    folder, options = save(), {}
    if where == "recipe":
        options = {"task_options": {"max_length": 12}}
    path = folder / ("tokenizer_config.json" if where.startswith("tok") else "sentence_bert_config.json")
    key = "model_max_length" if where.startswith("tok") else "max_seq_length"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: 12}))
    model = load(folder, tmp_path, **options)
    assert_encodes(model, folder, [text_of(12)])
    with pytest.raises(InputTooLarge, match=r"13 tokens, and the model takes 12"):
        model(text_of(13))
    (item,) = model.task.read([text_of(20)], [{"truncation": True}])
    assert isinstance(item, Item)
    assert (item.size, item.changed) == ((12,), "20 tokens to 12")
    wanted = SentenceTransformer(str(folder), device="cpu").encode(text_of(20))
    assert np.abs(model(text_of(20), truncation=True) - wanted).max() <= CLOSE * np.abs(wanted).max()


def test_the_recipe_may_allow_more_tokens(save: Save, tmp_path: Path, text_of: TextOf) -> None:
    folder = save()
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    model = load(folder, tmp_path, task_options={"max_length": 24})
    plain = SentenceTransformer(str(folder), device="cpu")
    plain.max_seq_length = 24
    wanted = plain.encode(text_of(20))
    assert np.abs(model(text_of(20)) - wanted).max() <= CLOSE * np.abs(wanted).max()


# Case, and a tokenizer without special tokens


@pytest.fixture(scope="session")
def cased_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "hello", "Hello", "world", "World", "find"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")
    return save_bert(tmp_path_factory.mktemp("cased"), "BertModel", fast)


@pytest.mark.parametrize("lower", [True, False])
def test_texts_are_lowered_where_the_model_says_so(
    lower: bool, save: Save, cased_folder: Path, tmp_path: Path
) -> None:
    folder = save(transformer=cased_folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": lower}))
    model = load(folder, tmp_path)
    assert_encodes(model, folder, ["Hello World", "hello world", "Hello world hello"])
    assert np.allclose(model("Hello World"), model("hello world")) == lower


def test_a_prompt_that_is_all_of_the_text_is_refused(save: Save, cased_folder: Path, tmp_path: Path) -> None:
    folder = save(pooling="max", include_prompt=False, transformer=cased_folder, prompts={"query": "find "})
    model = load(folder, tmp_path)
    assert_encodes(model, folder, ["hello", "World hello"], prompt_name="query")
    with pytest.raises(UnprocessableInput, match="nothing of the input is left to pool"):
        model("", prompt_name="query")


# The recipe's keys


@pytest.mark.parametrize(
    ("options", "modes", "after"),
    quick(
        [
            ({}, "mean", [parts.Normalize()]),
            ({"normalize": False}, "mean", []),
            ({"pooling": "last_token"}, "lasttoken", [parts.Normalize()]),
            ({"pooling": ["max", "cls"], "normalize": True}, ["max", "cls"], [parts.Normalize()]),
            ({"pooling": "weighted_mean", "normalize": False, "dimensions": 5}, "weightedmean", []),
            (
                {"prompts": {"q": "find "}, "default_prompt": "q", "include_prompt": False},
                "mean",
                [parts.Normalize()],
            ),
        ],
        3,
        5,
    ),
)
def test_a_recipe_says_it_for_a_model_without_such_files(
    options: Any, modes: Any, after: Any, encoder_folder: Path, save: Save, tmp_path: Path, texts: list[str]
) -> None:
    folder = save(
        *after,
        pooling=modes,
        include_prompt=options.get("include_prompt", True),
        prompts=options.get("prompts"),
        default_prompt_name=options.get("default_prompt"),
        truncate_dim=options.get("dimensions"),
    )
    assert_encodes(load(encoder_folder, tmp_path, task_options=options), folder, texts[:-1])


def test_a_recipe_overrides_what_the_files_say(save: Save, tmp_path: Path, texts: list[str]) -> None:
    there = save(
        dense(16, 12), parts.Normalize(), prompts=PROMPTS, default_prompt_name="query", truncate_dim=4
    )
    options = {"pooling": "max", "normalize": False, "default_prompt": "passage", "dimensions": 12}
    wanted = save(dense(16, 12), pooling="max", prompts=PROMPTS, default_prompt_name="passage")
    assert_encodes(load(there, tmp_path, task_options=options), wanted, texts[:-1])


def test_a_request_names_a_prompt_that_there_is(save: Save, tmp_path: Path) -> None:
    task = load(save(prompts=PROMPTS), tmp_path).task
    assert task.check_parameters({"prompt_name": "query"}) == {"prompt_name": "query"}
    with pytest.raises(UnprocessableInput, match="prompt_name; it has document, passage, query"):
        task.check_parameters({"prompt_name": "title"})
    for key in ("prompt", "prompt_name"):
        with pytest.raises(UnprocessableInput, match=f"'{key}' must be a text or null"):
            task.check_parameters({key: 1})


def test_a_prompt_counts_as_part_of_the_text(save: Save, tmp_path: Path) -> None:
    model = load(save(), tmp_path, max_characters=20)
    for prompt in ("a " * 10, "\ud800"):
        (item,) = model.task.read(["b"], [{"prompt": prompt}])
        assert isinstance(item, (InputTooLarge, UnprocessableInput))
