"""TorchScript on the CPU: runs everywhere, compiles in seconds, one copy of the weights for all buckets,
and for all workers of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Mapping

import torch

from anyshape.backends.base import Backend, Run, quiet
from anyshape.backends.mapped import map_weights


class TorchScript(Backend):
    """Traces, one per bucket, all in one scripted container."""

    name = "torchscript"
    dynamic_batch = True

    def load(self, folder: Path, files: Mapping[str, str]) -> Dict[str, Run]:
        (file,) = set(files.values())
        with quiet():
            container = torch.jit.load(str(folder / file), map_location="cpu").eval()  # type: ignore[no-untyped-call]
        map_weights(container, folder / file)
        return {name: getattr(container.buckets, name) for name in files}
