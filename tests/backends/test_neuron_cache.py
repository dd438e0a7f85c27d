"""The key of a kept program: whatever decides how it comes out is part of it, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from anyshape.backends import create_backend
from anyshape.backends import neuron as neuron_backend
from anyshape.building.backends import create_compiler
from anyshape.building.backends.base import Job

STAND_INS = Path(__file__).parent / "neuron_stand_ins"
BACKENDS = ["neuron", "neuronx"]
SDKS = {"neuron": "torch_neuron", "neuronx": "torch_neuronx"}
OPTIONS: dict[str, dict[str, Any]] = {"neuron": {}, "neuronx": {"target": "trn1"}}


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(10, 4)
        self.body: torch.nn.Module = torch.nn.Linear(4, 4)
        self.register_buffer("shift", torch.ones(4), persistent=False)
        self.constant = torch.ones(4)
        self.factor = 2.0

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.body(self.table(ids)) * self.factor + self.shift + self.constant


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with one core and an empty cache; gives the SDK's log."""
    monkeypatch.syspath_prepend(str(STAND_INS))
    for key, value in {"LOCKS": tmp_path, "CORES": 1, "LOG": tmp_path / "log"}.items():
        monkeypatch.setenv(f"NEURON_STAND_IN_{key}", str(value))
    monkeypatch.setenv("NEURON_RT_NUM_CORES", "1")
    monkeypatch.setenv("ANYSHAPE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "log").touch()
    return tmp_path / "log"


def compiled(
    log: Path,
    backend: str,
    change: Callable[[Model], None] = lambda model: None,
    example: Any = None,
    **options: Any,
) -> int:
    """How many programs are compiled for a recipe of one bucket by a process that knows nothing yet."""
    model = Model().eval()
    with torch.no_grad():
        change(model)
    log.write_text("")
    compiler = create_compiler(backend, create_backend(backend, {**OPTIONS[backend], **options}))
    compiler.processes = 1
    ids = torch.ones(2, 3, dtype=torch.int64) if example is None else example
    list(compiler.compile_all(model, [Job("3_b2", (ids,), (3,))]))
    return sum(line.startswith("compile ") for line in log.read_text().splitlines())


def other_weight(model: Model) -> None:
    model.table.weight[0, 0] += 1


def other_buffer(model: Model) -> None:
    model.shift[0] += 1  # type: ignore[operator, index]


def other_constant(model: Model) -> None:
    model.constant[0] += 1


def other_number(model: Model) -> None:
    model.factor = 3.0


def other_graph(model: Model) -> None:
    model.body = torch.nn.Sequential(model.body, torch.nn.ReLU())


BY_MODEL = [other_weight, other_buffer, other_constant, other_number, other_graph]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("change", BY_MODEL)
def test_another_model_is_compiled(change: Callable[[Model], None], backend: str, log: Path) -> None:
    assert compiled(log, backend) == 1
    assert compiled(log, backend) == 0, "the same again is found"
    assert compiled(log, backend, change) == 1
    assert compiled(log, backend, change) == 0


@pytest.mark.parametrize("change", BY_MODEL)
def test_separated_weights_alone_are_no_part_of_a_program(change: Callable[[Model], None], log: Path) -> None:
    assert compiled(log, "neuronx", weights="separate") == 1
    assert compiled(log, "neuronx", change, weights="separate") == (change is not other_weight)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (2, 3)])
def test_another_shape_or_type_is_compiled(shape: tuple[int, int], backend: str, log: Path) -> None:
    assert compiled(log, backend) == 1
    dtype = torch.int32 if shape == (2, 3) else torch.int64
    assert compiled(log, backend, example=torch.ones(shape, dtype=dtype)) == 1


@pytest.mark.parametrize(
    ("backend", "options"),
    [
        ("neuron", {"compiler_args": ["--fast-math", "none"]}),
        ("neuron", {"fallback": False}),
        ("neuron", {"separate_weights": True}),
        ("neuron", {"dynamic_batch": True}),
        ("neuronx", {"compiler_args": ["--auto-cast", "none"]}),
        ("neuronx", {"target": "inf2"}),
        ("neuronx", {"weights": "separate"}),
        ("neuronx", {"loading": "lazy"}),
        ("neuronx", {"loading": "async"}),
        ("neuronx", {"dynamic_batch": True}),
        ("neuronx", {"fallback": True}),
    ],
)
def test_whatever_the_compiler_is_told_counts(backend: str, options: dict[str, Any], log: Path) -> None:
    assert compiled(log, backend) == 1
    assert compiled(log, backend, **options) == 1
    assert compiled(log, backend, **options) == 0


def test_the_ways_of_one_program_for_all_shapes_are_kept_apart(log: Path) -> None:
    together = {"target": None}
    for weights in ("inline", "bucket_model", "model_builder"):
        assert compiled(log, "neuronx", weights=weights, **together) == 1
        assert compiled(log, "neuronx", weights=weights, **together) == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("part", ["sdk", "compiler", "torch", "environment"])
def test_other_software_compiles_anew(
    part: str, backend: str, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compiled(log, backend) == 1
    if part == "sdk":
        monkeypatch.setattr(__import__(SDKS[backend]), "__version__", "2.9.0.1")
    elif part == "compiler":
        monkeypatch.setattr(neuron_backend, "package_version", lambda name: "2.0")
    elif part == "torch":
        monkeypatch.setattr(torch, "__version__", "2.9.7")
    else:
        monkeypatch.setenv("NEURON_CC_FLAGS", "--optlevel 3")
    assert compiled(log, backend) == 1


def test_another_neuronx_distributed_compiles_anew_what_it_made(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import neuronx_distributed

    for weights, again in (("inline", 0), ("model_builder", 1)):
        assert compiled(log, "neuronx", weights=weights, target=None) == 1
        with monkeypatch.context() as patch:
            patch.setattr(neuronx_distributed, "__version__", "0.18.0")
            assert compiled(log, "neuronx", weights=weights, target=None) == again


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_decides_nothing_is_no_part_of_it(
    backend: str, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compiled(log, backend) == 1
    assert compiled(log, backend, analyze=False) == 0
    assert compiled(log, backend, compiler_workdir=str(tmp_path / "work")) == 0
    monkeypatch.setenv("NEURON_RT_LOG_LEVEL", "INFO")
    assert compiled(log, backend) == 0
