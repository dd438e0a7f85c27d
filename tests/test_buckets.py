from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyshape.buckets import (
    bucket_name,
    call_shapes,
    choose,
    contains,
    largest_sides,
    parse_bucket,
    parse_buckets,
    volume,
)


@pytest.mark.parametrize(("length", "bucket"), [(55, 64), (112, 128)])
def test_buckets_64_and_128(length: int, bucket: int) -> None:
    assert choose((length,), parse_buckets([64, 128])) == (bucket,)


@pytest.mark.parametrize(
    ("length", "bucket"), [(1, (64,)), (64, (64,)), (65, (128,)), (128, (128,)), (129, None)]
)
def test_an_exact_fit_uses_its_own_bucket_and_one_more_the_next(
    length: int, bucket: tuple[int, ...] | None
) -> None:
    assert choose((length,), [(128,), (64,)]) == bucket


def test_the_cheapest_bucket_wins_and_equal_costs_go_to_the_smaller() -> None:
    buckets = [(64,), (128,), (256,)]
    assert choose((10,), buckets, {(64,): 3.0, (128,): 1.0, (256,): 2.0}) == (128,)
    assert choose((10,), buckets, {(64,): 1.0, (128,): 1.0, (256,): 1.0}) == (64,)
    assert choose((65,), buckets, {(64,): 1.0, (128,): 4.0, (256,): 4.0}) == (128,)


def test_a_picture_needs_both_its_sides() -> None:
    buckets = parse_buckets([[500, 600], [600, 500]])
    assert choose((480, 550), buckets) == (500, 600)
    assert choose((550, 480), buckets) == (600, 500)
    assert choose((550, 550), buckets) is None
    assert largest_sides(buckets) == (600, 600)


@pytest.mark.parametrize(
    ("value", "bucket"),
    [(128, (128,)), ([128], (128,)), ("128", (128,)), ([500, 600], (500, 600)), ("500x600", (500, 600))],
)
def test_parse(value: object, bucket: tuple[int, ...]) -> None:
    assert parse_bucket(value) == bucket


@pytest.mark.parametrize(
    "value",
    [0, -1, 1.5, 64.0, True, None, "", "x", "64x", "big", "-4", [], [1, 2, 3], ["64"], [64, None], {"a": 1}],
)
def test_parse_refuses(value: object) -> None:
    with pytest.raises(ValueError, match="bucket"):
        parse_bucket(value)


@given(st.lists(st.integers(1, 9999), min_size=1, max_size=2).map(tuple))
def test_a_name_is_read_back(bucket: tuple[int, ...]) -> None:
    assert parse_bucket(bucket_name(bucket)) == parse_bucket(list(bucket)) == bucket


def test_a_list_of_buckets_is_sorted_and_unique() -> None:
    assert parse_buckets([512, "16", [64], 16]) == [(16,), (64,), (512,)]


@pytest.mark.parametrize(("values", "says"), [([], "at least one"), ([64, [64, 64]], "one side")])
def test_a_list_of_buckets_refuses(values: list[object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_buckets(values)


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(sizes, st.lists(sizes, min_size=1, max_size=6))
def test_the_choice_contains_the_item_and_nothing_smaller_does(
    size: tuple[int, int], buckets: list[tuple[int, int]]
) -> None:
    found = choose(size, buckets)
    fitting = [bucket for bucket in buckets if bucket[0] >= size[0] and bucket[1] >= size[1]]
    if found is None:
        assert not fitting
    else:
        assert contains(found, size)
        assert volume(found) == min(map(volume, fitting))


def test_a_call_of_a_long_bucket_has_fewer_rows() -> None:
    buckets = parse_buckets([16, 64, 512])
    assert call_shapes(buckets, [4, 1, 2], largest_call=128) == [
        ((16,), 1),
        ((16,), 2),
        ((16,), 4),
        ((64,), 1),
        ((64,), 2),
        ((512,), 1),  # too long, and yet somebody may send one
    ]
    assert len(call_shapes(buckets, [1, 2, 4])) == 9
    assert call_shapes([(3, 5)], [2, 4], largest_call=60) == [((3, 5), 2), ((3, 5), 4)]
