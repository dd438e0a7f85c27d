"""What the benchmark knows of a system: how to start it, ask it and read its answers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.paths import WORK
from benchmarks.serving.client import render
from benchmarks.serving.judging import Judge
from benchmarks.serving.systems.processes import Server
from benchmarks.serving.workloads import Workload

# Float32 answers agree to about 1e-6; a wrong mask or a cut text is off by 1e-2 and more. In bfloat16
# an entry of a normalised embedding may be off by 5e-3, in int8 by 3e-2.
TOLERANCES = {"float32": 1e-4, "bfloat16": 1e-2, "int8": 6e-2}
TUNABLE = ("workers", "threads", "batch_size", "max_batch_delay")


class Unavailable(RuntimeError):
    """This system cannot run here; the message says what is missing."""


@dataclass
class Running:
    """A started system: stop it when done. `counted` gives the seconds that the handler has spent in and
    around the model and the items served, all since the start, or None where nothing counts them."""

    server: Server
    port: int
    archive_mb: float
    counted: Callable[[], dict[str, float] | None] = lambda: None

    def stop(self) -> None:
        self.server.stop()


@dataclass(frozen=True)
class System:
    """One way to serve a model. Subclasses start it.

    `workers` processes with `threads` each; `batch_size` requests handed over at once, which run as one
    padded array if `together`, otherwise one by one.
    """

    name: str
    about: str
    kind: str = "text"  # "text" or "image"
    dtype: str = "float32"
    workers: int = 2
    threads: int = 1
    batch_size: int = 8
    max_batch_delay: int = 2
    together: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    path = "/predictions/model"

    def with_settings(self, name: str, settings: dict[str, int]) -> System:
        if unknown := set(settings) - set(TUNABLE):
            raise ValueError(f"unknown setting {unknown.pop()}: choose from {', '.join(TUNABLE)}")
        changed: dict[str, Any] = dict(settings)
        return replace(self, name=name, **changed)

    def start(self, folder: Path) -> Running:
        raise NotImplementedError

    def folder(self) -> Path:
        """A fresh folder for the server's files."""
        path = WORK / "systems" / self.name.replace("@", "-").replace("=", "").replace(",", "-")
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def padding_ratio(self, size: tuple[int, ...]) -> float:
        """Executed ÷ real positions of one item where the answers do not carry `X-Padding-Ratio`."""
        return 1.0

    def requests(self, workload: Workload) -> list[bytes]:
        return [render(self.path, body, workload.content_type) for body in workload.bodies]

    def judge(self, workload: Workload) -> Judge:
        reader = "vector" if workload.kind == "text" else "top_scores"
        tolerance = TOLERANCES[self.dtype] if workload.kind == "text" else 1e-3
        return Judge(workload.references, reader, tolerance)

    @property
    def engine_settings(self) -> dict[str, Any]:
        """What a baseline's handler reads."""
        return {
            "threads": self.threads,
            "together": self.together,
            "batch_size": self.batch_size,
            "dtype": self.dtype,
            **self.settings,
        }
