"""Weights in the pages of their file: the same bits, and one copy for all processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anyshape.backends.mapped import map_weights


class Tied(torch.nn.Module):
    """Two layers with one weight, a third with weights of the same size, and one too small for pages."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = torch.nn.Linear(256, 256), torch.nn.Linear(256, 256)
        self.other, self.small = torch.nn.Linear(256, 256), torch.nn.Linear(256, 3)
        self.again.weight = self.first.weight

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.small(self.other(self.again(self.first(values).relu())))  # type: ignore[no-any-return]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    file = tmp_path / "model.pt"
    traced = torch.jit.trace(Tied().eval(), torch.ones(1, 256))  # type: ignore[no-untyped-call]
    torch.jit.save(traced, str(file))
    return file


def spans(file: Path) -> list[range]:
    """The addresses at which this process has the file."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    bounds = [line.split()[0].split("-") for line in lines if line.endswith(str(file))]
    return [range(int(start, 16), int(end, 16)) for start, end in bounds]


def test_weights_lie_in_the_file_and_compute_the_same(saved: Path) -> None:
    plain, shared = (torch.jit.load(str(saved)) for _ in range(2))  # type: ignore[no-untyped-call]
    values = torch.randn(5, 256)
    with torch.no_grad():
        expected = plain(values)
        assert map_weights(shared, saved) == 2 * 256 * 256 * 4
        assert torch.equal(shared(values), expected)
    weights = dict(shared.named_parameters())
    inside = {name for name, w in weights.items() if any(w.data_ptr() in span for span in spans(saved))}
    assert inside == {name for name in weights if name.endswith("weight") and "small" not in name}
    assert shared.first.weight.data_ptr() == shared.again.weight.data_ptr()


def test_a_file_that_is_removed_meanwhile_is_still_read(saved: Path) -> None:
    model = torch.jit.load(str(saved))  # type: ignore[no-untyped-call]
    values = torch.randn(5, 256)
    with torch.no_grad():
        expected = model(values)
        map_weights(model, saved)
        saved.unlink()
        assert torch.equal(model(values), expected)


def test_weights_that_are_not_in_the_file_stay_where_they_are(saved: Path) -> None:
    other = Tied()
    before = {name: weight.data_ptr() for name, weight in other.named_parameters()}
    with torch.no_grad():
        other.first.weight.mul_(2)
        other.other.weight.mul_(2)
    assert map_weights(other, saved) == 0
    assert {name: weight.data_ptr() for name, weight in other.named_parameters()} == before
