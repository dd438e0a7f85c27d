"""Costs that were kept when an archive was built, and when they are not used."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from anyshape import archive, machine, measure
from anyshape.buckets import Shape
from anyshape.costs import CostRow
from anyshape.kept import read_costs
from anyshape.machine import conditions, cpu_model
from anyshape.model import BucketedModel
from anyshape.packing import Call

CHANGED = {
    "torch": "1.0",
    "cpu": "another",
    "cpu_flags": "0",
    "cores": "999",
    "threads": "99",
    "python": "2.7",
}


@pytest.fixture
def model(embedding_archive_folder: Path) -> BucketedModel:
    """Not warm; with a table by volume that was kept under the conditions of this process."""
    found = BucketedModel.load(embedding_archive_folder, warm=False)
    found.index.costs = [
        CostRow(bucket=bucket, batch_size=rows, seconds=1e-3 * bucket[0] * rows)
        for bucket, rows in found.index.shapes
    ]
    found.index.measured_on = conditions(found.programs.backend.versions())
    return found


class Clock:
    """What calls take, in place of the machine: the kept seconds times `factor`, times `odd` for some."""

    def __init__(
        self, model: BucketedModel, patch: pytest.MonkeyPatch, factor: float = 1, odd: float = 1
    ) -> None:
        self.kept = {(row.bucket, row.batch_size): row.seconds for row in model.index.costs}
        self.called: Counter[Shape] = Counter()
        self.factor, self.odd = factor, odd
        patch.setattr(measure, "_seconds", self.seconds)

    def seconds(self, programs: object, call: Call, items: object) -> float:
        shape = (call.bucket, call.batch_size)
        self.called[shape] += 1
        return self.kept[shape] * self.factor * (self.odd if call.bucket[0] >= 16 else 1)


def seconds(model: BucketedModel) -> dict[Shape, float]:
    return {(row.bucket, row.batch_size): row.seconds for row in model.costs.rows()}


@pytest.mark.parametrize("factor", [1, 0.2, 7])
def test_kept_costs_are_used_on_the_machine_that_they_are_of(
    model: BucketedModel, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    clock = Clock(model, monkeypatch, factor)
    model.warm_up()
    assert model.describe()["costs_from"] == "the build"
    assert seconds(model) == clock.kept
    most = {(bucket, rows) for bucket, rows in model.index.shapes if rows == model.costs.most_rows[bucket]}
    fewest = {(bucket, 1) for bucket in model.buckets}
    assert set(clock.called) == most | fewest
    assert sum(clock.called.values()) == 2 * len(model.buckets)


@pytest.mark.parametrize("key", sorted(CHANGED))
def test_costs_of_another_machine_are_measured_anew(
    model: BucketedModel, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    assert key in model.index.measured_on
    model.index.measured_on[key] = CHANGED[key]
    clock = Clock(model, monkeypatch, factor=3)
    model.warm_up()
    assert model.describe()["costs_from"] == "this start"
    assert seconds(model) == pytest.approx({shape: 3 * kept for shape, kept in clock.kept.items()})


@pytest.mark.parametrize("odd", [5, 0.1])
def test_kept_costs_that_the_calls_do_not_fit_are_measured_anew(
    model: BucketedModel, monkeypatch: pytest.MonkeyPatch, odd: float
) -> None:
    clock = Clock(model, monkeypatch, odd=odd)
    model.warm_up()
    assert model.describe()["costs_from"] == "this start"
    assert min(clock.called.values()) >= measure.WARM_ROUNDS + measure.MEASURED_ROUNDS


def test_what_a_start_took_is_not_doubted_by_the_next_one(
    model: BucketedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Which may be that of a worker in place of one that died, while all others are busy."""
    clock = Clock(model, monkeypatch)
    for odd, source in ((1, "the build"), (5, "an earlier start"), (0.1, "an earlier start")):
        clock.odd = odd
        model.warm_up(keep=tmp_path / "costs.json")
        assert model.describe()["costs_from"] == source
        assert seconds(model) == clock.kept


def test_what_a_start_measured_is_kept_for_the_next_one(
    model: BucketedModel, embedding_archive_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a worker that is started again, of an archive that was built elsewhere."""
    kept = tmp_path / "costs.json"
    model.index.measured_on["cpu"] = "another"
    Clock(model, monkeypatch, factor=3)
    model.warm_up(keep=kept)
    assert model.describe()["costs_from"] == "this start"
    measured = seconds(model)
    again = BucketedModel.load(embedding_archive_folder, warm=False)
    again.index.measured_on, again.index.costs = model.index.measured_on, model.index.costs
    clock = Clock(again, monkeypatch, factor=2)
    again.warm_up(keep=kept)
    assert again.describe()["costs_from"] == "an earlier start"
    assert seconds(again) == measured
    assert sum(clock.called.values()) == 2 * len(again.buckets)
    assert list(tmp_path.iterdir()) == [kept]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"measured_on": {}, "costs": []}', '{"costs": 5}'])
def test_kept_costs_that_cannot_be_used_are_measured_anew(
    model: BucketedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str
) -> None:
    model.index.measured_on["cpu"] = "another"
    Clock(model, monkeypatch)
    (tmp_path / "costs.json").write_text(damage)
    model.warm_up(keep=tmp_path / "costs.json")
    assert model.describe()["costs_from"] == "this start"
    assert read_costs(tmp_path / "costs.json") is not None
    model.warm_up(keep=tmp_path / "nosuch" / "costs.json")  # nor where nothing can be kept
    assert model.describe()["costs_from"] == "this start"


def test_a_table_that_lacks_a_shape_is_measured_anew(
    model: BucketedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(model, monkeypatch)
    model.index.costs = model.index.costs[1:]
    model.warm_up()
    assert model.describe()["costs_from"] == "this start"


def test_a_build_keeps_what_it_measured_and_under_which_conditions(embedding_archive_folder: Path) -> None:
    index = archive.read_index(embedding_archive_folder)
    assert {(row.bucket, row.batch_size) for row in index.costs} == set(index.shapes)
    assert index.measured_on["torch"] == torch.__version__
    assert index.measured_on["cpu"] == cpu_model()
    assert index.measured_on["threads"] == "1"


def test_threads_are_among_the_conditions() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        assert conditions({}) != {**conditions({}), "threads": str(before)}
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor : 0\nmodel name\t: AMD EPYC\nflags : a\n", "AMD EPYC"),
        ("processor : 0\nCPU part\t: 0xd40\n", "0xd40"),
    ],
)
def test_the_cpu_is_named_as_the_system_does(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert machine.cpu_model(tmp_path / "cpuinfo") == name
