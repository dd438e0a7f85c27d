"""The simulated server against queueing theory, and the command against the simulation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anyshape.cli.main import main
from anyshape.costs import CostTable
from anyshape.packing import fifo, pack

pytestmark = pytest.mark.cluster
CALL = 0.01  # seconds of any call
ONE = CostTable({((8,), 1): CALL})
MANY = CostTable({((8,), 1): CALL, ((8,), 8): CALL})


def server_of(**options: Any) -> Any:
    from anyshape.capacity.simulation import Server

    bare = {"batch_size": 1, "max_delay": 0.0, "queue": 10**9, "per_request": 0.0, "per_batch": 0.0}
    return Server(**{**bare, "frontend": 0.0, **options})


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_worker_with_equal_calls_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    from anyshape.capacity.simulation import simulate

    outcome = simulate(server_of(), ONE, pack, [(5,)] * 60_000, rate=load / CALL)
    waits = float(outcome.latencies.mean()) - CALL
    assert waits == pytest.approx(load * CALL / (2 * (1 - load)), rel=0.06)
    assert outcome.busy == pytest.approx(load, rel=0.02)
    assert outcome.throughput == pytest.approx(load / CALL, rel=0.02)


def test_two_workers_bear_twice_as_much() -> None:
    from anyshape.capacity.simulation import saturate

    sizes = [(5,)] * 2000
    assert saturate(server_of(), ONE, pack, sizes) == pytest.approx(1 / CALL, rel=0.01)
    assert saturate(server_of(workers=2), ONE, pack, sizes) == pytest.approx(2 / CALL, rel=0.01)


def test_a_full_hand_over_is_one_call() -> None:
    from anyshape.capacity.simulation import saturate, simulate

    server, sizes = server_of(batch_size=8, max_delay=0.001), [(5,)] * 2000
    assert saturate(server, MANY, pack, sizes) == pytest.approx(8 / CALL, rel=0.01)
    outcome = simulate(server, MANY, pack, sizes, rate=1e9)
    assert outcome.calls == outcome.handovers == 250
    assert outcome.run == 2000 * 8
    assert outcome.real == 2000 * 5


def test_around_the_model_and_the_frontend_count() -> None:
    from anyshape.capacity.simulation import saturate, simulate

    server, sizes = server_of(per_request=0.002, per_batch=0.003, frontend=0.005), [(5,)] * 1000
    assert saturate(server, ONE, pack, sizes) == pytest.approx(1 / (CALL + 0.005), rel=0.01)
    alone = simulate(server, ONE, pack, sizes, rate=0.01)
    assert alone.percentile(99) == pytest.approx(CALL + 0.005 + 0.005)


def test_a_frontend_on_the_same_core_takes_its_share() -> None:
    from anyshape.capacity.simulation import saturate

    server = server_of(frontend=0.01, cores=1)  # as long as the call: half of the core
    assert saturate(server, ONE, pack, [(5,)] * 1000) == pytest.approx(0.5 / CALL, rel=0.01)


def test_a_worker_waits_for_company_no_longer_than_it_may() -> None:
    from anyshape.capacity.simulation import simulate

    server = server_of(batch_size=8, max_delay=0.02)
    alone = simulate(server, MANY, pack, [(5,)] * 500, rate=1e-4)
    assert alone.percentile(50) == pytest.approx(0.02 + CALL)
    assert alone.handovers == 500


def test_a_full_queue_refuses() -> None:
    from anyshape.capacity.simulation import simulate

    outcome = simulate(server_of(queue=3), ONE, pack, [(5,)] * 5000, rate=2 / CALL)
    assert outcome.answered + outcome.refused == 5000
    assert outcome.refused == pytest.approx(2500, rel=0.1)
    assert outcome.latencies.max() <= 5 * CALL + 1e-9  # three wait, one is in hand


def test_answers_that_leave_with_their_call_come_earlier() -> None:
    from anyshape.capacity.simulation import simulate

    costs = CostTable({((8,), 1): 0.001, ((64,), 1): 0.1})
    sizes = [(5,), (60,)] * 1000
    late, early = (
        simulate(server_of(batch_size=8, early=early), costs, fifo, sizes, rate=12) for early in (False, True)
    )
    assert early.latencies.mean() < late.latencies.mean()
    assert early.answered == late.answered == 2000


def counted(ratios: dict[str, list[float]]) -> Any:
    """What a server publishes that has run calls with these ratios, by bucket."""
    from anyshape.server.scrape import Scrape
    from handler.counts import STEPS

    lines = []
    for bucket, values in ratios.items():
        labels = f'bucket="{bucket}",model_name="m"'
        for step in (*STEPS["_ratio"], float("inf")):
            below = sum(value <= step for value in values)
            written = "+Inf" if step == float("inf") else step
            lines.append(f'anyshape_call_duration_ratio_bucket{{le="{written}",{labels}}} {below}.0')
        lines.append(f"anyshape_call_duration_ratio_sum{{{labels}}} {sum(values)}")
        lines.append(f"anyshape_call_duration_ratio_count{{{labels}}} {len(values)}.0")
    return Scrape.of("\n".join(lines))


def test_calls_take_as_much_longer_as_a_server_has_counted() -> None:
    from anyshape.capacity.simulation import simulate
    from anyshape.capacity.slowness import Slowness

    drawn = np.random.default_rng(0).gamma(9.0, 1.4 / 9, 4000).tolist()
    slowness = Slowness.of(counted({"8": drawn, "64": [3.0] * 10}), model_name="m")
    assert slowness.mean == pytest.approx((sum(drawn) + 30) / 4010, rel=1e-6)
    chance = np.random.default_rng(1)
    again = [slowness.draw((8,), chance) for _ in range(20_000)]
    assert np.mean(again) == pytest.approx(np.mean(drawn), rel=0.02)
    assert np.std(again) == pytest.approx(np.std(drawn), rel=0.1)
    # Too few calls of that bucket: as slow as all together.
    assert np.mean([slowness.draw((64,), chance) for _ in range(5000)]) == pytest.approx(1.4, rel=0.05)

    sizes, rate = [(5,)] * 40_000, 0.5 / CALL
    load = rate * CALL * float(np.mean(again))
    varies = 1 + float(np.var(again) / np.mean(again) ** 2)  # Pollaczek and Khinchine, calls that vary
    outcome = simulate(server_of(slowness=slowness), ONE, pack, sizes, rate)
    waits = float(outcome.latencies.mean()) - load / rate
    assert waits == pytest.approx(load * (load / rate) * varies / (2 * (1 - load)), rel=0.08)


def test_nothing_counted_is_no_slowness() -> None:
    from anyshape.capacity.slowness import Slowness

    slowness = Slowness.of(counted({"8": [2.0] * 29}), model_name="m")
    assert slowness.mean == slowness.draw((8,), np.random.default_rng(0)) == 1.0


def test_the_command_finds_the_cores_of_many_servers(
    embedding_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from anyshape.archive import read_packed
    from anyshape.capacity.simulation import Server, simulate
    from anyshape.capacity.sizing import draw
    from anyshape.cli.capacity import costs_of
    from anyshape.packed import read_recipe

    lengths = tmp_path / "lengths.json"
    lengths.write_text(json.dumps({"5": 6, "20": 3, "31": 1, "90": 2}), encoding="utf-8")
    command = ["capacity", "--lengths", str(lengths), "--costs", str(embedding_archive), "--workers", "2"]
    assert main([*command, "--rate", "1e6", "--p99", "1000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cores"] == 2 * found["servers"]
    assert found["servers"] * found["rate"] == pytest.approx(1e6)
    assert found["p99_ms"] <= 1000
    assert found["rate"] <= found["most"] <= found["saturated"]
    assert found["larger_than_every_bucket"] == 2
    costs, policy = costs_of(
        embedding_archive, read_packed(embedding_archive).index, read_recipe(embedding_archive)
    )
    again = simulate(
        Server(workers=2, batch_size=8, max_delay=0.001),
        costs,
        policy,
        draw({(5,): 6, (20,): 3, (31,): 1}, 20_000, seed=1),
        found["rate"],
        seed=1,
    )
    assert again.percentile(99) * 1e3 == pytest.approx(found["p99_ms"])

    assert main([*command, "--rate", "10", "--p99", "0.001"]) == 1
    assert "no number of cores answers 99 % within 0.001 ms" in capsys.readouterr().err
