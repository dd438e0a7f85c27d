from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from anyshape.archive import sha256
from anyshape.backends import BACKENDS
from anyshape.backends.torchscript import TorchScript
from anyshape.buckets import parse_bucket
from anyshape.building.backends import COMPILERS
from anyshape.building.build import build
from anyshape.errors import ConfigError, InputTooLarge, ModelFailed
from anyshape.items import Item, Output, padding_ratio
from anyshape.model import BucketedModel
from anyshape.packed import INDEX, RECIPE
from anyshape.packing import POLICIES, Call
from anyshape.tasks import load_task
from tests.conftest import (
    BUCKETS,
    EDGES,
    LARGEST_BATCH,
    TextOf,
    assert_close,
    sample,
    settings_of,
    unpacked,
    write_recipe,
)


class OneProgramPerBatchSize(TorchScript):
    """As most compilers are: a program takes as many rows as it was compiled for."""

    name = "fixed-batch-for-tests"
    dynamic_batch = False


@pytest.fixture(scope="module", autouse=True)
def _known() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKENDS, OneProgramPerBatchSize.name, f"{__name__}:OneProgramPerBatchSize")
        patch.setitem(COMPILERS, OneProgramPerBatchSize.name, COMPILERS["torchscript"])
        yield


def with_fixed_batches(folder: Path, encoder: Path, **handler: Any) -> BucketedModel:
    recipe = write_recipe(
        folder,
        task="sentence-embedding",
        model=str(encoder),
        backend=OneProgramPerBatchSize.name,
        batch_sizes=[1, 3],
        **handler,
    )
    return BucketedModel.load(build(recipe, folder / "store").path)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> BucketedModel:
    """The same encoder in an archive with one program for each bucket and batch size."""
    return with_fixed_batches(tmp_path_factory.mktemp("fixed"), encoder_folder)


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> BucketedModel:
    """The same, and a call has at most 24 tokens."""
    return with_fixed_batches(tmp_path_factory.mktemp("bounded"), encoder_folder, largest_call=24)


@pytest.fixture(scope="module")
def expected(plain_embedding: Callable[[str], np.ndarray], text_of: TextOf) -> dict[int, np.ndarray]:
    """The unpadded model's answer for a text of each length."""
    return {length: plain_embedding(text_of(length)) for length in range(2, 33)}


@pytest.fixture
def fresh(embedding_archive_folder: Path) -> BucketedModel:
    """A model of its own, to be tampered with."""
    return BucketedModel.load(embedding_archive_folder, warm=False)


def items_of(model: BucketedModel, texts: list[str]) -> list[Any]:
    return model.task.read(texts, [{}] * len(texts))


# Answers depend on nothing but the input


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 32), min_size=1, max_size=13),
    packing=st.sampled_from(sorted(POLICIES)),
)
def test_an_answer_does_not_depend_on_its_neighbours(
    lengths: list[int],
    packing: str,
    embedding: BucketedModel,
    fixed: BucketedModel,
    bounded: BucketedModel,
    expected: dict[int, np.ndarray],
    text_of: TextOf,
) -> None:
    for model in (embedding, fixed, bounded):
        usual = model.settings
        model.settings = replace(usual, packing=packing)
        try:
            found = model([text_of(length) for length in lengths])
        finally:
            model.settings = usual
        assert len(found) == len(lengths)
        for answer, length in zip(found, lengths):
            assert_close(answer, expected[length])


@pytest.mark.parametrize("bucket", BUCKETS)
@pytest.mark.parametrize("rows", range(1, LARGEST_BATCH + 1))
def test_an_answer_does_not_depend_on_bucket_batch_size_or_row(
    bucket: int, rows: int, embedding: BucketedModel, expected: dict[int, np.ndarray], text_of: TextOf
) -> None:
    lengths = [length for length in EDGES if length <= bucket]
    items = items_of(embedding, [text_of(length) for length in lengths])
    for start in range(len(items)):
        members = (items + items)[start : start + rows]
        outputs = embedding.run_call(Call((bucket,), rows, tuple(range(rows))), members)
        for output, item in zip(outputs, members):
            answer = embedding.task.answer(output.row, item, {})
            assert_close(answer, expected[item.size[0]])
            assert (output.bucket, output.batch_size) == ((bucket,), rows)


def test_a_single_input_gives_a_single_answer(embedding: BucketedModel, text_of: TextOf) -> None:
    one = embedding(text_of(5))
    (of_many,) = embedding([text_of(5)])
    assert np.shape(one) == np.shape(of_many) == (16,)


def test_an_input_that_is_refused_raises(embedding: BucketedModel, text_of: TextOf) -> None:
    with pytest.raises(InputTooLarge):
        embedding(["fine", text_of(33)])


def test_an_output_does_not_lie_in_a_buffer_that_the_next_call_fills(fresh: BucketedModel) -> None:
    """A program may give its input back, or a part of it."""
    fresh.task.unpad = lambda row, item: row  # type: ignore[method-assign]
    fresh.programs.loaded = dict.fromkeys(
        fresh.programs.loaded, lambda *t: (t[0], t[0][:, 1:], t[1].view(-1)[2:].view(1, -1))
    )
    one, other = (sample(fresh, (4,), seed) for seed in (1, 2))
    call = Call((4,), 1, (0,))
    (before,) = fresh.run_call(call, [one])
    kept = [np.array(part) for part in before.row]
    fresh.run_call(call, [other])
    for part, copied in zip(before.row, kept):
        np.testing.assert_array_equal(part, copied)


# Errors stay where they belong


def test_a_program_that_raises_fails_only_its_own_items(
    fresh: BucketedModel, expected: dict[int, np.ndarray], text_of: TextOf
) -> None:
    def broken(*tensors: torch.Tensor) -> Any:
        raise RuntimeError("no more memory")

    fresh.settings = replace(fresh.settings, packing="per_bucket")
    fresh.programs.loaded["16"] = broken
    lengths = [3, 16, 8, 9, 32]
    refused = InputTooLarge("this one is too large")
    items = [*items_of(fresh, [text_of(length) for length in lengths]), refused]
    results = fresh.run(items)
    for length, item, result in zip(lengths, items, results):
        if 8 < length <= 16:
            assert isinstance(result, ModelFailed)
            assert "bucket 16" in str(result)
            assert "memory" not in str(result)  # that is for the log
        else:
            assert isinstance(result, Output)
            assert_close(fresh.task.answer(result.row, item, {}), expected[length])
    assert results[-1] is refused


def test_an_item_that_no_bucket_contains_is_refused_alone(fresh: BucketedModel) -> None:
    items = [sample(fresh, (size,), 0) for size in (3, 33, 5)]
    results = fresh.run(items)
    assert isinstance(results[0], Output)
    assert isinstance(results[1], InputTooLarge)
    assert "33" in str(results[1])
    assert isinstance(results[2], Output)


def test_nothing_to_run(embedding: BucketedModel) -> None:
    refused = InputTooLarge("no")
    assert embedding.run([]) == []
    assert embedding.run([refused, refused]) == [refused, refused]


# Only what was compiled and warmed runs


def recorded(model: BucketedModel) -> Counter[tuple[int, ...]]:
    """Counts the shapes that the model's programs are called with from now on."""
    shapes: Counter[tuple[int, ...]] = Counter()

    def recording(program: Any) -> Any:
        def run(*tensors: torch.Tensor) -> Any:
            assert {tuple(tensor.shape) for tensor in tensors} == {tuple(tensors[0].shape)}
            shapes[tuple(tensors[0].shape)] += 1
            return program(*tensors)

        return run

    model.programs.loaded = {name: recording(program) for name, program in model.programs.loaded.items()}
    return shapes


def test_the_warm_up_calls_every_bucket_at_every_batch_size_four_times(fresh: BucketedModel) -> None:
    shapes = recorded(fresh)
    told: list[Any] = []
    fresh.index.measured_on = {}
    fresh.warm_up(lambda bucket, rows, seconds: told.append((rows, *bucket)))
    assert fresh.describe()["costs_from"] == "this start"
    assert set(shapes) == set(told) == {(rows, bucket) for rows in (1, 2, 4) for bucket in BUCKETS}
    assert min(shapes.values()) >= 4
    assert len(told) == len(set(told))
    measured = {(row.batch_size, *row.bucket) for row in fresh.costs.rows()}
    assert measured == set(shapes)


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 32), max_size=20), packing=st.sampled_from(sorted(POLICIES)))
def test_only_compiled_shapes_run(
    sizes: list[int], packing: str, embedding_archive_folder: Path, cache: dict[str, BucketedModel]
) -> None:
    if not cache:
        cache["model"] = BucketedModel.load(embedding_archive_folder, warm=False)
    model = cache["model"]
    model.settings = replace(model.settings, packing=packing)
    shapes = recorded(model)
    results = model.run([sample(model, (size,), seed) for seed, size in enumerate(sizes)])
    assert all(isinstance(result, Output) for result in results)
    assert {bucket for _, bucket in shapes} <= set(BUCKETS)
    assert all(1 <= rows <= LARGEST_BATCH for rows, _ in shapes)


@pytest.fixture(scope="module")
def cache() -> dict[str, BucketedModel]:
    return {}


@pytest.mark.parametrize(("bucket", "rows"), [((7,), 1), ((64,), 1), ((8,), 0), ((8,), 5), ((8, 8), 1)])
def test_a_shape_that_was_not_compiled_is_refused(
    bucket: tuple[int, ...], rows: int, embedding: BucketedModel
) -> None:
    with pytest.raises(ConfigError, match="no program was compiled"):
        embedding.run_call(Call(bucket, rows, (0,)), [sample(embedding, (4,), 0)])


def test_a_batch_size_between_the_compiled_ones_is_refused(fixed: BucketedModel) -> None:
    assert sorted(fixed.programs.loaded) == sorted(f"{b}_b{n}" for b in BUCKETS for n in (1, 3))
    with pytest.raises(ConfigError, match="bucket 8 with 2 rows"):
        fixed.run_call(Call((8,), 2, (0,)), [sample(fixed, (4,), 0)])


def test_only_calls_within_the_bound_are_compiled_and_measured(bounded: BucketedModel) -> None:
    assert sorted(bounded.programs.loaded) == sorted(["4_b1", "4_b3", "8_b1", "8_b3", "16_b1", "32_b1"])
    measured = [(*row.bucket, row.batch_size) for row in bounded.costs.rows()]
    assert measured == [(4, 1), (4, 3), (8, 1), (8, 3), (16, 1), (32, 1)]
    with pytest.raises(ConfigError, match="bucket 16 with 3 rows"):
        bounded.run_call(Call((16,), 3, (0,)), [sample(bounded, (4,), 0)])


def test_a_shape_that_differs_from_the_compiled_one_is_refused(fresh: BucketedModel) -> None:
    full = fresh.programs.buffers.fill

    class Wrong:
        def fill(self, bucket: Any, batch_size: int, items: Any, held: Any) -> Any:
            ids, *rest = full(bucket, batch_size, items, held)
            return (ids.int(), *rest) if bucket == (8,) else (ids[:, :-1], *rest)

    fresh.programs.buffers = Wrong()  # type: ignore[assignment]
    for bucket in (4, 8):
        with pytest.raises(ConfigError, match="compiled for"):
            fresh.run_call(Call((bucket,), 1, (0,)), [sample(fresh, (3,), 0)])


# One copy of the weights


def test_all_buckets_hold_the_same_weights(embedding: BucketedModel, encoder_folder: Path) -> None:
    from transformers import AutoModel

    held = [
        {name: parameter.data_ptr() for name, parameter in program.named_parameters()}  # type: ignore[attr-defined]
        for program in embedding.programs.loaded.values()
    ]
    assert len(held) == len(BUCKETS)
    # The pooler of BERT takes no part in a sentence's embedding, so a trace leaves it out.
    plain = AutoModel.from_pretrained(encoder_folder).named_parameters()
    assert len(held[0]) >= sum(not name.startswith("pooler") for name, _ in plain)
    assert all(pointers == held[0] for pointers in held)


# Loading


def test_a_folder_and_an_archive_answer_the_same(
    embedding: BucketedModel, embedding_archive_folder: Path, text_of: TextOf
) -> None:
    texts = [text_of(length) for length in EDGES]
    for one, other in zip(BucketedModel.load(str(embedding_archive_folder))(texts), embedding(texts)):
        assert_close(one, other)


def test_a_description_says_what_is_served(embedding: BucketedModel) -> None:
    described = json.loads(json.dumps(embedding.describe()))
    assert described["task"] == "sentence-embedding"
    assert described["buckets"] == [[bucket] for bucket in BUCKETS]
    assert (described["batch_sizes"], described["dynamic_batch"]) == ([1, 2, 4], True)
    assert set(described["deviations"]) == {str(bucket) for bucket in BUCKETS}
    assert all(0 <= deviation <= 1e-4 for deviation in described["deviations"].values())
    assert len(described["costs"]) == 12


@pytest.fixture
def folder(embedding_archive: Path, tmp_path: Path) -> Path:
    return unpacked(embedding_archive, tmp_path / "archive")


def load(path: Path) -> BucketedModel:
    return BucketedModel.load(path, warm=False)


@pytest.mark.parametrize("path", ["models/buckets.pt", "assets/tokenizer.json", "assets/text.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_named(path: str, damage: str, folder: Path) -> None:
    file = folder / path
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(content[:-1])
    else:
        file.unlink()
    with pytest.raises(ConfigError, match=path):
        load(folder)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("assets/tokenizer.json", b"{}"),
        ("assets/tokenizer.json", b"\xff"),
        ("assets/text.json", b"[1"),
        ("assets/text.json", b"null"),
        ("assets/text.json", b"{}"),
        ("assets/text.json", b'{"truncation_side": 1, "embeddings": "many"}'),
    ],
)
def test_a_file_of_the_task_that_matches_its_hash_and_cannot_be_read_is_named(
    path: str, content: bytes, folder: Path
) -> None:
    index = (folder / INDEX).read_text(encoding="utf-8")
    before = sha256(folder / path)
    assert before in index
    (folder / path).write_bytes(content)
    (folder / INDEX).write_text(index.replace(before, sha256(folder / path)), encoding="utf-8")
    with pytest.raises(ConfigError, match=path):
        load(folder)


@pytest.mark.parametrize(
    "content", ["[1", "{}", '{"channels": 3, "multiple_of": 1, "smallest": 1, "labels": 5}']
)
def test_settings_of_pictures_that_cannot_be_read_are_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "image.json").write_text(content, encoding="utf-8")
    settings = settings_of(task="image-classification", model="m:f", buckets=[[32, 32]])
    with pytest.raises(ConfigError, match=r"assets/image\.json"):
        load_task(settings, tmp_path)


@pytest.mark.parametrize("path", [INDEX, RECIPE])
@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"\xff", b"null", b"5"])
def test_a_description_that_cannot_be_read_is_refused(path: str, content: bytes | None, folder: Path) -> None:
    if content is None:
        (folder / path).unlink()
    else:
        (folder / path).write_bytes(content)
    with pytest.raises(ConfigError):
        load(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task", "feature-extraction"),
        ("backend", OneProgramPerBatchSize.name),
        ("dtype", "bfloat16"),
        ("buckets", [4, 8]),
        ("batch_sizes", [1, 16]),
        ("largest_batch", 64),
        ("largest_call", 4096),
    ],
)
def test_a_recipe_that_asks_for_what_was_not_built_is_refused(key: str, value: Any, folder: Path) -> None:
    asked = {"task": "sentence-embedding", "model": "x", key: value}
    write_recipe(folder, **asked).rename(folder / RECIPE)
    with pytest.raises(ConfigError, match=r"^handler\."):
        load(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 2),
        ("buckets", []),
        ("buckets", [{"bucket": [4]}]),
        ("inputs", []),
        ("inputs", [{"name": "input_ids"}]),
        ("batch_sizes", []),
        ("batch_sizes", ["1", "2", "4"]),
        ("batch_sizes", None),
        ("task", "image-classification"),
        ("backend", "another"),
        ("backend_options", {"speed": 11}),
        ("versions", {"machine": "s390x"}),
        ("unknown", 1),
    ],
)
def test_an_index_that_does_not_fit_is_refused(key: str, value: Any, folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    (folder / INDEX).write_text(json.dumps({**index, key: value}), encoding="utf-8")
    with pytest.raises(ConfigError):
        load(folder)


def test_a_file_outside_the_archive_is_never_loaded(folder: Path) -> None:
    index = (folder / INDEX).read_text(encoding="utf-8")
    (folder / "models" / "buckets.pt").rename(folder.parent / "buckets.pt")
    (folder / INDEX).write_text(index.replace("models/buckets.pt", "../buckets.pt"), encoding="utf-8")
    with pytest.raises(ConfigError, match="missing"):
        load(folder)


@pytest.mark.parametrize("policy", ["best", ""])
def test_an_unknown_packing_is_refused(policy: str, folder: Path) -> None:
    write_recipe(folder, task="sentence-embedding", model="x", packing=policy).rename(folder / RECIPE)
    with pytest.raises(ConfigError, match=r"handler\.packing must be one of"):
        load(folder)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99, 0.9999])
def test_a_truncated_archive_is_refused(share: float, embedding_archive: Path, tmp_path: Path) -> None:
    content = embedding_archive.read_bytes()
    cut = tmp_path / "cut.mar"
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ConfigError, match=r"cut\.mar"):
        load(cut)


@pytest.mark.slow
def test_an_archive_with_a_flipped_bit_is_refused_or_serves_what_was_built(
    embedding_archive: Path, embedding: BucketedModel, tmp_path: Path, text_of: TextOf
) -> None:
    """Most bits lie in the weights; most of those tried here lie where the file's structure does."""
    content = bytearray(embedding_archive.read_bytes())
    draw = random.Random(5)
    places = [draw.randrange(len(content)) for _ in range(10)]
    places += [len(content) - 1 - draw.randrange(4000) for _ in range(40)]
    flipped, refused = tmp_path / "flipped.mar", 0
    for place in places:
        bit = 1 << draw.randrange(8)
        content[place] ^= bit
        flipped.write_bytes(content)
        content[place] ^= bit
        try:
            model = load(flipped)
        except ConfigError:
            refused += 1
        else:
            assert_close(model(text_of(9)), embedding(text_of(9)))
    assert refused >= 10


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.mar"):
        load(tmp_path / "missing.mar")
    (tmp_path / "text.mar").write_text("not a zip", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"text\.mar"):
        load(tmp_path / "text.mar")


def test_the_padding_ratio_counts_positions(embedding: BucketedModel) -> None:
    items = [Item((3,), {}), Item((10,), {})]
    outputs = [Output((), parse_bucket(4), 1), Output((), parse_bucket(16), 1)]
    assert padding_ratio(zip(items, outputs)) == pytest.approx(20 / 13)
    assert padding_ratio([]) == 1.0
