"""Attention as products, against torch's own on the same numbers, and in float64."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import pytest
import torch

from anyshape.building.backends import attention, inductor
from anyshape.building.backends.attention import ATTENTION, OPTIONS, split_attention
from anyshape.building.backends.inductor import InductorCompiler

HEADS, WIDTH = 4, 8
MASKS = {
    "none": lambda rows, length: None,
    "bool": lambda rows, length: _ends(rows, length),
    "minus infinity": lambda rows, length: torch.zeros(rows, 1, 1, length).masked_fill(
        ~_ends(rows, length), -torch.inf
    ),
    "lowest": lambda rows, length: torch.zeros(rows, 1, 1, length).masked_fill(
        ~_ends(rows, length), torch.finfo(torch.float32).min
    ),
    "of each head": lambda rows, length: torch.randn(rows, HEADS, length, length),
}


def _ends(rows: int, length: int) -> torch.Tensor:
    """True over a row's own positions: each row is shorter than the one before."""
    sizes = torch.tensor([max(1, length - 2 * i) for i in range(rows)])
    return (torch.arange(length) < sizes[:, None])[:, None, None, :]


def as_kind(mask: Any, kind: torch.dtype) -> Any:
    """A mask of numbers in that dtype; one of bools, or none, as it is."""
    return mask if mask is None or mask.dtype is torch.bool else mask.to(kind)


class Twice(torch.nn.Module):
    """Two layers with one mask."""

    def __init__(self, **given: Any) -> None:
        super().__init__()
        self.given = given

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        attend = torch.nn.functional.scaled_dot_product_attention
        once = attend(q, k, v, mask, **self.given)
        return attend(once, k, v, mask, **self.given)


def tensors(kind: torch.dtype, rows: int = 3, length: int = 11) -> list[torch.Tensor]:
    torch.manual_seed(length)
    return [torch.randn(rows, length, HEADS, WIDTH).transpose(1, 2).to(kind) for _ in range(3)]


def exported(model: torch.nn.Module, example: tuple[Any, ...]) -> Any:
    rows, length = torch.export.Dim("rows", min=1), torch.export.Dim("length", min=1, max=64)
    masked = example[3:] and example[3] is not None
    shapes: list[Any] = [{0: rows, 2: length}] * 3
    if masked:
        sides = {i: length for i in (2, 3) if example[3].shape[i] > 1}
        shapes.append({0: rows, **sides})
    given = example if masked else example[:3]
    return torch.export.export(model, given, dynamic_shapes=tuple(shapes)).module(check_guards=False)


def attentions(module: Any) -> int:
    return sum(node.target is ATTENTION for node in module.graph.nodes)


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_products_are_faster", lambda *_: True)


@pytest.mark.usefixtures("faster")
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("given", [{}, {"scale": 0.5}])
def test_products_are_what_attention_is(kind: torch.dtype, mask: str, given: dict[str, float]) -> None:
    made = MASKS[mask](3, 11)
    module = exported(Twice(**given), (*tensors(kind), as_kind(made, kind)))
    assert attentions(module) == 2
    assert split_attention(module, kind)
    assert attentions(module) == 0
    for rows, length in [(3, 11), (1, 1), (2, 40)]:
        inputs = tensors(kind, rows, length)
        made = MASKS[mask](rows, length)
        found = module(*inputs, *([] if made is None else [as_kind(made, kind)]))
        assert found.dtype is kind
        wide = [each.double() for each in inputs]
        wanted = Twice(**given)(*wide, as_kind(made, torch.float64))
        assert torch.isfinite(found).all()
        assert (found.double() - wanted).abs().max() < 0.03
        assert torch.cosine_similarity(found.double().flatten(), wanted.flatten(), 0) > 0.9999


@pytest.mark.usefixtures("faster")
@pytest.mark.parametrize("mask", ["bool", "minus infinity", "lowest"])
def test_what_is_masked_counts_for_nothing(mask: str) -> None:
    made = as_kind(MASKS[mask](3, 11), torch.bfloat16)
    module = exported(Twice(), (*tensors(torch.bfloat16), made))
    assert split_attention(module, torch.bfloat16)
    q, k, v = tensors(torch.bfloat16)
    before = module(q, k, v, made)
    k[1, :, 9:], v[1, :, 9:] = 1e4, -1e4
    assert torch.equal(module(q, k, v, made), before)


@pytest.mark.usefixtures("faster")
@pytest.mark.parametrize("mask", ["bool", "minus infinity"])
def test_a_row_that_sees_nothing_is_finite(mask: str) -> None:
    """As padding does not see anything: it must not become NaN, which nothing masks in the next layer."""
    made = torch.zeros(3, 1, 1, 11, dtype=torch.bool)
    if mask != "bool":
        made = torch.zeros(3, 1, 1, 11).masked_fill(~made, -torch.inf).to(torch.bfloat16)
    module = exported(Twice(), (*tensors(torch.bfloat16), made))
    assert split_attention(module, torch.bfloat16)
    assert torch.isfinite(module(*tensors(torch.bfloat16), made)).all()


@pytest.mark.usefixtures("faster")
@pytest.mark.parametrize("given", [{"is_causal": True}, {"dropout_p": 0.1}, {"enable_gqa": True}])
def test_what_is_not_known_is_left(given: dict[str, Any]) -> None:
    module = exported(Twice(**given), tuple(tensors(torch.bfloat16)))
    assert not split_attention(module, torch.bfloat16)
    assert attentions(module) == 2


@pytest.mark.usefixtures("faster")
@pytest.mark.parametrize("asked", [torch.bfloat16, torch.float32])
def test_what_the_model_wants_otherwise_is_left(asked: torch.dtype) -> None:
    other = torch.float32 if asked is torch.bfloat16 else torch.bfloat16
    module = exported(Twice(), tuple(tensors(other)))
    assert not split_attention(module, asked)
    assert attentions(module) == 2


def test_scores_that_fill_the_memory_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(call: object, rounds: int) -> float:
        raise AssertionError("nothing is measured")

    monkeypatch.setattr(attention, "least_seconds", timed)
    many = (1, 12, 8192, 64)
    assert not attention._products_are_faster(many, many, many, torch.bfloat16)


@pytest.mark.parametrize(
    ("kernel", "products", "split"), [(1.0, 0.5, True), (1.0, 0.95, False), (1.0, 2.0, False)]
)
def test_the_faster_way_is_taken(
    monkeypatch: pytest.MonkeyPatch, kernel: float, products: float, split: bool
) -> None:
    measured: list[torch.Tensor] = []

    def timed(call: Any, rounds: int) -> float:
        measured.append(call())
        return products if len(measured) == 1 else kernel

    monkeypatch.setattr(attention, "least_seconds", timed)
    module = exported(Twice(), tuple(tensors(torch.bfloat16)))
    assert split_attention(module, torch.bfloat16) is split
    assert attentions(module) == (0 if split else 2)
    assert [tuple(each.shape) for each in measured] == [(3, HEADS, 11, WIDTH)] * 2  # one case, measured once


@pytest.mark.usefixtures("faster")
def test_a_library_that_is_compiled_again_keeps_what_inductor_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a bucket's weights are packed for it alone, its program is compiled a second time, with them."""
    told: list[tuple[bool, dict[str, Any]]] = []

    def compiled(_: Any, program: Any, example: Any, options: dict[str, Any], carry: bool) -> Any:
        told.append((carry, options))
        return Path("library.so"), {"packed": torch.full((4, 4), float(len(told))).to_mkldnn()}

    monkeypatch.setattr(InductorCompiler, "_build", compiled)
    monkeypatch.setattr(inductor, "require_compiler", lambda: None)
    backend: Any = SimpleNamespace(settings={}, dynamic_shapes=False)
    compiler = InductorCompiler(backend)
    compiler.serving = SimpleNamespace(dtype="bfloat16")  # type: ignore[assignment]
    for _ in range(2):
        compiler.compile(Twice(), tuple(tensors(torch.bfloat16)), (11,))
    assert told == [(True, OPTIONS), (False, OPTIONS), (True, OPTIONS)]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.usefixtures("faster")
@pytest.mark.slow
def test_a_compiled_program_computes_the_same(tmp_path: Path) -> None:
    example = (*tensors(torch.bfloat16), MASKS["bool"](3, 11))
    module = exported(Twice(), example)
    assert split_attention(module, torch.bfloat16)
    options = {**OPTIONS, "aot_inductor.output_path": str(tmp_path / "library.so")}
    with torch.no_grad():
        library: Any = torch._inductor.aot_compile(module, example, options=options)
    run = torch._export.aot_load(library, "cpu")
    for rows, length in [(3, 11), (1, 1), (2, 40)]:
        inputs, mask = tensors(torch.bfloat16, rows, length), MASKS["bool"](rows, length)
        wanted = Twice()(*(each.double() for each in inputs), mask)
        assert (run(*inputs, mask).double() - wanted).abs().max() < 0.03
