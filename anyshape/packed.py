"""Reads packed archives, the .mar files of a model store. No other file opens one.

read_packed(Path("model_store/minilm.mar")).index.buckets     # what inspect, report and plan say of it
unpack(Path("model_store/minilm.mar"), folder)                # what loading it needs
"""

from __future__ import annotations

import shutil
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from anyshape.errors import ConfigError
from anyshape.recipe import Recipe, parse_yaml

INDEX, RECIPE, MANIFEST = "buckets.json", "model-config.yaml", "MAR-INF/MANIFEST.json"


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A .mar, open for reading. What goes wrong inside becomes a ConfigError that names the file."""
    try:
        with zipfile.ZipFile(path) as packed:
            yield packed
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # a damaged header makes zipfile raise nearly anything
        raise ConfigError(f"{path} is cut off or damaged ({error})") from None


def read_recipe(path: Path) -> Recipe:
    """The recipe in a .mar, its buckets settled. Raises ConfigError where it has none of ours."""
    with opened(path) as packed:
        return Recipe.from_mapping(parse_yaml(packed.read(RECIPE), f"{RECIPE} of {path}"))


def unpacked_bytes(packed: zipfile.ZipFile) -> int:
    """What all files of an archive take on a disk."""
    return sum(info.file_size for info in packed.infolist())


def unpack(path: Path, folder: Path) -> None:
    """Unpack a .mar below `folder`. Raises ConfigError if it is no archive, damaged, or larger than the disk.

    zipfile keeps every file below `folder`, whatever its name says.
    """
    with opened(path) as packed:
        check_kind(path, packed)
        needed = unpacked_bytes(packed)
        if needed > shutil.disk_usage(folder).free:
            raise ConfigError(f"{path} unpacks to {needed} bytes, more than the disk has free")
        packed.extractall(folder)


def check_kind(path: Path, packed: zipfile.ZipFile) -> None:
    """Raise ConfigError where an open archive is none of bucketed models."""
    if INDEX not in packed.namelist():
        raise ConfigError(f"{path} is cut off, or no archive of bucketed models: no {INDEX} in it")
