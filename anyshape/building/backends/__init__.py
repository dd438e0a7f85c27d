"""How a model is compiled and saved: the building half of each backend, in a file of the same name."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from anyshape.backends.base import Backend
from anyshape.building.backends.base import Compiler
from anyshape.building.own import load_other_half

COMPILERS = {
    "inductor": "anyshape.building.backends.inductor:InductorCompiler",
    "neuron": "anyshape.building.backends.neuron:NeuronCompiler",
    "neuronx": "anyshape.building.backends.neuronx:NeuronXCompiler",
    "openvino": "anyshape.building.backends.openvino:OpenVINOCompiler",
    "torchscript": "anyshape.building.backends.torchscript:TorchScriptCompiler",
}


def create_compiler(name: str, backend: Backend, folder: Optional[Path] = None) -> Compiler:
    """The compiler of the backend called `name`; one's own backend, in a file of `folder`, names its own.

    Raises ConfigError for a name that does not exist.
    """
    half = load_other_half(COMPILERS, Compiler, name, type(backend), "compiler", "backend", folder or Path())
    return half(backend)
