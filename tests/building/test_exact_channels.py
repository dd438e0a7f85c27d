"""Operations over channels, over the whole picture and on the flattened picture, against the image alone."""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, Tuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyshape.building.exact import ExactPadding
from tests.building.models_for_exact import Call, around, largest_deviation, padded, pictures

BUCKET = (21, 18)
TOLERANCE = 2e-5
SIZES = [(21, 18), (20, 17), (13, 18), (9, 7), (6, 11)]


def global_response(x: Tensor) -> Tensor:
    norms = x.norm(p=2, dim=(2, 3), keepdim=True)
    return x * norms / (norms.mean(1, keepdim=True) + 1e-6) + x


def pyramid(mode: str, **options: Any) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        pooled = [F.adaptive_avg_pool2d(x, bins) for bins in (1, 2, 3)]
        return torch.cat([x, *(F.interpolate(p, size=x.shape[2:], mode=mode, **options) for p in pooled)], 1)

    return run


def context(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    weights = x[:, :1].reshape(batch, 1, height * width).softmax(-1).unsqueeze(3)
    return x + (x.reshape(batch, channels, height * width).unsqueeze(1) @ weights).view(batch, channels, 1, 1)


def channel_attention(x: Tensor) -> Tensor:
    weights = F.conv1d(x.mean((2, 3)).unsqueeze(1), torch.ones(1, 1, 3) / 3, padding=1)
    return x * weights.transpose(1, 2).unsqueeze(-1).sigmoid().expand_as(x)


def sequence(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    tokens = F.layer_norm(x.flatten(2).transpose(1, 2), (channels,)) * 2 + 1
    return tokens.transpose(1, 2).reshape(batch, channels, height, width)


def tokens_seen(x: Tensor) -> Tensor:
    queries = x.flatten(2)
    seen = torch.einsum("bcn,bdn->bcd", queries.softmax(-1), queries + 1)
    return x + torch.einsum("bcd,bdhw->bchw", seen, x)


def repeated(x: Tensor) -> Tensor:
    means = x.mean((2, 3)).unsqueeze(2).repeat(1, 1, x.shape[2] * x.shape[3])
    return (x.flatten(2) * 2 + means).view(x.shape)


def in_parts(x: Tensor) -> Tensor:
    """Two maps and a token as one sequence, cut where their sizes say."""
    low = F.max_pool2d(x, 2)
    sizes = [each.shape[2] * each.shape[3] for each in (x, low)]
    joined = torch.cat([torch.ones(1, 8, 1).expand(x.shape[0], -1, -1), x.flatten(2)], 2)
    joined = torch.cat([joined, low.flatten(2)], 2) * 2
    _, high, small = joined.split([joined.shape[2] - sizes[0] - sizes[1], *sizes], 2)
    return high.reshape(x.shape) * small.mean(2)[:, :, None, None]


def same(kernel: int, stride: int, pool: bool = False) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        amounts = []
        for size in (x.shape[3], x.shape[2]):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            amounts += [total // 2, total - total // 2]
        if pool:
            return F.max_pool2d(F.pad(x, amounts, value=-math.inf), kernel, stride)
        return F.conv2d(F.pad(x, amounts), torch.ones(8, 8, kernel, kernel) / 100, stride=stride)

    return run


class SameAsTimms(nn.Conv2d):
    """Asks its weight how large the kernel is."""

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.shape[-2:]
        totals = [max((math.ceil(n / 2) - 1) * 2 + (k - 1) + 1 - n, 0) for n, k in zip(x.shape[2:], kernel)]
        x = F.pad(x, [half for total in reversed(totals) for half in (total // 2, total - total // 2)])
        return F.conv2d(x, self.weight, self.bias, 2)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_sizes_keep_what_they_are_beside_those_of_weights_while_traced() -> None:
    model = around(SameAsTimms(8, 8, 3))
    exact = ExactPadding(model)
    with torch.no_grad():
        traced = torch.jit.trace(exact, padded(pictures([BUCKET]), BUCKET), check_trace=False)
        exact(*padded(pictures([BUCKET]), BUCKET))
    error, _ = largest_deviation(model, SIZES, BUCKET, run=traced, exact=exact)
    assert error < TOLERANCE


def written(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, 2:5] = x[:, :3] * 2
    y[:, 0] = 0.5
    return y


def standardised(x: Tensor) -> Tensor:
    deviation = x.std((2, 3), keepdim=True)
    grouped = x.reshape(x.shape[0], 2, 4, x.shape[2], x.shape[3]).var(
        dim=(2, 3, 4), unbiased=False, keepdim=True
    )
    return x / (deviation + 1) + grouped.expand(-1, -1, 4, 1, 1).reshape(x.shape[0], 8, 1, 1)


def profile(x: Tensor) -> Tensor:
    rows = F.conv1d(x.mean(3), torch.ones(8, 8, 3) / 9, padding=1)
    return x * rows.unsqueeze(3).sigmoid()


def patches(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // 3, 3, width // 2, 2).permute(0, 3, 5, 1, 2, 4)
    x = (x * 2 + 1).reshape(batch, 6, channels, height // 3, width // 2).permute(0, 2, 3, 1, 4)
    x = x.reshape(batch, channels, height // 3, 3, 2, width // 2).transpose(4, 5)
    return x.reshape(batch, channels, height, width)


OPERATIONS: Dict[str, Tuple[nn.Module, int]] = {
    "global response norm": (Call(global_response), 8),
    "vector norm": (Call(lambda x: x / torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)), 8),
    "bilinear pyramid": (Call(pyramid("bilinear", align_corners=False)), 32),
    "bilinear pyramid, corners": (Call(pyramid("bilinear", align_corners=True)), 32),
    "nearest pyramid": (Call(pyramid("nearest")), 32),
    "global context": (Call(context), 8),
    "efficient channel attention": (Call(channel_attention), 8),
    "flattened and back": (Call(sequence), 8),
    "products over positions": (Call(tokens_seen), 8),
    "SAME convolution": (Call(same(3, 2)), 8),
    "SAME convolution, 5 by 3": (Call(same(5, 3)), 8),
    "SAME pooling": (Call(same(3, 2, pool=True)), 8),
    "written channels": (Call(written), 8),
    "deviations": (Call(standardised), 8),
    "convolution along one side": (Call(profile), 8),
    "channel shuffle": (Call(lambda x: F.channel_shuffle(x, 4)), 8),
    "local response norm": (nn.LocalResponseNorm(3), 8),
    "patches and back": (Call(patches), 8),
    "rolled channels": (Call(lambda x: torch.roll(x, 2, 1)), 8),
    "flipped channels": (Call(lambda x: x.flip(1)), 8),
    "selected channels": (Call(lambda x: x.index_select(1, torch.tensor([3, 1, 0, 7]))), 4),
    "repeated channels": (Call(lambda x: x[:, :2].repeat_interleave(2, 1).repeat(1, 2, 1, 1)), 8),
    "moved": (Call(lambda x: F.rms_norm(x.movedim(1, -1), (8,)).movedim(-1, 1)), 8),
    "attention along columns": (Call(lambda x: x @ x.transpose(2, 3) @ x), 8),
    "columns and back": (Call(lambda x: F.fold(F.unfold(x, 3, 1, 1, 2), x.shape[2:], 3, 1, 1, 2)), 8),
    "all as one sequence": (Call(lambda x: x + x.flatten(1).mean(1)[:, None, None, None]), 8),
    "maps of channels": (Call(lambda x: x.flatten(1).softmax(1).view(x.shape[0], 8, *x.shape[2:]) * 99), 8),
    "a number of the picture's size": (Call(lambda x: x * x.shape[2] - (x > x.shape[3] / 20).float()), 8),
    "repeated by the size": (Call(repeated), 8),
    "mirrored to threes": (Call(lambda x: F.pad(x, (0, -x.shape[3] % 3, 0, -x.shape[2] % 3), "reflect")), 8),
    "a sequence in parts": (Call(in_parts), 8),
    "matrix over channels": (Call(lambda x: torch.einsum("oc,bchw->bohw", torch.ones(4, 8) / 8, x)), 4),
}
MODELS = {name: around(operation, after=after) for name, (operation, after) in OPERATIONS.items()}


@pytest.mark.parametrize("name", MODELS)
def test_operation_answers_as_for_the_image_alone(name: str) -> None:
    exact = ExactPadding(MODELS[name])
    with torch.no_grad():
        exact(*padded(pictures([BUCKET]), BUCKET))
    step = 3 if name == "patches and back" else 1
    assert set(range(3, BUCKET[0] + 1, step)) <= set(exact.heights)
    for garbage in (0.0, math.nan):
        sizes = [(h // step * step, w // 2 * 2 if step > 1 else w) for h, w in SIZES]
        error, _ = largest_deviation(MODELS[name], sizes, BUCKET, exact=exact, garbage=garbage)
        assert error < TOLERANCE
