"""Operations that act on every position alone, by the name that torch gives them.

The name is stripped of underscores: ``add``, ``add_``, ``__add__`` and ``Tensor.add`` are one.
"""

from __future__ import annotations

from typing import Any, FrozenSet

import torch.nn.functional as F


def _names(text: str) -> FrozenSet[str]:
    return frozenset(text.split())


# Zero in, zero out: padding that was cleared stays cleared.
KEEPS_ZERO = _names(
    """
    abs absolute alias alpha_dropout arctan asin asinh atan bfloat16 ceil celu clone contiguous
    detach double dropout dropout1d dropout2d dropout3d elu erf expm1 feature_alpha_dropout
    feature_dropout float floor gelu get:data half hardshrink hardswish leaky_relu log1p mish
    nan_to_num neg negative positive relu relu6 round rrelu selu sgn sign silu sin sinh
    softshrink softsign sqrt square tan tanh tanhshrink to trunc type type_as
    """
)
# May return their argument, or a view of it.
SAME_MEMORY = _names(
    """
    alias alpha_dropout bfloat16 contiguous detach double dropout dropout1d dropout2d dropout3d
    feature_alpha_dropout feature_dropout float get:data half positive to type type_as
    """
)
# Zero if every tracked operand is zero and nothing else is added.
ADDS = _names(
    """
    add fmax fmin iadd isub maximum minimum radd rsub sub subtract
    """
)
SCALES = _names(
    """
    imul mul multiply rmul
    """
)
DIVIDES = _names(
    """
    div divide idiv itruediv truediv
    """
)
OTHER = _names(
    """
    acos acosh addcdiv addcmul and atan2 atanh bitwise_and bitwise_not bitwise_or bitwise_xor
    bool byte char clamp clamp_max clamp_min clip cos cosh empty_like eq erfc exp exp2 fill
    floor_divide floordiv fmod full_like ge gt hardsigmoid hardtanh heaviside hypot iand
    ifloordiv int invert ior ipow isfinite isinf isnan le lerp log log10 log2 logaddexp
    logical_and logical_not logical_or logical_xor logit logsigmoid long lt masked_fill mod ne
    not_equal ones_like or pow rand_like rdiv reciprocal remainder rfloordiv rpow rsqrt rtruediv
    short sigmoid sinc softplus special_expit threshold true_divide where xlogy xor zero zeros_like
    """
)
POINTWISE = KEEPS_ZERO | ADDS | SCALES | DIVIDES | OTHER

# Questions about a tensor, not about its values.
QUESTIONS = _names(
    """
    data_ptr dim element_size format get_device hash is_complex is_contiguous is_floating_point
    is_inference is_pinned is_same_size is_signed is_tensor len ndimension nelement numel repr
    size storage_offset stride untyped_storage
    """
)
_VALUES = ("data", "T", "mT", "H", "mH", "real", "imag", "grad")


def name_of(func: Any) -> str:
    """``get:shape`` for a property, else the function's name without its underscores; the function that makes
    columns of windows has not the name of the method that makes windows of a dimension."""
    if func is F.unfold:
        return "im2col"
    name = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":
        return "get:" + str(getattr(func.__self__, "__name__", "?"))
    return str(name).strip("_")


def is_question(name: str) -> bool:
    return name in QUESTIONS or (name.startswith("get:") and name[4:] not in _VALUES)
