"""Files from outside: what they decode to, and that hostile ones are refused before their pixels exist."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from anyshape.errors import BadRequest, InputTooLarge, Refused, UnprocessableInput
from anyshape.images import decode, normalise, open_picture, resize
from tests.image_models import encoded, photograph

LIMIT = 50_000_000
ORIENTATION = 0x0112


def read(raw: bytes, channels: int = 3) -> np.ndarray:
    return decode(open_picture(raw, LIMIT), channels)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def webp(width: int, height: int) -> bytes:
    """A WebP whose canvas is larger than the picture in it."""
    sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + sides
    body += encoded(Image.new("RGB", (16, 16)), "WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def with_sides(raw: bytes, at: int, form: str, width: int, height: int) -> bytes:
    sides = struct.pack(form, width, height)
    return raw[:at] + sides + raw[at + len(sides) :]


SMALL = Image.fromarray(np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3) * 3)


@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_ppm_is_refused_by_its_name(mode: str) -> None:
    with pytest.raises(BadRequest, match="PPM, PGM and PBM pictures are not read; known formats: JPEG, PNG"):
        open_picture(encoded(SMALL.convert(mode), "PPM"), LIMIT)


# What is in the file


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_give_the_pixels_that_were_saved(format: str) -> None:
    picture = photograph("coffee.png", (37, 53))
    options = {"lossless": True} if format == "WEBP" else {}
    pixels = read(encoded(picture, format, **options))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.asarray(picture))


def test_jpeg_gives_what_pillow_decodes() -> None:
    raw = encoded(photograph("coffee.png", (37, 53)), "JPEG")
    np.testing.assert_array_equal(read(raw), np.asarray(Image.open(io.BytesIO(raw))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_and_the_size_is_known_beforehand(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    raw = encoded(photograph("coffee.png", (37, 53)), format, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(raw))))
    picture = open_picture(raw, LIMIT)
    assert picture.size == upright.shape[:2] == ((53, 37) if orientation > 4 else (37, 53))
    np.testing.assert_array_equal(decode(picture, 3), upright)


def test_exif_behind_the_pixels_of_a_png_counts_and_decodes_nothing() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    raw = encoded(SMALL, "PNG")
    late = raw[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + raw[-12:]
    picture = open_picture(late, LIMIT)
    assert picture.size == (4, 6)
    assert picture.file._im is None, "the header alone must not decode the pixels"
    np.testing.assert_array_equal(decode(picture, 3), np.rot90(np.asarray(SMALL), -1))


def test_a_png_without_exif_is_not_decoded_for_its_size() -> None:
    assert open_picture(encoded(SMALL), LIMIT).file._im is None


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_damaged_exif_does_not_spoil_the_picture(exif: bytes) -> None:
    raw = encoded(SMALL, "JPEG", exif=exif)
    assert read(raw).shape == (6, 4, 3)


def test_grey_becomes_three_equal_channels_and_colour_one() -> None:
    grey = SMALL.convert("L")
    pixels = read(encoded(grey))
    assert pixels.shape == (6, 4, 3)
    np.testing.assert_array_equal(pixels[..., 0], np.asarray(grey))
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])
    np.testing.assert_array_equal(read(encoded(SMALL), 1)[..., 0], np.asarray(grey))


def test_one_bit_is_black_and_white() -> None:
    picture = Image.fromarray(np.eye(5, dtype=bool))
    np.testing.assert_array_equal(read(encoded(picture), 1)[..., 0], np.eye(5) * 255)


@pytest.mark.parametrize(
    ("format", "transparency"),
    [("PNG", None), ("PNG", 1), ("PNG", bytes([255, 0, 128, 7])), ("GIF", None), ("GIF", 1)],
)
def test_a_palette_gives_its_colours_transparent_or_not(format: str, transparency: Any) -> None:
    colours = [(10, 20, 30), (200, 100, 0), (0, 255, 7), (90, 90, 90)]
    picture = Image.new("P", (3, 2))
    picture.putdata([0, 1, 2, 3, 2, 1])
    picture.putpalette([value for colour in colours for value in colour])
    options = {} if transparency is None else {"transparency": transparency}
    pixels = read(encoded(picture, format, **options))
    assert [[tuple(p) for p in row] for row in pixels.tolist()] == [
        [colours[0], colours[1], colours[2]],
        [colours[3], colours[2], colours[1]],
    ]
    assert read(encoded(picture, format, **options), 1).shape == (2, 3, 1)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped_not_blended(mode: str) -> None:
    opaque = SMALL if mode == "RGBA" else SMALL.convert("L")
    picture = opaque.copy()
    picture.putalpha(Image.new("L", picture.size, 3))
    np.testing.assert_array_equal(read(encoded(picture)), np.asarray(opaque.convert("RGB")))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_keep_all_of_their_steps(format: str) -> None:
    counts = np.array([[0, 1, 257, 300], [1000, 32768, 65534, 65535]], dtype=np.uint16)
    raw = encoded(Image.fromarray(counts), format)
    grey = read(raw, 1)
    assert grey.dtype == np.float32
    np.testing.assert_array_equal(grey[..., 0], counts)
    rgb = read(raw, 3)
    assert rgb.shape == (2, 4, 3)
    np.testing.assert_allclose(rgb[..., 1], counts / 257, rtol=1e-6)


@pytest.mark.parametrize("orientation", [3, 6])
def test_16_bits_are_turned_upright_too(orientation: int) -> None:
    counts = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    turned = np.rot90(counts, -1 if orientation == 6 else 2)
    np.testing.assert_array_equal(read(encoded(Image.fromarray(counts), exif=exif), 1)[..., 0], turned)


def test_a_float_tiff_keeps_its_counts() -> None:
    counts = np.array([[-3.5, 0.0], [1e5, 0.25], [7, 8]], dtype=np.float32)
    raw = encoded(Image.fromarray(counts), "TIFF")
    np.testing.assert_array_equal(read(raw, 1)[..., 0], counts)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_float_tiff_with_pixels_that_are_no_numbers_is_refused(value: float) -> None:
    counts = np.full((3, 3), value, dtype=np.float32)
    with pytest.raises(UnprocessableInput, match="not numbers"):
        read(encoded(Image.fromarray(counts), "TIFF"), 1)


def test_a_cmyk_jpeg_is_converted_as_pillow_does() -> None:
    raw = encoded(photograph("coffee.png", (37, 53)).convert("CMYK"), "JPEG")
    np.testing.assert_array_equal(read(raw), np.asarray(Image.open(io.BytesIO(raw)).convert("RGB")))


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_of_several_frames_the_first_counts(format: str) -> None:
    red, blue = Image.new("RGB", (8, 5), (250, 0, 0)), Image.new("RGB", (8, 5), (0, 0, 250))
    options = {} if format == "MPO" else {"lossless": True}
    if format in ("GIF", "TIFF"):
        options = {}
    pixels = read(encoded(red, format, save_all=True, append_images=[blue], **options))
    assert pixels.shape == (5, 8, 3)
    assert (pixels[..., 0] > 240).all()
    assert (pixels[..., 2] < 10).all()


# What must be refused


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not a picture",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"GIF89a",
        b"RIFF\0\0\0\0WEBP",
        b"BM",
        b"II*\0\x08\0\0\0",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"P6 2 2 255\n123456789abc",
        png(0, 5),
        png(5, 0),
        png(0, 0),
    ],
)
def test_what_is_no_picture_is_a_bad_request(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        read(raw)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("part", [0.05, 0.3, 0.6, 0.95])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")
def test_a_picture_that_was_cut_off_is_a_bad_request(format: str, part: float) -> None:
    raw = encoded(photograph("coffee.png", (67, 83)), format)
    with pytest.raises(BadRequest):
        read(raw[: int(len(raw) * part)])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]), st.data())
def test_a_damaged_file_is_read_or_refused_nothing_else(format: str, data: st.DataObject) -> None:
    raw = bytearray(DAMAGED[format])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, min(len(raw), 300) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture = open_picture(bytes(raw), 10_000)
        answer: Any = decode(picture, 3).shape
        allowed: Any = [(*picture.size, 3)]
    except Refused as error:
        answer, allowed = error.code, (400, 413, 422)
    assert answer in allowed


DAMAGED = {
    format: encoded(photograph("coffee.png", (21, 34)), format)
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
}


@contextmanager
def little_memory(megabytes: int = 20) -> Iterator[None]:
    """Fails if resident memory rises above what it was by more than so many megabytes, however briefly."""

    def resident(what: str) -> int:
        found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found is not None
        return int(found[1])

    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    yield
    assert resident("VmHWM") - before < megabytes * 1000


def test_little_memory_notices_a_brief_peak() -> None:
    with pytest.raises(AssertionError), little_memory():
        np.ones(100_000_000, np.uint8).sum()


BOMBS = {
    "PNG": png(60000, 60000, chunk(b"IDAT", zlib.compress(bytes(100_000)))),
    "WEBP": webp(60000, 60000),
    "GIF": with_sides(encoded(SMALL, "GIF"), 6, "<HH", 60000, 60000),
    "BMP": with_sides(encoded(SMALL, "BMP"), 18, "<ii", 60000, 60000),
    "over the limit only": png(10000, 6000, chunk(b"IDAT", zlib.compress(bytes(1000)))),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_its_pixels_are_allocated(name: str) -> None:
    with little_memory(), pytest.raises(InputTooLarge, match=str(LIMIT)):
        open_picture(BOMBS[name], LIMIT)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_refusal_names_the_size_and_the_limit() -> None:
    with pytest.raises(InputTooLarge, match=r"9000 x 12000 = 108000000 pixels .* limit of 50000000"):
        open_picture(png(12000, 9000), LIMIT)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_a_bomb_in_a_text_chunk_is_refused(kind: bytes) -> None:
    text = zlib.compress(bytes(200_000_000), 9)
    data = b"Comment\0\0" + text if kind == b"zTXt" else b"Comment\0\1\0\0\0" + text
    picture = encoded(SMALL)
    bomb = picture[:33] + chunk(kind, data) + picture[33:]
    with little_memory(), pytest.raises(BadRequest):
        read(bomb)


def test_many_text_chunks_are_refused_when_they_add_up() -> None:
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK - 10)))
    picture = encoded(SMALL)
    with pytest.raises(BadRequest):
        read(picture[:33] + text * 70 + picture[33:])


# Arithmetic


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.booleans())
def test_normalising_is_rescale_minus_mean_over_std(
    height: int, width: int, channels: int, deep: bool
) -> None:
    noise = np.random.default_rng(height * 41 + width)
    pixels = noise.integers(0, 256, (height, width, channels)).astype(np.float32 if deep else np.uint8)
    mean, std = noise.random(channels) + 0.1, noise.random(channels) + 0.1
    expected = ((pixels.astype(np.float64) / 255 - mean) / std).transpose(2, 0, 1)
    scale = (1 / 255 / std).astype(np.float32).reshape(-1, 1, 1)
    values = normalise(pixels, scale, (-mean / std).astype(np.float32).reshape(-1, 1, 1))
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    np.testing.assert_allclose(values, expected, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_floats_and_bytes_agrees(channels: int) -> None:
    pixels = np.asarray(photograph("coffee.png", (60, 80)))[..., :channels]
    small = resize(pixels, (23, 31))
    assert small.shape == (23, 31, channels)
    assert small.dtype == np.uint8
    np.testing.assert_allclose(resize(pixels.astype(np.float32), (23, 31)), small, atol=1.01)
