"""The stand-ins refuse what AWS's documentation says that the SDK refuses: a test against lax ones proves
nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

STAND_INS = Path(__file__).parent / "neuron_stand_ins"
INPUT, LARGE = (torch.ones(2, 4),), torch.tensor([2**40])


@pytest.fixture(scope="module", autouse=True)
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STAND_INS))
        patch.setenv("NEURON_STAND_IN_LOCKS", str(tmp_path_factory.mktemp("cores")))
        patch.setenv("NEURON_STAND_IN_CORES", "2")
        patch.setenv("NEURON_RT_NUM_CORES", "2")
        yield


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 3)).eval()


@pytest.fixture
def sdk() -> Any:
    import torch_neuronx

    return torch_neuronx


X_TRACES: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "cpu_backend without --target": (lambda x, m: x.trace(m, INPUT, cpu_backend=True), "please supply"),
    "--target without cpu_backend": (
        lambda x, m: x.trace(m, INPUT, compiler_args=["--target", "inf2"]),
        "without cpu_backend",
    ),
    "no such target": (
        lambda x, m: x.trace(m, INPUT, compiler_args="--target inf1", cpu_backend=True),
        "invalid choice",
    ),
    "options by place": (lambda x, m: x.trace(m, INPUT, {}), "keyword-only"),
    "an option of Inf1": (lambda x, m: x.trace(m, INPUT, dynamic_batch_size=True), "unexpected keyword"),
    "an argument of Inf1's compiler": (
        lambda x, m: x.trace(m, INPUT, compiler_args=["--fast-math", "none"]),
        "unrecognized arguments",
    ),
    "a list of inputs": (lambda x, m: x.trace(m, list(INPUT)), "tuple of CPU tensors"),
    "a model that trains": (lambda x, m: x.trace(m.train(), INPUT), "evaluation mode"),
    "integers of more than 32 bits": (
        lambda x, m: x.trace(lambda a: a + LARGE, INPUT),
        "a constant of 1099511627776",
    ),
    "an unknown operator": (lambda x, m: x.trace(torch.sort, INPUT), "aten::sort"),
    "a partitioner that is none": (
        lambda x, m: x.trace(m, INPUT, partitioner_config={}),
        "PartitionerConfig",
    ),
    "dynamic batches of separated weights": (
        lambda x, m: x.dynamic_batch(x.trace(m, INPUT, inline_weights_to_neff=False)),
        "separated weights",
    ),
    "dynamic batches of unequal inputs": (
        lambda x, m: x.dynamic_batch(x.trace(lambda a, b: a @ b, (torch.ones(2, 3), torch.ones(3, 2)))),
        "dimension 0 differs",
    ),
    "moving weights that are inside": (lambda x, m: x.move_trace_to_device(x.trace(m, INPUT), 0), "inside"),
    "moving to a core that is not there": (
        lambda x, m: x.move_trace_to_device(x.trace(m, INPUT, inline_weights_to_neff=False), 2),
        "no core 2",
    ),
    "placing beyond the cores": (lambda x, m: x.neuron_cores_context(1, 2).__enter__(), "no number of"),
    "the experimental names": (lambda x, m: x.experimental, "has no attribute 'experimental'"),
    "a kernel that is no TorchScript": (lambda x, m: x.BucketModelConfig(lambda: len), "TorchScript"),
    "a kernel's options by place": (lambda x, m: x.BucketModelConfig(lambda: None, None), "keyword-only"),
    "a bucket model of a lambda": (
        lambda x, m: x.bucket_model_trace(
            lambda: (m, {}), [INPUT], x.BucketModelConfig(lambda: torch.jit.script(_kernel))
        ),
        "pickle",
    ),
    "lazily loading what was not compiled": (
        lambda x, m: x.lazy_load(torch.jit.trace(m, INPUT)),
        "no program",
    ),
    "parallel parts of another size": (
        lambda x, m: x.DataParallel(x.trace(m, INPUT), [0, 1], 0, False)(torch.ones(2, 4)),
        "compiled for 2 each",
    ),
}


def _kernel(tensors: list[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor]:
    return tensors, torch.tensor([0])


@pytest.mark.parametrize("wrong", X_TRACES)
def test_torch_neuronx_refuses(wrong: str, sdk: Any, model: torch.nn.Module) -> None:
    do, match = X_TRACES[wrong]
    with pytest.raises(Exception, match=match):
        do(sdk, model)


TRACES: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "a target": (lambda n, m: n.trace(m, INPUT, compiler_args=["--target", "inf2"]), "unrecognized"),
    "arguments as one text": (
        lambda n, m: n.trace(m, INPUT, compiler_args="--verbose INFO"),
        "a list of str",
    ),
    "an option of Inf2": (lambda n, m: n.trace(m, INPUT, cpu_backend=True), "unexpected keyword"),
    "an unknown operator, no fallback": (
        lambda n, m: n.trace(torch.sort, INPUT, fallback=False),
        "aten::sort",
    ),
    "placement outside of experimental": (lambda n, m: n.set_neuron_cores(None), "has no attribute"),
}


@pytest.mark.parametrize("wrong", TRACES)
def test_torch_neuron_refuses(wrong: str, model: torch.nn.Module) -> None:
    import torch_neuron

    do, match = TRACES[wrong]
    with pytest.raises(Exception, match=match):
        do(torch_neuron, model)


def test_oversize_programs_are_refused(sdk: Any, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURON_STAND_IN_PROTOBUF", "100")
    with pytest.raises(ValueError, match="bytes of constants, at most 100"):
        sdk.trace(model, INPUT)
    sdk.trace(model, INPUT, inline_weights_to_neff=False)


def test_calls_are_as_strict_as_a_device(sdk: Any, model: torch.nn.Module) -> None:
    expected = model(*INPUT)
    program = sdk.trace(model, INPUT)
    assert torch.equal(program(*INPUT), expected), "one tensor where the model gives one"
    for wrong, match in (
        (torch.ones(3, 4), "compiled for"),
        (torch.ones(2, 4, dtype=torch.float64), "compiled for"),
        (torch.ones(4, 2).t(), "not contiguous"),
        (torch.full((2, 4), float("nan")), "numerical error"),
    ):
        with pytest.raises(RuntimeError, match=match):
            program(wrong)


def test_a_traced_model_is_left_on_the_device(sdk: Any, model: torch.nn.Module) -> None:
    expected = model(*INPUT)
    sdk.trace(model, INPUT)
    with pytest.raises(RuntimeError, match="on XLA's device"):
        model(*INPUT)
    assert torch.equal(model.to("cpu")(*INPUT), expected)


def test_separated_weights_that_were_not_moved_are_told(sdk: Any, model: torch.nn.Module) -> None:
    program = sdk.trace(model, INPUT, inline_weights_to_neff=False)
    with pytest.warns(UserWarning, match="every call moves them"):
        program(*INPUT)
    sdk.move_trace_to_device(program, 0)
    with pytest.raises(RuntimeError, match="on the device already"):
        sdk.replace_weights(program, model)


def test_without_a_device_the_platform_is_named_before_the_import(tmp_path: Path) -> None:
    code = (
        "import torch, torch_neuronx\nmodel = torch.nn.Linear(4, 3)\n"
        "torch_neuronx.trace(model, torch.ones(2, 4), compiler_args=['--target', 'inf2'], cpu_backend=True)\n"
    )
    env = {"PYTHONPATH": str(STAND_INS), "NEURON_STAND_IN_CORES": "0", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert "set NEURON_PLATFORM_TARGET_OVERRIDE before the import" in done.stderr
