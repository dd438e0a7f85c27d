"""ExactPadding as a whole: its outputs, what it refuses, and the compilers that record it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyshape.building.exact import ExactPadding, UnknownOperation
from tests.building.models_for_exact import Call, around, largest_deviation, padded, pictures, seeded

BUCKET = (24, 20)
SIZES = [(24, 20), (13, 18), (7, 5)]


NEEDS_EXPORT = pytest.mark.skipif(not hasattr(torch, "export"), reason="this torch has no torch.export")


class Small(nn.Module):
    """Strided convolutions written in place, a pool that reads over the edge, a skip, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6())
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.head = nn.Conv2d(8, 2, 3, padding=1)
        self.classes = nn.Linear(8, 5)

    def forward(self, pixel_values: Tensor) -> Dict[str, Tensor]:
        x = self.stem(pixel_values)
        x = self.pool(x)
        x = x + self.body(x)
        return {"logits": self.classes(x.mean((2, 3))), "map": self.head(self.up(x))}


@pytest.fixture
def model() -> nn.Module:
    return seeded(Small)


def test_outputs_then_their_valid_sizes(model: nn.Module) -> None:
    exact = ExactPadding(model)
    with torch.no_grad():
        logits, image, size = exact(*padded(pictures(SIZES), BUCKET))
    assert exact.spatial == ((), (2, 3))
    assert logits.shape == (3, 5)
    assert size.dtype == torch.int64
    assert size.tolist() == [[26, 22], [14, 20], [8, 6]]
    assert image.shape == (3, 2, 26, 22)


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_same_answer_in_every_mode_and_arguments_are_left_alone(
    model: nn.Module, context: Callable[[], Any], in_place: bool
) -> None:
    exact = ExactPadding(model)
    exact.in_place = in_place
    batch, valid = padded(pictures(SIZES), BUCKET, garbage=7.0)
    before = batch.clone()
    with context():
        answers = exact(batch, valid)
    assert torch.equal(batch, before)

    def answered(*_: Tensor) -> Tuple[Tensor, ...]:
        return tuple(answer.detach() for answer in answers)

    error, plain = largest_deviation(model, SIZES, BUCKET, run=answered, exact=exact)
    assert error < 1e-5
    assert plain > 1e-2


def test_trace_takes_other_sizes_and_other_batch_sizes(model: nn.Module, tmp_path: Path) -> None:
    exact = ExactPadding(model)
    example = torch.zeros(2, 3, *BUCKET), torch.tensor([BUCKET, BUCKET])
    with torch.no_grad():
        torch.jit.trace(exact, example).save(str(tmp_path / "model.pt"))
    loaded = torch.jit.load(str(tmp_path / "model.pt"))
    for sizes in (SIZES, [(5, 9)], [(20, 3)] * 5):
        error, _ = largest_deviation(model, sizes, BUCKET, run=loaded, exact=exact)
        assert error < 1e-5


@NEEDS_EXPORT
def test_export_takes_other_sizes_and_other_batch_sizes(model: nn.Module) -> None:
    exact = ExactPadding(model)
    rows = torch.export.Dim("rows", min=1, max=8)
    example = torch.zeros(2, 3, *BUCKET), torch.tensor([BUCKET, BUCKET])
    with torch.no_grad():
        program = torch.export.export(
            exact, example, dynamic_shapes=({0: rows}, {0: rows}), strict=False
        ).module()
    for sizes in (SIZES, [(5, 9)], [(20, 3)] * 5):
        error, _ = largest_deviation(model, sizes, BUCKET, run=program, exact=exact)
        assert error < 1e-5


@NEEDS_EXPORT
def test_export_clears_no_more_than_windows_see() -> None:
    model = seeded(lambda: nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))))
    example = torch.zeros(2, 8, *BUCKET), torch.tensor([BUCKET, BUCKET])
    with torch.no_grad():
        program = torch.export.export(ExactPadding(model), example, strict=False)
    cleared = [node.meta["val"].shape for node in program.graph.nodes if "where" in str(node.target)]
    # The picture itself is copied and cleared whole; the maps are written to, rows then columns.
    assert cleared == [(2, 8, *BUCKET)] + 2 * [(2, 1, 8, BUCKET[1]), (2, 1, 8, BUCKET[0])]


@pytest.mark.slow
@NEEDS_EXPORT
@pytest.mark.filterwarnings("ignore")  # what the compiler warns of is not ours
def test_compiled_ahead_of_time(model: nn.Module, tmp_path: Path) -> None:
    exact = ExactPadding(model)
    rows = torch.export.Dim("rows", min=1, max=8)
    example = torch.zeros(2, 3, *BUCKET), torch.tensor([BUCKET, BUCKET])
    with torch.no_grad():
        program = torch.export.export(exact, example, dynamic_shapes=({0: rows}, {0: rows}), strict=False)
        package = torch._inductor.aoti_compile_and_package(
            program,
            package_path=str(tmp_path / "model.pt2"),
            inductor_configs={"freezing": True},
        )
    compiled = torch._inductor.aoti_load_package(package)
    for sizes in (SIZES, [(5, 9)], [(20, 3)] * 5):
        error, _ = largest_deviation(model, sizes, BUCKET, run=compiled, exact=exact)
        assert error < 1e-5


REFUSED: List[Tuple[str, Callable[[Tensor], Tensor], str]] = [
    (
        "flatten",
        lambda x: x + x.transpose(1, 2).flatten(1).sum(1)[:, None, None, None],
        "flatten (space is flattened)",
    ),
    ("flip", lambda x: x.flip(0), "flip (over the batch, or a flattened picture)"),
    ("roll", lambda x: torch.roll(x.flatten(2), 1, 2), "roll (over the batch, or a flattened picture)"),
    (
        "antialiased",
        lambda x: F.interpolate(x, scale_factor=0.5, mode="area"),
        "interpolate (mode area)",
    ),
    ("batch mean", lambda x: x - x.mean(), "mean (it mixes the rows of the batch)"),
    (
        "last column",
        lambda x: x * x[..., -3:-1].mean(3, True),
        "getitem (a slice starts from the end of the image)",
    ),
    ("sorted", lambda x: x.sort(2)[0], "sort"),
    ("cumulative", lambda x: x.flatten(2).cumprod(2), "cumprod (over a flattened picture)"),
    (
        "side by side with channels",
        lambda x: x.transpose(1, 2) @ torch.ones(8, 20)[None] @ x.transpose(1, 2).transpose(2, 3),
        "matmul (positions are combined with a tensor whose valid ones are not known)",
    ),
    (
        "sides change places",
        lambda x: x[:, :, :20].reshape(*x.shape[:2], x.shape[3], 20) + x[:, :, :20],
        "reshape (heights and widths change places)",
    ),
    ("side by side", lambda x: torch.cat([x, x], 3), "cat (images are joined side by side)"),
    ("number", lambda x: x / x.max().item(), "max (it mixes the rows of the batch)"),
    ("into a tensor", lambda x: torch.add(x, 1, out=torch.empty(1, 8, 24, 20)), "add (out= is not followed)"),
]


@pytest.mark.parametrize(("function", "named"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_unknown_operation_is_named(function: Callable[[Tensor], Tensor], named: str) -> None:
    with torch.no_grad(), pytest.raises(UnknownOperation) as caught:
        ExactPadding(around(Call(function)))(*padded(pictures([(9, 11)]), BUCKET))
    assert named in caught.value.operations


@torch.jit.script
def scripted(x: Tensor) -> Tensor:
    return x * x.sigmoid()


@torch.jit.script
def scripted_branch(x: Tensor) -> Tensor:
    if bool((x > 0).all()):
        return x
    return x * 2.0


def branch(x: Tensor) -> Tensor:
    return x * 2 if bool((x.mean((2, 3)) > 1).all()) else x


def written_then_asked(x: Tensor) -> Tensor:
    pooled = torch.zeros(x.shape[0], 8)
    pooled[:] = x.mean((2, 3))
    return x * 2 if pooled.sum() > 0 else x


def pooled(x: Tensor) -> Tensor:
    """What has no padding any more still depends on the picture."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


READ: List[Tuple[str, Callable[[Tensor], Any], str]] = [
    ("branch", branch, "bool()"),
    ("comparison", lambda x: x * 2 if pooled(x).max() > 1 else x, "bool()"),
    ("larger of two", lambda x: x * max(pooled(x).max(), pooled(x).mean()), "bool()"),
    ("item", lambda x: x * pooled(x).max().item(), "item()"),
    ("int", lambda x: x * int(pooled(x).max()), "int()"),
    ("float", lambda x: x / float(pooled(x).abs().max()), "float()"),
    ("list", lambda x: x * pooled(x).tolist()[0][0], "tolist()"),
    ("numpy", lambda x: x * float(pooled(x).numpy().max()), "numpy()"),
    ("asarray", lambda x: x * float(np.asarray(pooled(x)).max()), "numpy()"),
    ("equal", lambda x: x if torch.equal(pooled(x), pooled(x)) else -x, "equal()"),
    ("contained", lambda x: x if 0.5 in pooled(x) else -x, "in"),
    ("index", lambda x: x * list(range(9))[pooled(x).argmax(1).max()], "int()"),
    ("written", written_then_asked, "bool()"),
    ("scores of each pixel", lambda x: x * 2 if (x > 0)[:, 0].amax((1, 2)).all() else x, "bool()"),
]


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(("function", "named"), [r[1:] for r in READ], ids=[r[0] for r in READ])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_value_that_is_read_in_python_is_named(
    function: Callable[[Tensor], Tensor], named: str, traced: bool
) -> None:
    exact = ExactPadding(around(Call(function)))
    example = padded(pictures([(9, 11)]), BUCKET)
    with torch.no_grad(), pytest.raises(UnknownOperation) as caught:
        torch.jit.trace(exact, example, check_trace=False) if traced else exact(*example)
    assert [name.split(" (it reads a value")[0] for name in caught.value.operations] == [named]


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (scripted_branch, "scripted (scripted_branch: aten::Bool inside scripted code is not followed)"),
        (
            torch.jit.script(nn.Conv2d(8, 8, 3)),
            "convolution (inside scripted code, where it is not followed)",
        ),
        (lambda x: x * scripted_branch(pooled(x))[..., None, None], "item() (it reads"),
        (lambda x: x[:, : pooled(x).argmax(1).max() + 1].sum(1, keepdim=True), "item() (it reads"),
    ],
    ids=["branch", "module", "branch of a pooled one", "slice"],
)
def test_what_hides_from_tracing_is_named(function: Callable[[Tensor], Tensor], named: str) -> None:
    with torch.no_grad(), pytest.raises(UnknownOperation) as caught:
        ExactPadding(around(Call(function)))(*padded(pictures([(9, 11)]), BUCKET))
    assert any(name.startswith(named) for name in caught.value.operations), caught.value.operations


class Gated(nn.Module):
    """Reads of its own weights and of sizes, conversions by a feature's dtype, and scripted gates."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale.to(x).type_as(x)
        if float(self.scale) > 1 or x.shape[1] != 8 or bool(torch.zeros_like(pooled(x)).any()):
            raise RuntimeError("never so")
        return x * scripted(pooled(x))[..., None, None] * scale * x.bool().float()


def test_reads_of_what_does_not_depend_on_the_picture_are_left_alone() -> None:
    model = around(Gated())
    for _ in range(2):
        error, plain = largest_deviation(model, SIZES, BUCKET)
        assert error < 2e-5
        assert plain > 1e-2


def test_position_table_of_the_bucket_is_refused() -> None:
    table = torch.randn(8, *BUCKET)
    with torch.no_grad(), pytest.raises(UnknownOperation, match="add"):
        ExactPadding(around(Call(lambda x: x + table)))(*padded(pictures([(9, 11)]), BUCKET))


def test_all_unknown_operations_are_named_in_one_pass() -> None:
    model = around(Call(lambda x: torch.roll(x.flip(0), 1, 0)))
    refined = nn.Sequential(model, Call(lambda x: x.sort(2)[0]))
    with torch.no_grad(), pytest.raises(UnknownOperation) as caught:
        ExactPadding(refined)(*padded(pictures([(9, 11)]), BUCKET))
    assert [name.split()[0] for name in caught.value.operations] == ["flip", "roll", "sort"]


def test_unknown_operation_is_named_even_if_the_model_then_fails() -> None:
    def fails(x: Tensor) -> Tensor:
        x.flip(0)
        raise RuntimeError("shapes do not fit")

    with torch.no_grad(), pytest.raises(UnknownOperation, match="flip"):
        ExactPadding(around(Call(fails)))(*padded(pictures([(9, 11)]), BUCKET))


def test_training_mode_is_refused(model: nn.Module) -> None:
    with pytest.raises(UnknownOperation, match=r"call model.eval\(\)"):
        ExactPadding(model.train())(*padded(pictures(SIZES), BUCKET))


def test_sizes_that_the_unpadded_model_refuses_are_known() -> None:
    model = around(
        Call(lambda x: torch.cat([x, F.interpolate(F.max_pool2d(x, 2), scale_factor=2)], 1)), after=16
    )
    exact = ExactPadding(model)
    with torch.no_grad():
        exact(*padded(pictures([(8, 8)]), BUCKET))
    assert exact.heights == tuple(range(2, 25, 2))
    assert exact.widths == tuple(range(2, 21, 2))


def test_a_side_without_padding_is_whole() -> None:
    exact = ExactPadding(seeded(lambda: nn.Sequential(Small().stem, nn.AvgPool2d((1, 20)))))
    with torch.no_grad():
        output, size = exact(*padded(pictures([(13, 20)]), BUCKET))
    assert output.shape == (1, 8, 24, 1)
    assert exact.spatial == ((2, 0),)
    assert size.tolist() == [[13, -1]]
