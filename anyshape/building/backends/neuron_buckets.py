"""The two ways in which the SDK of Neuron makes one program for several shapes."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import torch

from anyshape.backends.base import Tensors, as_tuple, quiet
from anyshape.backends.neuronx import distributed
from anyshape.building.errors import BuildError


def bucket_model(
    sdk: Any, model: torch.nn.Module, examples: Sequence[Tensors], args: List[str], workdir: Optional[str]
) -> Any:
    """torch_neuronx.bucket_model_trace: the SDK's program that finds its bucket by itself.

    Its kernel here pads nothing, for what comes in has the shape of a bucket already, and raises for any
    other shape, where the SDK's own examples give back an empty list. Raises BuildError for a model that
    cannot go to the processes that the SDK traces in.
    """
    with tempfile.TemporaryDirectory(prefix="anyshape-buckets-") as temporary:
        path = os.path.join(temporary, "model.pt")
        try:
            torch.save(model, path)
        except Exception as error:
            raise BuildError(
                "handler.backend_options.weights: bucket_model hands the model to other processes, and "
                "this one cannot be "
                f"written down ({type(error).__name__}): choose inline or separate"
            ) from error
        config = sdk.BucketModelConfig(partial(kernel, shapes_of(examples)), func_kwargs={"path": path})
        options: Dict[str, Any] = {"compiler_args": args} if args else {}
        if workdir is not None:
            options["compiler_workdir"] = workdir
        with torch.no_grad(), quiet():
            return sdk.bucket_model_trace(read_model, list(examples), config, **options)


def read_model(path: str) -> Tuple[torch.nn.Module, Dict[Any, Any]]:
    """The model, and no state that would be kept between calls; called in each process that traces a
    bucket."""
    return torch.load(path, weights_only=False), {}  # written by the process that traces, just before


def shapes_of(examples: Sequence[Tensors]) -> List[List[int]]:
    """The shape of each bucket's first input: it tells the buckets apart."""
    shapes = [list(tensors[0].shape) for tensors in examples]
    if len({tuple(shape) for shape in shapes}) < len(shapes):
        raise BuildError(
            "handler.backend_options.weights: bucket_model tells buckets by their first input's shape"
        )
    return shapes


def kernel(shapes: Sequence[Sequence[int]], *_: Any) -> Any:
    """A TorchScript function from the inputs to the inputs and their bucket's number. Raises for other
    shapes.

    Scripted from a file: what TorchScript cannot trace back to a module is not saved with the program.
    """
    lines = ["from typing import List, Tuple", "", "import torch", "from torch import Tensor", "", ""]
    lines += [
        "def find(tensors: List[Tensor]) -> Tuple[List[Tensor], Tensor]:",
        "    shape = tensors[0].shape",
    ]
    for number, shape in enumerate(shapes):
        lines += [f"    if shape == {list(shape)}:", f"        return tensors, torch.tensor([{number}])"]
    lines += ["    raise RuntimeError('an input has the shape of no bucket')", ""]
    with tempfile.TemporaryDirectory(prefix="anyshape-kernel-") as temporary:
        path = Path(temporary) / "bucket_kernel.py"
        path.write_text("\n".join(lines), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with quiet():
            return torch.jit.script(module.find)


def model_builder(
    model: torch.nn.Module,
    examples: Mapping[str, Tensors],
    args: List[str],
    workdir: Optional[str],
    processes: Optional[int],
    path: Path,
) -> None:
    """neuronx-distributed's ModelBuilder: every shape by its tag, one set of weights, which is not in the
    file."""
    library = distributed()
    named = named_inputs(model, len(next(iter(examples.values()))))
    with torch.no_grad(), quiet(), library.NxDParallelState(world_size=1, tensor_model_parallel_size=1):
        builder = library.ModelBuilder(named)
        for tag, example in examples.items():
            builder = builder.trace(args=example, tag=tag)
        made = builder.compile(
            priority_model_key=list(examples)[-1],
            compiler_workdir=workdir,
            compiler_args=" ".join(args) or None,
            max_workers=processes,
        )
        made.save(str(path))


def named_inputs(model: torch.nn.Module, count: int) -> torch.nn.Module:
    """The model with each input named, which ModelBuilder asks for, in place of any number of them."""
    names = ", ".join(f"input_{i}" for i in range(count))
    space: Dict[str, Any] = {}
    exec(
        f"def forward(self, {names}):\n    return as_tuple(self.model({names}))\n",
        {"as_tuple": as_tuple},
        space,
    )
    wrapped: torch.nn.Module = type("NamedInputs", (torch.nn.Module,), {"forward": space["forward"]})()
    wrapped.add_module("model", model)
    return wrapped.eval()
