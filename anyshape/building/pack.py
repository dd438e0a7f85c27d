"""Packs a folder of compiled models into one .mar with TorchServe's own archiver."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator, Sequence

import anyshape
from anyshape import archive
from anyshape.building.errors import BuildError
from anyshape.packed import INDEX, RECIPE

PACKAGE = Path(anyshape.__file__).resolve().parent
WORK = ".building-"  # how a folder in the store is called while an archive is packed in it


def check_names(name: str, store: Path) -> None:
    """Raise BuildError, before anything is compiled, if an archive `name` cannot be put into `store`."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise BuildError(
            f"the archive is named after the recipe's file, and TorchServe does not take {name!r} as a name: "
            "rename the file; letters, digits, _, . and - are allowed, a letter or a digit first"
        )
    place = store.absolute()  # or what there is of it: a build that fails makes no folder
    there = next(folder for folder in (place, *place.parents) if os.path.lexists(folder))
    if not there.is_dir():
        raise BuildError(f"the store {store} cannot be made ({there} is no folder): choose another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise BuildError(f"the store {store} cannot be written to: choose another, or change its permissions")


def handler_folder() -> Path:
    """TorchServe's face: beside the package in a checkout, inside of it where that is installed."""
    installed = PACKAGE / "building" / "handler"
    return installed if installed.is_dir() else PACKAGE.parent / "handler"


def copy_serving_half(content: Path) -> None:
    """What a worker imports: handler/, the engine, and the serving halves of tasks and backends."""
    shutil.copytree(handler_folder(), content / "handler", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*PACKAGE.glob("*.py"), *PACKAGE.glob("tasks/*.py"), *PACKAGE.glob("backends/*.py")):
        if path.name != "__main__.py":
            target = content / "anyshape" / path.relative_to(PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def pack(folder: Path, name: str, version: str, store: Path) -> Path:
    """Pack `folder` (models/, assets/, buckets.json, model-config.yaml) as `store/name.mar`.

    The finished archive is moved into the store in one step. Raises BuildError if the archiver fails.
    """
    check_names(name, store)
    store.mkdir(parents=True, exist_ok=True)
    with _work_folder(store) as work:
        content = work / "content"
        copy_serving_half(content)
        for own in folder.glob("*.py"):
            shutil.copy(own, content)
        for part in (archive.MODELS, archive.ASSETS):
            shutil.copytree(folder / part, content / part, copy_function=_link)
        for part in (INDEX, archive.SAMPLES):
            if (folder / part).is_file():
                shutil.copy(folder / part, content / part)
        handler, recipe = handler_folder() / "bucketed_handler.py", folder / RECIPE
        packed = run_archiver(work, name, version, handler=handler, recipe=recipe, files=[content.name])
        final = store / f"{name}.mar"
        os.replace(packed, final)
        return final


def run_archiver(
    work: Path, name: str, version: str, *, handler: Path, recipe: Path, files: Sequence[str] = ()
) -> Path:
    """Make `work/name.mar` with TorchServe's own archiver: a handler, a model-config.yaml, and beside them
    what `files` name, as seen from `work`: a file, or a folder's contents. A comma would end a name.

    The archiver runs in a process of its own, because it deletes whatever lies at $TMPDIR/<name> first.
    Raises BuildError if it fails.
    """
    command = [sys.executable, "-m", "model_archiver.model_packaging"]
    command += ["--model-name", name, "--version", version]
    command += ["--handler", str(handler.resolve()), "--config-file", str(recipe.resolve())]
    command += ["--extra-files", ",".join(files)] if files else []
    command += ["--export-path", ".", "--archive-format", "zip-store", "--force"]
    with tempfile.TemporaryDirectory(dir=work.resolve(), prefix="staging-") as staging:
        environment = {**os.environ, "TMPDIR": staging, "TEMP": staging}
        result = subprocess.run(
            command, cwd=work, env=environment, capture_output=True, text=True, check=False
        )
    packed = work / f"{name}.mar"
    if result.returncode != 0 or not packed.is_file():
        detail = (result.stderr.strip() or result.stdout.strip() or "it said nothing").splitlines()[-1]
        raise BuildError(f"torch-model-archiver failed: {detail}")
    return packed


@contextlib.contextmanager
def _work_folder(store: Path) -> Iterator[Path]:
    """A folder on the store's own disk, so that the last move cannot leave half a file behind.

    It is locked for as long as its process lives: what lies there unlocked was left by one that was killed,
    and is removed.
    """
    with _locked(store):  # a folder is made and locked in one step, as others see it
        for left in store.glob(f"{WORK}*"):
            with contextlib.suppress(OSError), _locked(left, fcntl.LOCK_NB):
                shutil.rmtree(left, ignore_errors=True)
        work = Path(tempfile.mkdtemp(dir=store, prefix=WORK))
        lock = contextlib.ExitStack()
        lock.enter_context(_locked(work))
    with lock:
        try:
            yield work
        finally:
            shutil.rmtree(work)


@contextlib.contextmanager
def _locked(folder: Path, how: int = 0) -> Iterator[None]:
    """Hold the folder's lock; a process that ends in whatever way lets go of it. Raises OSError with LOCK_NB
    if another holds it, or where the disk knows no locks."""
    held = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | how)
        except OSError:
            if how:
                raise  # somebody's work stays; one's own goes on without a lock
        yield
    finally:
        os.close(held)


def _link(source: str, target: str) -> None:
    """A hard link where the disk allows it: models are large, and the archiver copies them again."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)
