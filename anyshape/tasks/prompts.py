"""Texts that stand before an input: the one that a request brings or names, else the model's own."""

from __future__ import annotations

from typing import Any, Mapping, Optional

from anyshape.errors import UnprocessableInput
from anyshape.tasks.base import Parameters, text_or_none

PARAMETERS = {"prompt": text_or_none, "prompt_name": text_or_none}
OPTIONS = {"prompts": None, "default_prompt": None}


class Prompts:
    """Those of a model by name, and which of them stands before inputs that choose none."""

    def __init__(self, saved: Mapping[str, Any]) -> None:
        self.by_name: Mapping[str, str] = saved["prompts"]
        name: Optional[str] = saved["default_prompt"]
        self.usual = "" if name is None else self.by_name.get(name, "")

    def check(self, parameters: Parameters) -> None:
        """Raises UnprocessableInput if the model has no prompt of the name that is asked for."""
        name = parameters.get("prompt_name")
        if name is not None and name not in self.by_name:
            known = ", ".join(sorted(self.by_name)) or "none"
            raise UnprocessableInput(f"the model has no prompt of that prompt_name; it has {known}")

    def of(self, parameters: Parameters) -> str:
        """The prompt of a request; its own text goes before a name, and the empty text means none."""
        if parameters.get("prompt") is not None:
            return str(parameters["prompt"])
        name = parameters.get("prompt_name")
        return self.usual if name is None else self.by_name[name]
