from __future__ import annotations

import json
import zipfile
from pathlib import Path

import msgspec
import pytest

from anyshape.archive import Index, Program, sha256
from anyshape.costs import CostRow
from anyshape.errors import ConfigError
from anyshape.packed import INDEX, unpack
from anyshape.padding import MASK, InputSpec
from anyshape.recipe import read_yaml


def index() -> Index:
    return Index(
        task="sentence-embedding",
        backend="torchscript",
        dtype="float32",
        versions={"torch": "2.0"},
        inputs=[InputSpec("input_ids", "int64", pad=1), InputSpec("attention_mask", "int64", MASK)],
        programs=[
            Program((64,), None, "models/b.pt", "00", 1e-7, 0.5, 10),
            Program((16,), 4, "models/a.pt", "11", None, 0.25, 20),
        ],
        batch_sizes=[1, 4],
        dynamic_batch=False,
        tolerance=1e-4,
        exact=False,
        weights=100,
        assets={"assets/tokenizer.json": "22"},
        costs=[CostRow(bucket=(64,), batch_size=1, seconds=0.1)],
        plan={"waste": 1.1},
        backend_options={"mode": "fast"},
    )


def test_an_index_is_read_back_from_json() -> None:
    assert Index.from_json(json.loads(json.dumps(index().to_json()))) == index()


def test_buckets_are_sorted_and_programs_named() -> None:
    assert index().buckets == [(16,), (64,)]
    assert [program.name for program in index().programs] == ["64", "16_b4"]


REQUIRED = [each.encode_name for each in msgspec.structs.fields(Index) if each.required]


@pytest.mark.parametrize("key", ["format", *REQUIRED])
def test_an_index_without_what_it_needs_is_refused(key: str) -> None:
    value = index().to_json()
    del value[key]
    with pytest.raises(ConfigError, match=r"buckets\.json"):
        Index.from_json(value)


@pytest.mark.parametrize("value", [None, [], "text", 5, {}, {"format": 1}])
def test_what_is_no_index_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"buckets\.json"):
        Index.from_json(value)


def test_another_format_is_named() -> None:
    with pytest.raises(ConfigError, match="format 2; this handler reads format 1"):
        Index.from_json({**index().to_json(), "format": 2})


@pytest.mark.parametrize("content", [b"", b"[1]", b"a: [", b"\xff\xfe\xff", b"text"])
def test_what_is_no_recipe_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        read_yaml(path)


def test_a_recipe_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        read_yaml(tmp_path / "missing.yaml")


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_nothing_is_unpacked_outside_the_folder(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    with zipfile.ZipFile(tmp_path / "a.mar", "w") as packed:
        packed.writestr(INDEX, "{}")
        packed.writestr("../outside", "x")
        packed.writestr("/absolute", "x")
    unpack(tmp_path / "a.mar", inner)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mar", "inner"]
    assert sorted(path.name for path in inner.iterdir()) == ["absolute", INDEX, "outside"]


def test_an_archive_without_an_index_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.mar", "w") as packed:
        packed.writestr("model.pt", "x")
    with pytest.raises(ConfigError, match=r"a\.mar .*no buckets\.json"):
        unpack(tmp_path / "a.mar", tmp_path)
