"""The machine's measured matrix-multiply peak: the yardstick for "share of peak on real tokens".

One process per core multiplies matrices of the model's sizes and of larger ones, with torch's own kernel
and with oneDNN's on packed weights; the best counts.

    python -m benchmarks gemm [--json]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SIZES = ((512, 384, 1536), (512, 1536, 384), (1024, 1024, 1024), (2048, 2048, 2048))
SECONDS = 0.7


def peak(dtype: str = "float32", processes: int | None = None) -> float:
    """Floating-point operations per second of all cores together, at the best size and kernel."""
    processes = processes or os.cpu_count() or 1
    best = 0.0
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for size in SIZES:
            for kernel in ("matmul", "onednn"):
                jobs = [(size, dtype, kernel)] * processes
                best = max(best, sum(pool.map(rate, jobs)))
    return best


def rate(job: tuple[tuple[int, int, int], str, str]) -> float:
    """FLOP/s of one thread multiplying [m, k] by [k, n]."""
    import torch

    from benchmarks.studies.timing import steady

    (m, k, n), dtype, kernel = job
    torch.set_num_threads(1)
    kind = getattr(torch, dtype)
    left, right = torch.randn(m, k).to(kind), torch.randn(n, k).to(kind)
    multiply = matmul(left, right) if kernel == "matmul" else onednn(left, right)
    with torch.inference_mode():
        return 2.0 * m * k * n / steady(multiply, SECONDS)


def matmul(left: torch.Tensor, right: torch.Tensor) -> Callable[[], object]:
    import torch

    return lambda: torch.nn.functional.linear(left, right)


def onednn(left: torch.Tensor, right: torch.Tensor) -> Callable[[], object]:
    """oneDNN's linear with weights packed once, as a frozen Inductor graph calls it."""
    import torch

    packed = torch.ops.mkldnn._reorder_linear_weight(right, left.shape[0])
    return lambda: torch.ops.mkldnn._linear_pointwise(left, packed, None, "none", [], "")


def minilm_flops(tokens: int, layers: int = 6, width: int = 384, inner: int = 1536) -> float:
    """Operations that one text of so many tokens needs: linear layers, and attention's two products."""
    linear = 2 * layers * (4 * width * width + 2 * width * inner)
    attention = 4 * layers * width * tokens
    return float(tokens * (linear + attention))


def run(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gemm", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    peaks = {dtype: peak(dtype) / 1e9 for dtype in ("float32", "bfloat16")}
    if options.json:
        print(json.dumps({"cores": os.cpu_count(), "gflops": peaks}))
    else:
        for dtype, gflops in peaks.items():
            print(f"{dtype:9} {gflops:7.0f} GFLOP/s on {os.cpu_count()} cores")
