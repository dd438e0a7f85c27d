"""Whether an answer is that of the build: numbers within a tolerance, and pixels of masks as well."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anyshape.server.samples import difference
from tests.image_models import encoded


def segments(*masks: np.ndarray) -> list[dict[str, Any]]:
    pictures = [encoded(Image.fromarray(mask.astype(np.uint8) * 255)) for mask in masks]
    return [
        {"score": 0.9, "label": "cat", "mask": base64.b64encode(picture).decode()} for picture in pictures
    ]


def test_a_few_pixels_of_a_mask_may_differ() -> None:
    mask = np.zeros((40, 50), bool)
    mask[10:20, 10:30] = True
    other = mask.copy()
    other[10, 10] = False  # one of 2000
    assert difference(segments(mask, mask), segments(mask, other), 1e-3) is None
    other[10] = False
    said = difference(segments(mask, mask), segments(mask, other), 1e-3)
    assert said == "the answer[1].mask has 1.0% of its pixels otherwise than when built"
    said = difference(segments(mask), segments(mask[:-1]), 1e-3)
    assert said == "the answer[0].mask has 100.0% of its pixels otherwise than when built"


@pytest.mark.parametrize("wrong", ["iVBORw0", 7, None])
def test_what_is_no_mask_is_not_read_as_one(wrong: Any) -> None:
    (found,) = segments(np.ones((3, 4), bool))
    said = difference([{**found, "mask": wrong}], [found], 1e-3)
    assert said is not None
    assert said.startswith("the answer[0].mask is ")
