"""ExactPadding: a CNN that answers for a padded image as it would for the image alone."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from typing import Any, Callable, ContextManager, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

import torch
from torch import Tensor, nn

from anyshape.building.exact import (
    attention,
    channels,
    columns,
    deformable,
    globally,
    layout,
    made,
    pairs,
    picked,
    products,
    recurrent,
    relative,
    resample,
    reshape,
    rotary,
    signals,
    sliced,
    spread,
    statistics,
    tokens,
    windows,
)
from anyshape.building.exact.mode import ExactMode
from anyshape.building.exact.places import gathered
from anyshape.building.exact.region import Flat, Groups, Levels, Region, Rows, Space, region_of, shape_of
from anyshape.building.exact.replaced import as_traced, replaced
from anyshape.building.exact.steps import Alike, Steps
from anyshape.building.exact.unseen import UnseenMode
from anyshape.building.outputs import tensors_of

__all__ = ["ExactPadding", "UnknownOperation"]

# Importing them registers their operations.
_REGISTERED = (
    *(attention, channels, columns, deformable, globally, layout, pairs, picked, products, recurrent),
    *(relative, resample, reshape, rotary, signals, sliced, spread, statistics, tokens, windows),
)


class UnknownOperation(Exception):
    """The model uses operations whose answer for a padded image is not known to be exact.

    operations: their torch names, with the reason where one is known. way_out: what to do, if that is known.
    """

    def __init__(self, operations: List[str], way_out: str = "") -> None:
        self.operations = sorted(set(operations))
        super().__init__(
            "the answer would depend on the padding, for these operations are not known to be exact: "
            + ", ".join(self.operations)
            + way_out
        )


class ExactPadding(nn.Module):
    """Runs an unmodified model on padded images so that each answer is that of its image alone.

    Before every operation that mixes positions, all that lies outside the row's own valid region is
    set to what unpadded inference would see there: zeros for a convolution, −inf for max pooling;
    averages divide by the valid area. Everything else runs as it is. A model whose forward takes a
    `pixel_mask` gets one that is followed like the picture. Where that meets an operation that is not known,
    convolutions alone are made exact here, and from where the model flattens the image into a sequence its
    own mask is relied on.

        exact = ExactPadding(model.eval())
        traced = torch.jit.trace(exact, (pixels, valid_size))

    spatial: for each output its dimensions that are the picture's height and width still, 0 for a side that
    is whole or gone; () for an output without either. Known after the first forward pass.
    dimensions: how many each output has; likewise.
    uncut: the outputs that cannot be cut to the picture, by their number, and why; likewise.
    heights, widths: the valid sizes that the unpadded model takes within this bucket, likewise; for
    others (an odd side in a UNet, say) there is no unpadded answer to compare with.
    decided: lines of the model's code that compute something else for other sizes, and how many sizes were
    left for each.
    step: every picture's sides are multiples of it.
    in_place: padding is overwritten in place and only as far as the next window looks; set it to False
    for compilers that know whole tensors only.
    handed_over, unfollowed, noise: the operations that hand over to the model's own mask, known likewise,
    those that it is relied on for, and how large the noise is that padding is given there: an answer that
    changes with it shows a mask that leaks.
    watch: called as watch(space, function, args, kwargs, result) after each operation.
    steps: where the operations of the next forward pass are written, as `unlike` needs them: `Steps(model)`.
    """

    spatial: Tuple[Tuple[int, ...], ...]
    heights: Tuple[int, ...]
    widths: Tuple[int, ...]

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.in_place = True
        self.step = 1
        self.spatial = ()
        self.dimensions: Tuple[int, ...] = ()
        self.uncut: Dict[int, str] = {}
        self.heights = ()
        self.widths = ()
        self.handed_over: Tuple[str, ...] = ()
        self.unfollowed: Tuple[str, ...] = ()
        self.noise = 0.0
        self.steps: Optional[Steps] = None
        self.watch: Optional[Callable[..., None]] = None
        self.decided: Dict[str, int] = {}
        self._asked: Dict[Tuple[int, int], Sequence[Sequence[bool]]] = {}  # by bucket, when it just ran
        self._takes_mask = "pixel_mask" in inspect.signature(model.forward).parameters
        self._relies: Optional[bool] = None if self._takes_mask else False  # on the mask; not known yet

    def forward(self, pixel_values: Tensor, valid_size: Tensor) -> Tuple[Tensor, ...]:
        """pixel_values [B, C, H, W], valid_size [B, 2] int64 (height, width; 1 ≤ each ≤ H, W); or signals
        [B, C, T] or [B, T] and valid_size [B, 1], which are pictures one row high.

        Returns the model's output tensors in a fixed order, then for each that is still spatial its
        valid size, [B, 2] int64, −1 for a side that is whole. Values outside it mean nothing. Raises
        UnknownOperation.
        """
        if not torch.is_inference_mode_enabled():
            return self._followed(pixel_values, valid_size)
        with torch.inference_mode(False), torch.no_grad():  # padding is overwritten in place
            return self._followed(pixel_values.clone(), valid_size.clone())

    def _followed(self, pixel_values: Tensor, valid_size: Tensor) -> Tuple[Tensor, ...]:
        """The first time, finds out whether the model's own mask must be relied on."""
        if self._relies is not None:
            return self._run(pixel_values, valid_size, self._relies)
        try:
            result = self._run(pixel_values, valid_size, relies=False)
            self._relies = False
            return result
        except UnknownOperation as error:
            try:
                result = self._run(pixel_values, valid_size, relies=True)
            except UnknownOperation:
                raise error from None
            self.unfollowed, self._relies = tuple(error.operations), True
            return result

    def _run(self, pixel_values: Tensor, valid_size: Tensor, relies: bool) -> Tuple[Tensor, ...]:
        shape = shape_of(pixel_values)
        height, width = int(shape[-2]), int(shape[-1])
        is_signal = shape_of(valid_size)[1] == 1
        if is_signal:
            height, valid_size = 1, torch.cat([torch.ones_like(valid_size), valid_size], 1)
        space = Space(valid_size, height, width, self.in_place, 1 if is_signal else self.step)
        space.noise, space.final = self.noise, self._asked.get((height, width))
        whole = {len(shape) - 1: space.whole(1)} if is_signal else {2: space.whole(0), 3: space.whole(1)}
        pixels = space.attach(pixel_values.detach(), Region(dict(whole)))
        extra: Dict[str, Tensor] = {}
        if self._takes_mask and not is_signal:
            mask = space.inside(Region(dict(whole)), 4)[:, 0].to(torch.int64)
            region = Region({1: whole[2], 2: whole[3]}, mask=True)
            region.fill = 0.0
            extra["pixel_mask"] = space.attach(mask, region)
        if self.steps is not None:
            self.steps.begin(pixels)
        try:
            modes = ExactMode(space, releases=relies)
            modes.done = self.watch or (self._note if self.steps is not None else None)
            with _watching(space, pixel_values), as_traced(), modes, replaced():
                answer = self.model(pixels, **extra)
        except Exception as error:
            if space.unknown:
                raise UnknownOperation(space.unknown) from error
            raise
        if space.unknown:
            raise UnknownOperation(space.unknown)
        self.handed_over = tuple(sorted(set(space.handed_over)))
        if self.steps is not None:
            self.steps.answered(answer)
        outputs = list(tensors_of(answer))
        made.settle(outputs)
        cuts = [_cut(space, output) for output in outputs]
        self.spatial = tuple(cut.places for cut in cuts)
        self.dimensions = tuple(output.dim() for output in outputs)
        self.uncut = {index: cut.reason for index, cut in enumerate(cuts) if cut.reason}
        space.settle()
        if space.runs:
            self._asked[height, width] = space.asked
        for accepted, asked in zip(space.accepted, space.final or ()):
            accepted[:] = [taken and known for taken, known in zip(accepted, asked)]
        self.decided = dict(space.decided)
        self.heights, self.widths = (
            tuple(size for size, taken in enumerate(accepted) if taken and size)
            for accepted in space.accepted
        )
        return (*(cut.output for cut in cuts), *(cut.size for cut in cuts if cut.size is not None))

    def masks(self, alone: Tensor) -> Dict[str, Tensor]:
        """The mask that a model gets which takes one, of pictures without padding."""
        return {"pixel_mask": torch.ones_like(alone[:, 0], dtype=torch.int64)} if self._takes_mask else {}

    def _note(self, space: Space, func: Any, args: Any, kwargs: Dict[str, Any], result: Any) -> None:
        if self.steps is not None:
            self.steps.write(func, args, kwargs, result, space)

    def unlike(self, shape: Sequence[int], dtype: Any) -> Tuple[Set[int], Set[int]]:
        """Of the `heights` and `widths` of the forward pass whose `steps` were written, those for which the
        model does something else than in this bucket, of pixels or signals of that shape. Raises
        UnknownOperation where height and width decide it together, or a signal's length, and where hardly a
        size is left."""
        sides = (self.heights, self.widths)
        if self.steps is None or self._relies:
            return (set(), set())
        compared = Alike(self.model, self.steps, shape, dtype)
        *found, both = compared.unlike(*sides)
        for side, bad in enumerate(found):
            if 2 * len(bad) > len(sides[side]):
                example = (max(bad), shape[3]) if side == 0 else (shape[2], max(bad))
                both[compared.differs(*example) or ""] = len(bad)
        if both:
            raise UnknownOperation(
                [
                    f"{name} (what it is given depends on the picture's size by way of a function that is "
                    "not followed, such as math.sqrt or range, or by a height and a width together; where it "
                    "rounds to a multiple of 8 or 32, say so in handler.task_options.multiple_of)"
                    for name in both
                ]
            )
        return (found[0], found[1])


def _watching(space: Space, pixels: Tensor) -> ContextManager[Any]:
    """Where the model just runs, what is hidden from the torch function mode is seen as well."""
    space.runs = type(pixels) is Tensor and torch._C._get_tracing_state() is None
    return UnseenMode(space) if space.runs else nullcontext()


class _Cut(NamedTuple):
    """What of an output is the picture's."""

    output: Tensor
    places: Tuple[int, ...] = ()
    size: Optional[Tensor] = None
    reason: str = ""


def _cut(space: Space, output: Tensor) -> _Cut:
    """Where an output's height and width stand, and how far they reach in each row: [B, 2] int64, −1 for a
    side that is whole. What was flattened has its positions brought together; their number is its height."""
    region = region_of(output)
    if region is None:
        return _Cut(output)
    if region.batch != 0 or isinstance(region.batch, Rows):
        return _Cut(output, reason="its rows are not in its first dimension")
    places = [0, 0]
    sizes = [torch.full_like(space.batch[:, 0], -1)] * 2
    for dim, axis in region.axes.items():
        if isinstance(axis, (Groups, Levels)):
            return _Cut(output, reason=axis.refusal)
        column = 0 if isinstance(axis, Flat) else axis.side
        if places[column] or (isinstance(axis, Flat) and len(region.axes) > 1):
            return _Cut(
                output, reason="more of its dimensions come from the picture than its height and width"
            )
        places[column], sizes[column] = dim, space.counts(axis)
        if isinstance(axis, Flat):
            output = space.take(output, region, dim, gathered(space, axis))
    return _Cut(output, tuple(places), torch.stack(sizes, dim=1))
