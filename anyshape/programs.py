"""The compiled programs of an archive, run one call at a time. Only shapes that were compiled ever run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Dict, List, Sequence

import torch

from anyshape.archive import Index, program_name
from anyshape.backends import create_backend
from anyshape.backends.base import Run, as_tuple
from anyshape.buckets import Bucket, bucket_name, contains
from anyshape.errors import ConfigError
from anyshape.items import Item, Row
from anyshape.layouts import Items
from anyshape.packing import Call
from anyshape.padding import PaddingBuffers


class Programs:
    """Loaded programs, by bucket and batch size, and the buffers that their inputs are padded into.

    Raises ConfigError if they cannot be loaded here.
    """

    def __init__(self, folder: Path, index: Index, layout: Items) -> None:
        self.index = index
        self.layout = layout
        self.backend = create_backend(index.backend, index.backend_options, folder)
        self.backend.check_versions(index.versions)
        files = {program.name: program.file for program in index.programs}
        started = time.perf_counter()
        try:
            self.loaded: Dict[str, Run] = self.backend.load(folder, files)
        except Exception as error:
            said = " ".join(str(error).split())[-300:]  # OpenVINO's errors have many lines
            raise ConfigError(
                f"the backend {index.backend} cannot load the programs ({said}): build it again"
            ) from error
        self.load_seconds = time.perf_counter() - started
        self.buffers = PaddingBuffers(index.inputs)

    def run(self, call: Call, items: Sequence[Item]) -> List[Row]:
        """One call: pad, check shapes and dtypes, run. Each item's part of every output, still padded.

        Raises ConfigError for a shape that was not compiled: a CPU trace would silently accept it.
        """
        program = self._program(call.bucket, call.batch_size)
        tensors = self.buffers.fill(call.bucket, call.batch_size, items, call.held)
        for spec, tensor in zip(self.index.inputs, tensors):
            shape = spec.shape(call.bucket, call.batch_size)
            if tuple(tensor.shape) != shape or tensor.dtype is not getattr(torch, spec.dtype):
                raise ConfigError(
                    f"{spec.name} is {tuple(tensor.shape)} {tensor.dtype}, compiled for {shape} {spec.dtype}"
                )
        with torch.inference_mode():
            outputs = as_tuple(self.backend.run(program, tensors))
        # An output may be a view of an input buffer, which the next call writes over.
        arrays = [(o.clone() if _overlaps(o, tensors) else o).numpy() for o in outputs]
        return self.layout.take(arrays, call, items)

    def _program(self, bucket: Bucket, batch_size: int) -> Run:
        return self.loaded[self.name_of(bucket, batch_size)]

    def name_of(self, bucket: Bucket, batch_size: int) -> str:
        """The program that runs a call of that shape. Raises ConfigError if none was compiled for it."""
        if self.backend.dynamic_shapes and contains(self.index.buckets[-1], bucket):
            bucket = self.index.buckets[-1]
        for name in (program_name(bucket, None), program_name(bucket, batch_size)):
            if name in self.loaded and self._takes(batch_size):
                return name
        raise ConfigError(f"no program was compiled for bucket {bucket_name(bucket)} with {batch_size} rows")

    def _takes(self, batch_size: int) -> bool:
        if self.index.dynamic_batch:
            return 1 <= batch_size <= self.index.batch_sizes[-1]
        return batch_size in self.index.batch_sizes


def _overlaps(output: torch.Tensor, tensors: Sequence[torch.Tensor]) -> bool:
    """Whether an output lies in the memory of one of the inputs."""
    start = output.data_ptr()
    return any(t.data_ptr() <= start < t.data_ptr() + t.numel() * t.element_size() for t in tensors)
