"""Numbers on the command line."""

from __future__ import annotations

import argparse


def positive(text: str) -> float:
    """For `type=`: more than nothing."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e12:
        raise argparse.ArgumentTypeError(f"a positive number, not {text!r}")
    return value


def count(text: str) -> int:
    """For `type=`: 1, 2, 3 …"""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a positive whole number, not {text!r}")
    return int(text)
