"""Pictures from outside: refused before their pixels are allocated, or decoded into arrays."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Any, Tuple

import numpy as np
from PIL import Image, ImageOps

from handler.buckets import Size
from handler.errors import BadRequest, InputTooLarge

# What Pillow reads without help from outside programs; no PostScript, no vector formats.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
_ORIENTATION = 0x0112
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    IndexError,
    KeyError,
    struct.error,
    zlib.error,
)


def open_picture(raw: bytes, max_pixels: int) -> Tuple[Any, Size]:
    """Read a picture's header: the picture, not decoded yet, and its (height, width) as people see it.

    Raises BadRequest if it is not a picture, InputTooLarge if it has more than `max_pixels`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; the limit is checked here
            picture = Image.open(io.BytesIO(raw), formats=FORMATS)
    except Image.DecompressionBombError:
        raise InputTooLarge(f"the picture has more pixels than the limit of {max_pixels}") from None
    except _BROKEN:
        known = ", ".join(FORMATS)
        raise BadRequest(f"the body is not a picture that can be read; known formats: {known}") from None
    width, height = picture.size
    if width * height > max_pixels:
        raise InputTooLarge(
            f"the picture has {height} x {width} pixels (height x width), more than the limit of {max_pixels}"
        )
    try:
        turned = picture.getexif().get(_ORIENTATION) in _TRANSPOSED
    except _BROKEN:
        turned = False
    return picture, (width, height) if turned else (height, width)


def decode(picture: Any, channels: int) -> Any:
    """The pixels of an opened picture, uint8 or float32 ``[height, width, channels]``, EXIF applied.

    Three channels: RGB, alpha dropped (as Hugging Face pipelines do), 16 bits scaled to 0..255 without
    losing precision. One channel: grey, as the file has it; 16-bit and float files keep their counts.
    Raises BadRequest if the file is cut off or broken.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = ImageOps.exif_transpose(picture)
            return _rgb(picture) if channels == 3 else _grey(picture)
    except (Image.DecompressionBombError, *_BROKEN) as error:
        reason = str(error) or type(error).__name__
        raise BadRequest(f"the picture is damaged: {reason}") from None


def _rgb(picture: Any) -> Any:
    if _is_deep(picture):
        grey = np.array(picture, dtype=np.float32)
        if picture.mode != "F":
            grey /= np.float32(257)  # 65535 becomes 255
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")
    return np.asarray(picture.convert("RGB"))


def _grey(picture: Any) -> Any:
    if _is_deep(picture):
        return np.asarray(picture, dtype=np.float32)[..., None]
    return np.asarray(picture.convert("L"))[..., None]


def _is_deep(picture: Any) -> bool:
    """Whether there are more than 8 bits to a pixel: convert() would clip them."""
    return picture.mode in ("I", "F") or picture.mode.startswith("I;16")


def resize(pixels: Any, size: Size) -> Any:
    """Pixels ``[height, width, channels]`` resized to `size` (height, width), bilinear with antialiasing."""
    height, width = size
    if pixels.dtype == np.uint8:
        picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
        resized = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        return resized if resized.ndim == 3 else resized[..., None]
    layers = [
        np.asarray(Image.fromarray(layer).resize((width, height), Image.Resampling.BILINEAR))
        for layer in np.moveaxis(pixels, 2, 0)
    ]
    return np.stack(layers, axis=2)
