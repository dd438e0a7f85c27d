"""Attention in bfloat16 as two products and a softmax, where that is faster than torch's own kernel.

torch's kernel for CPUs goes through the keys block by block and multiplies the blocks by MKL, whose small
products in bfloat16 are slow on some CPUs: on AMD's Zen 5 it takes half of a long call. The two products of a
whole call go to oneDNN instead, and Inductor fuses what is between them. That takes memory for all scores,
``[batch, heads, queries, keys]``. Which way is faster is measured here, when a program is compiled.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Sequence

import torch

from anyshape.backends.timing import least_seconds

ATEN = torch.ops.aten
ATTENTION = ATEN.scaled_dot_product_attention.default
ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
HALF = torch.bfloat16
LOWEST = torch.finfo(HALF).min  # for what is masked; with -inf a row of nothing else would be NaN
LARGEST = 64 << 20  # bytes of scores: more of them stay in no cache
CLEARLY = 0.9  # of the kernel's time
ROUNDS = 5
# Inductor would compute what is added to the scores anew in every layer and head: with this few operations it
# is kept. For `torch._inductor`'s options.
OPTIONS = {"realize_opcount_threshold": 3}


def split_attention(module: Any, kind: torch.dtype) -> bool:
    """Put products in the place of each attention of an exported module's graph that is faster so.

    kind: what the attention is in that may be done in bfloat16: float32 in a program in int8. The result is
    of the same kind; attention of another kind is the model's own wish. Whether any was replaced.
    """
    added: Dict[Any, Any] = {}
    faster: Dict[Any, bool] = {}
    found = False
    for node in list(module.graph.nodes):
        given = {**dict(zip(ARGUMENTS, node.args)), **node.kwargs} if node.target is ATTENTION else {}
        if not given or not _is_plain(given, kind):
            continue
        tensors = [given[name].meta["val"] for name in ARGUMENTS[:3]]
        query, key, value = case = tuple(tuple(map(_size, tensor.shape)) for tensor in tensors)
        if case not in faster:
            faster[case] = _products_are_faster(query, key, value, kind)
        if faster[case]:
            with module.graph.inserting_before(node):
                result = _products(module.graph, given, added, kind)
            result.meta["val"] = node.meta["val"]  # the next attention may be of this
            node.replace_all_uses_with(result)
            module.graph.erase_node(node)
            found = True
    if found:
        module.recompile()
    return found


def _is_plain(given: Mapping[str, Any], kind: torch.dtype) -> bool:
    """Whether an attention is of that kind, and has nothing that is not done here, such as shared keys."""
    tensors = [given[name].meta.get("val") for name in ARGUMENTS[:3]]
    plain = all(isinstance(t, torch.Tensor) and t.dim() == 4 and t.dtype is kind for t in tensors)
    unasked = not (given.get("dropout_p") or given.get("is_causal") or given.get("enable_gqa"))
    return plain and unasked


def _products(graph: Any, given: Mapping[str, Any], added: Dict[Any, Any], kind: torch.dtype) -> Any:
    """The nodes that compute an attention. added: of each mask, the node that is added to the scores."""

    def call(target: Any, *arguments: Any) -> Any:
        return graph.call_function(target, arguments)

    query, key, value = (
        each if kind is HALF else call(ATEN.to.dtype, each, HALF)
        for each in (given[name] for name in ARGUMENTS[:3])
    )
    scale = given.get("scale")
    if scale is None:
        scale = _size(given["query"].meta["val"].shape[-1]) ** -0.5
    scores = call(
        ATEN.mul.Tensor, call(ATEN.matmul.default, query, call(ATEN.transpose.int, key, -2, -1)), scale
    )
    mask = given.get("attn_mask")
    if mask is not None:
        if mask not in added:
            if mask.meta["val"].dtype is torch.bool:
                term = call(ATEN.to.dtype, call(ATEN.where.Scalar, mask, 0.0, LOWEST), HALF)
            else:
                term = call(ATEN.clamp_min.default, call(ATEN.to.dtype, mask, HALF), LOWEST)
            added[mask] = term
        scores = call(ATEN.add.Tensor, scores, added[mask])
    result = call(ATEN.matmul.default, call(ATEN.softmax.int, scores, -1), value)
    return result if kind is HALF else call(ATEN.to.dtype, result, kind)


def _size(side: Any) -> int:
    """A side of a shape; of one that is open, what it was when the model was exported."""
    return side if isinstance(side, int) else int(side.node.hint)


def _products_are_faster(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], kind: torch.dtype
) -> bool:
    """Measured on the CPU of the build, with its threads. Never where the scores take too much memory."""
    if 2 * query[0] * query[1] * query[2] * key[2] > LARGEST:
        return False
    q, k, v = (
        torch.ones(each[0], each[2], each[1], each[3], dtype=kind).transpose(1, 2)
        for each in (query, key, value)
    )
    mask = torch.zeros(query[0], 1, query[2], key[2], dtype=kind)
    least = mask.to(HALF)

    def kernel() -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)

    def products() -> torch.Tensor:
        narrow = [each.to(HALF) for each in (q, k, v)]
        scores = (narrow[0] @ narrow[1].transpose(-2, -1)) * 0.1 + least
        return (torch.softmax(scores, -1) @ narrow[2]).to(kind)

    with torch.inference_mode():
        return least_seconds(products, ROUNDS) < CLEARLY * least_seconds(kernel, ROUNDS)
