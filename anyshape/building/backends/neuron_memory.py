"""What each way of holding weights costs on Neuron: in the archive, in the host's memory, on a core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List

from anyshape.archive import Index
from anyshape.backends.neuron import NeuronBackend
from anyshape.backends.neuronx import BUCKET_MODEL, INLINE, MODEL_BUILDER, SEPARATE

RESERVED = 200_000_000  # of a core: the runtime's own code, about 100 MB, and some scratch space


@dataclass(frozen=True)
class Choice:
    """Bytes of weights, without the programs' code, which comes on top: it depends on the model and its
    shapes.

    fits: whether a core has room for them. chosen: the archive's own.
    """

    name: str
    archive: int
    host: int
    device: int
    fits: bool
    chosen: bool
    note: str = ""


def choices(index: Index, backend: NeuronBackend) -> List[Choice]:
    """The table for an archive; nothing for one that does not say how large its weights are.

    Whether programs of the SDK share weights on a core is documented for `model_builder` alone: all others
    are counted with a copy per program.
    """
    weights, programs = int(index.compiled.get("weight_bytes", 0)), len(index.programs)
    if not weights:
        return []
    all_of_them = weights * programs
    rows = [(INLINE, all_of_them, all_of_them, all_of_them, "")]
    if backend.name == "neuronx":
        rows += [
            (SEPARATE, weights, weights, all_of_them, "slower calls: 1.5 times was reported, measure"),
            (BUCKET_MODEL, all_of_them, all_of_them, all_of_them, "one program; built on the device only"),
            (MODEL_BUILDER, weights, weights, weights, "neuronx-distributed; built on the device only"),
        ]
    if not index.dynamic_batch:
        fewer = weights * len(index.buckets)
        note = "a program per bucket; calls are cut into twos"
        rows.append(("dynamic_batch: true", fewer, fewer, fewer, note))
    own = "dynamic_batch: true" if index.dynamic_batch else getattr(backend, "weights", INLINE)
    room = backend.bytes_per_core - RESERVED
    return [
        Choice(name, archive, host, device, device <= room, name == own, note)
        for name, archive, host, device, note in rows
    ]
