"""The models of transformers that are tried: small ones with the structure of those that are published."""

from __future__ import annotations

from typing import Any, Callable, Dict

import torch
from torch import Tensor, nn

ConfigOptions = Dict[str, Any]

CONVNEXT: ConfigOptions = {
    "model_type": "convnext",
    "hidden_sizes": [32, 64, 96, 128],
    "depths": [1, 1, 1, 1],
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
RESNET: ConfigOptions = {
    "model_type": "resnet",
    "embedding_size": 16,
    "hidden_sizes": [16, 32, 64, 128],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}
LAST_MAP: ConfigOptions = {**RESNET, "out_features": ["stage4"]}
ALL_MAPS: ConfigOptions = {**RESNET, "out_features": ["stage1", "stage2", "stage3", "stage4"]}
THREE_MAPS: ConfigOptions = {**RESNET, "out_features": ["stage2", "stage3", "stage4"]}
SWIN: ConfigOptions = {
    "model_type": "swin",
    "embed_dim": 24,
    "depths": [2, 2, 2, 2],
    "num_heads": [2, 2, 4, 4],
    "window_size": 3,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
VIT: ConfigOptions = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
DINO: ConfigOptions = {
    "model_type": "dinov2",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "mlp_ratio": 2,
    "image_size": 126,
    "patch_size": 14,
    "out_indices": [1, 2, 3, 4],
    "reshape_hidden_states": False,
    "apply_layernorm": True,
}
DEPTH: ConfigOptions = {
    "reassemble_hidden_size": 64,
    "neck_hidden_sizes": [16, 32, 64, 64],
    "fusion_hidden_size": 32,
    "head_hidden_size": 16,
}
DPT: ConfigOptions = {
    "image_size": 128,
    "backbone_out_indices": [0, 1, 2, 3],
    "neck_hidden_sizes": [16, 32, 64, 64],
    "fusion_hidden_size": 32,
}
QUERIES: ConfigOptions = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "num_queries": 20,
}
EIGHT_HEADS: ConfigOptions = {"encoder_attention_heads": 8, "decoder_attention_heads": 8}
MASKS: ConfigOptions = {
    "hidden_dim": 32,
    "encoder_feedforward_dim": 64,
    "dim_feedforward": 64,
    "encoder_layers": 2,
    "decoder_layers": 4,
    "num_attention_heads": 4,
    "num_queries": 20,
}
REAL_TIME: ConfigOptions = {
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [32, 64, 128],
    "encoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "d_model": 32,
    "num_queries": 20,
    "decoder_in_channels": [32, 32, 32],
    "decoder_ffn_dim": 64,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "num_denoising": 0,
    "backbone_config": {**THREE_MAPS, "model_type": "rt_detr_resnet"},
}
# Class of transformers, and a word where there are several of it → what its configuration is given beside its
# defaults.
CONVOLUTIONS: Dict[str, ConfigOptions] = {
    "BitForImageClassification": {"depths": [1, 2, 2, 1]},
    "BitForImageClassification same": {"depths": [1, 2, 2, 1], "global_padding": "same"},
    "ConvNextBackbone": {key: value for key, value in CONVNEXT.items() if key != "model_type"},
    "ConvNextForImageClassification": {"depths": [1, 1, 2, 1]},
    "ConvNextV2ForImageClassification": {"depths": [1, 1, 2, 1]},
    "DINOv3ConvNextModel": {"depths": [1, 1, 2, 1]},
    "EfficientNetForImageClassification": {
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "hidden_dim": 1280,
    },
    "FocalNetForImageClassification": {},
    "HGNetV2ForImageClassification": {},
    "MobileNetV1ForImageClassification": {},
    "MobileNetV2ForImageClassification": {},
    "MobileNetV2ForSemanticSegmentation": {},
    "PPLCNetForImageClassification": {},
    "PPOCRV5MobileDetForObjectDetection": {},
    "PoolFormerForImageClassification": {},
    "RegNetForImageClassification": {},
    "ResNetForImageClassification": {},
    "SuperPointForKeypointDetection": {},
    "TextNetForImageClassification": {},
    "UperNetForSemanticSegmentation": {
        "backbone_config": CONVNEXT,
        "hidden_size": 64,
        "auxiliary_channels": 32,
    },
}
_BEIT: ConfigOptions = {**VIT, "image_size": 128, "patch_size": 16}
_BIASED: ConfigOptions = {**_BEIT, "use_relative_position_bias": True}
ATTENTION: Dict[str, ConfigOptions] = {
    "BeitForImageClassification": _BEIT,
    "BeitForImageClassification biased": _BIASED,
    "BeitForImageClassification shared": {**_BEIT, "use_shared_relative_position_bias": True},
    "BeitForSemanticSegmentation": {
        **_BIASED,
        "num_hidden_layers": 4,
        "out_indices": [1, 2, 3, 4],
        "auxiliary_channels": 32,
    },
    "BlipVisionModel": {**VIT, "image_size": 128},
    "CLIPVisionModel": {**VIT, "image_size": 128},
    "ConditionalDetrForObjectDetection": {**QUERIES, "backbone_config": LAST_MAP},
    "CvtForImageClassification": {"embed_dim": [16, 32, 64], "num_heads": [1, 2, 4], "depth": [1, 2, 3]},
    "DFineForObjectDetection": {
        **REAL_TIME,
        "encoder_in_channels": [64, 96, 128],
        "backbone_config": {
            "model_type": "hgnet_v2",
            "depths": [1, 1, 1, 1],
            "embedding_size": 16,
            "hidden_sizes": [32, 64, 96, 128],
            "stem_channels": [3, 16, 16],
            "stage_in_channels": [16, 32, 64, 96],
            "stage_mid_channels": [16, 16, 32, 32],
            "stage_out_channels": [32, 64, 96, 128],
            "stage_num_blocks": [1, 1, 1, 1],
            "stage_numb_of_layers": [2, 2, 2, 2],
            "out_features": ["stage2", "stage3", "stage4"],
        },
    },
    "DPTForDepthEstimation": {**VIT, "num_hidden_layers": 4, **DPT},
    "DPTForSemanticSegmentation": {**VIT, "num_hidden_layers": 4, **DPT},
    "DabDetrForObjectDetection": {**QUERIES, "hidden_size": 64, "backbone_config": LAST_MAP},
    "Data2VecVisionForImageClassification": _BIASED,
    "Data2VecVisionForSemanticSegmentation": {
        **_BIASED,
        "num_hidden_layers": 4,
        "out_indices": [0, 1, 2, 3],
        "auxiliary_channels": 32,
    },
    "DeformableDetrForObjectDetection": {**QUERIES, "num_feature_levels": 3, "backbone_config": THREE_MAPS},
    "DeiTForImageClassification": {**VIT, "image_size": 128},
    "DepthAnythingForDepthEstimation": {**DEPTH, "backbone_config": DINO},
    "DetrForObjectDetection": {**QUERIES, "backbone_config": LAST_MAP},
    "DetrForSegmentation": {**QUERIES, **EIGHT_HEADS, "backbone_config": ALL_MAPS},
    "Dinov2ForImageClassification": {**VIT, "mlp_ratio": 2, "image_size": 126},
    "Dinov2WithRegistersForImageClassification": {**VIT, "mlp_ratio": 2, "image_size": 126},
    "DINOv3ViTModel": {**VIT, "num_register_tokens": 4},
    "EomtDinov3ForUniversalSegmentation": {**VIT, "image_size": 128, "num_queries": 20, "num_blocks": 2},
    "EomtForUniversalSegmentation": {**VIT, "image_size": 128, "num_queries": 20, "num_blocks": 2},
    "GLPNForDepthEstimation": {"depths": [1, 1, 1, 1]},
    "HieraForImageClassification": {},
    "IJepaForImageClassification": {**VIT, "image_size": 128},
    "LevitForImageClassification": {},
    "Mask2FormerForUniversalSegmentation": {
        **MASKS,
        "feature_size": 32,
        "mask_feature_size": 32,
        "backbone_config": SWIN,
    },
    "MaskFormerForInstanceSegmentation": {
        "backbone_config": SWIN,
        "decoder_config": {"model_type": "detr", **QUERIES},
        "fpn_feature_size": 32,
        "mask_feature_size": 32,
    },
    "MobileViTForImageClassification": {},
    "MobileViTForSemanticSegmentation": {},
    "MobileViTV2ForImageClassification": {},
    "OneFormerForUniversalSegmentation": {**MASKS, "conv_dim": 32, "mask_dim": 32, "backbone_config": SWIN},
    "PixioModel": {**VIT, "mlp_ratio": 2},
    "PvtForImageClassification": {},
    "PvtV2ForImageClassification": {},
    "RTDetrForObjectDetection": REAL_TIME,
    "RTDetrV2ForObjectDetection": REAL_TIME,
    "SegformerForImageClassification": {},
    "SegformerForSemanticSegmentation": {},
    "SiglipForImageClassification": {"vision_config": {**VIT, "image_size": 128}},
    "SiglipVisionModel": {**VIT, "image_size": 128},
    "Swin2SRForImageSuperResolution": {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 2]},
    "SwiftFormerForImageClassification": {},
    "SwinForImageClassification": {"depths": [2, 2, 2, 2], "window_size": 3},
    "Swinv2ForImageClassification": {"depths": [2, 2, 2, 2]},
    "TableTransformerForObjectDetection": {**QUERIES, "backbone_config": LAST_MAP},
    "UperNetForSemanticSegmentation swin": {
        "backbone_config": SWIN,
        "hidden_size": 64,
        "auxiliary_in_channels": 96,
        "auxiliary_channels": 32,
    },
    "ViTForImageClassification": {**VIT, "image_size": 128},
    "VitDetBackbone": {**VIT, "mlp_ratio": 2, "window_size": 3, "window_block_indices": [0, 1]},
    "VitPoseForPoseEstimation": {
        "backbone_config": {
            **{key: value for key, value in VIT.items() if key != "intermediate_size"},
            "model_type": "vitpose_backbone",
            "mlp_ratio": 2,
            "image_size": [128, 128],
        },
    },
    "YolosForObjectDetection": {**VIT, "image_size": [96, 128], "num_detection_tokens": 10},
    "ZoeDepthForDepthEstimation": {
        "backbone_config": {
            **_BIASED,
            "model_type": "beit",
            "initializer_range": 0.2,  # or its answers hardly depend on the picture
            "num_hidden_layers": 4,
            "out_indices": [1, 2, 3, 4],
            "reshape_hidden_states": False,
        },
        "initializer_range": 0.2,
        "neck_hidden_sizes": [16, 32, 64, 64],
        "fusion_hidden_size": 32,
        "bottleneck_features": 32,
        "num_attractors": [8, 4, 2, 1],
        "bin_embedding_dim": 32,
    },
}


def boxes(answer: Any) -> Tensor:
    """What a detector says of its queries, ``[B, queries, classes + 4]``."""
    return torch.cat([answer["logits"], answer["pred_boxes"]], -1)


def masks_of_classes(answer: Any) -> Tensor:
    """The masks of queries, each as strong as its classes are on the whole, ``[B, queries, H, W]``."""
    strength: Tensor = answer["logits"].mean(-1)[:, :, None, None]
    masks: Tensor = answer["pred_masks"]
    return strength * masks


def last_map(answer: Any) -> Tensor:
    """A backbone's deepest map."""
    found: Tensor = answer["feature_maps"][-1]
    return found


def classes_of_pixels(answer: Any) -> Tensor:
    """How much each class is where, ``[B, classes, H, W]``, of queries with a class and a mask each."""
    classes = answer["class_queries_logits"].softmax(-1)[..., :-1]
    found: Tensor = torch.einsum("bqc,bqhw->bchw", classes, answer["masks_queries_logits"].sigmoid())
    return found


def _answers(name: str) -> Any:
    if name.endswith("ForObjectDetection") and not name.startswith("PP"):
        return boxes
    if name == "DetrForSegmentation":
        return masks_of_classes
    if name.endswith("Backbone"):
        return last_map
    return classes_of_pixels if name.endswith(("UniversalSegmentation", "InstanceSegmentation")) else None


def maker(name: str) -> Callable[[], nn.Module]:
    """What makes the model of this name. A detector answers with what it says of its queries, and one that
    has masks of queries with the classes of pixels, as a recipe's own function would make it do."""

    def make() -> nn.Module:
        import transformers

        kind = getattr(transformers, name.split()[0])
        options = {**CONVOLUTIONS, **ATTENTION}[name]
        model: nn.Module = kind(kind.config_class(**_configs(options)))
        if name.startswith("OneFormer"):
            _of_one_task(model)
        if name.startswith("Eomt"):
            nn.init.zeros_(model.get_buffer("attn_mask_probs"))  # as in trained ones
        of = _answers(name.split()[0])
        if of is not None:
            model.register_forward_hook(lambda _, __, answer: of(answer))
        return model

    return make


def _of_one_task(model: nn.Module) -> None:
    """OneFormer is told its task by tokens: a recipe has an archive for each."""
    model.task_tokens = nn.Buffer(torch.arange(1.0, 78.0)[None])

    def told(model: Any, args: Any, kwargs: Any) -> Any:
        pictures = args[0] if args else kwargs["pixel_values"]
        return args, {"task_inputs": model.task_tokens.expand(pictures.shape[0], -1), **kwargs}

    model.register_forward_pre_hook(told, with_kwargs=True)


def _configs(options: ConfigOptions) -> ConfigOptions:
    """Options in which a nested configuration is one."""
    import transformers

    def made(value: Any) -> Any:
        if isinstance(value, dict) and "model_type" in value:
            return transformers.AutoConfig.for_model(**value)
        return value

    return {key: made(value) for key, value in options.items()}
