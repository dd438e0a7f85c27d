"""Whole models, most with real weights: padded with exactness, padded plainly, and alone."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from anyshape.building.exact import ExactPadding
from recipes.models.deepcr import deepcr
from recipes.models.mobilenet import mobilenet_v2
from recipes.models.pnet import pnet
from recipes.models.resnet50 import random_resnet50
from recipes.models.yolov3_tiny import yolov3_tiny
from tests.building.models_for_exact import Size, largest_deviation, seeded
from tests.quick import quick

TOLERANCE = 1e-4
ROWS = 4  # sizes in one batch


class Detr(nn.Module):
    """A small DETR with random weights: what its answer is made of, without the sequences between."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

        backbone = ResNetConfig(
            embedding_size=16,
            hidden_sizes=[16, 32, 64, 128],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            out_features=["stage4"],
        )
        config = DetrConfig(
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            backbone=None,
            backbone_config=backbone,
            d_model=64,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            num_queries=20,
            num_labels=10,
        )
        self.detr = DetrForObjectDetection(config)

    def forward(self, pixel_values: Tensor, pixel_mask: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        answer = self.detr(pixel_values=pixel_values, pixel_mask=pixel_mask)
        return answer.logits, answer.pred_boxes


class Case(NamedTuple):
    build: Callable[[], Any]
    bucket: Size
    least: int = 1
    step: int = 1
    channels: int = 3
    scale: float = 1.0


CASES: Dict[str, Case] = {
    "MobileNetV2": Case(mobilenet_v2, (150, 190), least=20),
    "ResNet-50": Case(random_resnet50, (97, 130), least=20),
    "YOLOv3-tiny": Case(yolov3_tiny, (160, 192), least=32, step=32),
    "deepCR": Case(deepcr, (90, 112), least=2, step=2, channels=1, scale=100.0),
    "PNet": Case(pnet, (99, 127), least=12),
    "DETR": Case(lambda: seeded(Detr), (150, 200), least=33),
}
QUICK = quick(CASES, 0, 2, 3, 5)


pytestmark = pytest.mark.usefixtures("one_thread")


def check(name: str, sizes_to_try: int) -> None:
    case = CASES[name]
    model = case.build()
    exact = ExactPadding(model)
    sides = (
        st.integers(-(-case.least // case.step), limit // case.step).map(lambda n: n * case.step)
        for limit in case.bucket
    )
    worst = [0.0, 0.0]

    @settings(
        max_examples=sizes_to_try // ROWS,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(st.tuples(*sides), min_size=ROWS, max_size=ROWS))
    def agrees(sizes: List[Size]) -> None:
        errors = largest_deviation(
            model, sizes, case.bucket, exact=exact, channels=case.channels, scale=case.scale
        )
        worst[:] = [max(pair) for pair in zip(worst, errors)]
        assert errors[0] <= TOLERANCE

    agrees()
    print(f"{name}: exact padding {worst[0]:.1e}, plain zero padding {worst[1]:.1e}")
    assert worst[1] > 100 * TOLERANCE  # the same sizes do show what plain padding does


@pytest.mark.parametrize("name", QUICK)
def test_model_answers_as_for_the_image_alone(name: str) -> None:
    check(name, 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_model_answers_as_for_the_image_alone_over_200_sizes(name: str) -> None:
    check(name, 200)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # the model's own checks of shapes
@pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")
@pytest.mark.parametrize("name", QUICK)
def test_trace_of_a_full_bucket_serves_smaller_images(name: str) -> None:
    case = CASES[name]
    model = case.build()
    exact = ExactPadding(model)
    step = case.step
    height, width = (side // step * step for side in case.bucket)
    example = torch.rand(1, case.channels, height, width), torch.tensor([[height, width]])
    with torch.no_grad():
        traced = torch.jit.trace(exact, example)
    sizes = [(height - 32, width - 32), (height, width - 64), (height - 64, width)]
    error, _ = largest_deviation(
        model, sizes, (height, width), run=traced, exact=exact, channels=case.channels, scale=case.scale
    )
    assert error <= TOLERANCE
