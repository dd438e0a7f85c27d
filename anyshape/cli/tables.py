"""Tables and progress bars for people: what was built, what is inside an archive."""

from __future__ import annotations

from typing import Any, List, Optional

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from anyshape.archive import Index, Program
from anyshape.backends import create_backend

FEW = 8  # programs that a table shows of buckets of every length


class ProgressBar:
    """A bar per stage of a build, on stderr, so that stdout stays clean."""

    def __init__(self) -> None:
        self.bar = Progress(
            TextColumn("{task.description:<36}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[what]}"),
            console=Console(stderr=True),
        )
        self._task: Optional[TaskID] = None

    def __enter__(self) -> ProgressBar:
        self.bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.bar.stop()

    def stage(self, name: str, steps: int) -> None:
        self._task = self.bar.add_task(name, total=steps, what="")

    def step(self, what: str) -> None:
        if self._task is not None:
            self.bar.update(self._task, advance=1, what=what)


def megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def weights_table(index: Index) -> Optional[Table]:
    """For an archive of Neuron, what its weights cost and what they would cost otherwise; None for others."""
    if index.backend not in ("neuron", "neuronx"):
        return None
    from anyshape.backends.neuron import NeuronBackend
    from anyshape.building.backends.neuron_memory import choices

    backend = create_backend(index.backend, index.backend_options)
    assert isinstance(backend, NeuronBackend)
    rows = choices(index, backend)
    if not rows:
        return None
    table = Table(title=f"weights, {len(index.programs)} programs", title_justify="left")
    for column in ("", "in the archive", "on the host", "on a core", "fits", ""):
        table.add_column(column, justify="right" if column.startswith(("in", "on")) else "left")
    for row in rows:
        sizes = [megabytes(size) for size in (row.archive, row.host, row.device)]
        name = f"[bold]{row.name}, as built[/bold]" if row.chosen else row.name
        table.add_row(name, *sizes, "yes" if row.fits else "[bold]no[/bold]", row.note)
    return table


def compiler_notes(index: Index) -> List[str]:
    """What the compiler of Neuron said of the model's operators, for people."""
    said = index.compiled.get("operators") or {}
    notes = [f"operators: {said['said']}"] if said.get("said") else []
    if said.get("unknown"):
        notes.append(f"on the CPU: {', '.join(entry['kind'] for entry in said['unknown'])}")
    if said.get("failed"):
        notes.append(f"operators: the SDK could not say ({said['failed']})")
    split = {name: parts for name, parts in index.compiled.get("device_parts", {}).items() if parts > 1}
    if split:
        notes.append(f"programs in several parts, the CPU between them: {', '.join(split)}")
    if index.compiled.get("from_cache"):
        notes.append(f"compiled before, from the cache: {index.compiled['from_cache']} programs")
    return notes


def bucket_table(index: Index) -> Table:
    """One row per compiled program: bucket, seconds to compile, bytes, largest deviation, cost.

    Of buckets of every length, which can be hundreds, a few.
    """
    table = Table(title=f"{index.task} · {index.backend} · {index.dtype}", title_justify="left")
    table.add_column("bucket")
    for column in ("compiled in", "adds", "deviation", "rows: a call"):
        table.add_column(column, justify="right", no_wrap=True)
    for program in _shown(index):
        costs = {
            row.batch_size: row.seconds
            for row in index.costs
            if row.bucket == program.bucket and program.batch_size in (None, row.batch_size)
        }
        table.add_row(
            program.name,
            f"{program.seconds:.2f} s",
            megabytes(program.size),
            _deviation(program),
            "\n".join(f"{rows}: {seconds * 1e3:.1f} ms" for rows, seconds in sorted(costs.items())),
        )
    return table


def every_length(index: Index) -> Optional[str]:
    """What an archive with a bucket of every length says beside the table of its buckets; None for others."""
    if not index.unpadded:
        return None
    (least,), (most,) = index.buckets[0], index.buckets[-1]
    known = [program.deviation for program in index.programs if program.deviation is not None]
    worst = f"; largest deviation of all {max(known):.1e}" if known else ""
    return f"every length from {least} to {most} has a bucket, so that nothing is ever padded{worst}"


def _shown(index: Index) -> List[Program]:
    programs = index.programs
    if not index.unpadded or len(programs) <= FEW:
        return programs
    return [programs[round(i * (len(programs) - 1) / (FEW - 1))] for i in range(FEW)]


def _deviation(program: Program) -> str:
    if program.deviation is None:
        return "not measured"
    rounds = "" if program.rounding is None else f" (float32 alone: {program.rounding:.1e})"
    return f"{program.deviation:.1e}{rounds}"
