"""Reads what sentence-transformers keeps beside a cross-encoder: modules.json and the files that it names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from anyshape.building.errors import BuildError
from anyshape.building.sentence_files import (
    MODULES,
    SETTINGS,
    Files,
    read_json,
    read_modules,
    read_settings,
    read_transformer,
)
from anyshape.building.sentence_folder import Sentence


@dataclass(frozen=True)
class Ranking(Sentence):
    """How a query and a text get a score; a prompt stands before the query.

    activation: what becomes of the score, a dotted name; None where config.json says it, or nothing does.
    """

    pooling: Tuple[str, ...] = ()
    activation: Optional[str] = None


def read_ranking(files: Files) -> Ranking:
    """What the files of a cross-encoder say; one that is a classifier alone has none.

    Raises BuildError, which names the file and what in it is not known.
    """
    kinds, paths = read_modules(files)
    if kinds is None:
        return Ranking()
    if kinds != ["Transformer"]:
        raise BuildError(f"{MODULES} has {' and '.join(kinds)}: it must be Transformer alone")
    kind = "sequence-classification"
    max_length, lower_case = read_transformer(files, paths[0], task=kind, output="logits", feature="scores")
    return Ranking(
        transformer=paths[0],
        max_length=max_length,
        lower_case=lower_case,
        described=True,
        activation=(read_json(files, SETTINGS) or {}).get("activation_fn"),
        **{**read_settings(files, "CrossEncoder"), "dimensions": None},
    )
