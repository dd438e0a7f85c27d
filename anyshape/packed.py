"""Reads packed archives, the .mar files of a model store. No other file opens one.

read_packed(Path("model_store/minilm.mar")).index.buckets     # what inspect, report and plan say of it
unpack(Path("model_store/minilm.mar"), folder)                # what loading it needs
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Container, Dict, Iterator

from anyshape.errors import ConfigError
from anyshape.recipe import Recipe, parse_yaml

INDEX, RECIPE, MANIFEST = "buckets.json", "model-config.yaml", "MAR-INF/MANIFEST.json"
TEXTS = (".py", ".json", ".yaml", ".txt", ".md")
SMALL = 1 << 20  # bytes: what is no larger may be packed as tightly as it likes
TEXT_RATIO = 200  # no text of a person or a tokenizer shrinks so far
RATIO = 1100  # deflate packs 1032 bytes into one at most
BLOCK = 1 << 20


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


def read_manifest(path: Path) -> Dict[str, Any]:
    """What a .mar's manifest says of the model, of whatever handler. Raises ConfigError where it has none."""
    with opened(path) as packed:
        return dict(json.loads(packed.read(MANIFEST))["model"])


def unpacked_bytes(packed: zipfile.ZipFile) -> int:
    """What all files of an archive take on a disk."""
    return sum(info.file_size for info in packed.infolist())


def check_sizes(packed: zipfile.ZipFile) -> None:
    """Raise ConfigError where a file says that it unpacks to absurdly more than is there. Reads no file."""
    for info in packed.infolist():
        most = TEXT_RATIO if info.filename.endswith(TEXTS) else RATIO
        if info.file_size > SMALL and info.file_size > most * info.compress_size:
            raise ConfigError(
                f"{packed.filename}: {info.filename!r} unpacks {info.compress_size} bytes to "
                f"{info.file_size}, as no file of an archive does: refused"
            )


def read_through(packed: zipfile.ZipFile, hashed: Container[str] = ()) -> Dict[str, str]:
    """Compare every file with its CRC-32 and the size that it declares; the sha256 of those in `hashed`.

    Raises ConfigError, which names the file.
    """
    found = {}
    for info in packed.infolist():
        digest, size = hashlib.sha256(), 0
        asked = copy.copy(info)
        asked.file_size += 1  # zipfile stops at what is declared: a byte more shows that there is more
        try:
            with packed.open(asked) as file:
                for block in iter(lambda: file.read(BLOCK), b""):
                    size += len(block)
                    if info.filename in hashed:
                        digest.update(block)
        except zipfile.BadZipFile:
            raise ConfigError(f"{packed.filename} is damaged, in {info.filename!r}") from None
        if size != info.file_size:
            raise ConfigError(
                f"{packed.filename} is damaged, in {info.filename!r}: it is not of the size that it declares"
            )
        if info.filename in hashed:
            found[info.filename] = digest.hexdigest()
    return found


def unpack(path: Path, folder: Path) -> None:
    """Unpack a .mar below `folder`, which exists.

    Raises ConfigError if it is no archive, damaged, or larger than the disk.
    zipfile keeps every file below `folder`, whatever its name says.
    """
    with opened(path) as packed:
        check_kind(path, packed)
        check_sizes(packed)
        needed = unpacked_bytes(packed)
        if needed > shutil.disk_usage(folder).free:
            raise ConfigError(f"{path} unpacks to {needed} bytes, more than the disk has free")
        packed.extractall(folder)


def check_kind(path: Path, packed: zipfile.ZipFile) -> None:
    """Raise ConfigError where an open archive is none of bucketed models."""
    if INDEX not in packed.namelist():
        raise ConfigError(f"{path} is cut off, or no archive of bucketed models: no {INDEX} in it")
