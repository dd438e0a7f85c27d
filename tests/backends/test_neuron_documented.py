"""Every choice of a recipe calls the SDK as its documentation has it, argument by argument and in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anyshape.backends import create_backend
from anyshape.building.backends import create_compiler
from anyshape.building.backends.base import Job
from tests.backends.neuron_documented import documented

__all__ = ["documented"]


class Model(torch.nn.Module):
    """Two inputs, two outputs, tied weights, and a buffer that no file keeps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(10, 4)
        self.out = torch.nn.Linear(4, 10, bias=False)
        self.out.weight = self.table.weight
        self.register_buffer("shift", torch.ones(4), persistent=False)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = (self.table(ids) + self.shift) * mask.unsqueeze(-1)
        return self.out(tokens), tokens.sum(1)


class One(Model):
    """One input, and one tensor that is in no tuple."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return self.out(self.table(ids))


def examples(lengths: list[int], rows: int = 2) -> list[Job]:
    return [
        Job(f"{n}_b{rows}", (torch.arange(rows * n).reshape(rows, n) % 10, torch.ones(rows, n).long()), (n,))
        for n in lengths
    ]


CHOICES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "inf1": (
        "neuron",
        {},
        ["analyze_model", "trace", "trace", "neuron_cores_context", "neuron_cores_context"],
    ),
    "inf1, arguments": (
        "neuron",
        {"compiler_args": ["--fast-math fp32-cast-matmult"], "separate_weights": True, "fallback": False},
        ["analyze_model", "trace", "trace", "neuron_cores_context", "neuron_cores_context"],
    ),
    "inf1, dynamic": (
        "neuron",
        {"dynamic_batch": True},
        ["analyze_model", "trace", "trace", "neuron_cores_context", "neuron_cores_context"],
    ),
    "inf1, both cores": (
        "neuron",
        {"cores": 2},
        ["analyze_model", "trace", "trace", *["neuron_cores_context", "DataParallel"] * 2],
    ),
    "on the device": ("neuronx", {}, ["analyze", "trace", "trace", *["neuron_cores_context"] * 2]),
    "on the CPU": (
        "neuronx",
        {"target": "inf2", "compiler_args": ["--auto-cast", "matmult", "--auto-cast-type bf16"]},
        ["analyze", "trace", "trace", *["neuron_cores_context"] * 2],
    ),
    "the target among the arguments": (
        "neuronx",
        {"compiler_args": ["--target", "trn1"]},
        ["analyze", "trace", "trace", *["neuron_cores_context"] * 2],
    ),
    "dynamic": (
        "neuronx",
        {"dynamic_batch": True},
        ["analyze", *["trace", "dynamic_batch"] * 2, *["neuron_cores_context"] * 2],
    ),
    "lazy and async": (
        "neuronx",
        {"loading": "lazy_async"},
        ["analyze", *["trace", "lazy_load", "async_load"] * 2, *["neuron_cores_context"] * 2],
    ),
    "separate": (
        "neuronx",
        {"weights": "separate"},
        [
            *("analyze", "trace", "trace"),
            *["neuron_cores_context", "replace_weights", "move_trace_to_device"] * 2,
        ],
    ),
    "fallback": (
        "neuronx",
        {"fallback": True, "compiler_args": ["--model-type", "transformer"]},
        ["analyze", *["PartitionerConfig", "trace"] * 2, *["neuron_cores_context"] * 2],
    ),
    "both cores": (
        "neuronx",
        {"cores": 2},
        [
            *("analyze", "trace", "lazy_load", "trace", "lazy_load"),
            *["neuron_cores_context", "DataParallel"] * 2,
        ],
    ),
    "bucket_model": (
        "neuronx",
        {"weights": "bucket_model"},
        ["analyze", "BucketModelConfig", "bucket_model_trace", "neuron_cores_context"],
    ),
    "model_builder": (
        "neuronx",
        {"weights": "model_builder"},
        ["analyze", "NxDParallelState", "ModelBuilder", "neuron_cores_context"],
    ),
}


@pytest.mark.parametrize(
    ("choice", "kind"),
    [*((choice, Model) for choice in CHOICES), *((choice, One) for choice in ("separate", "bucket_model"))],
)
def test_calls_are_the_documented_ones(
    choice: str, kind: type[Model], documented: list[str], tmp_path: Path
) -> None:
    name, options, expected = CHOICES[choice]
    model = kind().eval()
    jobs = [Job(j.name, j.example[: 2 if kind is Model else 1], j.bucket) for j in examples([3, 5])]
    with torch.no_grad():
        wanted = {job.name: model(*job.example) for job in jobs}
    backend = create_backend(name, {**options, "compiler_workdir": str(tmp_path / "work")})
    backend.prepare_process()
    compiler = create_compiler(name, backend)
    compiler.processes = 1
    programs = {done.name: done.program for done in compiler.compile_all(model, jobs)}
    (tmp_path / "models").mkdir()
    files = compiler.save({job.name: programs[job.name] for job in jobs}, tmp_path / "models")
    loaded = backend.load(tmp_path / "models", files)
    assert documented == expected
    for job in jobs:
        found = loaded[job.name](*job.example)
        for one, other in zip(
            found if isinstance(found, (tuple, list)) else (found,),
            wanted[job.name] if kind is Model else (wanted[job.name],),
        ):
            np.testing.assert_allclose(one, other, atol=1e-6)
