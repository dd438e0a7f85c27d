"""Strategies by name: a table {name: "module:Class"}, and nothing is imported before it is named.

A recipe may name a class of its own instead, as in `task: my_task:MyTask`: the file my_task.py stands beside
the recipe and is packed into the archive.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any, Mapping, Optional, Type, TypeVar

from anyshape.errors import ConfigError

Strategy = TypeVar("Strategy")
_LOADING = threading.RLock()  # nobody is to see a module that is half loaded


def load(
    table: Mapping[str, str], base: Type[Strategy], name: str, key: str, folder: Optional[Path] = None
) -> Type[Strategy]:
    """The class called `name` in `table`, or the one that ``module:Class`` names in a file of `folder`.

    Raises ConfigError that names the recipe's `key` and lists what there is.
    """
    if name not in table and not is_own(name):
        known = ", ".join(sorted(table))
        raise ConfigError(f"handler.{key} must be one of {known}, or module:Class of your own, not {name!r}")
    module, _, class_name = table.get(name, name).partition(":")
    path = None if name in table else own_file(name, folder or Path())
    if path is not None and not path.is_file():
        raise ConfigError(f"handler.{key}: {name} needs the file {path.name}, which is not in {path.parent}")
    try:
        code = importlib.import_module(module) if path is None else _own_module(path)
        found: Any = getattr(code, class_name)
    except ConfigError:  # it says what it needs
        raise
    except (Exception, SystemExit) as error:  # somebody's own module may raise anything
        said = (str(error).strip() or "it says no more").splitlines()[0]
        raise ConfigError(
            f"handler.{key}: {name} cannot be loaded: {type(error).__name__}: {said}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(f"handler.{key}: {name} is no {base.__module__}.{base.__name__}")
    return found


def is_own(name: str) -> bool:
    """Whether `name` points to a class in a file (``module:Class``) rather than into a table."""
    module, _, class_name = name.partition(":")
    return module.isidentifier() and class_name.isidentifier()


def own_file(name: str, folder: Path) -> Path:
    """Where the file of ``module:Class`` lies."""
    return folder / f"{name.partition(':')[0]}.py"


def _own_module(path: Path) -> ModuleType:
    """The module in a file, under a name by its content: two archives may each have a my_task.py."""
    source = path.read_bytes()
    name = f"{path.stem}_{hashlib.sha256(source).hexdigest()[:12]}"
    with _LOADING:
        if name not in sys.modules:
            module = sys.modules[name] = ModuleType(name)
            module.__file__ = str(path)
            try:
                exec(compile(source, path, "exec"), vars(module))
            except BaseException:
                del sys.modules[name]
                raise
        return sys.modules[name]
