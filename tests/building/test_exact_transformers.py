"""Small models of transformers, each with what made its family hard: padded with exactness, and alone."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from anyshape.building.exact import ExactPadding
from benchmarks.zoo.pictures.randomly import randomised

BUCKET = (64, 96)
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 64,
    "patch_size": 8,
}
BIASED = {**SMALL, "use_relative_position_bias": True, "layer_scale_init_value": 0.9}
RESNET: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1] * 4,
    "layer_type": "basic",
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
MASKS: dict[str, Any] = {
    **dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim", "conv_dim", "mask_dim"), 32),
    **dict.fromkeys(("encoder_feedforward_dim", "dim_feedforward"), 32),
    "encoder_layers": 1,
    "decoder_layers": 4,
    "num_attention_heads": 2,
    "num_queries": 5,
}


def of(kind: str, **options: Any) -> Callable[[], Any]:
    def build() -> Any:
        import transformers

        made: Any = getattr(transformers, kind)
        return made(made.config_class(**options))

    return build


def beit(**options: Any) -> Callable[[], Any]:
    return of("BeitForImageClassification", **{**BIASED, **options})


def depth() -> Any:
    import transformers

    stages = {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4], "reshape_hidden_states": False}
    config = transformers.ZoeDepthConfig(
        backbone_config=transformers.BeitConfig(**{**BIASED, **stages}),
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8,
        bottleneck_features=8,
        num_attractors=[2, 2, 1, 1],
        bin_embedding_dim=8,
    )
    return transformers.ZoeDepthForDepthEstimation(config)


def yolos() -> Any:
    sizes = {**SMALL, "num_hidden_layers": 3, "image_size": [64, 80], "num_detection_tokens": 5}
    return of("YolosForObjectDetection", **sizes)()


def masks(kind: str) -> Callable[[], Any]:
    def build() -> Any:
        import transformers

        return of(kind, backbone_config=transformers.ResNetConfig(**RESNET), **MASKS)()

    return build


def panoptic() -> Any:
    import transformers

    heads = dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 8)
    layers = dict.fromkeys(("encoder_layers", "decoder_layers"), 1)
    config = transformers.DetrConfig(
        backbone_config=transformers.ResNetConfig(**RESNET), d_model=32, num_queries=5, **heads, **layers
    )
    return transformers.DetrForSegmentation(config)


def maskformer() -> Any:
    import transformers

    swin = {"embed_dim": 8, "depths": [2, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 3}
    config = transformers.MaskFormerConfig(
        backbone_config=transformers.SwinConfig(**swin, out_features=RESNET["out_features"]),
        decoder_config=transformers.DetrConfig(d_model=16, num_queries=5, encoder_layers=1, decoder_layers=1),
        fpn_feature_size=32,
        mask_feature_size=16,
    )
    return transformers.MaskFormerForInstanceSegmentation(config)


def mobilevit(version: str) -> Callable[[], Any]:
    sizes = {"neck_hidden_sizes": [8, 8, 8, 16, 16, 16, 32], "hidden_sizes": [16, 16, 16]}
    if version == "V2":
        sizes = {"n_attn_blocks": [1, 1, 1], "base_attn_unit_dims": [16, 16, 16]}  # type: ignore[dict-item]
    return of(f"MobileViT{version}ForImageClassification", image_size=64, **sizes)


MODELS: dict[str, Callable[[], Any]] = {
    "a bias for each pair of patches": beit(),
    "one for all layers": beit(use_relative_position_bias=False, use_shared_relative_position_bias=True),
    "Data2Vec's biases": of("Data2VecVisionForImageClassification", **BIASED),
    "depth from biased stages": depth,
    "angles": of("DINOv3ViTModel", **SMALL, num_register_tokens=2),
    "tables in float32": of("Dinov2WithRegistersForImageClassification", **SMALL),
    "a table that is cut": of("BlipVisionModel", **SMALL),
    "tables between layers": yolos,
    "masks that attention obeys": masks("Mask2FormerForUniversalSegmentation"),
    "masks for a task": masks("OneFormerForUniversalSegmentation"),
    "masks of queries": panoptic,
    "masks of a Swin": maskformer,
    "patches across windows": mobilevit(""),
    "columns": mobilevit("V2"),
    "a sum that is repeated": of(
        "SwiftFormerForImageClassification", depths=[1, 1, 1, 1], embed_dims=[8, 16, 24, 32]
    ),
    "windows of a larger picture": of(
        "Swin2SRForImageSuperResolution", embed_dim=8, depths=[2], num_heads=[2], window_size=4
    ),
    "windows and the whole": of(
        "VitDetBackbone",
        **SMALL,
        window_size=3,
        window_block_indices=[0],
        use_relative_position_embeddings=False,
    ),
}
SLOW = {"depth from biased stages", "masks for a task", "masks of a Swin", "patches across windows"}
SLOW |= {"Data2Vec's biases", "masks of queries", "one for all layers", "windows of a larger picture"}
SETTLED = {"patches across windows"}  # their answers hardly depend on the picture without norms that fit
TASK = torch.arange(77.0)


def told(model: Any, args: Any, kwargs: Any) -> Any:
    taken = inspect.signature(model.forward).parameters
    more: dict[str, Any] = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in taken else {}
    if "task_inputs" in taken:
        more["task_inputs"] = TASK.expand(args[0].shape[0], -1)
    return args, {**more, **kwargs}


def answer(_: Any, __: Any, found: Any) -> torch.Tensor:
    """All that it says of a picture as one tensor."""
    if "masks_queries_logits" in found:
        classes = found["class_queries_logits"].softmax(-1)
        return torch.einsum("bqc,bqhw->bchw", classes, found["masks_queries_logits"])
    if "pred_masks" in found:
        return found["pred_masks"] * found["logits"].mean(-1)[:, :, None, None]  # type: ignore[no-any-return]
    first = next(value for value in found.values() if value is not None)
    return first if isinstance(first, torch.Tensor) else first[-1]


def made(build: Callable[[], Any]) -> Any:
    """The model with weights by which its answers differ."""
    torch.manual_seed(0)
    model = build().eval().double()  # in which float32's roundings do not count
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 or "bias" in name:
            added = any(word in name for word in ("pos", "token", "embedding", "table"))
            nn.init.normal_(parameter, std=0.3 if added else (4 / max(4, parameter[0].numel())) ** 0.5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
        elif name.endswith("running_mean"):
            buffer.normal_(0.0, 0.3)
    model.register_forward_pre_hook(told, with_kwargs=True)
    model.register_forward_hook(answer)
    return model


@pytest.mark.filterwarnings("ignore")  # transformers' own, about what tracing fixes
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in MODELS]
)
def test_a_model_answers_as_for_the_picture_alone(name: str) -> None:
    model, draw = made(MODELS[name]), random.Random(2)
    exact = ExactPadding(model)
    noise = torch.randn(2, 3, *BUCKET, dtype=torch.float64)
    if name in SETTLED:
        randomised(model, noise)
    with torch.no_grad():
        exact(noise, torch.tensor([BUCKET] * 2))
        heights, widths = ([side for side in sides if side >= 32] for sides in (exact.heights, exact.widths))
        sizes = [(draw.choice(heights), draw.choice(widths)) for _ in range(4)]
        assert len(set(sizes)) > 1
        batch = torch.randn(4, 3, *BUCKET, dtype=torch.float64)  # with noise outside
        found, *_ = exact(batch, torch.tensor(sizes))
        traced = torch.jit.trace(exact, (batch[:2], torch.tensor(sizes[:2])), check_trace=False)
        again = traced(batch, torch.tensor(sizes))[0]
        worst = plain = 0.0
        for row, size in enumerate(sizes):
            alone = batch[row : row + 1, :, : size[0], : size[1]]
            expected = model(alone, **exact.masks(alone))[0]
            place = tuple(slice(side) for side in expected.shape)
            scale = expected.abs().max()
            for answers in (found, again):
                worst = max(worst, ((answers[row][place] - expected).abs().max() / scale).item())
            padded = model(batch[row : row + 1])[0]
            plain = max(plain, ((padded[place] - expected).abs().max() / scale).item())
    assert worst < 1e-6
    assert plain > 1e-3  # the same pictures do show what padding does
