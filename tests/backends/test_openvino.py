"""The backend openvino, with real builds of small models, against the plain ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anyshape import archive
from anyshape.backends import create_backend
from anyshape.building.build import build
from anyshape.building.errors import BuildError
from anyshape.errors import ConfigError
from anyshape.items import Output
from anyshape.model import BucketedModel
from anyshape.packed import unpack
from tests.backends.test_backends import TEXTS, TOLERANCES, check, expected, recipe  # noqa: F401  # a fixture
from tests.building.models_for_build import step_by_step

pytest.importorskip("openvino", reason="the extra `openvino` is not installed: make openvino")

DYNAMIC = {"shapes": "dynamic"}


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked archive with fixed shapes."""
    return built(tmp_path_factory.mktemp("fixed"), backend="openvino")


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dynamic")
    options = {"backend_options": DYNAMIC, "dtype": "bfloat16", "tolerance": TOLERANCES["bfloat16"]}
    return built(folder, backend="openvino", batch_sizes="dynamic", **options)


def built(folder: Path, **handler: Any) -> Path:
    made = build(recipe(folder, "openvino", **handler), folder)
    (folder / "archive").mkdir()
    unpack(made.path, folder / "archive")
    return folder / "archive"


def edited(original: Path, folder: Path, **versions: str) -> Path:
    shutil.copytree(original, folder)
    index = json.loads((folder / "buckets.json").read_text())
    index["versions"].update(versions)
    (folder / "buckets.json").write_text(json.dumps(index))
    return folder


def test_it_answers_as_the_plain_model(fixed: Path, expected: list[Any]) -> None:  # noqa: F811
    check(BucketedModel.load(fixed), expected, TOLERANCES["float32"])


def test_one_program_with_one_copy_of_the_weights_serves_all_buckets(fixed: Path) -> None:
    index = archive.read_index(fixed)
    assert {program.file for program in index.programs} == {"models/model.xml"}
    weights = (fixed / "models" / "model.bin").stat().st_size
    assert weights == pytest.approx(4 * index.weights, rel=0.01)
    loaded = BucketedModel.load(fixed, warm=False).programs.loaded
    assert loaded["8"] is loaded["16"]


def test_bfloat16_with_dynamic_shapes_pads_to_the_longest_item_alone(
    dynamic: Path,
    expected: list[Any],  # noqa: F811
) -> None:
    model = BucketedModel.load(dynamic)
    check(model, expected, TOLERANCES["bfloat16"])
    items = model.task.read(TEXTS, [{}] * len(TEXTS))
    outputs = model.run(items)
    widths = {output.bucket[0] for output in outputs if isinstance(output, Output)}
    assert widths <= {item.size[0] for item in items}  # type: ignore[union-attr]
    assert model.describe()["dtype"] == "bfloat16"


def test_bfloat16_is_what_it_computes_in(dynamic: Path, fixed: Path) -> None:
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16")
    hints = []
    for folder in (fixed, dynamic):
        program: Any = BucketedModel.load(folder, warm=False).programs.loaded["16"]
        hints.append(program.compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
    assert hints == ["f32", "bf16"]


def test_it_has_the_workers_threads(fixed: Path) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            program: Any = BucketedModel.load(fixed, warm=False).programs.loaded["16"]
            assert program.compiled.get_property("INFERENCE_NUM_THREADS") == threads
    finally:
        torch.set_num_threads(before)


def test_what_it_gave_stays_when_it_is_called_again(fixed: Path) -> None:
    model = BucketedModel.load(fixed, warm=False)
    first = model("a piece of string")
    kept = np.copy(first)
    assert np.abs(model("as long as the day") - first).max() > 0.01
    assert np.array_equal(first, kept)


STEPS = {"backend": "openvino", "model": "tests.building.models_for_build:step_by_step"}


@pytest.mark.slow
def test_a_model_that_fixes_its_length_gets_a_program_per_bucket(tmp_path: Path) -> None:
    folder = built(tmp_path, **STEPS)
    index = archive.read_index(folder)
    assert sorted(program.file for program in index.programs) == ["models/16.xml", "models/8.xml"]
    assert all(program.size > 4 * index.weights for program in index.programs)
    model, plain = BucketedModel.load(folder), step_by_step()
    for text, vector in zip(TEXTS, model(TEXTS)):
        ids = torch.tensor([model.task.tokenizer.encode(text).ids])  # type: ignore[attr-defined]
        mean = plain(ids, torch.ones_like(ids))[0].mean(0).detach()
        wanted = (mean / mean.norm()).numpy()
        assert np.abs(vector - wanted).max() <= TOLERANCES["float32"] * np.abs(wanted).max()


def test_shapes_cannot_be_dynamic_for_a_model_that_fixes_its_length(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="bucket 16 does not compile"):
        built(tmp_path, **STEPS, backend_options=DYNAMIC)


def test_float16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"openvino has no float16: choose float32 or bfloat16"):
        build(recipe(tmp_path, "half", backend="openvino", dtype="float16"), tmp_path)


@pytest.mark.parametrize("version", ["9999.1.0", "", "nightly"])
def test_an_archive_of_a_newer_openvino_is_refused(fixed: Path, tmp_path: Path, version: str) -> None:
    with pytest.raises(ConfigError, match="the archive was built with OpenVINO"):
        BucketedModel.load(edited(fixed, tmp_path / "copy", openvino=version))


def test_an_archive_of_an_older_one_on_another_machine_is_taken(fixed: Path, tmp_path: Path) -> None:
    versions = {"openvino": "2023.0.0", "machine": "aarch64", "torch": "2.0"}
    BucketedModel.load(edited(fixed, tmp_path / "copy", **versions), warm=False)


@pytest.mark.parametrize("file", ["model.xml", "model.bin"])
@pytest.mark.parametrize("harm", ["cut", "flip", "remove"])
def test_a_damaged_file_is_refused(fixed: Path, tmp_path: Path, file: str, harm: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(fixed, folder)
    path = folder / "models" / file
    content = bytearray(path.read_bytes())
    if harm == "remove":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content[: len(content) // 2] if harm == "cut" else content)
    with pytest.raises(ConfigError, match=file):
        BucketedModel.load(folder)


@pytest.mark.parametrize("content", [b"", b"<net", b"<net name='x' version='11'></net>", b"no graph at all"])
def test_a_foreign_file_is_refused_in_one_line(fixed: Path, tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(fixed, folder)
    (folder / "models" / "model.xml").write_bytes(content)
    index = json.loads((folder / "buckets.json").read_text())
    for program in index["buckets"]:
        program["sha256"] = archive.sha256(folder / "models" / "model.xml")
    (folder / "buckets.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match="the backend openvino cannot load the programs") as refused:
        BucketedModel.load(folder)
    assert "\n" not in str(refused.value)


def test_where_the_package_is_missing_the_error_says_what_to_install(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['openvino'] = None\n"
        "from pathlib import Path\n"
        "from anyshape.building.build import build\n"
        f"build(Path({str(recipe(tmp_path, 'none', backend='openvino'))!r}), Path({str(tmp_path)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "ConfigError: handler.backend: openvino needs the package" in done.stderr
    assert "make openvino" in done.stderr


def test_a_worker_of_another_backend_does_not_import_it() -> None:
    script = (
        "import sys, handler.bucketed_handler as h; print(h.BaseHandler.__name__, 'openvino' in sys.modules)"
        "; import openvino; print(openvino.Core.__name__)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["BaseHandler", "False", "Core"], done.stderr


def test_wrong_options_are_named() -> None:
    for options in ({"shapes": "square"}, {"unknown": 1}):
        with pytest.raises(ConfigError, match=f"handler.backend_options.{next(iter(options))}"):
            create_backend("openvino", options)
