"""AOTInductor on the CPU: compiled C++ with oneDNN's packed weights, faster than TorchScript.

A program is one shared library per bucket: fixed shape, any number of rows. It runs on CPUs like the one
it was built on, with the same torch. The first library carries the weights, packed, and the others borrow
them when they are loaded: what a program computes with is the same tensor in the same layout, so sharing
costs no time, and each further bucket costs the size of its code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping, Sequence

import torch

from anyshape.backends.base import Backend, Run, Tensors
from anyshape.backends.cpu import cpu_flags
from anyshape.errors import ConfigError

SHARED = "shared.pt"  # for each library that borrows weights: from which, and what it does not find there


class Inductor(Backend):
    """Shared libraries, one per bucket.

    shapes: `fixed`, one library per bucket; or `dynamic`, a single one for every length up to the largest
    bucket, where a call is padded to its own longest item only.
    """

    name = "inductor"
    dynamic_batch = True
    dtypes = (*Backend.dtypes, "int8")
    options = {"shapes": "fixed"}

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        if self.settings["shapes"] not in ("fixed", "dynamic"):
            raise ConfigError(
                f"handler.backend_options.shapes must be fixed or dynamic, not {self.settings['shapes']!r}"
            )
        self.dynamic_shapes = self.settings["shapes"] == "dynamic"

    def load(self, folder: Path, files: Mapping[str, str]) -> Dict[str, Run]:
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


class Loaded:
    """A library that is called with the model's inputs. keep: what must live as long as it does."""

    def __init__(self, runner: Any, keep: Any) -> None:
        self.runner = runner
        self.keep = keep

    def __call__(self, *tensors: torch.Tensor) -> Tensors:
        return tuple(self.runner.run(list(tensors)))
