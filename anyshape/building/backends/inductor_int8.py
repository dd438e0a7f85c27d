"""Post-training quantisation for AOTInductor by torchao, with ranges from calibration items."""

from __future__ import annotations

from typing import Any, Sequence

import torch

from anyshape.building.backends.int8 import feeds, missing, quiet
from anyshape.items import Item
from anyshape.padding import InputSpec


def quantize(program: Any, inputs: Sequence[InputSpec], items: Sequence[Item]) -> torch.nn.Module:
    """An exported program's module with the products of linear layers in int8: weights by their channels,
    activations by ranges that `items`, each alone and unpadded, have made of them.

    The activations are scaled as one, so a row's answer does not depend on its neighbours. Raises ConfigError
    where torchao is not installed.
    """
    with quiet(), torch.no_grad():
        quantizer, prepare, convert = package()
        module = program.module()
        module.graph.eliminate_dead_code()  # a pooler that nobody asks stops the quantizer
        prepared = prepare(module, quantizer)
        for tensors in feeds(inputs, items):
            prepared(*tensors)
        quantized: torch.nn.Module = convert(prepared)
    return quantized


def package() -> Any:
    """The quantizer for oneDNN's int8 products, and the two steps of quantisation. Raises ConfigError."""
    try:
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
    except ImportError as error:
        raise missing("torchao", error) from None
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    return quantizer, prepare_pt2e, convert_pt2e
