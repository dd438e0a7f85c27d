"""Builds an archive: load the model, compile every bucket, compare with the unpadded model, measure, pack."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Protocol, Set, Tuple

import torch
import yaml

from builder.errors import BuildError, first_line, last_line
from builder.exact import ExactPadding, UnknownOperation
from builder.fold import fold_batch_norms, has_batch_norms
from builder.pack import pack
from builder.source import Source
from builder.verify import NotTaken, deviations
from handler import archive
from handler.archive import ASSETS, MODELS, Index, Program, program_name
from handler.backends import create_backend
from handler.backends.base import Backend, Tensors
from handler.buckets import Bucket, bucket_name, call_shapes
from handler.config import HandlerConfig
from handler.errors import ConfigError
from handler.model import BucketedModel
from handler.padding import PaddingBuffers
from handler.process import prepare_process, resident_bytes
from handler.tasks import task_class
from handler.tasks.base import Task


class Progress(Protocol):
    """What a build tells while it works: a stage begins with so many steps, a step is done."""

    def stage(self, name: str, steps: int) -> None: ...
    def step(self, what: str) -> None: ...


class Silent:
    """Says nothing."""

    def stage(self, name: str, steps: int) -> None:
        pass

    def step(self, what: str) -> None:
        pass


@dataclass
class Built:
    """A finished archive and what is inside."""

    path: Path
    index: Index
    bytes: int
    resident_bytes: int


def build(recipe: Path, store: Path, version: str = "1.0", progress: Optional[Progress] = None) -> Built:
    """Build the archive that `recipe` describes into `store`, named after the recipe's file.

    Raises BuildError or ConfigError, and leaves nothing in the store then: what deviates from the unpadded
    model by more than the recipe's tolerance is not packed.
    """
    progress = progress or Silent()
    settings = archive.read_recipe(recipe)
    config = HandlerConfig.from_mapping(settings.get("handler"))
    plan = None
    if not isinstance(config.buckets, list):
        config, plan = _planned(config, recipe.parent)
    workers = settings.get("maxWorkers") or 1
    if not isinstance(workers, int):
        raise BuildError(f"maxWorkers must be a whole number, not {workers!r}")
    prepare_process(config, workers)
    backend = create_backend(config.backend, config.backend_options)
    batch_sizes = config.measured_batch_sizes()
    if config.dynamic_batch and not backend.dynamic_batch:
        raise BuildError(
            f"handler.batch_sizes: {config.backend} compiles fixed batch sizes; list them, as in [1, 4, 16]"
        )
    with tempfile.TemporaryDirectory(prefix="bucketed-build-") as temporary:
        folder = Path(temporary)
        task, model = _load(config, recipe.parent, folder, progress)
        adapted, reference = _adapt(task, model, config, backend)
        _examine(task, adapted, reference, folder)
        programs = _compile(backend, adapted, task, config, batch_sizes, folder, progress)
        index = Index(
            task=config.task,
            backend=config.backend,
            dtype=config.dtype,
            versions=backend.versions(),
            assets=_hashes(folder, {program.file for program in programs}),
            inputs=list(task.inputs),
            programs=programs,
            batch_sizes=batch_sizes,
            dynamic_batch=config.dynamic_batch,
            tolerance=config.tolerance,
            weights=sum(parameter.numel() for parameter in model.parameters()),
            plan=plan,
            largest_call=config.largest_call,
            backend_options=dict(config.backend_options),
        )
        _write(folder, index, recipe, settings, config)
        if backend.runs_here:
            engine = BucketedModel(folder, config)
            _verify(engine, reference, index, config, progress)
            progress.stage("measuring", len(index.shapes))
            engine.warm_up(lambda b, rows, seconds: progress.step(f"{bucket_name(b)} × {rows}"))
            index.costs = engine.costs.to_json()
        else:
            index.exact = False  # nobody has compared it
        _write(folder, index, recipe, settings, config)
        progress.stage("packing", 1)
        packed = pack(folder, recipe.stem, version, store)
        progress.step(packed.name)
    return Built(packed, index, packed.stat().st_size, resident_bytes())


def _planned(config: HandlerConfig, folder: Path) -> Tuple[HandlerConfig, Dict[str, Any]]:
    from builder.planning.errors import PlanError
    from builder.planning.plan import plan_buckets

    assert not isinstance(config.buckets, list)
    try:
        plan = plan_buckets(dict(config.buckets), folder)
    except PlanError as error:
        raise BuildError(f"handler.buckets: {error}") from None
    return replace(config, buckets=list(plan.buckets)), plan.to_json()


def _load(
    config: HandlerConfig, recipe_folder: Path, folder: Path, progress: Progress
) -> Tuple[Task, torch.nn.Module]:
    progress.stage("loading the model", 1)
    source = Source(config, recipe_folder)
    kind = task_class(config.task)
    sides = {len(bucket) for bucket in config.buckets}
    if sides != {kind.sides}:
        wanted = "one side, as in 128" if kind.sides == 1 else "two sides, as in [500, 600]"
        raise BuildError(f"handler.buckets: a bucket of {config.task} has {wanted}")
    model = kind.load_model(config, source)
    for name in (MODELS, ASSETS):
        (folder / name).mkdir()
    kind.save(config, source, model, folder / ASSETS)
    task = kind(config, folder / ASSETS)
    task.buckets = _buckets(config)
    progress.step(config.model)
    return task, model


def _adapt(
    task: Task, model: torch.nn.Module, config: HandlerConfig, backend: Backend
) -> Tuple[torch.nn.Module, torch.nn.Module]:
    """The model to compile, in the recipe's dtype, and the float32 one that it is compared with."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    reference = task.reference(model).eval()
    if has_batch_norms(model):
        model = copy.deepcopy(model)  # what it is compared with stays as its authors left it
        fold_batch_norms(task.reference(model).eval(), _example(task, _buckets(config)[0], 1))
    if config.dtype != "float32":
        model = copy.deepcopy(model).to(getattr(torch, config.dtype))
    adapted = task.adapt(model, ExactPadding).eval()
    for module in adapted.modules():
        if isinstance(module, ExactPadding):
            module.in_place = backend.in_place
    return adapted, reference


def _examine(task: Task, model: torch.nn.Module, reference: torch.nn.Module, folder: Path) -> None:
    try:
        task.examine(model, reference, folder / ASSETS)
    except UnknownOperation as error:
        raise BuildError(f"handler.model: {error}") from None
    except ConfigError:
        raise
    except Exception as error:
        raise BuildError(f"the model does not run on padded inputs: {first_line(error)}") from error


def _compile(
    backend: Backend,
    model: torch.nn.Module,
    task: Task,
    config: HandlerConfig,
    batch_sizes: List[int],
    folder: Path,
    progress: Progress,
) -> List[Program]:
    keys: List[Tuple[Bucket, Optional[int]]] = [(bucket, None) for bucket in _buckets(config)]
    if not backend.dynamic_batch:
        keys = list(call_shapes(_buckets(config), batch_sizes, config.largest_call))
    wanted = keys[-1:] if backend.dynamic_shapes else keys
    progress.stage("compiling", len(wanted))
    compiled: Dict[str, Any] = {}
    seconds: Dict[str, float] = {}
    for bucket, batch_size in wanted:
        name = program_name(bucket, batch_size)
        started = time.perf_counter()
        example = _example(task, bucket, batch_size or min(2, batch_sizes[-1]))
        try:
            compiled[name] = backend.compile(model, example, bucket)
        except UnknownOperation as error:
            raise BuildError(f"handler.model: {error}") from None
        except ConfigError:
            raise
        except Exception as error:
            raise BuildError(f"bucket {name} does not compile: {first_line(error)}") from error
        seconds[name] = time.perf_counter() - started
        progress.step(name)
    if backend.dynamic_shapes:
        compiled = {program_name(*key): compiled[name] for key in keys}
    files = backend.save(compiled, folder / MODELS)
    sizes = backend.sizes(folder / MODELS, files)
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


def _hashes(folder: Path, programs: Set[str]) -> Dict[str, str]:
    """The sha256 of every file that is no program's own."""
    files = sorted(p for kind in (ASSETS, MODELS) for p in (folder / kind).rglob("*") if p.is_file())
    names = {path: path.relative_to(folder).as_posix() for path in files}
    return {name: archive.sha256(path) for path, name in names.items() if name not in programs}


def _buckets(config: HandlerConfig) -> List[Bucket]:
    assert isinstance(config.buckets, list), "planned buckets are settled before anything is compiled"
    return config.buckets


def _example(task: Task, bucket: Bucket, batch_size: int) -> Tensors:
    """Inputs to compile with. Rows of different sizes, so that nothing about the padding becomes fixed."""
    sizes = task.sizes_to_check(bucket, [])
    items = [task.sample(sizes[i % len(sizes)], i) for i in range(batch_size)]
    return tuple(t.clone() for t in PaddingBuffers(task.inputs).fill(bucket, batch_size, items))


def _write(folder: Path, index: Index, recipe: Path, settings: Dict[str, Any], config: HandlerConfig) -> None:
    (folder / archive.INDEX).write_text(json.dumps(index.to_json(), indent=1), encoding="utf-8")
    if index.plan is None:
        shutil.copy(recipe, folder / archive.RECIPE)
        return
    buckets = [list(bucket) if len(bucket) > 1 else bucket[0] for bucket in config.buckets]
    planned = {**settings, "handler": {**settings["handler"], "buckets": buckets}}
    (folder / archive.RECIPE).write_text(yaml.safe_dump(planned, sort_keys=False), encoding="utf-8")


def _verify(
    engine: BucketedModel,
    reference: torch.nn.Module,
    index: Index,
    config: HandlerConfig,
    progress: Progress,
) -> None:
    progress.stage("comparing with the unpadded model", len(engine.buckets))
    try:
        worst = deviations(engine, reference, lambda bucket: progress.step(bucket_name(bucket)))
    except NotTaken as error:
        hint = ": if it takes multiples of a number only, say so in handler.task_options.multiple_of"
        raise BuildError(f"{error}{hint if engine.task.sides == 2 else ''}") from error
    except Exception as error:
        raise BuildError(
            f"a compiled bucket does not run as when it is served ({last_line(error)}): every output needs a "
            "row per input; if the model fixes its batch size, list a single one in handler.batch_sizes"
        ) from error
    for program in index.programs:
        program.deviation = worst[program.name]
    bad = [p for p in index.programs if p.deviation is None or p.deviation > config.tolerance]
    if bad and not config.allow_inexact:
        named = ", ".join(f"{p.name} by {p.deviation:.1e}" for p in bad)
        if engine.task.sides == 2:
            # Padding worked out in Python, as TensorFlow's "same", was traced for the bucket's own size.
            named += ". If it works with sizes in Python, set handler.task_options.multiple_of to its stride"
        raise BuildError(
            f"these buckets deviate from the unpadded model by more than {config.tolerance:g}: {named}. "
            "Nothing was packed; set handler.allow_inexact or a larger handler.tolerance if that is meant"
        )
    index.exact = not bad
