"""Exact padding: see `ExactPadding`."""

from anyshape.building.exact.module import ExactPadding, UnknownOperation

__all__ = ["ExactPadding", "UnknownOperation"]
