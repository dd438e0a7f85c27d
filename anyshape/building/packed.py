"""Reads a packed archive without unpacking it: what inspect, report and plan say of a .mar."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict

from anyshape.archive import INDEX, RECIPE
from anyshape.building.errors import BuildError

MANIFEST = "MAR-INF/MANIFEST.json"


@dataclass(frozen=True)
class Packed:
    """What a .mar holds.

    model: the manifest's. index: buckets.json as it stands. recipe: model-config.yaml's text. files: bytes of
    each, by name.
    """

    model: Dict[str, Any]
    index: Dict[str, Any]
    recipe: str
    files: Dict[str, int]

    @property
    def name(self) -> str:
        return str(self.model["modelName"])

    @property
    def version(self) -> str:
        return str(self.model["modelVersion"])


def read_packed(path: Path) -> Packed:
    """Raises BuildError if the file cannot be read, is damaged, or is no archive of bucketed models."""
    try:
        with zipfile.ZipFile(path) as packed:
            index = json.loads(packed.read(INDEX))
            model = json.loads(packed.read(MANIFEST))["model"]
            recipe = packed.read(RECIPE).decode("utf-8")
            files = {info.filename: info.file_size for info in packed.infolist() if not info.is_dir()}
        if not isinstance(index, dict):
            raise ValueError(f"{INDEX} is not a mapping")
        if not {"modelName", "modelVersion"} <= set(model):
            raise ValueError("its manifest names no model")
    except OSError as error:
        raise BuildError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged header makes zipfile raise nearly anything
        raise BuildError(f"{path} is no archive that this builder reads ({error}): build it again") from error
    return Packed(model, index, recipe, files)
