"""The bucketed model: a dictionary of compiled programs that together take any length or size.

    model = BucketedModel.load("model_store/minilm.mar")
    model("one text")                     # one answer
    model(["one", "and a longer one"])    # a list of answers

The same engine serves in TorchServe, works in a notebook, and checks itself when an archive is built.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

import torch

from anyshape import archive
from anyshape.archive import ASSETS, Index, program_name
from anyshape.backends import create_backend
from anyshape.backends.base import Program, as_tuple
from anyshape.buckets import Bucket, Shape, bucket_name, contains, volume
from anyshape.settings import HandlerConfig
from anyshape.costs import CostTable
from anyshape.errors import ConfigError, InputTooLarge, ModelFailed, RequestError
from anyshape.failures import log_failure
from anyshape.packing import POLICIES, Call, one_by_one
from anyshape.padding import Item, PaddingBuffers
from anyshape.process import resident_bytes
from anyshape.tasks import load_task
from anyshape.tasks.base import Row

WARM_CALLS = 2  # in the first round, not measured: a TorchScript program's first calls are much slower
MEASURED_ROUNDS = 3
QUICK_SECONDS = 0.02  # a call quicker than this is repeated in each round, and the least time counts


@dataclass
class Output:
    """What the model gave for one item, un-padded, and how it was run."""

    row: Row
    bucket: Bucket
    batch_size: int


class BucketedModel:
    """Bucketed programs, the task around them, and the measured table that calls are packed by.

    Several threads may call one model at once, once it is warm: each pads into memory of its own (as much
    as the largest call that the thread made needed, until it ends), and everything else is only read.

    Raises ConfigError if the archive's parts do not fit each other or this machine.
    """

    def __init__(self, folder: Path, config: HandlerConfig) -> None:
        self.config = config
        self.index: Index = archive.read_index(folder)
        archive.check_files(folder, self.index)
        self._check_recipe()
        if config.packing not in POLICIES:
            raise ConfigError(f"handler.packing must be one of {', '.join(POLICIES)}, not {config.packing!r}")
        self.buckets = self.index.buckets
        self.task = load_task(config, folder / ASSETS)
        self.task.buckets = self.buckets
        if list(self.task.inputs) != self.index.inputs:
            raise ConfigError("the task's inputs differ from buckets.json: build the archive again")
        self.backend = create_backend(self.index.backend, self.index.backend_options)
        self.backend.check_versions(self.index.versions)
        files = {program.name: program.file for program in self.index.programs}
        started = time.perf_counter()
        try:
            self.programs: Dict[str, Program] = self.backend.load(folder, files)
        except Exception as error:
            raise ConfigError(
                f"the backend {self.index.backend} cannot load the programs ({error}): build it again"
            ) from error
        self.load_seconds = time.perf_counter() - started
        self.buffers = PaddingBuffers(self.index.inputs)
        self.costs = CostTable.by_volume(self.index.shapes, dynamic_batch=self.index.dynamic_batch)

    @classmethod
    def load(cls, path: Union[str, Path], warm: bool = True) -> BucketedModel:
        """Load an archive, packed (`.mar`) or unpacked, and warm it. Needs no TorchServe.

        Raises ConfigError if it is damaged or was built for something else.
        """
        path = Path(path)
        if path.is_dir():
            model = cls(path, archive.read_config(path))
        else:
            with tempfile.TemporaryDirectory(prefix="bucketed-") as folder:
                archive.unpack(path, Path(folder))
                model = cls(Path(folder), archive.read_config(Path(folder)))
        if warm:
            model.warm_up()
        return model

    def __call__(self, inputs: Any, **parameters: Any) -> Any:
        """Answer one input, or a list of inputs with a list. Raises the RequestError of the first bad one."""
        many = isinstance(inputs, list)
        asked = inputs if many else [inputs]
        checked = self.task.check_parameters(parameters)
        answers = []
        items = self.task.read(asked, [checked] * len(asked))
        for item, output in zip(items, self.run(items)):
            if isinstance(output, RequestError):
                raise output
            assert isinstance(item, Item)
            answers.append(self.task.answer(output.row, item, checked))
        return answers if many else answers[0]

    def run(self, items: Sequence[Union[Item, RequestError]]) -> List[Union[Output, RequestError]]:
        """Run a batch of items in as few and as cheap calls as the packer finds.

        An item that already is an error stays that error. The items of a call that fails are run again,
        each alone: those that fail then become a ModelFailed. The results are in the order of the items.
        """
        results: List[Union[Output, RequestError, None]] = [
            self._too_large(item) if isinstance(item, Item) else item for item in items
        ]
        waiting = [i for i, result in enumerate(results) if result is None]
        sizes = [items[i].size for i in waiting]  # type: ignore[union-attr]
        for call in POLICIES[self.config.packing](sizes, self.costs):
            places = [waiting[i] for i in call.items]
            members: List[Item] = [items[i] for i in places]  # type: ignore[misc]
            for place, output in zip(places, self._run_or_fail(call, members)):
                results[place] = output
        return results  # type: ignore[return-value]

    def _run_or_fail(self, call: Call, items: Sequence[Item]) -> Sequence[Union[Output, RequestError]]:
        """The outputs of one call. If it fails, those of each item alone, a ModelFailed for a bad one."""
        try:
            return self.run_call(call, items)
        except Exception as error:
            name = bucket_name(call.bucket)
            log_failure(
                f"a call of bucket {name} with {call.batch_size} rows failed ({_shown(error)})", error
            )
            if len(items) == 1:
                return [ModelFailed(f"the model failed in bucket {name}; the server's log says why")]
        outputs: List[Union[Output, RequestError]] = []
        for item in items:
            (alone,) = one_by_one([item.size], self.costs)
            outputs.extend(self._run_or_fail(alone, [item]))
        return outputs

    def run_call(self, call: Call, items: Sequence[Item]) -> List[Output]:
        """Run one call: pad, check shapes and dtypes, run the compiled program, un-pad.

        Raises ConfigError for a shape that was not compiled: a CPU trace would silently accept it.
        """
        program = self._program(call.bucket, call.batch_size)
        tensors = self.buffers.fill(call.bucket, call.batch_size, items)
        for spec, tensor in zip(self.index.inputs, tensors):
            shape = spec.shape(call.bucket, call.batch_size)
            if tuple(tensor.shape) != shape or tensor.dtype is not getattr(torch, spec.dtype):
                raise ConfigError(
                    f"{spec.name} is {tuple(tensor.shape)} {tensor.dtype}, compiled for {shape} {spec.dtype}"
                )
        with torch.inference_mode():
            outputs = as_tuple(program(*tensors))
        # An output may be a view of an input buffer, which the next call writes over.
        arrays = [(o.clone() if _overlaps(o, tensors) else o).numpy() for o in outputs]
        return [
            Output(
                self.task.unpad(tuple(array[row] for array in arrays), item),
                call.bucket,
                call.batch_size,
            )
            for row, item in enumerate(items)
        ]

    def _check_recipe(self) -> None:
        """The recipe in the archive may be edited, but not what was compiled."""
        config, index = self.config, self.index
        asked = {
            **{key: getattr(config, key) for key in ("task", "backend", "dtype", "buckets", "largest_call")},
            "batch_sizes": config.measured_batch_sizes(),
        }
        for key, value in asked.items():
            built = getattr(index, key)
            if value != built:
                raise ConfigError(f"handler.{key} is {value}, but the archive was built for {built}")

    def _too_large(self, item: Item) -> Optional[RequestError]:
        if any(contains(bucket, item.size) for bucket in self.buckets):
            return None
        return InputTooLarge(
            f"an input of size {bucket_name(item.size)} fits none of the buckets "
            f"{', '.join(map(bucket_name, self.buckets))}"
        )

    def _program(self, bucket: Bucket, batch_size: int) -> Program:
        if self.backend.dynamic_shapes and contains(self.buckets[-1], bucket):
            bucket = self.buckets[-1]
        for name in (program_name(bucket, None), program_name(bucket, batch_size)):
            if name in self.programs and self._runs(batch_size):
                return self.programs[name]
        raise ConfigError(f"no program was compiled for bucket {bucket_name(bucket)} with {batch_size} rows")

    def _runs(self, batch_size: int) -> bool:
        if self.index.dynamic_batch:
            return 1 <= batch_size <= self.index.batch_sizes[-1]
        return batch_size in self.index.batch_sizes

    def warm_up(self, progress: Optional[Callable[[Bucket, int, float], None]] = None) -> None:
        """Call every bucket at each of its batch sizes at least four times and measure it, largest first.

        Measured in rounds over all shapes, so that what disturbs the machine for a moment falls on one round
        and not on one shape; the median over the rounds goes into the table that the packer uses. `progress`
        is told the bucket, the batch size and the seconds.
        """
        shapes = self.index.shapes[::-1]
        rounds: Dict[Shape, List[float]] = {shape: [] for shape in shapes}
        for number in range(1 + MEASURED_ROUNDS):
            items: List[Item] = []  # of one bucket at a time: its largest call comes first
            for bucket, batch_size in shapes:
                if not items or items[0].size != bucket:
                    items = [self.task.sample(bucket, seed) for seed in range(batch_size)]
                call = Call(bucket, batch_size, tuple(range(batch_size)))
                times = rounds[bucket, batch_size]
                times.append(min(self._seconds(call, items[:batch_size]) for _ in range(_calls(times))))
                if progress is not None and number == MEASURED_ROUNDS:
                    progress(bucket, batch_size, statistics.median(times[1:]))
        seconds = {shape: statistics.median(times[1:]) for shape, times in rounds.items()}
        self.costs = CostTable(seconds, self.index.dynamic_batch, self.backend.dynamic_shapes)

    def _seconds(self, call: Call, items: Sequence[Item]) -> float:
        started = time.perf_counter()
        self.run_call(call, items)
        return time.perf_counter() - started

    def padding_ratio(self, items: Sequence[Item], outputs: Sequence[Output]) -> float:
        """Positions executed for these items ÷ positions that they have; 1.0 is no padding at all."""
        real = sum(volume(item.size) for item in items)
        return sum(volume(output.bucket) for output in outputs) / real if real else 1.0

    def describe(self) -> Dict[str, Any]:
        """What is served, for people and for the planner: buckets, costs, limits, versions."""
        return {
            "task": self.index.task,
            "backend": self.index.backend,
            "dtype": self.index.dtype,
            "versions": self.index.versions,
            "buckets": [list(bucket) for bucket in self.buckets],
            "batch_sizes": self.index.batch_sizes,
            "dynamic_batch": self.index.dynamic_batch,
            "over_max": self.config.over_max,
            "packing": self.config.packing,
            "tolerance": self.index.tolerance,
            "deviations": {program.name: program.deviation for program in self.index.programs},
            "threads": torch.get_num_threads(),
            "load_seconds": round(self.load_seconds, 3),
            "resident_bytes": resident_bytes(),
            "costs": self.costs.to_json(),
        }


def _shown(error: Exception) -> str:
    """What a failed call said, in a line. A call has numbers alone, so this holds no client's words."""
    return " ".join(str(error).split())[-300:]


def _overlaps(output: torch.Tensor, tensors: Sequence[torch.Tensor]) -> bool:
    """Whether an output lies in the memory of one of the inputs."""
    start = output.data_ptr()
    return any(t.data_ptr() <= start < t.data_ptr() + t.numel() * t.element_size() for t in tensors)


def _calls(times: Sequence[float]) -> int:
    """How often a shape is called in this round, given the seconds of the rounds before."""
    if not times:
        return WARM_CALLS
    return 3 if times[-1] < QUICK_SECONDS else 1
