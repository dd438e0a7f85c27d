"""Stands in for the part of neuronx-distributed that compiles one model for several shapes: ModelBuilder,
NxDModel."""

import contextlib
import inspect

import neuron_compiler
import neuron_runtime
import torch

__version__ = "0.17.0"
_world = []  # not empty inside of NxDParallelState


@contextlib.contextmanager
def NxDParallelState(world_size, tensor_model_parallel_size):
    if world_size != tensor_model_parallel_size:
        raise ValueError("world_size and tensor_model_parallel_size differ")
    _world.append(world_size)
    try:
        yield
    finally:
        _world.pop()


class ModelBuilder:
    def __init__(self, model):
        kinds = {p.kind for p in inspect.signature(getattr(model, "forward", model)).parameters.values()}
        if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} or not kinds:
            raise ValueError("the model's parameters must be explicit: no *args or **kwargs")
        self.model, self.traced = model, {}

    def trace(self, args=None, kwargs=None, tag=None, spmd=True):
        if not _world:
            raise RuntimeError("trace needs an NxDParallelState around it")
        example = neuron_compiler.checked_inputs(args)
        unknown = neuron_compiler.unsupported(neuron_compiler.operators(self.model, example))
        if unknown:
            raise RuntimeError(f"{unknown[0]} cannot be lowered")
        self.traced[tag] = example
        return self

    def compile(self, priority_model_key=None, compiler_workdir=None, compiler_args=None, max_workers=None):
        if compiler_args is not None and not isinstance(compiler_args, (str, dict)):
            raise TypeError("compiler_args must be a string or a dictionary by tag")
        programs = {
            tag: neuron_compiler.compiled(self.model, example, inline=False)
            for tag, example in self.traced.items()
        }
        return NxDModel(1, programs)


class NxDModel:
    def __init__(self, world_size, programs=None):
        self.programs, self.ready, self.weighted = programs or {}, False, False

    def set_weights(self, sharded_checkpoint):
        if self.ready:
            raise ValueError("the model is on the device already")
        (weights,) = sharded_checkpoint
        shared = {}  # one set for all programs
        for program in self.programs.values():
            for name, tensor in program.weights.named_parameters():
                name = name.replace("->", ".")
                new = shared.setdefault(name, weights[name])
                if new.shape != tensor.shape or new.dtype != tensor.dtype:
                    raise ValueError(f"{name} has another shape or dtype")
                tensor.data = new
        self.weighted = True

    def to_neuron(self):
        if not self.weighted:
            raise RuntimeError("there are no weights: set_weights")
        for i, program in enumerate(self.programs.values()):
            entry = neuron_runtime._hold(program, [0])
            entry["moved"] = True
            entry["bytes"] += neuron_runtime.spec_of(program)["weight_bytes"] if i == 0 else 0
            neuron_runtime._check_memory()
        self.ready = True

    def __call__(self, *args, model_name=None, forward_mode="default"):
        if not self.ready:
            raise RuntimeError("to_neuron() was not called")
        if model_name is None and len(self.programs) > 1:
            shapes = [list(tensor.shape) for tensor in args]
            fitting = [t for t, p in self.programs.items() if neuron_runtime.spec_of(p)["shapes"] == shapes]
            if len(fitting) != 1:
                raise RuntimeError("ambiguous routing: name the model")
            model_name = fitting[0]
        outputs = self.programs[model_name or next(iter(self.programs))](*args)
        return outputs[0] if len(outputs) == 1 else outputs

    def save(self, path_to_save, save_weights=False):
        kept = {}
        for tag, program in self.programs.items():
            for name, tensor in program.weights.named_parameters():
                kept[tag, name] = tensor.data
                if not save_weights:
                    tensor.data = torch.zeros(1, dtype=tensor.dtype).expand(tensor.shape)
        torch.jit.save(torch.jit.script(_Holder(self.programs)), path_to_save)
        for (tag, name), data in kept.items():
            dict(self.programs[tag].weights.named_parameters())[name].data = data

    @classmethod
    def load(cls, path_to_model, start_rank=None, local_ranks_size=None):
        if (start_rank is None) != (local_ranks_size is None):
            raise AssertionError("start_rank goes with local_ranks_size")
        script = neuron_runtime._jit_load(path_to_model)
        if not hasattr(script, "made_by_nxd"):
            raise ValueError("this was not saved by NxDModel.save")
        found = {name[len("tag_") :]: module for name, module in script.named_children()}
        return cls(1, found)


class _Holder(torch.nn.Module):
    def __init__(self, programs):
        super().__init__()
        self.register_buffer("made_by_nxd", torch.ones(1))
        for tag, program in programs.items():
            self.add_module(f"tag_{tag}", program)

    def forward(self) -> int:
        return 0
