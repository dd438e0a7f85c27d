"""AWS Inferentia 1: programs compiled by torch-neuron, run on NeuronCores."""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, ClassVar, Dict, Mapping, Optional, Sequence

import torch

from anyshape.backends.base import Backend, Run, quiet
from anyshape.errors import ConfigError

logger = logging.getLogger(__name__)

NUM_CORES, VISIBLE_CORES = "NEURON_RT_NUM_CORES", "NEURON_RT_VISIBLE_CORES"
NEURON_LS = "/opt/aws/neuron/bin/neuron-ls"


class NeuronBackend(Backend):
    """What both generations share: fixed shapes, one NeuronCore per worker, one file per program.

    Each program carries its own weights in the device's memory. module: the SDK's Python package.

    compiler_args: passed on to the compiler, a list of texts. compiler_workdir: a folder that keeps what
    the compiler writes. dynamic_batch: let the SDK split and fill batches, so that one program per bucket
    serves every batch size. off_device: compile on a machine without the device; nothing runs then, so the
    build neither compares nor measures.
    """

    module: ClassVar[str] = ""
    package: ClassVar[str] = ""  # the compiler's distribution
    options = {"compiler_args": None, "compiler_workdir": None, "dynamic_batch": False, "off_device": False}

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        args = self.settings["compiler_args"]
        if args is not None and not (isinstance(args, list) and all(isinstance(a, str) for a in args)):
            raise ConfigError(f"handler.backend_options.compiler_args must be a list of texts, not {args!r}")
        for key in ("dynamic_batch", "off_device"):
            if not isinstance(self.settings[key], bool):
                raise ConfigError(f"handler.backend_options.{key} must be true or false")
        self.dynamic_batch = self.settings["dynamic_batch"]
        self.runs_here = not self.settings["off_device"]

    def prepare_process(self, workers: int = 1) -> None:
        """Take one core for this process before the SDK is imported, unless the operator chose the cores.

        Raises ConfigError if there are fewer cores than workers, or if the SDK is not installed.
        """
        available = visible_cores() if self.runs_here else None
        if available is not None and workers > available:
            raise ConfigError(
                f"maxWorkers is {workers}, and there are {available} NeuronCores for them: a core belongs to "
                "one worker, so set maxWorkers to at most that"
            )
        self.sdk()

    def sdk(self) -> Any:
        """The SDK's package. Programs cannot be loaded before it is imported."""
        if NUM_CORES not in os.environ and VISIBLE_CORES not in os.environ:
            # With more than one visible core the runtime would scatter the buckets over cores.
            os.environ[NUM_CORES] = "1"
        try:
            return importlib.import_module(self.module)
        except ImportError as error:
            raise ConfigError(
                f"handler.backend: {self.name} needs {self.module} ({error}): install "
                f"requirements/{self.name}.txt, which says from where"
            ) from None

    def load(self, folder: Path, files: Mapping[str, str]) -> Dict[str, Run]:
        self.sdk()
        programs: Dict[str, Run] = {}
        for name, file in files.items():
            started = time.perf_counter()
            with quiet():
                programs[name] = torch.jit.load(str(folder / file)).eval()  # type: ignore[no-untyped-call]
            logger.info("loaded %s in %.1f s", name, time.perf_counter() - started)
        return programs

    def versions(self) -> Dict[str, str]:
        """torch, the SDK's package, and the compiler where there is one."""
        versions = {**super().versions(), self.module: str(getattr(self.sdk(), "__version__", "unknown"))}
        compiler = package_version(self.package)
        return versions if compiler is None else {**versions, self.package: compiler}

    def must_match(self) -> Sequence[str]:
        return ("machine", "torch", self.module)


class Neuron(NeuronBackend):
    """For Inf1."""

    name = "neuron"
    module = "torch_neuron"
    package = "neuron-cc"


def visible_cores() -> Optional[int]:
    """The NeuronCores that workers may take: the operator's, else the machine's; None if unknown."""
    visible = os.environ.get(VISIBLE_CORES)
    if visible:
        return sum(_span(part) for part in visible.split(","))
    number = os.environ.get(NUM_CORES, "")
    if number.isdecimal() and int(number) > 1:
        return int(number)
    command = shutil.which("neuron-ls") or shutil.which(NEURON_LS)
    if command is None:
        return None
    try:
        listed = subprocess.run([command, "--json-output"], capture_output=True, timeout=30, check=True)
        return sum(int(device["nc_count"]) for device in json.loads(listed.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None


def _span(part: str) -> int:
    """How many cores ``3`` or ``0-3`` names."""
    first, _, last = part.strip().partition("-")
    try:
        return int(last or first) - int(first) + 1
    except ValueError:
        raise ConfigError(f"{VISIBLE_CORES} must look like 0-3 or 0,2, not {part!r}") from None


def package_version(name: str) -> Optional[str]:
    """The version of an installed distribution, or None."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
