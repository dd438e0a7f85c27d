"""OpenVINO on the CPU: one program for all rows and sides, with one copy of the weights.

A program is OpenVINO's own form (IR): an .xml with the graph and a .bin with the weights. It is compiled
for the CPU of the worker when it is loaded, so an archive moves between machines.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

import torch

from anyshape.backends.base import Backend, Run, Tensors
from anyshape.errors import ConfigError

PRECISION = ("anyshape", "precision")  # where a program says what it computes in: f32 or bf16


class OpenVINO(Backend):
    """IR, one program for all buckets where the model allows it, else one per bucket.

    shapes: `fixed`, a call has the shape of its bucket; or `dynamic`, that of its own longest item.
    """

    name = "openvino"
    dynamic_batch = True
    dtypes = ("float32", "bfloat16", "int8")
    options = {"shapes": "fixed"}

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        if self.settings["shapes"] not in ("fixed", "dynamic"):
            raise ConfigError(
                f"handler.backend_options.shapes must be fixed or dynamic, not {self.settings['shapes']!r}"
            )
        self.dynamic_shapes = self.settings["shapes"] == "dynamic"

    def load(self, folder: Path, files: Mapping[str, str]) -> Dict[str, Run]:
        core = package().Core()
        programs = {file: Loaded(core, folder / file) for file in dict.fromkeys(files.values())}
        return {name: programs[file] for name, file in files.items()}

    def versions(self) -> Dict[str, str]:
        return {**super().versions(), "openvino": str(package().__version__).split("-")[0]}

    def check_versions(self, built: Mapping[str, str]) -> None:
        """An archive may come from another kind of machine and another torch, not from a newer OpenVINO."""
        here, there = self.versions()["openvino"], built.get("openvino", "")
        if not _numbers(there) or _numbers(there)[:2] > _numbers(here)[:2]:
            raise ConfigError(
                f"the archive was built with OpenVINO {there or 'of no known version'}, and here is {here}, "
                "which may not know all of it: install that one, or build the archive again"
            )


class Loaded:
    """A program that is called with the model's inputs. Each thread has a request with memory of its own.

    The outputs are copies: the next call of the thread writes over the request's own.
    """

    def __init__(self, core: Any, path: Path) -> None:
        model = core.read_model(str(path))
        self.compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": model.get_rt_info(list(PRECISION)).astype(str),
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
                "ENABLE_CPU_PINNING": False,  # two workers pinned alike would share one core
            },
        )
        self.outputs = range(len(self.compiled.outputs))
        self.local = threading.local()

    def __call__(self, *tensors: torch.Tensor) -> Tensors:
        request = getattr(self.local, "request", None)
        if request is None:
            request = self.local.request = self.compiled.create_infer_request()
        request.infer([tensor.numpy() for tensor in tensors], share_inputs=True)
        return tuple(torch.from_numpy(request.get_output_tensor(i).data.copy()) for i in self.outputs)


def package() -> Any:
    """The package openvino. Raises ConfigError where it is not installed."""
    try:
        import openvino
    except ImportError as error:
        raise ConfigError(
            f"handler.backend: openvino needs the package of that name ({error}): `make openvino` in a "
            'clone, pip install "anyshape[openvino]" elsewhere, where you build and where you serve'
        ) from None
    return openvino


def _numbers(version: str) -> Tuple[int, ...]:
    parts: List[str] = version.split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()
