"""The modules that are compiled for pictures, and what they are compared with."""

from __future__ import annotations

from typing import List, Mapping, Sequence, Tuple

import torch

from anyshape.backends.base import as_tuple
from anyshape.building.exact import UnknownOperation
from anyshape.building.outputs import tensors_of


class Pictures(torch.nn.Module):
    """A model called with unpadded pictures. Gives (output, size) pairs; size −1 means: nothing to cut."""

    def __init__(self, model: torch.nn.Module, outputs: int) -> None:
        super().__init__()
        self.model = model
        self.outputs = outputs

    def forward(self, pixel_values: torch.Tensor, valid_size: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        dtype = next((p.dtype for p in self.model.parameters()), pixel_values.dtype)
        outputs = list(tensors_of(self.model(pixel_values.to(dtype))))[: self.outputs]
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
        spatial: Sequence[Sequence[int]] = self.exact.spatial  # type: ignore[assignment]
        uncut: Mapping[int, str] = self.exact.uncut  # type: ignore[assignment]
        for index in range(self.outputs):
            if index in uncut:
                raise UnknownOperation([f"output {index} ({uncut[index]})"])
        sizes = iter(results[len(spatial) :])
        whole = torch.full_like(valid_size, -1)
        pairs: List[torch.Tensor] = []
        for output, is_spatial in list(zip(results, spatial))[: self.outputs]:
            pairs += [output.float(), next(sizes) if is_spatial else whole]
        return tuple(pairs)
