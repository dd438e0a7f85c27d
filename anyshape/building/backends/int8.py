"""What quantising to int8 shares, whoever does it: what ranges are taken from, quiet, and what is missing."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import Iterator, Sequence

from anyshape.backends.base import Tensors
from anyshape.errors import ConfigError
from anyshape.items import Item
from anyshape.padding import InputSpec, PaddingBuffers


def feeds(inputs: Sequence[InputSpec], items: Sequence[Item]) -> Iterator[Tensors]:
    """Each item alone and unpadded, as the model takes it. The next one is written over it."""
    buffers = PaddingBuffers(inputs)
    for item in items:
        yield tuple(buffers.fill(item.size, 1, [item]))


def missing(package: str, error: ImportError) -> ConfigError:
    """What to say where a package cannot be imported."""
    return ConfigError(
        f"handler.dtype: int8 needs the package {package} to build, not to serve ({error}): `make int8` in a "
        'clone, pip install "anyshape[int8]" elsewhere'
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Quantizers log what they do, and which libraries for other devices they miss."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
