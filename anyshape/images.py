"""Pictures from outside: refused before their pixels are allocated, or decoded into arrays."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from anyshape.buckets import Size
from anyshape.errors import BadRequest, InputTooLarge, Refused, UnprocessableInput
from anyshape.image_work import Counted, check_work, most_reads

# What Pillow reads with compiled code: no outside programs, no vector formats, no loops in Python. Not PPM:
# its header is read byte by byte in Python, and a comment in it may be as long as the body.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_PPM = re.compile(rb"P[1-7Ff]\s")
_ORIENTATION = 0x0112
_UPRIGHT = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)

Image.init()  # here, so that the first request does not wait for Pillow's imports


@dataclass
class Picture:
    """A picture of which only the header was read. size: (height, width) as people see it, upright."""

    file: Any
    size: Size
    turn: Any = None  # what makes it upright: one of Pillow's transpositions, or None


def open_picture(raw: bytes, max_pixels: int) -> Picture:
    """Read a picture's header. Of several frames or pages, the first one counts.

    Raises BadRequest if it is not a picture, InputTooLarge if it has more than `max_pixels`,
    UnprocessableInput if reading it would take too much work.
    """
    check_work(raw)
    # Files from outside make Pillow raise errors of every kind; none of them may reach the neighbours.
    try:
        file = Image.open(Counted(raw), formats=FORMATS)
    except Refused:
        raise
    except Image.DecompressionBombError as error:
        raise InputTooLarge(f"the picture has more than {max_pixels} pixels: {error}") from None
    except Exception:
        known = ", ".join(FORMATS)
        if _PPM.match(raw):
            raise BadRequest(f"PPM, PGM and PBM pictures are not read; known formats: {known}") from None
        raise BadRequest(f"the body is not a picture that can be read; known formats: {known}") from None
    width, height = file.size
    if width * height > max_pixels:
        raise InputTooLarge(
            f"the picture has {height} x {width} = {width * height} pixels (height x width), more than the "
            f"limit of {max_pixels}"
        )
    if file.format == "TIFF":  # Pillow turns it upright itself, and says its upright size
        return Picture(file, (height, width))
    orientation = _orientation(file, raw)
    size = (width, height) if orientation in _SIDEWAYS else (height, width)
    return Picture(file, size, _UPRIGHT.get(orientation))


def _orientation(file: Any, raw: bytes) -> Any:
    try:
        if file.format == "PNG" and "exif" not in file.info:
            late = _png_exif(raw)
            if late is not None:
                file.info["exif"] = late
        # Not file.getexif(): a PNG's decodes the pixels to look for EXIF behind them.
        return Image.Image.getexif(file).get(_ORIENTATION)
    except Exception:  # damaged EXIF is no reason to refuse a picture
        return None


def _png_exif(raw: bytes) -> Any:
    """The EXIF of a PNG, wherever it stands, without the pixels before it."""
    at = 8
    for _ in range(most_reads(raw)):
        if at + 8 > len(raw):
            break
        length, kind = struct.unpack_from(">I4s", raw, at)
        if kind == b"eXIf":
            return raw[at + 8 : at + 8 + length]
        at += length + 12
    return None


def decode(picture: Picture, channels: int) -> Any:
    """The upright pixels of a picture, uint8 or float32 ``[height, width, channels]``.

    Three channels: RGB, alpha dropped (as Hugging Face pipelines do), 16 bits scaled to 0..255 without
    losing precision. One channel: grey, as the file has it; 16-bit and float files keep their counts.
    Raises BadRequest if the file is cut off or broken, UnprocessableInput if a pixel is not a number.
    """
    try:
        picture.file.load()
        picture.file.info.pop("transparency", None)  # alpha is dropped; convert() need not translate it
        upright = picture.file if picture.turn is None else picture.file.transpose(picture.turn)
        pixels = _rgb(upright) if channels == 3 else _grey(upright)
        if pixels.shape[:2] != picture.size:
            raise ValueError(f"its header says {picture.size} (height, width), it has {pixels.shape[:2]}")
    except Refused:
        raise
    except Exception as error:
        raise BadRequest(f"the picture is damaged: {str(error) or type(error).__name__}") from None
    finally:
        picture.file.close()
    return pixels


def _rgb(picture: Any) -> Any:
    if _is_deep(picture):
        grey = _counts(picture)
        if picture.mode != "F":
            grey /= np.float32(257)  # 65535 becomes 255
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _grey(picture: Any) -> Any:
    if _is_deep(picture):
        return _counts(picture)[..., None]
    return np.asarray(picture if picture.mode == "L" else picture.convert("L"))[..., None]


def _is_deep(picture: Any) -> bool:
    """Whether there are more than 8 bits to a pixel: convert() would clip them."""
    return picture.mode in ("I", "F") or picture.mode.startswith("I;16")


def _counts(picture: Any) -> Any:
    counts = np.array(picture, dtype=np.float32)
    if not np.isfinite(counts).all():
        raise UnprocessableInput("the picture has pixels that are not numbers (NaN or infinite)")
    return counts


INTERPOLATIONS = tuple(each.name.lower() for each in Image.Resampling)  # as Pillow has them


def resize(pixels: Any, size: Size, interpolation: str = "bilinear") -> Any:
    """Pixels ``[height, width, channels]`` resized to `size` (height, width), with antialiasing.

    One channel or three, uint8 or float32; rounded where they are uint8. interpolation: of INTERPOLATIONS.
    """
    height, width = size
    way = Image.Resampling[interpolation.upper()]
    if pixels.dtype == np.uint8:
        picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
        resized = np.asarray(picture.resize((width, height), way))
        return resized if resized.ndim == 3 else resized[..., None]
    layers = [
        np.asarray(Image.fromarray(layer).resize((width, height), way)) for layer in np.moveaxis(pixels, 2, 0)
    ]
    return np.stack(layers, axis=2)


def normalise(pixels: Any, scale: Any, offset: Any) -> Any:
    """Pixels ``[height, width, channels]`` × scale + offset, float32 ``[channels, height, width]``.

    `scale` and `offset` are float32 ``[channels, 1, 1]``.
    """
    height, width, channels = pixels.shape
    # Written straight into rows of one channel: astype() would keep the interleaved order, and every later
    # pass over it, the copy into the batch too, would stride.
    values = np.empty((channels, height, width), np.float32)
    np.multiply(pixels.transpose(2, 0, 1), scale, out=values)
    values += offset
    return values
