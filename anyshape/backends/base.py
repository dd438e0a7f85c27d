"""What every backend does: compile → save → load → run."""

from __future__ import annotations

import platform
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, ClassVar, Dict, Iterator, Mapping, Sequence, Tuple

import torch

from anyshape.buckets import Bucket
from anyshape.errors import ConfigError

Tensors = Tuple[torch.Tensor, ...]
Program = Callable[..., Tensors]  # takes the model's inputs one by one, gives a tuple of outputs


class Backend:
    """A way to compile a model for a fixed shape and to run it.

    dynamic_batch: a compiled model takes any number of rows, so one program per bucket serves every
        batch size; otherwise there is one program per bucket and batch size.
    shares_weights: the programs of an archive hold one copy of the weights.
    dynamic_shapes: one program, compiled for the largest bucket, takes every smaller shape as well.
    runs_here: programs can run on the machine that compiles them, so that the build can check them.
    freezes_values: what the model's Python code reads of a tensor stays as it was when it was compiled;
        otherwise compiling refuses such code itself.
    in_place: tensors may be written to where they are; compilers that know only whole tensors say no.
    options: the keys of `backend_options` that it understands, with their defaults.
    """

    name: ClassVar[str] = ""
    dynamic_batch: bool = False
    shares_weights: ClassVar[bool] = False
    dynamic_shapes: bool = False
    runs_here: bool = True
    freezes_values: ClassVar[bool] = True
    in_place: ClassVar[bool] = True
    options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Raises ConfigError for an option that this backend does not have."""
        for key in options:
            if key not in self.options:
                known = ", ".join(sorted(self.options)) or "none"
                raise ConfigError(f"handler.backend_options.{key} is not known to {self.name}: {known}")
        self.settings = {**self.options, **options}

    def prepare_process(self, workers: int = 1) -> None:
        """Set what must be set in a fresh process, one of `workers`, before anything is loaded: environment,
        imports. Raises ConfigError where the machine has no room for so many workers."""

    def compile(self, model: torch.nn.Module, example: Tensors, bucket: Bucket) -> Any:
        """Compile `model` for `bucket`: for the shapes and dtypes of `example`."""
        raise NotImplementedError

    def save(self, compiled: Mapping[str, Any], folder: Path) -> Dict[str, str]:
        """Write all compiled programs below `folder`; returns the file name of each program."""
        raise NotImplementedError

    def sizes(self, folder: Path, files: Mapping[str, str]) -> Dict[str, int]:
        """Bytes on disk that each program adds, without what it shares with the others."""
        return {name: (folder / file).stat().st_size for name, file in files.items()}

    def load(self, folder: Path, files: Mapping[str, str]) -> Dict[str, Program]:
        """Load the programs that `save` wrote, by name."""
        raise NotImplementedError

    def versions(self) -> Dict[str, str]:
        """What the programs depend on; recorded at build time."""
        return {"torch": torch.__version__, "machine": platform.machine()}

    def check_versions(self, built: Mapping[str, str]) -> None:
        """Raise ConfigError if programs built with the versions `built` cannot run here."""
        here = self.versions()
        for key in self.must_match():
            if built.get(key) != here.get(key):
                raise ConfigError(
                    f"the archive was built for {self.name} with {key} {built.get(key)}, and here it is "
                    f"{here.get(key)}: build it again on a machine like this one"
                )

    def must_match(self) -> Sequence[str]:
        """The keys of `versions` that must be the same where the archive is built and where it runs."""
        return ("machine",)


def as_tuple(outputs: Any) -> Tensors:
    """A model's outputs as a tuple, whether it gave one tensor or several."""
    return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)


def tensors_of(answer: Any) -> Iterator[torch.Tensor]:
    """The tensors of a nested output, in its own order; a dictionary's by insertion."""
    if isinstance(answer, torch.Tensor):
        yield answer
    elif isinstance(answer, (Mapping, list, tuple)):
        for value in answer.values() if isinstance(answer, Mapping) else answer:
            yield from tensors_of(value)


@contextmanager
def quiet() -> Iterator[None]:
    """torch.jit warns that it is deprecated on current torch, and about every shape a trace makes fixed:
    fixed shapes are what it is used for here, and the build compares the result with the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", category=Warning, message=".*trac.*")
        yield
