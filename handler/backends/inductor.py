"""AOTInductor on the CPU: compiled C++ with oneDNN's packed weights, about twice as fast as TorchScript.

A program is one shared library per bucket: fixed shape, any number of rows. It runs on CPUs like the one
it was built on, with the same torch; g++ is needed where it is built and nowhere else.
"""

from __future__ import annotations

import platform
import re
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import torch

from handler.backends.base import Backend, Program, Tensors, as_tuple
from handler.errors import ConfigError

# Instruction sets that a compiler may use on its own when told -march=native; arm64 lists all it has.
VECTOR_FLAGS = re.compile(
    r"(sse|ssse|avx|fma|f16c|bmi|abm|popcnt|movbe|amx|gfni|vaes|vpclmul|as|sve|neon|i8mm)\w*"
)


class Inductor(Backend):
    """torch.export, then AOTInductor with frozen weights; one shared library per bucket."""

    name = "inductor"
    dynamic_batch = True

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._work: Optional[tempfile.TemporaryDirectory[str]] = None

    def compile(self, model: torch.nn.Module, example: Tensors) -> Any:
        """The path of the library. An example of one row makes a program for exactly one row.

        Raises ConfigError if there is no C++ compiler.
        """
        import torch._inductor

        require_compiler()
        if self._work is None:
            self._work = tempfile.TemporaryDirectory(prefix="bucketed-inductor-")
        rows = {0: torch.export.Dim("rows", min=1)} if len(example[0]) > 1 else {}
        # Without no_grad Inductor skips freezing, and with it oneDNN's packed weights, and says nothing.
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.export(
                Positional(model), example, dynamic_shapes=((rows,) * len(example),)
            )
            return torch._inductor.aot_compile(
                exported.module(),
                example,
                options={
                    "freezing": True,
                    # The loops ask for the number of threads when they run, not when they are compiled.
                    "cpp.dynamic_threads": True,
                    "aot_inductor.output_path": self._work.name,
                },
            )

    def save(self, compiled: Mapping[str, Any], folder: Path) -> Dict[str, str]:
        files = {name: f"{name}.so" for name in compiled}
        for name, library in compiled.items():
            shutil.move(str(library), str(folder / files[name]))
        return files

    def load(self, folder: Path, files: Mapping[str, str]) -> Dict[str, Program]:
        programs: Dict[str, Program] = {}
        for name, file in files.items():
            try:
                # Straight from the archive's folder: unlike a .pt2 package nothing is unpacked to /tmp, and
                # the workers of one model share the file's pages.
                runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(folder / file), 1)
            except RuntimeError as error:
                raise ConfigError(
                    f"{file} does not load ({str(error).splitlines()[0]}): build the archive again here"
                ) from None
            programs[name] = Loaded(runner)
        return programs

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
    """A library that is called with the model's inputs."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner

    def __call__(self, *tensors: torch.Tensor) -> Tensors:
        return tuple(self.runner.run(list(tensors)))


def cpu_flags() -> List[str]:
    """The instruction sets of this machine's CPU that compiled code may need, sorted."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return [platform.processor() or platform.machine()]
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    words = found.group(1).split() if found else []
    return sorted(word for word in words if VECTOR_FLAGS.fullmatch(word))


def require_compiler() -> None:
    """Raises ConfigError if Inductor finds no C++ compiler here."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:
        raise ConfigError(
            "handler.backend: inductor needs a C++ compiler to build (not to serve): install g++, or name "
            f"one in the environment as CXX ({type(error).__name__})"
        ) from None
