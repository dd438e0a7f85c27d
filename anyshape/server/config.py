"""TorchServe's settings that are used where none are named."""

from __future__ import annotations

from pathlib import Path

NAME = "config.properties"


def usual_config() -> Path:
    """config.properties of the working folder; else the one that ships with the package."""
    package = Path(__file__).resolve().parent
    places = (Path(), package, package.parent.parent)  # installed, it lies here; in a checkout, at the top
    return next((folder / NAME for folder in places if (folder / NAME).is_file()), Path(NAME))
