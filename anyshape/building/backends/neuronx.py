"""AWS Inferentia 2 and Trainium: torch_neuronx.trace, and the SDK's two kinds of one program for several
shapes."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional

import torch

from anyshape.backends.base import Backend, Tensors
from anyshape.backends.neuron import words
from anyshape.backends.neuron_cores import instance_family
from anyshape.backends.neuronx import BUCKET_MODEL, INLINE, LOADING, MODEL_BUILDER, SEPARATE, WEIGHTS, NeuronX
from anyshape.building.backends.base import Compiled, Job, JobFailed
from anyshape.building.backends.neuron import NeuronFiles
from anyshape.building.backends.neuron_buckets import bucket_model, model_builder
from anyshape.building.backends.neuron_operators import Operators, analyze_neuronx, refuse_known
from anyshape.building.cache import Kept, key_of, weights_digest
from anyshape.building.errors import BuildError
from anyshape.building.parts import write_parts
from anyshape.errors import ConfigError

ONE = "buckets.pt"  # the one program of all shapes


class NeuronXCompiler(NeuronFiles):
    """torch_neuronx.trace, for Inf2 and Trn1.

    Where the target is known it traces on the CPU, so that no core is taken and several processes compile at
    once; `--target` and `cpu_backend` go together, and a recipe without a target on an unknown machine has
    neither.
    """

    instead = "weights: separate"
    backend: NeuronX

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.weights = self.backend.weights
        if self.weights == INLINE:
            self.limit = 2**31  # of protobuf, in which the graph and its constants go to the compiler
        self.target = self.backend.target or instance_family()
        self.on_cpu = self.target is not None and not self.settings["fallback"] and not self.together
        self.state: Dict[str, torch.Tensor] = {}

    @property
    def together(self) -> bool:
        """Whether all shapes become one program."""
        return self.weights in (BUCKET_MODEL, MODEL_BUILDER)

    def trace(self, model: torch.nn.Module, example: Tensors, workdir: Optional[str]) -> Any:
        sdk = self.backend.sdk()
        options: Dict[str, Any] = {"compiler_args": self.arguments() or None, "compiler_workdir": workdir}
        if self.settings["fallback"]:
            options = {"partitioner_config": sdk.PartitionerConfig(trace_kwargs=_without_none(options))}
        if self.weights == SEPARATE:
            options["inline_weights_to_neff"] = False
        if self.on_cpu:
            options["cpu_backend"] = True
        program = sdk.trace(model, example, **_without_none(options))
        for name in self._loading():  # at once after trace, as the SDK asks
            getattr(sdk, name)(program)
        if self.backend.dynamic_batch:
            # Documented as working in place; a returned module is taken where there is one.
            program = sdk.dynamic_batch(program) or program
        return program

    def arguments(self) -> List[str]:
        """The compiler's arguments, with the target if it traces on the CPU, and without it if not."""
        given = list(words(self.settings["compiler_args"]))
        args = [
            w
            for i, w in enumerate(given)
            if not w.startswith("--target") and given[i - 1 : i] != ["--target"]
        ]
        return [*args, "--target", str(self.target)] if self.on_cpu else args

    def _loading(self) -> List[str]:
        over_cores = self.backend.cores > 1 and self.backend.loading == "now"
        return list(LOADING["lazy" if over_cores else self.backend.loading])  # DataParallel loads by itself

    def trace_options(self) -> Dict[str, Any]:
        return {
            "arguments": self.arguments(),
            "on_cpu": self.on_cpu,
            "fallback": self.settings["fallback"],
            "weights": self.weights,
            "loading": self._loading(),
            "dynamic_batch": self.backend.dynamic_batch,
        }

    def examined(self, model: torch.nn.Module, job: Job, graph: str) -> Operators:
        if self.settings["analyze"]:
            refuse_known(model)
        return super().examined(model, job, graph)

    def analyze(self, model: torch.nn.Module, example: Tensors) -> Operators:
        return analyze_neuronx(self.backend.sdk(), model, example)

    def weights_inside(self) -> bool:
        return self.weights in (INLINE, BUCKET_MODEL)

    def needs_core(self) -> bool:
        return not self.on_cpu

    def versions(self) -> Dict[str, str]:
        versions = self.backend.versions()
        target = self.target or instance_family()
        return versions if target is None else {**versions, "target": target}

    def check_weights(self, model: torch.nn.Module) -> None:
        super().check_weights(model)
        if (
            self.backend.target
            and self.together
            and self.backend.target != (instance_family() or self.backend.target)
        ):
            raise ConfigError(
                f"handler.backend_options.target is {self.backend.target}, and weights: {self.weights} "
                "compiles for the "
                f"machine it runs on, an {instance_family()}: leave the target out, or build there"
            )
        if not self.weights_inside():
            self.state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def compile_all(self, model: torch.nn.Module, jobs: Iterable[Job]) -> Iterator[Compiled]:
        if not self.together:
            yield from super().compile_all(model, jobs)
            return
        self.check_weights(model)
        started = time.perf_counter()
        weights = weights_digest(model, self.weights_inside())
        prepared = self.prepared(model, jobs)
        wanted = [job for job, _ in prepared]
        programs = [{**self.facts(job), "graph": graph} for job, graph in prepared]
        key = key_of({"programs": programs, "weights": weights})
        kept = self.cache.find(key)
        if kept is None:
            kept = self._compile_together(model, wanted, key)
        else:
            self.found = len(wanted)
        each = (time.perf_counter() - started) / len(wanted)
        for job in wanted:
            yield Compiled(job.name, kept, each)

    def _compile_together(self, model: torch.nn.Module, jobs: List[Job], key: str) -> Kept:
        examples = {job.name: job.example for job in jobs}
        args, workdir = self.arguments(), self.settings["compiler_workdir"]
        try:
            with self.cache.keep(key, {"device_parts": len(jobs)}) as path:
                if self.weights == BUCKET_MODEL:
                    program = bucket_model(self.backend.sdk(), model, list(examples.values()), args, workdir)
                    torch.jit.save(program, str(path))
                else:
                    model_builder(model, examples, args, workdir, self.processes, path)
        except Exception as error:
            raise JobFailed(jobs[0].name) from error
        kept = self.cache.find(key)
        if kept is None:
            raise BuildError(
                f"the cache in {self.cache.folder} does not keep what is written: is the disk full?"
            )
        return kept

    def save(self, compiled: Mapping[str, Kept], folder: Path) -> Dict[str, str]:
        if self.weights == INLINE:
            return super().save(compiled, folder)
        if self.together:
            one = next(iter(compiled.values()))
            super().save({ONE[: -len(".pt")]: one}, folder)
            if self.weights == MODEL_BUILDER:
                # Under the names that the wrapper with named inputs gave them.
                torch.save({f"model.{name}": tensor for name, tensor in self.state.items()}, folder / WEIGHTS)
            return dict.fromkeys(compiled, ONE)
        with tempfile.TemporaryDirectory(prefix="anyshape-weights-") as temporary:
            weights = Path(temporary) / WEIGHTS
            torch.save(self.state, weights)
            files = {f"{name}.pt": kept.path for name, kept in compiled.items()}
            write_parts({WEIGHTS: weights, **files}, folder)
        return {name: f"{name}.pt" for name in compiled}

    def sizes(self, folder: Path, files: Mapping[str, str]) -> Dict[str, int]:
        """Bytes on disk; a file that serves several programs counts in equal parts."""
        served = list(files.values())
        return {name: (folder / file).stat().st_size // served.count(file) for name, file in files.items()}


def _without_none(options: Mapping[str, Any]) -> Dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}
