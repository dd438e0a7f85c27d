"""What a model of texts takes beside the tokenizer's own inputs: as the recipe says, or its forward asks."""

from __future__ import annotations

import inspect
import random
from typing import Any, Dict, List, Mapping, Sequence

import msgspec
import torch

from anyshape.building.pooling import TOKEN_INPUTS
from anyshape.errors import ConfigError
from anyshape.recipe import Section, TokenInput
from anyshape.tasks.token_inputs import WORDS

KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def inputs_of(section: Section, tokenizer: Any, model: torch.nn.Module) -> List[str]:
    """The token inputs that the tokenizer makes for the model, in the order of TOKEN_INPUTS.

    One that the model cannot do without is among them whatever the tokenizer says. Raises ConfigError.
    """
    accepted = inspect.signature(model.forward).parameters
    names = [
        name
        for name in TOKEN_INPUTS
        if name in accepted and (name in tokenizer.model_input_names or _is_required(accepted[name]))
    ]
    if "input_ids" not in names:
        raise ConfigError(
            f"handler.model: {section.model} must take input_ids (and attention_mask); its forward takes "
            f"{', '.join(accepted) or 'nothing'}"
        )
    return [name for name in names if name not in section.inputs]


def token_inputs(section: Section, tokenizer: Any, model: torch.nn.Module) -> Dict[str, Dict[str, Any]]:
    """The others, by name: what the recipe says of each, checked, and positions where the model needs them.

    Raises ConfigError, which names the input.
    """
    accepted = inspect.signature(model.forward).parameters
    for name, one in section.inputs.items():
        where = f"handler.inputs.{name}"
        if name in ("input_ids", "attention_mask"):
            raise ConfigError(f"{where} is made of the text: leave it out")
        if not _takes(model, name):
            raise ConfigError(f"{where}: the model's forward takes {', '.join(accepted)}, and no {name}")
        _check(where, one, tokenizer)
    found = dict(section.inputs)
    for name, parameter in accepted.items():
        if name in TOKEN_INPUTS or name in found or not _is_required(parameter):
            continue
        if name != "position_ids":
            raise ConfigError(
                f"handler.model: its forward needs {name}: say in handler.inputs where its values come from"
            )
        found[name] = TokenInput(values="positions")
    if section.layout != "items" and found:
        raise ConfigError(f"handler.inputs: {next(iter(found))} is not known to layout: rows: use items")
    return {name: msgspec.to_builtins(one) for name, one in found.items()}


def _takes(model: torch.nn.Module, name: str) -> bool:
    """Whether its forward names the input, or hands what it does not name on to a part that does."""
    accepted = inspect.signature(model.forward).parameters
    if name in accepted or all(one.kind is not inspect.Parameter.VAR_KEYWORD for one in accepted.values()):
        return name in accepted
    return any(name in inspect.signature(part.forward).parameters for part in model.modules())


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is inspect.Parameter.empty and parameter.kind in KINDS


def _check(where: str, one: TokenInput, tokenizer: Any) -> None:
    if one.values != WORDS:
        for key in ("special", "largest"):
            if getattr(one, key):
                raise ConfigError(f"{where}.{key} is for values of words: leave it out")
        return
    if one.largest is None:
        raise ConfigError(f"{where}.largest is missing: the largest number that a request may bring")
    _check_length(f"{where}.largest", one.largest, one, single=True)
    for token, value in one.special.items():
        if tokenizer.backend_tokenizer.token_to_id(token) is None:
            raise ConfigError(f"{where}.special: the tokenizer has no token {token!r}")
        _check_length(f"{where}.special.{token}", value, one)


def _check_length(where: str, value: Any, one: TokenInput, single: bool = False) -> None:
    count = len(value) if isinstance(value, list) else None
    if count != one.numbers and not (single and count is None):
        wanted = "a number" if one.numbers is None else f"a list of {one.numbers} numbers"
        raise ConfigError(f"{where} must be {wanted}, not {value!r}")


def sampled(saved: Mapping[str, Mapping[str, Any]], count: int, seed: int) -> Dict[str, List[Any]]:
    """Values of words for `count` tokens, the same for the same seed.

    The numbers of one value rise where they have one limit: a box with its corners in order.
    """
    draw = random.Random(seed)
    found: Dict[str, List[Any]] = {}
    for name, one in saved.items():
        if one["values"] != WORDS:
            continue
        numbers, largest = one["numbers"], one["largest"]
        limits: Sequence[Any] = largest if isinstance(largest, list) else [largest] * (numbers or 1)
        pick = draw.randint if one["dtype"] == "int64" else draw.uniform
        values = [[pick(one["least"], limit) for limit in limits] for _ in range(count)]
        values = values if isinstance(largest, list) else [sorted(value) for value in values]
        found[name] = [value[0] for value in values] if numbers is None else values
    return found
