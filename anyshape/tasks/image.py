"""What tasks on pictures share: decoding, fitting, normalising, and models made exact under padding."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch

from anyshape.backends.base import as_tuple, tensors_of
from anyshape.buckets import Bucket, Size, bucket_name, contains, parse_bucket
from anyshape.settings import HandlerConfig
from anyshape.errors import ConfigError, InputTooLarge, RequestError, UnprocessableInput
from anyshape.images import decode, normalise, open_picture, resize
from anyshape.padding import SIZE, InputSpec, Item, PaddingBuffers, crop
from anyshape.tasks.base import Parameters, Row, Task
from anyshape.tasks.image_settings import image_settings
from anyshape.tasks.image_sizes import TakenSizes, first_taken, from_runs, size_to_try, to_runs

SETTINGS = "image.json"
RESIZE, EDGE = "resize", "edge"


class ImageTask(Task):
    """Pictures at their own size, padded to a bucket of (height, width).

    A picture is not shrunk to a model's training size: it goes in as it is, RGB or grey, scaled by
    `rescale` and normalised by `mean` and `std`. Where the model asks for sides that are multiples of
    something (a detector's stride), `fit` says how: `resize` to the nearest multiple, or repeat the `edge`
    pixels and cut them off the answer.

    options: mean, std (one number for each channel, or one for all), rescale, channels (1 or 3) and
    multiple_of default to what the model brings as attributes (`image_mean`, `image_std`, `image_rescale`,
    `image_channels`, `image_multiple_of`), its image processor, or ImageNet's.
    """

    body = "image"
    sides = 2
    over_max = ("reject", "resize")
    auto_class = ""
    outputs = 1  # how many of the model's outputs the answer is made of
    fit = RESIZE
    attributes: Sequence[str] = ("labels",)  # what else the answer needs of the model
    options = {"mean": None, "std": None, "rescale": None, "channels": None, "multiple_of": None}

    def __init__(self, config: HandlerConfig, folder: Path) -> None:
        super().__init__(config, folder)
        self.saved: Dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        self.channels: int = self.saved["channels"]
        self.multiple: int = self.saved["multiple_of"]
        self.smallest: int = self.saved["smallest"]
        self.labels: List[str] = self.saved["labels"]
        self.taken: Optional[TakenSizes] = None  # until `examine` has found out
        if "heights" in self.saved:
            self.taken = TakenSizes(from_runs(self.saved["heights"]), from_runs(self.saved["widths"]))
        mean = np.asarray(self.saved["mean"], dtype=np.float32)
        std = np.asarray(self.saved["std"], dtype=np.float32)
        self._scale = (np.float32(self.saved["rescale"]) / std).reshape(-1, 1, 1)
        self._offset = (-mean / std).reshape(-1, 1, 1)
        self.inputs = (
            InputSpec("pixel_values", "float32", channels=self.channels),
            InputSpec("valid_size", "int64", SIZE),
        )
        self._pool = ThreadPoolExecutor(max(1, torch.get_num_threads()), "decode")

    # Building

    @classmethod
    def load_model(cls, config: HandlerConfig, source: Any) -> torch.nn.Module:
        module: torch.nn.Module = source.model(cls.auto_class)
        return module

    @classmethod
    def save(cls, config: HandlerConfig, source: Any, model: torch.nn.Module, folder: Path) -> None:
        settings = image_settings(config.task_options, model, source.image_processor())
        for name in cls.attributes:
            settings[name] = getattr(model, name, None)
        settings["labels"] = config.labels or settings["labels"] or _config_labels(model)
        step: int = settings["multiple_of"]
        for bucket in config.buckets:
            if any(side % step for side in bucket):
                raise ConfigError(
                    f"handler.buckets: the sides of {list(bucket)} must be multiples of {step}, for this "
                    "model takes no others"
                )
            _must_take(model, settings["channels"], parse_bucket(bucket))
        settings["smallest"] = step
        (folder / SETTINGS).write_text(json.dumps(settings, indent=1), encoding="utf-8")

    def examine(self, model: torch.nn.Module, reference: torch.nn.Module, folder: Path) -> None:
        """Run every bucket once, uncompiled: what cannot be exact is named, and the sizes that the unpadded
        model takes are written beside it, those that every bucket agrees on."""
        exact: Any = model.exact
        sides: Tuple[Dict[int, bool], Dict[int, bool]] = ({}, {})
        for bucket in self.buckets:
            tensors = PaddingBuffers(self.inputs).fill(bucket, 1, [self.sample(bucket, 0)])
            with torch.no_grad():
                model(*tensors)
            for known, limit, taken in zip(sides, bucket, (set(exact.heights), set(exact.widths))):
                for side in range(self.multiple, limit + 1, self.multiple):
                    known[side] = known.get(side, True) and side in taken
        heights, widths = ([side for side in sorted(known) if known[side]] for known in sides)

        def takes(side: int) -> bool:
            return _refusal(lambda pixels: reference(pixels, zeros), self.channels, (side, side)) is None

        zeros = torch.zeros(1, 2, dtype=torch.int64)
        both = [side for side in heights if side in widths]
        if both:
            least = first_taken(takes, both) or both[-1]
            heights, widths = ([side for side in each if side >= least] for each in (heights, widths))
        self.smallest = min(*heights, *widths)
        self.taken = TakenSizes(heights, widths)
        self._check_mask(model)
        self.saved.update(smallest=self.smallest, heights=to_runs(heights), widths=to_runs(widths))
        (folder / SETTINGS).write_text(json.dumps(self.saved, indent=1), encoding="utf-8")

    def adapt(self, model: torch.nn.Module, exact: Callable[..., torch.nn.Module]) -> torch.nn.Module:
        return PaddedPictures(exact(model), self.outputs)

    def reference(self, model: torch.nn.Module) -> torch.nn.Module:
        return Pictures(model, self.outputs)

    def _check_mask(self, model: torch.nn.Module) -> None:
        """Where the model's own pixel mask is relied on, its answer must not change with what is outside."""
        exact: Any = model.exact
        item = self.sample(self._within(tuple(side * 2 // 3 for side in self.buckets[0])), 0)
        if not exact.handed_over or item.size == self.buckets[0]:
            return
        tensors = PaddingBuffers(self.inputs).fill(self.buckets[0], 1, [item])
        rows = []
        for exact.noise in (4.0, 0.0):
            with torch.no_grad():
                rows.append(self.unpad(tuple(output[0].numpy() for output in model(*tensors)), item))
        for noisy, clean in zip(*rows):
            if not np.abs(noisy - clean).max() <= self.config.tolerance * np.abs(clean).max():
                raise ConfigError(
                    "handler.model: it takes a pixel_mask, and does not keep padding out with it from "
                    f"{', '.join(exact.handed_over)} on: the answer changes with what is outside a picture"
                )

    def sizes_to_check(self, bucket: Bucket, smaller: Sequence[Bucket]) -> List[Size]:
        """Full, a step less, half and a bit, tall, wide, and one step beyond a smaller bucket."""
        height, width = bucket
        step = self.multiple
        wanted = [
            bucket,
            (height - step, width - step),
            (height // 2 + 1, width),
            (height, width // 2 + 1),
            (height * 2 // 3 - 1, width * 3 // 4),
            (height * 3 // 4, width * 2 // 3 - 1),
        ]
        wanted += [(h + step, w) for h, w in smaller[-1:]]
        sizes = [self._within(tuple(max(step, side // step * step) for side in size)) for size in wanted]
        return sorted({size for size in sizes if contains(bucket, size)}, reverse=True)

    def sample(self, size: Size, seed: int) -> Item:
        noise = np.random.default_rng(seed)
        coarse = noise.integers(0, 256, (size[0] // 16 + 2, size[1] // 16 + 2, self.channels), np.uint8)
        pixels = resize(coarse, size).astype(np.float32) + noise.normal(0, 8, (*size, self.channels))
        return self._item(pixels.astype(np.float32), size, None)

    # Serving

    def read(
        self, inputs: Sequence[Any], parameters: Sequence[Parameters]
    ) -> List[Union[Item, RequestError]]:
        if len(inputs) == 1:
            return [self._read_one(inputs[0])]
        return list(self._pool.map(self._read_one, inputs))

    def _read_one(self, raw: bytes) -> Union[Item, RequestError]:
        try:
            picture = open_picture(raw, self.config.max_pixels)
            target, changed = self._target(picture.size)
            pixels = decode(picture, self.channels)
            if target != picture.size:
                pixels = self._fitted(pixels, target, changed is not None)
            return self._item(pixels, picture.size, changed)
        except RequestError as error:
            return error

    def _target(self, original: Size) -> Tuple[Size, Any]:
        """The size that a picture is given to the model at, and how a policy changed it, or None."""
        target = self._multiple_of(original)
        if min(target) < self.smallest:
            raise UnprocessableInput(
                f"the picture has {original[0]}x{original[1]} pixels (height x width), and the model takes "
                f"no side below {self.smallest}"
            )
        if any(contains(bucket, target) for bucket in self.buckets):
            self._check_taken(original, target)
            return target, None
        if self.config.over_max != RESIZE:
            named = ", ".join(f"{h}x{w}" for h, w in self.buckets)
            raise InputTooLarge(
                f"the picture has {original[0]}x{original[1]} pixels (height x width), and no bucket "
                f"takes it: {named}"
            )
        height, width = original
        scale = max(min(h / height, w / width) for h, w in self.buckets)
        target = self._within(self._multiple_of((round(height * scale), round(width * scale))))
        return target, f"resized {height}x{width} to {target[0]}x{target[1]} pixels"

    def _within(self, size: Size) -> Size:
        """The largest size that the model takes and that is not beyond `size`, or the smallest it takes."""
        if self.taken is None:
            return tuple(max(self.smallest, side) for side in size)
        return self.taken.within(size)

    def _check_taken(self, original: Size, target: Size) -> None:
        if self.taken is None or target in self.taken:
            return
        height, width = original
        given = "" if target == original else f", given to the model as {bucket_name(target)},"
        nearest, step = self.taken.nearest(target), self.taken.step()
        advice = ""
        if step is not None and step != self.multiple:
            advice = f", or build the archive with handler.task_options.multiple_of: {step}"
        raise UnprocessableInput(
            f"the picture has {height}x{width} pixels (height x width){given} and the model takes no such "
            f"size; the nearest that it takes is {bucket_name(nearest)}: send that{advice}"
        )

    def _multiple_of(self, size: Size) -> Size:
        step = self.multiple
        if step == 1:
            return size
        if self.fit == EDGE:
            return tuple(-(-side // step) * step for side in size)
        return tuple(max(step, (side + step // 2) // step * step) for side in size)

    def _fitted(self, pixels: Any, target: Size, shrink: bool) -> Any:
        if self.fit == EDGE and not shrink:
            height, width = pixels.shape[:2]
            return np.pad(pixels, ((0, target[0] - height), (0, target[1] - width), (0, 0)), mode="edge")
        return resize(pixels, target)

    def _item(self, pixels: Any, original: Size, changed: Any) -> Item:
        values = normalise(pixels, self._scale, self._offset)
        return Item(values.shape[1:], {"pixel_values": values}, changed, {"size": original})

    def unpad(self, row: Row, item: Item) -> Row:
        """The outputs without their padding; each comes with its valid height and width behind it."""
        return tuple(_crop(output, size) for output, size in zip(row[: 2 * self.outputs : 2], row[1::2]))


class Pictures(torch.nn.Module):
    """A model called with unpadded pictures. Gives (output, size) pairs; size −1 means: nothing to cut."""

    def __init__(self, model: torch.nn.Module, outputs: int) -> None:
        super().__init__()
        self.model = model
        self.outputs = outputs

    def forward(self, pixel_values: torch.Tensor, valid_size: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        outputs = list(tensors_of(self.model(pixel_values)))[: self.outputs]
        whole = torch.full_like(valid_size, -1)
        return tuple(part for output in outputs for part in (output.float(), whole))


class PaddedPictures(torch.nn.Module):
    """The same for padded pictures: `exact` returns its outputs, then the valid sizes of the spatial ones."""

    def __init__(self, exact: torch.nn.Module, outputs: int) -> None:
        super().__init__()
        self.exact = exact
        self.outputs = outputs

    def forward(self, pixel_values: torch.Tensor, valid_size: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        dtype = next((p.dtype for p in self.exact.parameters()), pixel_values.dtype)
        results = as_tuple(self.exact(pixel_values.to(dtype), valid_size))
        spatial: Sequence[bool] = self.exact.spatial  # type: ignore[assignment]
        sizes = iter(results[len(spatial) :])
        whole = torch.full_like(valid_size, -1)
        pairs: List[torch.Tensor] = []
        for output, is_spatial in list(zip(results, spatial))[: self.outputs]:
            pairs += [output.float(), next(sizes) if is_spatial else whole]
        return tuple(pairs)


def _crop(output: Any, size: Any) -> Any:
    height, width = (int(side) for side in size)
    if height < 0 and width < 0:
        return output
    whole = output.shape[-2:]
    return crop(output, [h if h >= 0 else w for h, w in zip((height, width), whole)], output.ndim - 2)


def _refusal(model: Callable[..., Any], channels: int, size: Size) -> Optional[str]:
    """What a model says to a picture of a size that it does not take, None if it takes it."""
    try:
        with torch.no_grad():
            model(torch.zeros(1, channels, *size))
    except Exception as error:  # models refuse in many ways
        return f"{type(error).__name__}: {(str(error).strip() or 'it says no more').splitlines()[0]}"
    return None


def _must_take(model: Callable[..., Any], channels: int, bucket: Bucket) -> None:
    refusal = _refusal(model, channels, bucket)
    if refusal is None:
        return
    step = size_to_try(lambda size: _refusal(model, channels, size) is None, bucket)
    advice = "say what it takes in handler.task_options.multiple_of, and give buckets of that"
    if step is not None:
        nearest = bucket_name(tuple(-(-side // step) * step for side in bucket))
        advice = f"try {nearest}, and handler.task_options.multiple_of: {step}"
    raise ConfigError(
        f"handler.buckets: the model takes no picture of {bucket_name(bucket)} ({refusal}): {advice}"
    )


def _config_labels(model: Any) -> List[str]:
    by_id = getattr(getattr(model, "config", None), "id2label", None) or {}
    return [str(by_id[i]) for i in sorted(by_id)]
