"""AWS Inferentia 1: torch_neuron.trace. And what both generations share: checks, the cache, processes,
files."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any, ClassVar, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

import torch

from anyshape.backends.base import Backend, Tensors, as_tuple, quiet
from anyshape.backends.neuron import NeuronBackend, words
from anyshape.backends.neuron_cores import rows_per_core
from anyshape.buckets import Bucket
from anyshape.building.backends.base import Compiled, Compiler, Job, JobFailed
from anyshape.building.backends.neuron_operators import Operators, analyze_neuron, device_parts
from anyshape.building.backends.neuron_processes import compile_in_processes, most_processes
from anyshape.building.cache import Cache, Kept, graph_digest, key_of, weights_digest
from anyshape.building.errors import BuildError
from anyshape.errors import ConfigError

# Of the environment, what decides how a program comes out.
READ_BY_COMPILERS = ("NEURON_CC_FLAGS", "NEURON_LOGICAL_NC_CONFIG", "XLA_USE_BF16", "XLA_DOWNCAST_BF16")


class NeuronFiles(Compiler):
    """One program per bucket and batch size, each compiled in a process of its own and kept in the cache.

    limit: bytes of weights that a program can hold.
    """

    in_place = False
    limit = 0
    instead: ClassVar[str] = ""  # what to set in the recipe for more than that
    backend: NeuronBackend

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.runs_here = not self.settings["off_device"]
        self.cache = Cache(backend.name)
        self.operators: Optional[Operators] = None
        self.found = 0  # programs that the cache had
        self.on_device: Dict[str, int] = {}  # by program, how many parts of it run on the device
        self.weight_bytes = 0

    # What a generation does in its own way

    def trace(self, model: torch.nn.Module, example: Tensors, workdir: Optional[str]) -> Any:
        """The SDK's program for exactly these inputs."""
        raise NotImplementedError

    def trace_options(self) -> Dict[str, Any]:
        """What decides how a program comes out, apart from the model and its inputs: part of its key."""
        raise NotImplementedError

    def analyze(self, model: torch.nn.Module, example: Tensors) -> Operators:
        """Which operators the SDK knows."""
        raise NotImplementedError

    def weights_inside(self) -> bool:
        """Whether a program holds the weights, so that other weights make another program."""
        return True

    def needs_core(self) -> bool:
        """Whether the SDK takes a core to compile."""
        return False

    # What both share

    def compile_all(self, model: torch.nn.Module, jobs: Iterable[Job]) -> Iterator[Compiled]:
        self.check_weights(model)
        weights = weights_digest(model, self.weights_inside())
        waiting: List[Tuple[Job, str]] = []
        for job, graph in self.prepared(model, jobs):
            started = time.perf_counter()
            key = key_of({**self.facts(job), "graph": graph, "weights": weights})
            kept = self.cache.find(key)
            if kept is None:
                waiting.append((job, key))
                continue
            self.found += 1
            yield self._done(job, kept, time.perf_counter() - started)
        at_once = min(most_processes(self.processes, self.needs_core()), len(waiting))
        for job, kept, seconds in compile_in_processes(self, model, waiting, at_once):
            yield self._done(job, kept, seconds)

    def prepared(self, model: torch.nn.Module, jobs: Iterable[Job]) -> List[Tuple[Job, str]]:
        """Every job, checked, with its graph's digest. Raises JobFailed for one that cannot be compiled.

        The SDK is asked of the operators when all are there, and compiles afterwards: it may leave the model
        on a device of its own, where nothing else can run it.
        """
        found: List[Tuple[Job, str]] = []
        for job in jobs:
            try:
                job = self.checked(model, job)
                found.append((job, graph_digest(model, job.example)))
            except Exception as error:
                raise JobFailed(job.name) from error
        first, graph = found[0]
        try:
            self.operators = self.examined(model, first, graph)
        except Exception as error:
            raise JobFailed(first.name) from error
        return found

    def _done(self, job: Job, kept: Kept, seconds: float) -> Compiled:
        self.on_device[job.name] = int(kept.facts["device_parts"])
        if not self.on_device[job.name]:
            raise BuildError(
                f"bucket {job.name}: the compiler placed nothing of it on the device, and all would run on "
                "the CPU: "
                "handler.backend: torchscript or inductor does that better"
            )
        return Compiled(job.name, kept, seconds)

    def compile(self, model: torch.nn.Module, example: Tensors, bucket: Bucket) -> Any:
        return self.program(model, example, "")

    def program(self, model: torch.nn.Module, example: Tensors, name: str) -> Any:
        """Compile one program, here and now. name: of the folder below `compiler_workdir`, if the recipe has
        one."""
        workdir = self.settings["compiler_workdir"]
        if workdir is not None:
            workdir = os.path.join(workdir, name)
            os.makedirs(workdir, exist_ok=True)
        with torch.no_grad(), quiet():
            return self.trace(model, example, workdir)

    def checked(self, model: torch.nn.Module, job: Job) -> Job:
        """The job for the rows of one core. Raises BuildError where the SDK cannot leave the batch open."""
        if self.backend.dynamic_batch:
            check_rows(model, job.example)
        rows = len(job.example[0])
        each = rows_per_core(rows, self.backend.cores)
        if each == rows:
            return job
        return Job(job.name, tuple(tensor[:each].clone() for tensor in job.example), job.bucket)

    def check_weights(self, model: torch.nn.Module) -> None:
        """Raise ConfigError if one program cannot hold the weights."""
        self.weight_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        if self.limit and self.weight_bytes > self.limit:
            raise ConfigError(
                f"handler.model has {self.weight_bytes / 1e9:.2f} GB of weights, and a program of "
                f"{self.backend.name} "
                f"holds {self.limit / 1e9:.2f} GB: set handler.backend_options.{self.instead}"
            )

    def examined(self, model: torch.nn.Module, job: Job, graph: str) -> Operators:
        """What the SDK says of the model's operators, asked once. Raises BuildError if it cannot be
        compiled."""
        if not self.settings["analyze"]:
            return Operators(asked=False)
        key = key_of({"analyze": graph, "versions": self.sdk_versions()})
        path = self.cache.folder / f"{key}.operators.json"
        operators = Operators.read(path)
        if operators is None:
            operators = self.analyze(model, job.example)
            model.to("cpu")  # whatever the SDK did with it
            operators.write(path)
        operators.check(self.backend.name, fallback=self.settings["fallback"])
        return operators

    def facts(self, job: Job) -> Dict[str, Any]:
        shapes = [[list(tensor.shape), str(tensor.dtype)] for tensor in job.example]
        return {
            "backend": self.backend.name,
            "shapes": shapes,
            "versions": self.sdk_versions(),
            "environment": {key: os.environ[key] for key in READ_BY_COMPILERS if key in os.environ},
            **self.trace_options(),
        }

    def sdk_versions(self) -> Dict[str, str]:
        return self.backend.versions()

    def made(self, program: Any) -> Dict[str, Any]:
        """What is kept of a program beside it."""
        return {"device_parts": device_parts(program)}

    def report(self) -> Dict[str, Any]:
        return {
            "operators": self.operators.to_json() if self.operators else None,
            "device_parts": self.on_device,
            "from_cache": self.found,
            "weight_bytes": self.weight_bytes,
        }

    def save(self, compiled: Mapping[str, Kept], folder: Path) -> Dict[str, str]:
        for name, kept in compiled.items():
            shutil.copyfile(kept.path, folder / f"{name}.pt")
        return {name: f"{name}.pt" for name in compiled}


class NeuronCompiler(NeuronFiles):
    """torch_neuron.trace, for Inf1."""

    limit = 1_900_000_000
    instead = "separate_weights: true"

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        if self.settings["separate_weights"]:
            self.limit = 0

    def trace(self, model: torch.nn.Module, example: Tensors, workdir: Optional[str]) -> Any:
        options = {**self.trace_options(), "compiler_workdir": workdir}
        given = {
            key: value for key, value in options.items() if value not in (None, False) or key == "fallback"
        }
        return self.backend.sdk().trace(model, example_inputs=example, **given)

    def trace_options(self) -> Dict[str, Any]:
        return {
            "compiler_args": list(words(self.settings["compiler_args"])) or None,
            "fallback": self.settings["fallback"],
            "separate_weights": self.settings["separate_weights"],
            "dynamic_batch_size": self.backend.dynamic_batch,
        }

    def analyze(self, model: torch.nn.Module, example: Tensors) -> Operators:
        return analyze_neuron(self.backend.namespace(), model, example)

    def needs_core(self) -> bool:
        return self.runs_here


def check_rows(model: torch.nn.Module, example: Tensors) -> None:
    """Dynamic batching cuts every input and output along its first dimension. Raises BuildError for a model
    that has one without a row per item."""
    for rows in sorted({1, len(example[0])}):
        inputs = tuple(tensor[:rows].clone() for tensor in example)
        with torch.no_grad():
            outputs = as_tuple(model(*inputs))
        for kind, tensors in (("input", inputs), ("output", outputs)):
            for number, tensor in enumerate(tensors):
                if tensor.dim() == 0 or len(tensor) != rows:
                    raise BuildError(
                        f"handler.backend_options.dynamic_batch: {kind} {number} is of shape "
                        f"{list(tensor.shape)} for "
                        f"{rows} rows, and the SDK cuts all of them along the first dimension: list "
                        "batch_sizes "
                        "instead, without dynamic_batch"
                    )
