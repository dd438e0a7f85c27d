"""What AWS's documentation (SDK 2.31) says that its functions take, held against every call: a second pair of
eyes beside the stand-ins, which it lies in front of.

A name that the documentation does not have is refused, as are arguments that do not fit its signature or
types.
"""

from __future__ import annotations

import inspect
import os
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch

Script = torch.jit.ScriptModule
NEURONX = {
    "trace": "func, example_inputs, *_, input_output_aliases={}, compiler_workdir=None, compiler_args=None, "
    "partitioner_config=None, inline_weights_to_neff=True, cpu_backend=False",
    "analyze": "func, example_inputs, compiler_workdir=None, additional_ignored_ops=frozenset(), "
    "max_workers=4, is_hf_transformers=False, cleanup=False",
    "dynamic_batch": "neuron_script",
    "lazy_load": "trace, enable_lazy_load=True",
    "async_load": "trace, enable_async_load=True",
    "move_trace_to_device": "trace, device_id",
    "replace_weights": "neuron_model, weights",
    "set_neuron_cores": "trace, start_nc=-1, nc_count=-1",
    "neuron_cores_context": "start_nc=-1, nc_count=-1",
    "DataParallel": "model, device_ids=None, dim=0, set_dynamic_batching=True",
    "PartitionerConfig": "*, trace_kwargs=None, model_support_percentage_threshold=0.5, "
    "min_subgraph_size=-1, max_subgraph_count=-1, ops_to_partition=None, analyze_parameters=None",
    "BucketModelConfig": "bucket_kernel, *_, shared_state_buffer=None, "
    "shared_state_buffer_preprocessor=None, func_kwargs=None",
    "bucket_model_trace": "func, example_inputs, bucket_config, compiler_workdir=None, compiler_args=None",
}
NEURON = {
    "trace": "model, example_inputs, *, compiler_args=None, compiler_timeout=None, compiler_workdir=None, "
    "subgraph_builder_function=None, minimum_segment_size=2, single_fusion_ratio_threshold=0.6, "
    "fallback=True, dynamic_batch_size=False, optimizations=None, separate_weights=False, strict=True",
}
TORCH_NEURON = {  # these are torch.neuron's, as the documentation writes them
    "trace": NEURON["trace"],
    "analyze_model": "model, example_inputs",
    "DataParallel": "model, device_ids=None, dim=0",
}
EXPERIMENTAL = {key: NEURONX[key] for key in ("set_neuron_cores", "neuron_cores_context")}
DISTRIBUTED = {
    "NxDParallelState": "world_size, tensor_model_parallel_size",
    "ModelBuilder": "model",
    "NxDModel": "world_size, start_rank=None, local_ranks_size=None, state_initializer=None, "
    "layout_transformer=None",
}
WORDS = {  # of the compilers: which values each option takes
    "--auto-cast": {"none", "matmult", "all"},
    "--auto-cast-type": {"bf16", "fp16", "tf32", "fp8_e4m3"},
    "--model-type": {"generic", "transformer", "unet-inference"},
    "--target": {"inf2", "trn1", "trn1n", "trn2"},
    "--fast-math": {"all", "none", "fp32-cast-matmult", "fp32-cast-all"},
}


class Documented(types.ModuleType):
    """A module of the SDK, of which only documented names exist; calls go through after they were checked."""

    def __init__(self, real: Any, signatures: dict[str, str], calls: list[str], **more: Any) -> None:
        super().__init__(getattr(real, "__name__", "torch.neuron"))
        self.__dict__.update(more, _real=real, _signatures=signatures, _calls=calls)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__version__":
            raise AttributeError(name)
        if name == "__version__":
            return self._real.__version__
        if name not in self._signatures:
            raise AttributeError(f"{self.__name__}.{name} is not documented")
        real = getattr(self._real, name)
        scope: dict[str, Any] = {}
        exec(f"def documented({self._signatures[name]}): ...", scope)
        if name == "NxDModel":  # its class methods are what is called
            return real
        return _checked(name, real, inspect.signature(scope["documented"]), self._calls)


def _checked(name: str, real: Any, documented: inspect.Signature, calls: list[str]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        given = documented.bind(*args, **kwargs).arguments
        assert "_" not in given, "options are keyword-only"
        check = globals().get(f"_check_{name}")
        if check is not None:
            check(given)
        _check_common(given)
        calls.append(name)
        return real(*args, **kwargs)

    return call


def _check_common(given: dict[str, Any]) -> None:
    """What every function that takes one of these says of it."""
    workdir = given.get("compiler_workdir")
    assert workdir is None or isinstance(workdir, str)
    args = given.get("compiler_args")
    if args is not None:
        listed = args.split() if isinstance(args, str) else args
        assert all(isinstance(word, str) and word == word.strip() and " " not in word for word in listed)
        for option, value in zip(listed, listed[1:]):
            assert option not in WORDS or value in WORDS[option], (option, value)
    for key in ("trace", "neuron_script", "neuron_model"):
        assert key not in given or isinstance(given[key], Script), f"{key} is what trace gave"
    for key in ("start_nc", "nc_count", "device_id", "dim", "max_workers"):
        assert key not in given or type(given[key]) is int
    for key in (
        "inline_weights_to_neff",
        "cpu_backend",
        "fallback",
        "dynamic_batch_size",
        "separate_weights",
    ):
        assert key not in given or type(given[key]) is bool


def _check_inputs(inputs: Any) -> None:
    assert isinstance(inputs, (tuple, list))
    for tensor in inputs:
        assert isinstance(tensor, torch.Tensor)
        assert tensor.device.type == "cpu"
        assert tensor.is_contiguous()
        assert not tensor.requires_grad


def _check_trace(given: dict[str, Any]) -> None:
    model = given.get("func", given.get("model"))
    assert isinstance(model, torch.nn.Module)
    assert not model.training
    assert isinstance(given["example_inputs"], tuple)
    _check_inputs(given["example_inputs"])
    if "func" in given:
        args = given.get("compiler_args") or []
        listed = args.split() if isinstance(args, str) else args
        assert given.get("cpu_backend", False) == ("--target" in listed), "both or neither"
        if given.get("partitioner_config") is not None:
            assert not listed, "with a partitioner, these are its own"
            assert not given.get("cpu_backend", False)
            assert given.get("inline_weights_to_neff", True)


def _check_analyze(given: dict[str, Any]) -> None:
    assert isinstance(given["example_inputs"], tuple)
    _check_inputs(given["example_inputs"])


def _check_analyze_model(given: dict[str, Any]) -> None:
    assert isinstance(given["example_inputs"], list), "as the SDK's own example has it"
    _check_inputs(given["example_inputs"])


def _check_replace_weights(given: dict[str, Any]) -> None:
    assert isinstance(given["weights"], dict)
    assert all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in given["weights"].items())


def _check_DataParallel(given: dict[str, Any]) -> None:
    assert isinstance(given["model"], Script)
    assert all(type(core) is int or str(core).startswith("nc:") for core in given["device_ids"])


def _check_PartitionerConfig(given: dict[str, Any]) -> None:
    assert set(given["trace_kwargs"]) <= {"compiler_workdir", "compiler_args"}
    _check_common(given["trace_kwargs"])


def _check_BucketModelConfig(given: dict[str, Any]) -> None:
    pickle.dumps(given["bucket_kernel"])  # goes to the processes that trace
    kernel = given["bucket_kernel"]()
    assert isinstance(kernel, torch.jit.ScriptFunction)


def _check_bucket_model_trace(given: dict[str, Any]) -> None:
    assert isinstance(given["example_inputs"], list)
    for inputs in given["example_inputs"]:
        assert isinstance(inputs, tuple)
        _check_inputs(inputs)
    pickle.dumps(given["func"])


@pytest.fixture
def documented(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stand-ins behind the documentation, on a machine with two cores; gives the names called."""
    stand_ins = os.path.join(os.path.dirname(__file__), "neuron_stand_ins")
    monkeypatch.syspath_prepend(stand_ins)
    for key, value in {"LOCKS": tmp_path, "CORES": 2, "LOG": tmp_path / "log"}.items():
        monkeypatch.setenv(f"NEURON_STAND_IN_{key}", str(value))
    monkeypatch.setenv("NEURON_RT_NUM_CORES", "2")
    monkeypatch.setenv("ANYSHAPE_CACHE", str(tmp_path / "cache"))
    import neuronx_distributed
    import torch_neuron
    import torch_neuronx

    calls: list[str] = []
    experimental = Documented(torch_neuron.experimental, EXPERIMENTAL, calls)
    neuron = Documented(torch_neuron, NEURON, calls, experimental=experimental)
    monkeypatch.setitem(sys.modules, "torch_neuron", neuron)
    again = Documented(torch.neuron, TORCH_NEURON, calls)  # type: ignore[attr-defined]
    monkeypatch.setattr(torch, "neuron", again)
    monkeypatch.setitem(sys.modules, "torch_neuronx", Documented(torch_neuronx, NEURONX, calls))
    monkeypatch.setitem(
        sys.modules, "neuronx_distributed", Documented(neuronx_distributed, DISTRIBUTED, calls)
    )
    return calls
