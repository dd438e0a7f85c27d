"""How a bucketed model is compiled, saved, loaded and run: one small class per file."""

from __future__ import annotations

from typing import Any, Mapping

from anyshape.backends.base import Backend
from anyshape.registry import find


def create_backend(name: str, options: Mapping[str, Any], key: str = "backend") -> Backend:
    """The backend called `name`. Raises ConfigError for a name or an option that does not exist."""
    return find(__name__, Backend, name, key)(options)
