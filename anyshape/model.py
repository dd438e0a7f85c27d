"""The bucketed model: compiled programs that together take any length or size.

    model = BucketedModel.load("model_store/minilm.mar")
    model("one text")                     # one answer
    model(["one", "and a longer one"])    # a list of answers

The same engine serves in TorchServe, works in a notebook, and checks itself when an archive is built.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

import torch
from msgspec import to_builtins

from anyshape import archive
from anyshape.costs import CostTable
from anyshape.errors import ConfigError, Refused
from anyshape.items import Answer, Input, Item, Output, Parts, Ran, Read
from anyshape.kept import KeptCosts, read_costs, write_costs
from anyshape.layouts import create_layout
from anyshape.machine import conditions
from anyshape.measure import Progress, measure, warm_kept
from anyshape.packed import unpack
from anyshape.packing import Call
from anyshape.process import resident_bytes
from anyshape.programs import Programs
from anyshape.running import Ended, Runner
from anyshape.settings import Settings
from anyshape.tasks import load_task
from anyshape.tasks.base import Parameters

# Told of every call that has run: what was called, with which items, what came out, how many seconds it took.
Observe = Callable[[Call, Sequence[Item], Sequence[Output], float], None]


class BucketedModel:
    """A task, the programs that its model was compiled to, and the packer between them.

    Several threads may call one model at once, once it is warm: each pads into memory of its own (as much
    as the largest call that the thread made needed, until it ends), and everything else is only read.

    Raises ConfigError if the archive's parts do not fit each other or this machine.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.settings = settings
        self.index = archive.read_index(folder)
        archive.check_files(folder, self.index)
        archive.check_settings(settings, self.index)
        self.buckets = self.index.buckets
        self.task = load_task(settings, folder)
        self.layout = create_layout(self.index.layout, self.index.segments, self.task)
        if list(self.layout.inputs(self.task.inputs)) != self.index.inputs:
            raise ConfigError("the task's inputs differ from buckets.json: build the archive again")
        self.programs = Programs(folder, self.index, self.layout)
        self.observe: Optional[Observe] = None
        self.costs = CostTable.by_volume(
            self.index.shapes, dynamic_batch=self.index.dynamic_batch, unpadded=self.index.unpadded
        )
        self.costs_from = "volumes"

    @classmethod
    def load(cls, path: Union[str, Path], warm: bool = True) -> BucketedModel:
        """Load an archive, packed (`.mar`) or unpacked, and warm it. Needs no TorchServe.

        Raises ConfigError if it is damaged or was built for something else.
        """
        path = Path(path)
        if path.is_dir():
            model = cls(path, archive.read_settings(path))
        else:
            with tempfile.TemporaryDirectory(prefix="anyshape-") as folder:
                unpack(path, Path(folder))
                model = cls(Path(folder), archive.read_settings(Path(folder)))
        if warm:
            model.warm_up()
        return model

    def warm_up(self, progress: Optional[Progress] = None, keep: Optional[Path] = None) -> None:
        """Call every shape until it is warm, and find out what the packer needs to know: measured here, or
        when the archive was built, if that was under the same conditions.

        keep: a file for what was found out, which later starts take as it is.
        """
        self.conditions = conditions(self.programs.backend.versions())
        earlier = read_costs(keep) if keep else None
        if earlier is not None and earlier.measured_on == self.conditions:
            found = warm_kept(self.programs, earlier.costs, progress, trusted=True)
            if found is not None:
                self.costs, self.costs_from = found, "an earlier start"
                return
        found, self.costs_from = None, "the build"
        if self.index.measured_on == self.conditions:
            found = warm_kept(self.programs, self.index.costs, progress)
        if found is None:
            found, self.costs_from = measure(self.programs, progress), "this start"
        self.costs = found
        if keep:
            with suppress(OSError):  # a disk that is full: the next start finds out for itself
                write_costs(keep, KeptCosts(self.conditions, self.costs.rows()))

    def __call__(self, inputs: Union[Input, List[Input]], **parameters: Any) -> Any:
        """Answer one input, or a list of inputs with a list. Raises the Refused of the first bad one."""
        asked: List[Input] = inputs if isinstance(inputs, list) else [inputs]
        checked = self.task.check_parameters(parameters)
        read = self.task.read(asked, [checked] * len(asked))
        answers = [self.answer(one, result, checked) for one, result in zip(read, self.run(read))]
        return answers if isinstance(inputs, list) else answers[0]

    def answer(self, read: Read, ran: Ran, parameters: Parameters) -> Answer:
        """The task's answer to one input. Raises the Refused that it deserves."""
        if isinstance(ran, Refused):
            raise ran
        if isinstance(read, Parts):
            assert isinstance(ran, list)
            return self.task.merge([output.row for output in ran], read, parameters)
        assert isinstance(read, Item)
        assert isinstance(ran, Output)
        return self.task.answer(ran.row, read, parameters)

    def run(self, read: Sequence[Read], ended: Optional[Ended] = None) -> List[Ran]:
        """Run all items of a batch in as few and as cheap calls as the packer finds, in the inputs' order.

        What already is refused stays so. What fails, or fits no bucket, becomes an error in its own place.
        ended: who is told as each call ends.
        """
        return self.runner().run(read, ended)

    def runner(self) -> Runner:
        """What splits a batch into calls and runs them, for a server that takes them one by one."""
        policy = self.layout.policy(self.settings.packing)
        return Runner(policy, self.costs, self.run_call, self.layout.touched)

    def run_call(self, call: Call, items: Sequence[Item]) -> List[Output]:
        """Run one call and cut the padding off. Raises ConfigError for a shape that was not compiled."""
        started = time.perf_counter()
        rows = self.programs.run(call, items)
        outputs = [
            Output(self.task.unpad(row, item), call.bucket, call.batch_size, executed)
            for row, item, executed in zip(rows, items, self.layout.executed(call, items))
        ]
        if self.observe is not None:
            self.observe(call, items, outputs, time.perf_counter() - started)
        return outputs

    def describe(self) -> Dict[str, Any]:
        """What is served, for people and for the planner: buckets, costs, limits, versions."""
        return {
            "task": self.index.task,
            "backend": self.index.backend,
            "dtype": self.index.dtype,
            "quality": self.index.quality,
            "versions": self.index.versions,
            "buckets": [list(bucket) for bucket in self.buckets],
            "layout": self.layout.name,
            "segments": self.layout.segments,
            "batch_sizes": self.index.batch_sizes,
            "dynamic_batch": self.index.dynamic_batch,
            "over_max": self.settings.over_max,
            "packing": self.settings.packing,
            "tolerance": self.index.tolerance,
            "deviations": {program.name: program.deviation for program in self.index.programs},
            "threads": torch.get_num_threads(),
            "load_seconds": round(self.programs.load_seconds, 3),
            "resident_bytes": resident_bytes(),
            "costs_from": self.costs_from,
            "costs": to_builtins(self.costs.rows()),
        }
