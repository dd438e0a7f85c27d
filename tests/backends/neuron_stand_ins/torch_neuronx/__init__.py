"""Stands in for torch-neuronx (Inf2, Trn1), as the SDK 2.31 documents it; see neuron_runtime and
neuron_compiler.

There is no `experimental`: its names ended. A machine without a device (NEURON_STAND_IN_CORES=0) must say
what to compile for before this is imported: NEURON_PLATFORM_TARGET_OVERRIDE.
"""

import os
import warnings

import neuron_compiler
import neuron_runtime
import torch
from neuron_placement import multicore_context as multicore_context
from neuron_placement import neuron_cores_context as neuron_cores_context
from neuron_placement import set_multicore as set_multicore
from neuron_placement import set_neuron_cores as set_neuron_cores
from neuron_runtime import DataParallel as DataParallel
from neuron_runtime import move, moved, spec_of

__version__ = "2.9.0.2.15.32035"
TARGETS = ("inf2", "trn1", "trn1n", "trn2")
_override = os.environ.get("NEURON_PLATFORM_TARGET_OVERRIDE")  # read once, when the package is imported


class PartitionerConfig:
    def __init__(
        self,
        *,
        trace_kwargs=None,
        model_support_percentage_threshold=0.5,
        min_subgraph_size=-1,
        max_subgraph_count=-1,
        ops_to_partition=None,
        analyze_parameters=None,
    ):
        self.trace_kwargs, self.threshold = trace_kwargs or {}, model_support_percentage_threshold
        if not 0 <= self.threshold <= 1 or min_subgraph_size == 0 or max_subgraph_count == 0:
            raise ValueError("PartitionerConfig: a threshold or a count is out of range")


def trace(
    func,
    example_inputs,
    *_,
    input_output_aliases={},  # noqa: B006
    compiler_workdir=None,
    compiler_args=None,
    partitioner_config=None,
    inline_weights_to_neff=True,
    cpu_backend=False,
):
    if _:
        raise TypeError("options are keyword-only")
    example = neuron_compiler.checked_inputs(example_inputs)
    words = neuron_compiler.checked_args(compiler_args, texts=True)
    _check_words(words)
    target = _target(words)
    if cpu_backend and target is None:
        raise RuntimeError(
            "If you want to compile on CPU, please supply compiler argument target, with one of options "
            "trn1, "
            'inf2, trn1n, or trn2. Ex: "--target trn1"'
        )
    if target is not None and not cpu_backend:
        raise RuntimeError("--target is given without cpu_backend: this traces on the device")
    if cpu_backend and not neuron_runtime.device_cores() and _override is None:
        raise RuntimeError("no Neuron platform: set NEURON_PLATFORM_TARGET_OVERRIDE before the import")
    if cpu_backend and _override not in (None, target):
        raise RuntimeError(f"the platform is {_override}, and --target says {target}")
    if not cpu_backend:
        neuron_runtime.take_cores()
    with neuron_compiler.on_device(func):
        script = _traced(func, example, compiler_args, partitioner_config, inline_weights_to_neff)
    if not cpu_backend:
        neuron_runtime._hold(script)
    return script


def _traced(func, example, compiler_args, partitioner_config, inline_weights_to_neff):
    counted = neuron_compiler.operators(func, example)
    unknown = neuron_compiler.unsupported(counted)
    if partitioner_config is not None:
        if not isinstance(partitioner_config, PartitionerConfig):
            raise TypeError("partitioner_config must be a PartitionerConfig")
        known = 1 - sum(counted[kind] for kind in unknown) / sum(counted.values())
        if known < partitioner_config.threshold:
            raise ValueError(f"{known:.0%} of the operators are supported, fewer than the threshold")
        if compiler_args is not None and not partitioner_config.trace_kwargs.get("compiler_args"):
            raise ValueError("with a partitioner, compiler_args belong into its trace_kwargs")
    elif unknown:
        raise RuntimeError(f"neuronx-cc terminated abnormally: {unknown[0]} is not supported")
    return neuron_compiler.compiled(func, example, inline_weights_to_neff)


def _check_words(words):
    for word in words:
        if word.startswith(("--fp32-cast", "--fast-math")):
            raise RuntimeError(f"neuronx-cc: error: unrecognized arguments: {word}")


def _target(words):
    found = [word.split("=")[1] for word in words if word.startswith("--target=")]
    found += [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--target"]
    if any(target not in TARGETS for target in found):
        raise RuntimeError(f"neuronx-cc: invalid choice for --target: {found}")
    return found[-1] if found else None


def analyze(
    func,
    example_inputs,
    compiler_workdir=None,
    additional_ignored_ops=frozenset(),
    max_workers=4,
    is_hf_transformers=False,
    cleanup=False,
):
    if neuron_runtime.device_cores():
        neuron_runtime.take_cores()  # XLA's device
    with neuron_compiler.on_device(func):
        counted = neuron_compiler.operators(func, neuron_compiler.checked_inputs(example_inputs))
    unknown = neuron_compiler.unsupported(counted)
    neuron_runtime.log("analyze")
    known = {kind: count for kind, count in counted.items() if kind not in unknown}
    share = sum(known.values()) / sum(counted.values())
    failures = [
        {"kind": kind, "failureAt": "neuronx-cc", "call": "model.py(6): forward\n", "opGraph": ""}
        for kind in unknown
    ]
    return {
        "torch_neuronx_version": __version__,
        "neuronx_cc_version": "2.26.6360.0",
        "support_percentage": f"{share:.2%}",
        "supported_operators": known,
        "unsupported_operators": failures,
    }


def dynamic_batch(neuron_script):
    """In place; gives the same program back."""
    spec = _program(neuron_script)
    if spec["weights"]:
        raise NotImplementedError("dynamic batching of a program with separated weights")
    if len({shape[0] for shape in spec["shapes"]}) > 1:
        raise ValueError("dynamic batching: dimension 0 differs between inputs")
    neuron_script.state[neuron_runtime.DYNAMIC] = 1
    return neuron_script


def lazy_load(trace, enable_lazy_load=True):
    _program(trace)
    trace.state[neuron_runtime.LAZY] = int(enable_lazy_load)


def async_load(trace, enable_async_load=True):
    _program(trace)
    trace.state[neuron_runtime.ASYNC] = int(enable_async_load)


def move_trace_to_device(trace, device_id):
    _program(trace)
    move(trace, device_id)


def replace_weights(neuron_model, weights):
    if not _program(neuron_model)["weights"]:
        warnings.warn("this model has no separated weights", stacklevel=2)
        return
    if moved(neuron_model):
        raise RuntimeError("the weights are on the device already")
    weights = weights.state_dict() if isinstance(weights, torch.nn.Module) else weights
    own = dict(neuron_model.weights.named_parameters())
    for name, tensor in own.items():
        new = weights.get(name.replace("->", "."))
        if new is None or new.shape != tensor.shape or new.dtype != tensor.dtype:
            raise RuntimeError(
                f"replace_weights: {name.replace('->', '.')} is missing or of another shape or dtype"
            )
        tensor.data = new.detach()


def _program(script):
    if not neuron_runtime.is_program(script):
        raise TypeError("this is no program of torch_neuronx.trace")
    return spec_of(script)


class BucketModelConfig:
    def __init__(
        self,
        bucket_kernel,
        *_,
        shared_state_buffer=None,
        shared_state_buffer_preprocessor=None,
        func_kwargs=None,
    ):
        if _:
            raise TypeError("options are keyword-only")
        self.kernel = bucket_kernel()
        if not isinstance(self.kernel, (torch.jit.ScriptFunction, torch.jit.ScriptModule)):
            raise TypeError("bucket_kernel must return a TorchScript function")
        self.func_kwargs = func_kwargs


def bucket_model_trace(func, example_inputs, bucket_config, compiler_workdir=None, compiler_args=None):
    import pickle

    if not isinstance(example_inputs, list) or not isinstance(bucket_config, BucketModelConfig):
        raise TypeError("example_inputs must be a list, and bucket_config a BucketModelConfig")
    pickle.dumps(func)  # buckets are traced in processes of their own
    if _target(neuron_compiler.checked_args(compiler_args, texts=True)) is not None:
        raise RuntimeError("bucket_model_trace has no cpu_backend, which --target needs")
    neuron_runtime.take_cores()
    kwargs = bucket_config.func_kwargs
    several = kwargs if isinstance(kwargs, list) else [kwargs or {}] * len(example_inputs)
    if len(several) != len(example_inputs):
        raise ValueError("func_kwargs: one dictionary, or one per bucket")
    scripts, outputs = [], 0
    for inputs, more in zip(example_inputs, several):
        made = func(**more)
        if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[1], dict):
            raise TypeError("func must return a model and its input_output_aliases")
        inputs = neuron_compiler.checked_inputs(inputs)
        unknown = neuron_compiler.unsupported(neuron_compiler.operators(made[0], inputs))
        if unknown:
            raise RuntimeError(f"neuronx-cc terminated abnormally: {unknown[0]} is not supported")
        scripts.append(neuron_compiler.compiled(made[0], inputs))
        with torch.no_grad():
            found = made[0](*inputs)
        outputs = 0 if isinstance(found, torch.Tensor) else len(found)
    return neuron_compiler.routed(bucket_config.kernel, scripts, outputs)
