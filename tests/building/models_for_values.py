"""Models whose Python code looks at values or at shapes: `tests.building.models_for_values:model_NAME`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tests.building.models_for_build import Words

Change = Callable[[Tensor, Tensor, Tensor], Tensor]  # of vectors, given ids and mask


class Changed(Words):
    """The vectors of `Words`, changed by a function of them, the ids and the mask."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.change = change

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.change(super().forward(input_ids, attention_mask), input_ids, attention_mask)


# Reads that a trace freezes


def branches(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    if bool((vectors.mean() > 1).all()):
        return vectors * 2
    return vectors


def scales(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return vectors * (ids[0, 0] % 2 + 1).item()


def indexes(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return vectors + vectors[:, :, int(ids[0, 0]) % 8, None]


def lists(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return vectors + (ids[0] % 2).tolist()[0]


def leaves_torch(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return vectors + torch.from_numpy(np.asarray(vectors) * 0)


def compares(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return vectors * 2 if torch.equal(ids, ids.flip(1)) else vectors


def loops(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    for _ in (ids[0] % 2).nonzero():  # as many rounds as the example had odd ids
        vectors = vectors * 1.5
    return vectors


def counts(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    odd = ids[ids % 2 == 1]
    return vectors if odd.shape[0] > 3 else vectors * 2


def remembers(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    kept = torch.zeros(2)
    kept[1:].copy_(vectors[0, 0, :1])
    return vectors * 2 if kept[1] > 0 else vectors


def measures_the_mask(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return vectors * 2 if int(mask.sum(1).max()) == 3 else vectors


def makes_of_a_list(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return torch.where(torch.tensor([(ids == 2028).any()]), vectors * 2, vectors)


def makes_of_a_list_alike(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return vectors * (1 + vectors.new_tensor([(ids == 2028).any()]))


def hands_over(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return vectors * (1 + torch.from_numpy(np.from_dlpack((ids == 2028).sum()).copy()))


def asserts_and_keeps(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    assert (found := bool((ids == 2028).any())) in (True, False)  # noqa: RUF018
    return vectors * 2 if found else vectors


FROZEN: dict[str, Change] = {
    change.__name__: change
    for change in (
        *(branches, scales, indexes, lists, leaves_torch, compares, loops, counts, remembers),
        *(measures_the_mask, makes_of_a_list, makes_of_a_list_alike, hands_over, asserts_and_keeps),
    )
}


# What a trace records, or what is the same for every input of a bucket


def asks_for_shapes(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    if ids.shape[1] > 8:  # in two parts, as models do to save memory
        vectors = torch.cat([vectors[:, :8], vectors[:, 8:]], 1)
    if len(ids) == 0 or vectors.numel() == 0 or not vectors.size(1) or vectors.new_zeros(1) > 0:
        return vectors * 3
    return vectors + torch.zeros_like(vectors).sum().item()


def asks_for_global_tokens(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return vectors * 2 if (mask > 1).flatten().any().item() else vectors  # as Longformer does


def asserts(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    assert (
        ids.min().item() >= 0  # as Flaubert does
    ), "no such token"
    return vectors


def selects(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """By values, and with shapes that depend on them, but in operations alone."""
    first = (ids[:, :1] % 8)[:, :, None].expand(-1, ids.shape[1], 1)
    odd = ids[ids % 2 == 1]
    vectors = vectors[:, : ids.max() + 1]  # all of them, for ids are large
    return vectors + vectors.gather(2, first) + 0 * odd.view(odd.shape[0], 1).sum()


def makes(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Of a tensor that is one number, and of what depends on no input: both are recorded."""
    odd = torch.as_tensor((ids[:, :1] % 2).sum())
    return vectors * torch.tensor([1.0, vectors.shape[2] / 8])[odd]


def prints(vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    print(ids, f"{vectors.sum():.2f}")
    return vectors


HARMLESS: dict[str, Change] = {
    change.__name__: change
    for change in (asks_for_shapes, asks_for_global_tokens, asserts, selects, makes, prints)
}


def __getattr__(name: str) -> Callable[[], torch.nn.Module]:
    """A function for recipes for each of them."""
    change = {**FROZEN, **HARMLESS}.get(name.removeprefix("model_"))
    if change is None:
        raise AttributeError(name)
    return lambda: Changed(change).eval()
