"""NeuronCores: how many there are, on what kind of instance, and how programs are put on those of this
process."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Callable, ContextManager, Optional

import torch

from anyshape.backends.base import Tensors, as_tuple
from anyshape.errors import ConfigError

NUM_CORES, VISIBLE_CORES = "NEURON_RT_NUM_CORES", "NEURON_RT_VISIBLE_CORES"
NEURON_LS = "/opt/aws/neuron/bin/neuron-ls"
PRODUCT = Path("/sys/devices/virtual/dmi/id/product_name")  # on EC2 the type of the instance
FAMILIES = ("inf1", "inf2", "trn1", "trn1n", "trn2")


def visible_cores() -> Optional[int]:
    """The NeuronCores that workers may take: the operator's, else the machine's; None if unknown."""
    visible = os.environ.get(VISIBLE_CORES)
    if visible:
        return sum(_span(part) for part in visible.split(","))
    number = os.environ.get(NUM_CORES, "")
    if number.isdecimal() and int(number) > 1:
        return int(number)
    try:
        return sum(int(device["nc_count"]) for device in json.loads(neuron_ls("--json-output")))
    except (ValueError, KeyError, TypeError):
        return None


def own_cores() -> int:
    """How many cores this process takes when the runtime starts, as far as the environment says."""
    visible = os.environ.get(VISIBLE_CORES)
    if visible:
        return sum(_span(part) for part in visible.split(","))
    number = os.environ.get(NUM_CORES, "")
    return int(number) if number.isdecimal() and int(number) > 0 else visible_cores() or 1


def instance_family() -> Optional[str]:
    """What compilers call `--target`: inf2 on an inf2.xlarge; None where this is no Neuron instance, or
    unknown."""
    names = []
    with contextlib.suppress(OSError):
        names.append(PRODUCT.read_text(encoding="ascii", errors="ignore").strip())
    if not names or names[0].partition(".")[0] not in FAMILIES:
        listed = neuron_ls()
        names = [line.partition(":")[2].strip() for line in listed.splitlines() if "instance-type" in line]
    family = names[0].partition(".")[0] if names else ""
    return family if family in FAMILIES else None


def neuron_ls(*options: str) -> str:
    """What the SDK's tool lists; nothing where there is none, or where it fails."""
    command = shutil.which("neuron-ls") or shutil.which(NEURON_LS)
    if command is None:
        return ""
    try:
        return subprocess.run(
            [command, *options], capture_output=True, timeout=30, check=True, text=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _span(part: str) -> int:
    """How many cores ``3`` or ``0-3`` names."""
    first, _, last = part.strip().partition("-")
    try:
        return int(last or first) - int(first) + 1
    except ValueError:
        raise ConfigError(f"{VISIBLE_CORES} must look like 0-3 or 0,2, not {part!r}") from None


def on_one_core(sdk: Any) -> ContextManager[Any]:
    """While programs load: all of them on the first core of this process.

    With several cores to see, the runtime would scatter the buckets over them. Where the SDK has no
    placement, or there is one core only, nothing is done.
    """
    if own_cores() <= 1:
        return contextlib.nullcontext()
    place = _placement(sdk)
    return contextlib.nullcontext() if place is None else place(start_nc=0, nc_count=1)


def _placement(sdk: Any) -> Optional[Callable[..., ContextManager[Any]]]:
    """torch-neuronx has it in the package itself since the SDK 2.25; before that, and in torch-neuron, in
    `experimental`."""
    for holder in (sdk, getattr(sdk, "experimental", None)):
        found: Optional[Callable[..., ContextManager[Any]]] = getattr(holder, "neuron_cores_context", None)
        if found is not None:
            return found
    return None


class OverCores:
    """A program on several cores: a call's rows are split evenly between them, each part of the compiled
    size."""

    def __init__(self, sdk: Any, program: Any, cores: int) -> None:
        self.parallel = sdk.DataParallel(program, device_ids=list(range(cores)))
        self.parallel.disable_dynamic_batching()

    def __call__(self, *tensors: torch.Tensor) -> Tensors:
        return as_tuple(self.parallel(*tensors))


def rows_per_core(rows: int, cores: int) -> int:
    """Rows that a program is compiled for, where a call of `rows` goes to `cores`: all of them if they do not
    divide."""
    return rows // cores if rows % cores == 0 else rows


def rows_of(name: str) -> int:
    """The batch size in a program's name: 8 of ``128_b8``; 1 where it is open."""
    _, found, rows = name.rpartition("_b")
    return int(rows) if found else 1
