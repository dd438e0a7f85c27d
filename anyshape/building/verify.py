"""Compares every bucket of what was built with the unpadded eager model, and reads its answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np
import torch

from anyshape.archive import program_name
from anyshape.backends.base import as_tuple
from anyshape.buckets import Bucket, bucket_name, contains, largest_sides, volume
from anyshape.building.calls import calls_to_check, items_to_check
from anyshape.building.copied import beside
from anyshape.building.errors import BuildError, last_line
from anyshape.building.progress import Progress
from anyshape.building.rounding import roundings
from anyshape.building.tasks.base import TaskBuilder
from anyshape.errors import InputTooLarge, ModelFailed
from anyshape.items import Item, Output
from anyshape.model import BucketedModel
from anyshape.packing import Call
from anyshape.padding import MASK, PaddingBuffers
from anyshape.recipe import Section
from anyshape.tasks.base import Task


def verify(
    model: BucketedModel,
    builder: TaskBuilder,
    reference: torch.nn.Module,
    section: Section,
    progress: Progress,
) -> None:
    """Compare, and write each program's deviation to the model's index.

    Raises BuildError if one is beyond the recipe's tolerance, unless it allows that; see `deviations`, too.
    """
    progress.stage("comparing with the unpadded model", len(model.buckets))
    worst = deviations(model, builder, reference, lambda bucket: progress.step(bucket_name(bucket)))
    for program in model.index.programs:
        program.deviation = worst[program.name]
    bad = [p for p in model.index.programs if p.deviation is None or p.deviation > section.tolerance]
    if bad and section.dtype == "float32":
        by_bucket = _rounded(model, builder, reference, sorted({p.bucket for p in bad}))
        for program in bad:
            program.rounding = by_bucket.get(program.bucket)
        bad = [program for program in bad if program.rounding is None]
    if bad and not section.allow_inexact:
        named = ", ".join(f"{p.name} by {p.deviation:.1e}" for p in bad)
        first = builder.first_difference(reference, bad[0].bucket)
        begins = f" It begins with the operation {first}." if first else ""
        raise BuildError(
            f"these buckets deviate from the unpadded model by more than {section.tolerance:g}: {named}. "
            f"Nothing was packed.{begins} {_to_try(model.task, section)}; set handler.allow_inexact or a "
            "larger handler.tolerance if that is meant"
        )
    model.index.exact = not bad


def _rounded(
    model: BucketedModel, builder: TaskBuilder, reference: torch.nn.Module, buckets: Sequence[Bucket]
) -> Dict[Bucket, float]:
    finite = [
        b
        for b in buckets
        if all(np.isfinite(p.deviation or 0) for p in model.index.programs if p.bucket == b)
    ]
    return roundings(model, builder, reference, finite)


def _to_try(task: Task, section: Section) -> str:
    """What most often makes a model of this kind deviate."""
    if section.dtype != "float32":
        return f"{section.dtype} rounds: it needs a larger tolerance, or try handler.dtype: float32"
    if task.sides == 2:
        return "If the model rounds sides to a multiple (8 or 32, say), set handler.task_options.multiple_of"
    unpadded = f"or pad nothing: handler.buckets: every length to {task.buckets[-1][0]}"
    for mask in (spec.name for spec in task.inputs if spec.kind == MASK):
        return f"The model looks at the padding: every mixing of positions in it must heed {mask}, {unpadded}"
    return (
        f"The model looks at the padding: let its forward, and its tokenizer, take attention_mask, {unpadded}"
    )


def deviations(
    model: BucketedModel,
    builder: TaskBuilder,
    reference: torch.nn.Module,
    progress: Optional[Callable[[Bucket], None]] = None,
) -> Dict[str, float]:
    """For each program, the largest deviation from `reference` over items of several sizes.

    Items run in the bucket as they would when served, at every batch size and mixed with others; the
    reference gets each one alone, unpadded. A deviation is the largest absolute difference in an output,
    relative to the largest magnitude in that output of the reference. NaN counts as infinite.

    `reference` must be fresh and nothing that was compiled: an item of the largest size is its first and its
    last, and one of the smallest is run once more by a copy that nothing has changed. Raises BuildError
    where the reference itself does not run or changes when it runs, where a program does not run, or where
    the task cannot read what it gives.
    """
    backend = model.programs.backend
    worst: Dict[str, float] = {}
    done: List[Bucket] = []
    sizes = builder.checked_sizes(max(model.buckets, key=volume), [])
    largest = builder.sample(max(sizes, key=volume), 0)
    smallest = builder.sample(min(builder.checked_sizes(model.buckets[0], []), key=volume), 0)
    fresh = [(smallest, unpadded(model, beside(reference), smallest))]
    fresh.append((largest, unpadded(model, reference, largest)))
    for bucket in model.buckets:
        items = items_to_check(builder, bucket, [b for b in done if contains(bucket, b)])
        expected = [unpadded(model, reference, item) for item in items]
        for batch_size in (rows for shape, rows in model.index.shapes if shape == bucket):
            name = program_name(bucket, None if backend.dynamic_batch else batch_size)
            for call in calls_to_check(model.layout, [item.size for item in items], bucket, batch_size):
                members = [items[i] for i in call.items]
                if backend.dynamic_shapes:
                    call = replace(call, bucket=largest_sides(m.size for m in members))
                for i, output in zip(call.items, _run(model, call, members)):
                    _read(model, output, items[i])
                    found = builder.deviation(output.row, tuple(expected[i]))
                    worst[name] = max(worst.get(name, 0.0), found)
        done.append(bucket)
        if progress is not None:
            progress(bucket)
    for item, answer in fresh:
        changed = builder.deviation(tuple(unpadded(model, reference, item)), tuple(answer))
        if np.isfinite(changed) and changed > model.index.tolerance:  # else it deviates in any case
            raise BuildError(
                f"handler.model: it changes when it runs: its answer for an item of {bucket_name(item.size)} "
                f"differs by {changed:.1e} once others have run, so none can be called right. Switch off "
                "what does that (BigBird: attention_type: original_full in its config.json)"
            )
    return worst


def _run(model: BucketedModel, call: Call, items: Sequence[Item]) -> List[Output]:
    """The call's outputs. Raises BuildError, which says what to try."""
    try:
        return model.run_call(call, items)
    except Exception as error:  # compiled programs refuse in many ways
        hint = ""
        for _, rows in (shape for shape in model.index.shapes if shape[0] == call.bucket):
            if rows != call.batch_size and _runs(model, Call(call.bucket, rows, (0,)), items[:1]):
                hint = (
                    "; it runs with another number of rows, so it fixes its batch size: list a single one "
                    f"in handler.batch_sizes, as in [{rows}]"
                )
        if isinstance(error, IndexError):
            hint = "; every output needs a row per input"
        raise BuildError(
            f"bucket {bucket_name(call.bucket)} does not run with {call.batch_size} rows, as when it is "
            f"served ({last_line(error)}){hint}"
        ) from error


def _runs(model: BucketedModel, call: Call, items: Sequence[Item]) -> bool:
    try:
        return len(model.run_call(call, items)) == 1
    except Exception:
        return False


def _read(model: BucketedModel, output: Output, item: Item) -> None:
    """Have the task make its answer, as for a request. Raises BuildError if it cannot."""
    try:
        model.task.answer(output.row, item, {})
    except (ModelFailed, InputTooLarge):
        return  # not a number: its deviation is infinite; or more than one request may ask for
    except Exception as error:
        shapes = ", ".join(str(list(np.shape(part))) for part in output.row)
        raise BuildError(
            f"handler.task: {model.task.name} cannot read what the model gives for an item of "
            f"{bucket_name(item.size)}, of shape {shapes} ({last_line(error)}): choose the task that "
            "fits the model, or wrap the model so that it gives what this one reads"
        ) from error


def unpadded(model: BucketedModel, reference: torch.nn.Module, item: Item) -> Sequence[Any]:
    """What the unpadded model gives for an item. Raises BuildError if it does not run."""
    tensors = PaddingBuffers(model.task.inputs).fill(item.size, 1, [item])
    try:
        with torch.no_grad():
            outputs = as_tuple(reference(*tensors))
    except Exception as error:  # models refuse in many ways
        hint = ": if it takes multiples of a number only, say so in handler.task_options.multiple_of"
        raise BuildError(
            f"the model takes no item of {bucket_name(item.size)} ({last_line(error)})"
            + (hint if model.task.sides == 2 else "")
        ) from error
    try:
        return model.task.unpad(tuple(output.numpy()[0] for output in outputs), item)
    except IndexError as error:
        shapes = ", ".join(str(list(output.shape)) for output in outputs)
        raise BuildError(
            f"handler.model: its outputs for one item of {bucket_name(item.size)} have the shapes {shapes}: "
            f"every output needs a row per input, and {model.task.name} the dimensions of its own kind"
        ) from error
