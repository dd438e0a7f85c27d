"""What tasks on pictures share where archives are built: how they want pictures, which sizes they take."""

from __future__ import annotations

import copy
import inspect
import json
from pathlib import Path
from typing import Any, Callable, ClassVar, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch

from anyshape.archive import ASSETS
from anyshape.buckets import Bucket, Size, bucket_name, contains
from anyshape.building.errors import first_line
from anyshape.building.exact import ExactPadding, UnknownOperation
from anyshape.building.exact.difference import first_difference
from anyshape.building.exact.steps import Steps
from anyshape.building.sample_files import picture
from anyshape.building.tasks.base import Exact, TaskBuilder
from anyshape.building.tasks.image_modules import PaddedPictures, Pictures
from anyshape.building.tasks.image_settings import image_settings
from anyshape.building.tasks.taken_sizes import first_taken, size_to_try, to_runs
from anyshape.errors import ConfigError
from anyshape.images import resize
from anyshape.items import Item
from anyshape.padding import PaddingBuffers
from anyshape.tasks import load_task
from anyshape.tasks.image import SETTINGS, ImageTask


class ImageBuilder(TaskBuilder):
    """Settles how the model wants its pictures, makes it exact under padding, finds the sizes that it takes.

    attributes: what the answer needs of the model, saved with the settings.
    """

    attributes: ClassVar[Sequence[str]] = ("labels",)
    task: ImageTask

    def load_model(self) -> torch.nn.Module:
        model = super().load_model()
        if "interpolate_pos_encoding" in inspect.signature(model.forward).parameters:
            model.register_forward_pre_hook(_at_any_size, with_kwargs=True)
        return model

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        settings = image_settings(self.section.task_options, model, self.source.image_processor())
        for name in self.attributes:
            settings[name] = getattr(model, name, None)
        settings["labels"] = self.section.labels or settings["labels"] or _config_labels(model)
        step: int = settings["multiple_of"]
        for bucket in self.settings.buckets:
            if any(side % step for side in bucket):
                raise ConfigError(
                    f"handler.buckets: the sides of {list(bucket)} must be multiples of {step}, for this "
                    "model takes no others"
                )
            _must_take(model, settings["channels"], bucket)
        settings["smallest"] = step
        (folder / SETTINGS).write_text(json.dumps(settings, indent=1), encoding="utf-8")

    def examine(self, model: torch.nn.Module, reference: torch.nn.Module, folder: Path) -> None:
        """Run every bucket once, uncompiled: what cannot be exact is named, and the sizes that the unpadded
        model takes are written beside it, those that every bucket agrees on."""
        exact: Any = model.exact
        sides: Tuple[Dict[int, bool], Dict[int, bool]] = ({}, {})
        cuts: List[List[int]] = [[0, 0] for _ in range(self.task.outputs)]
        decided: Dict[str, int] = {}
        for bucket in self.task.buckets:
            tensors = PaddingBuffers(self.task.inputs).fill(bucket, 1, [self.sample(bucket, 0)])
            exact.steps = Steps(exact.model)
            with torch.no_grad():
                try:
                    model(*tensors)
                except UnknownOperation as error:
                    way_out = self._at_one_size(model, exact, tensors)
                    raise UnknownOperation(error.operations, way_out) from None
            dtype = next((p.dtype for p in exact.parameters()), torch.float32)
            unlike = exact.unlike(tuple(tensors[0].shape), dtype)
            exact.steps = None
            decided.update(exact.decided)
            for cut, places in zip(cuts, exact.spatial):
                cut[:] = [
                    max(pair) for pair in zip(cut, places or (0, 0))
                ]  # one that is whole here is cut there
            likes = [set(each) - bad for each, bad in zip((exact.heights, exact.widths), unlike)]
            for known, limit, taken in zip(sides, bucket, likes):
                for side in range(self.task.multiple, limit + 1, self.task.multiple):
                    known[side] = known.get(side, True) and side in taken
        heights, widths = ([side for side in sorted(known) if known[side]] for known in sides)
        for taken, least_side in zip((heights, widths), map(min, zip(*self.task.buckets))):
            if not taken or taken[0] > least_side:
                raise ConfigError(_decided(decided))

        def takes(side: int) -> bool:
            return _refusal(lambda pixels: reference(pixels, zeros), self.task.channels, (side, side)) is None

        zeros = torch.zeros(1, 2, dtype=torch.int64)
        both = [side for side in heights if side in widths]
        if both:
            least = first_taken(takes, both) or both[-1]
            heights, widths = ([side for side in each if side >= least] for each in (heights, widths))
        saved = {**self.task.saved, "smallest": min(*heights, *widths)}
        saved.update(heights=to_runs(heights), widths=to_runs(widths), cuts=cuts)
        (folder / ASSETS / SETTINGS).write_text(json.dumps(saved, indent=1), encoding="utf-8")
        task = load_task(self.settings, folder)
        assert isinstance(task, ImageTask)
        self.task = task  # which knows the sizes now
        self._check_mask(model)

    def _at_one_size(self, model: torch.nn.Module, exact: Any, tensors: Sequence[torch.Tensor]) -> str:
        """The way out for a model that is exact where all pictures have its one bucket's size."""
        side, *others = set(self.task.buckets[0])
        if others or len(self.task.buckets) > 1 or self.task.multiple == side:
            return ""
        exact.step = side
        try:
            model(*tensors)
        except Exception:  # then this is no way out
            return ""
        return f". For pictures of {side}x{side} alone, say handler.task_options.multiple_of: {side}"

    def adapt(self, model: torch.nn.Module, exact: Exact) -> torch.nn.Module:
        padded: Any = exact(model)
        padded.step = self.task.multiple
        return PaddedPictures(padded, self.task.outputs)

    def reference(self, model: torch.nn.Module) -> torch.nn.Module:
        return Pictures(model, self.task.outputs)

    def in_double(self, reference: torch.nn.Module) -> Optional[Tuple[torch.nn.Module, torch.nn.Module]]:
        model: Any = copy.deepcopy(reference.model).double()
        return self.adapt(model, ExactPadding).eval(), self.reference(model).eval()

    def first_difference(self, reference: torch.nn.Module, bucket: Bucket) -> Optional[str]:
        model: Any = copy.deepcopy(reference.model).double()
        for size in self.sizes_to_check(bucket, []):
            items = [self.sample(size, 0), self.sample(self.task.within(bucket), 1)]
            pixels, sizes = PaddingBuffers(self.task.inputs).fill(bucket, 2, items)
            (alone, _) = PaddingBuffers(self.task.inputs).fill(items[0].size, 1, items[:1])
            found = first_difference(model, pixels.double(), sizes, alone.double(), self.task.multiple)
            if found is not None:
                return found
        return None

    def _check_mask(self, model: torch.nn.Module) -> None:
        """Where the model's own pixel mask is relied on, its answer must not change with what is outside."""
        exact: Any = model.exact
        item = self.sample(self.task.within(tuple(side * 2 // 3 for side in self.task.buckets[0])), 0)
        if not exact.handed_over or item.size == self.task.buckets[0]:
            return
        tensors = PaddingBuffers(self.task.inputs).fill(self.task.buckets[0], 1, [item])
        rows = []
        for exact.noise in (4.0, 0.0):
            with torch.no_grad():
                rows.append(self.task.unpad(tuple(output[0].numpy() for output in model(*tensors)), item))
        for noisy, clean in zip(*rows):
            if not np.abs(noisy - clean).max() <= self.section.tolerance * np.abs(clean).max():
                raise ConfigError(
                    "handler.model: it takes a pixel_mask, and does not keep padding out with it from "
                    f"{', '.join(exact.handed_over)} on: the answer changes with what is outside a picture. "
                    f"Without it, not known to be exact are: {', '.join(exact.unfollowed)}"
                )

    def sizes_to_check(self, bucket: Bucket, smaller: Sequence[Bucket]) -> List[Size]:
        """Full, a step less, half and a bit, tall, wide, and one step beyond a smaller bucket."""
        height, width = bucket
        step = self.task.multiple
        wanted = [
            bucket,
            (height - step, width - step),
            (height // 2 + 1, width),
            (height, width // 2 + 1),
            (height * 2 // 3 - 1, width * 3 // 4),
            (height * 3 // 4, width * 2 // 3 - 1),
        ]
        wanted += [(h + step, w) for h, w in smaller[-1:]]
        sizes = [self.task.within(tuple(max(step, side // step * step) for side in size)) for size in wanted]
        return sorted({size for size in sizes if contains(bucket, size)}, reverse=True)

    def sample_request(self, bucket: Bucket) -> Optional[Dict[str, Any]]:
        size = self.task.within(tuple(max(1, side * 3 // 4) for side in bucket))
        file = picture(size, self.task.channels)
        return None if file is None else {"inputs": file}

    def sample(self, size: Size, seed: int) -> Item:
        noise = np.random.default_rng(seed)
        coarse = noise.integers(0, 256, (size[0] // 16 + 2, size[1] // 16 + 2, self.task.channels), np.uint8)
        pixels = resize(coarse, size).astype(np.float32) + noise.normal(0, 8, (*size, self.task.channels))
        return self.task.item(pixels.astype(np.float32), size, None)


def _at_any_size(model: torch.nn.Module, args: Any, kwargs: Dict[str, Any]) -> Tuple[Any, Dict[str, Any]]:
    """ViT and its kin take pictures of the size that they were trained at, unless they are asked to
    interpolate their table of positions; at that size this changes nothing."""
    return args, {"interpolate_pos_encoding": True, **kwargs}


def _refusal(model: Callable[..., Any], channels: int, size: Size) -> Optional[str]:
    """What a model says to a picture of a size that it does not take, None if it takes it."""
    try:
        with torch.no_grad():
            model(torch.zeros(1, channels, *size))
    except Exception as error:  # models refuse in many ways
        return first_line(error)
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


def _decided(places: Dict[str, int]) -> str:
    """What the build says where no size is left that all buckets take."""
    place = max(places, key=lambda each: places[each]) if places else "it"
    return (
        f"handler.model: {place} makes something of the picture's size that is not followed, and is right in "
        "one bucket for a size that is wrong in another. Give one bucket, of the size that all pictures "
        "have, or let the model leave it to an interpolation, an adaptive pooling or a slice from the front"
    )


def _config_labels(model: Any) -> List[str]:
    by_id = getattr(getattr(model, "config", None), "id2label", None) or {}
    return [str(by_id[i]) for i in sorted(by_id)]
