"""AWS Inferentia 2 and Trainium: torch_neuronx.trace."""

from __future__ import annotations

from typing import Any

import torch

from anyshape.backends.base import Tensors, quiet
from anyshape.buckets import Bucket
from anyshape.building.backends.neuron import NeuronFiles


class NeuronXCompiler(NeuronFiles):
    """torch_neuronx.trace, for Inf2 and Trn1."""

    def compile(self, model: torch.nn.Module, example: Tensors, bucket: Bucket) -> Any:
        options = self.compiler_options()
        if not self.runs_here:
            options["cpu_backend"] = True
        sdk = self.backend.sdk()
        with torch.no_grad(), quiet():
            program = sdk.trace(model, example, **options)
        if self.backend.dynamic_batch:
            # Documented as working in place; a returned module is taken where there is one.
            program = sdk.dynamic_batch(program) or program
        return program
