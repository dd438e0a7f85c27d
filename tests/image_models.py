"""What the tests of pictures share: photographs, small random models, and building an archive."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from anyshape.building.build import build
from anyshape.model import BucketedModel

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"


def normalised(picture: Image.Image, mean: Any, std: Any) -> Tensor:
    """[1, 3, height, width]: what a model gets of a picture that is not padded, in plain PIL and torch."""
    pixels = torch.tensor(np.asarray(picture)).permute(2, 0, 1)[None] / 255
    return (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def photograph(name: str, size: tuple[int, int] | None = None) -> Image.Image:
    """One of scikit-image's pictures as RGB, resized to (height, width) if asked."""
    picture = Image.open(PHOTOGRAPHS / name).convert("RGB")
    return picture if size is None else picture.resize(size[::-1], Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def built(folder: Path, name: str, **handler: Any) -> Path:
    """An archive of a recipe with this `handler:` section."""
    recipe = folder / f"{name}.yaml"
    settings = {"maxWorkers": 1, "handler": {"threads": 1, "largest_batch": 2, **handler}}
    recipe.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return build(recipe, folder).path


def engine(folder: Path, name: str, **handler: Any) -> BucketedModel:
    """The same, loaded but not measured: buckets are chosen by their area, whatever this machine does."""
    return BucketedModel.load(built(folder, name, **handler), warm=False)


def seeded(model: nn.Module) -> nn.Module:
    """Batch norms with random statistics: fresh ones map zero to zero, which would hide padding."""
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
            elif name.endswith("running_mean"):
                buffer.normal_(0.0, 0.3)
    return model.eval()


class Mean(nn.Module):
    """Three classes: the means of red, green and blue over the picture, nothing else."""

    labels = ["red", "green", "blue"]
    image_mean = (0.0, 0.0, 0.0)
    image_std = (1.0, 1.0, 1.0)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return pixel_values.mean((2, 3))


class Windows(nn.Module):
    """Convolutions without padding: no picture with a side below 9 gives anything."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Conv2d(4, 2, 5))

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.layers(pixel_values).mean((2, 3))


class Quarter(nn.Module):
    """Scores of three classes for every fourth pixel, as SegFormer and its kin give them."""

    labels = ["sky", "sea", "land"]

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 3, 3, 1, 1),
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.layers(pixel_values)


def quarter() -> nn.Module:
    torch.manual_seed(0)
    return seeded(Quarter())


def mean() -> nn.Module:
    return Mean().eval()


def windows() -> nn.Module:
    torch.manual_seed(0)
    return Windows().eval()


def _resnet_config(**options: Any) -> Any:
    from transformers import ResNetConfig

    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}
    return ResNetConfig(**sizes, layer_type="basic", **options)


def resnet() -> Any:
    from transformers import ResNetModel

    torch.manual_seed(0)
    return seeded(ResNetModel(_resnet_config()))


def resnet_classifier() -> Any:
    from transformers import ResNetForImageClassification

    torch.manual_seed(0)
    names = dict(enumerate(["cat", "dog", "owl", "fox", "bee", "elk", "ant"]))
    return seeded(ResNetForImageClassification(_resnet_config(id2label=names)))


def detr() -> Any:
    from transformers import DetrConfig, DetrForObjectDetection

    torch.manual_seed(0)
    backbone = _resnet_config(out_features=["stage4"])
    layers = {
        f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")
    }
    sizes = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_queries": 12, "num_labels": 5}
    config = DetrConfig(use_timm_backbone=False, backbone_config=backbone, **layers, **sizes)
    model = seeded(DetrForObjectDetection(config))
    for module in model.modules():  # fresh ones are so faint that every query has the same box and class
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=2 * module.in_features**-0.5)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
    return model


def segformer() -> Any:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    config = SegformerConfig(
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        num_labels=4,
    )
    return seeded(SegformerForSemanticSegmentation(config))


class Ordered(nn.Module):
    """A picture and its rows in the order of their values: where padding comes depends on it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        return x + x.sort(3)[0]


def ordered() -> nn.Module:
    torch.manual_seed(0)
    return seeded(Ordered())


class Attended(nn.Module):
    """One query that attends to all positions of a picture, and looks at its mask, or does not."""

    def __init__(self, masked: bool, weighed: bool = False) -> None:
        super().__init__()
        self.masked, self.weighed = masked, weighed
        self.layer = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8))
        self.query = nn.Parameter(torch.randn(8))

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor | None = None) -> Tensor:
        x = self.layer(pixel_values)
        if pixel_mask is None:
            pixel_mask = torch.ones_like(pixel_values[:, 0])
        inside = nn.functional.interpolate(pixel_mask[:, None].float(), size=x.shape[-2:])
        x, inside = x.flatten(2), inside.flatten(1)
        scores = torch.einsum("bcn,c->bn", x, self.query)
        if self.masked:
            scores = scores.masked_fill(inside == 0, -1e9)
        if self.weighed:  # something that nobody follows
            scores = scores.sort(1)[0].cummax(1)[0]
        return torch.einsum("bn,bcn->bc", scores.softmax(1), x)


def attended() -> nn.Module:
    torch.manual_seed(0)
    return seeded(Attended(masked=True))


def attended_unmasked() -> nn.Module:
    torch.manual_seed(0)
    return seeded(Attended(masked=False))


def attended_unmasked_by_order() -> nn.Module:
    torch.manual_seed(0)
    return seeded(Attended(masked=False, weighed=True))
