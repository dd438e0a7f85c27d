"""From token embeddings to one vector per text: what follows the transformer in sentence-transformers.

All of it is inside the compiled model and exact under padding: a mask says which tokens count.
"""

from __future__ import annotations

import inspect
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import torch
from torch import nn
from torch.nn import functional

from anyshape.errors import ConfigError

TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def _mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def _mean_sqrt_len(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1e-9).sqrt()


def _weighted_mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The n-th token counts n times; tokens of a prompt that is left out keep their numbers."""
    numbers = torch.arange(1, tokens.shape[1] + 1, dtype=tokens.dtype, device=tokens.device)
    weights = mask.unsqueeze(-1).to(tokens.dtype) * numbers.view(1, -1, 1)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def _max(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return tokens.masked_fill(mask.unsqueeze(-1) == 0, float("-inf")).amax(1)


def _cls(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return picked(tokens, mask - functional.pad(mask[:, :-1], (1, 0)))


def last_token(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The last token of each row that the mask counts."""
    return picked(tokens, mask - functional.pad(mask[:, 1:], (0, 1)))


def picked(tokens: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """The token of each row where `steps` is 1. No gather: some compilers do not know it."""
    return tokens.masked_fill(steps.unsqueeze(-1) < 1, 0.0).sum(1)


# In the order in which sentence-transformers joins the flags of its older layout.
MODES: Dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len": _mean_sqrt_len,
    "weighted_mean": _weighted_mean,
    "last_token": last_token,
}


class Pooling(nn.Module):
    """Token embeddings pooled in one way, or in several whose vectors are joined.

    Takes tokens ``[batch, length, width]`` in float32 and a mask ``[batch, length]`` of whole numbers: 1
    where a token counts, one unbroken run in each row. Returns ``[batch, ways × width]``.
    """

    def __init__(self, modes: Sequence[str]) -> None:
        super().__init__()
        self.modes = tuple(modes)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        vectors = [MODES[mode](tokens, mask) for mode in self.modes]
        return vectors[0] if len(vectors) == 1 else torch.cat(vectors, 1)


class Normalize(nn.Module):
    """Vectors ``[batch, width]``, or ``[batch, length, width]``, scaled to length one."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return functional.normalize(vectors, dim=-1)


class Dense(nn.Module):
    """A linear layer with an activation, and what came in added to it where the model says so.

    Vectors come and go in float32; between, they have the weights' dtype.
    """

    def __init__(
        self, inputs: int, outputs: int, bias: bool, activation: nn.Module, residual: bool = False
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=bias)
        self.activation = activation
        self.adds = residual
        if residual and inputs != outputs:
            self.residual = nn.Linear(inputs, outputs, bias=False)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        vectors = vectors.to(self.linear.weight.dtype)
        result: torch.Tensor = self.activation(self.linear(vectors))
        if self.adds:
            result = result + (self.residual(vectors) if hasattr(self, "residual") else vectors)
        return result.float()


class LayerNorm(nn.Module):
    """Layer normalisation of vectors ``[batch, width]``, float32 in and out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm(vectors.to(self.norm.weight.dtype))
        return normed.float()


class SentenceModel(nn.Module):
    """A transformer, the pooling of its tokens, and what follows it; returns ``[batch, width]`` in float32.

    `dimensions` keeps that many numbers of each vector, as sentence-transformers' truncate_dim does: after
    everything else, so that they are not scaled anew.
    """

    def __init__(
        self,
        transformer: nn.Module,
        modes: Sequence[str] = ("mean",),
        after: Sequence[nn.Module] = (),
        dimensions: Optional[int] = None,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.pooling = Pooling(modes)
        self.after = nn.Sequential(*after)
        self.dimensions = dimensions
        self.takes = takes(transformer)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: Optional[torch.Tensor] = None,
        pooling_mask: Optional[torch.Tensor] = None,
        **more: torch.Tensor,
    ) -> torch.Tensor:
        """All inputs are ``[batch, length]`` of int64; `pooling_mask` is 1 for the tokens that are pooled,
        and `more` goes to the transformer as it is."""
        given = dict(zip(TOKEN_INPUTS, (input_ids, attention_mask, token_type_ids)))
        named = {name: given[name] for name in self.takes if given[name] is not None}
        tokens = first_tensor(self.transformer(**named, **more)).float()
        if tokens.dim() != 3:
            raise ConfigError(
                f"{type(self.transformer).__name__} answers with {[int(side) for side in tokens.shape]}, not "
                "with a vector for each token [batch, length, width]: it pools by itself, so "
                "sentence-embedding has nothing to pool"
            )
        mask = attention_mask if pooling_mask is None else pooling_mask
        vectors: torch.Tensor = self.after(self.pooling(tokens, mask))
        return vectors if self.dimensions is None else vectors[:, : self.dimensions]


def takes(transformer: nn.Module) -> Tuple[str, ...]:
    """The token inputs that a model's forward names."""
    accepted = inspect.signature(transformer.forward).parameters
    return tuple(name for name in TOKEN_INPUTS if name in accepted)


def first_tensor(result: Any) -> torch.Tensor:
    """The token embeddings among what a transformer returns: the last layer's, which comes first."""
    if isinstance(result, torch.Tensor):
        return result
    tokens: torch.Tensor = result[0] if isinstance(result, (tuple, list)) else next(iter(result.values()))
    return tokens
