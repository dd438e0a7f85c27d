"""Post-training quantisation of OpenVINO programs by NNCF, with ranges from calibration items."""

from __future__ import annotations

import contextlib
import io
from typing import Any, Sequence

from anyshape.building.backends.int8 import feeds, missing, quiet
from anyshape.items import Item
from anyshape.padding import InputSpec


def quantize(model: Any, inputs: Sequence[InputSpec], items: Sequence[Item]) -> Any:
    """An openvino.Model with int8 products, its ranges chosen by what `items` make of each activation.

    Raises ConfigError where NNCF is not installed.
    """
    bars = io.StringIO()  # of progress, which NNCF draws
    with quiet(), contextlib.redirect_stdout(bars), contextlib.redirect_stderr(bars):
        nncf = package()
        calibrated = [[tensor.numpy().copy() for tensor in tensors] for tensors in feeds(inputs, items)]
        is_text = len(items[0].size) == 1
        return nncf.quantize(
            model,
            nncf.Dataset(calibrated),
            subset_size=len(items),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER if is_text else None,
        )


def package() -> Any:
    try:
        import nncf
    except ImportError as error:
        raise missing("nncf", error) from None
    return nncf
