"""Stands in for torch-neuron (Inf1): the documented `trace`, see neuron_runtime."""

import neuron_runtime

__version__ = "1.13.1.0+standin"


def trace(
    model,
    example_inputs,
    *,
    compiler_args=None,
    compiler_timeout=None,
    compiler_workdir=None,
    dynamic_batch_size=False,
):
    for argument in compiler_args or []:
        if not isinstance(argument, str):
            raise TypeError("compiler_args must be a list of str")
    return neuron_runtime.trace(model, example_inputs, dynamic_batch_size)
