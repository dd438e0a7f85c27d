"""What is said of errors of somebody else's code."""

from __future__ import annotations

import pytest

from anyshape.building.errors import first_line, last_line


def test_a_message_is_one_of_its_lines() -> None:
    error = ValueError("\nfirst\nmiddle\nlast\n")
    assert first_line(error) == "ValueError: first"
    assert last_line(error) == "ValueError: last"


def test_an_error_without_a_message_is_where_it_is_from() -> None:
    width = 3
    with pytest.raises(AssertionError) as found:
        assert_multiple(width)
    bare = AssertionError().with_traceback(found.value.__traceback__)
    assert first_line(bare).startswith("AssertionError: it says no more (test_errors.py, line ")
    assert first_line(bare).endswith(": raise AssertionError)")
    assert last_line(KeyError()) == "KeyError: it says no more"


def assert_multiple(width: int) -> None:
    if width % 2:
        raise AssertionError
