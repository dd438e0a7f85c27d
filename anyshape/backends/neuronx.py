"""AWS Inferentia 2 and Trainium: programs compiled by torch-neuronx, run on NeuronCores."""

from __future__ import annotations

from anyshape.backends.neuron import NeuronBackend


class NeuronX(NeuronBackend):
    """For Inf2 and Trn1."""

    name = "neuronx"
    module = "torch_neuronx"
    package = "neuronx-cc"
