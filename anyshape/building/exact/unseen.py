"""The dispatch mode that sees what the torch function mode cannot: operations inside scripted code."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from anyshape.building.exact import reads
from anyshape.building.exact.mode import tensors_in
from anyshape.building.exact.region import Space, region_of


class UnseenMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes in ``space.unknown`` what meets the padded picture, and was not seen before it came this far.

    Neither tracing nor exporting can run under it: the model runs once as it is, to be looked at.
    """

    def __init__(self, space: Space) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.space = space

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Tuple[Any, ...] = (),
        kwargs: Optional[Dict[str, Any]] = None,
    ) -> Any:
        kwargs = kwargs or {}
        operands = list(tensors_in([*args, *kwargs.values()]))
        if not any(map(reads.from_picture, operands)):
            with torch._C.DisableTorchFunction():
                return func(*args, **kwargs)
        name = str(getattr(func, "__name__", func)).partition(".")[0]
        reading = name in reads.READS_INSIDE and not self.space.reading
        if reading and reads.matters(operands, runs=True):  # x[:n] reads n, and nobody calls int()
            self.space.unknown.append(f"{reads.READS_INSIDE[name]} ({reads.REASON})")
        with torch._C.DisableTorchFunction():
            result = func(*args, **kwargs)
        if not self.space.seen:
            if name not in reads.READS_INSIDE and any(region_of(operand) is not None for operand in operands):
                self.space.unknown.append(f"{name} (inside scripted code, where it is not followed)")
            for tensor in tensors_in([result]):
                reads.mark(tensor, operands)
        return result
