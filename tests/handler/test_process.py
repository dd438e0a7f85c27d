from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from handler import process
from handler.config import HandlerConfig
from handler.process import cores, prepare_process, threads_per_worker

CONFIG = {"task": "sentence-embedding", "model": "m:f", "buckets": [16]}


@pytest.fixture(autouse=True)
def _same_threads_afterwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("workers", "threads"), [(1, 8), (2, 4), (3, 2), (8, 1), (9, 1)])
def test_threads_and_workers_never_exceed_the_cores(
    workers: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "cores", lambda: 8)
    assert threads_per_worker(HandlerConfig.from_mapping(CONFIG), workers) == threads


def test_the_recipe_comes_before_the_environment_and_that_before_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = HandlerConfig.from_mapping(CONFIG)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_per_worker(config, 1) == 3
    assert threads_per_worker(HandlerConfig.from_mapping({**CONFIG, "threads": 5}), 1) == 5


@pytest.mark.parametrize("value", ["", "many", "2,1", "-1"])
def test_an_environment_that_names_no_number_is_passed_over(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert threads_per_worker(HandlerConfig.from_mapping(CONFIG), cores()) == 1


def test_the_process_has_its_threads() -> None:
    prepare_process(HandlerConfig.from_mapping({**CONFIG, "threads": 1}), 1)
    assert torch.get_num_threads() == 1
    assert os.environ["RAYON_NUM_THREADS"] == "1"
    del os.environ["RAYON_NUM_THREADS"]
