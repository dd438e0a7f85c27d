"""The serving half, for the worker: WAV files or lists of numbers into waveforms, logits into labels."""

from __future__ import annotations

import io
import json
import wave
from pathlib import Path
from typing import Any, List, Sequence

import numpy as np

from anyshape.bodies import Body
from anyshape.errors import BadRequest, InputTooLarge, Refused, UnprocessableInput
from anyshape.items import Item, ItemOrRefused, Row
from anyshape.padding import MASK, InputSpec
from anyshape.settings import Settings
from anyshape.tasks.base import Parameters, Task, positive_int_or_none, top_classes

SAVED = "audio.json"


class AudioClassification(Task):
    """Classes of a waveform, best first: the best one, or `top_k` of them."""

    name = "audio-classification"
    builder = "audio_building:AudioBuilder"
    body = Body(
        "a recording",
        'send a WAV file as the body, or in JSON {"inputs": "<base64>"} or {"inputs": [[0.1, -0.2, ...]]}',
        kinds=("audio/",),
        values=True,  # an input in JSON may be a list of numbers, too
    )
    parameters = {"top_k": positive_int_or_none}

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        saved = json.loads((folder / SAVED).read_text(encoding="utf-8"))
        self.rate: int = saved["rate"]
        self.labels: List[str] = saved["labels"]
        self.inputs = (
            InputSpec("waveform", "float32"),  # what an item brings, then zeros
            InputSpec("mask", "int64", MASK),  # ones over the item, zeros over the padding
        )

    def read(self, inputs: Sequence[Any], parameters: Sequence[Parameters]) -> List[ItemOrRefused]:
        return [self._read_one(value) for value in inputs]

    def _read_one(self, value: Any) -> ItemOrRefused:
        try:
            samples = self._wav(value) if isinstance(value, bytes) else self._numbers(value)
        except Refused as error:  # this input's alone: its neighbours are answered
            return error
        return Item((len(samples),), {"waveform": samples})

    def _wav(self, raw: bytes) -> Any:
        """The samples of a WAV file, from -1 to 1. What its header says is checked before they are read."""
        try:
            with wave.open(io.BytesIO(raw)) as file:
                if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, self.rate):
                    raise UnprocessableInput(
                        f"a recording must have 1 channel, 16 bits and {self.rate} samples a second, not "
                        f"{file.getnchannels()}, {8 * file.getsampwidth()} and {file.getframerate()}"
                    )
                count = self._checked(file.getnframes())
                frames = file.readframes(count)
        except (wave.Error, EOFError, RuntimeError) as error:  # the last for parts longer than the file
            said = str(error) or "it ends too early"
            raise BadRequest(f"the recording is no WAV file of 16-bit PCM that can be read: {said}") from None
        if len(frames) != 2 * count:
            raise BadRequest(f"the recording is cut off: {len(frames) // 2} of its {count} samples are there")
        return np.frombuffer(frames, "<i2").astype(np.float32) / np.float32(32768)

    def _numbers(self, value: Any) -> Any:
        if not isinstance(value, list):
            raise UnprocessableInput(
                'a recording must be base64 or a list of numbers, as in {"inputs": [[0.1]]}'
            )
        self._checked(len(value))
        if not all(type(number) in (int, float) and abs(number) <= 1 for number in value):
            raise UnprocessableInput("a recording as a list must hold numbers from -1 to 1 alone")
        return np.array(value, dtype=np.float32)

    def _checked(self, count: int) -> int:
        """A number of samples that some bucket takes."""
        (largest,) = self.buckets[-1]
        if count > largest:
            raise InputTooLarge(
                f"the recording has {count} samples, and the largest bucket takes {largest}: "
                f"send at most {largest / self.rate:g} seconds"
            )
        if count < 1:
            raise UnprocessableInput("the recording has no samples")
        return count

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Any:
        """One label with its score, or a list of them where the request asks for `top_k`."""
        answers = top_classes(row[0], self.labels, parameters.get("top_k", 1), "softmax")
        return answers if "top_k" in parameters else answers[0]
