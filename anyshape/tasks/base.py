"""What every task does when it serves: read requests into items, answer from the model's outputs."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any, Callable, ClassVar, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from anyshape.bodies import TEXT, Body
from anyshape.buckets import Bucket
from anyshape.errors import ConfigError, ModelFailed, UnprocessableInput
from anyshape.items import Answer, Input, Item, Parts, Read, Row
from anyshape.padding import InputSpec
from anyshape.settings import Settings

Parameters = Mapping[str, Any]  # of a request; what each may be, its task's `parameters` say

# How a request says that a text may be cut, at the end of the refusal of one that is too long.
TO_CUT = ', or send {"parameters": {"truncation": true}}'


class Saved(Dict[str, Any]):
    """What a task saved as JSON in `path` when the archive was built.

    Raises ConfigError, which names the file, where it cannot be read or lacks what is asked of it.
    """

    def __init__(self, path: Path) -> None:
        self._name = f"{path.parent.name}/{path.name}"
        try:
            super().__init__(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{self._name} cannot be read ({error}): build the archive again") from None

    def __missing__(self, key: str) -> Any:
        raise ConfigError(f"{self._name} lacks {key!r}: build the archive again")


class Task:
    """One kind of question that a model answers, named as the Hugging Face pipeline is.

    `read` (a whole batch at once) → the compiled model → `unpad` and `answer` (item by item), or `merge`
    where an input became several items. Its other half loads models and saves what this one needs
    (`building.tasks`).

    body: what a request brings (`bodies`): TEXT, IMAGE or one's own; sides: how many sides a bucket has.
    over_max: the policies for inputs beyond every bucket. parameters: what a request may set, each with a
    function that returns the checked value or raises ValueError saying what is allowed.
    per_token: whether the model gives an output for each token, and not one for the whole item.
    options: the keys of `task_options` that it understands, with their defaults.
    builder: for a task of one's own, the half that builds: ``module:Class`` in a file beside the recipe, or
        the name of the task whose half it shares.
    """

    name: ClassVar[str] = ""
    builder: ClassVar[str] = ""
    body: ClassVar[Body] = TEXT
    sides: ClassVar[int] = 1
    per_token: ClassVar[bool] = False
    over_max: ClassVar[Sequence[str]] = ("reject",)
    parameters: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}
    options: ClassVar[Mapping[str, Any]] = {}

    inputs: Tuple[InputSpec, ...]

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Load what was saved in `folder` when the archive was built.

        Raises ConfigError for options that the task lacks.
        """
        for key in settings.task_options:
            if key not in self.options:
                known = ", ".join(sorted(self.options)) or "none"
                raise ConfigError(f"handler.task_options.{key} is not known to {self.name}: {known}")
        if settings.over_max not in self.over_max:
            raise ConfigError(
                f"handler.over_max must be one of {', '.join(self.over_max)} for {self.name}, "
                f"not {settings.over_max!r}"
            )
        self.settings = settings
        self.chosen: Dict[str, Any] = {**self.options, **settings.task_options}
        self.buckets: Sequence[Bucket] = ()  # the archive's, smallest first; the engine sets them

    def check_parameters(self, parameters: Parameters) -> Dict[str, Any]:
        """The checked parameters of a request. Raises UnprocessableInput, which names the parameter."""
        checked = {}
        for key, value in parameters.items():
            if key not in self.parameters:
                known = ", ".join(sorted(self.parameters)) or "none"
                raise UnprocessableInput(
                    f"parameter {reprlib.repr(key)} is not known to {self.name}; known: {known}"
                )
            try:
                checked[key] = self.parameters[key](value)
            except ValueError as error:
                # A part of it: a megabyte or a thousand nested lists would not fit into an answer.
                shown = reprlib.repr(value)
                raise UnprocessableInput(f"parameter {key!r} {error}, not {shown}") from None
        return checked

    def check_request(self, inputs: Sequence[Input], parameters: Parameters) -> None:
        """Raises InputTooLarge if the inputs of one request together are too much work. Reads none."""

    def read(self, inputs: Sequence[Input], parameters: Sequence[Parameters]) -> List[Read]:
        """Turn each input of a whole batch into an item, into parts, or into the error that it deserves."""
        raise NotImplementedError

    def unpad(self, row: Row, item: Item) -> Row:
        """The part of a row that belongs to the item: what the unpadded model would have returned."""
        return row

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Answer:
        """The answer for one un-padded row, as the Hugging Face pipeline gives it. May hold numpy arrays.

        Raises ModelFailed if the model's output is not a number.
        """
        raise NotImplementedError

    def merge(self, rows: Sequence[Row], parts: Parts, parameters: Parameters) -> Answer:
        """The answer for an input that became several items, from the un-padded row of each.

        Raises ModelFailed if the model's output is not a number.
        """
        raise NotImplementedError


def finite(values: np.ndarray) -> np.ndarray:
    """`values`, if they are all finite. Raises ModelFailed otherwise: JSON has no NaN."""
    if b"\0" in np.isfinite(values).tobytes():  # of a vector, in half the time that `all` takes
        raise ModelFailed("the model answered with a value that is not a number (NaN or infinite)")
    return values


def boolean(value: Any) -> bool:
    """A parameter that is true or false."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def text_or_none(value: Any) -> Any:
    """A parameter that is a text, or null for none."""
    if value is not None and not isinstance(value, str):
        raise ValueError("must be a text or null")
    return value


def whole_number(least: int, most: int) -> Callable[[Any], int]:
    """A parameter that is a whole number in a range."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return check


def positive_int_or_none(value: Any) -> Any:
    """A parameter that is a positive whole number, or null for no limit."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError("must be a positive whole number or null")
    return value


def fraction(value: Any) -> float:
    """A parameter from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError("must be a number from 0 to 1")
    return float(value)


def texts(value: Any) -> List[str]:
    """A parameter that is a list of texts."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError("must be a list of texts")
    return value


def softmax(logits: Any) -> Any:
    """Probabilities along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def top_classes(logits: Any, labels: Sequence[str], top_k: Any, function: str) -> List[Dict[str, Any]]:
    """Classification answers, best first: softmax, sigmoid or the plain scores of one row of logits."""
    scores = finite(np.asarray(logits, dtype=np.float32))
    if function == "softmax":
        scores = softmax(scores)
    elif function == "sigmoid":
        scores = 0.5 + 0.5 * np.tanh(scores / 2)  # the same, and never overflows
    order = np.argsort(-scores, kind="stable")[:top_k]
    return [{"label": labels[i], "score": float(scores[i])} for i in order]


def one_of(*allowed: str) -> Callable[[Any], str]:
    """A parameter that is one of a few words."""

    def check(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return str(value)

    return check
