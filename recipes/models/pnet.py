"""PNet, the first stage of the MTCNN face detector: weights from facenet-pytorch 2.6.0.

Zhang et al., Joint Face Detection and Alignment Using Multi-task Cascaded Convolutional Networks (2016).
"""

from __future__ import annotations

from typing import List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .weights import packaged_file


class PNet(nn.Module):
    """[B, 3, H, W] float32, (pixel − 127.5) / 128, H and W at least 12 → box offsets [B, 4, h, w] and
    probabilities [B, 2, h, w] of (no face, face), one per 12×12 window at stride 2.

    The weights' package is never imported: it needs torchvision.
    """

    labels: List[str]
    stride = 2
    window = 12

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 10, 3)
        self.prelu1 = nn.PReLU(10)
        self.conv2 = nn.Conv2d(10, 16, 3)
        self.prelu2 = nn.PReLU(16)
        self.conv3 = nn.Conv2d(16, 32, 3)
        self.prelu3 = nn.PReLU(32)
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    def forward(self, pixel_values: Tensor) -> Tuple[Tensor, Tensor]:
        x = self.prelu1(self.conv1(pixel_values))
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        x = self.prelu2(self.conv2(x))
        x = self.prelu3(self.conv3(x))
        return self.conv4_2(x), self.conv4_1(x).softmax(1)


def pnet() -> PNet:
    """The model with its real weights, in eval mode. Raises WeightsError."""
    file = packaged_file(
        "facenet_pytorch",
        "data/pnet.pt",
        "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
        28_570,
    )
    model = PNet()
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    model.labels = ["no face", "face"]
    return model.eval()
