"""Stands in for torch-neuron (Inf1), as its archived documentation has it; see neuron_runtime and
neuron_compiler.

NEURON_STAND_IN_NO_SEPARATION  a compiler too old for separate_weights
"""

import logging
import types

import neuron_compiler
import neuron_runtime
import torch

from torch_neuron import experimental  # noqa: F401

__version__ = "1.13.1.2.11.13.0"
logger = logging.getLogger("Neuron")


def trace(
    model,
    example_inputs,
    compiler_args=None,
    compiler_timeout=None,
    compiler_workdir=None,
    subgraph_builder_function=None,
    minimum_segment_size=2,
    single_fusion_ratio_threshold=0.6,
    fallback=True,
    dynamic_batch_size=False,
    optimizations=None,
    separate_weights=False,
    **kwargs,
):
    if set(kwargs) - {"check_trace", "check_tolerance", "strict", "check_inputs"}:
        raise TypeError(
            f"trace() got an unexpected keyword argument {sorted(kwargs)[0]!r}"
        )  # as torch.jit.trace
    words = neuron_compiler.checked_args(compiler_args)
    if "--target" in words or any(word.startswith("--target=") for word in words):
        raise RuntimeError("neuron-cc: error: unrecognized arguments: --target")
    if "--auto-cast" in words:
        raise RuntimeError("neuron-cc: error: unrecognized arguments: --auto-cast")
    example = neuron_compiler.checked_inputs(example_inputs)
    counted = neuron_compiler.operators(model, example)
    unknown = neuron_compiler.unsupported(counted)
    if unknown and not fallback:
        raise AttributeError(f"Neuron compile failed. Operator {unknown[0]} is not supported")
    if sum(count for kind, count in counted.items() if kind not in unknown) < minimum_segment_size:
        logger.warning("No operator is placed on Neuron runtime; returning a CPU trace")
        return torch.jit.trace(model, example, check_trace=False, strict=False)
    if dynamic_batch_size:
        _check_rows(model, example)
    script = neuron_compiler.compiled(model, example, limited=not separate_weights)
    script.state[neuron_runtime.DYNAMIC] = int(dynamic_batch_size)
    return script


def _analyze_model(model, example_inputs):
    """Tells the logger; gives nothing back that is documented."""
    counted = neuron_compiler.operators(model, tuple(example_inputs))
    unknown = neuron_compiler.unsupported(counted)
    logger.info("The following operations are currently supported in torch-neuron for this model:")
    for kind in counted:
        if kind not in unknown:
            logger.info(kind)
    if unknown:
        logger.info("The following operations are currently not supported in torch-neuron for this model:")
        for kind in unknown:
            logger.info(kind)
    total = sum(counted.values())
    known = total - sum(counted[kind] for kind in unknown)
    logger.info(f"{known / total:.2%} of arithmetic operations ({known} of {total}) are supported")


class _DataParallel(neuron_runtime.DataParallel):
    def __init__(self, model, device_ids=None, dim=0):
        super().__init__(model, device_ids, dim)


def _check_rows(model, example):
    if len({len(tensor) for tensor in example}) > 1:
        raise RuntimeError("dynamic_batch_size: dimension 0 differs between inputs")


# Documented under these names alone.
torch.neuron = types.SimpleNamespace(trace=trace, analyze_model=_analyze_model, DataParallel=_DataParallel)
