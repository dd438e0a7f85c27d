"""Writes files that hold the same tensors so that each is stored once (see `backends.parts`).

TorchScript files are zip archives with their tensors stored as they are. Spans of bytes that occur again are
found by their digest, and a file becomes a list of spans: of what is shared, and of its own rest.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Tuple

from anyshape.archive import sha256
from anyshape.backends.parts import INDEX, SHARED

LEAST = 4096  # bytes; smaller tensors stay in their file
_HEADER = 30  # bytes of a zip entry before its name


def write_parts(files: Dict[str, Path], folder: Path) -> None:
    """Store `files`, by the names that they will have, in `folder`. Tensors that several of them hold are
    stored once."""
    index: Dict[str, Any] = {}
    places: Dict[str, Tuple[int, int]] = {}
    with (folder / SHARED).open("wb") as shared:
        for name, path in files.items():
            spans: List[Tuple[str, int, int]] = []
            with path.open("rb") as file, (folder / name).open("wb") as own:
                at = 0
                for start, length in [*_stored(path), (path.stat().st_size, 0)]:
                    if start > at:
                        file.seek(at)
                        spans.append(("own", own.tell(), own.write(file.read(start - at))))
                    if length:
                        file.seek(start)
                        data = file.read(length)
                        digest = hashlib.sha256(data).hexdigest()
                        if digest not in places:
                            places[digest] = (shared.tell(), shared.write(data))
                        spans.append(("shared", *places[digest]))
                    at = start + length
            index[name] = {"spans": spans, "sha256": sha256(path)}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def _stored(path: Path) -> List[Tuple[int, int]]:
    """Start and length of each large entry of a zip archive that is stored as it is, rising."""
    found = []
    with zipfile.ZipFile(path) as packed, path.open("rb") as file:
        for entry in packed.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size < LEAST:
                continue
            file.seek(entry.header_offset)
            header = file.read(_HEADER)
            name, extra = struct.unpack("<HH", header[26:30])
            found.append((entry.header_offset + _HEADER + name + extra, entry.file_size))
    return sorted(found)
