"""OpenVINO: torch.export, then IR; one program for all buckets where the model can be exported so."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence

import torch

from anyshape.backends.base import Backend, Tensors
from anyshape.backends.openvino import PRECISION, package
from anyshape.buckets import Bucket, largest_sides
from anyshape.building.backends.base import Compiler
from anyshape.building.backends.exported import Positional, open_dimensions
from anyshape.errors import ConfigError

# Between int8's products float32 is no slower than bfloat16, and right: with bfloat16 OpenVINO 2026.4's
# products of AMX go wrong where a text of 32 tokens meets heads of 32.
PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


class OpenVINOCompiler(Compiler):
    """torch.export with open rows and, where that succeeds, open sides; then IR.

    Weights stay float32 in the file; beside them is what to compute in, and OpenVINO casts when it loads.
    """

    freezes_values = False
    casts = False

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        package()
        self._open: Optional[Any] = None  # the program of all buckets, once there is one
        self._tried = False

    def compile(self, model: torch.nn.Module, example: Tensors, bucket: Bucket) -> Any:
        """An openvino.Model. An example of one row makes a program for exactly one row."""
        assert self.serving is not None
        if self.backend.dynamic_shapes and len(bucket) > 1:
            raise ConfigError("handler.backend_options.shapes: dynamic is for buckets of one side")
        if not self._tried and (self.backend.dynamic_shapes or len(self.serving.buckets) > 1):
            self._tried = True
            try:
                self._open = self._convert(model, example, bucket, largest_sides(self.serving.buckets))
            except Exception:  # exporters refuse in many ways, and then there is a program per bucket
                if self.backend.dynamic_shapes:
                    raise
        if self._open is None and self.serving.dtype == "int8":
            raise ConfigError(
                "handler.dtype: int8 needs a model that torch.export takes with open sides, and this one is "
                "compiled bucket by bucket: choose bfloat16"
            )
        return self._open or self._convert(model, example, bucket)

    def _convert(
        self, model: torch.nn.Module, example: Tensors, bucket: Bucket, largest: Sequence[int] = ()
    ) -> Any:
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

        # openvino.convert_model does the same, and reports to its makers that it was called.
        with torch.no_grad(), warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            dimensions = open_dimensions(example, bucket, largest)
            exported = torch.export.export(Positional(model), example, dynamic_shapes=(dimensions,))
            decoder = TorchFXPythonDecoder.from_exported_program(exported)
        frontend = FrontEndManager().load_by_framework("pytorch")
        converted = frontend.convert(frontend.load(decoder))
        assert self.serving is not None
        if self.serving.dtype == "int8" and largest:
            from anyshape.building.backends.openvino_int8 import quantize

            converted = quantize(converted, self.inputs, self.calibration)
        converted.set_rt_info(PRECISIONS[self.serving.dtype], list(PRECISION))
        return converted

    def save(self, compiled: Mapping[str, Any], folder: Path) -> Dict[str, str]:
        files: Dict[str, str] = {}
        written: Dict[int, str] = {}
        for name, model in compiled.items():
            file = written.get(id(model))
            if file is None:
                file = written[id(model)] = f"{name if self._open is None else 'model'}.xml"
                package().save_model(model, str(folder / file), compress_to_fp16=False)
            files[name] = file
        return files

    def sizes(self, folder: Path, files: Mapping[str, str]) -> Dict[str, int]:
        """The graph, in equal parts where it serves several buckets; shared weights count for none."""
        served = list(files.values())
        sizes = {file: (folder / file).stat().st_size for file in served}
        if len(sizes) > 1:
            weights = {file: (folder / file).with_suffix(".bin").stat().st_size for file in sizes}
            sizes = {file: size + weights[file] for file, size in sizes.items()}
        return {name: sizes[file] // served.count(file) for name, file in files.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """The decoder logs at the root, with tracebacks, which operations of other torches it misses, and so
    gives the root logger a handler."""
    root, handler, before = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(handler)
