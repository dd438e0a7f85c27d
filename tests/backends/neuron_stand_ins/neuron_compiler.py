"""What the stand-ins for both compilers share: programs that hide the traced model, and what a compiler
refuses.

NEURON_STAND_IN_PROTOBUF     bytes of constants that a program may hold (default 2 GB, protobuf's limit)
NEURON_STAND_IN_UNSUPPORTED  operators that it does not know, besides those whose result's shape depends on
values
NEURON_STAND_IN_SECONDS      how long a compilation takes at least
"""

from __future__ import annotations

import contextlib
import io
import json
import linecache
import os
import time
import weakref
import zlib
from typing import List

import neuron_runtime
import torch

VALUE_SIZED = {"aten::nonzero", "aten::masked_select", "aten::unique", "aten::_unique2", "aten::multinomial"}
UNSUPPORTED = {"aten::sort", "aten::fft_fft"} | VALUE_SIZED
CPU_ONLY = ("prim::", "aten::Int", "aten::size", "aten::ScalarImplicit")


def checked_args(compiler_args, texts=False):
    """The compiler's arguments as a list of words. A single text is allowed where `texts` says so."""
    if compiler_args is None:
        return []
    if isinstance(compiler_args, str):
        if not texts:
            raise TypeError("compiler_args must be a list of str")
        return compiler_args.split()
    if not all(isinstance(argument, str) for argument in compiler_args):
        raise TypeError("compiler_args must be a list of str")
    return [word for argument in compiler_args for word in argument.split()]


def checked_inputs(example):
    example = (example,) if isinstance(example, torch.Tensor) else example
    if not isinstance(example, tuple) or any(t.device.type != "cpu" for t in example):
        raise ValueError("example inputs must be a tuple of CPU tensors")
    return example


@contextlib.contextmanager
def on_device(model):
    """While the SDK works on a model. It may leave the model on its own device, as XLA's tensors: nothing
    runs it there until it is moved back."""
    if not isinstance(model, torch.nn.Module):
        yield
        return
    if model.training:
        raise ValueError("the model is not in evaluation mode: call eval() first")
    _away.pop(id(model), None)
    try:
        yield
    finally:
        _away[id(model)] = weakref.ref(model)


_away = {}  # by id: the models that the SDK has
_to = getattr(torch.nn.Module.to, "plain", torch.nn.Module.to)


def _back(self, *args, **kwargs):
    _away.pop(id(self), None)
    return _to(self, *args, **kwargs)


def _refuse_away(module, inputs):
    if id(module) in _away and _away[id(module)]() is module:
        raise RuntimeError("bridge.cpp: the inputs are on the CPU, and the model's weights on XLA's device")


_back.plain = _to
torch.nn.Module.to = _back
torch.nn.modules.module.register_module_forward_pre_hook(_refuse_away)


def check_integers(graph):
    """64-bit integers are cast to 32 bits without a word: what they do not hold is refused here."""
    for node in graph.findAllNodes("prim::Constant", True):
        if node.hasAttribute("value") and node.kindOf("value") == "t":
            value = node.t("value")
            if value.dtype == torch.int64 and value.numel() and int(value.abs().max()) >= 2**31:
                raise ValueError(f"a constant of {int(value.abs().max())}: compilers cast int64 to int32")


def operators(model, example):
    """How often the model asks for each operator."""
    with torch.no_grad():
        graph = torch.jit.trace(model, example, check_trace=False, strict=False).inlined_graph
    check_integers(graph)
    counted = {}
    for node in graph.nodes():
        if not node.kind().startswith(CPU_ONLY):
            counted[node.kind()] = counted.get(node.kind(), 0) + 1
    return counted


def unsupported(counted):
    more = os.environ.get("NEURON_STAND_IN_UNSUPPORTED", "")
    return sorted(kind for kind in counted if kind in UNSUPPORTED | set(more.split(",")))


def check_size(model, inline):
    limit = int(os.environ.get("NEURON_STAND_IN_PROTOBUF", 2**31))
    size = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    if inline and size >= limit:
        raise ValueError(f"google.protobuf.message.DecodeError: {size} bytes of constants, at most {limit}")


class Weights(torch.nn.Module):
    def __init__(self, parameters):
        super().__init__()
        for name, tensor in parameters:
            self.register_parameter(name.replace(".", "->"), torch.nn.Parameter(tensor, requires_grad=False))


class Program(torch.nn.Module):
    """The traced model in a blob of bytes, run by one operator, beside it its weights where they are
    separated."""

    def __init__(self, model, example, inline):
        super().__init__()
        with torch.no_grad():
            inner = torch.jit.trace(model, example, check_trace=False, strict=False)
            self.single = isinstance(inner(*example), torch.Tensor)
        parameters = [(name, tensor.detach().clone()) for name, tensor in inner.named_parameters()]
        written = io.BytesIO()
        if not inline:
            for parameter in inner.parameters():
                parameter.data = torch.zeros_like(parameter)
        torch.jit.save(inner, written)
        if not inline:
            for (_, value), parameter in zip(parameters, inner.parameters()):
                parameter.data = value
        weight_bytes = sum(t.numel() * t.element_size() for _, t in parameters)
        spec = {
            "program": os.urandom(8).hex(),
            "bytes": weight_bytes if inline else 1000,
            "weights": not inline,
            "weight_bytes": weight_bytes,
            "shapes": [list(tensor.shape) for tensor in example],
            "dtypes": [str(tensor.dtype) for tensor in example],
        }
        self.written = json.dumps(spec)
        self.register_buffer("neff", as_bytes(zlib.compress(written.getvalue(), 1)))
        self.register_buffer("spec", as_bytes(self.written.encode()))
        self.register_buffer("state", torch.zeros(3, dtype=torch.int64))
        self.weights = Weights([] if inline else parameters)

    def forward(self, *tensors):
        weights = list(self.weights.parameters())
        outputs = torch.ops.neuron.forward_1(list(tensors), weights, self.neff, self.state, self.written)
        return outputs[0] if self.single else tuple(outputs)


class Function(torch.nn.Module):
    """What is traced may be a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


def as_bytes(data):
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).clone()


def compiled(model, example, inline=True, limited=True):
    """A program for exactly these inputs, as TorchScript, not loaded anywhere."""
    started = time.time()
    model = model if isinstance(model, torch.nn.Module) else Function(model)
    check_size(model, inline and limited)
    program = Program(model, example, inline)
    with torch.no_grad(), neuron_runtime.compiling():
        script = torch.jit.trace(program, example, check_trace=False, strict=False)
    while time.time() - started < float(os.environ.get("NEURON_STAND_IN_SECONDS", 0)):
        time.sleep(0.02)
    neuron_runtime.log("compile", os.getpid(), *[list(t.shape) for t in example])
    return script


def routed(kernel, scripts, outputs):
    """One TorchScript of several programs: the kernel pads the inputs and says which program takes them.

    An input that the kernel found no bucket for gives an empty list and no error, as with the SDK.
    """
    count = len(neuron_runtime.spec_of(scripts[0])["shapes"])
    names = [f"x{i}" for i in range(count)]
    lines = [f"def forward(self, {', '.join(f'{name}: torch.Tensor' for name in names)}):"]
    lines += [f"    padded, index = kernel([{', '.join(names)}])"]
    lines += ["    answer: List[torch.Tensor] = []", "    which = int(index)", "    if len(padded) == 0:"]
    lines += ["        return answer"]
    for i in range(len(scripts)):
        taken = ", ".join(f"padded[{k}]" for k in range(count))
        given = ", ".join(f"found_{i}[{k}]" for k in range(outputs)) if outputs else f"found_{i}"
        lines += [f"    if which == {i}:", f"        found_{i} = self.program_{i}({taken})"]
        lines += [f"        answer = [{given}]"]
    source = "\n".join([*lines, "    return answer", ""])
    name = f"<buckets {os.urandom(4).hex()}>"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    space = {"torch": torch, "List": List, "kernel": kernel}
    exec(compile(source, name, "exec"), space)
    outer = type("Buckets", (torch.nn.Module,), {"forward": space["forward"]})()
    for i, script in enumerate(scripts):
        outer.add_module(f"program_{i}", script)
    return torch.jit.script(outer)
