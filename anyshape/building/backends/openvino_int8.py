"""Post-training quantisation of OpenVINO programs by NNCF, with ranges from calibration items."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import Any, Iterator, List, Sequence

import numpy as np

from anyshape.errors import ConfigError
from anyshape.items import Item
from anyshape.padding import InputSpec, PaddingBuffers

Feed = List[np.ndarray]


def quantize(model: Any, inputs: Sequence[InputSpec], items: Sequence[Item]) -> Any:
    """An openvino.Model with int8 products, its ranges chosen by what `items` make of each activation.

    Raises ConfigError where NNCF is not installed.
    """
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        nncf = package()
        is_text = len(items[0].size) == 1
        return nncf.quantize(
            model,
            nncf.Dataset(feeds(inputs, items)),
            subset_size=len(items),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER if is_text else None,
        )


def feeds(inputs: Sequence[InputSpec], items: Sequence[Item]) -> List[Feed]:
    """Each item alone and unpadded, as the model takes it."""
    buffers = PaddingBuffers(inputs)
    return [[tensor.numpy().copy() for tensor in buffers.fill(item.size, 1, [item])] for item in items]


def package() -> Any:
    try:
        import nncf
    except ImportError as error:
        raise ConfigError(
            f"handler.dtype: int8 needs the package nncf to build, not to serve ({error}): `make int8` in a "
            'clone, pip install "anyshape[int8]" elsewhere'
        ) from None
    return nncf


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF draws progress bars and logs what it does."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
