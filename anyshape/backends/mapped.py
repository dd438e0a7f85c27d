"""Weights that stay in the file they were saved in, so that the workers of one model hold them once.

A file that is mapped belongs to the system's page cache: however many processes map it, its pages are in
memory once. What a process writes into them (nobody writes into weights) becomes a copy of its own.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Dict, List

import numpy as np
import torch

LEAST = 1 << 16  # bytes: below that, a tensor is not worth its own pages
LOCAL_HEADER, LENGTHS = (
    30,
    26,
)  # of a zip: its size before name and extra field, and where their lengths stand


def map_weights(module: torch.nn.Module, file: Path) -> int:
    """Have the weights of `module`, which was loaded from `file` (a zip, as torch saves them), lie in that
    file's own pages. Returns how many bytes do now.

    A weight is found by its bytes, so that nothing depends on how torch numbers its records; one that is not
    found, or is not stored plainly, stays where it is.
    """
    whole = np.memmap(file, dtype=np.uint8, mode="c")
    places = _records(file, whole)
    mapped: Dict[int, torch.Tensor] = {}
    total = 0
    with torch.no_grad():
        for weight in module.parameters():
            if not weight.is_contiguous() or weight.numel() * weight.element_size() < LEAST:
                continue
            weight.requires_grad_(False)
            at = weight.data_ptr()
            if at not in mapped:
                held = weight.reshape(-1).view(torch.uint8).numpy()
                starts = places.get(held.size, [])
                start = next((s for s in starts if np.array_equal(whole[s : s + held.size], held)), None)
                if start is None:
                    continue
                mapped[at] = torch.from_numpy(whole[start : start + held.size])
                total += held.size
            if mapped[at].numel() == weight.numel() * weight.element_size():
                weight.data = mapped[at].view(weight.dtype).view(weight.shape)
    return total


def _records(file: Path, whole: np.ndarray) -> Dict[int, List[int]]:
    """Where the file's larger records begin, by their length in bytes."""
    places: Dict[int, List[int]] = {}
    with zipfile.ZipFile(file) as packed:
        for record in packed.infolist():
            if record.compress_type == zipfile.ZIP_STORED and record.file_size >= LEAST:
                lengths = bytes(whole[record.header_offset + LENGTHS : record.header_offset + LOCAL_HEADER])
                start = record.header_offset + LOCAL_HEADER + sum(struct.unpack("<HH", lengths))
                places.setdefault(record.file_size, []).append(start)
    return places
