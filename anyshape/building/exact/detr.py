"""What transformers' detectors of DETR's kin make of the height and width of their maps: tables of positions,
anchors, places that queries look at. Each row of a batch gets those of its own picture."""

from __future__ import annotations

import sys
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from anyshape.building.exact import reads
from anyshape.building.exact.axis import Axis, Flat, axis_of, constant
from anyshape.building.exact.both import bare
from anyshape.building.exact.deformable import sampled
from anyshape.building.exact.levels import joined
from anyshape.building.exact.region import Region, Space, region_of
from anyshape.building.exact.side import Known

Shapes = Sequence[Tuple[int, int]]


def _space(numbers: Sequence[Any]) -> Optional[Space]:
    return next((number.space for number in numbers if isinstance(number, Known)), None)


class Map:
    """A map of a height and width: the axis that it is flattened into, and where its cells are."""

    def __init__(self, space: Space, height: int, width: int) -> None:
        self.space = space
        self.axis = Flat(self._axis(0, height), self._axis(1, width))
        self.height, self.width = (space.extents(part)[:, None] for part in self.axis.parts)  # [B, 1] each
        rows, columns = (space.positions(part.length) for part in self.axis.parts)
        self.row = rows[:, None].expand(-1, self.axis.columns.length).flatten()[None]  # [1, positions]
        self.column = columns[None].expand(self.axis.rows.length, -1).flatten()[None]

    def _axis(self, side: int, size: Any) -> Axis:
        if isinstance(size, Known):
            return axis_of(side, size.table)
        return constant(side, int(size), self.space.sides[side])

    def centres(self, dtype: torch.dtype) -> Tensor:
        """``[B, positions, 2]``: x and y, relative to each row's own map."""
        x = (self.column.to(dtype) + 0.5) / self.width.clamp(min=1).to(dtype)
        y = (self.row.to(dtype) + 0.5) / self.height.clamp(min=1).to(dtype)
        return torch.stack([x, y], -1)


def _joined(space: Space, tensor: Tensor, maps: Sequence[Map]) -> Tensor:
    return space.attach(tensor, Region({1: joined([each.axis for each in maps])}, own=True))


def _proposed(maps: Sequence[Map], dtype: torch.dtype, size: float, beyond: float) -> Tuple[Tensor, Tensor]:
    """A box around each cell, twice as large on every further map: ``[B, positions of all maps, 4]`` logits,
    `beyond` where it does not lie inside the picture, and whether it does, ``[B, positions, 1]``."""
    found = []
    for level, each in enumerate(maps):
        centres = each.centres(dtype)
        found.append(torch.cat([centres, torch.ones_like(centres) * size * 2.0**level], -1))
    boxes = torch.cat(found, 1)
    valid = ((boxes > 0.01) & (boxes < 0.99)).all(-1, keepdim=True)
    return torch.log(boxes / (1 - boxes)).masked_fill(~valid, beyond), valid


def anchors(original: Callable[..., Any]) -> Callable[..., Any]:
    """RT-DETR's `generate_anchors`."""

    def generate(
        self: Any, spatial_shapes: Any = None, grid_size: float = 0.05, *rest: Any, **options: Any
    ) -> Any:
        shapes = list(spatial_shapes or ())
        space = _space([side for shape in shapes for side in shape])
        if space is None:
            return original(self, spatial_shapes, grid_size, *rest, **options)
        dtype = options.get("dtype", torch.float32)
        maps = [Map(space, *shape) for shape in shapes]
        logits, valid = _proposed(maps, dtype, grid_size, torch.finfo(dtype).max)
        return _joined(space, logits, maps), _joined(space, valid, maps)

    return generate


def proposals(original: Callable[..., Any]) -> Callable[..., Any]:
    """Deformable DETR's `gen_encoder_output_proposals`, where a mask has nothing to say."""

    def generate(self: Any, enc_output: Tensor, padding_mask: Tensor, spatial_shapes: Shapes) -> Any:
        if region_of(enc_output) is None:
            return original(self, enc_output, padding_mask, spatial_shapes)
        space: Any = region_of(enc_output).space  # type: ignore[union-attr]
        maps = [Map(space, *shape) for shape in spatial_shapes]
        logits, valid = _proposed(maps, enc_output.dtype, 0.05, float("inf"))
        outside = _joined(space, ~valid, maps)
        query = self.enc_output_norm(self.enc_output(enc_output.masked_fill(outside, 0.0)))
        return query, _joined(space, logits, maps)

    return generate


def reference_points(original: Callable[..., Any]) -> Callable[..., Any]:
    """Where the cells of all maps are, on each of them: Deformable DETR's `get_reference_points`."""

    def points(spatial_shapes_list: Shapes, valid_ratios: Tensor, device: Any) -> Tensor:
        space = _space([side for shape in spatial_shapes_list for side in shape])
        if space is None or reads.from_picture(valid_ratios):
            return original(spatial_shapes_list, valid_ratios, device)  # type: ignore[no-any-return]
        maps = [Map(space, *shape) for shape in spatial_shapes_list]
        centres = torch.cat([each.centres(valid_ratios.dtype) for each in maps], 1)
        return _joined(space, centres[:, :, None].expand(-1, -1, len(maps), -1).clone(), maps)

    return points


def valid_ratio(original: Callable[..., Any]) -> Callable[..., Any]:
    """What part of a map a picture fills, by a mask: all of it, where masks are followed."""

    def ratio(self: Any, mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        region = region_of(mask)
        if region is None or not region.mask:
            return original(self, mask, dtype)  # type: ignore[no-any-return]
        return torch.ones(mask.shape[0], 2, dtype=dtype)

    return ratio


def sines(original: Callable[..., Any]) -> Callable[..., Any]:
    """RT-DETR's table of positions, which numbers rows and columns: it is cut where each picture ends."""

    def table(self: Any, width: int, height: int, device: Any, dtype: torch.dtype) -> Tensor:
        space = _space([height, width])
        if space is None:
            return original(self, width, height, device, dtype)  # type: ignore[no-any-return]
        build = sys.modules[type(self).__module__].build_2d_sinusoidal_position_embedding
        found = build(bare(height), bare(width), self.embed_dim, self.temperature, device=device, dtype=dtype)
        rows = found[None].expand(space.batch.shape[0], -1, -1).clone()
        return _joined(space, rows, [Map(space, height, width)])

    return table


def angles(original: Callable[..., Any]) -> Callable[..., Any]:
    """A table of positions relative to the map's end, made of its size where there is no mask: made of a mask
    that is all of the picture it is followed, and has the same numbers."""

    def table(self: Any, shape: Any, device: Any, dtype: torch.dtype, mask: Optional[Tensor] = None) -> Any:
        space = _space(shape)
        if space is None or mask is not None:
            return original(self, shape, device, dtype, mask)
        rows, columns = Map(space, *shape[-2:]).axis.parts
        ones = torch.ones(space.batch.shape[0], rows.length, columns.length, dtype=torch.bool)
        return original(
            self, shape, device, dtype, space.attach(ones, Region({1: rows, 2: columns}, own=True))
        )

    return table


def attention(original: Callable[..., Any]) -> Callable[..., Any]:
    """Attention of queries to points of several maps."""

    def attend(
        self: Any,
        hidden_states: Tensor,
        attention_mask: Optional[Tensor] = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        position_embeddings: Optional[Tensor] = None,
        reference_points: Any = None,
        spatial_shapes: Any = None,
        spatial_shapes_list: Any = None,
        **rest: Any,
    ) -> Tuple[Tensor, Tensor]:
        method = getattr(self, "method", getattr(self, "decoder_method", "default"))
        if region_of(encoder_hidden_states) is None or method != "default":
            options = {
                **rest,
                "attention_mask": attention_mask,
                "encoder_hidden_states": encoder_hidden_states,
                "encoder_attention_mask": encoder_attention_mask,
                "position_embeddings": position_embeddings,
                "reference_points": reference_points,
                "spatial_shapes": spatial_shapes,
                "spatial_shapes_list": spatial_shapes_list,
            }
            given = {name: value for name, value in options.items() if value is not None}
            return original(self, hidden_states, **given)  # type: ignore[no-any-return]
        if position_embeddings is not None:
            hidden_states = hidden_states + position_embeddings
        value = (
            self.value_proj(encoder_hidden_states) if hasattr(self, "value_proj") else encoder_hidden_states
        )
        if attention_mask is not None and reads.from_picture(attention_mask):  # else it hides nothing
            value = value.masked_fill(~attention_mask[..., None], 0.0)
        points = _points(self)
        offsets = self.sampling_offsets(hidden_states).unflatten(-1, (self.n_heads, sum(points), 2))
        if reference_points.shape[-1] == 4:  # in a box's sizes
            offsets = offsets * _shares(self, points).to(offsets.dtype)[:, None]
        weights = self.attention_weights(hidden_states).unflatten(-1, (self.n_heads, sum(points)))
        weights = F.softmax(weights, -1)
        output = sampled(
            value.unflatten(-1, (self.n_heads, -1)),
            reference_points,
            offsets,
            weights,
            points,
            spatial_shapes_list,
            getattr(self, "offset_scale", 0.5),
        )
        return (self.output_proj(output) if hasattr(self, "output_proj") else output), weights

    return attend


def attention_mask(original: Callable[..., Any]) -> Callable[..., Any]:
    """Where the pixel mask is followed, all of a picture is seen, and what is outside is no part of it."""

    def make(*args: Any, **options: Any) -> Any:
        given = (*args[2:3], options.get("attention_mask"))
        region = next(filter(None, map(region_of, given)), None)
        return None if region is not None and region.mask else original(*args, **options)

    return make


def _points(module: Any) -> List[int]:
    """How many points each map has."""
    listed = getattr(module, "num_points_list", None) or getattr(module, "n_points_list", None)
    return list(listed) if listed else [module.n_points] * module.n_levels


def _shares(module: Any, points: List[int]) -> Tensor:
    """What an offset counts for each point."""
    for name in ("n_points_scale", "num_points_scale"):
        if hasattr(module, name):
            return getattr(module, name)  # type: ignore[no-any-return]
    return torch.tensor([1 / count for count in points for _ in range(count)])


def _real_time(prefix: str) -> Dict[str, Any]:
    return {
        f"{prefix}Model.generate_anchors": anchors,
        f"{prefix}MultiscaleDeformableAttention.forward": attention,
        f"{prefix}SinePositionEmbedding.forward": sines,
    }


def _masked(prefix: str) -> Dict[str, Any]:
    return {
        f"{prefix}SinePositionEmbedding.forward": angles,
        f"{prefix}PixelDecoderEncoderOnly.get_reference_points": reference_points,
        f"{prefix}PixelDecoderEncoderMultiscaleDeformableAttention.forward": attention,
    }


_FAMILIES: Dict[str, Dict[str, Any]] = {
    "rt_detr": _real_time("RTDetr"),
    "rt_detr_v2": _real_time("RTDetrV2"),
    "d_fine": _real_time("DFine"),
    "deformable_detr": {
        "DeformableDetrModel.get_valid_ratio": valid_ratio,
        "DeformableDetrModel.gen_encoder_output_proposals": proposals,
        "DeformableDetrEncoder.get_reference_points": reference_points,
        "DeformableDetrMultiscaleDeformableAttention.forward": attention,
    },
    "maskformer": {"MaskFormerSinePositionEmbedding.forward": angles},
    "mask2former": _masked("Mask2Former"),
    "oneformer": _masked("OneFormer"),
    **{
        family: {"create_bidirectional_mask": attention_mask}
        for family in ("conditional_detr", "dab_detr", "detr", "table_transformer")
    },
}
# By module, class and method: what is made of the library's own.
DETECTORS: Dict[Tuple[str, str], Any] = {
    (f"transformers.models.{family}.modeling_{family}", path): function
    for family, functions in _FAMILIES.items()
    for path, function in functions.items()
}
