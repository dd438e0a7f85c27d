"""Attention in shifted windows (Swin): every picture is rolled, cut into windows and masked by its own size.

The libraries roll the whole map, and build the mask from its height and width; in a bucket both would be the
bucket's. So their blocks are replaced (`replaced.py`) by what `shifted_windows` does, with the libraries' own
attention inside every window.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from anyshape.building.exact.mode import handles
from anyshape.building.exact.moved import tracked
from anyshape.building.exact.region import NotExact, Region, Space, shape_of

# (windows [N, positions, channels], mask [N, positions, positions] or None) → the same shape as the windows
Attend = Callable[[Tensor, Optional[Tensor]], Tensor]
APART = -100.0  # what the libraries add between positions that were no neighbours before the map was rolled


def shifted_windows(
    hidden: Tensor,
    window: Sequence[int],
    shift: Sequence[int],
    attend: Attend,
    padded_first: bool = True,
    still: bool = False,
) -> Tensor:
    """``[B, H, W, C]`` through `attend` in windows, with zeros up to whole ones.

    padded_first: the map is padded to whole windows and then rolled, not the other way about.
    still: a side of one window is not shifted.
    """
    if has_torch_function_unary(hidden):
        return handle_torch_function(
            shifted_windows, (hidden,), hidden, window, shift, attend, padded_first=padded_first, still=still
        )
    sizes = [torch.full((1, 1), side, device=hidden.device) for side in shape_of(hidden)[1:3]]
    return _attended(hidden, sizes, window, shift, attend, padded_first, still)


@handles("shifted_windows")
def tracked_windows(
    space: Space,
    hidden: Tensor,
    window: Sequence[int],
    shift: Sequence[int],
    attend: Attend,
    padded_first: bool = True,
    still: bool = False,
) -> Tensor:
    region = tracked(hidden)
    if hidden.dim() != 4 or region.batch != 0 or not set(region.axes) <= {1, 2}:
        raise NotExact("only [batch, height, width, channels] is known")
    whole = shape_of(hidden)
    sizes = [
        space.extents(region.axes[dim])[:, None]
        if dim in region.axes
        else torch.full_like(space.batch[:, :1], whole[dim])
        for dim in (1, 2)
    ]
    result = _attended(space.filled(hidden, 0.0), sizes, window, shift, attend, padded_first, still)
    return space.attach(result, Region(dict(region.axes), own=True))


def _attended(
    hidden: Tensor,
    sizes: Sequence[Tensor],
    window: Sequence[int],
    shift: Sequence[int],
    attend: Attend,
    padded_first: bool,
    still: bool,
) -> Tensor:
    """sizes: height and width of each row's picture, [B or 1, 1] each; what lies outside is 0."""
    _, height, width, channels = shape_of(hidden)
    counts = [-(-side // step) for side, step in zip((height, width), window)]
    hidden = F.pad(hidden, (0, 0, 0, counts[1] * window[1] - width, 0, counts[0] * window[0] - height))
    rolls = [_Roll(*each, padded_first, still) for each in zip(sizes, counts, window, shift)]
    for dim, roll in enumerate(rolls, 1):
        hidden = roll.forth(hidden, dim)
    area = window[0] * window[1]
    parts = hidden.reshape(-1, counts[0], window[0], counts[1], window[1], channels).transpose(2, 3)
    found = attend(parts.reshape(-1, area, channels), _mask(rolls, parts, area) if any(shift) else None)
    hidden = found.reshape(-1, counts[0], counts[1], window[0], window[1], channels).transpose(2, 3)
    hidden = hidden.reshape(-1, counts[0] * window[0], counts[1] * window[1], channels)
    for dim, roll in enumerate(rolls, 1):
        hidden = roll.back(hidden, dim)
    return hidden[:, :height, :width].contiguous()


class _Roll:
    """One side of the map: where its positions go, and which of them belong together there."""

    def __init__(
        self, size: Tensor, count: int, window: int, shift: int, padded_first: bool, still: bool
    ) -> None:
        self.count, self.window, self.shifted = count, window, bool(shift)
        self.size = size  # [B or 1, 1]
        self.padded = torch.div(size + window - 1, window, rounding_mode="floor") * window
        self.around = self.padded if padded_first else size
        self.at = torch.arange(count * window, device=size.device)[None]
        self.shift = torch.full_like(size, shift)
        if still:
            self.shift = torch.where(self.padded <= window, torch.zeros_like(size), self.shift)

    def forth(self, hidden: Tensor, dim: int) -> Tensor:
        return self._taken(hidden, dim, self.at + self.shift) if self.shifted else hidden

    def back(self, hidden: Tensor, dim: int) -> Tensor:
        return self._taken(hidden, dim, self.at - self.shift) if self.shifted else hidden

    def _taken(self, hidden: Tensor, dim: int, index: Tensor) -> Tensor:
        around = self.around.clamp(min=1)
        index = torch.where(self.at < around, torch.remainder(index, around), self.at)
        placed = index[:, :, None, None] if dim == 1 else index[:, None, :, None]
        sides = [hidden.shape[0], *shape_of(hidden)[1:]]
        return torch.gather(hidden, dim, placed.expand(sides))

    def regions(self) -> Tensor:
        """[B or 1, positions]: 0 to 2; the last two come from both ends of the picture."""
        last = (self.at >= self.padded - self.window).long() + (self.at >= self.padded - self.shift).long()
        return torch.where(self.shift > 0, last, torch.zeros_like(last))


def _mask(rolls: Sequence[_Roll], parts: Tensor, area: int) -> Tensor:
    """[windows of all rows, positions, positions]: 0, and APART between positions of other regions."""
    rows, columns = (roll.regions() for roll in rolls)
    (down, tall), (across, wide) = ((roll.count, roll.window) for roll in rolls)
    both = 3 * rows[:, :, None] + columns[:, None, :]
    both = both.reshape(-1, down, tall, across, wide).transpose(2, 3).reshape(-1, down * across, area)
    both = both.expand(parts.shape[0], -1, -1).reshape(-1, area)
    apart = both[:, :, None] != both[:, None, :]
    return torch.where(apart, APART, 0.0).to(parts.dtype)


def transformers_layer(
    self: Any, hidden_states: Tensor, input_dimensions: Tuple[int, int], *rest: Any, **options: Any
) -> Tuple[Tensor, None]:
    """A layer of transformers' Swin; it would change its own window for pictures below one, for good."""
    always = rest[0] if rest else options.pop("always_partition", False)
    options.pop("output_attentions", None)
    height, width = input_dimensions
    window, shift = self.window_size, self.shift_size
    if not always and (height <= window or width <= window):
        if height < window or width < window:
            raise ValueError(f"a map of {height}x{width} is smaller than a window of {window}")
        shift = 0

    def attend(windows: Tensor, mask: Optional[Tensor]) -> Tensor:
        found: Tensor = self.attention(windows, mask, **options)[0]
        return found

    rows, _, channels = hidden_states.shape
    normed = self.layernorm_before(hidden_states).view(rows, height, width, channels)
    attended = shifted_windows(normed, (window, window), (shift, shift), attend)
    hidden_states = hidden_states + attended.view(rows, height * width, channels)
    return hidden_states + self.mlp(self.layernorm_after(hidden_states)), None


def transformers_layer_v2(
    self: Any, hidden_states: Tensor, input_dimensions: Tuple[int, int], output_attentions: Any = False
) -> Tuple[Tensor]:
    """A layer of transformers' Swin v2: the norms come last."""
    height, width = input_dimensions
    rows, _, channels = hidden_states.shape
    sizes = (self.window_size,) * 2, (self.shift_size,) * 2
    attended = shifted_windows(
        hidden_states.view(rows, height, width, channels),
        *sizes,
        lambda windows, mask: self.attention(windows, mask)[0],
    )
    attended = self.layernorm_before(attended.view(rows, height * width, channels))
    hidden_states = hidden_states + attended
    output = self.layernorm_after(self.output(self.intermediate(hidden_states)))
    return (hidden_states + output,)


def maskformers_layer(
    self: Any, hidden_states: Tensor, input_dimensions: Tuple[int, int], output_attentions: Any = False
) -> Tuple[Tensor]:
    """A layer of MaskFormer's own Swin in transformers: its window is the same for every map."""
    height, width = input_dimensions
    rows, _, channels = hidden_states.shape
    attended = shifted_windows(
        self.layernorm_before(hidden_states).view(rows, height, width, channels),
        (self.window_size,) * 2,
        (self.shift_size,) * 2,
        lambda windows, mask: self.attention(windows, mask)[0],
    )
    hidden_states = hidden_states + attended.view(rows, height * width, channels)
    return (hidden_states + self.output(self.intermediate(self.layernorm_after(hidden_states))),)


def timm_block(self: Any, x: Tensor) -> Tensor:
    """The attention of timm's Swin and Swin v2: the map is rolled before it is padded."""
    return shifted_windows(
        x,
        self.window_size,
        self.shift_size,
        lambda windows, mask: self.attn(windows, mask=mask),
        padded_first=False,
    )


def of_torchvision(original: Any) -> Any:
    """torchvision's function, which is its own attention where there is but one window and no shift."""

    def attention(
        input: Tensor,
        qkv_weight: Tensor,
        proj_weight: Tensor,
        relative_position_bias: Tensor,
        window_size: Sequence[int],
        num_heads: int,
        shift_size: Sequence[int],
        **options: Any,
    ) -> Tensor:
        def attend(windows: Tensor, mask: Optional[Tensor]) -> Tensor:
            bias = relative_position_bias if mask is None else relative_position_bias + mask[:, None]
            one = windows.reshape(-1, *window_size, windows.shape[2])
            return original(  # type: ignore[no-any-return]
                one, qkv_weight, proj_weight, bias, list(window_size), num_heads, [0, 0], **options
            ).flatten(1, 2)

        return shifted_windows(input, window_size, shift_size, attend, still=True)

    return attention


# By module and name there, or name of a class and of a method.
LAYERS: Dict[Tuple[str, str], Any] = {
    ("transformers.models.swin.modeling_swin", "SwinLayer.forward"): transformers_layer,
    ("transformers.models.swinv2.modeling_swinv2", "Swinv2Layer.forward"): transformers_layer_v2,
    ("transformers.models.swin2sr.modeling_swin2sr", "Swin2SRLayer.forward"): transformers_layer_v2,
    ("transformers.models.maskformer.modeling_maskformer_swin", "MaskFormerSwinLayer.forward"): (
        maskformers_layer
    ),
    ("timm.models.swin_transformer", "SwinTransformerBlock._attn"): timm_block,
    ("timm.models.swin_transformer_v2", "SwinTransformerV2Block._attn"): timm_block,
}
