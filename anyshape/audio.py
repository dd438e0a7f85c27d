"""Recordings from outside: refused by their header before they are decoded, or decoded into samples."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from anyshape.errors import BadRequest, ConfigError, InputTooLarge, UnprocessableInput

try:
    import soundfile
    import soxr
except ImportError as error:  # only who serves audio needs them
    raise ConfigError(
        f"audio needs {error.name}, which is not installed: pip install 'anyshape[audio]', or in a clone "
        "pip install -r requirements/audio.txt"
    ) from None

# Told by their first bytes: of all that libsndfile reads, these alone are looked at.
FORMATS = "WAV and FLAC"
CHANNELS = 8  # FLAC's most; a WAV file's header may say 65535
_BLOCK = 65536  # frames that are decoded at once


@dataclass
class Recording:
    """A recording of which only the header was read. rate: samples a second; frames: samples of a channel, as
    the header says; None where it does not."""

    file: Any
    rate: int
    channels: int
    frames: Any


def is_known(raw: bytes) -> bool:
    """Whether bytes begin as a WAV or FLAC file does."""
    wave = raw[:4] in (b"RIFF", b"RF64", b"RIFX") and raw[8:12] == b"WAVE"
    return wave or raw[:4] == b"fLaC"


def open_recording(raw: bytes) -> Recording:
    """Read a recording's header. Raises BadRequest if it is none, UnprocessableInput for what is not read."""
    if not is_known(raw):
        raise BadRequest(f"the body is not a recording that can be read; known formats: {FORMATS}")
    missing = _riff_bytes(raw) - len(raw)
    if missing > 0:  # libsndfile takes what there is for all of it
        raise BadRequest(f"the recording is cut off: {missing} bytes are missing at its end")
    try:
        file = soundfile.SoundFile(io.BytesIO(raw))
    except Exception as error:  # files from outside make libsndfile complain in many ways
        raise BadRequest(f"the recording cannot be read: {_said(error)}") from None
    if file.channels > CHANNELS:
        raise UnprocessableInput(
            f"the recording has {file.channels} channels, more than the {CHANNELS} that are read"
        )
    # A FLAC stream need not say how long it is: libsndfile then gives the largest number that it has.
    frames = int(file.frames) if 0 < file.frames < 2**62 else None
    if frames is None and raw[:4] != b"fLaC":
        frames = 0
    return Recording(file, int(file.samplerate), int(file.channels), frames)


def _riff_bytes(raw: bytes) -> int:
    """How long a RIFF file says it is; 0 where it does not know, as one that was written to a pipe."""
    if raw[:4] not in (b"RIFF", b"RIFX"):
        return 0
    size = int.from_bytes(raw[4:8], "little" if raw[:4] == b"RIFF" else "big")
    return size + 8 if size < 0xFFFFFF00 else 0


def decode(recording: Recording, most: int, cuts: bool = False) -> Any:
    """The samples, float32 from -1 to 1, the mean of the channels. Never decodes many more than `most`; with
    `cuts`, the rest is left out.

    Raises BadRequest if the file is damaged or cut off, InputTooLarge for more than `most` samples, and
    UnprocessableInput if one is not a number.
    """
    parts, count = [], 0
    try:
        with recording.file as file:
            while True:
                block = file.read(_BLOCK, dtype="float32", always_2d=True)
                count += len(block)
                if count > most and not cuts:
                    raise InputTooLarge(f"the recording has more than {most} samples")
                parts.append(block.mean(axis=1, dtype=np.float32) if block.shape[1] > 1 else block[:, 0])
                if len(block) < _BLOCK or count > most:
                    break
    except InputTooLarge:
        raise
    except Exception as error:
        raise BadRequest(f"the recording is damaged: {_said(error)}") from None
    if count <= most and recording.frames not in (None, count):
        raise BadRequest(f"the recording is cut off: {count} of its {recording.frames} samples are there")
    samples = np.concatenate(parts)[:most]
    if not np.isfinite(samples).all():  # a float WAV may hold anything
        raise UnprocessableInput("the recording has samples that are not numbers (NaN or infinite)")
    return samples


def resample(samples: Any, rate: int, wanted: int) -> Any:
    """Samples at another rate, float32: band-limited, by soxr at its high quality."""
    return np.asarray(soxr.resample(samples, rate, wanted, quality="HQ"), dtype=np.float32)


def _said(error: Exception) -> str:
    said = str(error).partition(": ")[2] or str(error) or type(error).__name__
    return " ".join(said.split())[:200]
