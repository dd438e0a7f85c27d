"""Small random models whose queries have a class and a mask each, saved as transformers saves them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyshape.building.tasks.image_settings import IMAGENET_MEAN, IMAGENET_STD
from tests.detector_models import _varied
from tests.image_models import _resnet_config, normalised, photograph

LABELS = ["sky", "sea", "land", "cat", "dog"]
QUERIES = 12
NAMES = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
HIDDEN = {
    **dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim", "conv_dim", "mask_dim"), 32),
    **dict.fromkeys(("encoder_feedforward_dim", "dim_feedforward"), 32),
    "encoder_layers": 1,
    "decoder_layers": 3,
    "num_attention_heads": 2,
    "num_queries": QUERIES,
}
DETR: dict[str, Any] = {
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 8),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 32),
    "encoder_layers": 1,
    "decoder_layers": 1,
    "d_model": 32,
    "num_queries": QUERIES,
}
ENCODER = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 8}
STAGES = ["stage1", "stage2", "stage3", "stage4"]
# By the kind of a configuration: the model's class, its image processor's, and the configuration.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "maskformer": (
        "MaskFormerForInstanceSegmentation",
        "MaskFormer",
        {"decoder_config": {"model_type": "detr", **DETR}, "fpn_feature_size": 32, "mask_feature_size": 16},
    ),
    "mask2former": ("Mask2FormerForUniversalSegmentation", "Mask2Former", HIDDEN),
    "oneformer": ("OneFormerForUniversalSegmentation", "OneFormer", {**HIDDEN, "is_training": False}),
    "detr": ("DetrForSegmentation", "Detr", {**DETR, "use_timm_backbone": False}),
    "conditional_detr": (
        "ConditionalDetrForSegmentation",
        "ConditionalDetr",
        {**DETR, "use_timm_backbone": False},
    ),
    "eomt": (
        "EomtForUniversalSegmentation",
        "Eomt",
        {**ENCODER, "image_size": 64, "num_blocks": 2, "num_queries": QUERIES},
    ),
}


# The last layers of the classes and of the masks of queries.
LAST = {
    "maskformer": ("class_predictor", "mask_embedder.2.0"),
    "mask2former": ("class_predictor", "model.transformer_module.decoder.mask_predictor.mask_embedder.2.0"),
    "oneformer": (
        "model.transformer_module.decoder.class_embed",
        "model.transformer_module.decoder.mask_embed.layers.2.0",
    ),
    "detr": ("detr.class_labels_classifier", "mask_head.output_conv"),
    "conditional_detr": ("conditional_detr.class_labels_classifier", "mask_head.output_conv"),
    "eomt": ("class_predictor", "mask_head.fc3"),
}


def made(kind: str) -> Any:
    """Queries of many classes, more and less sure of them, with masks that differ."""
    import transformers

    name, _, options = MODELS[kind]
    model_class = getattr(transformers, name)
    torch.manual_seed(0)
    options = {key: _config(value) for key, value in options.items()}
    if kind != "eomt":
        options["backbone_config"] = _resnet_config(out_features=STAGES)
    more = {"task_inputs": torch.arange(77)[None]} if kind == "oneformer" else {}
    model = _varied(model_class(model_class.config_class(**options, **NAMES)), **more)
    if kind == "eomt":
        nn.init.zeros_(model.get_buffer("attn_mask_probs"))  # as in trained ones
    _spread(model, *(model.get_submodule(name) for name in LAST[kind]), **more)
    return model


def _spread(model: Any, classes: Any, masks: Any, **more: Tensor) -> None:
    """Take off the last layers what all queries have in common, most of what random weights give."""
    pixels = normalised(photograph("coffee.png", (64, 64)), IMAGENET_MEAN, IMAGENET_STD)
    with torch.no_grad():
        for layer, wanted in ((masks, 1.0), (masks, 1.0), (classes, 2.5)):
            seen: list[Tensor] = []
            handle = layer.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output))
            model(pixels, **more)
            handle.remove()
            each = seen[-1].movedim(seen[-1].shape.index(QUERIES), 0).flatten(1)
            layer.bias -= each.mean(0) if isinstance(layer, nn.Linear) else each.mean()
            for parameter in layer.parameters():
                parameter *= wanted / each.std(0).mean()
        _, logits = answered(model(pixels, **more))
        for parameter in masks.parameters():
            parameter *= 3 / logits.std()


def answered(outputs: Any) -> tuple[Tensor, Tensor]:
    if "pred_masks" in outputs:
        return outputs.logits, outputs.pred_masks
    return outputs.class_queries_logits, outputs.masks_queries_logits


def _config(value: Any) -> Any:
    import transformers

    return transformers.AutoConfig.for_model(**value) if isinstance(value, dict) else value


def saved(kind: str, folder: Path) -> Any:
    """The model and an image processor that resizes nothing, in a folder, and for OneFormer a tokenizer; the
    processor."""
    import transformers

    options: dict[str, Any] = {"do_resize": False, "do_pad": False, "size_divisor": None}
    if kind == "oneformer":
        classes = {str(i): {"isthing": 1, "name": label} for i, label in enumerate(LABELS)}
        (folder / "classes.json").write_text(json.dumps(classes), encoding="utf-8")
        options.update(repo_path=str(folder), class_info_file="classes.json", num_text=QUERIES)
        tokenizer().save_pretrained(folder)
    if kind == "eomt":
        options.update(size={"shortest_edge": 64, "longest_edge": 64})
    processor = getattr(transformers, f"{MODELS[kind][1]}ImageProcessorPil")(**options)
    processor.save_pretrained(folder)
    made(kind).save_pretrained(folder)
    return processor


def tokenizer() -> Any:
    import tokenizers
    import transformers

    words = ["the", "task", "is", "panoptic", "instance", "semantic", "[PAD]"]
    model = tokenizers.models.WordLevel({word: 7 + i for i, word in enumerate(words)}, unk_token="[PAD]")
    plain = tokenizers.Tokenizer(model)
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="[PAD]")


def resize_without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """OneFormer's image processor for Pillow resizes masks by torchvision's functions all the same, and fails
    where that is not installed."""
    from transformers.models.oneformer import image_processing_pil_oneformer as module

    def resize(maps: Tensor, size: Any, interpolation: str) -> Tensor:
        return nn.functional.interpolate(maps, size=size, mode=interpolation, align_corners=False)

    functions = SimpleNamespace(resize=resize, InterpolationMode=SimpleNamespace(BILINEAR="bilinear"))
    monkeypatch.setattr(module, "tvF", functions, raising=False)


class Plain(nn.Module):
    """A module of one's own with outputs of these names."""

    labels = LABELS

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.maps = nn.Conv2d(8, QUERIES, 3, 2, 1)
        self.classes = nn.Linear(8, QUERIES * (len(LABELS) + 1))

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        x = self.stem(pixel_values)
        classes = self.classes(x.mean((2, 3))).unflatten(1, (QUERIES, -1))
        return {"masks_queries_logits": self.maps(x), "class_queries_logits": classes}


def plain() -> nn.Module:
    torch.manual_seed(0)
    model = _varied(Plain())
    pixels = normalised(photograph("coffee.png", (64, 64)), IMAGENET_MEAN, IMAGENET_STD)
    with torch.no_grad():
        masks = model(pixels)["masks_queries_logits"]
        model.maps.bias -= masks.mean((0, 2, 3))
        for parameter in model.maps.parameters():
            parameter *= 3 / masks.std()
        model.classes.weight *= 8
    return model
