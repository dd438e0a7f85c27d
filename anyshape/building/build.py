"""Builds an archive: load the model, compile every bucket, compare with the unpadded model, measure, pack."""

from __future__ import annotations

import copy
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple

import torch
import yaml

from anyshape import archive
from anyshape.archive import ASSETS, MODELS, SAMPLES, Index
from anyshape.backends import create_backend
from anyshape.buckets import Bucket, bucket_name
from anyshape.building.backends import create_compiler
from anyshape.building.backends.base import Compiler
from anyshape.building.compile import compile_programs, example
from anyshape.building.errors import BuildError, first_line, last_line
from anyshape.building.exact import ExactPadding, UnknownOperation
from anyshape.building.fold import fold_batch_norms, has_batch_norms
from anyshape.building.own import check_own, copy_own
from anyshape.building.pack import check_names, pack
from anyshape.building.planning.errors import PlanError
from anyshape.building.planning.plan import PlanResult, plan_buckets
from anyshape.building.process import restored
from anyshape.building.progress import Progress, Silent
from anyshape.building.quality import calibration, judge
from anyshape.building.samples import write_samples
from anyshape.building.source import Source
from anyshape.building.tasks import create_builder
from anyshape.building.tasks.base import TaskBuilder
from anyshape.building.verify import verify
from anyshape.errors import ConfigError
from anyshape.items import Item
from anyshape.layouts import ROWS
from anyshape.model import BucketedModel
from anyshape.packed import INDEX, RECIPE
from anyshape.process import prepare_process, resident_bytes
from anyshape.recipe import BucketPlan, Recipe, Section, read_yaml
from anyshape.settings import Settings
from anyshape.tasks import task_class


@dataclass
class Built:
    """A finished archive and what is inside."""

    path: Path
    index: Index
    bytes: int
    resident_bytes: int


def build(
    recipe: Path,
    store: Path,
    version: str = "1.0",
    progress: Optional[Progress] = None,
    jobs: Optional[int] = None,
    planned: Optional[PlanResult] = None,
) -> Built:
    """Build the archive that `recipe` describes into `store`, named after the recipe's file.

    jobs: how many programs to compile at once, where the compiler can (Neuron); default: as many as this
    machine bears. planned: buckets in the place of the recipe's.

    Raises BuildError or ConfigError, and leaves nothing in the store then: what deviates from the unpadded
    model by more than the recipe's tolerance is not packed. The process is left as it was found.
    """
    check_names(recipe.stem, store)
    with restored(recipe.parent):
        return _build(recipe, store, version, progress or Silent(), jobs, planned)


def _build(
    path: Path,
    store: Path,
    version: str,
    progress: Progress,
    jobs: Optional[int],
    planned: Optional[PlanResult],
) -> Built:
    written = read_yaml(path)
    recipe = Recipe.from_mapping(written)
    sys.path[:0] = [str(path.parent.resolve()), str(Path.cwd())]  # where a recipe's own modules may lie
    settings, plan = _settled(recipe.handler, path.parent, planned)
    prepare_process(settings, recipe.workers, path.parent)
    backend = create_backend(settings.backend, settings.backend_options, path.parent)
    compiler = create_compiler(settings.backend, backend, path.parent)
    compiler.processes, compiler.serving = jobs, settings
    if settings.dtype not in backend.dtypes:
        raise BuildError(
            f"handler.dtype: {settings.backend} has no {settings.dtype}: choose {' or '.join(backend.dtypes)}"
        )
    if settings.dynamic_batch and not backend.dynamic_batch:
        raise BuildError(
            f"handler.batch_sizes: {settings.backend} compiles fixed batch sizes; list them, as in [1, 4, 16]"
        )
    if settings.layout == ROWS and backend.dynamic_shapes:
        raise BuildError(
            "handler.layout: rows gains nothing where one program takes every length "
            "(handler.backend_options.shapes: dynamic): use items, or shapes: fixed"
        )
    with tempfile.TemporaryDirectory(prefix="anyshape-build-") as temporary:
        folder = Path(temporary)
        copy_own(settings, path.parent, folder)
        source = Source(
            recipe.handler.model, recipe.handler.tokenizer, path.parent, recipe.handler.trust_remote_code
        )
        builder = create_builder(recipe.handler, settings, source)
        model, reference = _load(builder, folder, progress)
        weights = sum(parameter.numel() for parameter in model.parameters())
        model = _adapt(builder, model, compiler)
        _examine(builder, model, reference, folder)
        held_out: List[Item] = []
        if settings.dtype == "int8":
            compiler.inputs = builder.task.inputs
            compiler.calibration, held_out = calibration(builder, path.parent)
        programs = compile_programs(compiler, model, builder, settings, folder, progress)
        del model  # the programs hold its weights now
        index = Index(
            task=settings.task,
            backend=settings.backend,
            dtype=settings.dtype,
            versions={name: str(version) for name, version in compiler.versions().items()},
            assets=_hashes(folder, {program.file for program in programs}),
            inputs=list(builder.layout.inputs(builder.task.inputs)),
            programs=programs,
            batch_sizes=settings.batch_sizes,
            dynamic_batch=settings.dynamic_batch,
            tolerance=recipe.handler.tolerance,
            weights=weights,
            plan=plan,
            largest_call=settings.largest_call,
            layout=settings.layout,
            segments=settings.segments,
            unpadded=settings.unpadded,
            backend_options=dict(settings.backend_options),
            compiled=compiler.report(),
        )
        _write(folder, index, path, written, settings.buckets)
        if compiler.runs_here:
            engine = BucketedModel(folder, settings)
            verify(engine, builder, reference, recipe.handler, progress)
            if held_out:
                index.quality = judge(engine, builder, reference, held_out)
            index.exact = engine.index.exact
            for program, checked in zip(index.programs, engine.index.programs):
                program.deviation, program.rounding = checked.deviation, checked.rounding
            progress.stage("measuring", len(index.shapes))
            engine.warm_up(lambda b, rows, _: progress.step(f"{bucket_name(b)} × {rows}"))
            index.costs, index.measured_on = engine.costs.rows(), engine.conditions
            write_samples(engine, builder, folder)
            index.assets[SAMPLES] = archive.sha256(folder / SAMPLES)
        else:
            index.exact = False  # nobody has compared it
        _write(folder, index, path, written, settings.buckets)
        progress.stage("packing", 1)
        packed = pack(folder, path.stem, version, store)
        progress.step(packed.name)
    return Built(packed, index, packed.stat().st_size, resident_bytes())


def _settled(
    section: Section, folder: Path, planned: Optional[PlanResult]
) -> Tuple[Settings, Optional[Dict[str, Any]]]:
    """What serves; and the plan, where one is given or the recipe asks for one."""
    settings, plan = None, None
    if planned is None and isinstance(section.buckets, BucketPlan):
        try:
            planned = plan_buckets(section.buckets, folder)
        except PlanError as error:
            raise BuildError(f"handler.buckets: {error}") from None
    if planned is not None:
        settings, plan = Settings.of(section, planned.buckets), planned.to_json()
    settings = settings or Settings.of(section)
    check_own(settings, folder)
    kind = task_class(settings.task, folder)
    if {len(bucket) for bucket in settings.buckets} != {kind.sides}:
        wanted = "one side, as in 128" if kind.sides == 1 else "two sides, as in [500, 600]"
        raise BuildError(f"handler.buckets: a bucket of {settings.task} has {wanted}")
    return settings, plan


def _load(builder: TaskBuilder, folder: Path, progress: Progress) -> Tuple[torch.nn.Module, torch.nn.Module]:
    """The model to compile, and what it is compared with. The serving half of the task exists afterwards."""
    progress.stage("loading the model", 1)
    model = builder.load_model()
    other = _loaded_again(builder, model)
    for name in (MODELS, ASSETS):
        (folder / name).mkdir()
    builder.save_and_load(model, folder)
    progress.step(builder.section.model)
    return model, builder.reference(other).eval()


def _loaded_again(builder: TaskBuilder, model: torch.nn.Module) -> torch.nn.Module:
    """The same model as another object that nothing has run: a model may change itself when it runs, and the
    compiled one and what it is compared with would then be wrong together."""
    other = builder.load_model()
    if _parts(other) & _parts(model):
        other = copy.deepcopy(model)  # the recipe's function gives the same object each time
    try:
        other.load_state_dict(model.state_dict())  # one that begins with random weights has others now
    except RuntimeError as error:
        raise BuildError(
            f"handler.model: {builder.section.model} is another model each time it is loaded "
            f"({last_line(error)})"
        ) from error
    for parameter in other.parameters():
        parameter.requires_grad_(False)
    return other


def _parts(model: torch.nn.Module) -> Set[int]:
    return {id(part) for part in (*model.modules(), *model.parameters(), *model.buffers())}


def _adapt(builder: TaskBuilder, model: torch.nn.Module, compiler: Compiler) -> torch.nn.Module:
    """The model to compile, in the recipe's dtype."""
    settings = builder.settings
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if has_batch_norms(model):
        fold_batch_norms(builder.reference(model).eval(), example(builder, settings.buckets[0], 1))
    if settings.dtype not in ("float32", "int8") and compiler.casts:
        model = model.to(getattr(torch, settings.dtype))
    in_rows = settings.layout == ROWS
    adapted = (builder.adapt_rows(model) if in_rows else builder.adapt(model, ExactPadding)).eval()
    for module in adapted.modules():
        if isinstance(module, ExactPadding):
            module.in_place = compiler.in_place
    return adapted


def _examine(builder: TaskBuilder, model: torch.nn.Module, reference: torch.nn.Module, folder: Path) -> None:
    try:
        builder.examine(model, reference, folder)
    except UnknownOperation as error:
        raise BuildError(f"handler.model: {error}") from None
    except ConfigError:
        raise
    except Exception as error:
        raise BuildError(f"the model does not run on padded inputs: {first_line(error)}") from error


def _hashes(folder: Path, programs: Set[str]) -> Dict[str, str]:
    """The sha256 of every file that is no program's own."""
    files = sorted(p for kind in (ASSETS, MODELS) for p in (folder / kind).rglob("*") if p.is_file())
    files += sorted(folder.glob("*.py"))  # a task or backend of one's own
    names = {path: path.relative_to(folder).as_posix() for path in files}
    return {name: archive.sha256(path) for path, name in names.items() if name not in programs}


def _write(folder: Path, index: Index, recipe: Path, written: Dict[str, Any], buckets: List[Bucket]) -> None:
    (folder / INDEX).write_text(json.dumps(index.to_json(), indent=1), encoding="utf-8")
    if index.plan is None:
        shutil.copy(recipe, folder / RECIPE)
        return
    sides = [list(bucket) if len(bucket) > 1 else bucket[0] for bucket in buckets]
    planned = {**written, "handler": {**written["handler"], "buckets": sides}}
    (folder / RECIPE).write_text(yaml.safe_dump(planned, sort_keys=False), encoding="utf-8")
