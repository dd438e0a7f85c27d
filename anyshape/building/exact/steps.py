"""What a model does, operation by operation: in a bucket it must be what it does for each picture alone.

A size that is read by a function written in C (``math.sqrt``, ``range``, a look-up in a dict or a list) is
the bucket's and nothing else, and what Python then decides goes unseen. So the operations that ran in the
bucket are written down, with the shapes and numbers that they had and what the regions say of other sizes;
and the plain model runs once more for other sizes, on tensors without memory. Where it does something else,
its answers would be others.
"""

from __future__ import annotations

import copy
import random
from math import prod
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from anyshape.building.copied import beside
from anyshape.building.exact import names, reads
from anyshape.building.exact.arguments import FOLLOWS
from anyshape.building.exact.both import Area, Areas, Mixed, counted
from anyshape.building.exact.mode import tensors_in
from anyshape.building.exact.origins import Origin, Origins
from anyshape.building.exact.region import Flat, Groups, Levels, Rows, Space, region_of, shape_of
from anyshape.building.exact.replaced import as_traced, replaced
from anyshape.building.exact.side import Known
from anyshape.building.outputs import tensors_of

LEAST, MOST = 16, 128  # pairs of a height and a width that are tried in a bucket
OPERATIONS = 4000  # that is about two seconds; deep models are tried for fewer sizes
# All that their numbers say is shown by the shape of the result.
_SHOWN = {
    *("empty", "expand", "flatten", "fold", "laid_out", "new_empty", "new_ones", "new_zeros", "ones"),
    *("patch_centres", "repeat", "reshape", "sampled", "spatial_biases", "split", "split_with_sizes"),
    *("unflatten", "view", "zeros"),
}
ANSWER = "the answer"  # the last step
_ANY = object()  # in the place of a number that was followed to another one


class Step(NamedTuple):
    """One operation. numbers: what it was given beside tensors; shapes: of its results, each dimension a
    number or an axis of the picture; origins: where the tensors that it was given come from."""

    name: str
    numbers: Tuple[Any, ...]
    shapes: Tuple[Tuple[Any, ...], ...]
    origins: Tuple[Origin, ...]


def is_operation(func: Any) -> bool:
    """Neither a question about a tensor nor a read of its value; nor an assertion, whose words have sizes."""
    name, given = names.name_of(func), getattr(func, "__name__", "")
    return not names.is_question(name) and given not in reads.READS and name != "assert"


class Steps(List[Step]):
    """The operations of one run of `model`, in their order."""

    def __init__(self, model: nn.Module, origins: Optional[Origins] = None) -> None:
        super().__init__()
        self.origins = origins or Origins(model)

    def begin(self, pixels: Tensor) -> None:
        self.clear()
        self.origins.begin(pixels)

    def write(
        self, func: Any, args: Any, kwargs: Dict[str, Any], result: Any, space: Optional[Space] = None
    ) -> None:
        """space: where the picture is followed."""
        if not is_operation(func):
            return
        name = names.name_of(func)
        numbers = () if name in _SHOWN else tuple(_numbers([args, kwargs]))
        if space is not None and name in FOLLOWS:
            numbers = tuple(_ANY if _was_read(space, number) else number for number in numbers)
        results = list(tensors_in([result]))
        came = self.origins.of(tensors_in([args, list(kwargs.values())]))
        self.origins.note(name, results, came)
        self.append(Step(name, numbers, tuple(map(_shape, results)), came))

    def answered(self, answer: Any) -> None:
        """The model is done: its answer is one of the operations' results, and not another one."""
        self.append(Step(ANSWER, (), (), self.origins.of(tensors_of(answer))))


def _was_read(space: Space, number: Any) -> bool:
    """Whether it may be a size that int() made plain, or was made of both sides: that is checked where it is
    used."""
    if isinstance(number, Mixed):
        return True
    return type(number) is int and any((side, number) in space.read for side in (0, 1))


def _numbers(values: Any) -> Iterator[Any]:
    if isinstance(values, (bool, int, float, str)):
        yield values
    elif isinstance(values, slice):
        yield from (values.start, values.stop, values.step)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _numbers(value)
    elif isinstance(values, dict):
        for name in sorted(values):
            yield from _numbers(values[name])


def _shape(tensor: Tensor) -> Tuple[Any, ...]:
    region = region_of(tensor)
    shape: List[Any] = list(shape_of(tensor))
    for dim, axis in region.axes.items() if region is not None else ():
        shape[dim] = axis
    if region is not None and isinstance(region.batch, Rows):
        shape[region.batch] = (shape[region.batch] // region.batch.each, *region.batch.inner)
    return tuple(shape)


class Watching(TorchFunctionMode):
    """Writes down the steps of a model that just runs."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.steps = steps

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Tuple[Any, ...] = (),
        kwargs: Optional[Dict[str, Any]] = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.steps.write(func, args, kwargs or {}, result)
        return result


class Alike:
    """Compares what `model` does for a picture alone with its steps in a bucket.

    shape: of the pixels in the bucket, [1, C, H, W]; or of a signal, [1, C, T] or [1, T], which is a picture
    one row high. `None` is the answer to every question where the model
    does something else for the bucket's own size, when it runs without memory and when it runs as it is.
    """

    def __init__(self, model: nn.Module, steps: Sequence[Step], shape: Sequence[int], dtype: Any) -> None:
        self._steps, self._dtype, self._sides = steps, dtype, 2 if len(shape) == 4 else 1
        self._ahead = list(shape)[: -self._sides]
        self._whole = (shape[-2] if len(shape) == 4 else 1, shape[-1])
        self._model: Optional[nn.Module] = None
        for self._strict, self._device, kind in (
            (True, "meta", without_memory),
            (True, "cpu", beside),  # what reads a constant of its own does not run without memory
            (False, "meta", without_memory),
        ):
            try:
                self._model = kind(model)
                self._origins = Origins(self._model)
                if self.differs(*self._whole) is None:
                    return
            except Exception:  # models refuse in many ways
                pass
            self._model = None

    def differs(self, height: int, width: int) -> Optional[str]:
        """The operation that is another one, or is given something else, for a picture of this size."""
        if self._model is None:
            return None
        watching = Watching(Steps(self._model, self._origins))
        shape = [*self._ahead, *(height, width)[-self._sides :]]
        pixels = torch.zeros(shape, dtype=self._dtype, device=self._device)
        watching.steps.begin(pixels)
        try:
            with torch.no_grad(), torch.device(self._device), as_traced(), watching, replaced():
                answer = self._model(pixels)
        except Exception:  # where it takes no picture of this size, there is nothing to be wrong
            if (height, width) == self._whole:
                raise
            return None
        watching.steps.answered(answer)
        found: Sequence[Step] = watching.steps
        for one, other in zip(self._steps, found):
            known = not self._strict or one.origins == other.origins
            if one.name != other.name or not known or not _same(one, other, (height, width)):
                return other.name if one.name == ANSWER else one.name
        more = [*self._steps[len(found) :], *found[len(self._steps) :]]
        return more[0].name if more else None

    def unlike(
        self, heights: Sequence[int], widths: Sequence[int]
    ) -> Tuple[Set[int], Set[int], Dict[str, int]]:
        """Heights and widths for which it differs, and by which operation how often where only both together
        decide it, or a signal's length."""
        bad: Tuple[Set[int], Set[int]] = (set(), set())
        both: Dict[str, int] = {}
        if self._model is None or not heights or not widths:
            return (*bad, both)
        tall, wide = self._whole
        operations = OPERATIONS if self._device == "meta" else OPERATIONS // 4
        most = max(LEAST, min(MOST, operations // max(1, len(self._steps))))
        for height, width in _pairs(heights, widths, most):
            if height in bad[0] or width in bad[1]:
                continue
            found = self.differs(height, width)
            if found is None:
                continue
            if self._sides == 1:  # there may be a hundred thousand lengths to try
                both[found] = both.get(found, 0) + 1
                continue
            alone = (self.differs(height, wide), self.differs(tall, width))
            if alone[0] is not None and not bad[0]:
                bad[0].update(each for each in heights if self.differs(each, wide) is not None)
            if alone[1] is not None and not bad[1]:
                bad[1].update(each for each in widths if self.differs(tall, each) is not None)
            if alone == (None, None):
                both[found] = both.get(found, 0) + 1
        return (*bad, both)


def _pairs(heights: Sequence[int], widths: Sequence[int], most: int) -> Iterator[Tuple[int, int]]:
    """Every height and every width at least once, where that is not more than `most`."""
    draw = random.Random(0)
    count = min(most, max(len(heights), len(widths)))
    drawn = []
    for sides in (heights, widths):
        ends = sorted({min(sides), max(sides)})
        chosen = draw.sample(sorted(sides), min(count, len(sides)))
        while len(chosen) < count:
            chosen.append(draw.choice(sides))
        chosen[: len(ends)] = ends if count > 2 else chosen[: len(ends)]
        draw.shuffle(chosen)
        drawn.append(chosen)
    yield from zip(*drawn)


def _same(one: Step, other: Step, size: Tuple[int, int]) -> bool:
    """Whether a step in the bucket would have had these numbers and shapes for a picture of this size."""
    numbers = len(one.numbers) == len(other.numbers) and all(
        mine is _ANY or _at(mine, size) == its for mine, its in zip(one.numbers, other.numbers)
    )
    if not numbers or len(one.shapes) != len(other.shapes):
        return False
    for mine, its in zip(one.shapes, other.shapes):
        if len(mine) != len(its) or any(_at(a, size) != b for a, b in zip(mine, its)):
            return False
    return True


def _at(number: Any, size: Tuple[int, int]) -> Any:
    """What a number or an axis of the bucket is for a picture of another size."""
    if isinstance(number, Known):
        return number.table[size[number.side]]
    sums = counted(number) if isinstance(number, (Area, Areas)) else None
    if sums is not None:
        each = (sides[0][size[0]] * sides[1][size[1]] * count for sides, count in sums[0].items())
        return sum(each) + sums[1]
    if isinstance(number, Mixed):
        return number.bare()
    if isinstance(number, Flat):
        rows, columns = (_at(part, size) for part in number.parts)
        return rows * columns + number.before + number.after
    if isinstance(number, Groups):
        return _at(number.flat, size) // number.each
    if isinstance(number, Levels):
        return sum(_at(each, size) for each in number.maps)
    if type(number) is tuple:  # rows of a batch, and what each of them has
        return prod(_at(part, size) for part in number)
    return number.table[size[number.side]] if hasattr(number, "table") else number


def without_memory(model: nn.Module) -> nn.Module:
    """A copy whose weights have shapes and no values."""
    known: Dict[int, Any] = {}
    for module in model.modules():
        values = [*module._parameters.values(), *module._buffers.values(), *vars(module).values()]
        for value in values:
            if isinstance(value, Tensor):
                empty = value.detach().to("meta")
                known[id(value)] = nn.Parameter(empty, False) if isinstance(value, nn.Parameter) else empty
    return copy.deepcopy(model, known)
