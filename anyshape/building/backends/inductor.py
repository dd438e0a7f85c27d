"""AOTInductor: torch.export, then a compiled library per bucket. g++ is needed here and nowhere else."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple
from unittest import mock

import torch

from anyshape.backends.base import Backend, Tensors
from anyshape.backends.inductor import SHARED
from anyshape.buckets import Bucket
from anyshape.building.backends.attention import OPTIONS, split_attention
from anyshape.building.backends.base import Compiler
from anyshape.building.backends.exported import Positional, open_dimensions
from anyshape.building.backends.inductor_int8 import quantize
from anyshape.errors import ConfigError

# What attention is in that may be done in bfloat16, by the dtype of the program.
HALVED = {"bfloat16": torch.bfloat16, "int8": torch.float32}


@dataclass
class Library:
    """A compiled library. borrowed: its constants' names, each with the carrier's; own: what only it has."""

    path: Path
    borrowed: Dict[str, str] = field(default_factory=dict)
    own: Dict[str, torch.Tensor] = field(default_factory=dict)


class InductorCompiler(Compiler):
    """torch.export, then AOTInductor with frozen weights; one shared library per bucket."""

    freezes_values = False

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._work: Optional[tempfile.TemporaryDirectory[str]] = None
        self._carried: Dict[str, str] = {}

    def compile(self, model: torch.nn.Module, example: Tensors, bucket: Bucket) -> Library:
        """A library. An example of one row makes a program for exactly one row.

        Raises ConfigError if there is no C++ compiler.
        """
        require_compiler()
        if self.backend.dynamic_shapes and len(bucket) > 1:
            raise ConfigError("handler.backend_options.shapes: dynamic is for buckets of one side")
        assert self.serving is not None
        int8 = self.serving.dtype == "int8"
        if int8 and not self.backend.dynamic_shapes:
            raise ConfigError(
                "handler.dtype: int8 is quantised once, for all lengths: "
                "set handler.backend_options: {shapes: dynamic}"
            )
        # Without no_grad Inductor skips freezing, and with it oneDNN's packed weights, and says nothing.
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            largest = bucket if self.backend.dynamic_shapes else ()
            exported = torch.export.export(
                Positional(model), example, dynamic_shapes=(open_dimensions(example, bucket, largest),)
            )
            program: Any = quantize(exported, self.inputs, self.calibration) if int8 else exported.module()
            kind = HALVED.get(self.serving.dtype)
            options = OPTIONS if kind and split_attention(program, kind) else {}
            build = partial(self._build, program, example, options)
            if int8:  # the only program: nobody borrows its weights
                return Library(build(carry=True)[0])
            if not self._carried:
                path, constants = build(carry=True)
                self._carried = {digest(tensor): name for name, tensor in constants.items()}
                return Library(path)
            path, constants = build(carry=False)
            library = Library(path)
            for name, tensor in constants.items():
                carrier = self._carried.get(digest(tensor))
                if carrier is not None:
                    library.borrowed[name] = carrier
                elif tensor.is_mkldnn:  # packed for this bucket alone, and no file format can hold it
                    return Library(build(carry=True)[0])
                else:
                    library.own[name] = tensor.detach().clone()
            return library

    def _build(
        self, program: Any, example: Tensors, options: Mapping[str, Any], carry: bool
    ) -> Tuple[Path, Dict[str, torch.Tensor]]:
        """Compile to a library with or without the weights; also gives its constants by name. options: what
        Inductor is told beside its own."""
        import torch._inductor

        if self._work is None:
            self._work = tempfile.TemporaryDirectory(prefix="bucketed-inductor-")
        options = {
            **options,
            "freezing": True,
            # The loops ask for the number of threads when they run, not when they are compiled.
            "cpp.dynamic_threads": True,
            "aot_inductor.output_path": tempfile.mkdtemp(dir=self._work.name),
            "aot_inductor.package": True,
            "aot_inductor.package_constants_in_so": carry,
            "aot_inductor.package_constants_on_disk_format": "pickle_weights",
        }
        with _packed_weights():
            files: Any = torch._inductor.aot_compile(program, example, options=options)
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
            "requirements/torch.txt, or choose torchscript"
        ) from None

    try:
        get_cpp_compiler()
    except Exception as error:
        raise ConfigError(
            "handler.backend: inductor needs a C++ compiler to build (not to serve): install g++, or name "
            f"one in the environment as CXX ({type(error).__name__})"
        ) from None
