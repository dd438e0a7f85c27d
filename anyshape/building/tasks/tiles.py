"""How far a model of pictures sees, and how its answer moves with its picture, measured on the model.

What a position of the answer depends on is found by changing the picture: all rows behind a line are
replaced, and the positions that stay the same do not see them. The receptive field that is worked out from
kernels and strides is at least as large as this, and knows nothing of what a model does in Python.
"""

from __future__ import annotations

import copy
from typing import Any, Callable, Container, Dict, List, Mapping, Optional, Sequence, Set, Tuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from anyshape.building.exact.mode import tensors_in
from anyshape.building.exact.names import name_of
from anyshape.building.outputs import tensors_of
from anyshape.errors import ConfigError
from anyshape.tasks.tiles import Reach, Tiling

OTHER_SIDE = 64  # pixels: the height is measured in a picture about this wide, and the other way round
LARGEST_STRIDE = 256
DRAWS = 2
ALL = 0.7  # of a tensor's numbers; behind a ReLU a part is zero in any case
Sides = Sequence[Container[int]]


def measure_tiling(model: torch.nn.Module, channels: int, bucket: Sequence[int], taken: Sides) -> Tiling:
    """How pictures are cut into tiles of a bucket. `taken` are the heights and widths that the model takes.

    Raises ConfigError, which names the operation, for a model that looks at the whole picture; and for one
    whose answer is no map of the picture or does not move with it.
    """
    others = [_about(OTHER_SIDE, bucket[dim], taken[dim]) for dim in (0, 1)]
    precise, dtype = _in_double(model, (1, channels, *others))
    reaches = []
    for dim in (0, 1):
        reach = _Side(precise, dtype, channels, bucket[dim], others[1 - dim], dim).reach(taken[dim])
        reaches.append(reach)
        if bucket[dim] // reach.stride * reach.stride <= reach.overlap:
            raise ConfigError(
                f"handler.over_max: tile: the model sees so far that neighbouring tiles overlap by "
                f"{reach.overlap} pixels, and the largest bucket is {bucket[0]}x{bucket[1]}: give one whose "
                f"{('height', 'width')[dim]} is larger than that, or say over_max: resize"
            )
    return Tiling(*reaches)


def _about(side: int, limit: int, taken: Container[int]) -> int:
    """The least side from `side` on that is taken, or the limit."""
    return next((each for each in range(side, limit) if each in taken), limit)


def _in_double(model: torch.nn.Module, shape: Sequence[int]) -> Tuple[Callable[[Tensor], Any], torch.dtype]:
    """The model in double precision, where it runs in that: what it does not see then stays the same to the
    last digits, whatever order the additions are made in."""
    precise = copy.deepcopy(model).double()
    try:
        with torch.no_grad():
            precise(torch.zeros(*shape, dtype=torch.float64))
        return precise, torch.float64
    except Exception:  # one that makes float32 tensors of its own
        return model, torch.float32


class _Side:
    """One side of a picture, and what the answer makes of it."""

    def __init__(
        self, model: Callable[..., Any], dtype: torch.dtype, channels: int, length: int, other: int, dim: int
    ) -> None:
        self.model, self.dim, self.length = model, dim, length
        self.equal = 1e-10 if dtype == torch.float64 else 1e-6
        draw = torch.Generator().manual_seed(0)
        shape = (1, channels, length, other) if dim == 0 else (1, channels, other, length)
        self.pictures = [2 * torch.randn(shape, generator=draw, dtype=dtype) for _ in range(2 * DRAWS)]
        self.whole = [self.answer(picture) for picture in self.pictures[:DRAWS]]

    def answer(self, picture: Tensor) -> Tensor:
        """The model's first output with this side in front: ``[positions, everything else]``."""
        with torch.no_grad():
            output = next(iter(tensors_of(self.model(picture))))
        if output.dim() != 4:
            raise ConfigError(
                f"handler.over_max: tile: the model's answer of shape {list(output.shape)} is no map of the "
                "picture, so the answers of tiles cannot be put together"
            )
        return output[0].movedim(1 + self.dim, 0).flatten(1)

    def changed(self, line: int, behind: bool) -> List[int]:
        """The positions that depend on what lies before a line of the picture, or behind it."""
        found = set()
        for picture, other, whole in zip(self.pictures, self.pictures[DRAWS:], self.whole):
            answer = self.answer(self._mixed(picture, other, line, behind))
            differs = (answer - whole).abs().amax(1) > self.equal * whole.abs().max()
            found.update(differs.nonzero().flatten().tolist())
        return sorted(found)

    def _mixed(self, picture: Tensor, other: Tensor, line: int, behind: bool) -> Tensor:
        dim = 2 + self.dim
        parts = (picture, other) if behind else (other, picture)
        return torch.cat([parts[0].narrow(dim, 0, line), parts[1].narrow(dim, line, self.length - line)], dim)

    def reach(self, taken: Container[int]) -> Reach:
        count = len(self.whole[0])
        line = max(1, self.length // 8)
        before = self.changed(line, behind=False)
        if not before or before[-1] + 1 >= count:
            self._refuse(line)
        stride, positions = self._stride(before[-1] + 1, taken)
        line = max(1, self.length // 8 // stride) * stride
        before = self.changed(line, behind=False)
        late = max(1, self.length * 7 // 8 // stride) * stride
        after = self.changed(late, behind=True)
        if not after or after[0] == 0 or before[-1] + 1 >= count:
            self._refuse(line)
        return Reach(
            stride,
            positions,
            max(0, before[-1] + 1 - line // stride * positions),
            max(0, late // stride * positions - after[0]),
        )

    def _stride(self, clean: int, taken: Container[int]) -> Tuple[int, int]:
        """By how much the picture must be moved for the answer to move as a whole, and how far it does.

        A moved picture's answer must be the old one from position `clean` on, which does not see its start.
        """
        powers = [2**k for k in range(LARGEST_STRIDE.bit_length())]
        others = [n for n in range(3, LARGEST_STRIDE // 4) if n not in powers]
        whole = self.whole[0]
        for stride in (*powers, *others):
            if stride >= self.length * 3 // 4 or self.length - stride not in taken:
                continue
            moved = self.answer(self.pictures[0].narrow(2 + self.dim, stride, self.length - stride))
            positions = len(whole) - len(moved)
            if not 1 <= positions <= clean or whole[clean:].shape != moved[clean - positions :].shape:
                continue
            difference = (whole[clean:] - moved[clean - positions :]).abs().max()
            if difference <= self.equal * whole.abs().max():
                return stride, positions
        watching = _Spreading()
        with watching, torch.no_grad():
            self.model(self.pictures[0])
        why = " (interpolate with align_corners stretches it by its whole size)" if watching.stretches else ""
        raise ConfigError(
            "handler.over_max: tile: the model's answer does not move with its picture, by whichever number "
            f"of pixels up to {LARGEST_STRIDE} that is moved{why}, so the answers of tiles cannot be put "
            "together: say over_max: resize"
        )

    def _refuse(self, line: int) -> None:
        pair = torch.cat([self.pictures[0], self._mixed(self.pictures[0], self.pictures[DRAWS], line, False)])
        watching = _Spreading()
        with watching, torch.no_grad():
            output = next(iter(tensors_of(self.model(pair))))
        name = watching.widest(output)
        why = f"{name} looks at all of it" if name else f"it sees further than {self.length - line} pixels"
        raise ConfigError(
            "handler.over_max: tile: every position of the answer depends on the whole picture "
            f"({why}), so no tile can be answered by itself: "
            + ("say over_max: resize" if name else "give larger buckets, or say over_max: resize")
        )


class _Spreading(TorchFunctionMode):
    """Finds the operation by which a difference between two pictures spreads over all that it makes.

    The two are one batch, so that every tensor holds both, one in each half.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stretches = False  # whether something is interpolated corner to corner
        self._made: Dict[int, Tuple[Tensor, List[Tensor], float, str]] = {}  # by id; they are kept alive here

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Tuple[Any, ...] = (),
        kwargs: Optional[Mapping[str, Any]] = None,
    ) -> Any:
        kwargs = kwargs or {}
        operands = list(tensors_in([*args, *kwargs.values()]))
        before = max(map(_differing, operands), default=0.0)
        result = func(*args, **kwargs)
        self.stretches = self.stretches or bool(kwargs.get("align_corners"))
        for tensor in tensors_in([result]):
            after = _differing(tensor)
            spread = after - before if after > ALL else 0.0
            earlier = self._made.get(id(tensor))  # written in place
            sources = operands if earlier is None else [*operands, *earlier[1]]
            self._made[id(tensor)] = tensor, sources, spread, name_of(func)
        return result

    def widest(self, output: Tensor) -> Optional[str]:
        """The operation before `output` by which the difference spread most, to all of a tensor."""
        most, name = 1 - ALL, None
        waiting: List[Tensor] = [output]
        seen: Set[int] = set()
        while waiting:
            tensor = waiting.pop()
            if id(tensor) in seen or id(tensor) not in self._made:
                continue
            seen.add(id(tensor))
            _, sources, spread, operation = self._made[id(tensor)]
            if spread > most:
                most, name = spread, operation
            waiting += sources
        return name


def _differing(tensor: Tensor) -> float:
    """Which share of a tensor differs between the halves of its batch."""
    with torch._C.DisableTorchFunction():
        if not tensor.is_floating_point() or tensor.dim() == 0 or tensor.shape[0] % 2 or not tensor.numel():
            return 0.0
        one, other = tensor.chunk(2)
        return float((one != other).float().mean())
