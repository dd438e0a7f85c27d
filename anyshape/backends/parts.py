"""Files that hold the same tensors, stored with one copy of them: each file's bytes are put together when it
is read.

`parts.json` says for every file which spans of `shared.bin` and of its own rest follow each other, and the
sha256 of the whole. What is read is byte for byte what was written, whatever wrote it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Dict

from anyshape.errors import ConfigError

INDEX, SHARED = "parts.json", "shared.bin"


class Parts:
    """The files of a folder. Raises ConfigError if what puts them together is missing or damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.files: Dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{folder / INDEX} cannot be read ({error}): build the archive again") from None

    def read(self, name: str) -> bytes:
        """The whole file. Raises ConfigError if it is not what was written."""
        try:
            entry = self.files[name]
            whole = bytearray()
            with (self.folder / SHARED).open("rb") as shared, (self.folder / name).open("rb") as own:
                for source, start, length in entry["spans"]:
                    file = shared if source == "shared" else own
                    file.seek(start)
                    whole += file.read(length)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{name} cannot be put together ({error!r}): build the archive again") from None
        if hashlib.sha256(whole).hexdigest() != entry["sha256"]:
            raise ConfigError(f"{name} is damaged: its parts do not fit; copy or build it again")
        return bytes(whole)
