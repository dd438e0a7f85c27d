"""What tasks on recordings share: decoding, resampling, normalising."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch

from anyshape.audio import decode, open_recording, resample
from anyshape.bodies import AUDIO
from anyshape.errors import InputTooLarge, Refused, UnprocessableInput
from anyshape.items import Input, Item, Read
from anyshape.padding import SIZE, InputSpec
from anyshape.settings import Settings
from anyshape.tasks.base import Parameters, Saved, Task
from anyshape.tasks.image_sizes import from_runs

SETTINGS = "audio.json"
TRUNCATE = "truncate"
RATES = (1000, 768_000)  # samples a second that are believed


class AudioTask(Task):
    """Recordings of any length, padded to a bucket of samples: one channel, at the rate of the model.

    options: sampling_rate and normalize (to mean 0 and variance 1, each recording by itself) default to what
    the model brings as attributes (`audio_sampling_rate`, `audio_normalize`) or its feature extractor.
    resample: take recordings at other rates too, and resample them; otherwise they are refused.
    """

    body = AUDIO
    sides = 1
    over_max: ClassVar[Sequence[str]] = ("reject", TRUNCATE)
    options = {"sampling_rate": None, "normalize": None, "resample": False}

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        self.saved = Saved(folder / SETTINGS)
        self.rate: int = self.saved["sampling_rate"]
        self.labels: List[str] = self.saved["labels"]
        self.lengths: Optional[List[int]] = None  # that the model takes, rising, once `examine` knows
        if "lengths" in self.saved:
            self.lengths = from_runs(self.saved["lengths"])
        self.known = set(self.lengths or ())
        self.inputs = (
            InputSpec("input_values", "float32", channels=self.saved["channels"]),
            InputSpec("valid_size", "int64", SIZE),
        )
        self._pool = ThreadPoolExecutor(max(1, torch.get_num_threads()), "decode")

    def read(self, inputs: Sequence[Input], parameters: Sequence[Parameters]) -> List[Read]:
        if len(inputs) == 1:
            return [self._read_one(inputs[0])]
        return list(self._pool.map(self._read_one, inputs))

    def _read_one(self, value: Any) -> Read:
        try:
            samples, rate, count = self._file(value) if isinstance(value, bytes) else self._numbers(value)
            return self._item(samples, rate, count)
        except Refused as error:
            return error

    def _file(self, raw: bytes) -> Tuple[Any, int, int]:
        """The samples of a file, how many there are to a second, and how many the file has."""
        recording = open_recording(raw)
        rate, most, cuts = recording.rate, self._most(recording.rate), self.settings.over_max == TRUNCATE
        self._check_rate(rate)
        if recording.frames is not None:
            self._check_length(recording.frames, rate)
        try:
            samples = decode(recording, most + (rate if cuts else 0), cuts)
        except InputTooLarge:
            raise self._too_long(f"more than {most}", rate) from None
        self._check_length(len(samples), rate)
        return samples, rate, recording.frames or len(samples)

    def _numbers(self, value: Any) -> Tuple[Any, int, int]:
        """A list of numbers at the model's rate, or as Hugging Face's pipelines take it, with its rate."""
        rate = self.rate
        if isinstance(value, Mapping):
            numbers = value.get("array", value.get("raw"))
            if numbers is None or not set(value) <= {"array", "raw", "sampling_rate"}:
                raise UnprocessableInput(
                    'a recording as an object has "array", a list of numbers, and "sampling_rate"'
                )
            rate, value = value.get("sampling_rate", rate), numbers
            if isinstance(rate, bool) or not isinstance(rate, int):
                raise UnprocessableInput('"sampling_rate" must be a whole number of samples a second')
        if not isinstance(value, list):
            raise UnprocessableInput(
                'a recording in JSON must be base64, a list of numbers as in {"inputs": [[0.1, -0.2]]}, or '
                '{"array": [...], "sampling_rate": 16000}'
            )
        self._check_rate(rate)
        self._check_length(len(value), rate)
        if not all(type(number) in (int, float) for number in value):
            raise UnprocessableInput("a recording as a list must hold numbers alone, one for each sample")
        samples = np.asarray(value, dtype=np.float32)
        if not np.isfinite(samples).all():
            raise UnprocessableInput("the recording has samples that are too large to be 32-bit numbers")
        return samples, rate, len(samples)

    def _check_rate(self, rate: int) -> None:
        if rate == self.rate:
            return
        if not self.chosen["resample"]:
            raise UnprocessableInput(
                f"the recording has {rate} samples a second, and the model takes {self.rate}: resample it, "
                "or build the archive with handler.task_options.resample: true"
            )
        if not RATES[0] <= rate <= RATES[1]:
            raise UnprocessableInput(
                f"the recording has {rate} samples a second, which is not between {RATES[0]} and {RATES[1]}"
            )

    def _most(self, rate: int) -> int:
        """The most samples at a rate that some bucket takes."""
        (largest,) = self.buckets[-1]
        return largest * rate // self.rate

    def _check_length(self, count: int, rate: int) -> None:
        if count < 1:
            raise UnprocessableInput("the recording has no samples")
        if self.settings.over_max != TRUNCATE and count > self._most(rate):
            raise self._too_long(str(count), rate)

    def _too_long(self, count: str, rate: int) -> InputTooLarge:
        (largest,) = self.buckets[-1]
        return InputTooLarge(
            f"the recording has {count} samples at {rate} a second, and the largest bucket takes {largest} "
            f"at {self.rate}: send at most {largest / self.rate:g} seconds"
        )

    def _item(self, samples: Any, rate: int, count: int) -> Item:
        (largest,) = self.buckets[-1]
        changed = []
        if rate != self.rate:
            samples, count = resample(samples, rate, self.rate), round(count * self.rate / rate)
            changed.append(f"resampled {rate} to {self.rate} samples a second")
        if len(samples) > largest:
            if self.settings.over_max == TRUNCATE:  # else resampling made one too many
                changed.append(f"{count} samples to {largest}")
            samples = samples[:largest]
        self._check_taken(len(samples))
        return self.item(samples, "; ".join(changed) or None)

    def _check_taken(self, count: int) -> None:
        if self.lengths is None or count in self.known:
            return
        nearest = min(self.lengths, key=lambda length: abs(length - count))
        raise UnprocessableInput(
            f"the recording has {count} samples at {self.rate} a second, and the model takes no such length; "
            f"the nearest that it takes is {nearest}"
        )

    def item(self, samples: Any, changed: Optional[str]) -> Item:
        """An item of float32 samples, normalised where the model wants that."""
        if self.saved["normalize"]:
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + np.float32(1e-7))
        return Item((len(samples),), {"input_values": samples.astype(np.float32)}, changed)
