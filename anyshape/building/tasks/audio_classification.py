"""Classification of recordings: a waveform is a picture one row high, exact under padding like others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch

from anyshape.archive import ASSETS
from anyshape.backends.base import as_tuple
from anyshape.buckets import Bucket, Size
from anyshape.building.errors import first_line
from anyshape.building.exact.steps import Steps
from anyshape.building.outputs import tensors_of
from anyshape.building.tasks.audio_settings import audio_settings
from anyshape.building.tasks.base import Exact, TaskBuilder
from anyshape.building.tasks.taken_sizes import first_taken, to_runs
from anyshape.errors import ConfigError
from anyshape.items import Item
from anyshape.padding import PaddingBuffers
from anyshape.tasks import load_task
from anyshape.tasks.audio import SETTINGS, AudioTask

FUNCTIONS = {"regression": "none", "multi_label_classification": "sigmoid"}  # by a config's problem_type


class AudioClassificationBuilder(TaskBuilder):
    """A model of transformers that takes waveforms, or a function's: ``[batch, length]`` or
    ``[batch, 1, length]`` in, one row of logits out."""

    auto_class = "AutoModelForAudioClassification"
    task: AudioTask

    def save(self, model: Any, folder: Path) -> None:
        config = getattr(model, "config", None)
        settings = audio_settings(self.section.task_options, model, self.source.feature_extractor())
        by_id = getattr(config, "id2label", None) or {}
        labels = self.section.labels or getattr(model, "labels", None)
        settings["labels"] = list(labels or (str(by_id[i]) for i in sorted(by_id)))
        settings["channels"], logits = _layout(model, self.settings.buckets[-1])
        usual = "sigmoid" if logits == 1 else "softmax"
        settings["function"] = FUNCTIONS.get(str(getattr(config, "problem_type", None)), usual)
        (folder / SETTINGS).write_text(json.dumps(settings, indent=1), encoding="utf-8")

    def adapt(self, model: torch.nn.Module, exact: Exact) -> torch.nn.Module:
        return PaddedSignals(exact(model))

    def reference(self, model: torch.nn.Module) -> torch.nn.Module:
        return Signals(model)

    def examine(self, model: torch.nn.Module, reference: torch.nn.Module, folder: Path) -> None:
        """Run every bucket once, uncompiled: what cannot be exact is named, and the lengths that the unpadded
        model takes are written beside it."""
        exact: Any = model.exact
        known: Dict[int, bool] = {}
        for bucket in self.task.buckets:
            tensors = PaddingBuffers(self.task.inputs).fill(bucket, 1, [self.sample(bucket, 0)])
            exact.steps = Steps(exact.model)
            with torch.no_grad():
                model(*tensors)
            dtype = next((p.dtype for p in exact.parameters()), tensors[0].dtype)
            exact.unlike(tuple(tensors[0].shape), dtype)  # which raises for a recording's length
            exact.steps = None
            taken = set(exact.widths)
            for length in range(1, bucket[0] + 1):
                known[length] = known.get(length, True) and length in taken
        lengths = [length for length in sorted(known) if known[length]]

        def takes(length: int) -> bool:
            return _refusal(reference, self.task.inputs[0].shape((length,), 1)) is None

        least = first_taken(takes, lengths) if lengths else None
        if least is None:
            (largest,) = self.task.buckets[-1]
            said = _refusal(reference, self.task.inputs[0].shape((largest,), 1))
            raise ConfigError(f"handler.buckets: the model takes no recording of {largest} samples ({said})")
        saved = {**self.task.saved, "lengths": to_runs([n for n in lengths if n >= least])}
        (folder / ASSETS / SETTINGS).write_text(json.dumps(saved, indent=1), encoding="utf-8")
        task = load_task(self.settings, folder)
        assert isinstance(task, AudioTask)
        self.task = task  # which knows the lengths now

    def sizes_to_check(self, bucket: Bucket, smaller: Sequence[Bucket]) -> List[Size]:
        """Full, one less, two thirds, half and a bit, one more than the bucket before, the least there is."""
        (length,) = bucket
        wanted = [length, length - 1, length * 2 // 3, length // 2 + 1]
        wanted += [smaller[-1][0] + 1] if smaller else [1]
        lengths = self.task.lengths or [length]
        nearest = {min(lengths, key=lambda each: abs(each - size)) for size in wanted}
        return [(size,) for size in sorted(nearest, reverse=True) if size <= length]

    def sample_request(self, bucket: Bucket) -> Optional[Dict[str, Any]]:
        """A chord, half a second long or as long as the bucket."""
        count = min(bucket[0], self.task.rate // 2)
        moments = np.arange(count) / self.task.rate
        chord = sum(np.sin(2 * np.pi * pitch * moments) for pitch in (220.0, 277.2, 329.6)) / 4
        return {"inputs": {"array": np.round(chord, 3).tolist(), "sampling_rate": self.task.rate}}

    def sample(self, size: Size, seed: int) -> Item:
        """Tones in noise, louder and softer."""
        draw = np.random.default_rng([size[0], seed])
        time = np.arange(size[0]) / self.task.rate
        tones = sum(np.sin(2 * np.pi * pitch * time) for pitch in draw.uniform(80, self.task.rate / 3, 4))
        samples = 0.1 * tones * (1 + np.sin(5 * time)) + 0.05 * draw.normal(size=size)
        return self.task.item(samples.astype(np.float32), None)


class Signals(torch.nn.Module):
    """A model called with unpadded waveforms; gives its logits."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_values: torch.Tensor, valid_size: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        return (next(iter(tensors_of(self.model(input_values)))).float(),)


class PaddedSignals(torch.nn.Module):
    """The same for padded ones. Raises ConfigError where the first output has a position for each sample."""

    def __init__(self, exact: torch.nn.Module) -> None:
        super().__init__()
        self.exact = exact

    def forward(self, input_values: torch.Tensor, valid_size: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        dtype = next((p.dtype for p in self.exact.parameters()), input_values.dtype)
        logits = as_tuple(self.exact(input_values.to(dtype), valid_size))[0]
        spatial: Sequence[bool] = self.exact.spatial  # type: ignore[assignment]
        if spatial[0]:
            raise ConfigError(
                "handler.model: its answer has a position for each moment of the recording, and a class is "
                "asked of the whole: let the model pool it"
            )
        return (logits.float(),)


def _refusal(model: Callable[..., Any], shape: Sequence[int]) -> Optional[str]:
    """What a model says to a waveform of a shape, None if it takes it."""
    try:
        with torch.no_grad():
            model(torch.zeros(*shape), torch.full((shape[0], 1), shape[-1]))
    except Exception as error:  # models refuse in many ways
        return first_line(error)
    return None


def _layout(model: torch.nn.Module, bucket: Bucket) -> Tuple[Optional[int], int]:
    """Whether waveforms go in with a dimension of one channel (1) or without (None), and how many logits come
    out. Asked with two of them, for a convolution takes one without a batch as well.

    Raises ConfigError.
    """
    refusals = []
    for channels, shape in ((None, (2, *bucket)), (1, (2, 1, *bucket))):
        try:
            with torch.no_grad():
                logits = next(iter(tensors_of(model(torch.zeros(*shape)))))
        except Exception as error:
            refusals.append(f"{list(shape)}: {first_line(error)}")
            continue
        if logits.dim() == 2 and logits.shape[0] == 2:
            return channels, int(logits.shape[1])
        refusals.append(f"{list(shape)}: it gives {list(logits.shape)}, and not a row of logits for each")
    raise ConfigError(f"handler.model: it takes no waveforms of {'; nor of '.join(refusals)}")
