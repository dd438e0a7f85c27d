"""What a picture's file may make a decoder do: some small files take minutes, and everybody waits.

Pillow reads headers, chunks and blocks in Python, one after the other, and libjpeg goes through the whole
picture again for every scan. Both are counted, and no file that a camera or a program for pictures has
written comes near the bounds.
"""

from __future__ import annotations

import io
import struct
from typing import Iterator

from anyshape.errors import UnprocessableInput

FEW_READS, BYTES_PER_READ = 5_000, 100  # Pillow may read a file so often, and once more for so many bytes
MOST_SCANS = 100  # of a JPEG; a progressive one has about ten
MOST_VALUES = 20_000  # of one tag of a TIFF; a picture of many rows may have a strip for each
_SCAN = b"\xff\xda"
_TIFF = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")
_BYTES = (1, 2, 6, 7)  # types of tags that Pillow keeps as bytes
_STRIPS = (273, 279, 324, 325)  # where strips and tiles lie and how long they are: counted in any type


class Counted(io.BytesIO):
    """A file in memory that is read from as often as its length allows. Raises UnprocessableInput then."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.most = self.left = most_reads(raw)

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise _laborious(f"more than {self.most} pieces")
        return super().read(size)


def most_reads(raw: bytes) -> int:
    """How often a file may be read from: 100,000 times, a tenth of a second, where it has 10 MB."""
    return FEW_READS + len(raw) // BYTES_PER_READ


def check_work(raw: bytes) -> None:
    """Raise UnprocessableInput for a JPEG of too many scans or a TIFF of too many strips or tiles."""
    if raw[:2] == b"\xff\xd8" and raw.count(_SCAN) > MOST_SCANS:
        raise _laborious(f"more than {MOST_SCANS} scans")
    if raw[:4] in _TIFF and max(_tag_values(raw), default=0) > MOST_VALUES:
        raise _laborious(f"more than {MOST_VALUES} strips or values of one tag")


def _laborious(parts: str) -> UnprocessableInput:
    return UnprocessableInput(
        f"the picture's file has {parts}, too much work to read: save it anew, as a JPEG or PNG"
    )


def _tag_values(raw: bytes) -> Iterator[int]:
    """How many values each tag of a TIFF's first page has, as far as its directory can be read."""
    order, big = "<" if raw[:2] == b"II" else ">", b"+" in raw[2:4]
    head, count, entry = ("Q", "Q", "HHQ") if big else ("I", "H", "HHI")
    try:
        (at,) = struct.unpack_from(order + head, raw, 8 if big else 4)
        (entries,) = struct.unpack_from(order + count, raw, at)
        at += struct.calcsize(order + count)
        for i in range(min(entries, MOST_VALUES)):
            tag, kind, values = struct.unpack_from(order + entry, raw, at + i * (20 if big else 12))
            if tag in _STRIPS or kind not in _BYTES:
                yield values
    except struct.error:  # cut off: Pillow says so
        return
