"""Checked objects out of what JSON or YAML held, and errors that name the key."""

from __future__ import annotations

import re
from typing import Any, List, Type, TypeVar, get_type_hints

import msgspec
from msgspec import Meta, Struct

from anyshape.errors import ConfigError

Shape = TypeVar("Shape", bound=Struct)

_PLACE = re.compile(r"^(?P<said>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_FIELD = re.compile(r"field `(\w+)`")


def convert(value: Any, kind: Type[Shape], where: str = "") -> Shape:
    """`value`, checked, as an object of `kind`.

    Raises ConfigError, which names the key (`where` stands before it), what is allowed and what was found.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(_explained(str(error), value, kind, where)) from None


def _explained(error: str, value: Any, kind: Type[Struct], where: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.handler.threads`" as a sentence about the key."""
    found = _PLACE.match(error)
    assert found is not None
    path = [part for part in re.split(r"\.|(?=\[)", found["path"] or "") if part]
    place = ".".join([*([where] if where else []), *(p for p in path if not p.startswith("["))])
    named = _FIELD.search(found["said"])
    if named and "missing" in found["said"]:
        return f"{place}.{named[1]} is missing".lstrip(".")
    if named and "unknown" in found["said"]:
        known = ", ".join(sorted(_holder(path, kind, value).__struct_fields__))
        return f"{place}.{named[1]} is not a key; known are {known}".lstrip(".")
    for depth in range(len(path), 0, -1):  # the nearest key that says what it must be
        must = _must(path[:depth], kind, value)
        if must:
            name = ".".join([*([where] if where else []), *(p for p in path[:depth] if p[0] != "[")])
            return f"{name} must be {must}, not {_at(value, path[:depth])!r}"
    return f"{place or 'the file'}: {found['said'][0].lower()}{found['said'][1:]}"


def _at(value: Any, path: List[str]) -> Any:
    for part in path:
        if part.startswith("["):
            inside = part[1:-1]
            value = value[int(inside)] if inside.isdigit() else value
        else:
            value = value[part]
    return value


def _holder(path: List[str], kind: Type[Struct], value: Any) -> Type[Struct]:
    """The type that the keys at `path` belong to."""
    for part in path:
        if part.startswith("["):
            continue
        hint = get_type_hints(kind, include_extras=False).get(part)
        options = getattr(hint, "__args__", (hint,))
        kind = next((o for o in options if isinstance(o, type) and issubclass(o, Struct)), kind)
    return kind


def _must(path: List[str], kind: Type[Struct], value: Any) -> str:
    if path[-1].startswith("["):
        return ""
    holder = _holder(path[:-1], kind, value)
    hint = get_type_hints(holder, include_extras=True).get(path[-1])
    for meta in getattr(hint, "__metadata__", ()):
        if isinstance(meta, Meta) and meta.extra and "must" in meta.extra:
            return str(meta.extra["must"])
    return ""
