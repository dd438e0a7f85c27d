"""TorchScript on the CPU: runs everywhere, compiles in seconds, one copy of the weights for all buckets,
and for all workers of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping

import torch

from anyshape.backends.base import Backend, Run, Tensors, quiet
from anyshape.backends.mapped import map_weights
from anyshape.backends.products import choose_products


class TorchScript(Backend):
    """Traces, one per bucket, all in one scripted container."""

    name = "torchscript"
    dynamic_batch = True

    def load(self, folder: Path, files: Mapping[str, str]) -> Dict[str, Run]:
        (file,) = set(files.values())
        with quiet():
            container = torch.jit.load(str(folder / file), map_location="cpu").eval()  # type: ignore[no-untyped-call]
        map_weights(container, folder / file)
        programs = {name: getattr(container.buckets, name) for name in files}
        choose_products(programs.values())
        return programs

    def run(self, program: Run, tensors: Tensors) -> Any:
        # Graphs were optimized when they were built. torch.jit would do so again in each one's first two
        # calls, which then take three times as long. It asks for this in every call, and of each thread.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return program(*tensors)
