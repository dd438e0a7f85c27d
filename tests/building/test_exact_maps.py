"""Attention over maps as timm's models have it: windows, tokens of channels, tables made for every size."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anyshape.building.exact import ExactPadding, UnknownOperation
from anyshape.building.exact.grids import laid_out
from anyshape.building.exact.relative import spatial_biases
from anyshape.building.exact.steps import Alike, Steps

BUCKET = (24, 32)

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]


class Mapped(nn.Module):
    """A convolution to a map of 8 channels, and what `then` makes of it."""

    def __init__(self, then: nn.Module) -> None:
        super().__init__()
        self.layer, self.then = nn.Conv2d(3, 8, 3, 2, 1), then

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.then(self.layer(pixels))
        return found


class Windowed(nn.Module):
    """Padded to whole windows, in which each is a row of the batch, and cut to the map's size again."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side, self.norm = side, nn.BatchNorm2d(16)
        self.layers = nn.ModuleList([nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 1)])
        self.joined, self.table = nn.Conv2d(16, 8, 1), nn.Parameter(torch.randn(1, side, side))

    def forward(self, x: Tensor) -> Tensor:
        rows, _, height, width = x.shape
        down, across = -height % self.side, -width % self.side
        x_padded = F.pad(x, (0, across, 0, down))
        counts = (height + down) // self.side, (width + across) // self.side
        windows = x_padded.view(rows, 8, counts[0], self.side, counts[1], self.side).permute(0, 2, 4, 1, 3, 5)
        windows = windows.reshape(rows * counts[0] * counts[1], 8, self.side, self.side)
        found = self.norm(torch.cat([each(F.pad(windows, (0, 0, 0, 0, 0, 0))) for each in self.layers], 1))
        found = self.joined(found + self.table.expand(16, -1, -1))
        found = found.view(rows, counts[0], counts[1], 8, self.side, self.side).permute(0, 3, 1, 4, 2, 5)
        found = found.reshape(rows, 8, height + down, width + across)
        return x + found[:, :, :height, :width]


class OverChannels(nn.Module):
    """Channels that attend to each other by what they have at all positions (XCiT, SwiftFormer)."""

    def __init__(self) -> None:
        super().__init__()
        self.parts, self.last = nn.Conv1d(8, 24, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.parts(x.flatten(2)).chunk(3, 1)
        weights = (F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(1, 2)).softmax(-1)
        found: Tensor = self.last((weights @ value).unflatten(1, (4, 2)))
        return found.mean(-1)


class Deep(nn.Module):
    """A convolution over height and width of a map whose channels are a dimension of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.narrow = nn.Conv3d(1, 2, (5, 3, 1), padding=(2, 1, 0)), nn.Conv3d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.narrow(self.layer(x.permute(0, 2, 3, 1).unsqueeze(1)))
        return found


class Recurrent(nn.Module):
    """Every row of the map from left to right and back (Sequencer)."""

    def __init__(self, kind: Callable[..., nn.Module], first: bool = True) -> None:
        super().__init__()
        self.first, self.layer = first, kind(8, 5, 2, bidirectional=True, batch_first=first)

    def forward(self, x: Tensor) -> Tensor:
        rows, _, height, width = x.shape
        lines = x.permute(0, 2, 3, 1).reshape(-1, width, 8)
        if not self.first:
            lines = x.mean(2).permute(2, 0, 1)
        found, last = self.layer(lines)
        if not self.first:
            return found.mean(0) + (last if isinstance(last, Tensor) else last[0])[-1].sum(-1, keepdim=True)
        answer: Tensor = found.reshape(rows, height, width, -1)
        return answer


class Waves(nn.Module):
    """Positions as a part of the picture's height and width."""

    def forward(self, x: Tensor) -> Tensor:
        def make(rows: Tensor, columns: Tensor, heights: Tensor, widths: Tensor) -> Tensor:
            return torch.stack([(rows + 1) / heights + 0 * columns, columns / widths + 0 * rows], -1).sin()

        table = laid_out(torch.zeros(1), x.shape[2], x.shape[3], make).permute(0, 3, 1, 2)
        return (x.unflatten(1, (4, 2)) * table.unsqueeze(1)).mean((3, 4))


class Relative(nn.Module):
    """Keys on a map of half the size, a bias for how far they are from queries, and a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.token = nn.Conv2d(8, 8, 3, 2, 1), nn.Parameter(torch.randn(1, 1, 8))
        self.tables = nn.ParameterList([torch.randn(13, 4), torch.randn(13, 4)])

    def forward(self, x: Tensor) -> Tensor:
        few = self.keys(x)
        query, key = (self.sequence(each) for each in (x, few))
        weights = spatial_biases(
            query @ key.transpose(2, 3), query, True, x.shape[2:], few.shape[2:], *self.tables
        )
        return (weights.softmax(-1) @ key).mean(2)

    def sequence(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), x.flatten(2).transpose(1, 2)], 1)
        return tokens.unflatten(2, (2, 4)).transpose(1, 2)


class Ordered(nn.Module):
    """Channels in an order that a list or a tensor says."""

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, [3, 0, 1, 2, 7, 6, 5, 4]]
        return x.permute(0, 2, 3, 1)[:, :, :, torch.tensor([1, -1, 0])].mean((1, 2))


class Enlarged(nn.Module):
    """Pooled to a few positions, and from there to the picture's size, one row of the map being left."""

    def forward(self, x: Tensor) -> Tensor:
        few = F.adaptive_avg_pool2d(x, (3, 5))
        x = x.mean(2, keepdim=True)
        return x * F.interpolate(few, size=x.shape[2:], mode="bilinear", align_corners=True)


class Tall(nn.Module):
    """All positions of a map that is as high for every picture."""

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[3]
        x = F.pad(x, (0, 0, 0, 16 - x.shape[2])).reshape(x.shape[0], 8, 16 * width).transpose(1, 2)
        return F.scaled_dot_product_attention(x, x, x).mean(1)


class PooledKeys(nn.Module):
    """Keys that are the means of four patches each, whichever row they are in (Next-ViT)."""

    def forward(self, x: Tensor) -> Tensor:
        queries = x.flatten(2).transpose(1, 2)
        keys = F.avg_pool1d(x.flatten(2), 4, 4).transpose(1, 2)
        keys = keys.reshape(x.shape[0], -1, 2, 4).transpose(1, 2)
        queries = queries.unflatten(2, (2, 4)).transpose(1, 2)
        return F.scaled_dot_product_attention(queries, keys, keys).mean(2)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "windows of 3": lambda: Windowed(3),
    "windows as large as every map": lambda: Windowed(16),  # so that nothing is left to follow in between
    "attention over channels": OverChannels,
    "three dimensions": Deep,
    "LSTM": lambda: Recurrent(nn.LSTM),
    "GRU, time first": lambda: Recurrent(nn.GRU, first=False),
    "waves": Waves,
    "relative positions": Relative,
    "a side that is the same for all": Tall,
    "keys of patches together": PooledKeys,
    "channels in an order": Ordered,
    "from a few positions": Enlarged,
}


def check(model: nn.Module, least: int, step: int = 1) -> None:
    """Pictures of random sizes, multiples of a step, answered as alone, where the model runs and traced."""
    exact, draw = ExactPadding(model), random.Random(1)
    drawn = [(draw.randint(least, BUCKET[0]), draw.randint(least, BUCKET[1])) for _ in range(5)]
    sizes = [BUCKET, (23, 31), (least, 32), *drawn]
    sizes = [(height // step * step, width // step * step) for height, width in sizes]
    batch = torch.randn(len(sizes), 3, *BUCKET)  # with noise outside
    worst = plain = 0.0
    with torch.no_grad():
        found = exact(batch, torch.tensor(sizes))[0]
        assert set(range(least, BUCKET[0] + 1, step)) <= set(exact.heights)
        assert set(range(least, BUCKET[1] + 1, step)) <= set(exact.widths)
        traced = torch.jit.trace(exact, (batch[:2], torch.tensor(sizes[:2])), check_trace=False)
        again = traced(batch, torch.tensor(sizes))[0]
        whole = model(batch)
        for row, (height, width) in enumerate(sizes):
            (alone,) = model(batch[row : row + 1, :, :height, :width])
            place = tuple(slice(side) for side in alone.shape)
            for answers in (found, again):
                worst = max(worst, float((answers[row][place] - alone).abs().max()))
            plain = max(plain, float((whole[row][place] - alone).abs().max()))
    assert worst < 2e-5
    assert plain > 1e-3  # the same pictures do show what padding does


@pytest.mark.parametrize("name", MODELS)
def test_the_answer_is_that_of_the_picture_alone(name: str) -> None:
    torch.manual_seed(0)
    model = Mapped(MODELS[name]()).eval()
    for each in model.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.running_mean.normal_()  # type: ignore[union-attr,operator]
    check(model, least=5)


def xcit() -> nn.Module:
    from timm.models.xcit import Xcit

    return Xcit(img_size=32, patch_size=8, embed_dim=8, depth=1, num_heads=2, num_classes=3)


def eva() -> nn.Module:
    from timm.models.eva import Eva

    sizes = {"img_size": 32, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3}
    return Eva(**sizes, use_rot_pos_emb=True, ref_feat_shape=(6, 6), dynamic_img_size=True)


def mvit() -> nn.Module:
    from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg

    config = MultiScaleVitCfg(
        depths=(1, 1),
        embed_dim=8,
        num_heads=1,
        stride_q=((1, 1), (2, 2)),
        stride_kv_adaptive=(2, 2),
        use_cls_token=True,
        patch_stride=(2, 2),
    )
    return MultiScaleVit(config, img_size=(32, 32), num_classes=3)


@pytest.mark.pictures
@pytest.mark.parametrize(("build", "step"), [(xcit, 1), (eva, 4), (mvit, 1)], ids=["xcit", "eva", "mvit"])
def test_a_model_of_timm(build: Callable[[], nn.Module], step: int) -> None:
    torch.manual_seed(0)
    model = build().eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 or "bias" in name or "gamma" in name:
            nn.init.normal_(parameter, std=0.3)
    check(model, least=8, step=step)


@pytest.mark.pictures
@pytest.mark.parametrize("kind", ["pixel", "centered", "index"])
def test_turns_of_pictures_are_timms(kind: str) -> None:
    """EVA-02's sines and cosines of each picture's own size, in all the ways that timm numbers positions."""
    from timm.layers import RotaryEmbeddingCat

    options = {"in_pixels": False, "grid_offset": 0.25, "grid_indexing": "xy", "grid_type": kind}

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.rope = nn.Conv2d(3, 8, 1), RotaryEmbeddingCat(8, **options, rotate_half=True)

        def forward(self, pixels: Tensor) -> Tensor:
            queries = self.layer(pixels).flatten(2).transpose(1, 2).unsqueeze(1)
            found: Tensor = queries.repeat(1, 1, 1, 2) * self.rope.get_embed(pixels.shape[2:])
            return found.mean(2)

    torch.manual_seed(0)
    check(Turned(), least=5)


@pytest.mark.pictures
def test_steps_between_queries_and_keys_are_timms() -> None:
    from timm.models.mvitv2 import cal_rel_pos_type

    tables = torch.randn(31, 4), torch.randn(31, 4)
    for sizes in [
        ((16, 9), (4, 3)),
        ((7, 13), (7, 13)),
        ((5, 4), (15, 8)),
        ((13, 11), (3, 5)),
        ((1, 2), (4, 1)),
    ]:
        queries = torch.randn(2, 3, sizes[0][0] * sizes[0][1] + 1, 4)
        attn = torch.randn(2, 3, queries.shape[2], sizes[1][0] * sizes[1][1] + 1)
        found = spatial_biases(attn, queries, True, *sizes, *tables)
        expected = cal_rel_pos_type(attn.clone(), queries, True, *sizes, *tables)
        assert torch.allclose(found, expected, atol=1e-5)


class Pooled(nn.Module):
    """Groups of patches that overlap, whichever row they are in."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool1d(x.flatten(2), 4, 2).mean(2)


class Cells(nn.Module):
    """What an LSTM holds at the end of a line."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(8, 5, proj_size=3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.mean(2).transpose(1, 2))[0].mean(1)


@pytest.mark.parametrize(
    ("then", "says"),
    [(Pooled, "avg_pool1d.*from one of its rows to the next"), (Cells, "recurrent.*projections")],
)
def test_what_is_not_exact_is_refused_by_name(then: Any, says: str) -> None:
    with pytest.raises(UnknownOperation, match=says):
        ExactPadding(Mapped(then()))(torch.randn(1, 3, *BUCKET), torch.tensor([[20, 15]]))


class Fixed(nn.Module):
    """A number for each position of a map of 4 by 4 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.table = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        return (self.layer(x).flatten(2).transpose(1, 2) + self.table).mean(1)


def test_a_model_of_one_size_is_served_at_that_where_all_pictures_are_said_to_have_it() -> None:
    exact, pictures = ExactPadding(Fixed()), torch.randn(2, 3, 16, 16)
    with torch.no_grad(), pytest.raises(UnknownOperation, match="16 positions whose valid ones"):
        exact(pictures, torch.tensor([[16, 16]] * 2))
    exact = ExactPadding(exact.model)
    exact.step = 16
    with torch.no_grad():
        assert torch.allclose(exact(pictures, torch.tensor([[16, 16]] * 2))[0], exact.model(pictures))
    assert (exact.heights, exact.widths) == ((16,), (16,))


class OfOneWidth(nn.Module):
    """A map that was flattened before the model says that it takes one width only, and again after that."""

    def forward(self, x: Tensor) -> Tensor:
        rows, channels, height, width = x.shape
        sequence = x.flatten(2).transpose(1, 2).softmax(-1)
        if width != BUCKET[1] // 2:
            raise ValueError("another width")
        x = x.permute(0, 2, 3, 1).softmax(1) * 9
        x = x.reshape(rows, height * width, channels)
        return ((sequence + x) * (x + sequence)).mean(1)


def test_a_side_that_turns_out_to_be_the_same_for_all_may_have_been_flattened_before() -> None:
    torch.manual_seed(0)
    exact, batch = ExactPadding(Mapped(OfOneWidth())), torch.randn(3, 3, *BUCKET)
    sizes = [(24, 32), (17, 31), (4, 32)]
    with torch.no_grad():
        found = exact(batch, torch.tensor(sizes))[0]
        for row, (height, width) in enumerate(sizes):
            expected = exact.model(batch[row : row + 1, :, :height, :width])[0]
            assert torch.allclose(found[row], expected, atol=1e-5)
    assert (exact.heights[0], exact.widths) == (1, (31, 32))


class Asserting(nn.Module):
    """What is asserted of a size, in words that have it."""

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.shape[2] % 4 == 0, f"not a height of {x.shape[2]}")
        return x.mean((2, 3))


def test_the_words_of_an_assertion_may_differ_from_size_to_size() -> None:
    exact = ExactPadding(Asserting())
    exact.steps = Steps(exact.model)
    exact(torch.randn(1, 3, *BUCKET), torch.tensor([[20, 15]]))
    alike = Alike(exact.model, exact.steps, (1, 3, *BUCKET), torch.float32)
    assert alike.differs(20, 15) is None
