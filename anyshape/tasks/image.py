"""What tasks on pictures share: decoding, fitting, normalising, and cutting outputs to the picture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, List, Optional, Sequence, Tuple, cast

import numpy as np
import torch

from anyshape.bodies import IMAGE
from anyshape.buckets import Size, bucket_name, fits
from anyshape.errors import InputTooLarge, Refused, UnprocessableInput
from anyshape.images import Picture, decode, normalise, open_picture, resize
from anyshape.items import Input, Item, Read, Row
from anyshape.padding import SIZE, InputSpec, crop
from anyshape.settings import Settings
from anyshape.tasks.base import Parameters, Saved, Task
from anyshape.tasks.image_sizes import TakenSizes, from_runs

SETTINGS = "image.json"
RESIZE, EDGE = "resize", "edge"


class ImageTask(Task):
    """Pictures at their own size, padded to a bucket of (height, width).

    A picture is not shrunk to a model's training size: it goes in as it is, RGB or grey, scaled by
    `rescale` and normalised by `mean` and `std`. Where the model asks for sides that are multiples of
    something (a detector's stride), `fit` says how: `resize` to the nearest multiple, or repeat the `edge`
    pixels and cut them off the answer.

    options: mean, std (one number for each channel, or one for all), rescale, channels (1 or 3), multiple_of
    and interpolation default to what the model brings as attributes (`image_mean`, `image_std`, ...), its
    image processor, or ImageNet's.
    """

    body = IMAGE
    sides = 2
    over_max: ClassVar[Sequence[str]] = ("reject", "resize")
    outputs = 1  # how many of the model's outputs the answer is made of
    fit = RESIZE
    attributes: Sequence[str] = ("labels",)  # what else the answer needs of the model
    options = dict.fromkeys(("mean", "std", "rescale", "channels", "multiple_of", "interpolation"))

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        self.saved = Saved(folder / SETTINGS)
        self.channels: int = self.saved["channels"]
        self.multiple: int = self.saved["multiple_of"]
        self.interpolation: str = self.saved["interpolation"]
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

    def check_request(self, inputs: Sequence[Input], parameters: Parameters) -> None:
        limit = self.settings.max_request_pixels
        if len(inputs) * self.settings.max_pixels <= limit:
            return
        pixels = 0
        for raw in inputs:
            with suppress(Refused):  # `read` says it
                height, width = open_picture(cast("bytes", raw), self.settings.max_pixels).size
                pixels += height * width
        if pixels > limit:
            raise InputTooLarge(
                f"the pictures of one request have {pixels} pixels together, more than the limit of {limit} "
                "(handler.max_request_pixels): send fewer at once"
            )

    def read(self, inputs: Sequence[Input], parameters: Sequence[Parameters]) -> List[Read]:
        if len(inputs) == 1:
            return [self._read_one(cast("bytes", inputs[0]))]
        return list(self._pool.map(self._read_one, cast("Sequence[bytes]", inputs)))

    def _read_one(self, raw: bytes) -> Read:
        try:
            return self._read_picture(open_picture(raw, self.settings.max_pixels))
        except Refused as error:
            return error

    def _read_picture(self, picture: Picture) -> Read:
        """A picture of which the header was read. Raises Refused."""
        target, changed = self._target(picture.size)
        pixels = self._fitted(decode(picture, self.channels), target, changed is not None)
        return self.item(pixels, picture.size, changed)

    def _target(self, original: Size) -> Tuple[Size, Any]:
        """The size that a picture is given to the model at, and how a policy changed it, or None."""
        target = self._multiple_of(original)
        if min(target) < self.smallest:
            raise UnprocessableInput(
                f"the picture has {original[0]}x{original[1]} pixels (height x width), and the model takes "
                f"no side below {self.smallest}"
            )
        if fits(target, self.buckets):
            self._check_taken(original, target)
            return target, None
        if self.settings.over_max != RESIZE:
            named = ", ".join(f"{h}x{w}" for h, w in self.buckets)
            raise InputTooLarge(
                f"the picture has {original[0]}x{original[1]} pixels (height x width), and no bucket "
                f"takes it: {named}"
            )
        height, width = original
        scale = max(min(h / height, w / width) for h, w in self.buckets)
        target = self.within(self._multiple_of((round(height * scale), round(width * scale))))
        return target, f"resized {height}x{width} to {target[0]}x{target[1]} pixels"

    def within(self, size: Size) -> Size:
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
        if pixels.shape[:2] == target:
            return pixels
        if self.fit == EDGE and not shrink:
            height, width = pixels.shape[:2]
            return np.pad(pixels, ((0, target[0] - height), (0, target[1] - width), (0, 0)), mode="edge")
        return resize(pixels, target, self.interpolation)

    def item(self, pixels: Any, original: Size, changed: Any) -> Item:
        values = normalise(pixels, self._scale, self._offset)
        return Item(values.shape[1:], {"pixel_values": values}, changed, {"size": original})

    def unpad(self, row: Row, item: Item) -> Row:
        """The outputs without their padding; each comes with its valid height and width behind it."""
        cuts = self.saved.get("cuts") or [(-2, -1)] * self.outputs
        return tuple(_cut(*each) for each in zip(row[: 2 * self.outputs : 2], row[1::2], cuts))


def _cut(output: Any, size: Any, places: Sequence[int]) -> Any:
    """A row's output as far as its picture reaches: `places` are the dimensions of its height and width, the
    batch counted as 0, or counted from the end; a size of −1 is the whole."""
    for place, count in zip(places, size):
        if place and count >= 0:
            output = crop(output, [int(count)], place - 1 if place > 0 else output.ndim + place)
    return output
