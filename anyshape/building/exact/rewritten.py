"""Methods of transformers that join rows or split sides so that it is hidden which picture they belong to,
written so that it can be followed: what they compute is the same.
"""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor


def mid_positions(self: Any, img_size: Sequence[int]) -> List[Tensor]:
    """YOLOS: for each layer a table of positions, ``[B or 1, positions, features]``; one after the other."""
    size, boxes = self.config.patch_size, self.config.num_detection_tokens
    rows, columns = (side // size for side in self.config.image_size)
    height, width = (side // size for side in img_size)
    found = []
    for layer in range(self.mid_position_embeddings.shape[0]):
        table = self.mid_position_embeddings[layer]
        patches = table[:, 1:-boxes].transpose(1, 2).reshape(1, -1, rows, columns)
        patches = F.interpolate(patches, size=(height, width), mode="bicubic", align_corners=False)
        found.append(torch.cat((table[:, :1], patches.flatten(2).transpose(1, 2), table[:, -boxes:]), 1))
    return found


def reassembled(
    self: Any, hidden_states: Sequence[Tensor], patch_height: int, patch_width: int
) -> List[Tensor]:
    """ZoeDepth: what its stages found as maps, one after the other and not as one batch."""
    maps = []
    for stage, states in enumerate(hidden_states):
        token, states = states[:, 0], states[:, 1:]
        if self.readout_type == "project":
            states = torch.cat((states, token.unsqueeze(1).expand_as(states)), -1)
            states = self.readout_projects[stage](states)
        elif self.readout_type == "add":
            states = states + token.unsqueeze(-1)
        states = states.permute(0, 2, 1).reshape(states.shape[0], -1, patch_height, patch_width)
        maps.append(self.layers[stage](states))
    return maps


def unfolded(self: Any, features: Tensor) -> Tuple[Tensor, Dict[str, Any]]:
    """MobileViT: ``[B, C, H, W]`` as ``[B × positions in a patch, patches, C]``, brought to whole patches
    first; where they are whole that changes nothing."""
    tall, wide = self.patch_height, self.patch_width
    batch, channels, height, width = features.shape
    rows, columns = -(-height // tall), -(-width // wide)
    size = (rows * tall, columns * wide)
    features = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
    parts = features.reshape(batch, channels, rows, tall, columns, wide).permute(0, 3, 5, 2, 4, 1)
    known = {"orig_size": (height, width), "rows": rows, "columns": columns, "batch": batch}
    return parts.reshape(batch * tall * wide, rows * columns, channels), known


def folded(self: Any, patches: Tensor, info_dict: Dict[str, Any]) -> Tensor:
    """Back again."""
    tall, wide = self.patch_height, self.patch_width
    batch, rows, columns = (info_dict[name] for name in ("batch", "rows", "columns"))
    parts = patches.reshape(batch, tall, wide, rows, columns, -1).permute(0, 5, 3, 1, 4, 2)
    features = parts.reshape(batch, parts.shape[1], rows * tall, columns * wide)
    return F.interpolate(features, size=info_dict["orig_size"], mode="bilinear", align_corners=False)


def masked_layer(
    self: Any,
    index: int,
    output: Tensor,
    multi_stage_features: Sequence[Tensor],
    multi_stage_positional_embeddings: Sequence[Tensor],
    attention_mask: Tensor,
    query_embeddings: Any = None,
    output_attentions: Any = False,
) -> Tuple[Tensor]:
    """OneFormer's decoder: a query that would look at nothing looks at all."""
    level = index % self.num_feature_levels
    some = attention_mask.sum(-1) != attention_mask.shape[-1]
    output, _ = self.cross_attn(
        output,
        multi_stage_features[level],
        memory_mask=attention_mask & some.unsqueeze(-1),
        memory_key_padding_mask=None,
        pos=multi_stage_positional_embeddings[level],
        query_pos=query_embeddings,
    )
    output, _ = self.self_attn(
        output, output_mask=None, output_key_padding_mask=None, query_pos=query_embeddings
    )
    return (self.ffn(output),)


# By module and name there, of a class and of a method.
METHODS: Dict[Tuple[str, str], Any] = {
    (f"transformers.models.{family}.modeling_{family}", path): method
    for family, path, method in (
        ("oneformer", "OneFormerTransformerDecoderLayer.forward", masked_layer),
        ("mobilevit", "MobileViTLayer.unfolding", unfolded),
        ("mobilevit", "MobileViTLayer.folding", folded),
        ("yolos", "InterpolateMidPositionEmbeddings.forward", mid_positions),
        ("zoedepth", "ZoeDepthReassembleStage.forward", reassembled),
    )
}
