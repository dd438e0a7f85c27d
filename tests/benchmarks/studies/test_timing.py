from __future__ import annotations

import gc

import pytest

from benchmarks.studies.timing import in_turns, once, steady


class Clock:
    """Stands still but for what a call adds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


def test_calls_take_turns_after_a_warm_up() -> None:
    clock, made = Clock(), []

    def call(name: str, seconds: float) -> None:
        made.append(name)
        clock.spend(seconds * len(made))

    calls = {"a": lambda: call("a", 1.0), "b": lambda: call("b", 2.0)}
    found = in_turns(calls, rounds=3, warm_up=1, clock=clock)
    assert "".join(made) == "ab" + "ab" + "ba" + "ab"
    assert found["a"].times == pytest.approx([3, 6, 7])
    assert found["b"].times == pytest.approx([8, 10, 16])
    assert found["a"].median == pytest.approx(6)


def test_garbage_is_collected_while_a_call_is_timed() -> None:
    seen: list[bool] = []
    assert once(lambda: seen.append(gc.isenabled())) >= 0
    assert seen == [True]


def test_a_steady_call_is_made_many_times() -> None:
    made: list[int] = []
    assert steady(lambda: made.append(1), 0.01) > 0
    assert len(made) > 10
