"""TorchScript: one trace per bucket, saved together so that their weights are stored once."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Dict, Mapping

import torch

from anyshape.backends.base import Tensors, quiet
from anyshape.buckets import Bucket
from anyshape.building.backends.base import Compiler
from anyshape.building.functions import functions_traced

FILE = "buckets.pt"


# What torch.jit does with a graph in the first two calls of a program; without the shapes of the example,
# which a trace notes beside each value, since the number of rows is open.
PASSES = (
    "inline",
    "erase_shape_information",
    "constant_propagation",
    "peephole",
    "cse",
    "constant_pooling",
    "dce",
)


def optimize(graph: Any) -> None:
    """Make a trace's graph one flat graph in which everything is computed once; a worker runs it as it is.

    The weights stay attributes, which programs share; freezing would make constants of them.
    """
    for name in PASSES:
        getattr(torch._C, f"_jit_pass_{name}")(graph)


class Container(torch.nn.Module):
    """Holds the traces of one module, so that torch.jit.save writes the tensors they share only once."""

    def __init__(self, buckets: Mapping[str, torch.nn.Module]) -> None:
        super().__init__()
        self.buckets = torch.nn.ModuleDict(buckets)

    def forward(self) -> int:
        return len(self.buckets)


class TorchScriptCompiler(Compiler):
    """torch.jit.trace, one trace per bucket, all in one scripted container."""

    def compile(self, model: torch.nn.Module, example: Tensors, bucket: Bucket) -> Any:
        with torch.no_grad(), quiet(), functions_traced():
            traced: Any = torch.jit.trace(model, example, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
            optimize(traced.graph)
        return traced

    def save(self, compiled: Mapping[str, Any], folder: Path) -> Dict[str, str]:
        with quiet():
            torch.jit.save(torch.jit.script(Container(compiled)), str(folder / FILE))
        return dict.fromkeys(compiled, FILE)

    def sizes(self, folder: Path, files: Mapping[str, str]) -> Dict[str, int]:
        """The code, in equal parts: the tensors are stored once for all of them."""
        with zipfile.ZipFile(folder / FILE) as packed:
            tensors = ("/data/", "/constants/")
            code = sum(i.file_size for i in packed.infolist() if not any(t in i.filename for t in tensors))
        return dict.fromkeys(files, code // len(files))
