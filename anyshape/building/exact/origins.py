"""Where the tensors come from that an operation is given: what made them, or which weight they are.

Two runs of a model that do the same on other tensors do something else: the convolution of one size has other
weights than that of another size, a difference is taken the other way about.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Tuple

from torch import Tensor, nn

from anyshape.building.exact import names, reads

# An operation and which of its results; the name of a weight; or what a tensor of unknown origin holds.
Origin = Any
_ATTRIBUTE = "_origin"
_READ = 4096  # values of a tensor of unknown origin that are looked at


class Origins:
    """Of the tensors in runs of `model`, one after the other."""

    def __init__(self, model: nn.Module) -> None:
        self._names: Dict[int, str] = {}
        for path, module in model.named_modules():
            kinds = (module._parameters, module._buffers, vars(module))
            for name, value in (item for kind in kinds for item in kind.items()):
                if isinstance(value, Tensor):
                    self._names.setdefault(id(value), f"{path}.{name}")
        self._run, self._done = object(), 0

    def begin(self, pixels: Tensor) -> None:
        """Another run; what is left of the last one is of unknown origin."""
        self._run, self._done = object(), 0
        setattr(pixels, _ATTRIBUTE, (self._run, "the picture"))

    def of(self, tensors: Iterable[Tensor]) -> Tuple[Origin, ...]:
        return tuple(map(self._of, tensors))

    def _of(self, tensor: Tensor) -> Origin:
        name = self._names.get(id(tensor))
        if name is not None:
            return name
        run, origin = tensor.__dict__.get(_ATTRIBUTE, (None, None))
        if run is self._run:
            return origin
        # Nobody has seen it made: torch.Tensor([height]), say, or an array of numpy's.
        if tensor.is_meta or tensor.numel() > _READ or reads.from_picture(tensor):
            return tuple(tensor.shape)
        return tuple(tensor.shape), str(tensor.tolist())

    def note(self, name: str, results: List[Tensor], came: Tuple[Origin, ...]) -> None:
        """An operation is done. What returns its argument, or may, is nobody's origin."""
        self._done += 1
        for place, tensor in enumerate(results):
            origin: Origin = (self._done, place)
            if name in names.SAME_MEMORY and came:
                origin = came[0]
            if id(tensor) not in self._names:
                setattr(tensor, _ATTRIBUTE, (self._run, origin))
