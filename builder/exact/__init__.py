"""Exact padding: see `ExactPadding`."""

from builder.exact.module import ExactPadding, UnknownOperation

__all__ = ["ExactPadding", "UnknownOperation"]
