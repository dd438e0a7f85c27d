"""Texts that every Python brings, to calibrate a text model by: docstrings of the standard library."""

from __future__ import annotations

import importlib
import inspect
import random

MODULES = (
    *("os", "shutil", "pathlib", "random", "statistics", "typing", "threading", "socket", "ssl", "tarfile"),
    *("zipfile", "subprocess", "string", "textwrap", "enum", "dataclasses", "calendar", "codecs", "glob"),
    *("gzip", "io", "locale", "pickle", "queue", "sched", "shlex", "struct", "tempfile", "uuid", "weakref"),
)


def docstrings(count: int = 400) -> list[str]:
    """As many, of all lengths, in an order that stays the same."""
    found: dict[str, None] = {}
    for name in MODULES:
        module = importlib.import_module(name)
        owned = [value for _, value in sorted(vars(module).items()) if getattr(value, "__doc__", None)]
        members = [m for owner in owned if inspect.isclass(owner) for _, m in sorted(vars(owner).items())]
        for one in [module, *owned, *members]:
            text = inspect.getdoc(one) if callable(one) or inspect.ismodule(one) else None
            if text and 3 < len(text.split()) <= 300:
                found[" ".join(text.split())] = None
    texts = list(found)
    random.Random(0).shuffle(texts)
    return texts[:count]
