"""What every backend does where archives are built: compile, save."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Dict, Iterable, Iterator, Mapping, Optional, Sequence

import torch

from anyshape.backends.base import Backend, Tensors
from anyshape.buckets import Bucket
from anyshape.items import Item
from anyshape.padding import InputSpec
from anyshape.settings import Settings


@dataclass(frozen=True)
class Job:
    """A program to compile: its name, the inputs whose shapes and dtypes it takes, and its bucket."""

    name: str
    example: Tensors
    bucket: Bucket


@dataclass(frozen=True)
class Compiled:
    """A compiled program, in whatever form its compiler saves, and the seconds that it took."""

    name: str
    program: Any
    seconds: float


class JobFailed(Exception):
    """The program `name` does not compile; the cause says why."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Compiler:
    """Compiles a model for a fixed shape and saves what its backend loads.

    in_place: tensors may be written to where they are; compilers that know only whole tensors say no.
    runs_here: programs can run on the machine that compiles them, so that the build can check them.
    freezes_values: what the model's Python code reads of a tensor stays as it was when it was compiled;
        otherwise compiling refuses such code itself.
    casts: the model is given in the recipe's dtype; otherwise in float32, and the compiler sees to it.
    """

    in_place: ClassVar[bool] = True
    freezes_values: ClassVar[bool] = True
    casts: ClassVar[bool] = True
    runs_here: bool = True

    def __init__(self, backend: Backend) -> None:
        """`backend` holds the checked options."""
        self.backend = backend
        self.settings = backend.settings
        self.processes: Optional[int] = None  # to compile in at once; None: as many as this machine bears
        self.serving: Optional[Settings] = None  # what is to be served
        self.calibration: Sequence[Item] = ()  # for int8: items to choose ranges by ...
        self.inputs: Sequence[InputSpec] = ()  # ... and what the model takes of each

    def compile(self, model: torch.nn.Module, example: Tensors, bucket: Bucket) -> Any:
        """Compile `model` for `bucket`: for the shapes and dtypes of `example`."""
        raise NotImplementedError

    def compile_all(self, model: torch.nn.Module, jobs: Iterable[Job]) -> Iterator[Compiled]:
        """Compile `model` for every job, one by one unless a compiler knows better, in any order.

        Raises JobFailed for the first that does not compile, and whatever `jobs` raises.
        """
        for job in jobs:
            started = time.perf_counter()
            try:
                program = self.compile(model, job.example, job.bucket)
            except Exception as error:
                raise JobFailed(job.name) from error
            yield Compiled(job.name, program, time.perf_counter() - started)

    def report(self) -> Dict[str, Any]:
        """What was found out while compiling that whoever serves the archive should know; part of
        buckets.json."""
        return {}

    def save(self, compiled: Mapping[str, Any], folder: Path) -> Dict[str, str]:
        """Write all compiled programs below `folder`; returns the file name of each program."""
        raise NotImplementedError

    def sizes(self, folder: Path, files: Mapping[str, str]) -> Dict[str, int]:
        """Bytes on disk that each program adds, without what it shares with the others."""
        return {name: (folder / file).stat().st_size for name, file in files.items()}

    def versions(self) -> Dict[str, str]:
        """What the programs depend on, recorded in the archive."""
        return self.backend.versions()
