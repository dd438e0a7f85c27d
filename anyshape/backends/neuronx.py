"""AWS Inferentia 2 and Trainium: programs compiled by torch-neuronx, run on NeuronCores."""

from __future__ import annotations

from typing import Any

import torch

from anyshape.backends.base import Tensors, quiet
from anyshape.backends.neuron import NeuronBackend
from anyshape.buckets import Bucket


class NeuronX(NeuronBackend):
    """torch_neuronx.trace, for Inf2 and Trn1."""

    name = "neuronx"
    module = "torch_neuronx"
    compiler = "neuronx-cc"

    def compile(self, model: torch.nn.Module, example: Tensors, bucket: Bucket) -> Any:
        options = self.compiler_options()
        if not self.runs_here:
            options["cpu_backend"] = True
        sdk = self.sdk()
        with torch.no_grad(), quiet():
            program = sdk.trace(model, example, **options)
        if self.dynamic_batch:
            # Documented as working in place; a returned module is taken where there is one.
            program = sdk.dynamic_batch(program) or program
        return program
