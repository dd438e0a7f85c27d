"""transformers' choice of an attention: the one of torch asks whether there are several queries, which is a
question about the picture's size, before it asks whether the order of positions matters at all."""

from __future__ import annotations

from typing import Any, Callable

import torch.nn.functional as F

_KNOWN = {"is_causal"}  # other options of a call must be None, or say nothing


def interface(original: Callable[..., Any]) -> Callable[..., Any]:
    def chosen(self: Any, *args: Any, **options: Any) -> Any:
        found = original(self, *args, **options)
        name = getattr(found, "__name__", "")
        return _unordered(found) if name == "sdpa_attention_forward" else found

    return chosen


def _unordered(function: Callable[..., Any]) -> Callable[..., Any]:
    def attention(
        module: Any,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any,
        dropout: float = 0.0,
        scaling: Any = None,
        **options: Any,
    ) -> Any:
        causal = options.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        others = any(options[name] not in (None, False) for name in set(options) - _KNOWN)
        if causal is not False or others or getattr(module, "num_key_value_groups", 1) > 1:
            return function(module, query, key, value, attention_mask, dropout, scaling, **options)
        mixed = F.scaled_dot_product_attention(query, key, value, attention_mask, dropout, scale=scaling)
        return mixed.transpose(1, 2).contiguous(), None

    return attention
