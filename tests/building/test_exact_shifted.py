"""Swin: windows that are shifted and masked by each picture's own size, of all who have written it down."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyshape.building.exact import ExactPadding, UnknownOperation
from anyshape.building.exact.shifted import shifted_windows

BUCKET = (100, 132)
SMALL: dict[str, Any] = {"depths": [2, 2], "num_heads": [1, 2]}

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]


class First(nn.Module):
    """The features as a map, and the pooled answer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Any:
        answer = self.model(pixel_values)
        return answer if isinstance(answer, Tensor) else (answer.last_hidden_state, answer.pooler_output)


def swin() -> nn.Module:
    from transformers import SwinConfig, SwinModel

    return First(SwinModel(SwinConfig(**SMALL, embed_dim=8, window_size=4, image_size=64)))


def swin_with_a_table() -> nn.Module:
    from transformers import SwinConfig, SwinModel

    config = SwinConfig(**SMALL, embed_dim=8, window_size=4, image_size=64, use_absolute_embeddings=True)
    model = SwinModel(config)
    model.register_forward_pre_hook(
        lambda _, args, kwargs: (args, {"interpolate_pos_encoding": True, **kwargs}), with_kwargs=True
    )
    return First(model)


def swin_v2() -> nn.Module:
    from transformers import Swinv2Config, Swinv2Model

    return First(Swinv2Model(Swinv2Config(**SMALL, embed_dim=8, window_size=4, image_size=64)))


def torchvisions() -> nn.Module:
    from torchvision.models.swin_transformer import SwinTransformer

    return SwinTransformer([4, 4], 8, SMALL["depths"], SMALL["num_heads"], [5, 3], num_classes=7)


def torchvisions_v2() -> nn.Module:
    from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

    sizes = [4, 4], 8, SMALL["depths"], SMALL["num_heads"], [4, 5]
    return SwinTransformer(
        *sizes, num_classes=7, block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2
    )


def timms() -> nn.Module:
    from timm.models.swin_transformer import SwinTransformer

    sizes = {"depths": (2, 2), "num_heads": (1, 2), "window_size": 4, "embed_dim": 8, "num_classes": 7}
    return SwinTransformer(img_size=64, strict_img_size=False, **sizes)


def timms_v2() -> nn.Module:
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    sizes = {"depths": (2, 2), "num_heads": (1, 2), "window_size": 4, "embed_dim": 8, "num_classes": 7}
    return SwinTransformerV2(img_size=64, strict_img_size=False, **sizes)


def made(build: Callable[[], nn.Module]) -> nn.Module:
    """With weights by which every window's answer is another one."""
    torch.manual_seed(0)
    model = build().eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 or "bias" in name:
            nn.init.normal_(parameter, std=0.2)
    return model


def first(answer: Any) -> tuple[Tensor, ...]:
    return (answer,) if isinstance(answer, Tensor) else tuple(answer)


def check(build: Callable[[], nn.Module], least: int, step: int = 1) -> None:
    draw, exact = random.Random(1), ExactPadding(made(build))
    sizes = [
        BUCKET,
        (99, 131),
        (97, 97),
        (least, least),
        (least + 1, 132),
        (100, least + 3),
        (80, 112),
        (64, 64),
    ]
    sizes += [(draw.randint(least, BUCKET[0]), draw.randint(least, BUCKET[1])) for _ in range(6)]
    sizes = [(height // step * step, width // step * step) for height, width in sizes]
    batch = torch.randn(len(sizes), 3, *BUCKET)  # with noise outside
    worst = plain = 0.0
    with torch.no_grad():
        found = exact(batch, torch.tensor(sizes))
        traced = torch.jit.trace(exact, (batch[:2], torch.tensor(sizes[:2])), check_trace=False)
        again = traced(batch, torch.tensor(sizes))
        assert set(range(least, BUCKET[0] + 1, step)) <= set(exact.heights)
        assert set(range(least, BUCKET[1] + 1, step)) <= set(exact.widths)
        for row, (height, width) in enumerate(sizes):
            # made anew: transformers' own changes its windows with a small picture
            expected = first(made(build)(batch[row : row + 1, :, :height, :width]))
            padded = first(made(build)(batch[row : row + 1]))
            for number, alone in enumerate(expected):
                place = tuple(slice(side) for side in alone[0].shape)
                scale = alone.abs().max()
                for answers in (found, again):
                    worst = max(worst, float((answers[number][row][place] - alone[0]).abs().max() / scale))
                plain = max(plain, float((padded[number][0][place] - alone[0]).abs().max() / scale))
    assert worst < 2e-5
    assert plain > 1e-2  # the same pictures do show what padding does


@pytest.mark.parametrize("build", [swin, swin_with_a_table, swin_v2], ids=lambda build: build.__name__)
def test_a_swin_of_transformers(build: Callable[[], nn.Module]) -> None:
    check(build, least=40, step=4 if build is swin_with_a_table else 1)  # the table has no part of a patch


@pytest.mark.pictures
@pytest.mark.parametrize("build", [torchvisions, torchvisions_v2, timms, timms_v2], ids=lambda b: b.__name__)
def test_a_swin_of_others(build: Callable[[], nn.Module]) -> None:
    check(
        build, least=12, step=4 if build in (timms, timms_v2) else 1
    )  # timm pads no picture to whole patches


class Windows(nn.Module):
    """Shifted windows over what `spoil` makes of the map."""

    def __init__(self, spoil: Callable[[Tensor], Tensor], shift: int = 1) -> None:
        super().__init__()
        self.layer, self.spoil, self.shift = nn.Conv2d(3, 4, 3, 2, 1), spoil, shift

    def forward(self, pixel_values: Tensor) -> Tensor:
        hidden = self.spoil(self.layer(pixel_values).permute(0, 2, 3, 1))
        return shifted_windows(hidden, (3, 5), (self.shift, 2), lambda windows, mask: windows.cumsum(1))


@pytest.mark.parametrize("padded_first", [True, False])
def test_every_position_comes_back_to_where_it_was(padded_first: bool) -> None:
    """Windows that are not changed give the map, at sizes about whole windows."""
    picture = torch.randn(1, 11, 13, 2)
    for height in range(1, 12):
        for width in (1, 4, 5, 6, 13):
            hidden = picture[:, :height, :width]
            same = shifted_windows(hidden, (3, 5), (1, 2), lambda windows, _: windows, padded_first)
            assert torch.equal(same, hidden)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda x: x.transpose(1, 3), "shifted_windows.*height, width, channels"),
        (lambda x: x.flatten(1, 2), "shifted_windows.*height, width, channels"),
    ],
    ids=["channels first", "flattened"],
)
def test_another_layout_is_refused_by_name(spoil: Callable[[Tensor], Tensor], says: str) -> None:
    with pytest.raises((UnknownOperation, ValueError), match=says):
        ExactPadding(Windows(spoil))(torch.randn(1, 3, 20, 8), torch.tensor([[17, 6]]))
