"""Serve inputs of any shape with models that were compiled for fixed ones.

    from anyshape import BucketedModel

    model = BucketedModel.load("model_store/minilm.mar")
    model(["short", "and a longer text"])

`anyshape --help` lists the commands. What is public is what this module names; it is loaded when it is asked
for, so that printing a help text does not load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyshape.model import BucketedModel as BucketedModel

__version__ = "0.1.0"
__all__ = ["BucketedModel", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "BucketedModel":
        from anyshape.model import BucketedModel

        return BucketedModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
