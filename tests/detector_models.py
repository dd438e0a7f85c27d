"""Small detectors with random weights, one for each family of heads, and DETR's kin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anyshape.building.tasks.image_settings import IMAGENET_MEAN, IMAGENET_STD
from tests.image_models import _resnet_config, normalised, photograph, seeded

CLASSES = 5
ANCHORS = [[[12.0, 20.0], [30.0, 16.0]], [[40.0, 44.0], [60.0, 30.0]]]
RELATIVE = [[[0.2, 0.3], [0.4, 0.2]], [[0.6, 0.5], [0.9, 0.7]]]


class Levels(nn.Module):
    """Two levels of 8 and 16 pixels a cell; for each kind of map a convolution on both."""

    labels = ["cat", "dog", "owl", "fox", "bee"]
    image_multiple_of = 16
    bins = 6

    def __init__(self, boxes: str, channels: Sequence[int], anchors: Any = None) -> None:
        super().__init__()
        self.boxes, self.strides, self.anchors = boxes, [8, 16], anchors
        self.stem = nn.Sequential(*(nn.Conv2d(n, 16, 3, 2, 1) for n in (3, 16, 16)), nn.BatchNorm2d(16))
        self.next = nn.Conv2d(16, 16, 3, 2, 1)
        self.heads = nn.ModuleList(nn.Conv2d(16, count, 1) for count in channels)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        first = self.stem(pixel_values).relu()
        return tuple(2 * head(level) for head in self.heads for level in (first, self.next(first)))


def _made(*given: Any) -> nn.Module:
    torch.manual_seed(3)
    return seeded(Levels(*given))


def yolov3() -> nn.Module:
    return _made("yolov3", [2 * (5 + CLASSES)], ANCHORS)


def yolov5() -> nn.Module:
    return _made("yolov5", [2 * (5 + CLASSES)], ANCHORS)


def yolox() -> nn.Module:
    return _made("yolox", [5 + CLASSES])


def yolov8() -> nn.Module:
    return _made("yolov8", [4 * 6 + CLASSES])


def retinanet() -> nn.Module:
    return _made("retinanet", [2 * CLASSES, 2 * 4], ANCHORS)


def ssd() -> nn.Module:
    return _made("ssd", [2 * CLASSES, 2 * 4], RELATIVE)


def fcos() -> nn.Module:
    return _made("fcos", [CLASSES, 4, 1])


def unknown_family() -> nn.Module:
    return _made("centernet", [5])


def without_anchors() -> nn.Module:
    return _made("retinanet", [2 * CLASSES, 2 * 4])


class FlattenedBoxes(Levels):
    """One that joins its levels and picks the best itself, as detectors do that are not split."""

    def forward(self, pixel_values: Tensor) -> Any:
        heads = super().forward(pixel_values)
        return torch.cat([head.flatten(2) for head in heads], 2).topk(10, dim=2)


class SortedBoxes(Levels):
    """One that sorts them, as suppression does."""

    def forward(self, pixel_values: Tensor) -> Any:
        return torch.cat([head.flatten(2) for head in super().forward(pixel_values)], 2).sort(2)


def flattened() -> nn.Module:
    torch.manual_seed(3)
    return seeded(FlattenedBoxes("yolox", [5 + CLASSES]))


def sorted_boxes() -> nn.Module:
    torch.manual_seed(3)
    return seeded(SortedBoxes("yolox", [5 + CLASSES]))


class GeneralizedRCNN(nn.Module):
    """Called as torchvision's detectors of two stages are."""


class FasterRCNN(GeneralizedRCNN):
    pass


def faster_rcnn() -> nn.Module:
    return FasterRCNN()


def conditional_detr() -> Any:
    from transformers import ConditionalDetrConfig, ConditionalDetrForObjectDetection

    torch.manual_seed(0)
    layers = {
        f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")
    }
    sizes = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_queries": 12, "num_labels": 5}
    config = ConditionalDetrConfig(
        use_timm_backbone=False, backbone_config=_resnet_config(out_features=["stage4"]), **layers, **sizes
    )
    model = seeded(ConditionalDetrForObjectDetection(config))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=2 * module.in_features**-0.5)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
    return model


def torchvision_detector(name: str) -> Any:
    """One of torchvision's with random weights, that keeps every box."""
    from torchvision.models import detection

    torch.manual_seed(0)
    model = seeded(getattr(detection, name)(weights=None, weights_backbone=None, num_classes=5))
    for key, parameter in model.named_parameters():
        if "head" in key:
            parameter.data.normal_(0, 0.3 if "ssd" in name else 0.02)
    model.score_thresh, model.nms_thresh = 0.5, 1.0
    model.topk_candidates = model.detections_per_img = 10**6
    return model


def ssdlite320_mobilenet_v3_large() -> Any:
    return torchvision_detector("ssdlite320_mobilenet_v3_large")


def fcos_resnet50_fpn() -> Any:
    return torchvision_detector("fcos_resnet50_fpn")


def retinanet_resnet50_fpn() -> Any:
    return torchvision_detector("retinanet_resnet50_fpn")


def _varied(model: Any, **more: Tensor) -> Any:
    """Weights by which queries have boxes and classes of their own; fresh ones are too faint for that. Batch
    norms are those of a photograph: by random ones nothing of the picture came through many layers. `more`
    is what else the model is called with."""
    torch.manual_seed(1)
    for module in seeded(model).modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=2 * module.in_features**-0.5)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=1.2 * module.weight[0].numel() ** -0.5)
    for name, values in (*model.named_buffers(), *model.named_parameters()):
        if name.endswith(("running_mean", "running_var", "weight")) and values.dim() == 1:
            values.data.uniform_(0.5, 1.5)
        elif name.endswith("bias"):
            values.data.uniform_(-0.3, 0.3)
    norms = [module for module in model.modules() if hasattr(module, "running_var")]
    handles = [norm.register_forward_pre_hook(_normed) for norm in norms]
    if norms:
        with torch.no_grad():
            model(normalised(photograph("coffee.png", (64, 96)), IMAGENET_MEAN, IMAGENET_STD), **more)
    for handle in handles:
        handle.remove()
    return model.eval()


def _normed(norm: Any, inputs: tuple[Tensor]) -> None:
    norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
    norm.running_var.copy_(inputs[0].var((0, 2, 3)))


def _layers(heads: int = 2) -> dict[str, int]:
    sides = ("encoder", "decoder")
    sizes = {f"{side}_ffn_dim": 32 for side in sides} | {f"{side}_attention_heads": heads for side in sides}
    return {**sizes, "encoder_layers": 1, "decoder_layers": 2, "num_queries": 8, "num_labels": 5}


def _real_time(prefix: str, **options: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1] * 4,
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = getattr(transformers, prefix + "Config")(
        backbone_config=backbone,
        encoder_in_channels=[16, 24, 32],
        encoder_hidden_dim=16,
        decoder_in_channels=[16] * 3,
        d_model=16,
        **{**_layers(), **options},
    )
    return _varied(getattr(transformers, prefix + "ForObjectDetection")(config))


def rt_detr() -> Any:
    return _real_time("RTDetr", decoder_n_points=2)


def rt_detr_v2() -> Any:
    return _real_time("RTDetrV2", decoder_n_points=2)


def d_fine() -> Any:
    return _real_time("DFine", decoder_n_points=[2, 1, 2])


def _deformable(**options: Any) -> Any:
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection

    torch.manual_seed(0)
    config = DeformableDetrConfig(
        use_timm_backbone=False,
        backbone_config=_resnet_config(out_features=["stage3", "stage4"]),
        d_model=64,
        num_feature_levels=3,
        two_stage_num_proposals=8,
        **_layers(),
        **options,
    )
    return _varied(DeformableDetrForObjectDetection(config))


def deformable_detr() -> Any:
    return _deformable()


def deformable_detr_of_two_stages() -> Any:
    return _deformable(with_box_refine=True, two_stage=True)


def dab_detr() -> Any:
    from transformers import DabDetrConfig, DabDetrForObjectDetection

    torch.manual_seed(0)
    backbone = _resnet_config(out_features=["stage4"])
    config = DabDetrConfig(use_timm_backbone=False, backbone_config=backbone, hidden_size=32, **_layers())
    return _varied(DabDetrForObjectDetection(config))
