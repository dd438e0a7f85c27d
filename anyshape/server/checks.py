"""What is checked before TorchServe starts, where a failure can still be named in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator
from zipfile import ZipFile

from anyshape.archive import Index, check_settings, compare_files, read_packed
from anyshape.errors import ConfigError
from anyshape.packed import (
    INDEX,
    MANIFEST,
    RECIPE,
    check_sizes,
    opened,
    read_recipe,
    read_through,
    unpacked_bytes,
)
from anyshape.settings import Settings
from anyshape.threads import cores, threads_per_worker

HANDLER = "bucketed_handler.py"
# What tells that the engine is inside: without it the worker would import one that is installed by chance.
ENGINE = ("anyshape/__init__.py", "anyshape/model.py", "handler/__init__.py")


class ServeError(ConfigError):
    """The server cannot start or has stopped; the message says why and what to do."""


def read_properties(path: Path) -> dict[str, str]:
    """What a .properties file says (its simple form: one `key=value` a line, # for comments)."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, value in pairs}


def check_there(archive: Path) -> None:
    """Whether an archive can be opened and declares sizes that can be. Raises ServeError."""
    if not archive.is_file():
        raise ServeError(f"there is no {archive}: build it (./build_mar.sh recipes/{archive.stem}.yaml)")
    if not os.access(archive, os.R_OK):
        raise ServeError(f"{archive} may not be read by this user")
    with _named(archive), opened(archive) as packed:
        check_sizes(packed)


def check_archive(archive: Path) -> None:
    """Read an archive through, a second per gigabyte or two, and compare every file with its CRC-32.

    Of one of bucketed models everything is checked that its worker would find wrong without loading it.
    Raises ServeError.
    """
    check_there(archive)
    with _named(archive), opened(archive) as packed:
        index = _index(archive, packed)
        found = read_through(packed, hashed=index.files if index else ())
        if index is not None:
            check_settings(Settings.of(read_recipe(archive).handler), index)
            compare_files(found, index)


def _index(archive: Path, packed: ZipFile) -> Index | None:
    """The buckets.json of an archive that has all that it must have; None where it is not of our handler.

    Raises ConfigError, which names what is missing.
    """
    names = set(packed.namelist())
    if MANIFEST not in names:
        raise ConfigError(f"{archive} is no archive for TorchServe, it has no {MANIFEST}")
    handler = str(json.loads(packed.read(MANIFEST))["model"].get("handler", "")).partition(":")[0]
    if handler.endswith(".py") and handler not in names:
        raise ConfigError(f"{archive} has no {handler}, the handler that its {MANIFEST} names")
    if INDEX not in names and handler != HANDLER:
        return None
    for name in (INDEX, RECIPE, *ENGINE):
        if name not in names:
            raise ConfigError(f"{archive} is no whole archive of bucketed models, it has no {name}")
    return read_packed(archive).index


@contextmanager
def _named(archive: Path) -> Iterator[None]:
    """What is wrong with an archive becomes one line with its name before it and what to do behind it."""
    try:
        yield
    except ConfigError as error:
        again = f"copy it again, or build it again (./build_mar.sh recipes/{archive.stem}.yaml)"
        said = " ".join(str(error).split())
        raise ServeError(f"{said if str(archive) in said else f'{archive}: {said}'}: {again}") from None


def check_room(archives: list[Path], folder: Path) -> None:
    """Whether the archives, unpacked, fit on the disk of `folder`. Raises ServeError."""
    needed = 0
    for archive in archives:
        with opened(archive) as packed:
            needed += unpacked_bytes(packed)
    free = shutil.disk_usage(folder).free
    if needed > free:
        names = ", ".join(str(archive) for archive in archives)
        raise ServeError(
            f"the disk of {folder} is full: {names} unpacked there take {needed / 1e6:.1f} MB, and "
            f"{free / 1e6:.1f} MB are free: make room, or give a folder on another disk with --run"
        )


def threads(archive: Path) -> tuple[int, int] | None:
    """(workers, threads of each) that the archive's recipe asks for; None where it is not of our handler."""
    try:
        recipe = read_recipe(archive)
        return recipe.workers, threads_per_worker(Settings.of(recipe.handler), recipe.workers)
    except ConfigError:
        return None  # the worker says what is wrong with its recipe


def too_many_threads(archives: dict[str, Path]) -> str:
    """A sentence where all workers together have more threads than there are cores, else nothing."""
    counts = {name: found for name, archive in archives.items() if (found := threads(archive))}
    total = sum(workers * each for workers, each in counts.values())
    if total <= cores():
        return ""
    parts = ", ".join(f"{name} {workers} × {each}" for name, (workers, each) in counts.items())
    return (
        f"{total} threads (workers × threads: {parts}) share {cores()} cores and will slow each other down: "
        "set `threads` or `maxWorkers` in the recipes, or OMP_NUM_THREADS"
    )


def escaped(path: Path) -> str:
    """A path for an environment variable that config.properties names between $$ and $$.

    TorchServe puts it in with Java's appendReplacement, to which \\ and $ mean something.
    """
    return re.sub(r"([\\$])", r"\\\1", os.fspath(path))
