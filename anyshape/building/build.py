"""Builds an archive: load the model, compile every bucket, compare with the unpadded model, measure, pack."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple, Type

import torch
import yaml

from anyshape.building.errors import BuildError, first_line, last_line
from anyshape.building.exact import ExactPadding, UnknownOperation
from anyshape.building.fold import fold_batch_norms, has_batch_norms
from anyshape.building.pack import check_names, pack
from anyshape.building.process import restored
from anyshape.building.programs import compile_programs, example
from anyshape.building.progress import Progress, Silent
from anyshape.building.source import Source
from anyshape.building.verify import deviations
from anyshape import archive
from anyshape.archive import ASSETS, MODELS, Index
from anyshape.backends import create_backend
from anyshape.backends.base import Backend
from anyshape.buckets import Bucket, bucket_name
from anyshape.settings import HandlerConfig
from anyshape.errors import ConfigError
from anyshape.model import BucketedModel
from anyshape.padding import MASK
from anyshape.process import prepare_process, resident_bytes
from anyshape.tasks import task_class
from anyshape.tasks.base import Task


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
    model by more than the recipe's tolerance is not packed. The process is left as it was found.
    """
    check_names(recipe.stem, store)
    with restored(recipe.parent):
        return _build(recipe, store, version, progress or Silent())


def _build(recipe: Path, store: Path, version: str, progress: Progress) -> Built:
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
        task, model, reference = _load(config, recipe.parent, folder, progress)
        weights = sum(parameter.numel() for parameter in model.parameters())
        model = _adapt(task, model, config, backend)
        _examine(task, model, reference, folder)
        programs = compile_programs(backend, model, task, config, batch_sizes, folder, progress)
        del model  # the programs hold its weights now
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
            weights=weights,
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
    from anyshape.building.planning.errors import PlanError
    from anyshape.building.planning.plan import plan_buckets

    assert not isinstance(config.buckets, list)
    try:
        plan = plan_buckets(dict(config.buckets), folder)
    except PlanError as error:
        raise BuildError(f"handler.buckets: {error}") from None
    return replace(config, buckets=list(plan.buckets)), plan.to_json()


def _load(
    config: HandlerConfig, recipe_folder: Path, folder: Path, progress: Progress
) -> Tuple[Task, torch.nn.Module, torch.nn.Module]:
    """The task, the model to compile, and what it is compared with."""
    progress.stage("loading the model", 1)
    source = Source(config, recipe_folder)
    kind = task_class(config.task)
    sides = {len(bucket) for bucket in config.buckets}
    if sides != {kind.sides}:
        wanted = "one side, as in 128" if kind.sides == 1 else "two sides, as in [500, 600]"
        raise BuildError(f"handler.buckets: a bucket of {config.task} has {wanted}")
    model = kind.load_model(config, source)
    other = _loaded_again(kind, config, source, model)
    for name in (MODELS, ASSETS):
        (folder / name).mkdir()
    kind.save(config, source, model, folder / ASSETS)
    task = kind(config, folder / ASSETS)
    task.buckets = _buckets(config)
    progress.step(config.model)
    return task, model, task.reference(other).eval()


def _loaded_again(
    kind: Type[Task], config: HandlerConfig, source: Source, model: torch.nn.Module
) -> torch.nn.Module:
    """The same model as another object that nothing has run: a model may change itself when it runs, and the
    compiled one and what it is compared with would then be wrong together."""
    other = kind.load_model(config, source)
    if _parts(other) & _parts(model):
        other = copy.deepcopy(model)  # the recipe's function gives the same object each time
    try:
        other.load_state_dict(model.state_dict())  # one that begins with random weights has others now
    except RuntimeError as error:
        raise BuildError(
            f"handler.model: {config.model} is another model each time it is loaded ({last_line(error)})"
        ) from error
    for parameter in other.parameters():
        parameter.requires_grad_(False)
    return other


def _parts(model: torch.nn.Module) -> Set[int]:
    return {id(part) for part in (*model.modules(), *model.parameters(), *model.buffers())}


def _adapt(task: Task, model: torch.nn.Module, config: HandlerConfig, backend: Backend) -> torch.nn.Module:
    """The model to compile, in the recipe's dtype."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if has_batch_norms(model):
        fold_batch_norms(task.reference(model).eval(), example(task, _buckets(config)[0], 1))
    if config.dtype != "float32":
        model = model.to(getattr(torch, config.dtype))
    adapted = task.adapt(model, ExactPadding).eval()
    for module in adapted.modules():
        if isinstance(module, ExactPadding):
            module.in_place = backend.in_place
    return adapted


def _examine(task: Task, model: torch.nn.Module, reference: torch.nn.Module, folder: Path) -> None:
    try:
        task.examine(model, reference, folder / ASSETS)
    except UnknownOperation as error:
        raise BuildError(f"handler.model: {error}") from None
    except ConfigError:
        raise
    except Exception as error:
        raise BuildError(f"the model does not run on padded inputs: {first_line(error)}") from error


def _hashes(folder: Path, programs: Set[str]) -> Dict[str, str]:
    """The sha256 of every file that is no program's own."""
    files = sorted(p for kind in (ASSETS, MODELS) for p in (folder / kind).rglob("*") if p.is_file())
    names = {path: path.relative_to(folder).as_posix() for path in files}
    return {name: archive.sha256(path) for path, name in names.items() if name not in programs}


def _buckets(config: HandlerConfig) -> List[Bucket]:
    assert isinstance(config.buckets, list), "planned buckets are settled before anything is compiled"
    return config.buckets


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
    worst = deviations(engine, reference, lambda bucket: progress.step(bucket_name(bucket)))
    for program in index.programs:
        program.deviation = worst[program.name]
    bad = [p for p in index.programs if p.deviation is None or p.deviation > config.tolerance]
    if bad and not config.allow_inexact:
        named = ", ".join(f"{p.name} by {p.deviation:.1e}" for p in bad)
        raise BuildError(
            f"these buckets deviate from the unpadded model by more than {config.tolerance:g}: {named}. "
            f"Nothing was packed. {_to_try(engine.task, config)}; set handler.allow_inexact or a larger "
            "handler.tolerance if that is meant"
        )
    index.exact = not bad


def _to_try(task: Task, config: HandlerConfig) -> str:
    """What most often makes a model of this kind deviate."""
    if config.dtype != "float32":
        return f"{config.dtype} rounds: it needs a larger tolerance, or try handler.dtype: float32"
    if task.sides == 2:
        return "If the model rounds sides to a multiple (8 or 32, say), set handler.task_options.multiple_of"
    if any(spec.kind == MASK for spec in task.inputs):
        return "The model looks at the padding: every mixing of tokens in it must heed attention_mask"
    return "The model looks at the padding: let its forward, and its tokenizer, take attention_mask"
