"""AOTInductor on the CPU: compiled C++ with oneDNN's packed weights, faster than TorchScript.

A program is one shared library per bucket: fixed shape, any number of rows. It runs on CPUs like the one
it was built on, with the same torch; g++ is needed where it is built and nowhere else. The first library
carries the weights, packed, and the others borrow them when they are loaded: what a program computes with
is the same tensor in the same layout, so sharing costs no time, and each further bucket costs the size of
its code.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence, Tuple
from unittest import mock

import torch

from anyshape.backends.base import Backend, Program, Tensors, as_tuple
from anyshape.backends.cpu import cpu_flags
from anyshape.buckets import Bucket
from anyshape.errors import ConfigError

SHARED = "shared.pt"  # for each library that borrows weights: from which, and what it does not find there


@dataclass
class Library:
    """A compiled library. borrowed: its constants' names, each with the carrier's; own: what only it has."""

    path: Path
    borrowed: Dict[str, str] = field(default_factory=dict)
    own: Dict[str, torch.Tensor] = field(default_factory=dict)


class Inductor(Backend):
    """torch.export, then AOTInductor with frozen weights; one shared library per bucket.

    shapes: `fixed`, one library per bucket; or `dynamic`, a single one for every length up to the largest
    bucket, where a call is padded to its own longest item only.
    """

    name = "inductor"
    dynamic_batch = True
    shares_weights = True
    freezes_values = False
    options = {"shapes": "fixed"}

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        if self.settings["shapes"] not in ("fixed", "dynamic"):
            raise ConfigError(
                f"handler.backend_options.shapes must be fixed or dynamic, not {self.settings['shapes']!r}"
            )
        self.dynamic_shapes = self.settings["shapes"] == "dynamic"
        self._work: Optional[tempfile.TemporaryDirectory[str]] = None
        self._carried: Dict[str, str] = {}

    def compile(self, model: torch.nn.Module, example: Tensors, bucket: Bucket) -> Library:
        """A library. An example of one row makes a program for exactly one row.

        Raises ConfigError if there is no C++ compiler.
        """
        require_compiler()
        if self.dynamic_shapes and len(bucket) > 1:
            raise ConfigError("handler.backend_options.shapes: dynamic is for buckets of one side")
        # Without no_grad Inductor skips freezing, and with it oneDNN's packed weights, and says nothing.
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.export(
                Positional(model), example, dynamic_shapes=(self._dimensions(example, bucket),)
            )
            if not self._carried:
                path, constants = self._build(exported, example, carry=True)
                self._carried = {digest(tensor): name for name, tensor in constants.items()}
                return Library(path)
            path, constants = self._build(exported, example, carry=False)
            library = Library(path)
            for name, tensor in constants.items():
                carrier = self._carried.get(digest(tensor))
                if carrier is not None:
                    library.borrowed[name] = carrier
                elif tensor.is_mkldnn:  # packed for this bucket alone, and no file format can hold it
                    return Library(self._build(exported, example, carry=True)[0])
                else:
                    library.own[name] = tensor.detach().clone()
            return library

    def _dimensions(self, example: Tensors, bucket: Bucket) -> Tuple[Dict[int, Any], ...]:
        """For each input, which dimensions are open: rows, and with dynamic shapes the tokens."""
        rows = {0: torch.export.Dim("rows", min=1)} if len(example[0]) > 1 else {}
        if not self.dynamic_shapes:
            return (rows,) * len(example)
        tokens = torch.export.Dim("tokens", min=1, max=bucket[-1])
        return tuple({**rows, 1: tokens} for _ in example)

    def _build(self, exported: Any, example: Tensors, carry: bool) -> Tuple[Path, Dict[str, torch.Tensor]]:
        """Compile to a library with or without the weights; also gives its constants by name."""
        import torch._inductor

        if self._work is None:
            self._work = tempfile.TemporaryDirectory(prefix="bucketed-inductor-")
        options = {
            "freezing": True,
            # The loops ask for the number of threads when they run, not when they are compiled.
            "cpp.dynamic_threads": True,
            "aot_inductor.output_path": tempfile.mkdtemp(dir=self._work.name),
            "aot_inductor.package": True,
            "aot_inductor.package_constants_in_so": carry,
            "aot_inductor.package_constants_on_disk_format": "pickle_weights",
        }
        with _packed_weights():
            files: Any = torch._inductor.aot_compile(exported.module(), example, options=options)
        (library,) = [file for file in files if isinstance(file, str) and file.endswith(".so")]
        (weights,) = [file for file in files if not isinstance(file, str)]
        return Path(library), {name: tensor for name, (tensor, _) in weights.items()}

    def save(self, compiled: Mapping[str, Any], folder: Path) -> Dict[str, str]:
        files: Dict[str, str] = {}
        written: Dict[Path, str] = {}
        shared: Dict[str, Any] = {}
        carrier = None
        for name, library in compiled.items():
            file = written.setdefault(library.path, f"{name}.so")
            files[name] = file
            if library.path.exists():
                shutil.move(str(library.path), str(folder / file))
            carrier = carrier or file
            if library.borrowed:
                shared[file] = {"from": carrier, "borrowed": library.borrowed, "own": library.own}
        torch.save(shared, folder / SHARED)
        if self._work is not None:
            self._work.cleanup()
        return files

    def sizes(self, folder: Path, files: Mapping[str, str]) -> Dict[str, int]:
        """Bytes on disk; a library that serves several buckets counts in equal parts."""
        served = list(files.values())
        return {name: (folder / file).stat().st_size // served.count(file) for name, file in files.items()}

    def load(self, folder: Path, files: Mapping[str, str]) -> Dict[str, Program]:
        """Load the libraries from the archive's folder itself: unlike a .pt2 package nothing is unpacked to
        /tmp, and the workers of one model share the file's pages."""
        (folder,) = {(folder / file).parent for file in files.values()}
        files = {name: Path(file).name for name, file in files.items()}
        shared = torch.load(folder / SHARED, weights_only=True)
        runners = {
            file: torch._C._aoti.AOTIModelContainerRunnerCpu(str(folder / file), 1)
            for file in dict.fromkeys(files.values())
        }
        carriers = {entry["from"] for entry in shared.values()}
        constants = {file: runners[file].extract_constants_map(False) for file in carriers}
        lent: Dict[str, Any] = {}
        for file, entry in shared.items():
            carried = constants[entry["from"]]
            lent[file] = {**{k: carried[v] for k, v in entry["borrowed"].items()}, **entry["own"]}
            names = runners[file].get_constant_names_to_original_fqns()
            borrowed = {name: lent[file][fqn] for name, fqn in names.items()}
            runners[file].update_constant_buffer(borrowed, False, True, True)
        keep = (list(runners.values()), constants, lent)
        return {name: Loaded(runners[file], keep) for name, file in files.items()}

    def versions(self) -> Dict[str, str]:
        return {**super().versions(), "cpu_flags": " ".join(cpu_flags())}

    def must_match(self) -> Sequence[str]:
        return ("machine", "torch")

    def check_versions(self, built: Mapping[str, str]) -> None:
        super().check_versions(built)
        missing = sorted(set(built.get("cpu_flags", "unknown").split()) - set(cpu_flags()))
        if missing:
            raise ConfigError(
                f"the archive was built for a CPU with {', '.join(missing)}, which this one lacks: build it "
                "again on a machine like this one, or choose handler.backend: torchscript"
            )


class Positional(torch.nn.Module):
    """Takes any number of tensors and gives a tuple, so that every model is exported the same way."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *tensors: torch.Tensor) -> Tensors:
        return as_tuple(self.model(*tensors))


class Loaded:
    """A library that is called with the model's inputs. keep: what must live as long as it does."""

    def __init__(self, runner: Any, keep: Any) -> None:
        self.runner = runner
        self.keep = keep

    def __call__(self, *tensors: torch.Tensor) -> Tensors:
        return tuple(self.runner.run(list(tensors)))


def digest(tensor: torch.Tensor) -> str:
    """Equal for tensors of the same kind, dtype, shape and values."""
    dense = tensor.to_dense() if tensor.is_mkldnn else tensor.detach()
    found = hashlib.sha256(f"{tensor.layout} {tensor.dtype} {tuple(tensor.shape)}".encode())
    found.update(dense.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


@contextmanager
def _packed_weights() -> Iterator[None]:
    """torch 2.13 cannot describe the storage of oneDNN's packed weights, which nothing here asks for."""
    with mock.patch("torch._inductor.codecache.TensorProperties", return_value=None):
        yield


def require_compiler() -> None:
    """Raises ConfigError if this torch has no AOTInductor, or if it finds no C++ compiler here."""
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler
    except ImportError:
        raise ConfigError(
            f"handler.backend: torch {torch.__version__} is too old for inductor: install the one of "
            "requirements-torch.txt, or choose torchscript"
        ) from None

    try:
        get_cpp_compiler()
    except Exception as error:
        raise ConfigError(
            "handler.backend: inductor needs a C++ compiler to build (not to serve): install g++, or name "
            f"one in the environment as CXX ({type(error).__name__})"
        ) from None
