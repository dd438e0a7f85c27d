"""What every backend does in a worker: check that programs can run here, load them, run them."""

from __future__ import annotations

import platform
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, ClassVar, Dict, Iterator, Mapping, Sequence, Tuple

import torch

from anyshape.errors import ConfigError

Tensors = Tuple[torch.Tensor, ...]
Run = Callable[
    ..., Tensors
]  # a loaded program: takes the model's inputs one by one, gives a tuple of outputs


class Backend:
    """A way to run a model that was compiled for fixed shapes. Its other half compiles (`building.backends`).

    dynamic_batch: a compiled model takes any number of rows, so one program per bucket serves every
        batch size; otherwise there is one program per bucket and batch size.
    dynamic_shapes: one program, compiled for the largest bucket, takes every smaller shape as well.
    dtypes: what its programs can compute in.
    options: the keys of `backend_options` that it understands, with their defaults.
    compiler: for a backend of one's own, the half that compiles: ``module:Class`` in a file beside the
        recipe, or the name of the backend whose half it shares.
    """

    name: ClassVar[str] = ""
    compiler: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}
    dynamic_batch: bool = False
    dynamic_shapes: bool = False
    dtypes: ClassVar[Sequence[str]] = ("float32", "bfloat16", "float16")

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

    def load(self, folder: Path, files: Mapping[str, str]) -> Dict[str, Run]:
        """Load the programs that the compiler saved, by name; `files` are relative to `folder`."""
        raise NotImplementedError

    def run(self, program: Run, tensors: Tensors) -> Any:
        """One call of one of the programs that `load` gave: its output, or a tuple of them."""
        return program(*tensors)

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


@contextmanager
def quiet() -> Iterator[None]:
    """torch.jit warns that it is deprecated on current torch, and about every shape a trace makes fixed:
    fixed shapes are what it is used for here, and the build compares the result with the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", category=Warning, message=".*trac.*")
        yield
