"""What the two stand-ins for AWS Neuron's SDK share: a runtime on the CPU that is as strict as a device.

There is no Neuron device here. These modules run the traced model on the CPU and refuse what the SDK's
documentation says a device refuses: another shape or dtype than was compiled, a program loaded without the
SDK imported (the operator is unknown then), a core that another process holds, more than a core's memory.

NEURON_STAND_IN_CORES   how many cores the machine has (default 1)
NEURON_STAND_IN_MEMORY  bytes of a core (default 2 GB); every program brings its own weights
NEURON_STAND_IN_LOCKS   a folder with one lock file per core
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile

import torch

_held: list = []  # the lock files of the cores that this process holds, until it ends
_loaded: dict = {}  # bytes on the device, by program

_library = torch.library.Library("neuron_stand_in", "DEF")
_library.define("forward(Tensor[] inputs, Tensor dynamic, str spec) -> Tensor[]")


def _forward(inputs, dynamic, spec):
    wanted = json.loads(spec)
    take_cores()
    _loaded.setdefault(wanted["program"], wanted["bytes"])
    budget = int(os.environ.get("NEURON_STAND_IN_MEMORY", 2_000_000_000)) * len(_held)
    if sum(_loaded.values()) > budget:
        raise RuntimeError(
            f"NRT_RESOURCE: {sum(_loaded.values())} bytes do not fit {budget} of device memory"
        )
    batches = {len(tensor) for tensor in inputs}
    if len(batches) > 1:
        raise RuntimeError(f"inputs have different batch sizes: {batches}")
    for tensor, shape, dtype in zip(inputs, wanted["shapes"], wanted["dtypes"]):
        found = list(tensor.shape)
        if bool(dynamic):
            found, shape = found[1:], shape[1:]
        if found != shape or str(tensor.dtype) != dtype:
            raise RuntimeError(f"compiled for {shape} {dtype}, called with {found} {tensor.dtype}")
        if not tensor.is_contiguous():
            raise RuntimeError("an input is not contiguous")
    return [tensor.clone() for tensor in inputs]


_library.impl("forward", _forward, "CPU")


def take_cores():
    """Hold as many cores as the environment says, until this process ends. RuntimeError if they are taken."""
    if _held:
        return
    cores = int(os.environ.get("NEURON_STAND_IN_CORES", 1))
    visible = os.environ.get("NEURON_RT_VISIBLE_CORES")
    names = [int(name) for name in visible.split(",")] if visible else list(range(cores))
    wanted = len(names) if visible else int(os.environ.get("NEURON_RT_NUM_CORES", 0)) or cores
    folder = os.environ.get("NEURON_STAND_IN_LOCKS", tempfile.gettempdir())
    files = []
    for name in names:
        file = open(os.path.join(folder, f"neuron-core-{name}.lock"), "w")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        files.append(file)
        if len(files) == wanted:
            _held.extend(files)
            return
    raise RuntimeError(f"nrt_init failed: {len(files)} of {wanted} cores are free; others hold the rest")


class _Program(torch.nn.Module):
    def __init__(self, model, example, dynamic):
        super().__init__()
        self.inner = torch.jit.trace(model, example, check_trace=False, strict=False)
        self.register_buffer("dynamic", torch.tensor(dynamic))
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        self.spec = json.dumps(
            {
                "program": os.urandom(8).hex(),
                "bytes": weights,
                "shapes": [list(tensor.shape) for tensor in example],
                "dtypes": [str(tensor.dtype) for tensor in example],
            }
        )

    def forward(self, *tensors):
        return self.inner(*torch.ops.neuron_stand_in.forward(list(tensors), self.dynamic, self.spec))


def trace(model, example, dynamic=False):
    """The model traced on the CPU, behind an operator that only this module defines."""
    if not isinstance(example, tuple) or any(t.device.type != "cpu" for t in example):
        raise ValueError("example inputs must be a tuple of CPU tensors")
    # Tracing is compiling, which needs no device: the checks begin when the program runs.
    held = bool(_held)
    if not held:
        _held.append(None)
    try:
        program = torch.jit.trace(_Program(model, example, dynamic), example, check_trace=False, strict=False)
    finally:
        if not held:
            _held.clear()
        _loaded.clear()
    return program
