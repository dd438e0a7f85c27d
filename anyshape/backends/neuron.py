"""AWS Inferentia 1: programs compiled by torch-neuron, run on NeuronCores."""

from __future__ import annotations

import importlib
import logging
import os
import time
from pathlib import Path
from typing import Any, ClassVar, Dict, Mapping, Optional, Sequence, Tuple

import torch

from anyshape.backends.base import Backend, Run, quiet
from anyshape.backends.neuron_cores import (
    NUM_CORES,
    VISIBLE_CORES,
    OverCores,
    on_one_core,
    rows_of,
    rows_per_core,
    visible_cores,
)
from anyshape.errors import ConfigError

logger = logging.getLogger(__name__)

OPTIONS: Dict[str, Any] = {
    "compiler_args": None,
    "compiler_workdir": None,
    "dynamic_batch": False,
    "off_device": False,
    "cores": 1,
    "analyze": True,
}


class NeuronBackend(Backend):
    """What both generations share: fixed shapes, one NeuronCore per worker, programs as TorchScript files.

    module: the SDK's Python package. package: the compiler's distribution. bytes_per_core: of device memory.

    compiler_args: passed on to the compiler, a list of texts. compiler_workdir: a folder that keeps what
    the compiler writes. dynamic_batch: let the SDK split and fill batches, so that one program per bucket
    serves every batch size. off_device: compile on a machine without the device; nothing runs then, so the
    build neither compares nor measures. cores: how many a worker takes; with more than one, the rows of a
    call are split between them. analyze: ask the SDK which operators it knows before anything is compiled.
    fallback: operators that it does not know run on the CPU, and the build says which.
    """

    module: ClassVar[str] = ""
    package: ClassVar[str] = ""
    bytes_per_core: ClassVar[int] = 0
    options = OPTIONS

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        args = self.settings["compiler_args"]
        if args is not None and not (isinstance(args, list) and all(isinstance(a, str) for a in args)):
            raise ConfigError(f"handler.backend_options.compiler_args must be a list of texts, not {args!r}")
        for key, default in self.options.items():
            if isinstance(default, bool) and not isinstance(self.settings[key], bool):
                raise ConfigError(f"handler.backend_options.{key} must be true or false")
        self.cores = self.settings["cores"]
        if type(self.cores) is not int or self.cores < 1:
            raise ConfigError("handler.backend_options.cores must be a positive whole number")
        self.dynamic_batch = self.settings["dynamic_batch"]
        if self.cores > 1:
            self.refuse_together("cores: more than 1", dynamic_batch=True)

    def refuse_together(self, what: str, **others: Any) -> None:
        """Raise ConfigError if the option `what`, which is set, meets another that has the value given."""
        for key, value in others.items():
            if self.settings[key] == value:
                raise ConfigError(
                    f"handler.backend_options: {what} does not go with {key}: {str(value).lower()}, which "
                    "the SDK "
                    "does not support together: leave one out"
                )

    def prepare_process(self, workers: int = 1) -> None:
        """Take this process's cores before the SDK is imported, unless the operator chose them.

        Raises ConfigError if there are fewer cores than workers need, or if the SDK is not installed.
        """
        available = visible_cores()
        if available is not None and workers * self.cores > available:
            each = "" if self.cores == 1 else f", of {self.cores} each,"
            raise ConfigError(
                f"maxWorkers is {workers}{each}, and there are {available} NeuronCores for them: a core "
                "belongs "
                "to one worker, so set maxWorkers to at most that"
            )
        self.sdk()

    def sdk(self) -> Any:
        """The SDK's package. Programs cannot be loaded before it is imported."""
        if NUM_CORES not in os.environ and VISIBLE_CORES not in os.environ:
            # With more than one visible core the runtime would scatter the buckets over cores.
            os.environ[NUM_CORES] = str(self.cores)
        try:
            return importlib.import_module(self.module)
        except ImportError as error:
            raise ConfigError(
                f"handler.backend: {self.name} needs {self.module} ({error}): install "
                f"requirements/{self.name}-sdk.txt, which says from where"
            ) from None

    def namespace(self) -> Any:
        """Where the SDK documents what is neither its compiler nor placement."""
        return self.sdk()

    def load(self, folder: Path, files: Mapping[str, str]) -> Dict[str, Run]:
        sdk = self.sdk()
        programs: Dict[str, Run] = {}
        for name, file in files.items():
            started = time.perf_counter()
            try:
                with quiet(), on_one_core(sdk):
                    programs[name] = self.ready(sdk, self.open(folder / file), name)
            except RuntimeError as error:
                if visible_cores() is not None or "nrt_init" not in str(error):
                    raise
                raise ConfigError(
                    f"{error}; where there is no device, handler.backend_options.off_device: true builds"
                ) from error
            logger.info("loaded %s in %.1f s", name, time.perf_counter() - started)
        return programs

    def open(self, path: Path) -> Any:
        """A program as it was saved; it goes to its core as it is read."""
        return torch.jit.load(str(path)).eval()  # type: ignore[no-untyped-call]

    def ready(self, sdk: Any, program: Any, name: str) -> Run:
        """A loaded program on the cores it is for."""
        rows = rows_of(name)
        if rows_per_core(rows, self.cores) == rows:
            return program  # type: ignore[no-any-return]
        return OverCores(self.namespace(), program, self.cores)

    def versions(self) -> Dict[str, str]:
        """torch, the SDK's package, and the compiler where there is one."""
        versions = {**super().versions(), self.module: str(getattr(self.sdk(), "__version__", "unknown"))}
        compiler = package_version(self.package)
        return versions if compiler is None else {**versions, self.package: compiler}

    def must_match(self) -> Sequence[str]:
        return ("machine", "torch", self.module)


class Neuron(NeuronBackend):
    """For Inf1.

    separate_weights: compile models of more than 1.9 GB, whose weights one file cannot hold. fallback is on:
    the compiler has no embeddings, and a text model without the CPU would not compile.
    """

    name = "neuron"
    module = "torch_neuron"
    package = "neuron-cc"
    bytes_per_core = 2 * 2**30
    options = {**OPTIONS, "fallback": True, "separate_weights": False}

    def namespace(self) -> Any:
        self.sdk()
        return torch.neuron  # type: ignore[attr-defined]


def package_version(name: str) -> Optional[str]:
    """The version of an installed distribution, or None."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def words(args: Optional[Sequence[str]]) -> Tuple[str, ...]:
    """Compiler arguments word by word: recipes may write ``--target inf2`` as one text or as two."""
    return tuple(word for text in args or () for word in text.split())
