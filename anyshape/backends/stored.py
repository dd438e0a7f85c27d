"""Where a zip archive, such as torch saves, holds its entries as they are."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import List, Tuple

_HEADER = 30  # bytes of a zip entry before its name


def stored(file: Path, least: int) -> List[Tuple[int, int]]:
    """Start and length of each entry of at least so many bytes that is not compressed, rising."""
    found = []
    with zipfile.ZipFile(file) as packed, file.open("rb") as raw:
        for entry in packed.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size < least:
                continue
            raw.seek(entry.header_offset)
            name, extra = struct.unpack("<HH", raw.read(_HEADER)[26:30])
            found.append((entry.header_offset + _HEADER + name + extra, entry.file_size))
    return sorted(found)
