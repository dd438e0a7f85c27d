"""Stands in for torch-neuronx (Inf2, Trn1): `trace` and `dynamic_batch`, see neuron_runtime."""

import neuron_runtime

__version__ = "2.1.2.0+standin"


def trace(
    func,
    example_inputs,
    *_,
    compiler_workdir=None,
    compiler_args=None,
    cpu_backend=False,
    inline_weights_to_neff=True,
):
    if _:
        raise TypeError("options are keyword-only")
    return neuron_runtime.trace(func, example_inputs)


def dynamic_batch(script):
    """In place, as the SDK's does; gives nothing back."""
    script.dynamic.fill_(True)
