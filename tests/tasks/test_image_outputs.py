"""Outputs of every layout are cut to the picture; what only rounds is told from what is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyshape.building.errors import BuildError
from anyshape.building.tasks.image_settings import image_settings
from tests.image_models import encoded, engine, normalised, photograph, seeded

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Layouts(nn.Module):
    """Two outputs of a small backbone, whose height is 4 like its channels and its pooled rows."""

    def __init__(self, first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 4, 3, 8, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1)
        )
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        return self.first(x), self.second(x)


def channels_last() -> nn.Module:
    torch.manual_seed(0)
    return seeded(Layouts(lambda x: x.permute(0, 2, 3, 1), lambda x: x.mean(2).permute(0, 2, 1))).eval()


def flattened() -> nn.Module:
    torch.manual_seed(0)
    return seeded(Layouts(lambda x: x.flatten(2).transpose(1, 2), lambda x: x.amax(3))).eval()


def rounding() -> nn.Module:
    torch.manual_seed(0)
    return seeded(Layouts(lambda x: (x.mean((2, 3)) * 2e4).sin(), lambda x: x)).eval()


@pytest.mark.parametrize("make", [channels_last, flattened])
def test_outputs_are_cut_where_the_picture_lies_in_them(
    tmp_path: Path, make: Callable[[], nn.Module]
) -> None:
    model = engine(
        tmp_path,
        "layouts",
        task="image-feature-extraction",
        model=f"{__name__}:{make.__name__}",
        buckets=[[32, 64], [64, 32]],
    )
    plain = make()
    for size in [(32, 64), (31, 40), (9, 64), (20, 20), (33, 9), (64, 32)]:
        picture = photograph("chelsea.png", size)
        with torch.no_grad():
            expected = plain(normalised(picture, MEAN, STD))
        for pool in (False, True):
            found = np.asarray(model(encoded(picture), pool=pool))
            np.testing.assert_allclose(found, expected[int(pool)].numpy(), atol=1e-5)


def test_what_only_rounds_passes_and_is_said_to(tmp_path: Path) -> None:
    handler = {"task": "image-feature-extraction", "buckets": [[48, 64]]}
    archive = engine(tmp_path, "rounds", model=f"{__name__}:rounding", **handler)
    (program,) = archive.index.programs
    assert archive.index.exact
    assert program.deviation > archive.index.tolerance
    assert program.rounding is not None


def test_what_is_wrong_in_float64_too_does_not(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"not known to be exact: mul \(.* such as math\.sqrt"):
        engine(
            tmp_path,
            "wrong",
            task="image-feature-extraction",
            model=f"{__name__}:by_root",
            buckets=[[48, 64]],
        )


def test_what_only_neighbours_change_is_no_rounding(tmp_path: Path) -> None:
    # Its first row of two is right on its own, in float32 and in float64.
    handler = {"task": "image-feature-extraction", "buckets": [[16, 24]], "batch_sizes": [2]}
    with pytest.raises(
        BuildError, match=r"deviate from the unpadded model.* the operation mean, at .*py:\d+"
    ):
        engine(tmp_path, "neighbours", model=f"{__name__}:beside_others", **handler)


def beside_others() -> nn.Module:
    torch.manual_seed(0)
    centred = seeded(Layouts(lambda x: x.mean((2, 3)) - x.mean((2, 3)).mean(0), lambda x: x))
    return centred.eval()


def by_root() -> nn.Module:
    # math.sqrt asks for the number in C, past what follows it.
    torch.manual_seed(0)
    return seeded(Layouts(lambda x: x * math.sqrt(x.shape[2]), lambda x: x)).eval()


class Named(nn.Module):
    """Attributes that any network may have, and what torchvision's weights bring."""

    channels, stride, num_features = 64, 32, 7

    class transforms:
        mean, std = [0.4, 0.5, 0.6], [0.2, 0.2, 0.2]


def test_settings_are_those_that_the_model_carries() -> None:
    own = image_settings({}, Named(), None)
    assert (own["mean"], own["std"], own["channels"], own["multiple_of"]) == (
        [0.4, 0.5, 0.6],
        [0.2] * 3,
        3,
        1,
    )
    grey = image_settings({"channels": 1}, Named(), None)
    assert (grey["mean"], grey["channels"]) == ([pytest.approx(0.5)], 1)
    timm = nn.Module()
    timm.pretrained_cfg = {"mean": (0.1,), "std": (0.2,), "input_size": (1, 28, 28)}  # type: ignore[assignment]
    assert image_settings({}, timm, None)["channels"] == 1
