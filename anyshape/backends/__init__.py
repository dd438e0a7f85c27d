"""How compiled programs are loaded and run: the serving half of each backend, one small class per file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, Optional

from anyshape.backends.base import Backend
from anyshape.registry import load

BACKENDS = {
    "inductor": "anyshape.backends.inductor:Inductor",
    "neuron": "anyshape.backends.neuron:Neuron",
    "neuronx": "anyshape.backends.neuronx:NeuronX",
    "openvino": "anyshape.backends.openvino:OpenVINO",
    "torchscript": "anyshape.backends.torchscript:TorchScript",
}


def create_backend(name: str, options: Mapping[str, Any], folder: Optional[Path] = None) -> Backend:
    """The backend called `name`, or ``module:Class`` in a file of `folder`.

    Raises ConfigError for a name or an option that does not exist.
    """
    return load(BACKENDS, Backend, name, "backend", folder)(options)
