"""Every operation that exact padding knows, against the image alone."""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, List, Tuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from anyshape.building.exact import ExactPadding
from tests.building.models_for_exact import (
    Call,
    Size,
    around,
    largest_deviation,
    padded,
    pictures,
)

BUCKET = (21, 18)
TOLERANCE = 2e-5


def squeeze_and_excite(x: Tensor) -> Tensor:
    return x * F.adaptive_avg_pool2d(x, 1).sigmoid()


def channel_shuffle(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2)
    return x.reshape(batch, channels, height, width)


def channels_last_norm(x: Tensor) -> Tensor:
    x = F.layer_norm(x.permute(0, 2, 3, 1), (8,))
    return F.gelu(x).permute(0, 3, 1, 2)


def in_place(x: Tensor) -> Tensor:
    first, second = x.chunk(2, 1)
    first.mul_(2.0).add_(0.5)
    second += 1
    return F.relu_(x).sub_(0.1)


def down_and_up(mode: str, **options: Any) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        low = F.avg_pool2d(x, 2)
        return x + F.interpolate(low, size=x.shape[-2:], mode=mode, **options)

    return run


def scaled(factor: Any, mode: str, **options: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: F.interpolate(x, scale_factor=factor, mode=mode, **options)


def coordinate_attention(x: Tensor) -> Tensor:
    rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True)
    return x * rows.sigmoid() * columns.sigmoid()


def clean_then_written(x: Tensor) -> Tensor:
    # Zero padding leaves x known to be clean; a write through a view must undo that.
    x = F.pad(F.relu(x), (0, 0, 0, 0))
    head = x[:, :4]
    head += 3.0
    return F.conv2d(x, torch.ones(8, 8, 3, 3) / 72, padding=1)


OPERATIONS: Dict[str, Tuple[nn.Module, int]] = {
    "conv 5": (nn.Conv2d(8, 8, 5, padding=2), 8),
    "conv valid": (nn.Conv2d(8, 8, 3), 8),
    "conv stride 2": (nn.Conv2d(8, 8, 3, stride=2, padding=1), 8),
    "conv stride 3": (nn.Conv2d(8, 8, 3, stride=3, padding=2), 8),
    "conv stride (1, 2)": (nn.Conv2d(8, 8, (3, 5), stride=(1, 2), padding=(0, 2)), 8),
    "conv dilated": (nn.Conv2d(8, 8, 3, padding=2, dilation=2), 8),
    "conv grouped": (nn.Conv2d(8, 8, 3, padding=1, groups=8), 8),
    "conv 1 padded": (nn.Conv2d(8, 8, 1, padding=1), 8),
    "conv 1 stride 2": (nn.Conv2d(8, 8, 1, stride=2), 8),
    "conv same": (nn.Conv2d(8, 8, (4, 3), padding="same", dilation=(1, 2)), 8),
    "conv 'valid'": (nn.Conv2d(8, 8, 2, padding="valid"), 8),
    "conv reflect": (nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), 8),
    "conv replicate": (nn.Conv2d(8, 8, 5, padding=2, padding_mode="replicate"), 8),
    "conv circular": (nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"), 8),
    "transposed 2": (nn.ConvTranspose2d(8, 8, 2, stride=2), 8),
    "transposed 3": (nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1), 8),
    "transposed 5": (nn.ConvTranspose2d(8, 8, 5, stride=2, padding=2, dilation=2), 8),
    "transposed grouped": (nn.ConvTranspose2d(8, 8, 3, stride=1, padding=1, groups=4), 8),
    "transposed wide stride": (nn.ConvTranspose2d(8, 8, 2, stride=3, output_padding=1), 8),
    "max 2": (nn.MaxPool2d(2), 8),
    "max 3": (nn.MaxPool2d(3, 2, 1), 8),
    "max ceil": (nn.MaxPool2d(2, 2, ceil_mode=True), 8),
    "max ceil 3": (nn.MaxPool2d(3, 2, 1, ceil_mode=True), 8),
    "max dilated": (nn.MaxPool2d(3, 1, 1, dilation=2, ceil_mode=True), 8),
    "avg 2": (nn.AvgPool2d(2), 8),
    "avg 3": (nn.AvgPool2d(3, 2, 1), 8),
    "avg ceil": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), 8),
    "avg ceil, unpadded": (nn.AvgPool2d(2, 2, ceil_mode=True), 8),
    "avg ceil, pad not counted": (nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), 8),
    "avg pad not counted": (nn.AvgPool2d(3, 1, 1, count_include_pad=False), 8),
    "avg divisor": (nn.AvgPool2d(3, 2, 1, ceil_mode=True, divisor_override=5), 8),
    "adaptive avg 3": (nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Conv2d(8, 8, 1)), 8),
    "adaptive avg (1, 4)": (nn.AdaptiveAvgPool2d((1, 4)), 8),
    "adaptive max 1": (nn.AdaptiveMaxPool2d(1), 8),
    "adaptive max 3": (nn.Sequential(nn.AdaptiveMaxPool2d(3), nn.Conv2d(8, 8, 1)), 8),
    "adaptive max (1, 4)": (nn.AdaptiveMaxPool2d((1, 4)), 8),
    "batch norm": (nn.BatchNorm2d(8), 8),
    "group norm": (nn.GroupNorm(2, 8), 8),
    "instance norm": (nn.InstanceNorm2d(8, affine=True), 8),
    "instance norm, tracked": (nn.InstanceNorm2d(8, track_running_stats=True), 8),
    "layer norm over channels": (Call(channels_last_norm), 8),
    "local contrast": (Call(lambda x: x - x.mean((2, 3), keepdim=True)), 8),
    "sum over width": (Call(lambda x: x + x.sum(-1, keepdim=True) * 0.1), 8),
    "largest": (Call(lambda x: x - x.amax((2, 3), keepdim=True)), 8),
    "max over height": (Call(lambda x: x - x.max(2, keepdim=True)[0]), 8),
    "softmax over width": (Call(lambda x: x.softmax(-1)), 8),
    "softmax over channels": (nn.Softmax(1), 8),
    "normalized": (Call(lambda x: F.normalize(x, dim=1)), 8),
    "squeeze and excite": (Call(squeeze_and_excite), 8),
    "coordinate attention": (Call(coordinate_attention), 8),
    "nearest 2": (nn.Upsample(scale_factor=2), 8),
    "nearest 1.5": (Call(scaled(1.5, "nearest")), 8),
    "nearest 0.5": (Call(scaled(0.5, "nearest")), 8),
    "nearest recomputed": (Call(scaled(1.3, "nearest", recompute_scale_factor=True)), 8),
    "nearest-exact": (Call(down_and_up("nearest-exact")), 8),
    "bilinear 2": (Call(scaled(2, "bilinear")), 8),
    "bilinear (2, 3)": (Call(scaled((2.0, 3.0), "bilinear", align_corners=False)), 8),
    "bilinear 1.7": (Call(scaled(1.7, "bilinear", align_corners=False)), 8),
    "bilinear 0.6": (Call(scaled(0.6, "bilinear", align_corners=False)), 8),
    "bilinear recomputed": (Call(scaled(1.3, "bilinear", recompute_scale_factor=True)), 8),
    "bilinear corners": (Call(scaled(2, "bilinear", align_corners=True)), 8),
    "bicubic 2": (Call(scaled(2, "bicubic")), 8),
    "bicubic 0.6": (Call(scaled(0.6, "bicubic", align_corners=False)), 8),
    "bicubic corners": (Call(scaled(2, "bicubic", align_corners=True)), 8),
    "bicubic to size": (Call(down_and_up("bicubic")), 8),
    "nearest to size": (Call(down_and_up("nearest")), 8),
    "bilinear to size": (Call(down_and_up("bilinear")), 8),
    "bilinear to size, corners": (Call(down_and_up("bilinear", align_corners=True)), 8),
    "bilinear to fixed size": (Call(lambda x: F.interpolate(x, size=(9, 40), mode="bilinear")), 8),
    "nearest to fixed size": (Call(lambda x: F.interpolate(x, size=(30, 7))), 8),
    "concatenation": (Call(lambda x: torch.cat([x, F.max_pool2d(x, 3, 1, 1)], 1)), 16),
    "stack": (Call(lambda x: torch.stack([x, x.relu()], 2).flatten(1, 2)), 16),
    "zero pad": (nn.ZeroPad2d((1, 2, 0, 3)), 8),
    "constant pad": (nn.ConstantPad2d((2, 1, 1, 1), 0.7), 8),
    "crop by padding": (nn.ZeroPad2d((-1, -2, 0, -1)), 8),
    "reflection pad": (nn.ReflectionPad2d((2, 1, 0, 2)), 8),
    "replication pad": (nn.ReplicationPad2d((1, 3, 2, 1)), 8),
    "pixel shuffle": (nn.PixelShuffle(2), 2),
    "pixel unshuffle": (nn.PixelUnshuffle(3), 72),
    "focus": (Call(lambda x: torch.cat([x[..., ::2, ::2], x[..., ::2, ::2]], 1)), 16),
    "crop the end": (Call(lambda x: x[:, :, 1:-2, :-1]), 8),
    "crop to another": (Call(lambda x: F.pad(x, (0, 2, 0, 1))[:, :, : x.shape[2], : x.size(3)]), 8),
    "channels": (Call(lambda x: x[:, 1:5] - x[:, :4] + x[:, :1]), 4),
    "channel shuffle": (Call(channel_shuffle), 8),
    "chunk and split": (Call(lambda x: x.chunk(2, 1)[0] * x.split([4, 4], 1)[1]), 4),
    "linear, channels last": (
        nn.Sequential(
            Call(lambda x: x.permute(0, 2, 3, 1)), nn.Linear(8, 6), Call(lambda x: x.permute(0, 3, 1, 2))
        ),
        6,
    ),
    "activations": (nn.Sequential(nn.PReLU(8), nn.SiLU(), nn.Hardswish(), nn.ReLU6(), nn.GELU()), 8),
    "residual": (Call(lambda x: x + F.avg_pool2d(x, 3, 1, 1).sigmoid() * x), 8),
    "arithmetic": (Call(lambda x: 1 - (x * 2 + 1) / 3 - x**2 + abs(x) // 1 + (2 - x)), 8),
    "dropout": (nn.Dropout2d(0.5), 8),
    "written in place": (Call(in_place), 8),
    "written through a view": (Call(clean_then_written), 8),
    "clamped": (Call(lambda x: x.clamp(-1, 1).where(x > 0, torch.zeros(()))), 8),
}
MODELS = {name: around(operation, after=after) for name, (operation, after) in OPERATIONS.items()}
sizes_in = st.lists(st.tuples(st.integers(1, BUCKET[0]), st.integers(1, BUCKET[1])), min_size=1, max_size=3)


pytestmark = pytest.mark.usefixtures("one_thread")


def runs_alone(model: nn.Module, size: Size) -> bool:
    try:
        model(torch.zeros(1, 3, *size))
    except RuntimeError:
        return False
    except ValueError:  # instance norm refuses a single position
        return False
    return True


@pytest.mark.filterwarnings("ignore:Using padding=.same.")  # torch copies for even kernels
@pytest.mark.parametrize("name", MODELS)
def test_operation_answers_as_for_the_image_alone(name: str) -> None:
    model = MODELS[name]
    exact = ExactPadding(model)
    with torch.no_grad():
        exact(*padded(pictures([BUCKET]), BUCKET))
        taken = {
            size
            for size in ((h, w) for h in range(1, BUCKET[0] + 1) for w in (BUCKET[1], BUCKET[1] - 1))
            if runs_alone(model, size)
        }
    # What unpadded inference takes, and nothing else, counts as an accepted height.
    assert {h for h, w in taken if w == BUCKET[1]} == set(exact.heights)

    @settings(max_examples=8, deadline=None, database=None)
    @given(sizes_in, st.sampled_from([0.0, 1e4, math.nan]))
    def agrees(sizes: List[Size], garbage: float) -> None:
        sizes = [s for s in sizes if s[0] in exact.heights and s[1] in exact.widths]
        with torch.no_grad():
            sizes = [size for size in sizes if runs_alone(model, size)]
        if sizes:
            error, _ = largest_deviation(model, sizes, BUCKET, exact=exact, garbage=garbage)
            assert error < TOLERANCE

    agrees()
