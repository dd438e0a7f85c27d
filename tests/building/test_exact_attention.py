"""Attention along a padded side: the answer of each row alone, whatever is behind its end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anyshape.building.exact import ExactPadding, UnknownOperation

LENGTHS = [1000, 999, 640, 31]


class Attending(nn.Module):
    """A convolution, then what `attend` makes of ``[batch, moments, 16]``, then the mean over the moments."""

    def __init__(self, attend: nn.Module) -> None:
        super().__init__()
        self.layer, self.attend, self.head = nn.Conv1d(1, 16, 9, 4, 4), attend, nn.Linear(16, 3)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.head(self.attend(self.layer(waveform[:, None]).transpose(1, 2)).mean(1))


class Scaled(nn.Module):
    """torch's one operation, or the steps that it is made of."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.parts, self.options = nn.Linear(16, 48), options

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            each.unflatten(-1, (2, 8)).transpose(1, 2) for each in self.parts(x).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, **self.options)
        return mixed.transpose(1, 2).flatten(2)


class Apart(nn.Module):
    """Windows of five moments, each of which looks at itself, and a shorter end that is padded."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        windows = F.pad(x, (0, 0, 0, -x.shape[1] % 5)).unflatten(1, (-1, 5))
        query, key, value = self.parts(windows).chunk(3, -1)
        return F.scaled_dot_product_attention(query, key, value).flatten(1, 2)[:, : x.shape[1]]


class Pooled(nn.Module):
    """One learned query that looks at all moments."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.attend = nn.Parameter(torch.randn(1, 1, 16)), nn.MultiheadAttention(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        return self.attend(self.query.expand(-1, x.shape[1], -1), x, x)[0].transpose(0, 1)


class Recurring(nn.Module):
    """Forth and back, and what the last moment of either way leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(16, 8, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        found, (last, _) = self.layer(x)
        return found + torch.cat([last[0], last[1]], -1)[:, None]


class Positions(nn.Module):
    """A number for each pair of positions, which nothing says to be right for another length."""

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.linspace(0, 1, x.shape[1] ** 2).view(x.shape[1], x.shape[1])
        return F.scaled_dot_product_attention(x, x, x, attn_mask=bias)


class Across(nn.Module):
    """Every window looks at the whole recording's first moments: where that is in front differs."""

    def forward(self, x: Tensor) -> Tensor:
        windows = F.pad(x, (0, 0, 0, -x.shape[1] % 5)).unflatten(1, (-1, 5))
        first = x[:, None, :5].expand(-1, windows.shape[1], -1, -1)
        return F.scaled_dot_product_attention(windows, first, first).flatten(1, 2)


MODELS = {
    "scaled dot product": lambda: Scaled(),
    "causal": lambda: Scaled(is_causal=True),
    "encoder": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2),
    "windows": Apart,
    "pooling": Pooled,
    "recurrence": Recurring,
    "windows that look at others": Across,
}


def answers(attend: nn.Module) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(with exact padding, alone, with plain padding) of each length, with noise behind its end."""
    torch.manual_seed(1)
    model = Attending(attend).eval()
    batch = torch.randn(len(LENGTHS), 1000)
    exact = ExactPadding(model)
    with torch.no_grad():
        found = exact(batch, torch.tensor(LENGTHS)[:, None])[0]
        return [
            (found[i], model(batch[i : i + 1, :length])[0], model(batch[i : i + 1])[0])
            for i, length in enumerate(LENGTHS)
        ]


@pytest.mark.parametrize("name", MODELS)
def test_attention_sees_nothing_behind_the_end(name: str) -> None:
    torch.manual_seed(0)
    rows = answers(MODELS[name]())
    for found, alone, _ in rows:
        assert torch.allclose(found, alone, atol=1e-5)
    assert max((plain - alone).abs().max() for _, alone, plain in rows) > 1e-2


def test_a_bias_of_positions_is_refused_by_name() -> None:
    with pytest.raises(UnknownOperation, match=r"scaled_dot_product_attention.*a number for each position"):
        answers(Positions())
