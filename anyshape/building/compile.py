"""Compiles a model once for every bucket, and for every batch size where the backend fixes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import torch

from anyshape import archive
from anyshape.archive import MODELS, Program, program_name
from anyshape.backends.base import Tensors
from anyshape.buckets import Bucket, call_shapes
from anyshape.building.backends.base import Compiler, Job, JobFailed
from anyshape.building.calls import calls_to_check, items_to_check
from anyshape.building.errors import BuildError, first_line
from anyshape.building.exact import UnknownOperation
from anyshape.building.progress import Progress
from anyshape.building.tasks.base import TaskBuilder
from anyshape.building.values import check_export, check_values, place_of
from anyshape.errors import ConfigError
from anyshape.items import Item
from anyshape.padding import PaddingBuffers
from anyshape.settings import Settings

# What an error says that is told in other words: a limit of torch's own, an input that nobody gave.
INDUCTOR = ", which {place} asks for: try handler.backend: inductor"
REASONS = (
    (
        r"We don't have an op for (aten::\w+)",
        "torch.jit.trace has no {0} for arguments of these types" + INDUCTOR,
    ),
    (r"^unordered_map::at\b", "torch.jit.trace does not follow torch.vmap" + INDUCTOR),
    (
        r"decoder_input(?:_id|s_embed)s",
        "the model wants a text to decode besides, and no task brings one: name a function that returns its "
        "encoder alone (get_encoder())",
    ),
    (r"have to specify (\w+)$", "the model wants {0}: say in handler.inputs where its values come from"),
)


def compile_programs(
    compiler: Compiler,
    model: torch.nn.Module,
    builder: TaskBuilder,
    settings: Settings,
    folder: Path,
    progress: Progress,
) -> List[Program]:
    """Compile `model` for every bucket of the recipe and save the programs below `folder`.

    Raises BuildError or ConfigError for a model that does not compile, or whose programs would be wrong.
    """
    backend, batch_sizes = compiler.backend, settings.batch_sizes
    keys: List[Tuple[Bucket, Optional[int]]] = [(bucket, None) for bucket in settings.buckets]
    if not backend.dynamic_batch:
        keys = list(call_shapes(settings.buckets, batch_sizes, settings.largest_call))
    wanted = keys[-1:] if backend.dynamic_shapes else keys
    progress.stage("compiling", len(wanted))
    compiled: Dict[str, Any] = {}
    seconds: Dict[str, float] = {}
    try:
        for done in compiler.compile_all(model, _jobs(compiler, model, builder, wanted, batch_sizes)):
            compiled[done.name], seconds[done.name] = done.program, done.seconds
            progress.step(done.name)
    except JobFailed as failed:
        cause = failed.__cause__
        refusal = _refusal(failed.name, cause)
        raise refusal from (None if refusal is cause else cause)
    compiled = {program_name(*key): compiled[program_name(*key)] for key in wanted}
    if backend.dynamic_shapes:
        (only,) = compiled.values()
        compiled = {program_name(*key): only for key in keys}
    try:
        files = compiler.save(compiled, folder / MODELS)
    except Exception as error:  # what can be compiled cannot always be written
        raise BuildError(
            f"handler.model: {backend.name} compiles it, but cannot save it ({first_line(error)}): choose "
            "another handler.backend, or write that part of the model with torch's own operations"
        ) from error
    sizes = compiler.sizes(folder / MODELS, files)
    return [
        Program(
            bucket,
            batch_size,
            f"{MODELS}/{files[name]}",
            archive.sha256(folder / MODELS / files[name]),
            seconds=seconds.get(name, 0.0),
            size=sizes[name],
        )
        for bucket, batch_size in keys
        for name in [program_name(bucket, batch_size)]
    ]


def _jobs(
    compiler: Compiler,
    model: torch.nn.Module,
    builder: TaskBuilder,
    wanted: Sequence[Tuple[Bucket, Optional[int]]],
    batch_sizes: Sequence[int],
) -> Iterator[Job]:
    """What there is to compile; a bucket's example exists only once it is asked for."""
    checked = set()
    for bucket, batch_size in wanted:
        name = program_name(bucket, batch_size)
        # Where there is one batch size, that one: some models fix it (Longformer).
        rows = batch_size or (batch_sizes[0] if len(batch_sizes) == 1 else 2)
        if compiler.freezes_values and bucket not in checked:
            inputs = builder.layout.inputs(builder.task.inputs)
            try:
                check_values(model, inputs, examples(builder, bucket, rows))
            except Exception as error:
                raise JobFailed(name) from error
            checked.add(bucket)
        yield Job(name, example(builder, bucket, rows), bucket)


def _refusal(name: str, error: Optional[BaseException]) -> Exception:
    """What the build says of a program that does not compile."""
    if isinstance(error, UnknownOperation):
        return BuildError(f"handler.model: {error}")
    if isinstance(error, (BuildError, ConfigError)):
        return error
    assert isinstance(error, Exception)
    check_export(error)
    for pattern, reason in REASONS:
        found = re.search(pattern, str(error))
        if found:
            said = reason.format(*found.groups(), place=place_of(error))
            return BuildError(f"bucket {name} does not compile: {said}")
    return BuildError(f"bucket {name} does not compile: {first_line(error)}, at {place_of(error)}")


def example(builder: TaskBuilder, bucket: Bucket, rows: int) -> Tensors:
    """Inputs to compile with. Rows of different sizes, so that nothing about the padding becomes fixed."""
    items = items_to_check(builder, bucket, [])
    call = calls_to_check(builder.layout, [item.size for item in items], bucket, rows)[0]
    held = call.held or (1,) * len(call.items)
    return _filled(builder, bucket, rows, [items[i] for i in call.items], held)


def examples(builder: TaskBuilder, bucket: Bucket, rows: int) -> List[Tensors]:
    """That example, then one for each size that is checked, all its rows as long as that."""
    alone = [
        _filled(builder, bucket, rows, [builder.sample(size, i) for i in range(rows)], (1,) * rows)
        for size in builder.checked_sizes(bucket, [])
    ]
    return [example(builder, bucket, rows), *alone]


def _filled(
    builder: TaskBuilder, bucket: Bucket, rows: int, items: Sequence[Item], held: Sequence[int]
) -> Tensors:
    buffers = PaddingBuffers(builder.layout.inputs(builder.task.inputs))
    return tuple(t.clone() for t in buffers.fill(bucket, rows, items, held))
