"""Files that are small and keep a decoder at work are refused before they do."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from anyshape.errors import UnprocessableInput
from anyshape.image_work import Counted, most_reads
from tests.image_models import encoded
from tests.test_images import SMALL, chunk, png, read


def jpeg(before: bytes = b"", **options: Any) -> bytes:
    raw = encoded(Image.new("RGB", (64, 64), "tan"), "JPEG", **options)
    return raw[:2] + before + raw[2:]


def scans(times: int) -> bytes:
    """A progressive JPEG with its last scan so many times more."""
    raw = jpeg(progressive=True)
    last = raw[raw.rindex(b"\xff\xda") : -2]
    return raw[:-2] + last * times + raw[-2:]


def rle(runs: int) -> bytes:
    """A BMP of 5000 x 1000 pixels in runs of one."""
    header = struct.pack("<IiiHHIIiiII", 40, 5000, 1000, 1, 8, 1, 2 * runs, 0, 0, 256, 256)
    return b"BM" + struct.pack("<IHHI", 1078 + 2 * runs, 0, 0, 1078) + header + bytes(1024) + b"\1\5" * runs


def tiff(count: int, tag: int = 273, kind: int = 4, big: bool = False) -> bytes:
    """A TIFF that is one pixel wide, each pixel in a strip of its own."""
    form = "<HHQQ" if big else "<HHII"
    tags = [(256, 4, 1, 1), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(tag, kind, count, 500), (278, 4, 1, 1), (279, 3, count, 500 + 4 * count)]
    directory = b"".join(struct.pack(form, *entry) for entry in tags)
    start = b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, len(tags)) if big else b"II*\0\x08\0\0\0\x08\0"
    return (start + directory).ljust(500, b"\0") + bytes(4 * count) + b"\1\0" * count


LABORIOUS = {
    "JPEG segments": (jpeg(b"\xff\xee\0\2" * 10_000), "pieces"),
    "JPEG fill bytes": (jpeg(b"\xff" * 10_000), "pieces"),
    "JPEG junk": (jpeg(b"\xff\0" * 10_000), "pieces"),
    "JPEG scans": (scans(100), "100 scans"),
    "PNG chunks": (png(1, 1, *[chunk(b"abCd", b"")] * 10_000), "pieces"),
    "PNG pixels": (png(1, 1, *[chunk(b"IDAT", b"")] * 10_000), "pieces"),
    "GIF comments": (encoded(SMALL, "GIF").replace(b"\x2c", b"\x21\xfe\0" * 10_000 + b"\x2c", 1), "pieces"),
    "BMP runs": (rle(10_000), "pieces"),
    "TIFF strips": (tiff(20_001), "20000 strips or values"),
    "TIFF strips as bytes": (tiff(20_001, kind=1), "20000 strips or values"),
    "TIFF depths": (tiff(20_001, tag=277), "20000 strips or values"),
    "BigTIFF": (tiff(20_001, big=True), "20000 strips or values"),
}


@pytest.mark.parametrize("name", LABORIOUS)
def test_a_small_file_that_is_much_work_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, what = LABORIOUS[name]
    files: list[Counted] = []
    monkeypatch.setattr("anyshape.images.Counted", lambda raw: files.append(Counted(raw)) or files[-1])
    with pytest.raises(UnprocessableInput, match=f"has more than .*{what}.*save it anew"):
        read(raw)
    assert all(most_reads(raw) - file.left <= most_reads(raw) + 1 for file in files)


@pytest.mark.parametrize(
    "raw",
    [jpeg(b"\xff\xee\0\2" * 1000), scans(80), tiff(5000), png(1, 1, chunk(b"IDAT", zlib.compress(bytes(4))))],
)
def test_what_is_some_work_is_read(raw: bytes) -> None:
    assert read(raw).shape[2] == 3
