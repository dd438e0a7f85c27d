"""Writes files that hold the same tensors so that each is stored once (see `backends.parts`).

TorchScript files are zip archives with their tensors stored as they are. Spans of bytes that occur again are
found by their digest, and a file becomes a list of spans: of what is shared, and of its own rest.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, List, Tuple

from anyshape.archive import sha256
from anyshape.backends.parts import INDEX, SHARED
from anyshape.backends.stored import stored

LEAST = 4096  # bytes; smaller tensors stay in their file


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
                for start, length in [*stored(path, LEAST), (path.stat().st_size, 0)]:
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
