"""What torch.jit.freeze and optimize_for_inference gain over the plain trace, and folding before the trace.

The programs of a shape take turns in one process; figures are medians. Freezing gives each bucket weights of
its own, folding (anyshape/building/fold.py) does not. See docs/backends.md.

    python -m benchmarks freezing [--only resnet] [--rounds 12] [--threads 1]
"""

from __future__ import annotations

import argparse
import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from benchmarks.studies.backends import Inputs

SHAPES = {
    "minilm": ((1, 32), (1, 128), (8, 32)),
    "mobilenet": ((1, 224, 224), (2, 480, 640)),
    "resnet": ((1, 224, 224), (2, 480, 640)),
}


def networks(name: str) -> tuple[dict[str, nn.Module], Inputs]:
    """The network as it is traced, the same with folded batch norms where it has any, and its inputs."""
    import torch

    from anyshape.building.exact import ExactPadding
    from anyshape.building.fold import fold_batch_norms
    from benchmarks.studies import backends

    if name == "minilm":
        model, inputs = backends.minilm()
        return {"trace": model}, inputs
    exact, inputs = backends.mobilenet()
    if name == "resnet":
        from recipes.models.resnet50 import random_resnet50

        exact = ExactPadding(random_resnet50().requires_grad_(False))
    folded = copy.deepcopy(exact.get_submodule("model"))
    fold_batch_norms(folded, (torch.rand(1, 3, 64, 64),))
    return {"trace": exact, "folded": ExactPadding(folded)}, inputs


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks freezing", description=__doc__)
    parser.add_argument("--only", choices=SHAPES, help="one model alone")
    parser.add_argument("--rounds", type=int, default=12, help="calls of each program, default: 12")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)

    import torch

    from anyshape.backends.base import quiet
    from benchmarks.studies.backends import interleaved
    from benchmarks.studies.timing import CLOCKS

    torch.set_num_threads(options.threads)
    for name in [options.only] if options.only else SHAPES:
        models, inputs = networks(name)
        for shape in SHAPES[name]:
            with torch.no_grad(), quiet():
                programs = {
                    how: torch.jit.trace(model, inputs(2, *shape[1:]), check_trace=False, strict=False)  # type: ignore[no-untyped-call]
                    for how, model in models.items()
                }
                programs["frozen"] = torch.jit.freeze(programs["trace"].eval())
                programs["optimised"] = torch.jit.optimize_for_inference(programs["trace"].eval())
            seconds = interleaved(programs, inputs(*shape), options.rounds, CLOCKS["wall"])
            for how, found in seconds.items():
                size, ratio = "x".join(map(str, shape)), seconds["trace"] / found
                print(f"{name:10} {size:10} {how:10} {found * 1e3:9.2f} ms {ratio:6.2f} x")
    return 0
