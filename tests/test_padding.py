from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyshape.items import Item
from anyshape.padding import MASK, SIZE, InputSpec, PaddingBuffers, crop

TEXT = (
    InputSpec("input_ids", "int64", pad=99),
    InputSpec("attention_mask", "int64", MASK),
)
PICTURE = (
    InputSpec("pixel_values", "float32", pad=-1.0, channels=3),
    InputSpec("valid_size", "int64", SIZE),
)


def text(length: int, seed: int = 0) -> Item:
    return Item((length,), {"input_ids": np.random.default_rng([length, seed]).integers(0, 50, length)})


def picture(height: int, width: int, seed: int = 0) -> Item:
    values = np.random.default_rng([height, width, seed]).random((3, height, width), np.float32)
    return Item((height, width), {"pixel_values": values})


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(0, 3))
def test_what_is_padded_in_one_dimension_is_cut_out_again(lengths: list[int], spare: int) -> None:
    items = [text(length, i) for i, length in enumerate(lengths)]
    ids, mask = PaddingBuffers(TEXT).fill((12,), len(items) + spare, items)
    assert ids.shape == mask.shape == (len(items) + spare, 12)
    for row, item in enumerate(items):
        (length,) = item.size
        np.testing.assert_array_equal(crop(ids[row].numpy(), item.size, 0), item.data["input_ids"])
        assert (ids[row, length:] == 99).all()
        assert mask[row].tolist() == [1] * length + [0] * (12 - length)


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=5), st.integers(0, 3))
def test_lists_are_written_as_arrays_are(texts: list[tuple[int, bool]], spare: int) -> None:
    """Tokenizers bring lists, which are written all at once; a mask of its own is written row by row."""
    arrays, lists = [], []
    for seed, (length, masked) in enumerate(texts):
        item = text(length, seed)
        mask = {"attention_mask": [1] * (length - 1) + [0]} if masked else {}
        arrays.append(Item(item.size, {**item.data, **mask}))
        lists.append(Item(item.size, {"input_ids": item.data["input_ids"].tolist(), **mask}))
    expected = PaddingBuffers(TEXT).fill((12,), len(texts) + spare, arrays)
    for found, wanted in zip(PaddingBuffers(TEXT).fill((12,), len(texts) + spare, lists), expected):
        assert found.equal(wanted)


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 9)), min_size=1, max_size=4), st.integers(0, 2))
def test_what_is_padded_in_two_dimensions_is_cut_out_again(sizes: list[tuple[int, int]], spare: int) -> None:
    items = [picture(h, w, i) for i, (h, w) in enumerate(sizes)]
    pixels, valid = PaddingBuffers(PICTURE).fill((7, 9), len(items) + spare, items)
    assert pixels.shape == (len(items) + spare, 3, 7, 9)
    for row, item in enumerate(items):
        height, width = item.size
        np.testing.assert_array_equal(crop(pixels[row].numpy(), item.size, 1), item.data["pixel_values"])
        assert (pixels[row, :, height:] == -1).all()
        assert (pixels[row, :, :, width:] == -1).all()
        assert valid[row].tolist() == [height, width]


def test_rows_to_spare_repeat_a_real_row() -> None:
    for buffers, bucket, items in (
        (PaddingBuffers(TEXT), (8,), [text(3), text(5)]),
        (PaddingBuffers(PICTURE), (4, 6), [picture(2, 5), picture(4, 6)]),
    ):
        for tensor in buffers.fill(bucket, 5, items):
            for row in (2, 3, 4):
                assert tensor[row].equal(tensor[0])


shapes = st.sampled_from([((8,), 4), ((8,), 1), ((16,), 2), ((8,), 6)])
calls = st.lists(st.tuples(shapes, st.lists(st.integers(1, 8), min_size=1, max_size=6)), max_size=6)


@given(calls)
def test_kept_buffers_hold_nothing_of_earlier_calls(
    history: list[tuple[tuple[object, int], list[int]]],
) -> None:
    kept = PaddingBuffers(TEXT)
    for seed, ((bucket, batch_size), lengths) in enumerate(history):
        items = [text(length, seed) for length in lengths[:batch_size]]
        found = kept.fill(bucket, batch_size, items)  # type: ignore[arg-type]
        fresh = PaddingBuffers(TEXT).fill(bucket, batch_size, items)  # type: ignore[arg-type]
        assert all(a.equal(b) for a, b in zip(found, fresh))


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), min_size=1, max_size=6))
def test_kept_pictures_hold_nothing_of_earlier_calls(sizes: list[tuple[int, int]]) -> None:
    kept = PaddingBuffers(PICTURE)
    for seed, size in enumerate(sizes):
        found = kept.fill((5, 6), 2, [picture(*size, seed)])
        fresh = PaddingBuffers(PICTURE).fill((5, 6), 2, [picture(*size, seed)])
        assert all(a.equal(b) for a, b in zip(found, fresh))


def test_a_kept_buffer_is_used_again() -> None:
    buffers = PaddingBuffers(TEXT)
    first = buffers.fill((8,), 4, [text(8)])
    second = buffers.fill((8,), 2, [text(3)])
    assert [t.data_ptr() for t in first] == [t.data_ptr() for t in second]


@pytest.mark.parametrize(("batch_size", "lengths"), [(1, [3, 3]), (2, []), (2, [9]), (2, [3, 9])])
def test_what_does_not_fit_is_refused(batch_size: int, lengths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"do(es)? not f"):
        PaddingBuffers(TEXT).fill((8,), batch_size, [text(length) for length in lengths])


@pytest.mark.parametrize("spec", [*TEXT, *PICTURE])
def test_a_spec_is_read_back_from_json(spec: InputSpec) -> None:
    assert msgspec.convert(msgspec.to_builtins(spec), InputSpec) == spec
