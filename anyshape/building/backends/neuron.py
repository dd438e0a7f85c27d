"""AWS Inferentia 1: torch_neuron.trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping

import torch

from anyshape.backends.base import Backend, Tensors, quiet
from anyshape.backends.neuron import NeuronBackend
from anyshape.buckets import Bucket
from anyshape.building.backends.base import Compiler


class NeuronFiles(Compiler):
    """What both generations share: one file per program, compiler options, compiling off the device."""

    in_place = False
    backend: NeuronBackend

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.runs_here = not self.settings["off_device"]

    def compiler_options(self) -> Dict[str, Any]:
        """The recipe's options that the SDK's trace takes as they are."""
        keys = ("compiler_args", "compiler_workdir")
        return {key: self.settings[key] for key in keys if self.settings[key] is not None}

    def save(self, compiled: Mapping[str, Any], folder: Path) -> Dict[str, str]:
        with quiet():
            for name, program in compiled.items():
                torch.jit.save(program, str(folder / f"{name}.pt"))
        return {name: f"{name}.pt" for name in compiled}


class NeuronCompiler(NeuronFiles):
    """torch_neuron.trace, for Inf1."""

    def compile(self, model: torch.nn.Module, example: Tensors, bucket: Bucket) -> Any:
        options = self.compiler_options()
        if self.backend.dynamic_batch:
            options["dynamic_batch_size"] = True
        with torch.no_grad(), quiet():
            return self.backend.sdk().trace(model, example_inputs=example, **options)
