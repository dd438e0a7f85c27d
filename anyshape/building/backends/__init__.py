"""How a model is compiled and saved: the building half of each backend, in a file of the same name."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from anyshape.backends.base import Backend
from anyshape.building.backends.base import Compiler
from anyshape.building.own import other_half
from anyshape.registry import load

COMPILERS = {
    "inductor": "anyshape.building.backends.inductor:InductorCompiler",
    "neuron": "anyshape.building.backends.neuron:NeuronCompiler",
    "neuronx": "anyshape.building.backends.neuronx:NeuronXCompiler",
    "torchscript": "anyshape.building.backends.torchscript:TorchScriptCompiler",
}


def create_compiler(name: str, backend: Backend, folder: Optional[Path] = None) -> Compiler:
    """The compiler of the backend called `name`; one's own backend, in a file of `folder`, names its own.

    Raises ConfigError for a name that does not exist.
    """
    other = other_half(name, type(backend), "compiler", "backend")
    return load(COMPILERS, Compiler, other, "backend", folder)(backend)
