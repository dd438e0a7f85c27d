"""Weights that stay in the file they were saved in, so that the workers of one model hold them once.

A file that is mapped belongs to the system's page cache: however many processes map it, its pages are in
memory once. What a process writes into them (nobody writes into weights) becomes a copy of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List

import numpy as np
import torch

from anyshape.backends.stored import stored

LEAST = 1 << 16  # bytes: below that, a tensor is not worth its own pages


def map_weights(module: torch.nn.Module, file: Path) -> int:
    """Have the weights of `module`, which was loaded from `file` (a zip, as torch saves them), lie in that
    file's own pages. Returns how many bytes do now.

    A weight is found by its bytes, so that nothing depends on how torch numbers its records; one that is not
    found, or is not stored plainly, stays where it is.
    """
    whole = np.memmap(file, dtype=np.uint8, mode="c")
    places: Dict[int, List[int]] = {}
    for start, length in stored(file, LEAST):
        places.setdefault(length, []).append(start)
    mapped: Dict[int, torch.Tensor] = {}
    total = 0
    with torch.no_grad():
        for weight in module.parameters():
            size = weight.numel() * weight.element_size()
            if size < LEAST or not weight.is_contiguous():
                continue
            weight.requires_grad_(False)
            at = weight.data_ptr()
            if at not in mapped:
                held = weight.reshape(-1).view(torch.uint8).numpy()
                spans = (whole[start : start + size] for start in places.get(size, ()))
                same = next((span for span in spans if np.array_equal(span, held)), None)
                if same is None:
                    continue
                mapped[at] = torch.from_numpy(same)
                total += size
            if mapped[at].numel() == size:
                weight.data = mapped[at].view(weight.dtype).view(weight.shape)
    return total
