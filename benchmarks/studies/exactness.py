"""What exact padding is worth and what it costs: `python -m benchmarks exactness [--json]`.

For each model, over random valid sizes in one bucket: the largest deviation from the image alone, relative
to the answer's largest magnitude, with exact padding and with plain zero padding. Then how much slower
exactness makes one call of the same model in the same bucket, traced and compiled ahead of time; the two
are called in turns in one process, and the figure is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from anyshape.building.exact import ExactPadding
from benchmarks.studies.timing import in_turns
from recipes.models.deepcr import deepcr
from recipes.models.mobilenet import mobilenet_v2
from recipes.models.pnet import pnet
from recipes.models.resnet50 import random_resnet50
from recipes.models.yolov3_tiny import yolov3_tiny

Size = Tuple[int, int]


class Subject(NamedTuple):
    """A model, the bucket it is measured in, and which valid sizes it takes."""

    build: Callable[[], Any]
    bucket: Size
    least: int
    step: int = 1
    channels: int = 3
    scale: float = 1.0


SUBJECTS: Dict[str, Subject] = {
    "ResNet-50": Subject(random_resnet50, (256, 320), 32),
    "MobileNetV2": Subject(mobilenet_v2, (480, 640), 32),
    "YOLOv3-tiny": Subject(yolov3_tiny, (320, 416), 32, step=32),
    "deepCR": Subject(deepcr, (256, 320), 2, step=2, channels=1, scale=100.0),
    "PNet": Subject(pnet, (240, 320), 12),
}
ROWS = 2


def images(subject: Subject, sizes: Sequence[Size]) -> List[Tensor]:
    return [torch.randn(1, subject.channels, *size) * subject.scale for size in sizes]


def batch_of(pictures: Sequence[Tensor], bucket: Size) -> Tuple[Tensor, Tensor]:
    """Zero-padded [B, C, H, W], and the valid sizes [B, 2]."""
    batch = torch.zeros(len(pictures), pictures[0].shape[1], *bucket)
    for row, picture in enumerate(pictures):
        batch[row, :, : picture.shape[2], : picture.shape[3]] = picture[0]
    return batch, torch.tensor([list(picture.shape[2:]) for picture in pictures])


def flat(answer: Any) -> List[Tensor]:
    if isinstance(answer, Tensor):
        return [answer]
    values = answer.values() if isinstance(answer, dict) else answer
    return [tensor for value in values if value is not None for tensor in flat(value)]


def deviations(model: nn.Module, subject: Subject, count: int) -> Tuple[float, float]:
    """(exact, plain): the largest over `count` random sizes."""
    exact = ExactPadding(model)
    choices = [range(subject.least, side + 1, subject.step) for side in subject.bucket]
    worst = [0.0, 0.0]
    for _ in range(-(-count // ROWS)):
        sizes = [(random.choice(choices[0]), random.choice(choices[1])) for _ in range(ROWS)]
        pictures = images(subject, sizes)
        batch, valid = batch_of(pictures, subject.bucket)
        answers = exact(batch, valid)
        for index, outputs in enumerate((answers, flat(model(batch)))):
            for row, picture in enumerate(pictures):
                extents = iter(answers[len(exact.spatial) :])
                for output, places, alone in zip(outputs, exact.spatial, flat(model(picture))):
                    values = output[row]
                    for place, size in zip(places, next(extents)[row].tolist() if places else ()):
                        values = values.narrow(place - 1, 0, size) if place else values
                    gap = (values - alone[0]).abs().max() / alone.abs().max()
                    worst[index] = max(worst[index], gap.item())
    return worst[0], worst[1]


def slow_down(plain: Callable[[], Any], exact: Callable[[], Any], rounds: int) -> Dict[str, float]:
    """Seconds of each and the median ratio − 1, the two called in turns after a warm-up."""
    found = in_turns({"plain": plain, "exact": exact}, rounds)
    ratios = [b / a for a, b in zip(found["plain"].times, found["exact"].times)]
    return {
        "plain_seconds": found["plain"].median,
        "exact_seconds": found["exact"].median,
        "slow_down": statistics.median(ratios) - 1,
    }


def compiled(module: nn.Module, example: Tuple[Tensor, ...], path: Path) -> Any:
    """Ahead of time, shapes fixed but for the batch, weights folded in; what `path` holds is taken."""
    if path.is_file():
        return torch._inductor.aoti_load_package(str(path))
    rows = torch.export.Dim("rows", min=1, max=16)
    shapes = tuple({0: rows} for _ in example)
    program = torch.export.export(module, example, dynamic_shapes=shapes, strict=False)
    package = torch._inductor.aoti_compile_and_package(
        program, package_path=str(path), inductor_configs={"freezing": True}
    )
    return torch._inductor.aoti_load_package(package)


class Plain(nn.Module):
    """The model alone, its answer as a tuple of tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tuple[Tensor, ...]:
        return tuple(flat(self.model(pixel_values)))


def timings(model: nn.Module, subject: Subject, rounds: int, inductor: bool, keep: Path) -> Dict[str, Any]:
    height, width = subject.bucket
    step = subject.step
    sizes = [(height * 7 // 8 // step * step, width), (height, width * 3 // 4 // step * step)]
    pair = batch_of(images(subject, sizes), subject.bucket)
    plain, exact = Plain(model), ExactPadding(model)
    exact(*pair)
    ways = {"traced": tuple(torch.jit.trace(m, p) for m, p in ((plain, pair[:1]), (exact, pair)))}  # type: ignore[no-untyped-call]
    if inductor:
        ways["inductor"] = (
            compiled(plain, pair[:1], keep / f"{type(model).__name__}.pt2"),
            compiled(exact, pair, keep / f"{type(model).__name__}-exact.pt2"),
        )
    return {
        way: slow_down(partial(one, pair[0]), partial(other, *pair), rounds)
        for way, (one, other) in ways.items()
    }


def _figures(subject: Subject, arguments: argparse.Namespace, keep: Path) -> Dict[str, Any]:
    model = subject.build()
    exact, plain = deviations(model, subject, arguments.sizes)
    return {
        "bucket": list(subject.bucket),
        "rows": ROWS,
        "sizes": arguments.sizes,
        "deviation_exact": exact,
        "deviation_zero_padded": plain,
        **timings(model, subject, arguments.rounds, not arguments.no_inductor, keep),
    }


def run(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks exactness", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print figures as JSON, and nothing else")
    parser.add_argument("--model", action="append", choices=list(SUBJECTS), help="only this model")
    parser.add_argument("--sizes", type=int, default=40, help="random sizes per model (40)")
    parser.add_argument("--rounds", type=int, default=30, help="timed rounds (30)")
    parser.add_argument("--keep", type=Path, help="a folder for what is compiled; what it holds is taken")
    parser.add_argument("--no-inductor", action="store_true", help="skip compiling ahead of time")
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    with tempfile.TemporaryDirectory() as temporary, torch.no_grad():
        keep = arguments.keep or Path(temporary)
        keep.mkdir(parents=True, exist_ok=True)
        figures = {name: _figures(SUBJECTS[name], arguments, keep) for name in arguments.model or SUBJECTS}
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return 0
    table = Table(title="Exact padding: relative deviation from the image alone, and what it costs")
    for column in ("model", "bucket", "exact", "zero-padded", "slower, traced", "slower, inductor"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, row in figures.items():
        costs = [
            f"{row[way]['slow_down']:+.1%} of {row[way]['plain_seconds'] * 1000:.0f} ms"
            if way in row
            else "–"
            for way in ("traced", "inductor")
        ]
        size = "x".join(str(side) for side in row["bucket"])
        table.add_row(
            name, size, f"{row['deviation_exact']:.1e}", f"{row['deviation_zero_padded']:.1e}", *costs
        )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
