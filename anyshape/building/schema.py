"""The JSON schema of a recipe, for editors: made from the types in `anyshape.recipe`.

    python -m anyshape.building.schema      # what `make schema` does: writes anyshape/recipe.schema.json

An editor that knows YAML then completes keys, shows what each one means and marks what is wrong.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Mapping

import msgspec

import anyshape
from anyshape.backends import BACKENDS
from anyshape.recipe import Recipe
from anyshape.tasks import TASKS

FILE = Path(anyshape.__file__).parent / "recipe.schema.json"
OWN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"  # module:Class, a task or a backend of one's own


def schema() -> Dict[str, Any]:
    """The schema as a mapping: JSON Schema 2020-12, closed below `handler`, open at the top, where
    TorchServe's own keys stand."""
    made: Dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A recipe of anyshape",
        **msgspec.json.schema(Recipe),
    }
    keys = made["$defs"]["Section"]["properties"]
    for key, table in (("task", TASKS), ("backend", BACKENDS)):
        keys[key].update(_one_of(table))
    return made


def _one_of(table: Mapping[str, str]) -> Dict[str, Any]:
    return {"anyOf": [{"enum": sorted(table)}, {"pattern": OWN}]}


def text() -> str:
    """The schema as the file holds it."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(f"written to {FILE}")
