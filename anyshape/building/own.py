"""A task or a backend of one's own, beside the recipe: checked before it is loaded, then packed."""

from __future__ import annotations

import ast
import contextlib
import shutil
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Iterator, Mapping, Tuple, Type, TypeVar

from anyshape.building.errors import BuildError
from anyshape.registry import is_own, load, own_file
from anyshape.settings import Settings

TRAVEL = ("anyshape", "handler")  # what an archive brings to a worker
BUILDING = "anyshape.building"
Half = TypeVar("Half")


def check_own(settings: Settings, beside: Path) -> None:
    """Raise BuildError for a file that is not there, whose name means something else in a worker, or that
    imports what a worker does not have."""
    for key, path in _files(settings, beside):
        if not path.is_file():
            name = getattr(settings, key)
            raise BuildError(f"handler.{key}: {name} needs the file {path.name} beside the recipe")
        if _means_another(path):
            raise BuildError(f"handler.{key}: {path.name} has the name of another module: rename it")
        for module in _imported(path):
            top = module.split(".")[0]
            if f"{module}.".startswith(f"{BUILDING}."):
                raise BuildError(
                    f"handler.{key}: {path.name} imports {BUILDING}, which a worker does not have: that "
                    "belongs into the other half"
                )
            lies = (beside / f"{top}.py").is_file() or (beside / top / "__init__.py").is_file()
            if lies and top not in TRAVEL:
                raise BuildError(
                    f"handler.{key}: {path.name} imports {top}, which lies beside the recipe and is not "
                    f"packed: write what it needs of that into {path.name}"
                )


def copy_own(settings: Settings, beside: Path, folder: Path) -> None:
    """Copy the checked files from beside the recipe to `folder`, to be packed and to be tried."""
    for _, path in _files(settings, beside):
        shutil.copy(path, folder)


def load_other_half(
    table: Mapping[str, str],
    base: Type[Half],
    name: str,
    served: Type[Any],
    attribute: str,
    key: str,
    folder: Path,
) -> Type[Half]:
    """The building half of `served`, the class that the recipe's `key` calls `name`.

    A class of one's own names it in `attribute`: ``module:Class`` in a file of `folder`, or a name of
    `table`.

    Raises ConfigError if it names none, or one that cannot be loaded.
    """
    if not is_own(name):
        return load(table, base, name, key, folder)
    if not getattr(served, attribute):
        raise BuildError(
            f'handler.{key}: {name} does not say what builds it: give it {attribute} = "module:Class"'
        )
    with _under_its_own_name(own_file(name, folder), served):
        return load(table, base, getattr(served, attribute), key, folder)


@contextlib.contextmanager
def _under_its_own_name(path: Path, served: Type[Any]) -> Iterator[None]:
    """While the building half is loaded, it may import the serving half: the same module, no other copy."""
    module = sys.modules[served.__module__]
    before = sys.modules.get(path.stem)
    if module.__name__.startswith(f"{path.stem}_"):  # not where the file only imports the class
        sys.modules[path.stem] = module
    try:
        yield
    finally:
        sys.modules.pop(path.stem, None)
        if before is not None:
            sys.modules[path.stem] = before


def _files(settings: Settings, beside: Path) -> Iterator[Tuple[str, Path]]:
    """Each key of the recipe that names a file beside it, and that file."""
    for key in ("task", "backend"):
        name = getattr(settings, key)
        if is_own(name):
            yield key, own_file(name, beside)


def _means_another(path: Path) -> bool:
    """Whether a module of this name is part of Python, of an archive, or installed."""
    if path.stem in (*TRAVEL, "bucketed_handler", *sys.builtin_module_names):
        return True
    own = {path.parent.resolve(), Path.cwd()}
    elsewhere = [entry for entry in sys.path if Path(entry).resolve() not in own]
    return PathFinder.find_spec(path.stem, elsewhere) is not None


def _imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, in functions too. None where it is no Python: loading it says so."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
