"""Transformers of pictures: padded with exactness, and alone, at sizes other than their tables'."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from anyshape.building.exact import ExactPadding, UnknownOperation
from anyshape.building.tasks.image_settings import IMAGENET_MEAN, IMAGENET_STD
from tests.image_models import encoded, engine, normalised, photograph

BUCKET = (96, 128)
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 4}
STAGES: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_labels": 4}
HEADS = {"num_attention_heads": [1, 1, 2, 2]}


class Interpolated(nn.Module):
    """One whose forward asks whether it may be used at other sizes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> Any:
        return self.model(pixel_values, interpolate_pos_encoding=True).logits


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return Interpolated(
        ViTForImageClassification(ViTConfig(**SMALL, intermediate_size=32, image_size=64, patch_size=16))
    )


def dinov2() -> Any:
    from transformers import Dinov2Config, Dinov2ForImageClassification

    return Dinov2ForImageClassification(Dinov2Config(**SMALL, mlp_ratio=2, image_size=56, patch_size=14))


def segformer() -> Any:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return SegformerForSemanticSegmentation(SegformerConfig(**STAGES, **HEADS, decoder_hidden_size=16))


def pvt_v2() -> Any:
    from transformers import PvtV2Config, PvtV2ForImageClassification

    return PvtV2ForImageClassification(PvtV2Config(**STAGES, **HEADS))


def deit() -> Any:
    from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher

    config = DeiTConfig(**SMALL, intermediate_size=32, image_size=64, patch_size=16)
    return Interpolated(DeiTForImageClassificationWithTeacher(config))


def yolos() -> Any:
    from transformers import YolosConfig, YolosForObjectDetection

    sizes = {"intermediate_size": 32, "image_size": [64, 80], "patch_size": 16, "num_detection_tokens": 5}
    return YolosForObjectDetection(YolosConfig(**SMALL, **sizes, use_mid_position_embeddings=False))


class Tables(nn.Module):
    """Two tables of positions that are brought to the picture's size as one batch."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.tables = nn.Conv2d(3, 8, 16, 16), nn.Parameter(torch.zeros(2, 8, 4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x)
        tables = nn.functional.interpolate(self.tables, size=x.shape[2:], mode="bilinear")
        return (x + tables[:1]).relu() + tables[1:]


def with_tables() -> nn.Module:
    return Tables()


class Biased(nn.Module):
    """A bias for each pair of patches, sliced out of a larger table."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.table = nn.Conv2d(3, 8, 16, 16), nn.Parameter(torch.zeros(64, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        bias = self.table[: x.shape[1], : x.shape[1]]
        return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=bias).mean(1)


def with_biases() -> nn.Module:
    return Biased()


class MaskFormer(nn.Module):
    """The masks of its queries. It takes a pixel mask, and never looks at it."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import DetrConfig, MaskFormerConfig, MaskFormerForInstanceSegmentation, ResNetConfig

        sides = [
            f"{side}_{what}" for side in ("encoder", "decoder") for what in ("layers", "attention_heads")
        ]
        backbone = ResNetConfig(
            embedding_size=8,
            hidden_sizes=[8, 16, 24, 32],
            depths=[1] * 4,
            layer_type="basic",
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )
        decoder = DetrConfig(d_model=32, num_queries=6, decoder_ffn_dim=32, **dict.fromkeys(sides, 2))
        sizes = {"fpn_feature_size": 32, "mask_feature_size": 32}
        self.model = MaskFormerForInstanceSegmentation(
            MaskFormerConfig(backbone_config=backbone, decoder_config=decoder, **sizes)
        )

    def forward(self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None = None) -> Any:
        return self.model(pixel_values, pixel_mask=pixel_mask).masks_queries_logits


def maskformer() -> nn.Module:
    return MaskFormer()


def made(build: Callable[[], Any]) -> Any:
    """The model with weights by which its answers differ."""
    torch.manual_seed(0)
    model = build().eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.15)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
        elif name.endswith("running_mean"):
            buffer.normal_(0.0, 0.3)
    return model


def first(answer: Any) -> torch.Tensor:
    found: torch.Tensor = answer if isinstance(answer, torch.Tensor) else answer.logits
    return found


@pytest.mark.filterwarnings("ignore")  # transformers' own, about what tracing fixes
@pytest.mark.parametrize(
    "build",
    [*(vit, dinov2, deit, yolos, segformer, pvt_v2), pytest.param(maskformer, marks=pytest.mark.slow)],
    ids=lambda build: build.__name__,
)
def test_a_transformer_answers_as_for_the_picture_alone(build: Callable[[], Any]) -> None:
    model = made(build)
    exact, draw = ExactPadding(model), random.Random(2)
    sizes = [BUCKET, (95, 127), *((draw.randint(33, 96), draw.randint(33, 128)) for _ in range(6))]
    pictures = [torch.randn(3, *size) for size in sizes]
    batch = torch.randn(len(sizes), 3, *BUCKET)  # with noise outside
    for row, picture in zip(batch, pictures):
        row[:, : picture.shape[1], : picture.shape[2]] = picture
    worst = plain = 0.0
    with torch.no_grad():
        found = exact(batch, torch.tensor(sizes))[0]
        traced = torch.jit.trace(exact, (batch[:2], torch.tensor(sizes[:2])), check_trace=False)
        again = traced(batch, torch.tensor(sizes))[0]
        for row, (size, picture) in enumerate(zip(sizes, pictures)):
            assert size[0] in exact.heights
            assert size[1] in exact.widths
            (expected,) = first(model(picture[None]))
            place = tuple(slice(side) for side in expected.shape)
            scale = expected.abs().max()
            for answers in (found, again):
                worst = max(worst, ((answers[row][place] - expected).abs().max() / scale).item())
            (padded,) = first(model(batch[row : row + 1]))
            plain = max(plain, ((padded[place] - expected).abs().max() / scale).item())
    assert worst < 2e-5
    assert plain > 1e-2  # the same pictures do show what padding does


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("build", "says"),
    [(with_tables, "interpolate.*several tables"), (with_biases, "a number for each position")],
    ids=["tables", "biases"],
)
def test_biases_and_tables_of_positions_are_refused_by_name(build: Callable[[], Any], says: str) -> None:
    with pytest.raises(UnknownOperation, match=says):
        ExactPadding(made(build))(torch.randn(1, 3, 64, 64), torch.tensor([[60, 50]]))


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_one_size_takes_that_alone() -> None:
    model = made(lambda: vit().model)
    exact, picture = ExactPadding(model), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        (found, *_) = exact(picture, torch.tensor([[64, 64]] * 2))
        assert torch.allclose(found, model(picture).logits, atol=1e-5)
        traced = torch.jit.trace(exact, (picture[:1], torch.tensor([[64, 64]])), check_trace=False)
        assert torch.allclose(traced(picture, torch.tensor([[64, 64]] * 2))[0], found, atol=1e-5)
    assert (exact.heights, exact.widths) == ((64,), (64,))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_vit_in_a_folder_takes_pictures_of_other_sizes_than_it_was_trained_at(tmp_path: Path) -> None:
    model = made(vit)
    model.model.save_pretrained(tmp_path / "model")
    settings = {"task": "image-classification", "buckets": [[64, 64], [80, 112]]}
    engine_of = engine(tmp_path, "vit", model=str(tmp_path / "model"), **settings)
    for size in [(64, 64), (80, 112), (79, 97), (48, 33), (17, 112)]:
        picture = photograph("coffee.png", size)
        with torch.no_grad():
            scores = model(normalised(picture, IMAGENET_MEAN, IMAGENET_STD)).softmax(1)[0]
        found = {answer["label"]: answer["score"] for answer in engine_of(encoded(picture))}
        assert found == pytest.approx(
            {f"LABEL_{i}": each for i, each in enumerate(scores.tolist())}, abs=1e-5
        )
