"""Linear layers of a trace are multiplied by oneDNN where that is clearly faster, with the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from anyshape.backends import products
from anyshape.backends.products import choose_products, onednn_is_faster


class Layers(torch.nn.Module):
    """With and without bias, of two and three dimensions, one twice; and products that are no layers: by
    what was made of the input, and by a vector, as D-FINE has it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(12, 20)
        self.second = torch.nn.Linear(20, 20, bias=False)
        self.vector = torch.nn.Parameter(torch.randn(20))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.second(self.first(x).transpose(0, 1)))
        pooled = self.second(hidden.mean(0))
        summed = torch.nn.functional.linear(pooled, self.vector)
        return torch.nn.functional.linear(pooled, hidden[0]) + summed.unsqueeze(1)


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> Any:
    def say(answer: bool) -> None:
        monkeypatch.setattr(products, "onednn_is_faster", lambda: answer)

    return say


@pytest.fixture
def anew() -> Iterator[None]:
    """As in a process that has not measured yet, and so that none of the tests' answers stays."""
    onednn_is_faster.cache_clear()
    yield
    onednn_is_faster.cache_clear()


def traced(dtype: torch.dtype = torch.float32) -> tuple[Any, torch.Tensor]:
    x = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(1)).to(dtype)
    return torch.jit.trace(Layers().to(dtype).eval(), x), x  # type: ignore[no-untyped-call]


def by_onednn(program: Any) -> int:
    torch._C._jit_pass_inline(program.graph)
    return str(program.graph).count("mkldnn::_linear_pointwise")


def test_the_answers_stay(faster: Any) -> None:
    faster(True)
    program, x = traced()
    torch._C._jit_pass_inline(program.graph)  # as it is built
    with torch.inference_mode():
        wanted = Layers().eval()(x)
        choose_products([program])
        assert by_onednn(program) == 3
        for optimized in (False, True):
            with torch.jit.optimized_execution(optimized):  # type: ignore[attr-defined]
                torch.testing.assert_close(program(x), wanted, rtol=1e-5, atol=1e-6)
                torch.testing.assert_close(program(x[:1]), Layers().eval()(x[:1]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("answer", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_where_it_gains_nothing_nothing_changes(faster: Any, answer: bool, dtype: torch.dtype) -> None:
    faster(answer)
    program, _ = traced(dtype)
    torch._C._jit_pass_inline(program.graph)
    choose_products([program])
    assert by_onednn(program) == 0


def test_it_is_measured_once_in_a_process(anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    monkeypatch.setattr(
        products, "least_seconds", lambda call, rounds: [call(), measured.append(1), float(len(measured))][-1]
    )
    assert not onednn_is_faster()  # the second took twice as long as the first
    assert not onednn_is_faster()
    assert len(measured) == 2


def test_a_torch_without_that_product_keeps_its_own(anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert not onednn_is_faster()
