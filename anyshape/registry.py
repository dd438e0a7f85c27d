"""Finds the strategies: every class with a `name` in the modules of a package.

Adding a task or a backend means adding one file; nothing lists them.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Dict, List, Type, TypeVar

from anyshape.errors import ConfigError

Strategy = TypeVar("Strategy")


def discover(package: str, base: Type[Strategy]) -> Dict[str, Type[Strategy]]:
    """Import every module of `package` and return the named subclasses of `base`, by name."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
    found: Dict[str, Type[Strategy]] = {}
    waiting: List[Type[Strategy]] = [base]
    while waiting:
        cls = waiting.pop()
        waiting.extend(cls.__subclasses__())
        name = cls.__dict__.get("name", "")
        if name:
            found[name] = cls
    return found


def find(package: str, base: Type[Strategy], name: str, key: str) -> Type[Strategy]:
    """The strategy called `name`. Raises ConfigError that lists what there is; `key` is the recipe's."""
    found = discover(package, base)
    if name not in found:
        raise ConfigError(f"handler.{key} must be one of {', '.join(sorted(found))}, not {name!r}")
    return found[name]
